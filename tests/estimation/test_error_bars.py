"""Error bars: against closed forms of dense designs, and against planted taps."""

import dense
import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from scipy.linalg import null_space
from skimage import data

from fastkernel import basis, estimate_kernel, normal_equations, psf
from fastkernel.estimation.equations import scatter

CAMERA = data.camera().astype(float)
IMAGE = CAMERA[100:134, 200:237]
SHAPE = (3, 4)
TAPS = 12
# Groups of taps that are equal under half a turn.
EVEN = np.eye(TAPS)[:, :6] + np.eye(TAPS)[::-1, :6]
GAUSSIANS = basis.gaussian_polynomials(SHAPE, [0.7, 1.5], [1, 0])


@pytest.fixture
def white(monkeypatch):
    """No pixel is like its neighbours."""
    monkeypatch.setattr(scatter, "_likeness", lambda *_: np.ones((1, 1)))


def noisy_pair(rng, mode="valid", boundary="zero", image=IMAGE):
    kernel = rng.random(SHAPE)
    result = naive.convolve(image, kernel / kernel.sum(), mode, boundary)
    return image, result + np.sqrt(np.abs(result)) * rng.standard_normal(result.shape)


def close(got, want, rtol=1e-9):
    """Compare covariances, entry by entry, in units of their own bars."""
    bars = np.sqrt(np.diag(want))
    assert_allclose(got / np.outer(bars, bars), want / np.outer(bars, bars), rtol=0, atol=rtol)


# What is asked for, and the same as columns, start and penalty of the dense fit.
CASES = {
    "free": ({}, {}),
    "unit sum": (
        {"unit_sum": True},
        {"columns": null_space(np.ones((1, TAPS))), "start": np.full(TAPS, 1 / TAPS)},
    ),
    "symmetric": ({"symmetric": "even"}, {"columns": EVEN}),
    "symmetric, unit sum": (
        {"symmetric": "even", "unit_sum": True},
        {"columns": EVEN @ null_space(np.ones((1, 6))), "start": np.full(TAPS, 1 / TAPS)},
    ),
    "basis": ({"basis": GAUSSIANS}, {"columns": GAUSSIANS}),
    "ridge": ({"ridge": 3.0}, {"penalty": 3.0 * np.eye(TAPS)}),
    "smooth": (
        {"ridge": ("smooth", 2.0)},
        {"penalty": 2.0 * dense.second_differences(SHAPE)},
    ),
}


def dense_fit(rows, asked):
    penalty = asked.get("penalty")
    if penalty is not None:
        asked = asked | {"penalty": penalty * rows.w.sum()}
    return dense.fit(rows, **asked)


@pytest.mark.parametrize("degree", [None, 1])
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_covariance_is_the_closed_form(case, weighed, degree, rng):
    asked, as_dense = CASES[case]
    source, result = noisy_pair(rng)
    weights = rng.uniform(0.1, 3, result.shape) if weighed else None
    options = asked | {"background": degree, "weights": weights}
    rows = dense.rows_of(source, result, SHAPE, degree=degree, weights=weights)
    want = dense_fit(rows, as_dense)
    fit = estimate_kernel(source, result, SHAPE, **options)
    assert_allclose(fit.kernel.ravel(), want.taps, rtol=0, atol=1e-9)
    close(fit.covariance, want.variance(rows.w) * want.inverse)
    assert_allclose(fit.standard_errors.ravel() ** 2, np.diag(fit.covariance), rtol=1e-10)
    known = estimate_kernel(source, result, SHAPE, absolute_sigma=True, **options)
    assert_array_equal(known.kernel, fit.kernel)
    close(known.covariance, want.inverse)


