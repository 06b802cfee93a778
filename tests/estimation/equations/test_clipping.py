"""Pixels that stick out: against dense fits, and as a state that clipping leaves alone."""

import math

import dense
import naive
import numpy as np
import pytest
from calls import pairs_of
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.stats import norm
from skimage import data

from fastkernel import SingularFitError, estimate_kernel, normal_equations
from fastkernel._machine.run import Run
from fastkernel.estimation.equations import clipping
from fastkernel.estimation.methods import lstsq

CAMERA = data.camera()
IMAGE = CAMERA[100:136, 200:240].astype(float)
SHAPE = (3, 4)
KERNEL = np.array([[0.0, 0.1, 0.1, 0.0], [0.2, 0.3, 0.1, 0.05], [0.0, 0.1, 0.0, 0.05]])


def noisy(rng, noise=2.0, image=IMAGE, mode="valid", boundary="zero"):
    result = naive.convolve(image, KERNEL, mode, boundary)
    return result + noise * rng.standard_normal(result.shape)


def with_outliers(result, rng, share=0.02, size=100.0):
    """A copy some of whose pixels are wrong by much more than their noise, and which."""
    bad = rng.random(result.shape) < share
    assert bad.any()
    return result + bad * size * rng.choice([-1, 1], result.shape) * rng.uniform(1, 3), bad


@pytest.mark.parametrize("sigma", [1.5, 2, 3, 5])
def test_the_deviation_of_what_is_left_of_normal_noise(sigma):
    second, _ = quad(lambda x: x**2 * norm.pdf(x), -sigma, sigma)
    mass, _ = quad(norm.pdf, -sigma, sigma)
    assert clipping.clipped_share(sigma) == pytest.approx(math.sqrt(second / mass))


@pytest.mark.parametrize("workers", [1, 3])
def test_within_a_bound(workers, small_tiles, rng):
    result = noisy(rng)
    weights = rng.uniform(0.3, 3, result.shape)
    used = rng.random(result.shape) > 0.1
    pair = pairs_of(IMAGE, result, SHAPE)[0]._replace(weights=weights, used=used)
    flipped = KERNEL[::-1, ::-1].copy()
    left = result - naive.convolve(IMAGE, KERNEL)
    found = clipping.within([pair, pair._replace(weights=None)], flipped, None, 2.0, Run(workers))
    assert_array_equal(found[0].used, used & (np.sqrt(weights) * np.abs(left) <= 2))
    assert_array_equal(found[1].used, used & (np.abs(left) <= 2))
    assert_array_equal(pair.used, used)


def test_what_moved(rng):
    pair = pairs_of(IMAGE, noisy(rng), SHAPE)[0]
    before = rng.random(pair.window.shape) < 0.7
    after = rng.random(pair.window.shape) < 0.7
    old, new = pair._replace(used=before), pair._replace(used=after)
    went, came = clipping.moved_pixels([old, pair], [new, new])
    assert_array_equal(went[0].used, before & ~after)
    assert_array_equal(came[0].used, after & ~before)
    assert_array_equal(went[1].used, ~after)
    assert not came[1].used.any()


# What is known of the pixels, as arguments; with names that `dense.rows_of` shares.
def plain(rng, shape):
    return {}


def masked(rng, shape):
    return {"mask": rng.random(shape) < 0.1}


def weighed(rng, shape):
    return {"weights": rng.uniform(0.5, 2, shape) * (rng.random(shape) > 0.05)}


def everything(rng, shape):
    return masked(rng, shape) | weighed(rng, shape)


def rows_without(result, used, degree=None, image=IMAGE, boundary=None, **pixels):
    mask = ~used | pixels.pop("mask", False)
    given = {"degree": degree, "boundary": boundary, "mask": mask}
    return dense.rows_of(image, result, SHAPE, **given, **pixels)


