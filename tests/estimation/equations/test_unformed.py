"""Large kernels without a Gram matrix: the same problem as the dense definition's."""

import naive
import numpy as np
import pytest
from calls import fit_large
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from scipy.signal import fftconvolve
from shared import JIT, waves
from skimage import data

from fastkernel import SingularFitError, estimate_kernel
from fastkernel._images.pairs import Pair
from fastkernel._images.windows import window_of_pair
from fastkernel._machine.run import Run
from fastkernel.estimation.equations import unformed as large
from fastkernel.estimation.equations.gathering import gather_correlations
from fastkernel.estimation.solvers.conjugate_gradients import conjugate_gradients

SHAPES = [(1, 1), (1, 6), (6, 1), (2, 2), (5, 5), (4, 7), (7, 2)]


def pair_of(source, result, shape, boundary=None):
    return Pair(source, result, window_of_pair(source.shape, result.shape, shape, boundary))


def fit(source, result, shape, boundary=None, ridge=0.0, workers=1):
    return fit_large([pair_of(source, result, shape, boundary)], shape, ridge, workers, None)


def operator_of(pairs, shape, workers=1):
    autocorrelations = [found.base for _, found in gather_correlations(pairs, shape, Run(workers))]
    return large.Operator(pairs, autocorrelations, workers)


def valid_operator(image, shape):
    result = np.zeros([n - k + 1 for n, k in zip(image.shape, shape, strict=True)])
    return operator_of([pair_of(image, result, shape)], shape)


def gram_by_shift(image, shape):
    x = naive.design_matrix(image, shape)[:, ::-1]
    return x.T @ x


@pytest.fixture
def short_pieces(monkeypatch):
    """Cut even the shortest strip, and share it among jobs."""
    monkeypatch.setattr(large, "SEGMENTS", 1)
    monkeypatch.setattr(large, "LINES", 2)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        *((shape, (11, 13)) for shape in SHAPES),
        ((7, 9), (7, 9)),
        ((7, 8), (7, 30)),
        ((9, 8), (30, 8)),
        ((1, 9), (1, 40)),
        ((1, 9), (3, 9)),
        ((3, 4), (60, 70)),
    ],
)
def test_operator_is_the_gram_matrix(shape, size, rng):
    image, taps = rng.random(size) + 1, rng.standard_normal(shape)
    got = valid_operator(image, shape)(taps)
    want = gram_by_shift(image, shape) @ taps.ravel()
    assert_allclose(got.ravel(), want, rtol=0, atol=1e-13 * size[0] * size[1] * taps.size)


