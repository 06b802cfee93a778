"""Noise in the source: what it adds to the Gram matrix, and what comes of taking it off."""

import dense
import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from skimage import data

from fastkernel import SingularFitError, convolve, estimate_kernel, normal_equations, psf
from fastkernel._images.pairs import pair_of
from fastkernel._images.usable import Observed
from fastkernel._machine.run import Run
from fastkernel.estimation.equations.source_sums import noise_energies, source_sums

CAMERA = data.camera().astype(float)
IMAGE = CAMERA[100:118, 200:220] + 9 * np.random.default_rng(2).standard_normal((18, 20))
SHAPE = (3, 4)
MODES = [("valid", None), ("full", None), ("same", None), *(("same", b) for b in naive.PAD_MODES)]


def pixels(rng, mode, boundary):
    """A result, weights, masks, and a variance for every pixel of the source."""
    result = naive.convolve(IMAGE, rng.random(SHAPE), mode, boundary or "zero")
    result += 3 * rng.standard_normal(result.shape)
    return result, rng.uniform(0.5, 2, result.shape), rng.random(result.shape) < 0.1


def energies(variance, result, **pixel_rules):
    """The sum of weights times variances under every tap, pixel by pixel."""
    rows = dense.rows_of(variance, result, SHAPE, **pixel_rules)
    return rows.w @ rows.x


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize(("mode", "boundary"), MODES)
def test_the_diagonal_is_that_of_naive_sums(mode, boundary, weighed, small_tiles, rng):
    result, weights, mask = pixels(rng, mode, boundary)
    variance = rng.uniform(0, 4, IMAGE.shape)
    given = {"weights": weights, "mask": mask} if weighed else {}
    want = energies(variance, result, boundary=boundary, **given)
    observed = Observed(IMAGE, result, None, given.get("mask"), given.get("weights"), variance)
    pair = pair_of(observed, SHAPE, boundary)
    for workers in (1, 2):
        assert_allclose(noise_energies([pair], SHAPE, Run(workers)), want, rtol=1e-12)
    # What is solved is the Gram matrix without it; the moments are as they were.
    fit = estimate_kernel(
        IMAGE, result, SHAPE, boundary=boundary, source_variance=variance, **given
    )
    plain = normal_equations(IMAGE, result, SHAPE, boundary=boundary, **given)
    scale = np.abs(plain.gram).max()
    assert_allclose(fit.equations.gram, plain.gram - np.diag(want), rtol=0, atol=1e-13 * scale)
    assert_allclose(fit.equations.moments, plain.moments, rtol=1e-13)


@pytest.mark.parametrize("weighed", [False, True])
def test_sums_of_source_and_result(weighed, small_tiles, rng):
    result, weights, mask = pixels(rng, "same", "mirror")
    given = {"weights": weights, "mask": mask} if weighed else {}
    rows = dense.rows_of(IMAGE, result, SHAPE, boundary="mirror", **given)
    observed = Observed(IMAGE, result, None, given.get("mask"), given.get("weights"))
    pair = pair_of(observed, SHAPE, "mirror")
    seen, counts = source_sums([pair, pair], SHAPE, Run(2))
    assert_allclose(seen[::-1, ::-1].ravel(), 2 * rows.w @ rows.x, rtol=1e-12)
    assert counts == pytest.approx(2 * rows.w @ rows.y)


@pytest.mark.parametrize("variances", [(2.0, 3.0), (None, 3.0), (2.0, None)])
def test_pairs_with_and_without_noise(variances, rng):
    results = [pixels(rng, "valid", None)[0] for _ in range(2)]
    images = [IMAGE, IMAGE + 1]
    fit = estimate_kernel(images, results, SHAPE, source_variance=list(variances))
    want = sum(
        energies(np.full(IMAGE.shape, variance or 0.0), result)
        for variance, result in zip(variances, results, strict=True)
    )
    plain = normal_equations(images, results, SHAPE)
    atol = 1e-13 * np.abs(plain.gram).max()
    assert_allclose(fit.equations.gram, plain.gram - np.diag(want), rtol=0, atol=atol)
    assert is_share(fit.ridge, 0.05 * sum(v or 0.0 for v in variances) / 2)
    assert np.isfinite(fit.standard_errors).all()


