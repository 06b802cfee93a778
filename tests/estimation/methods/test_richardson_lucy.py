"""Richardson-Lucy estimation of a kernel: the published iteration, written out plainly."""

import naive
import numba
import numpy as np
import pytest
from calls import fit_richardson_lucy, pairs_of
from numpy.testing import assert_allclose, assert_array_equal
from skimage import data

from fastkernel import SingularFitError
from fastkernel.estimation.equations import sweeps, transformed_sweeps
from fastkernel.estimation.methods import richardson_lucy as multiplicative

KERNEL = np.array([[0.05, 0.1, 0.0], [0.1, 0.4, 0.2], [0.0, 0.1, 0.05]])
EDGE = 64 if not numba.config.DISABLE_JIT else 24


def photograph():
    return data.camera()[100 : 100 + EDGE, 180 : 188 + EDGE]


def rounded(kernel=KERNEL, image=None):
    image = photograph() if image is None else image
    return image, np.rint(naive.convolve(image, kernel)).clip(0, 255).astype(np.uint8)


def plainly(x, y, num_iter):
    """The iterates, the first included, and their log-likelihoods, from a design matrix."""
    seen = x.sum(axis=0)
    k = np.full(x.shape[1], y.sum() / seen.sum())
    likelihoods = []
    for _ in range(num_iter + 1):
        m = x @ k
        likelihoods.append(float(y @ np.log(m) - m.sum()))
        last, k = k, k * (x.T @ (y / m)) / seen
    return last, likelihoods


@pytest.fixture(params=["direct", "transforms"])
def engine(request, monkeypatch):
    monkeypatch.setattr(
        multiplicative, "transforms_win", lambda *args: request.param == "transforms"
    )


@pytest.fixture
def many_jobs(small_tiles, monkeypatch):
    monkeypatch.setattr(sweeps, "THREADED_WORK", 0)
    monkeypatch.setattr(transformed_sweeps, "fft_lengths", lambda window, kernel, size: (8, 10))


@pytest.mark.parametrize("shape", [(1, 2), (3, 3), (2, 5), (6, 4)])
def test_equals_the_formula(shape, engine, rng):
    image = rng.random((19, 23)) + 0.1
    result = naive.convolve(image, rng.random(shape)) + 0.1 * rng.random(
        (20 - shape[0], 24 - shape[1])
    )
    fit = fit_richardson_lucy(
        pairs_of(image, result, shape), shape, num_iter=30, tol=0.0, acceleration=False
    )
    x = naive.design_matrix(image, shape)
    kernel, likelihoods = plainly(x, result.ravel(), 30)
    assert_allclose(fit.kernel.ravel(), kernel, rtol=1e-9)
    assert_allclose(fit.history["log_likelihood"], likelihoods, rtol=1e-9)
    left = result.ravel() - x @ kernel
    assert fit.residual_rms == pytest.approx(np.sqrt(np.mean(left**2)), rel=1e-9)
    assert (fit.method, fit.solver, fit.num_iter) == ("richardson_lucy", "plain", 30)
    assert fit.equations is None
    assert np.isnan(fit.condition_number)
    assert np.isnan(fit.standard_errors).all()


@pytest.mark.parametrize(
    ("mode", "boundary"), [("full", "zero"), *(("same", b) for b in naive.PAD_MODES)]
)
def test_every_border(mode, boundary, engine, rng):
    image, shape = rng.random((11, 13)), (4, 3)
    result = naive.convolve(image, rng.random(shape), mode, boundary)
    fit = fit_richardson_lucy(
        pairs_of(image, result, shape, boundary), shape, num_iter=9, tol=0.0, acceleration=False
    )
    x = naive.design_matrix(naive.extended(image, shape, mode, boundary), shape)
    assert_allclose(fit.kernel.ravel(), plainly(x, result.ravel(), 9)[0], rtol=1e-9)


def test_several_pairs_share_the_kernel(engine, rng):
    images = [rng.random((12, 14)), rng.random((17, 9))]
    results = [naive.convolve(image, KERNEL) + 0.1 for image in images]
    fit = fit_richardson_lucy(
        pairs_of(images, results, (3, 3)), (3, 3), num_iter=12, tol=0.0, acceleration=False
    )
    x = np.vstack([naive.design_matrix(image, (3, 3)) for image in images])
    y = np.concatenate([result.ravel() for result in results])
    assert_allclose(fit.kernel.ravel(), plainly(x, y, 12)[0], rtol=1e-9)