@pytest.mark.parametrize("degree", [None, 1])
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_robust_covariance_of_white_noise_is_that_of_white(case, weighed, degree, white, rng):
    asked, as_dense = CASES[case]
    source, result = noisy_pair(rng)
    weights = rng.uniform(0.1, 3, result.shape) if weighed else None
    rows = dense.rows_of(source, result, SHAPE, degree=degree, weights=weights)
    want = dense.sandwich(rows, dense_fit(rows, as_dense))
    fit = estimate_kernel(
        source, result, SHAPE, errors="robust", background=degree, weights=weights, **asked
    )
    close(fit.covariance, want)
    assert_allclose(fit.standard_errors.ravel() ** 2, np.diag(want), rtol=1e-9)


MODES = [("valid", None), ("full", None), ("same", None), *(("same", b) for b in naive.PAD_MODES)]


@pytest.mark.parametrize(("mode", "boundary"), MODES)
def test_every_border_with_a_mask(mode, boundary, white, rng):
    source, result = noisy_pair(rng, mode, boundary or "zero", IMAGE[:18, :19])
    mask = rng.random(result.shape) < 0.2
    given = {"boundary": boundary, "mask": mask}
    rows = dense.rows_of(source, result, SHAPE, **given)
    want = dense.fit(rows)
    even = estimate_kernel(source, result, SHAPE, **given)
    close(even.covariance, want.variance(rows.w) * want.inverse)
    robust = estimate_kernel(source, result, SHAPE, errors="robust", **given)
    close(robust.covariance, dense.sandwich(rows, want))
    assert_array_equal(robust.used, even.used)


@pytest.mark.parametrize("degree", [None, 2])
def test_several_pairs(degree, white, rng):
    both = [noisy_pair(rng), noisy_pair(rng, "same", "mirror", IMAGE.T[:20])]
    sources, results = map(list, zip(*both, strict=True))
    weights = [None, rng.uniform(1, 2, results[1].shape)]
    rows = dense.joined(
        [
            dense.rows_of(*pair, SHAPE, boundary="mirror", degree=degree, weights=w)
            for pair, w in zip(both, weights, strict=True)
        ]
    )
    want = dense.fit(rows)
    given = {"boundary": "mirror", "background": degree, "weights": weights}
    even = estimate_kernel(sources, results, SHAPE, **given)
    close(even.covariance, want.variance(rows.w) * want.inverse)
    robust = estimate_kernel(sources, results, SHAPE, errors="robust", **given)
    close(robust.covariance, dense.sandwich(rows, want))


def test_a_source_without_fine_detail_does_not_spoil_the_sandwich(white, rng):
    source = ndimage.gaussian_filter(IMAGE, 1.2)
    result = naive.convolve(source, np.full(SHAPE, 1 / TAPS))
    result += np.abs(result) ** 0.5 * rng.standard_normal(result.shape)
    rows = dense.rows_of(source, result, SHAPE)
    fit = estimate_kernel(source, result, SHAPE, errors="robust")
    assert fit.condition_number > 1e7
    close(fit.covariance, dense.sandwich(rows, dense.fit(rows)), 1e-6)


@pytest.mark.parametrize("workers", [2, 3])
def test_the_same_bits_for_any_workers(workers, small_tiles, monkeypatch, rng):
    monkeypatch.setattr(scatter, "_TILE", (9, 11))
    source, result = noisy_pair(rng)
    result = ndimage.gaussian_filter(result, 0.6)  # neighbours are alike
    given = {"errors": "robust", "background": 1, "sigma_clip": 3, "source_variance": 0.5}
    one, more = (estimate_kernel(source, result, SHAPE, workers=n, **given) for n in (1, workers))
    assert_array_equal(one.covariance, more.covariance)
    assert_array_equal(one.used, more.used)


def test_no_pixel_is_left_to_judge_by(rng):
    source = rng.random((5, 6))
    result = rng.random((3, 4))[:, :3]
    for errors in ("even", "robust"):
        fit = estimate_kernel(source, result, (3, 4), ridge=1e-3, errors=errors)
        assert fit.n_pixels < TAPS
        assert np.isinf(fit.covariance).all()
        assert np.isinf(fit.standard_errors).all()


