"""Belief: what a residual tells, and that it is never wrong."""

import io

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image
from scipy import ndimage, stats
from skimage import data

from fastkernel import estimate_kernel, psf
from fastkernel.estimation.quality import Facts, Plane, facts_of, judge

GAUSSIAN = psf.gaussian(5, 1.0)
SHARPENER = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]) * 1.0


def compared(source, result, size):
    """The fit, and the planes that it leaves, centre tap over the result."""
    fit = estimate_kernel(source, result, size)
    p, q = fit.kernel.shape
    i, j = (p - 1) // 2, (q - 1) // 2
    used = np.s_[p - 1 - i : source.shape[0] - i, q - 1 - j : source.shape[1] - j]
    predicted = naive.convolve(source.astype(float), fit.kernel)
    if result.dtype.kind == "u":
        predicted = predicted.clip(0, 255)
    return fit, Plane(result[used] - predicted, source[used], result[used])


def verdict_of(source, result, size, **further):
    fit, plane = compared(source, result, size)
    limits = (0, 255) if result.dtype.kind == "u" else None
    return judge(
        fit.kernel,
        fit.standard_errors,
        facts_of([plane], limits=limits),
        residual_rms=fit.residual_rms,
        condition_number=fit.condition_number,
        **further,
    )


def rounded(image):
    return np.rint(image).clip(0, 255).astype(np.uint8)


def blurred(image, kernel):
    return ndimage.convolve(image.astype(float), kernel, mode="mirror")


def jpeg(image, quality):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


CAMERA = data.camera()[100:340, 100:360]
COINS = data.coins()[:240, :260]


def test_facts_are_what_they_say(rng):
    source, result = rng.integers(0, 256, (2, 60, 70)).astype(float)
    residual = rng.standard_normal((60, 70)).cumsum(axis=1)
    facts = facts_of([Plane(residual, source, result)], limits=(0, 255))
    inside = (result > 0) & (result < 255)
    assert facts.n_pixels == 60 * 70
    assert_allclose(facts.rms, np.sqrt(np.mean(residual**2)), rtol=1e-12)
    assert facts.largest == np.abs(residual[inside]).max()
    assert_allclose(facts.change, (result - source).std(), rtol=1e-12)
    assert_allclose(facts.contrast, result.std(), rtol=1e-12)
    beyond = residual[np.abs(residual) > 0.02]
    assert_allclose(facts.rounding, np.sqrt(np.mean(beyond**2)), rtol=1e-12)
    assert facts.n_rounded == beyond.size
    assert_allclose(facts.clipped, 1 - inside.mean(), rtol=1e-12)
    lagged = np.mean(residual[:, 1:] * residual[:, :-1]) / np.mean(residual**2)
    assert_allclose(facts.neighbours, lagged, rtol=1e-12)
    gradients = np.gradient(source)
    energies = [
        part[:56, :64].reshape(7, 8, 8, 8).mean(axis=(1, 3)).ravel()
        for part in (residual**2, gradients[0] ** 2 + gradients[1] ** 2)
    ]
    assert_allclose(facts.detail, stats.spearmanr(*energies).statistic, rtol=1e-9)
    assert facts.whole_levels


def test_of_many_tiles_one_in_so_many_is_compared(rng, monkeypatch):
    monkeypatch.setattr("fastkernel.estimation.quality.facts._MOST_TILES", 60)
    source = rng.normal(size=(600, 64))
    residual = rng.normal(size=source.shape) + 0.3 * source
    found = facts_of([Plane(residual, source, source)]).detail
    # Strips of 256 rows, whose gradients end at their edges.
    strips = [source[top : top + 256] for top in (0, 256, 512)]
    gradients = [sum(np.square(np.gradient(strip))) for strip in strips]
    pixels = residual**2, np.concatenate(gradients)
    tiles = [part.reshape(75, 8, 8, 8).mean(axis=(1, 3)).ravel()[::16] for part in pixels]
    assert_allclose(found, stats.spearmanr(*tiles).statistic, rtol=1e-9)