@pytest.mark.parametrize("acceleration", [False, True])
@pytest.mark.parametrize("workers", [2, 3])
def test_the_same_bits_for_any_workers(workers, acceleration, engine, many_jobs):
    image, result = rounded(image=photograph()[:20, :24])
    pairs = pairs_of(image, result, (3, 3))
    one, more = (
        fit_richardson_lucy(pairs, (3, 3), num_iter=4, acceleration=acceleration, workers=n)
        for n in (1, workers)
    )
    assert_array_equal(one.kernel, more.kernel)
    assert_array_equal(one.history["log_likelihood"], more.history["log_likelihood"])


def test_likelihood_rises_and_the_sum_is_kept():
    image, result = rounded()
    pairs = pairs_of(image, result, (3, 3))
    fit = fit_richardson_lucy(pairs, (3, 3), num_iter=100, tol=0.0, acceleration=False)
    likelihood = fit.history["log_likelihood"]
    assert len(likelihood) == 101
    assert (np.diff(likelihood) > 0).all()
    total = naive.convolve(image, fit.kernel).sum()
    assert total == pytest.approx(result.sum(), rel=1e-12)
    assert (fit.kernel >= 0).all()


@pytest.mark.jit
def test_acceleration_reaches_the_same_in_a_fifth_of_the_iterations():
    image, result = rounded()
    pairs = pairs_of(image, result, (3, 3))
    plain = fit_richardson_lucy(pairs, (3, 3), num_iter=500, tol=0.0, acceleration=False)
    fast = fit_richardson_lucy(pairs, (3, 3), num_iter=100, tol=0.0)
    assert fast.solver == "biggs_andrews"
    assert fast.history["log_likelihood"][-1] >= plain.history["log_likelihood"][-1]
    assert np.abs(fast.kernel - KERNEL).max() < np.abs(plain.kernel - KERNEL).max()


@pytest.mark.jit
def test_finds_the_maximum_of_the_likelihood():
    image, result = rounded()
    pairs = pairs_of(image, result, (3, 3))
    fit = fit_richardson_lucy(pairs, (3, 3), num_iter=5000, tol=1e-9)
    assert fit.converged
    assert fit.num_iter < 5000
    # Where a tap is positive the likelihood's slope is zero, elsewhere it is not positive.
    x, y = naive.design_matrix(image.astype(float), (3, 3)), result.ravel().astype(float)
    slope = (x.T @ (y / (x @ fit.kernel.ravel()))) / x.sum(axis=0) - 1
    assert np.abs(slope * fit.kernel.ravel()).max() < 1e-7
    assert slope.max() < 1e-7
    assert np.abs(fit.kernel - KERNEL).max() < 0.02


def test_stops_where_nothing_changes_any_more():
    image, result = rounded()
    pairs = pairs_of(image, result, (3, 3))
    fit = fit_richardson_lucy(pairs, (3, 3), tol=1e-2)
    assert fit.converged
    assert fit.num_iter < 100
    assert len(fit.history["log_likelihood"]) == fit.num_iter + 1
    short = fit_richardson_lucy(pairs, (3, 3), num_iter=2)
    assert (short.num_iter, short.converged) == (2, False)


def test_dark_pixels_never_make_a_nan(engine, rng):
    image = np.zeros((24, 26))
    image[8:12, 9:13] = rng.random((4, 4)) + 1
    result = naive.convolve(image, KERNEL)
    result[0, 0] = 3.0  # no source within reach
    fit = fit_richardson_lucy(pairs_of(image, result, (3, 3)), (3, 3), num_iter=300)
    assert np.isfinite(fit.kernel).all()
    assert np.isfinite(fit.history["log_likelihood"]).all()
    assert np.abs(fit.kernel - KERNEL).max() < 0.05


def test_a_dim_source_beside_a_bright_one(engine, rng):
    image = np.full((20, 40), 1e-12) * rng.random((20, 40))
    image[:, 30:] = rng.random((20, 10)) * 1e3
    result = naive.convolve(image, KERNEL)
    fit = fit_richardson_lucy(
        pairs_of(image, result, (3, 3)), (3, 3), num_iter=20, tol=0.0, acceleration=False
    )
    want, _ = plainly(naive.design_matrix(image, (3, 3)), result.ravel(), 20)
    assert_allclose(fit.kernel.ravel(), want, rtol=1e-9)