@pytest.mark.parametrize("options", [{}, {"errors": "robust"}, {"source_variance": 1.0}])
def test_a_tap_that_constraints_leave_no_choice_has_no_error(options, rng):
    source, result = rng.random((2, 20, 20))
    fit = estimate_kernel(source, result, 1, unit_sum=True, **options)
    assert_array_equal(fit.kernel, [[1]])
    assert_array_equal(fit.covariance, [[0]])
    assert_array_equal(fit.standard_errors, [[0]])


def test_an_exact_fit_has_no_errors(rng):
    source = rng.integers(0, 9, (20, 20)).astype(float)
    fit = estimate_kernel(source, source[2:, 3:], SHAPE, errors="robust")
    assert fit.standard_errors.max() < 1e-12


@pytest.mark.parametrize("asked", [{"nonnegative": True}, {"solver": "fista"}, {"separable": True}])
def test_what_is_not_known_is_nan(asked, rng):
    source, result = noisy_pair(rng)
    for errors in ("even", "robust"):
        fit = estimate_kernel(source, result, SHAPE, errors=errors, **asked)
        assert np.isnan(fit.standard_errors).all()
        assert np.isnan(fit.covariance).all()
        assert fit.covariance.shape == (TAPS, TAPS)


def test_equations_know_the_covariance_too(rng):
    source, result = noisy_pair(rng)
    weights = rng.uniform(1, 2, result.shape)
    equations = normal_equations(source, result, SHAPE, weights=weights)
    fit = estimate_kernel(source, result, SHAPE, weights=weights)
    close(equations.solve().covariance, fit.covariance)


# Simulated pairs: a part of a photograph, blurred, and what a detector makes of it.
KERNEL = psf.gaussian((5, 5), 1.0)
PAIRS = 60


def blurred_part(rng):
    top, left = rng.integers(0, 512 - 72, 2)
    source = CAMERA[top : top + 72, left : left + 72] + 2
    return source, ndimage.convolve(source, KERNEL)[2:-2, 2:-2]


def even(rng):
    source, result = blurred_part(rng)
    return source, result + 2 * rng.standard_normal(result.shape), {}


def counts(rng):
    source, result = blurred_part(rng)
    return source, 2.0 * rng.poisson(result / 2), {}


def weighed_counts(rng):
    source, result = blurred_part(rng)
    return source, 2.0 * rng.poisson(result / 2), {"weights": 7 / result}


def known_counts(rng):
    source, result = blurred_part(rng)
    weights = 1 / (2 * result)  # twice a count whose mean is half of it
    return source, 2.0 * rng.poisson(result / 2), {"weights": weights, "absolute_sigma": True}


def rounded(rng):
    source, result = blurred_part(rng)
    return source, np.rint(result), {}


def alike(rng):
    source, result = blurred_part(rng)
    return source, result + 5 * ndimage.gaussian_filter(rng.standard_normal(result.shape), 1), {}


def in_both(rng):
    source, result = blurred_part(rng)
    return (
        source + 2 * rng.standard_normal(source.shape),
        result + rng.standard_normal(result.shape),
        {"source_variance": 4.0},
    )


def stars(rng):
    source = np.full((72, 72), 20.0)
    np.add.at(source, tuple(rng.integers(8, 64, (2, 30))), rng.exponential(3000, 30))
    source = ndimage.gaussian_filter(source, 1)
    return source, 1.0 * rng.poisson(ndimage.convolve(source, KERNEL)[2:-2, 2:-2]), {}


def covered(make, **options):
    """The share of planted taps within two bars."""
    rng, hits = np.random.default_rng(14), []
    for _ in range(PAIRS):
        source, result, given = make(rng)
        fit = estimate_kernel(source, result, 5, **given | options)
        hits.append(np.abs(fit.kernel - KERNEL) <= 2 * fit.standard_errors)
    return np.mean(hits)


