"""Methods that find an inverse kernel: problems in, taps out. They check no argument."""

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from fastkernel._images.checks import refuse_beyond_memory
from fastkernel._images.windows import centre, window_of_mode
from fastkernel._loops import conjugate as loops
from fastkernel._loops.descent import scale_spectrum
from fastkernel._machine import lapack
from fastkernel._machine.fft import borrowed_tile_transforms
from fastkernel._machine.kept import kept_property
from fastkernel._machine.tiles import wait_for
from fastkernel._typing import Boundary, FloatArray, Progress, Shape
from fastkernel.convolution.convolution_engines import Correlation, Plane
from fastkernel.convolution.convolve import convolved
from fastkernel.convolution.matrix import convolution_matrix
from fastkernel.convolution.operator import convolution_operator
from fastkernel.convolution.request import as_taps
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.solvers.descents import largest_eigenvalue
from fastkernel.estimation.solvers.direct import Factor, factorise

DESCENTS = ("gradient_descent", "fista")

# Taps up to which the normal equations are formed: factorising them takes a blink.
DIRECT_TAPS = 1024
# Taps times positions of the impulse up to which all positions are tried.
ALL_DELAYS = 1 << 22
# Pixels up to which a filtering matrix is decomposed: a few seconds, and some 8 MiB matrices.
MATRIX_PIXELS = 1024

_EPS = float(np.finfo(np.float64).eps)
_TOL = 1e-8
_NUM_ITER = {"conjugate_gradients": 1000, "gradient_descent": 5000, "fista": 5000}

# Positions of the impulse whose squared residuals differ by less are as good as each other.
_TIE = 1e-12

# Numbers of a spectrum that are inverted at a time.
_PANEL = 1 << 16
# Solves that only compare positions, and the ridges, as shares of the largest |F|**2, of the
# periodic inverses that propose them: no single one does for smooth and for sharp kernels.
_DELAY_TOL, _DELAY_ITER, _DELAY_RIDGES = 1e-4, 100, (1e-2, 1e-4)

# Local minima of |F| on a grid that are followed to the bottom, and how far.
_MINIMA, _NEWTON_STEPS = 32, 50


class Limits(NamedTuple):
    """When iterations stop, and whom they tell."""

    num_iter: int | None
    tol: float | None
    progress: Progress | None


class Found(NamedTuple):
    """An inverse by one of the methods."""

    taps: FloatArray
    solver: str
    num_iter: int = 0
    converged: bool = True
    history: Mapping[str, FloatArray] | None = None