@pytest.mark.parametrize("degree", [None, 0, 2])
@pytest.mark.parametrize("known", [plain, masked, weighed, everything])
def test_outliers_are_left_out_and_nothing_else(known, degree, rng):
    result, bad = with_outliers(noisy(rng), rng)
    pixels = known(rng, result.shape)
    good = np.ones(result.shape, bool)
    good &= ~pixels.get("mask", ~good) & (pixels.get("weights", good) > 0)
    given = {"background": degree, **pixels}
    fit = estimate_kernel(IMAGE, result, SHAPE, sigma_clip=5, **given)
    assert_array_equal(fit.used, good & ~bad)
    rows = rows_without(result, ~bad, degree, **pixels)
    want = dense.fit(rows)
    assert_allclose(fit.kernel.ravel(), want.taps, rtol=0, atol=1e-9 * np.abs(want.taps).max())
    assert fit.n_pixels == (rows.w > 0).sum()
    energy = rows.w @ want.residual**2
    assert fit.residual_rms == pytest.approx(math.sqrt(energy / rows.w.sum()), rel=1e-9)
    bars = np.sqrt(want.variance(rows.w) * np.diag(want.inverse))
    assert_allclose(fit.standard_errors.ravel(), bars, rtol=1e-8)
    # The equations are those of the pixels that were kept.
    pixels["mask"] = bad | pixels.get("mask", False)
    kept = normal_equations(IMAGE, result, SHAPE, background=degree, **pixels)
    assert (fit.equations.n_pixels, fit.equations.background_terms) == (
        kept.n_pixels,
        kept.background_terms,
    )
    assert fit.equations.total_weight == pytest.approx(kept.total_weight)
    assert_allclose(fit.equations.gram, kept.gram, rtol=0, atol=1e-12 * kept.gram.max())
    assert_allclose(fit.equations.moments, kept.moments, rtol=1e-9)
    assert fit.equations.energy == pytest.approx(kept.energy, rel=1e-9)


MODES = [("full", None), ("same", None), *(("same", b) for b in naive.PAD_MODES)]


@pytest.mark.parametrize(("mode", "boundary"), MODES)
def test_outliers_at_every_border(mode, boundary, rng):
    result, bad = with_outliers(noisy(rng, mode=mode, boundary=boundary or "zero"), rng)
    bad[0, 0] = bad[-1, -1] = True
    result[0, 0], result[-1, -1] = 900, -700
    fit = estimate_kernel(IMAGE, result, SHAPE, boundary=boundary, sigma_clip=5)
    inside = np.ones(result.shape, bool)
    if (mode, boundary) == ("same", None):
        inside = np.zeros(result.shape, bool)
        naive.inside(inside, SHAPE)[:] = True
    assert_array_equal(fit.used, inside & ~bad)
    want = dense.fit(rows_without(result, ~bad, boundary=boundary)).taps
    assert_allclose(fit.kernel.ravel(), want, rtol=0, atol=1e-9)


def test_several_pairs_have_one_deviation(rng):
    sources = [IMAGE, IMAGE.T[:25], CAMERA[300:330, 60:90].astype(float)]
    results = [noisy(rng, image=image) for image in sources]
    weights = [None, rng.uniform(0.5, 2, results[1].shape), None]
    both = [with_outliers(result, rng) for result in results[:2]]
    results[:2], bad = zip(*both, strict=True)
    fit = estimate_kernel(sources, results, SHAPE, weights=weights, background=1, sigma_clip=5)
    assert isinstance(fit.used, tuple)
    kept = [~bad[0], ~bad[1], np.ones(results[2].shape, bool)]
    for got, want in zip(fit.used, kept, strict=True):
        assert_array_equal(got, want)
    parts = [
        rows_without(result, used, 1, image, **({} if w is None else {"weights": w}))
        for result, used, image, w in zip(results, kept, sources, weights, strict=True)
    ]
    want = dense.fit(dense.joined(parts)).taps
    assert_allclose(fit.kernel.ravel(), want, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [1e6, 1e10, 1e15, 1e30])