def test_one_number_stands_for_every_pixel(rng):
    result, weights, _ = pixels(rng, "valid", None)
    one, array, several, integer = (
        estimate_kernel(*images, SHAPE, weights=w, source_variance=variance)
        for images, w, variance in (
            ((IMAGE, result), weights, 3.0),
            ((IMAGE, result), weights, np.full(IMAGE.shape, 3.0)),
            (([IMAGE], [result]), [weights], 3.0),
            ((IMAGE, result), weights, np.full(IMAGE.shape, 3, np.uint8)),
        )
    )
    for other in (array, several, integer):
        assert_array_equal(other.kernel, one.kernel)
        assert_array_equal(other.covariance, one.covariance)


def test_channels_have_their_own_noise(rng):
    images = rng.random((20, 22, 2)) * 90
    results = images[1:-1, 1:-1] + 0.1 * rng.standard_normal((18, 20, 2))
    variance = rng.uniform(1, 2, images.shape)
    both = estimate_kernel(images, results, 3, channel_axis=-1, source_variance=variance)
    parts = [np.moveaxis(part, -1, 0) for part in (images, results, variance)]
    apart = estimate_kernel(list(parts[0]), list(parts[1]), 3, source_variance=list(parts[2]))
    assert_array_equal(both.kernel, apart.kernel)


def is_share(ridge, whole):
    """Whether a penalty is a whole one, halved up to seven times."""
    return any(ridge == pytest.approx(whole / 2**i, rel=1e-12) for i in range(8))


def test_a_ridge_comes_with_it_and_is_told(rng):
    result, _, _ = pixels(rng, "valid", None)
    variance = rng.uniform(1, 3, IMAGE.shape)
    noise = energies(variance, result)
    rows = dense.rows_of(IMAGE, result, SHAPE)

    def solved(ridge, penalty):
        inner = rows.x.T @ rows.x - np.diag(noise) + ridge * len(rows.y) * penalty
        return np.linalg.solve(inner, rows.x.T @ rows.y)

    fit = estimate_kernel(IMAGE, result, SHAPE, source_variance=variance)
    assert is_share(fit.ridge, 0.05 * variance.mean())
    want = solved(fit.ridge, dense.second_differences(SHAPE))
    assert_allclose(fit.kernel.ravel(), want, rtol=0, atol=1e-9)
    own = estimate_kernel(IMAGE, result, SHAPE, source_variance=variance, ridge=0.7)
    assert own.ridge == 0.7
    assert_allclose(own.kernel.ravel(), solved(0.7, np.eye(12)), rtol=0, atol=1e-9)
    smooth = estimate_kernel(IMAGE, result, SHAPE, source_variance=variance, ridge=("smooth", 0.2))
    assert smooth.ridge == 0.2
    want = solved(0.2, dense.second_differences(SHAPE))
    assert_allclose(smooth.kernel.ravel(), want, rtol=0, atol=1e-9)


SHARP = np.zeros((5, 5))
SHARP[1, 2], SHARP[2, 1], SHARP[2, 2], SHARP[3, 2] = 0.1, 0.2, 0.5, 0.2


@pytest.mark.jit
@pytest.mark.parametrize(("kernel", "halved"), [(psf.gaussian((5, 5), 1.5), 0), (SHARP, 3)])
def test_the_ridge_is_that_of_the_least_expected_error(kernel, halved, rng):
    """Of the shares of a penalty the one whose taps' variances and squared shifts are least."""
    source = 60 * ndimage.gaussian_filter(rng.standard_normal((72, 72)), 0.7)
    result = convolve(source, kernel, "valid") + rng.standard_normal((68, 68))
    noisy = source + 6 * rng.standard_normal(source.shape)
    fit = estimate_kernel(noisy, result, 5, source_variance=36.0)
    errors, penalties = {}, [0.05 * 36 / 2**i for i in range(8)]
    first = estimate_kernel(noisy, result, 5, source_variance=36.0, ridge=("smooth", 1.8))
    matrix = dense.second_differences((5, 5)) * result.size
    # The scatter by the whole penalty, without what that does to the taps.
    inner = first.equations.gram + 1.8 * matrix
    pull = 1.8 * matrix @ first.kernel.ravel()
    scale = result.size / (result.size - 25)
    scores = inner @ first.covariance @ inner / scale - np.outer(pull, pull)
    for penalty in penalties:
        inverse = np.linalg.inv(first.equations.gram + penalty * matrix)
        taps = inverse @ first.equations.moments
        shift = penalty * inverse @ matrix @ taps
        errors[penalty] = np.trace(inverse @ scores @ inverse) + shift @ shift
    best = min(errors, key=errors.get)
    assert fit.ridge == pytest.approx(best, rel=1e-12)
    assert penalties.index(best) >= halved
    assert halved or best == penalties[0]
    off = np.abs(fit.kernel - kernel).max()
    assert off <= np.abs(first.kernel - kernel).max()
    assert off < np.abs(estimate_kernel(noisy, result, 5).kernel - kernel).max()