def test_facts_of_planes_add_up(rng):
    residual, source, result = rng.random((3, 512, 40))
    whole = facts_of([Plane(residual, source, result)])
    parts = [Plane(*(a[i : i + 256] for a in (residual, source, result))) for i in (0, 256)]
    assert facts_of(parts) == whole


def test_robust_facts_do_not_see_a_minority(rng):
    residual = rng.standard_normal((100, 100))
    residual[::10, ::5] = 1e4
    facts = facts_of([Plane(residual, residual, residual)], robust=True)
    assert_allclose(facts.rms, 1, rtol=0.05)


@pytest.mark.parametrize("image", [CAMERA, COINS], ids=["camera", "coins"])
@pytest.mark.parametrize(
    "kernel", [GAUSSIAN, psf.motion(5, 30), np.eye(3) / 3], ids=["gaussian", "motion", "diagonal"]
)
def test_believes_what_rounding_alone_left(image, kernel):
    verdict = verdict_of(image, rounded(blurred(image, kernel)), kernel.shape)
    assert str(verdict).startswith("believe it: nothing but rounding is left unexplained, and")


@pytest.mark.parametrize("image", [CAMERA, COINS], ids=["camera", "coins"])
def test_believes_floats_to_their_own_precision(image):
    image = image.astype(float)
    assert verdict_of(image, blurred(image, GAUSSIAN), 5).belief == "believe it"


@pytest.mark.parametrize("deviation", [1.0, 8.0, 20.0])
@pytest.mark.parametrize("image", [CAMERA, COINS], ids=["camera", "coins"])
def test_does_not_reject_a_right_kernel_for_noise_alone(image, deviation, rng):
    noisy = blurred(image, GAUSSIAN) + rng.normal(0, deviation, image.shape)
    verdict = verdict_of(image.astype(float), noisy, 5)
    assert verdict.belief != "do not believe it"
    assert verdict.explained
    assert "noise, which knows nothing of the picture" in str(verdict)


FOLLOWING = {
    "soft": lambda x: ndimage.gaussian_filter(x.astype(float), 4.0),
    "dark": lambda x: x / 32.0,
    "soft and dark": lambda x: ndimage.gaussian_filter(x.astype(float), 1.5) / 8,
    "soft and darker": lambda x: ndimage.gaussian_filter(x.astype(float), 1.5) / 16,
}


@pytest.mark.parametrize("name", FOLLOWING)
@pytest.mark.parametrize("image", [CAMERA, COINS], ids=["camera", "coins"])
def test_never_believes_where_rounding_follows_the_picture(image, name):
    source = rounded(FOLLOWING[name](image))
    fit, _ = compared(source, rounded(blurred(source, GAUSSIAN)), 5)
    assert np.abs(fit.kernel - GAUSSIAN).max() > 0.05 * GAUSSIAN.max()
    verdict = verdict_of(source, rounded(blurred(source, GAUSSIAN)), 5)
    assert verdict.belief != "believe it"


NONLINEAR = {
    "median 3": lambda x: ndimage.median_filter(x, 3),
    "median 5": lambda x: ndimage.median_filter(x, 5),
    "maximum": lambda x: ndimage.maximum_filter(x, 3),
    "rank": lambda x: ndimage.rank_filter(x, 5, 3),
    "median of a soft picture": lambda x: ndimage.median_filter(
        rounded(ndimage.gaussian_filter(x.astype(float), 1.5)), 3
    ),
    "gamma": lambda x: rounded(255 * (blurred(x, GAUSSIAN) / 255) ** 0.6),
}


@pytest.mark.parametrize("name", NONLINEAR)
@pytest.mark.parametrize("image", [CAMERA, COINS], ids=["camera", "coins"])
def test_does_not_believe_what_no_kernel_does(image, name):
    source, result = image, NONLINEAR[name](image)
    if name == "median of a soft picture":
        source = rounded(ndimage.gaussian_filter(image.astype(float), 1.5))
    verdict = verdict_of(source, result, 5)
    assert verdict.belief == "do not believe it"
    assert "of what the filter changed unexplained" in str(verdict)