# Taps of a pair are wrong together: chance moves the share by about a hundredth.
@pytest.mark.jit
@pytest.mark.parametrize(
    ("make", "options"),
    [
        (even, {}),
        (even, {"errors": "robust"}),
        (weighed_counts, {}),
        (known_counts, {}),
        (counts, {"errors": "robust"}),
        (rounded, {}),
        (alike, {"errors": "robust"}),
        (in_both, {}),
    ],
)
def test_bars_cover_planted_taps(make, options):
    assert 0.92 <= covered(make, **options) <= 0.98


@pytest.mark.jit
@pytest.mark.parametrize(
    ("make", "options", "least", "most"),
    [
        (stars, {}, 0, 0.75),
        (stars, {"errors": "robust"}, 0.9, 0.98),
        (in_both, {"source_variance": None}, 0, 0.85),
        (alike, {}, 0.975, 1),
    ],
)
def test_plain_bars_would_be_too_small_or_too_large(make, options, least, most):
    assert least <= covered(make, **options) <= most


@pytest.mark.jit
def test_some_tiles_stand_for_all(monkeypatch, rng):
    source = rng.standard_normal((420, 430))
    noise = ndimage.gaussian_filter(rng.standard_normal((418, 427)), 1)
    result = naive.convolve(source, np.full(SHAPE, 1 / TAPS)) + noise
    every = estimate_kernel(source, result, SHAPE, errors="robust").standard_errors
    monkeypatch.setattr(scatter, "_WORK", 0)
    some = estimate_kernel(source, result, SHAPE, errors="robust").standard_errors
    assert not np.array_equal(some, every)
    assert_allclose(some, every, rtol=0.05)


REFUSED = {
    "both scales": (
        {"absolute_sigma": True, "errors": "robust"},
        "absolute_sigma=True takes the weights .* errors='robust' takes no noise for known: choose",
    ),
    "more noise than weights tell": (
        {"absolute_sigma": True, "source_variance": 1.0},
        "absolute_sigma=True takes .* source_variance tells of more: leave one out",
    ),
    "a typo": ({"errors": "sandwich"}, "errors must be .*'even'.*'robust'.*, got 'sandwich'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        estimate_kernel(IMAGE, IMAGE, SHAPE, **options)


def test_refuses_a_flag_that_is_none():
    with pytest.raises(TypeError, match="absolute_sigma must be True or False, got 'no'"):
        estimate_kernel(IMAGE, IMAGE, SHAPE, absolute_sigma="no")


ONLY_OF_LSTSQ = {
    "errors": "robust",
    "absolute_sigma": True,
    "sigma_clip": 3,
    "source_variance": 1.0,
}


@pytest.mark.parametrize("method", ["fft", "lad", "richardson_lucy"])
@pytest.mark.parametrize("name", ONLY_OF_LSTSQ)
def test_other_methods_refuse(name, method):
    message = f"{name} goes with method='lstsq', got method='{method}'; leave it out"
    with pytest.raises(ValueError, match=message):
        estimate_kernel(IMAGE, IMAGE, SHAPE, method=method, **{name: ONLY_OF_LSTSQ[name]})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("errors='robust'", {"errors": "robust"}),
        ("sigma_clip", {"sigma_clip": 3}),
        ("source_variance", {"source_variance": 1.0}),
        ("mask, weights and saturation", {"weights": np.arange(1.0, 91).reshape(9, 10)}),
        ("background", {"background": "constant"}),
    ],
)
def test_kernels_of_many_taps_refuse(name, options):
    image = np.random.default_rng(1).random((73, 75))
    message = rf"{name} goes with kernels of at most 4096 taps, got kernel_shape \(65, 66\); "
    with pytest.raises(ValueError, match=message):
        estimate_kernel(image, image[:9, :10], (65, 66), **options)
