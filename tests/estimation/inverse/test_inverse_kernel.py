"""Inverse kernels minimise what they say, stand where they say, and say how good they are."""

import math
import sys

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import convolve2d, correlate2d, fftconvolve
from skimage import data

from fastkernel import SingularFitError, convolve, psf
from fastkernel.estimation.display import plot_inverse
from fastkernel.estimation.inverse import inverse_methods
from fastkernel.estimation.inverse.inverse_kernel import inverse_kernel

PLUS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
BLUR = np.array([[0, 0.1, 0], [0.1, 0.6, 0.1], [0, 0.1, 0]])
EPS = np.finfo(float).eps
RULES = tuple(naive.PAD_MODES)


def random_kernel(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


KERNELS = {
    "plus": PLUS,
    "blur": BLUR,
    "difference": np.array([[1, -1]]),
    "Laplacian": np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]),
    "random": random_kernel((4, 3)),
    "flat": np.ones((3, 2)),
    "tap": np.array([[-2.0]]),
}
SHAPES = [(1, 1), (2, 3), (7, 6)]


def full_matrix(kernel, shape):
    """Dense: column by column the full convolution of one tap."""
    units = np.eye(shape[0] * shape[1]).reshape(-1, *shape)
    return np.array([convolve2d(kernel, unit).ravel() for unit in units]).T


def delta(kernel, shape, delay):
    found = np.zeros([m + p - 1 for m, p in zip(kernel.shape, shape, strict=True)])
    found[delay] = 1
    return found


def dense(kernel, shape, delay, ridge=0.0):
    """The minimiser by a solver that never squares the condition number."""
    matrix = full_matrix(kernel, shape)
    rhs = delta(kernel, shape, delay).ravel()
    n = matrix.shape[1]
    matrix = np.vstack([matrix, math.sqrt(ridge) * np.eye(n)])
    return np.linalg.lstsq(matrix, np.append(rhs, np.zeros(n)))[0].reshape(shape)