@pytest.mark.parametrize(
    "result",
    [
        np.floor(blurred(CAMERA, GAUSSIAN)).astype(np.uint8),
        jpeg(rounded(blurred(CAMERA, GAUSSIAN)), 85),
        rounded(blurred(CAMERA, psf.gaussian(9, 1.5))),
    ],
    ids=["floor", "jpeg", "too small"],
)
def test_has_doubts_about_blemishes(result):
    assert verdict_of(CAMERA, result, 5).belief == "believe it with care"


def test_a_delta_whose_taps_are_few_levels_is_no_proof():
    source = np.zeros((64, 64), np.uint8)
    source[32, 32] = 255
    verdict = verdict_of(source, rounded(blurred(source, psf.gaussian(31, 4.0))), 31)
    assert verdict.belief != "believe it"
    assert "error bars reach" in str(verdict)


FINE = Facts(
    n_pixels=10_000,
    rms=0.288,
    largest=0.51,
    change=5.0,
    contrast=50.0,
    neighbours=0.01,
    detail=0.0,
    whole_levels=True,
    rounding=0.294,
    n_rounded=9_000,
)
SHAPED = {"rms": 0.9, "largest": 3.0, "neighbours": 0.3}


def changed(**facts):
    return Facts(**{name: getattr(FINE, name) for name in Facts.__slots__} | facts)


@pytest.mark.parametrize(
    ("facts", "errors", "further", "says"),
    [
        ({}, 1e-4, {}, "believe it: nothing but rounding is left unexplained, and error bars"),
        ({"whole_levels": False, "rms": 1e-6}, 1e-4, {}, "believe it: nothing but rounding"),
        ({"rms": 0.9, "largest": 4.0}, 1e-4, {}, "believe it: what is left unexplained is noise"),
        (SHAPED, 1e-4, {}, "with care: it leaves 18% of what the filter changed unexplained"),
        (SHAPED, 1e-4, {"lossy": True}, "; lossy compression leaves a residual of its own"),
        (SHAPED | {"clipped": 0.2}, 1e-4, {}, "; 20.0% of the result is black or white,"),
        (SHAPED | {"rms": 3.0}, 1e-4, {}, "do not believe it: it leaves 60% of what"),
        (SHAPED | {"rms": 30.0}, 1e-4, {}, "do not believe it: it leaves all of what"),
        (
            {"largest": 0.8, "detail": 0.1},
            1e-4,
            {},
            "with care: rounding follows the picture: some",
        ),
        ({"largest": 0.8, "detail": 0.6}, 1e-4, {}, "do not believe it: rounding follows the"),
        ({"rounding": 0.27}, 1e-4, {}, "with care: rounding is not even, so it hides part of"),
        ({}, 0.05, {}, "with care: error bars reach 5.0% of the largest tap"),
        ({}, 0.8, {}, "do not believe it: error bars reach 80%"),
        ({}, 1e-4, {"residual_rms": 2.88675e-4}, "with care: error bars reach 10% of the largest"),
        ({}, np.nan, {}, "with care: this method knows no error bars"),
        ({}, 1e-4, {"converged": False}, "with care: the iterations did not converge"),
        ({}, 1e-4, {"condition_number": 1e12}, "with care: the source hardly determines it"),
        ({}, 1e-4, {"condition_number": 1e15}, "do not believe it: the source hardly"),
    ],
)
def test_verdict(facts, errors, further, says):
    kernel = np.zeros((3, 3))
    kernel[1, 1] = 1.0
    verdict = judge(kernel, np.full((3, 3), errors), changed(**facts), **further)
    assert says in str(verdict)


def test_outermost_taps_ask_for_a_larger_size_unless_they_are_noise(rng):
    kernel = np.pad(np.full((3, 3), 1 / 9), 1)
    shaped = changed(**SHAPED)
    small = judge(np.full((3, 3), 1 / 9), np.full((3, 3), 1e-4), shaped)
    assert "its outermost taps are not zero, so it may be larger than 3x3" in small.reasons
    assert "try kernel_shape=(7, 7)" in small.helps
    assert "kernel_shape" not in str(judge(kernel, np.full((5, 5), 1e-4), shaped).helps)
    noisy = kernel + 1e-3 * rng.standard_normal((5, 5))
    assert "kernel_shape" not in str(judge(noisy, np.full((5, 5), 1e-3), shaped).helps)
    helps = judge(noisy, np.full((5, 5), 1e-2), FINE).helps
    assert helps[0] == "try kernel_shape=(1, 1): the outermost taps are noise"
    assert helps[1:] == ("more pixels: larger images, or more pairs that share the kernel",)