@pytest.mark.jit
def test_bars_tell_that_a_source_has_no_detail(rng):
    """Where noise is all that could tell taps apart."""
    kernel, source = psf.gaussian((5, 5), 1.0), 50 + 0.1 * np.indices((60, 60)).sum(axis=0)
    source = source + 0.1 * rng.standard_normal(source.shape)
    result = convolve(source, kernel, "valid") + rng.standard_normal((56, 56))
    noisy = source + 2 * rng.standard_normal(source.shape)
    fit = estimate_kernel(noisy, result, 5, source_variance=4.0)
    assert fit.standard_errors.max() > np.abs(fit.kernel).max()
    assert (np.abs(fit.kernel - kernel) <= 2 * fit.standard_errors).mean() > 0.9


def test_what_has_no_bars_keeps_the_whole_ridge(rng):
    result, _, _ = pixels(rng, "valid", None)
    fit = estimate_kernel(IMAGE, result, SHAPE, source_variance=2.0, nonnegative=True)
    assert fit.ridge == pytest.approx(0.1, rel=1e-12)


def test_a_basis_needs_no_ridge(rng):
    result, _, _ = pixels(rng, "valid", None)
    columns = rng.standard_normal((12, 3))
    fit = estimate_kernel(IMAGE, result, SHAPE, source_variance=2.0, basis=columns)
    assert fit.ridge == 0
    rows = dense.rows_of(IMAGE, result, SHAPE)
    inner = rows.x.T @ rows.x - 2 * len(rows.y) * np.eye(12)
    found = np.linalg.solve(columns.T @ inner @ columns, columns.T @ rows.x.T @ rows.y)
    assert_allclose(fit.kernel.ravel(), columns @ found, rtol=0, atol=1e-9)


def test_no_noise_changes_nothing(rng):
    result, _, _ = pixels(rng, "valid", None)
    fit = estimate_kernel(IMAGE, result, SHAPE, source_variance=0)
    assert fit.ridge == 0
    assert_allclose(fit.kernel, estimate_kernel(IMAGE, result, SHAPE).kernel, rtol=1e-9)


def test_what_a_mask_leaves_out_has_no_variance(rng):
    result, _, _ = pixels(rng, "valid", None)
    bad = np.zeros(IMAGE.shape, bool)
    bad[4, 5] = bad[11, 13] = True
    variance = rng.uniform(1, 2, IMAGE.shape)
    clean = estimate_kernel(IMAGE, result, SHAPE, source_mask=bad, source_variance=variance)
    wild = np.where(bad, np.nan, variance)
    fit = estimate_kernel(IMAGE, result, SHAPE, source_mask=bad, source_variance=wild)
    assert_array_equal(fit.equations.gram, clean.equations.gram)
    assert np.isfinite(fit.kernel).all()
    rows = dense.rows_of(np.where(bad, 0, variance), result, SHAPE, mask=~fit.used)
    plain = normal_equations(IMAGE, result, SHAPE, source_mask=bad).gram
    assert_allclose(np.diag(plain - clean.equations.gram), rows.w @ rows.x, rtol=1e-8)


@pytest.mark.jit
def test_the_bias_is_taken_off():
    """The mean error of many pairs is what chance leaves of it; without, it is far beyond."""
    rng, kernel, errors = np.random.default_rng(3), psf.gaussian((5, 5), 1.0), {}
    asked = {
        "plain": {},
        "bare": {"source_variance": 36.0, "ridge": 1e-9},
        "default": {"source_variance": 36.0},
    }
    for _ in range(40):
        source = 60 * ndimage.gaussian_filter(rng.standard_normal((72, 72)), 0.7)
        result = convolve(source, kernel, "valid") + rng.standard_normal((68, 68))
        noisy = source + 6 * rng.standard_normal(source.shape)
        for name, options in asked.items():
            found = estimate_kernel(noisy, result, 5, **options).kernel
            errors.setdefault(name, []).append(found - kernel)
    mean = {name: np.mean(found, axis=0) for name, found in errors.items()}
    bars = {name: np.std(found, axis=0) / np.sqrt(40) for name, found in errors.items()}
    assert np.abs(mean["plain"] / bars["plain"]).max() > 15
    assert np.abs(mean["bare"] / bars["bare"]).max() < 3.5
    assert np.sqrt(np.mean((mean["bare"] / bars["bare"]) ** 2)) < 1.5
    assert np.abs(mean["default"]).max() < np.abs(mean["plain"]).max() / 2