def test_a_tap_over_darkness_is_zero(engine):
    image = np.zeros((10, 12))
    image[:, 4:] = np.random.default_rng(0).random((10, 8)) + 1
    result = image[:, 6:]  # the six taps right of it see all, "valid" leaves 6 columns
    fit = fit_richardson_lucy(pairs_of(image, result, (1, 7)), (1, 7), num_iter=200)
    assert np.isfinite(fit.kernel).all()
    dark = np.zeros((3, 8))
    dark[:, 7] = [1, 2, 3]
    fit = fit_richardson_lucy(pairs_of(dark, dark[:, 4:], (1, 5)), (1, 5), num_iter=5)
    assert_allclose(fit.kernel, [[1, 0, 0, 0, 0]], atol=1e-12)


def test_a_dark_result_has_no_kernel(engine):
    fit = fit_richardson_lucy(
        pairs_of(photograph(), np.zeros((EDGE - 2, EDGE + 6)), (3, 3)), (3, 3)
    )
    assert_array_equal(fit.kernel, np.zeros((3, 3)))
    assert fit.converged


def test_many_taps_go_by_transforms():
    pairs = [pairs_of(np.ones((300, 300)), np.ones((301 - k, 301 - k)), (k, k)) for k in (5, 31)]
    assert not multiplicative.transforms_win(pairs[0], (5, 5))
    assert multiplicative.transforms_win(pairs[1], (31, 31))


def test_inputs_of_other_kinds(rng):
    image, result = rounded()
    want = fit_richardson_lucy(pairs_of(image, result, (3, 3)), (3, 3), num_iter=3)
    wide, tall = np.asfortranarray(image.astype(">i4")), result.astype(np.float32)
    for array in (wide, tall):
        array.flags.writeable = False
    got = fit_richardson_lucy(pairs_of(wide, tall, (3, 3)), (3, 3), num_iter=3)
    assert_array_equal(got.kernel, want.kernel)


def test_callback_reports_and_stops():
    image, result = rounded()
    pairs, calls = pairs_of(image, result, (3, 3)), []
    fit_richardson_lucy(
        pairs, (3, 3), num_iter=4, tol=0.0, callback=lambda *args: calls.append(args)
    )
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_richardson_lucy(pairs, (3, 3), callback=stop)


@pytest.mark.parametrize("name", ["source", "result"])
@pytest.mark.parametrize(("pixel", "words"), [(-0.5, "must not be negative"), (np.nan, "finite")])
def test_refuses_negative_pixels(name, pixel, words):
    image, result = (array.astype(float) for array in rounded())
    {"source": image, "result": result}[name][4, 5] = pixel
    with pytest.raises(ValueError, match=rf"^{name} must .*{words}.*at index \(4, 5\)|{words}"):
        fit_richardson_lucy(pairs_of(image, result, (3, 3)), (3, 3))


def test_names_the_pair_and_the_place_in_the_result():
    image, result = rounded()
    bad = np.pad(result, 1).astype(int)
    bad[3, 4] = -7
    pairs = pairs_of([image, image], [result, bad], (3, 3))
    with pytest.raises(ValueError, match=r"result\[1\] .* got -7 at index \(3, 4\); subtract"):
        fit_richardson_lucy(pairs, (3, 3))


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_refuses_a_flat_source(value):
    with pytest.raises(SingularFitError, match="the source is flat"):
        fit_richardson_lucy(pairs_of(np.full((9, 9), value), np.ones((7, 7)), (3, 3)), (3, 3))


def test_a_flat_source_with_an_edge_or_one_tap_will_do():
    full = naive.convolve(np.full((4, 4), 2.0), KERNEL, "full")
    fit = fit_richardson_lucy(pairs_of(np.full((4, 4), 2.0), full, (3, 3)), (3, 3), tol=1e-9)
    assert_allclose(fit.kernel, KERNEL, atol=0.01)
    fit = fit_richardson_lucy(pairs_of(np.full((4, 4), 2.0), np.ones((4, 4)), (1, 1)), (1, 1))
    assert_allclose(fit.kernel, [[0.5]])


def test_refuses_fewer_pixels_than_taps():
    with pytest.raises(SingularFitError, match="4 pixels for 9 taps"):
        fit_richardson_lucy(pairs_of(np.ones((4, 4)), np.ones((2, 2)), (3, 3)), (3, 3))


@pytest.mark.parametrize("num_iter", [0, -1, 2.5, True, "many"])
def test_refuses_a_number_of_iterations(num_iter):
    image, result = rounded()
    with pytest.raises(ValueError, match="num_iter must be a positive integer"):
        fit_richardson_lucy(pairs_of(image, result, (3, 3)), (3, 3), num_iter=num_iter)


def test_refuses_a_tolerance():
    image, result = rounded()
    with pytest.raises(ValueError, match="tol must be finite and at least 0, got -1"):
        fit_richardson_lucy(pairs_of(image, result, (3, 3)), (3, 3), tol=-1)