class Problem:
    r"""The least-squares problem of an inverse, without its right-hand side.

    Parameters
    ----------
    kernel : (m, n) float64 array
        The kernel to invert; its largest magnitude is near 1.
    shape : (int, int)
        ``(p, q)``, of the inverse.
    ridge : float
        Penalty, in squared units of ``kernel``.
    workers : int
        Threads to use.

    Attributes
    ----------
    outputs : (int, int)
        Shape of the full convolution.
    """

    def __init__(self, kernel: FloatArray, shape: Shape, ridge: float, workers: int) -> None:
        self.kernel, self.shape, self.ridge, self.workers = kernel, shape, ridge, workers
        kernel_shape = kernel.shape[0], kernel.shape[1]
        self._full = window_of_mode("full", shape, kernel_shape, None)
        self.outputs = self._full.shape
        self._valid = window_of_mode("valid", self.outputs, kernel_shape, None)

    def convolve(self, taps: FloatArray) -> FloatArray:
        """Return the full convolution with the kernel."""
        return convolved(taps, self.kernel, self._full, self.workers)

    def residual(self, taps: FloatArray, delay: Shape) -> FloatArray:
        """Return ``f * g - delta``."""
        found = self.convolve(taps)
        found[delay] -= 1
        return found

    def gradient(self, taps: FloatArray, left: FloatArray) -> FloatArray:
        """Return the gradient of the objective where the residual is ``left``."""
        moments = convolved(left, self.kernel[::-1, ::-1], self._valid, self.workers)
        return np.asarray(moments + self.ridge * taps)

    def products(
        self, taps: FloatArray, image: FloatArray, left: FloatArray, moments: FloatArray
    ) -> tuple[Callable[[], bool], Callable[[], bool]]:
        """Return what convolves taps into an image, and correlates a residual into moments."""
        there, back = (
            Correlation([Plane(*planes)], as_taps(kernel, taps.dtype, flipped=True), window)
            for planes, kernel, window in (
                ((taps, image), self.kernel, self._full),
                ((left, moments), self.kernel[::-1, ::-1], self._valid),
            )
        )
        return there.prepared("auto", self.workers), back.prepared("auto", self.workers)

    def objective(self, taps: FloatArray, left: FloatArray) -> float:
        """Return half the squared residual, and the ridge's share."""
        return 0.5 * (_dot(left, left) + self.ridge * _dot(taps, taps))

    @kept_property
    def lags(self) -> FloatArray:
        """Autocorrelation of the kernel, (2m - 1, 2n - 1) float64, lag 0 in the middle."""
        m, n = self.kernel.shape
        window = window_of_mode("full", (m, n), (m, n), None)
        return convolved(self.kernel, self.kernel[::-1, ::-1], window, self.workers)

    @kept_property
    def gram(self) -> FloatArray:
        """The normal equations, (p * q, p * q) float64, without the ridge."""
        (p, q), (m, n) = self.shape, self.kernel.shape
        refuse_beyond_memory(
            24 * (p * q) ** 2, "the normal equations", "solver='conjugate_gradients'"
        )
        by_lag = np.zeros((2 * p - 1, 2 * q - 1))
        i, j = min(m, p), min(n, q)
        by_lag[p - i : p + i - 1, q - j : q + j - 1] = self.lags[
            m - i : m + i - 1, n - j : n + j - 1
        ]
        rows, cols = (np.subtract.outer(np.arange(k), np.arange(k)) + k - 1 for k in (p, q))
        blocks = by_lag[rows[:, None, :, None], cols[None, :, None, :]]
        return np.asarray(blocks.reshape(p * q, p * q))

    @kept_property
    def factor(self) -> Factor:
        """Factor of the normal equations with the ridge; SingularFitError where there is none."""
        return factorise(self.gram, self.ridge)

    @kept_property
    def eigenvalues(self) -> FloatArray:
        """Of the circulant matrix nearest to the normal equations, (rows, cols // 2 + 1) float64.

        The equations are those of an inverse of the next size that transforms are fast at.
        """
        (m, n), grid = self.kernel.shape, [fft.next_fast_len(k, real=True) for k in self.shape]
        lags = np.arange(1 - m, m), np.arange(1 - n, n)
        shares = [np.clip(1 - np.abs(i) / k, 0, None) for i, k in zip(lags, grid, strict=True)]
        wrapped = np.zeros(grid)
        np.add.at(
            wrapped,
            (lags[0][:, None] % grid[0], lags[1] % grid[1]),
            self.lags * np.multiply.outer(*shares),
        )
        found = fft.rfft2(wrapped).real
        # Each is a Rayleigh quotient, not negative but for rounding.
        return np.asarray(np.maximum(found, _EPS * found.max()) + self.ridge)

    def largest_eigenvalue(self) -> float:
        """Return a bound on that of the normal equations, with the ridge, from above."""
        return largest_eigenvalue(lambda taps: self.gradient(taps, self.convolve(taps)), self.shape)


def _dot(a: FloatArray, b: FloatArray) -> float:
    """Return the sum of products; BLAS would wake threads of its own at every iteration."""
    return float(np.sum(a * b))


class State(NamedTuple):
    """Where an iteration stands, and how large the gradient is."""

    taps: FloatArray
    objective: float
    gradient: float


def _descent(
    problem: Problem, delay: Shape, step: float, accelerated: bool
) -> Generator[State, None, None]:
    """Yield the states of gradient descent or FISTA, from zero on."""
    taps = np.zeros(problem.shape)
    left = problem.residual(taps, delay)
    # The residual is affine, so that of the point ahead takes no convolution.
    ahead, left_ahead, momentum = taps, left, 1.0
    while True:
        gradient = problem.gradient(ahead, left_ahead)
        yield State(taps, problem.objective(taps, left), math.sqrt(_dot(gradient, gradient)))
        last, left_last = taps, left
        taps = ahead - step * gradient
        left = problem.residual(taps, delay)
        ahead, left_ahead = taps, left
        if accelerated:
            if _dot(gradient, taps - last) > 0:
                momentum = 1.0
            following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            beyond = (momentum - 1) / following
            momentum = following
            ahead = taps + beyond * (taps - last)
            left_ahead = left + beyond * (left - left_last)