def test_more_noise_than_there_is_light(rng):
    result, _, _ = pixels(rng, "valid", None)
    message = "do not determine the kernel: .*, or a smaller source_variance$"
    with pytest.raises(SingularFitError, match=message):
        estimate_kernel(IMAGE, result, SHAPE, source_variance=1e4)


REFUSED = {
    "negative": (
        {"source_variance": -1.0},
        ValueError,
        r"source_variance must be finite and at least 0, got -1.0 at index \(0, 0\)",
    ),
    "NaN": (
        {"source_variance": np.where(np.indices(IMAGE.shape).sum(axis=0) == 5, np.nan, 1)},
        ValueError,
        r"source_variance must be finite and at least 0, got nan at index \(0, 5\); mask such pix",
    ),
    "infinite": (
        {"source_variance": np.inf},
        ValueError,
        r"source_variance must be finite and at least 0, got inf",
    ),
    "of the result": (
        {"source_variance": np.ones((16, 17))},
        ValueError,
        r"source_variance must have the shape \(18, 20\) of source, one number a pixel, got \(16,",
    ),
    "text": (
        {"source_variance": "much"},
        TypeError,
        "source_variance must be real numbers, got dtype <U4",
    ),
    "complex": (
        {"source_variance": 1j},
        TypeError,
        "source_variance must be real numbers, got dtype complex128",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case, rng):
    options, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        estimate_kernel(IMAGE, pixels(rng, "valid", None)[0], SHAPE, **options)


def test_refuses_fewer_variances_than_pairs(rng):
    result = pixels(rng, "valid", None)[0]
    message = "source_variance must be a sequence of 2, one for every pair, got list of 1"
    with pytest.raises(ValueError, match=message):
        estimate_kernel([IMAGE] * 2, [result] * 2, SHAPE, source_variance=[1.0])


def test_the_scatter_knows_the_noise_of_the_source(rng):
    """The covariance of a fit beside dense scores, whose mean is zero where taps are right."""
    result, weights, _ = pixels(rng, "valid", None)
    variance = rng.uniform(1, 3, IMAGE.shape)
    fit = estimate_kernel(IMAGE, result, SHAPE, source_variance=variance, weights=weights)
    rows = dense.rows_of(IMAGE, result, SHAPE, weights=weights)
    noise = dense.rows_of(variance, result, SHAPE).x
    taps = fit.kernel.ravel()
    scores = rows.w[:, None] * ((rows.y - rows.x @ taps)[:, None] * rows.x + noise * taps)
    penalty = fit.ridge * rows.w.sum() * dense.second_differences(SHAPE)
    inverse = np.linalg.inv(fit.equations.gram + penalty)
    # The kernel that the same equations have without the penalty is elsewhere: by -shift.
    shift = inverse @ penalty @ taps
    want = inverse @ (scores.T @ scores) @ inverse + np.outer(shift, shift)
    want *= len(rows.y) / (len(rows.y) - 12)
    # Residuals of this pair are like those of no neighbour.
    assert_allclose(fit.covariance, want, rtol=0, atol=1e-8 * want.max())


def test_noise_seen_through_a_kernel_is_alike(rng):
    """Noise of the source comes to neighbours together: the bars know."""
    source = rng.standard_normal((60, 60)) * 20
    blurred = ndimage.uniform_filter(source, 3)[1:-1, 1:-1]
    noisy = source + 4 * rng.standard_normal(source.shape)
    fit = estimate_kernel(noisy, blurred, 3, source_variance=16.0)
    plain = estimate_kernel(noisy, blurred, 3)
    assert_allclose(fit.kernel.sum(), 1, atol=4 * np.sqrt(fit.covariance.sum()))
    # The sum of the taps suffers from what neighbours have in common.
    assert fit.covariance.sum() > 3 * plain.covariance.sum()