@pytest.mark.parametrize("degree", [None, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_pixels_that_say_nothing_at_all(dtype, degree, size, rng):
    """Of numbers that stand for "no pixel" not even the rounding is left in the sums."""
    if dtype == np.int64 and size > 1e18:
        size = 9e18
    result = noisy(rng)
    bad = rng.random(result.shape) < 0.02
    result = np.rint(np.where(bad, size, result)).astype(dtype)
    fit = estimate_kernel(IMAGE, result, SHAPE, background=degree, sigma_clip=5)
    assert_array_equal(fit.used, ~bad)
    rows = rows_without(np.where(bad, 0, result), ~bad, degree)
    want = dense.fit(rows)
    assert_allclose(fit.kernel.ravel(), want.taps, rtol=0, atol=1e-9)
    rms = math.sqrt(np.mean(want.residual[rows.w > 0] ** 2))
    assert fit.residual_rms == pytest.approx(rms, rel=1e-6)


def test_integers_stay_exact(rng):
    source = CAMERA[100:140, 200:240]
    exact = np.rint(naive.convolve(source, KERNEL)).astype(np.uint8)
    bad = rng.random(exact.shape) < 0.02
    result = np.where(bad, exact + np.uint8(90), exact)
    fit = estimate_kernel(source, result, SHAPE, sigma_clip=5)
    assert_array_equal(fit.used, ~bad)
    x = naive.design_matrix(source.astype(int), SHAPE)[~bad.ravel()]
    assert_array_equal(fit.equations.gram, x.T @ x)
    assert_array_equal(fit.equations.moments, x.T @ result[~bad].astype(int))


@pytest.mark.parametrize("sigma", [1.8, 3, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_nothing_sticks_out_of_rounding(dtype, sigma):
    source = CAMERA[100:150, 200:240]
    result = np.rint(naive.convolve(source, KERNEL)).astype(dtype)
    fit = estimate_kernel(source, result, SHAPE, sigma_clip=sigma)
    assert fit.used.all()
    assert_array_equal(fit.kernel, estimate_kernel(source, result, SHAPE).kernel)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_sticks_out_of_an_exact_fit(dtype):
    source = IMAGE.astype(dtype)
    result = naive.convolve(source, KERNEL).astype(dtype)
    fit = estimate_kernel(source, result, SHAPE, sigma_clip=1.5)
    assert fit.used.mean() > 0.9
    assert_allclose(fit.kernel, KERNEL, rtol=0, atol=30 * np.finfo(dtype).eps)


@pytest.mark.jit
def test_normal_noise_loses_its_tails(rng):
    image = rng.standard_normal((300, 303))
    result = naive.convolve(image, KERNEL) + rng.standard_normal((298, 300))
    for sigma in (2, 3):
        lost = 1 - estimate_kernel(image, result, SHAPE, sigma_clip=sigma).used.mean()
        # One pixel more or less is one of 89 400; chance makes 15 of 240, and 62 of 4070.
        assert lost == pytest.approx(2 * norm.sf(sigma), abs=4 * math.sqrt(norm.sf(sigma) / 4.5e4))


CLIPS = st.sampled_from([1.5, 2.0, 3.0])


@given(
    seed=st.integers(0, 10**6),
    sigma=CLIPS,
    freedom=st.sampled_from([1, 2, 5]),
    known=st.sampled_from([plain, everything]),
    degree=st.sampled_from([None, 1]),
)
# One pixel so far out that the rounding of all sums reaches another.
@example(seed=884, sigma=2.0, freedom=1, known=plain, degree=None)
def test_it_ends_where_nothing_changes(seed, sigma, freedom, known, degree):
    """What is used is what is within the bound that the fit of just these pixels sets."""
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((17, 19))
    result = naive.convolve(image, KERNEL)
    result += 0.1 * rng.standard_t(freedom, result.shape)
    pixels, times = known(rng, result.shape), []

    def counted(*args):
        times.append(1)
        return clipping.within(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lstsq, "within", counted)
        fit = estimate_kernel(image, result, SHAPE, background=degree, sigma_clip=sigma, **pixels)
    assert len(times) < lstsq._MAX_CLIPS
    rows = rows_without(result, fit.used, degree, image, **pixels)
    found = dense.fit(rows)
    assert_allclose(fit.kernel.ravel(), found.taps, rtol=0, atol=1e-9)
    all_rows = dense.rows_of(image, result, SHAPE, **pixels)
    bound = sigma * math.sqrt(found.variance(rows.w)) / clipping.clipped_share(sigma)
    sizes = np.sqrt(all_rows.w) * np.abs(found.residual)
    inside = (all_rows.w > 0) & (sizes <= bound)
    if len(times) <= lstsq._MAX_RETURNS:
        assert_array_equal(fit.used.ravel(), inside)
    else:  # what came back again and again stays away
        assert not (fit.used.ravel() & ~inside).any()


def test_what_comes_back_for_ever_stays_away(monkeypatch, rng):
    """A fit that swings between two sets of pixels ends in one that both have."""
    result, sets = noisy(rng), [rng.random((34, 37)) > 0.1 for _ in range(2)]
    asked = []

    def swinging(pairs, *_):
        asked.append(1)
        own = pairs[0].used
        used = sets[len(asked) % 2] & (True if own is None else own)
        return [pairs[0]._replace(used=used)]

    monkeypatch.setattr(lstsq, "within", swinging)
    fit = estimate_kernel(IMAGE, result, SHAPE, sigma_clip=3)
    assert len(asked) <= lstsq._MAX_RETURNS + 3
    assert_array_equal(fit.used, sets[0] & sets[1])
    want = dense.fit(rows_without(result, sets[0] & sets[1])).taps
    assert_allclose(fit.kernel.ravel(), want, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"nonnegative": True},
        {"unit_sum": True, "symmetric": "even"},
        {"ridge": "gcv"},
        {"separable": True},
        {"solver": "fista"},
        {"errors": "robust"},
        {"source_variance": 0.5},
        {"engine": "fft"},
    ],
)
def test_goes_with_what_is_asked_of_the_kernel(options, rng):
    result, bad = with_outliers(noisy(rng), rng, size=200)
    fit = estimate_kernel(IMAGE, result, SHAPE, sigma_clip=5, **options)
    assert_array_equal(fit.used, ~bad)
    again = estimate_kernel(IMAGE, result, SHAPE, mask=bad, **options)
    assert_allclose(fit.kernel, again.kernel, rtol=0, atol=1e-7)
    assert_allclose(fit.covariance, again.covariance, rtol=1e-5, atol=1e-12)


def test_it_says_no_word_of_its_own_passes(rng):
    calls = []
    estimate_kernel(
        IMAGE,
        with_outliers(noisy(rng), rng)[0],
        SHAPE,
        sigma_clip=4,
        callback=lambda *c: calls.append(c),
    )
    assert calls[-1][0] == calls[-1][1]
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_inputs_are_left_alone(rng):
    result, _ = with_outliers(noisy(rng), rng)
    mask = np.zeros(result.shape, bool)
    copies = IMAGE.copy(), result.copy()
    estimate_kernel(IMAGE, result, SHAPE, sigma_clip=3, mask=mask)
    assert_array_equal(IMAGE, copies[0])
    assert_array_equal(result, copies[1])
    assert not mask.any()


def test_too_few_that_agree(monkeypatch, rng):
    few = np.arange(34 * 37).reshape(34, 37) < 11
    monkeypatch.setattr(lstsq, "within", lambda pairs, *_: [pairs[0]._replace(used=few)])
    with pytest.raises(SingularFitError, match="11 pixels for 12 taps"):
        estimate_kernel(IMAGE, noisy(rng), SHAPE, sigma_clip=1.5)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (1.4, ValueError, r"sigma_clip must be at least 1.5, got 1.4: of normal noise too little"),
        (0, ValueError, r"sigma_clip must be at least 1.5, got 0"),
        (-3, ValueError, r"sigma_clip must be at least 1.5, got -3"),
        (math.nan, ValueError, r"sigma_clip must be .*got nan"),
        ("three", TypeError, r"sigma_clip must be a .*number, got "),
        (True, TypeError, r"sigma_clip must be a .*number, got "),
    ],
)
def test_refuses(value, kind, message):
    with pytest.raises(kind, match=message):
        estimate_kernel(IMAGE, IMAGE, SHAPE, sigma_clip=value)