def _conjugate_gradients(problem: Problem, delay: Shape) -> Generator[State, None, None]:
    """Yield the states of preconditioned CGLS, from zero on; the taps are changed in place."""
    taps, direction, gradient = (np.zeros(problem.shape) for _ in range(3))
    left, image = problem.residual(taps, delay), np.zeros(problem.outputs)
    blur, correlate = problem.products(direction, image, left, gradient)
    grid = tuple(fft.next_fast_len(k, real=True) for k in problem.shape)
    weights = -1 / (math.prod(grid) * problem.eigenvalues)
    ridge, last = problem.ridge, math.inf
    squares, size = loops.product(left, left), 0.0
    with borrowed_tile_transforms((grid[0], grid[1]), taps.dtype) as transforms:
        tile = transforms.tile
        while True:
            correlate()
            loops.lay(gradient, taps, ridge, tile)
            transforms.forward()
            scale_spectrum(weights, transforms.spectrum)
            transforms.inverse()
            slope = -loops.product(gradient, tile)
            yield State(taps, 0.5 * (squares + ridge * size), math.sqrt(max(slope, 0.0)))
            length = loops.combine(direction, slope / last, tile, 1.0)
            blur()
            way = slope / (loops.product(image, image) + ridge * length)
            size = loops.combine(taps, 1.0, direction, way)
            squares = loops.combine(left, 1.0, image, way)
            last = slope


def _iterated(states: Generator[State, None, None], solver: str, limits: Limits) -> Found:
    """Take states until the gradient has shrunk or their number is reached."""
    num_iter = _NUM_ITER[solver] if limits.num_iter is None else limits.num_iter
    tol = limits.tol
    if tol is None:
        tol = 0.0 if solver in DESCENTS and limits.num_iter is not None else _TOL
    progress, objectives, first = limits.progress, [], math.nan
    with closing(states):
        for done, state in enumerate(states):
            objectives.append(state.objective)
            if done == 0:
                first = state.gradient
            elif progress is not None and done < num_iter:
                progress(done, num_iter)
            if state.gradient <= tol * first or done == num_iter:
                break
    if progress is not None:
        progress(num_iter, num_iter)
    history = {"objective": np.array(objectives)}
    return Found(state.taps, solver, done, state.gradient <= (tol or _TOL) * first, history)


def by_least_squares(
    problem: Problem,
    delay: Shape,
    solver: str,
    step: float | None,
    limits: Limits,
    scale: float,
) -> Found:
    """Minimise the squared residual; ``step`` is that of the scaled problem."""
    if solver in DESCENTS:
        largest = problem.largest_eigenvalue()
        most = (2 if solver == "gradient_descent" else 1) / largest
        # Others round their own, and a message rounds this.
        if step is not None and step > most * (1 + 1e-5):
            msg = (
                f"step must be at most {most / scale / scale:.6g}, the largest stable step of "
                f"solver={solver!r} for this kernel, shape and ridge, got "
                f"{step / scale / scale:.6g}; None takes a safe one"
            )
            raise ValueError(msg)
        states = _descent(problem, delay, step or 1 / largest, solver == "fista")
        return _iterated(states, solver, limits)
    if solver == "cholesky" or (solver == "auto" and _factorised(problem)):
        factor, taps = problem.factor, np.zeros(problem.shape)
        # The second time corrects the rounding of the first.
        for _ in range(2):
            gradient = problem.gradient(taps, problem.residual(taps, delay))
            taps = taps - factor.solve(gradient.ravel()).reshape(problem.shape)
        return Found(taps, "cholesky")
    return _iterated(_conjugate_gradients(problem, delay), "conjugate_gradients", limits)


def _factorised(problem: Problem) -> bool:
    """Tell whether the normal equations are small and regular enough to be factorised."""
    if math.prod(problem.shape) > DIRECT_TAPS:
        return False
    try:
        return problem.factor is not None
    except SingularFitError:
        return False