def test_operator_of_long_strips(short_pieces, rng):
    shape, image = (4, 3), rng.random((90, 110))
    operator, gram = valid_operator(image, shape), gram_by_shift(image, shape)
    got = np.array([operator(tap.reshape(shape)).ravel() for tap in np.eye(12)])
    assert_allclose(got, gram, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_eigenvalues_are_rayleigh_quotients_of_fourier_vectors(shape, rng):
    image = rng.random((11, 13)) + 1
    gram, (p, q) = gram_by_shift(image, shape), shape
    vectors = np.fft.ifft2(np.eye(p * q).reshape(p * q, p, q), norm="ortho").reshape(p * q, -1)
    want = np.einsum("fi,ij,fj->f", vectors.conj(), gram, vectors).real.reshape(shape)
    got = valid_operator(image, shape).eigenvalues
    assert_allclose(got, want[:, : q // 2 + 1], rtol=0, atol=1e-14 * np.trace(gram))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["valid", "same", "full"])
def test_the_answer_is_the_dense_one(mode, shape, rng):
    image = rng.random((15, 17))
    result = naive.convolve(image, rng.standard_normal(shape), mode)
    result += rng.normal(0, 0.1, result.shape)
    got = fit(image, result, shape)
    if mode == "same":
        result = naive.inside(result, shape)
    virtual = naive.extended(image, shape, "full" if mode == "full" else "valid")
    want = naive.least_squares(virtual, result, shape)
    assert_allclose(got.kernel, want, rtol=0, atol=1e-11 * np.abs(want).max())
    left = result - naive.convolve(virtual, want)
    assert got.residual_rms == pytest.approx(np.sqrt(np.mean(left**2)), rel=1e-9)
    assert (got.n_pixels, got.rank) == (result.size, want.size)
    assert (got.method, got.solver, got.equations) == ("lstsq", "conjugate_gradients", None)
    assert np.isnan(got.standard_errors).all()
    assert got.standard_errors.shape == shape


@pytest.mark.parametrize("boundary", naive.PAD_MODES)
@pytest.mark.parametrize("shape", [(4, 5), (7, 6)])
def test_every_border_rule(boundary, shape, rng):
    image, result = rng.random((14, 16)), rng.random((14, 16))
    want = naive.least_squares(naive.extended(image, shape, "same", boundary), result, shape)
    got = fit(image, result, shape, boundary)
    assert_allclose(got.kernel, want, rtol=0, atol=1e-11 * np.abs(want).max())


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_two_pairs_share_a_kernel(dtype, rng):
    shape, sizes = (5, 4), [(14, 15), (9, 21)]
    images = [rng.integers(0, 200, size).astype(dtype) for size in sizes]
    results = [rng.integers(0, 200, (m - 4, n - 3)).astype(dtype) for m, n in sizes]
    pairs = [pair_of(x, y, shape) for x, y in zip(images, results, strict=True)]
    got = fit_large(pairs, shape, 0.0, 1, None)
    x = np.vstack([naive.design_matrix(image.astype(float), shape) for image in images])
    y = np.concatenate([result.astype(float).ravel() for result in results])
    want, *_ = np.linalg.lstsq(x, y, rcond=None)
    assert_allclose(got.kernel.ravel(), want, rtol=0, atol=1e-11 * np.abs(want).max())
    assert got.n_pixels == y.size


@pytest.mark.parametrize("ridge", [1e-6, 1e-2, 1.0])
def test_ridge_is_the_penalty_it_says(ridge, rng):
    """Also where there are fewer pixels than taps."""
    for size in ((20, 20), (8, 9)):
        image, shape = rng.random(size), (5, 6)
        result = rng.random((size[0] - 4, size[1] - 5))
        stacked = np.vstack(
            [naive.design_matrix(image, shape), np.sqrt(ridge * result.size) * np.eye(30)]
        )
        want, *_ = np.linalg.lstsq(stacked, np.append(result, np.zeros(30)), rcond=None)
        got = fit(image, result, shape, ridge=ridge)
        assert_allclose(got.kernel.ravel(), want, rtol=0, atol=1e-9 * np.abs(want).max())
        left = result - naive.convolve(image, got.kernel)
        assert got.residual_rms == pytest.approx(np.sqrt(np.mean(left**2)), rel=1e-6)


def test_same_bits_whatever_the_workers(short_pieces, small_tiles, rng):
    image, shape = rng.random((24, 30)), (9, 8)
    result = naive.convolve(image, rng.random(shape), "full")
    want = fit(image, result, shape)
    for workers in (2, 3) if JIT else (3,):
        got = fit(image, result, shape, workers=workers)
        assert_array_equal(got.kernel, want.kernel)
        assert (got.residual_rms, got.condition_number) == (
            want.residual_rms,
            want.condition_number,
        )


@pytest.mark.jit
def test_a_planted_large_kernel_comes_back_in_few_iterations(rng):
    shape = (65, 67)
    image, kernel = rng.standard_normal((300, 320)), rng.standard_normal(shape)
    result = fftconvolve(image, kernel, mode="valid")
    got = fit(image, result, shape, workers=2)
    assert np.abs(got.kernel - kernel).max() < 1e-12 * np.abs(kernel).max()
    assert got.residual_rms < 1e-12 * result.std()
    pair = pair_of(image, result, shape)
    _, found = next(gather_correlations([pair], shape, Run(2)))
    operator = large.Operator([pair], [found.base], 2)
    assert conjugate_gradients(operator, found.moments, 1e-8).num_iter < 25


@pytest.mark.jit
def test_photographs_are_as_ill_conditioned_as_they_are_and_still_exact(rng):
    image, shape = data.camera()[100:260, 100:270].astype(float), (18, 16)
    kernel = rng.random(shape)
    result = fftconvolve(image, kernel, mode="valid")
    got = fit(image, result, shape)
    assert np.abs(got.kernel - kernel).max() < 1e-11
    assert got.residual_rms < 1e-12 * result.std()
    condition = np.linalg.cond(gram_by_shift(image, shape))
    assert condition / 10 < got.condition_number <= condition * 1.01


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((40, 40), 7, np.uint8), "the source is flat"),
        (np.full((40, 40), 0.1), "the source is flat"),
        (np.zeros((40, 40)), "the source is flat"),
        (waves(40), "do not determine the kernel"),
        (np.outer(np.arange(40.0), np.ones(40)), "do not determine the kernel"),
        (
            ndimage.gaussian_filter(np.random.default_rng(3).random((40, 40)), 4),
            "do not determine the kernel",
        ),
    ],
)
def test_a_source_that_does_not_determine_the_kernel_is_refused(image, message):
    with pytest.raises(SingularFitError, match=message) as caught:
        fit(image, image, (9, 8))
    for help_ in ("more detail", "smaller kernel_shape", "ridge="):
        assert help_ in str(caught.value)


def test_a_null_space_that_the_result_does_not_touch_is_refused(rng):
    """The equations have solutions, many of them, and conjugate gradients would find one."""
    image = np.outer(rng.random(30), np.resize([1.0, -1.0], 30))
    with pytest.raises(SingularFitError, match="do not determine the kernel"):
        fit(image, naive.convolve(image, rng.random((3, 4))), (3, 4))


def test_what_cannot_be_fitted_is_refused(rng):
    image = rng.random((8, 9))
    with pytest.raises(SingularFitError, match="16 pixels for 30 taps"):
        fit(image, np.ones((4, 4)), (5, 6))
    bad = image.copy()
    bad[3, 4] = np.nan
    with pytest.raises(ValueError, match=r"source must be finite, got nan at index \(3, 4\)"):
        fit(bad, np.ones((7, 8)), (2, 2))
    with pytest.raises(ValueError, match="overflow float64"):
        fit(np.full((8, 9), 1e200), np.ones((7, 8)), (2, 2))


def test_progress_and_its_exceptions(rng):
    image, seen = rng.random((20, 20)), []
    pairs = [pair_of(image, image, (3, 3))]
    fit_large(pairs, (3, 3), 0.0, 1, lambda done, total: seen.append((done, total)))
    assert seen
    assert seen[-1][0] == seen[-1][1]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_large(pairs, (3, 3), 0.0, 1, stop)


@pytest.mark.jit
def test_datasets_are_read_too(rng):
    from shared import Dataset

    image = rng.standard_normal((150, 150))
    data = Dataset(image)
    fit = estimate_kernel(data, image[3:-66, 1:-64].copy(), (70, 66))
    want = estimate_kernel(image, image[3:-66, 1:-64], (70, 66))
    assert_array_equal(fit.kernel, want.kernel)
    assert fit.solver == "conjugate_gradients"
    assert fit.equations is None
    assert np.isnan(fit.standard_errors).all()