@pytest.mark.parametrize(
    ("facts", "further", "helps"),
    [
        ({}, {}, ()),
        (SHAPED, {"lossy": True}, ("files that were not compressed with losses",)),
        (
            SHAPED | {"clipped": 0.2},
            {},
            (
                'saturation="auto", which leaves clipped pixels out',
                'method="lad", which clipped pixels cannot pull away',
            ),
        ),
        (SHAPED | {"mean": 0.2}, {}, ('background="constant": the residual has a mean of 0.2',)),
        (
            SHAPED | {"largest": 40.0},
            {},
            ('method="lad", which few wrong pixels cannot pull away',),
        ),
        (
            {"rounding": 0.27},
            {},
            ("images of more levels (16 bits, or floats), or a source with more contrast",),
        ),
        ({}, {"converged": False}, ("more iterations",)),
        ({}, {"condition_number": 1e12}, ("a source with more detail, or a smaller kernel",)),
    ],
)
def test_says_what_would_help(facts, further, helps):
    kernel = np.zeros((3, 3))
    kernel[1, 1] = 1.0
    facts = changed(**facts)
    verdict = judge(kernel, np.full((3, 3), 1e-4), facts, **further)
    assert verdict.helps == helps
    assert verdict.facts is facts


def test_believes_nothing_that_few_pixels_tell():
    verdict = judge(np.ones((3, 3)), np.full((3, 3), 1e-4), changed(n_pixels=9))
    assert verdict.belief == "do not believe it"
    assert verdict.reasons[0] == "9 pixels tell nothing of 9 taps"


def test_facts_of_a_part_of_the_pixels(rng):
    source, result = rng.integers(0, 256, (2, 60, 70)).astype(float)
    residual = rng.standard_normal((60, 70)).cumsum(axis=1)
    used = rng.random((60, 70)) < 0.7
    used[:16, :24] = False  # six whole tiles
    want = facts_of([Plane(residual, source, result, used)], limits=(0, 255))
    gradients = np.gradient(source)
    # What stands at the others has no say, not even what is no number.
    for part in (residual, result):
        part[~used] = np.nan
    assert facts_of([Plane(residual, source, result, used)], limits=(0, 255)) == want
    left, seen = residual[used], result[used]
    inside = (seen > 0) & (seen < 255)
    assert want.n_pixels == used.sum()
    assert_allclose(want.rms, np.sqrt(np.mean(left**2)), rtol=1e-12)
    assert_allclose(want.mean, left.mean(), rtol=1e-12)
    assert want.largest == np.abs(left[inside]).max()
    assert_allclose(want.change, (seen - source[used]).std(), rtol=1e-12)
    assert_allclose(want.contrast, seen.std(), rtol=1e-12)
    assert_allclose(want.clipped, 1 - inside.mean(), rtol=1e-12)
    both = used[:, 1:] & used[:, :-1]
    lagged = (residual[:, 1:] * residual[:, :-1])[both].mean() / np.mean(left**2)
    assert_allclose(want.neighbours, lagged, rtol=1e-12)
    counts = used[:56, :64].reshape(7, 8, 8, 8).sum(axis=(1, 3))
    energies = [
        np.where(used, part, 0)[:56, :64].reshape(7, 8, 8, 8).sum(axis=(1, 3))[counts > 32]
        / counts[counts > 32]
        for part in (residual**2, gradients[0] ** 2 + gradients[1] ** 2)
    ]
    assert_allclose(want.detail, stats.spearmanr(*energies).statistic, rtol=1e-9)


def test_robust_facts_of_a_part(rng):
    residual = rng.standard_normal((100, 100))
    used = rng.random((100, 100)) < 0.4
    residual[~used] = 1e6
    facts = facts_of([Plane(residual, residual, residual, used)], robust=True)
    assert_allclose(facts.rms, 1, rtol=0.05)