def best_delay(problem: Problem) -> Shape:
    """Return the position of the impulse that an inverse comes nearest to."""
    outputs, size = problem.outputs, math.prod(problem.shape)
    if math.prod(outputs) * size <= ALL_DELAYS and _factorised(problem):
        margins = [(k - 1, k - 1) for k in problem.shape]
        patches = sliding_window_view(np.pad(problem.kernel, margins), problem.shape)
        moments = patches[:, :, ::-1, ::-1].reshape(-1, size).T
        factored = lapack.solve_lower(problem.factor.lower, moments)
        return _most((factored**2).sum(axis=0).reshape(outputs))
    spectrum = wait_for(partial(fft.rfft2, problem.kernel, outputs, workers=problem.workers))
    largest = float(np.abs(spectrum).max()) ** 2
    candidates = [centre(outputs)]
    for share in _DELAY_RIDGES:
        inverse = _periodic_inverse(problem, max(problem.ridge, share * largest))
        candidates.append(_most(wait_for(partial(_crop_energy, problem, inverse))))
    different = list(dict.fromkeys(candidates))
    if len(different) == 1:
        return different[0]
    limits = Limits(_DELAY_ITER, _DELAY_TOL, None)

    def objective(delay: Shape) -> float:
        found = _iterated(_conjugate_gradients(problem, delay), "conjugate_gradients", limits)
        return problem.objective(found.taps, problem.residual(found.taps, delay))

    return min(different, key=objective)


def _most(scores: FloatArray) -> Shape:
    """Return the position of the largest score; among equals, the nearest to the middle."""
    places = np.argwhere(scores >= scores.max() - _TIE * max(1.0, scores.max()))
    away = places - (np.array(scores.shape) - 1) / 2
    row, col = places[(away**2).sum(axis=1).argmin()]
    return int(row), int(col)