def middle(kernel, shape):
    return tuple((m + p - 2) // 2 for m, p in zip(kernel.shape, shape, strict=True))


def residual(kernel, taps, delay):
    return convolve2d(kernel, taps) - delta(kernel, taps.shape, delay)


SOLVERS = {
    "auto": {},
    "cholesky": {"solver": "cholesky"},
    "conjugate_gradients": {"solver": "conjugate_gradients", "tol": 1e-13},
    "fista": {"solver": "fista", "tol": 1e-12},
    "gradient_descent": {"solver": "gradient_descent", "tol": 1e-11, "num_iter": 50000},
}


@pytest.mark.jit
@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("options", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_is_the_minimiser(kernel, options, ridge):
    for shape in SHAPES:
        for delay in ((0, 0), middle(kernel, shape)):
            fit = inverse_kernel(kernel, shape, delay=delay, ridge=ridge, **options)
            assert fit.converged
            assert fit.delay == delay
            assert fit.kernel.dtype == np.float64
            want = dense(kernel, shape, delay, ridge)
            assert_allclose(fit.kernel, want, rtol=0, atol=1e-8 * max(1, abs(want).max()))


@pytest.mark.parametrize("ridge", [0.0, 0.01])
def test_small_minimiser(ridge):
    fit = inverse_kernel(BLUR, (5, 4), delay=(3, 3), ridge=ridge)
    assert fit.solver == "cholesky"
    assert_allclose(fit.kernel, dense(BLUR, (5, 4), (3, 3), ridge), rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["lstsq", "fft", "matrix"])
@pytest.mark.parametrize("kernel", [BLUR, KERNELS["random"]], ids=["blur", "random"])
def test_reports_on_itself(kernel, method):
    fit = inverse_kernel(kernel, (6, 7), method=method, ridge=1e-3)
    left = naive.convolve(fit.kernel, kernel, "full") - delta(kernel, (6, 7), fit.delay)
    assert_allclose(fit.max_deviation, abs(left).max(), rtol=1e-9)
    assert_allclose(fit.residual, np.linalg.norm(left), rtol=1e-9)
    assert_allclose(fit.deviation, left, rtol=0, atol=1e-12)
    assert_allclose(fit.noise_gain, np.linalg.norm(fit.kernel), rtol=1e-12)
    assert (fit.method, fit.num_iter, fit.converged, fit.history) == (method, 0, True, None)


def test_brings_a_photograph_back():
    image = data.camera()[200:260, 200:270] / 255
    fit = inverse_kernel(BLUR, 25)
    back = convolve(convolve(image, BLUR), fit.kernel)
    (i, j), (m, n) = fit.delay, image.shape
    assert_allclose(back[i : i + m, j : j + n], image, rtol=0, atol=1e-5)


def best_residual(kernel, shape):
    """Over all positions, from the projector."""
    q, _ = np.linalg.qr(full_matrix(kernel, shape))
    return math.sqrt(1 - (q**2).sum(axis=1).max())


DELAYED = KERNELS | {
    "causal": np.array([[1, 0.5], [0.3, 0.2]]),
    "corner": np.array([[0.2, 0.5], [0.3, 1.0]]),
    "skew": random_kernel((3, 5), 3),
}


@pytest.mark.parametrize("kernel", DELAYED.values(), ids=DELAYED)
def test_delay_is_the_best_position(kernel):
    for shape in SHAPES:
        fit = inverse_kernel(kernel, shape)
        assert_allclose(fit.residual, best_residual(kernel, shape), rtol=0, atol=1e-7)


def test_delay_nearest_to_the_middle_among_equals():
    assert inverse_kernel([[3.0]], (5, 5)).delay == (2, 2)
    assert inverse_kernel([[0, 0, 1]], (1, 5)).delay == (0, 3)


@pytest.mark.jit
@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_delay_with_a_ridge_minimises_what_is_minimised(ridge):
    kernel, shape = KERNELS["random"], (6, 5)

    def objective(delay):
        taps = dense(kernel, shape, delay, ridge)
        return (residual(kernel, taps, delay) ** 2).sum() + ridge * (taps**2).sum()

    fit = inverse_kernel(kernel, shape, ridge=ridge)
    places = np.ndindex(9, 7)
    assert_allclose(objective(fit.delay), min(map(objective, places)), rtol=1e-10)


@pytest.mark.jit
@pytest.mark.parametrize("kernel", DELAYED.values(), ids=DELAYED)
def test_delay_by_candidates_is_nearly_the_best(kernel, monkeypatch):
    best = best_residual(kernel, (20, 20))
    monkeypatch.setattr(inverse_methods, "ALL_DELAYS", 0)
    fit = inverse_kernel(kernel, (20, 20))
    assert fit.residual <= 1.2 * best + 1e-4


@pytest.mark.parametrize("kernel", [BLUR, DELAYED["causal"]], ids=["blur", "causal"])
def test_delay_by_candidates_is_no_worse_than_the_middle(kernel, monkeypatch):
    monkeypatch.setattr(inverse_methods, "DIRECT_TAPS", 0)
    fit = inverse_kernel(kernel, (5, 6))
    by_middle = inverse_kernel(kernel, (5, 6), delay=middle(kernel, (5, 6)))
    assert fit.residual <= by_middle.residual + 1e-4


def test_momentum_restarts():
    delay = middle(PLUS, (3, 4))
    fit = inverse_kernel(PLUS, (3, 4), solver="fista", delay=delay, tol=1e-12)
    assert fit.converged
    assert_allclose(fit.kernel, dense(PLUS, (3, 4), delay), rtol=0, atol=1e-10)


@pytest.fixture(scope="module")
def published_kernel():
    return np.random.default_rng(0).random((11, 7))


def published_descent(kernel, shape, step, num_iter, delay):
    """The answer's own two lines, and the objective before every step and after the last."""
    taps, history = np.zeros(shape), []
    for _ in range(num_iter):
        left = fftconvolve(kernel, taps) - delta(kernel, shape, delay)
        history.append(0.5 * (left**2).sum())
        taps = taps - step * fftconvolve(left, kernel[::-1, ::-1], "valid")
    left = fftconvolve(kernel, taps) - delta(kernel, shape, delay)
    return taps, [*history, 0.5 * (left**2).sum()]


@pytest.mark.jit
@pytest.mark.parametrize(
    ("shape", "step", "num_iter"), [((201, 201), 5e-5, 25), ((30, 21), 5e-4, 200)]
)
def test_vanilla_descent_equals_a_transcription(published_kernel, shape, step, num_iter):
    delay = middle(published_kernel, shape)
    taps, history = published_descent(published_kernel, shape, step, num_iter, delay)
    fit = inverse_kernel(
        published_kernel,
        shape,
        solver="gradient_descent",
        step=step,
        num_iter=num_iter,
        delay=delay,
    )
    assert fit.num_iter == num_iter
    assert not fit.converged
    assert_allclose(fit.history["objective"], history, rtol=1e-9)
    assert_allclose(fit.kernel, taps, rtol=0, atol=1e-12)


def test_small_descent_equals_a_transcription():
    taps, history = published_descent(BLUR, (4, 5), 0.5, 6, (2, 3))
    fit = inverse_kernel(
        BLUR, (4, 5), solver="gradient_descent", step=0.5, num_iter=6, tol=0, delay=(2, 3)
    )
    assert_allclose(fit.history["objective"], history, rtol=1e-12)
    assert_allclose(fit.kernel, taps, rtol=1e-12)


@pytest.mark.jit
def test_fista_equals_a_transcription_until_it_restarts(published_kernel):
    kernel, shape, delay, step = published_kernel, (20, 17), (14, 11), 5e-4
    taps, ahead, t, history = np.zeros(shape), np.zeros(shape), 1.0, []
    for _ in range(15):
        history.append(0.5 * (residual(kernel, taps, delay) ** 2).sum())
        gradient = correlate2d(residual(kernel, ahead, delay), kernel, "valid")
        moved = ahead - step * gradient
        assert (gradient * (moved - taps)).sum() <= 0
        t_next = (1 + math.sqrt(1 + 4 * t**2)) / 2
        ahead = moved + (t - 1) / t_next * (moved - taps)
        taps, t = moved, t_next
    fit = inverse_kernel(kernel, shape, solver="fista", delay=delay, step=step, num_iter=15, tol=0)
    assert_allclose(fit.history["objective"][:-1], history, rtol=1e-9)
    assert_allclose(fit.kernel, taps, rtol=0, atol=1e-12)


@pytest.mark.jit
def test_fista_is_ahead_of_plain_descent():
    options = {"num_iter": 300, "tol": 0, "delay": (10, 10)}
    plain = inverse_kernel(PLUS, 19, solver="gradient_descent", **options)
    fast = inverse_kernel(PLUS, 19, solver="fista", **options)
    best = inverse_kernel(PLUS, 19, delay=(10, 10)).residual
    assert (np.diff(plain.history["objective"]) <= 0).all()
    assert fast.residual - best < 0.05 * (plain.residual - best)


@pytest.mark.parametrize("ridge", [0.0, 2.0])
def test_a_step_too_large_names_the_largest(ridge):
    kernel, shape = 7 * KERNELS["random"], (5, 4)
    matrix = full_matrix(kernel, shape)
    largest = np.linalg.eigvalsh(matrix.T @ matrix)[-1] + ridge
    options = {"delay": (3, 3), "ridge": ridge, "num_iter": 20}
    for solver, share in (("gradient_descent", 2), ("fista", 1)):
        limit = share / largest
        with pytest.raises(ValueError, match=r"step must be at most ") as caught:
            inverse_kernel(kernel, shape, solver=solver, step=1.001 * limit, **options)
        named = float(str(caught.value).split()[5].rstrip(","))
        assert_allclose(named, limit, rtol=1e-5)
        fit = inverse_kernel(kernel, shape, solver=solver, step=named, **options)
        assert fit.residual < 1
        by_default = inverse_kernel(kernel, shape, solver=solver, **options)
        safe = inverse_kernel(kernel, shape, solver=solver, step=1 / largest, **options)
        assert by_default.num_iter == safe.num_iter == 20
        assert_allclose(by_default.kernel, safe.kernel, rtol=0, atol=1e-5 * abs(safe.kernel).max())


def bell(noise):
    bumps = 1 + noise * np.random.default_rng(2).standard_normal((11, 7))
    return 10 * psf.gaussian((11, 7), 1.5) * bumps


@pytest.mark.jit
@pytest.mark.parametrize(
    "kernel",
    [np.random.default_rng(0).random((11, 7)), random_kernel((11, 7)), bell(0), bell(0.1)],
    ids=["uniform", "normal", "bell", "rough bell"],
)
def test_no_worse_than_all_published_steps(kernel):
    """Of 50 000 steps, in the basis where each tap shrinks by itself."""
    shape, step = (16, 14), 5e-5
    delay, matrix = middle(kernel, shape), full_matrix(kernel, shape)
    values, basis = np.linalg.eigh(matrix.T @ matrix)
    target = basis.T @ (matrix.T @ delta(kernel, shape, delay).ravel())

    def after(num_iter):
        left = np.exp(num_iter * np.log1p(-step * values))
        return (basis @ (target * (1 - left) / values)).reshape(shape)

    taps, _ = published_descent(kernel, shape, step, 30, delay)
    assert_allclose(after(30), taps, rtol=0, atol=1e-12)
    reached = residual(kernel, after(50000), delay)
    for solver in ("auto", "conjugate_gradients"):
        fit = inverse_kernel(kernel, shape, delay=delay, solver=solver)
        assert fit.residual <= (1 + 1e-7) * np.linalg.norm(reached)
        assert fit.max_deviation <= (1 + 1e-7) * abs(reached).max()


@pytest.mark.jit
def test_at_full_size(published_kernel):
    """Against 50 000 published steps, which took an independent loop half a minute."""
    reached_by_descent = 0.0404195
    delay = middle(published_kernel, (201, 201))
    fit = inverse_kernel(published_kernel, (201, 201), delay=delay)
    assert fit.solver == "conjugate_gradients"
    assert fit.converged
    assert fit.max_deviation < 0.1 * reached_by_descent
    left = fftconvolve(published_kernel, fit.kernel) - delta(published_kernel, (201, 201), delay)
    gradient = fftconvolve(left, published_kernel[::-1, ::-1], "valid")
    assert abs(gradient).max() < 1e-7
    assert_allclose(fit.history["objective"][-1], 0.5 * (left**2).sum(), rtol=1e-9)
    assert (np.diff(fit.history["objective"]) <= 1e-15).all()
    anywhere = inverse_kernel(published_kernel, (201, 201))
    assert anywhere.residual <= fit.residual


def test_a_wide_gaussian_is_singular_to_rounding():
    kernel = psf.gaussian((1, 41), 3.0)
    with pytest.raises(SingularFitError, match=r"its transform falls to .* frequency .* ridge= "):
        inverse_kernel(kernel, (1, 60), solver="cholesky", delay=(0, 50))
    fit = inverse_kernel(kernel, (1, 60), num_iter=20)
    assert (fit.solver, fit.converged, fit.num_iter) == ("conjugate_gradients", False, 20)
    assert fit.residual < 1
    eased = inverse_kernel(kernel, (1, 60), ridge=1e-6)
    assert (eased.solver, eased.converged) == ("cholesky", True)
    assert eased.noise_gain < fit.noise_gain or eased.residual < fit.residual


def filtering_matrix(kernel, shape, rule):
    units = np.eye(shape[0] * shape[1]).reshape(-1, *shape)
    return np.array([naive.filtered(unit, kernel, "same", rule).ravel() for unit in units]).T


def pseudo_inverse(matrix):
    """With how far rounding can move it: as far as its size and the matrix's allow."""
    found = np.linalg.pinv(matrix, rtol=len(matrix) * EPS)
    return found, 1000 * EPS * np.linalg.norm(found, 2) ** 2 * np.linalg.norm(matrix, 2)


@pytest.mark.parametrize("shape", [(9, 9), (7, 10), (5, 4), (2, 3), (1, 1)])
@pytest.mark.parametrize("rule", RULES)
def test_matrix_is_the_pseudo_inverse(rule, shape):
    for kernel in (PLUS, random_kernel((4, 5)), random_kernel((3, 3), 1), np.ones((2, 2))):
        want, atol = pseudo_inverse(filtering_matrix(kernel, shape, rule))
        fit = inverse_kernel(kernel, shape, method="matrix", boundary=rule)
        assert_allclose(fit.operator @ np.eye(len(want)), want, rtol=0, atol=atol)
        row = want[shape[0] // 2 * shape[1] + shape[1] // 2].reshape(shape)
        assert_allclose(fit.kernel, row[::-1, ::-1], rtol=0, atol=atol)
        assert fit.solver == ("fft" if rule == "circular" else "svd")


@pytest.mark.parametrize("rule", ["zero", "circular"])
def test_matrix_kernel_restores_the_pixel_it_stands_for(rule, rng):
    kernel, shape = random_kernel((3, 2)), (6, 5)
    image = rng.random(shape)
    filtered = naive.filtered(image, kernel, "same", rule)
    fit = inverse_kernel(kernel, shape, method="matrix", boundary=rule)
    assert_allclose((fit.operator @ filtered.ravel()).reshape(shape), image, atol=1e-9)
    back = naive.convolve(filtered, fit.kernel, "same")
    assert_allclose(back[3, 2], image[3, 2], atol=1e-9)
    # In the full convolution with the filtered image, every row's pixel stands at the delay less
    # the kernel's own centre.
    for delay in ((1, 0), (6, 4), (3, 2)):
        fit = inverse_kernel(kernel, shape, method="matrix", boundary=rule, delay=delay)
        pixel = 6 - delay[0], 4 - delay[1]
        full = naive.convolve(filtered, fit.kernel, "full")
        assert_allclose(full[5, 4], image[pixel], atol=1e-9)


def test_matrix_ridge_is_tikhonov():
    for rule in ("zero", "circular"):
        matrix = filtering_matrix(PLUS, (5, 6), rule)
        want = np.linalg.solve(matrix.T @ matrix + 0.3 * np.eye(30), matrix.T)
        fit = inverse_kernel(PLUS, (5, 6), method="matrix", boundary=rule, ridge=0.3)
        assert_allclose(fit.operator @ np.eye(30), want, rtol=0, atol=1e-13)


@pytest.mark.jit
def test_circular_matrix_of_any_size(rng):
    shape = (96, 81)
    image = rng.random(shape)
    fit = inverse_kernel(BLUR, shape, method="matrix", boundary="wrap")
    filtered = naive.convolve(image, BLUR, "same", "circular")
    assert_allclose((fit.operator @ filtered.ravel()).reshape(shape), image, atol=1e-12)
    assert_allclose(naive.convolve(filtered, fit.kernel, "same", "circular"), image, atol=1e-12)


def test_division_is_the_infinite_inverse_cut_off():
    fit = inverse_kernel([[1, 0.5]], (1, 20), method="fft")
    assert fit.delay == (0, 0)
    assert_allclose(fit.kernel[0], (-0.5) ** np.arange(20), rtol=0, atol=1e-12)
    assert_allclose(fit.max_deviation, 0.5**20, rtol=1e-5)
    late = inverse_kernel([[1, 0.5]], (1, 20), method="fft", delay=(0, 5))
    assert_allclose(late.kernel[0, 5:], (-0.5) ** np.arange(15), rtol=0, atol=1e-12)
    assert_allclose(late.kernel[0, :5], 0, atol=1e-12)


def test_division_with_a_ridge_is_wieners():
    """Against the integral over frequency, which a much finer grid is; ours wraps a little."""
    fit = inverse_kernel([[1, 1]], (1, 21), method="fft", ridge=0.1)
    spectrum = np.fft.rfft([1, 1], 4096)
    want = np.fft.irfft(spectrum.conj() / (abs(spectrum) ** 2 + 0.1), 4096)
    assert_allclose(fit.kernel[0], want[np.arange(21) - fit.delay[1]], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kernel", [PLUS, [[1, -1]], psf.box(3), psf.motion(4)])
def test_division_refuses_zeros(kernel):
    message = r"transform falls to 0\.0e\+00 at the frequency \(.*\)\. What helps: ridge= .*lstsq"
    with pytest.raises(SingularFitError, match=message):
        inverse_kernel(kernel, 9, method="fft")
    assert inverse_kernel(kernel, 9, method="fft", ridge=1e-3).max_deviation < 1


@pytest.mark.parametrize(
    ("kernel", "least", "where"),
    [
        ([[1, -1]], 0, (0, 0)),
        (BLUR, 0.2, (0.5, 0.5)),
        ([[3.0]], 3, None),
        ([[1, 0.5]], 0.5, (0, 0.5)),
        (psf.motion(9), 0, None),
        (1e-9 * psf.disk(3.3), 0, None),
        (PLUS, 0, None),
        (random_kernel((5, 4), 2), None, None),
        (random_kernel((1, 9), 2), None, None),
        (random_kernel((1, 9), 3), None, None),
    ],
)
def test_smallest_gain(kernel, least, where):
    fit = inverse_kernel(kernel, 3)
    f, (u, v) = np.asarray(kernel, float), fit.smallest_frequency
    i, j = np.indices(f.shape)
    size = abs(f).sum()
    assert_allclose(
        abs((f * np.exp(-2j * np.pi * (u * i + v * j))).sum()),
        fit.smallest_gain,
        rtol=0,
        atol=1e-13 * size,
    )
    assert fit.smallest_gain <= abs(np.fft.fft2(f, (360, 360))).min() + 1e-14 * size
    assert 0 <= v <= 0.5
    assert -0.5 <= u <= 0.5
    if least is not None:
        assert_allclose(fit.smallest_gain, least, rtol=1e-13)
    if where is not None:
        assert_allclose((abs(u), v), where, atol=1e-6)


@pytest.mark.parametrize("method", ["lstsq", "matrix", "fft"])
@pytest.mark.parametrize("scale", [1e-200, 1e200, 2.0**-700])
def test_any_unit(scale, method):
    want = inverse_kernel(BLUR, 7, method=method)
    got = inverse_kernel(scale * BLUR, 7, method=method)
    assert_allclose(got.kernel * scale, want.kernel, rtol=1e-9, atol=1e-13)
    assert_allclose(got.max_deviation, want.max_deviation, rtol=1e-9)
    assert_allclose(got.smallest_gain, scale * want.smallest_gain, rtol=1e-12)
    if method == "matrix":
        vector = np.arange(49.0)
        assert_allclose(scale * (got.operator @ vector), want.operator @ vector, rtol=1e-9)


def test_ridge_and_step_are_in_units_of_the_kernel():
    options = {"solver": "gradient_descent", "num_iter": 5, "tol": 0, "delay": (3, 3)}
    want = inverse_kernel(BLUR, 5, ridge=0.02, step=0.3, **options)
    got = inverse_kernel(10 * BLUR, 5, ridge=2.0, step=0.003, **options)
    assert_allclose(10 * got.kernel, want.kernel, rtol=1e-12)
    assert_allclose(got.history["objective"], want.history["objective"], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float32, ">f8"])
def test_kernels_of_any_dtype_are_only_read(dtype):
    kernel = PLUS.astype(dtype)
    kernel.flags.writeable = False
    assert_allclose(inverse_kernel(kernel, 3).kernel, inverse_kernel(PLUS.tolist(), 3).kernel)


@pytest.mark.jit
@pytest.mark.parametrize("options", SOLVERS.values(), ids=SOLVERS)
def test_same_bits_for_any_workers(options):
    options = options | ({"num_iter": 5} if "tol" in options else {})
    one, two = (inverse_kernel(PLUS, 31, workers=n, **options) for n in (1, 2))
    assert_array_equal(one.kernel, two.kernel)
    assert one.delay == two.delay


@pytest.mark.parametrize("solver", ["cholesky", "conjugate_gradients", "gradient_descent", "fista"])
def test_progress(solver):
    limits = {} if solver == "cholesky" else {"num_iter": 4, "tol": 0}
    calls = []
    fit = inverse_kernel(
        BLUR, 4, solver=solver, callback=lambda *call: calls.append(call), **limits
    )
    want = [(1, 1)] if solver == "cholesky" else [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert calls == want
    assert fit.num_iter == len(limits and want)


def test_early_end_of_the_progress():
    calls = []
    fit = inverse_kernel(
        [[2.0]], 3, solver="fista", tol=1e-3, callback=lambda *call: calls.append(call)
    )
    assert fit.converged
    assert fit.num_iter < 10
    assert calls[-1] == (5000, 5000)


def test_an_exception_in_the_callback_stops_the_work():
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inverse_kernel(BLUR, 5, solver="conjugate_gradients", tol=0, callback=stop)
    assert inverse_kernel(BLUR, 5, solver="conjugate_gradients").converged


def test_candidates_that_agree_are_not_compared(monkeypatch):
    monkeypatch.setattr(inverse_methods, "ALL_DELAYS", 0)
    monkeypatch.setattr(inverse_methods, "_conjugate_gradients", None)
    kernel = psf.gaussian((5, 7), 0.7)
    assert inverse_kernel(kernel, (9, 9), ridge=1e-3).delay == middle(kernel, (9, 9))


def test_figure_of_an_inverse(monkeypatch):
    pytest.importorskip("matplotlib")
    fit = inverse_kernel(PLUS, (9, 8))
    figure = fit.plot()
    left, right = (panel.images[0] for panel in figure.axes if panel.images)
    assert_array_equal(left.get_array(), fit.kernel)
    assert_allclose(right.get_array(), residual(PLUS, fit.kernel, fit.delay), atol=1e-12)
    for drawn in (left, right):
        largest = abs(drawn.get_array()).max()
        assert drawn.get_cmap().name == "RdBu_r"
        assert_allclose(drawn.get_clim(), (-largest, largest))
    assert figure.get_suptitle().startswith("9x8 inverse, lstsq, largest deviation 0.")
    assert plot_inverse(fit, title="mine").get_suptitle() == "mine"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"fastkernel\[plot\]"):
        fit.plot()


def test_table_of_an_inverse():
    table = inverse_kernel(PLUS, (5, 4), delay=(3, 2), solver="fista", num_iter=3)._repr_html_()
    assert table.startswith("<table><tr><th>inverse</th><td>5×4</td></tr>")
    assert "<td>3 rows, 2 columns</td>" in table
    assert "<td>3, not converged</td>" in table
    assert ": no inverse is exact</td>" in table
    direct = inverse_kernel(BLUR, 5)._repr_html_()
    assert "0.2 at frequency (0.500, 0.500)</td>" in direct
    assert "iterations" not in direct


def test_an_impulse_out_of_reach_has_the_zero_inverse():
    kernel = np.array([[0, 1], [1, 0]])
    for solver in ("cholesky", "conjugate_gradients", "fista"):
        fit = inverse_kernel(kernel, (2, 2), delay=(0, 0), solver=solver)
        assert_allclose(fit.kernel, 0, atol=1e-16)
        assert fit.residual == 1


CASES = {
    "complex": ({"kernel": PLUS + 1j}, TypeError, r"kernel must hold real numbers"),
    "colour": ({"kernel": np.ones((3, 3, 3))}, ValueError, r"kernel must have 2 dimensions"),
    "masked": (
        {"kernel": np.ma.array(PLUS, mask=PLUS == 0)},
        TypeError,
        r"kernel must not be masked",
    ),
    "words": ({"kernel": [["a"]]}, TypeError, r"kernel must hold real numbers, got dtype <U1"),
    "one line": ({"kernel": [1, 2]}, ValueError, r"kernel must have 2 dimensions, .* got .*\(2,\)"),
    "infinity": ({"kernel": [[np.inf, 1]]}, ValueError, r"kernel must be finite, got inf at "),
    "empty": ({"kernel": np.ones((0, 3))}, ValueError, r"kernel must have at least one pixel"),
    "NaN": (
        {"kernel": [[1, np.nan]]},
        ValueError,
        r"kernel must be finite, got nan at index \(0, 1\)",
    ),
    "zero": (
        {"kernel": np.zeros((3, 3))},
        ValueError,
        r"kernel must not vanish, nothing undoes that; its largest magnitude is 0\.0",
    ),
    "next to zero": ({"kernel": [[1e-305]]}, ValueError, r"kernel must not vanish.*1e-305"),
    "no pixels": (
        {"shape": (0, 5)},
        ValueError,
        r"shape must be two positive integers \(rows, cols\), got \(0, 5\)",
    ),
    "half a pixel": ({"shape": 2.5}, ValueError, r"shape must be two positive integers.*2\.5"),
    "method": ({"method": "dft"}, ValueError, r"method must be one of 'lstsq', 'matrix', 'fft'"),
    "solver": ({"solver": "lu"}, ValueError, r"solver must be one of 'auto', 'cholesky', "),
    "solver of a direct method": (
        {"method": "fft", "solver": "fista"},
        ValueError,
        r"solver must be 'auto' for method='fft', which is direct; got 'fista'",
    ),
    "ridge": ({"ridge": -1}, ValueError, r"ridge must be finite and at least 0, got -1"),
    "ridge in words": ({"ridge": "0"}, TypeError, r"ridge must be a number, got '0'"),
    "delay outside": (
        {"delay": (7, 0)},
        ValueError,
        r"delay must be two integers \(row, col\) inside the full convolution \(7, 7\), got ",
    ),
    "delay negative": ({"delay": (-1, 0)}, ValueError, r"delay must be two integers"),
    "delay of one": ({"delay": 3}, ValueError, r"delay must be two integers .* got 3"),
    "delay of truth": ({"delay": (True, 1)}, ValueError, r"delay must be two integers"),
    "delay NaN": ({"delay": (np.nan, 1)}, ValueError, r"delay must be two integers .* got \(nan"),
    "delay in halves": ({"delay": (1.5, 2)}, ValueError, r"delay must be two integers"),
    "delay of no pixel": (
        {"method": "matrix", "delay": (0, 3)},
        ValueError,
        r"delay must be from \(1, 1\) to \(5, 5\) for method='matrix', whose .* got \(0, 3\)",
    ),
    "step of no descent": (
        {"step": 1e-3},
        ValueError,
        r"step must be None for solver='auto'; 'gradient_descent' and 'fista' take one",
    ),
    "step": (
        {"solver": "fista", "step": 0},
        ValueError,
        r"step must be above 0, got 0",
    ),
    "iterations of nothing": (
        {"solver": "cholesky", "num_iter": 5},
        ValueError,
        r"num_iter must be None where nothing is iterated, got 5",
    ),
    "tolerance of nothing": (
        {"method": "matrix", "tol": 0.1},
        ValueError,
        r"tol must be None where nothing is iterated, got 0\.1",
    ),
    "no iterations": (
        {"num_iter": 0},
        ValueError,
        r"num_iter must be a positive integer, got 0",
    ),
    "tolerance": ({"tol": np.nan}, ValueError, r"tol must be finite and at least 0, got nan"),
    "border": ({"method": "matrix", "boundary": "reflect"}, ValueError, r"boundary='reflect'"),
    "border of a full convolution": (
        {"boundary": "edge"},
        ValueError,
        r"boundary must be 'zero' for method='lstsq', a full .* got 'replicate'; method='matrix'",
    ),
    "large matrix": (
        {"method": "matrix", "shape": (33, 32)},
        ValueError,
        r"shape must hold at most 1024 pixels for method='matrix' and boundary='zero', "
        r"got \(33, 32\); use method='lstsq', or boundary='circular'",
    ),
    "workers": ({"workers": 0}, ValueError, r"workers must be a positive integer"),
}


@pytest.mark.parametrize(("options", "error", "message"), CASES.values(), ids=CASES)
def test_refusals(options, error, message):
    arguments = {"kernel": PLUS, "shape": (5, 5)} | options
    with pytest.raises(error, match=message):
        inverse_kernel(arguments.pop("kernel"), arguments.pop("shape"), **arguments)


def test_refuses_normal_equations_beyond_memory():
    with pytest.raises(MemoryError, match=r"the normal equations .* solver='conjugate_gradients'"):
        inverse_kernel(PLUS, (3000, 3000), solver="cholesky", delay=(0, 0))