def _inverted(values: Any, ridge: float, cut: float = 0.0) -> Any:
    """Return ``conj(v) / (abs(v)**2 + ridge)``, and 0 where ``abs(v)`` does not pass the cut."""
    out = np.zeros_like(values)
    # Some rows at a time: what is between stays in cache, and Ctrl-C is heard.
    rows = max(1, _PANEL // max(values[:1].size, 1))
    for start in range(0, len(values), rows):
        part, found = values[start : start + rows], out[start : start + rows]
        sizes = np.abs(part)
        np.divide(part.conj(), sizes**2 + ridge, out=found, where=sizes > cut)
    return out


def _periodic_inverse(problem: Problem, ridge: float) -> FloatArray:
    """Return the regularised inverse on a periodic grid, its origin at (0, 0).

    The grid has twice the size of the full convolution, so that any crop of the inverse's shape
    and its surroundings stand apart.
    """
    grid = [fft.next_fast_len(2 * k, real=True) for k in problem.outputs]
    how = {"s": grid, "workers": problem.workers}
    spectrum = wait_for(partial(fft.rfft2, problem.kernel, **how))
    inverse = _inverted(spectrum, ridge)
    return np.asarray(wait_for(partial(fft.irfft2, inverse, overwrite_x=True, **how)))


def _crop_energy(problem: Problem, inverse: FloatArray) -> FloatArray:
    """Return, for every position of the impulse, what share of the energy its crop keeps."""
    sums = inverse**2
    total = sums.sum()
    for axis, (k, n) in enumerate(zip(problem.shape, problem.outputs, strict=True)):
        # From the crop of the last position on to that of the first, the inverse wraps around.
        ahead = np.take(sums, np.arange(1 - n, k), axis, mode="wrap")
        up_to = np.cumsum(ahead, axis, out=ahead)
        before = np.take(up_to, np.arange(n - 1), axis)
        sums = np.take(up_to, np.arange(k - 1, k - 1 + n), axis)
        sums[(slice(None),) * axis + (slice(1, None),)] -= before
    return np.asarray(sums[::-1, ::-1] / total)


def by_division(problem: Problem, delay: Shape | None) -> tuple[Found, Shape]:
    """Crop the periodic inverse."""
    inverse = _periodic_inverse(problem, problem.ridge)
    if delay is None:
        delay = _most(wait_for(partial(_crop_energy, problem, inverse)))
    rows, cols = (np.arange(k) - d for k, d in zip(problem.shape, delay, strict=True))
    return Found(inverse[rows[:, None], cols], "fft"), delay


def by_matrix(
    problem: Problem, delay: Shape | None, rule: Boundary, scale: float
) -> tuple[Found, Shape, LinearOperator]:
    """Return a row of the pseudo-inverse of the filtering matrix, and the whole of it."""
    kernel, (p, q) = problem.kernel, problem.shape
    kernel_shape = kernel.shape[0], kernel.shape[1]
    first = centre(kernel_shape)
    last = first[0] + p - 1, first[1] + q - 1
    if delay is None:
        delay = last[0] - p // 2, last[1] - q // 2
    row, col = last[0] - delay[0], last[1] - delay[1]
    if not (0 <= row < p and 0 <= col < q):
        msg = (
            f"delay must be from {first} to {last} for method='matrix', whose outputs are those "
            f"of 'same' mode; got {delay}"
        )
        raise ValueError(msg)
    if rule == "circular":
        window = window_of_mode("same", (p, q), kernel_shape, rule)
        impulse = np.zeros((p, q))
        impulse[0, 0] = 1
        spectrum = fft.rfft2(convolved(impulse, kernel, window, problem.workers))
        cut = p * q * _EPS * float(np.abs(spectrum).max())
        response = fft.irfft2(_inverted(spectrum, problem.ridge, cut), (p, q)) / scale
        taps = np.roll(response, centre((p, q)), (0, 1))
        operator = convolution_operator(taps, (p, q), "same", "circular", workers=problem.workers)
        line = response[(row - np.arange(p))[:, None], col - np.arange(q)]
        solver = "fft"
    else:
        if p * q > MATRIX_PIXELS:
            msg = (
                f"shape must hold at most {MATRIX_PIXELS} pixels for method='matrix' and "
                f"boundary={rule!r}, got {(p, q)}; use method='lstsq', or boundary='circular'"
            )
            raise ValueError(msg)
        matrix = convolution_matrix(kernel, (p, q), "same", rule, format="dense")
        left, values, right = lapack.singular_values(matrix)
        cut = p * q * _EPS * float(values[0])
        inverse = (right.T * _inverted(values, problem.ridge, cut)) @ left.T / scale
        operator = aslinearoperator(inverse)
        line = inverse[row * q + col].reshape(p, q)
        solver = "svd"
    return Found(np.ascontiguousarray(line[::-1, ::-1]) * scale, solver), delay, operator


def smallest_gain(kernel: FloatArray) -> tuple[float, tuple[float, float]]:
    """Return the least magnitude of a kernel's transform, and the frequency, in cycles a pixel.

    The lowest local minima on a grid are followed by Gauss-Newton steps on the two equations
    ``F = 0``, shortened until they descend; those reach a zero to rounding.
    """
    m, n = kernel.shape
    grid = [max(2 * k, min(8 * k, 512), 8) for k in (m, n)]
    sizes = np.abs(fft.fft2(kernel, grid))
    neighbours = [np.roll(sizes, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    minima = np.argwhere(sizes <= np.min(neighbours, axis=0))
    minima = minima[np.argsort(sizes[tuple(minima.T)], kind="stable")[:_MINIMA]]
    turns = [-2j * np.pi * np.arange(k) for k in (m, n)]

    def transform(place: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return real and imaginary part, and their derivatives."""
        down, across = (np.exp(turn * u) for turn, u in zip(turns, place, strict=True))
        values = [
            down @ kernel @ across,
            (turns[0] * down) @ kernel @ across,
            down @ kernel @ (turns[1] * across),
        ]
        parts = np.array([np.real(values), np.imag(values)])
        return parts[:, 0], parts[:, 1:]

    rounding = 8 * _EPS * (m + n) * float(np.abs(kernel).sum())
    least, where = math.inf, np.zeros(2)
    for minimum in minima:
        place = minimum / grid
        value, slopes = transform(place)
        for _ in range(_NEWTON_STEPS):
            step = -np.linalg.lstsq(slopes, value)[0]
            tried = next(
                (
                    (place + share * step, *found)
                    for share in 0.5 ** np.arange(30)
                    if np.hypot(*(found := transform(place + share * step))[0]) < np.hypot(*value)
                ),
                None,
            )
            if tried is None:
                break
            place, value, slopes = tried
        if np.hypot(*value) < least:
            least, where = float(np.hypot(*value)), place
        if least <= rounding:
            least = 0.0
            break
    row, col = (where + 0.5) % 1 - 0.5
    # A real kernel's transform is as large at the opposite frequency.
    if col < 0 or (col == 0 and row < 0):
        row, col = -row, -col
    return least, (float(row) + 0.0, float(col))
