"""Least total absolute deviation: a fit that a minority of wrong pixels cannot pull away."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from fastkernel._images.borders import OUTSIDE, load, source_index
from fastkernel._images.checks import as_choice, as_count, as_penalty, refuse_non_finite
from fastkernel._images.windows import centre
from fastkernel._loops import deviations
from fastkernel._machine.tiles import split, wait_for
from fastkernel._typing import FloatArray, Progress, Shape
from fastkernel.errors import SingularFitError
from fastkernel.estimation.equations import sweeps
from fastkernel.estimation.equations.gathering_engines import Pair
from fastkernel.estimation.equations.normal_equations import equations_of
from fastkernel.estimation.fit import KernelFit
from fastkernel.estimation.solvers.direct import Factor, factorise, refuse_too_few

_EPS = float(np.finfo(np.float64).eps)

SOLVERS = ("auto", "linear_programming", "reweighted")

_NUM_ITER, _TOL = 200, 1e-12

# Points times taps up to which "auto" takes the linear program, a fraction of a second.
_SMALL = 250_000

# Points that a linear program chooses by default, at least, and a tap.
_POINTS, _POINTS_A_TAP = 5000, 20

# Points of one linear program, at least, and a tap: a tenth of a second for 81 taps, a few
# seconds for 225.
_NEAR, _NEAR_A_TAP = 1000, 8

# By how much a linear program may grow before it gives up: a few seconds.
_GROWTH = 16

# By how much the width of the smoothed deviation shrinks from one problem to the next.
_SHRINK = 8.0

# Share of what smoothing may hide at which a smoothed problem counts as solved.
_SOLVED = 0.1

# Columns of a block of design rows: no power of two, at which they would compete for the cache.
_BLOCK = 520

# Jobs of a sweep: every one holds sums of the size of a Gram matrix.
_MAX_JOBS = 16


class _Measured(NamedTuple):
    """The smoothed deviation at some taps.

    Attributes
    ----------
    total, smooth, energy : float
        See `deviations.clip_residual`.
    inside : int
        Residuals less than ``delta``.
    pull : (p*q,) float64 array
        By shift: sums of the clipped residual times the source; ``-pull`` is the gradient.
    gram : (p*q, p*q) float64 array
        Weighted Gram matrix, by shift.
    """

    total: float
    smooth: float
    energy: float
    inside: int
    pull: FloatArray
    gram: FloatArray


class _Near(NamedTuple):
    """The points whose residuals are least, and the others with their signs.

    Attributes
    ----------
    rows : (n, p*q) float64 array
        Of the design matrix, by shift.
    residual : (n,) float64 array
        Theirs.
    pull : (p*q,) float64 array
        Sum of the rows of all other points, each times the sign of its residual.
    total : float
        Sum of the absolute residuals of all points.
    """

    rows: FloatArray
    residual: FloatArray
    pull: FloatArray
    total: float


class _Data(Protocol):
    """Points whose deviation is minimised; taps are flat, by shift."""

    @property
    def n_points(self) -> int:
        """How many there are."""

    def measure(self, taps: FloatArray, delta: float, outside: bool = False) -> _Measured:
        """Return the deviation smoothed within ``delta``.

        The matrix has the weights of Newton's method, 1 within ``delta`` and 0 outside, or
        ``delta / |residual|`` there: those of iteratively reweighted least squares.
        """

    def nearest(self, taps: FloatArray, n: int) -> _Near:
        """Return the ``n`` points of least residual."""


def _symmetric(upper: FloatArray, taps: int) -> FloatArray:
    """Return a matrix from the upper triangle that `deviations.add_products` fills."""
    found = np.triu(upper[:taps, :taps])
    return np.asarray(found + np.triu(found, 1).T)


def _padded(taps: int) -> int:
    """Return the rows of the scratch of `deviations.add_products`."""
    return -(-taps // deviations.BLOCK) * deviations.BLOCK


@dataclass(frozen=True, slots=True)
class _Points:
    """Chosen points, their rows of the design matrix in memory."""

    rows: FloatArray
    answers: FloatArray

    @property
    def n_points(self) -> int:
        """How many there are."""
        return len(self.answers)

    def measure(self, taps: FloatArray, delta: float, outside: bool = False) -> _Measured:
        residual = np.empty((1, self.n_points))
        clipped = self.answers[None].copy()
        sums = deviations.clip_residual(clipped, (self.rows @ taps)[None], delta, residual)
        size = np.abs(residual[0])
        used = size < delta
        weights = np.ones(self.n_points)
        if outside:
            weights[~used] = np.sqrt(delta / size[~used])
            used[:] = True
        n = _padded(len(taps))
        upper = np.zeros((n, n))
        places = np.flatnonzero(used)
        for start, stop in split(len(places), _BLOCK):
            columns, part = np.zeros((n, _BLOCK)), places[start:stop]
            columns[: len(taps), : len(part)] = (weights[part, None] * self.rows[part]).T
            deviations.add_products(columns, len(part), upper)
        total, smooth, energy, inside = sums
        pull, gram = clipped[0] @ self.rows, _symmetric(upper, len(taps))
        return _Measured(total, smooth, energy, inside, pull, gram)

    def nearest(self, taps: FloatArray, n: int) -> _Near:
        residual = self.answers - self.rows @ taps
        size = np.abs(residual)
        total = float(size.sum())
        if n >= self.n_points:
            return _Near(self.rows, residual, np.zeros(len(taps)), total)
        order = np.argpartition(size, n)
        near, far = order[:n], order[n:]
        return _Near(
            self.rows[near], residual[near], np.sign(residual[far]) @ self.rows[far], total
        )


_Candidates = tuple[FloatArray, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class _Images:
    """All pixels of pairs, read tile by tile."""

    pairs: Sequence[Pair]
    kernel_shape: Shape
    workers: int

    @property
    def n_points(self) -> int:
        """How many there are."""
        return sum(pair.window.n_pixels for pair in self.pairs)

    def measure(self, taps: FloatArray, delta: float, outside: bool = False) -> _Measured:
        n = _padded(len(taps))

        def act(
            view: sweeps.View, found: tuple[FloatArray, FloatArray] | None
        ) -> tuple[FloatArray, FloatArray]:
            sums, upper = found or (np.zeros(4), np.zeros((n, n)))
            shape = view.convolved.shape
            residual = view.scratch.array("residual", shape)
            sums += deviations.clip_residual(view.y, view.convolved, delta, residual)
            rows = view.scratch.array("rows", (n, _BLOCK))
            rows[len(taps) :] = 0
            place = 0
            while place < residual.size and not view.stopped():
                place, count = deviations.collect_rows(
                    view.x, residual, self.kernel_shape, delta, outside, place, rows
                )
                deviations.add_products(rows, count, upper)
            return sums, upper

        pull, sums, upper = np.zeros(self.kernel_shape), np.zeros(4), np.zeros((n, n))
        for _, moments, (part, products) in self._sweep(taps, act):
            pull += moments
            sums += part
            upper += products
        total, smooth, energy, inside = sums.tolist()
        gram = _symmetric(upper, len(taps))
        return _Measured(total, smooth, energy, int(inside), pull.ravel(), gram)

    def nearest(self, taps: FloatArray, n: int) -> _Near:
        def least(parts: Sequence[_Candidates]) -> _Candidates:
            residual = np.concatenate([part[0] for part in parts])
            places = np.concatenate([part[1] for part in parts])
            if len(residual) <= n:
                return residual, places
            order = np.argpartition(np.abs(residual), n - 1)[:n]
            return residual[order], places[order]

        def act(
            view: sweeps.View, found: tuple[float, _Candidates] | None
        ) -> tuple[float, _Candidates]:
            top, left, _, width = view.tile
            total, before = found or (0.0, (np.zeros(0), np.zeros((0, 3), np.int64)))
            part = view.y[:, :width]
            part -= view.convolved
            residual = part.ravel()
            size = np.abs(residual)
            # What is farther than all candidates so far need not be looked at.
            worst = np.abs(before[0]).max() if len(before[0]) == n else math.inf
            place = np.flatnonzero(size < worst)
            row, col = np.divmod(place, width)
            places = np.column_stack([np.full(len(place), view.number), row + top, col + left])
            np.sign(part, out=part)
            return total + float(size.sum()), least([before, (residual[place], places)])

        pull, total, parts = np.zeros(self.kernel_shape), 0.0, []
        for _, moments, (part, candidates) in self._sweep(taps, act):
            pull += moments
            total += part
            parts.append(candidates)
        residual, places = least(parts)
        rows = design_rows(self.pairs, self.kernel_shape, places)
        return _Near(rows, residual, pull.ravel() - np.sign(residual) @ rows, total)

    def _sweep(
        self, taps: FloatArray, act: Callable[[sweeps.View, sweeps.T | None], sweeps.T]
    ) -> Iterator[tuple[int, FloatArray, sweeps.T]]:
        shaped = taps.reshape(self.kernel_shape)
        return sweeps.sweep(self.pairs, shaped, act, self.workers, _MAX_JOBS)


def design_rows(
    pairs: Sequence[Pair], kernel_shape: Shape, places: NDArray[np.int64]
) -> FloatArray:
    """Return rows of the design matrix, by shift.

    Parameters
    ----------
    pairs : sequence of Pair
        Of images in memory.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    places : (n, 3) int64 array
        Number of the pair, row and column in its window.

    Returns
    -------
    (n, p * q) float64 array
        In source units.
    """
    p, q = kernel_shape
    out = np.empty((len(places), p, q))
    for number, (source, _, window) in enumerate(pairs):
        chosen = places[:, 0] == number
        maps = [
            source_index(start, start + n + k - 1, length, window.boundary)
            for start, n, k, length in zip(
                window.source_origin, window.shape, kernel_shape, source.shape, strict=True
            )
        ]
        row = maps[0][places[chosen, 1, None] + np.arange(p)][:, :, None]
        col = maps[1][places[chosen, 2, None] + np.arange(q)][:, None, :]
        out[chosen] = np.where((row == OUTSIDE) | (col == OUTSIDE), 0, source[row, col])
    return out.reshape(len(places), p * q)


def answers_at(pairs: Sequence[Pair], places: NDArray[np.int64]) -> FloatArray:
    """Return the result's pixels at places as `design_rows` takes them, (n,) float64."""
    out = np.empty(len(places))
    for number, (_, result, window) in enumerate(pairs):
        chosen = places[:, 0] == number
        top, left = window.result_origin
        out[chosen] = result[places[chosen, 1] + top, places[chosen, 2] + left]
    return out


def choose_points(pairs: Sequence[Pair], kernel_shape: Shape, n: int) -> NDArray[np.int64]:
    """Return the points that tell the taps apart: the steepest of every cell of a grid.

    Where the source is flat under the kernel a pixel sees the sum of the taps alone. The steepest
    pixels of all would crowd along one edge, which tells taps apart across it and not along it.
    Cells that are spread evenly take one point each, where the gradient of the source under the
    centre tap has the most energy; the flattest cells, as far as there are too many, none.

    Parameters
    ----------
    pairs : sequence of Pair
        Of images in memory.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    n : int
        Points to choose, no more than there are.

    Returns
    -------
    (n, 3) int64 array
        Number of the pair, row and column in its window, in that order.
    """
    pixels = sum(pair.window.n_pixels for pair in pairs)
    side = max(1, math.isqrt(pixels // n))
    energies, places = [], []
    for number, pair in enumerate(pairs):
        height, width = pair.window.shape
        # Whole rows of cells at a time.
        for top, bottom in split(height, side * max(1, 64 // side)):
            energy = _gradient_energy(pair, kernel_shape, top, bottom)
            rows, cols = -(-(bottom - top) // side), -(-width // side)
            padded = np.full((rows * side, cols * side), -1.0)
            padded[: bottom - top, :width] = energy
            cells = padded.reshape(rows, side, cols, side).swapaxes(1, 2).reshape(rows, cols, -1)
            steepest = cells.argmax(axis=2)
            row, col = np.divmod(steepest, side)
            row += np.arange(rows)[:, None] * side + top
            col += np.arange(cols) * side
            energies.append(cells.max(axis=2).ravel())
            places.append(np.column_stack([np.full(row.size, number), row.ravel(), col.ravel()]))
    found = np.concatenate(places)
    # A stable order, so that equals are chosen alike everywhere.
    chosen = np.sort(np.argsort(-np.concatenate(energies), kind="stable")[:n])
    return found[chosen]


def _gradient_energy(pair: Pair, kernel_shape: Shape, top: int, bottom: int) -> FloatArray:
    """Return the squared gradient of the source under the centre tap, for rows of the window."""
    window, (i, j) = pair.window, centre(kernel_shape)
    p, q = kernel_shape
    around = np.empty((bottom - top + 2, window.shape[1] + 2))
    origin = window.source_pixel(top + p - 1 - i - 1, q - 1 - j - 1)
    load(pair.source, origin, "replicate" if window.boundary == "zero" else window.boundary, around)
    down = around[2:, 1:-1] - around[:-2, 1:-1]
    across = around[1:-1, 2:] - around[1:-1, :-2]
    return np.asarray(down**2 + across**2)


def _reduced(near: _Near) -> tuple[FloatArray, float] | None:
    r"""Return the step to a vertex of least deviation, and what that is if no other sign changes.

    With the other points' signs fixed, the deviation is :math:`|r - X d|_1 - g^T d` and a
    constant. Its dual has one bounded unknown a point and one equation a tap:
    :math:`\max \lambda^T r` with :math:`X^T \lambda = -g` and :math:`|\lambda| \le 1`. The step
    ``d`` are the equations' multipliers. None where the points are too few to hold the others.
    """
    rows, residual, pull, total = near
    scale = float(np.abs(rows).max()) or 1.0
    unit = float(np.abs(residual).max()) or 1.0
    program = partial(
        optimize.linprog,
        -residual / unit,
        A_eq=rows.T / scale,
        b_eq=-pull / scale,
        bounds=(-1, 1),
        method="highs",
        options={"primal_feasibility_tolerance": 1e-9, "dual_feasibility_tolerance": 1e-9},
    )
    # It takes seconds for hundreds of taps.
    found = wait_for(program)
    if found.status != 0:
        return None
    steps = [-found.eqlin.marginals * (unit / scale)]
    # The points that the vertex meets give it to rounding.
    met = np.abs(found.x) < 1 - 1e-7
    if met.sum() >= rows.shape[1]:
        steps.append(np.linalg.lstsq(rows[met], residual[met], rcond=None)[0])
    sizes = float(np.abs(residual).sum())
    totals = [total - sizes + float(np.abs(residual - rows @ d).sum() - pull @ d) for d in steps]
    best = int(np.argmin(totals))
    return steps[best], totals[best]


class _Course:
    """Where the iterations are: counts them, keeps their history and reports."""

    def __init__(self, num_iter: int, callback: Progress | None) -> None:
        self.num_iter, self._callback = num_iter, callback
        self.objective: list[float] = []
        self.best: tuple[float, FloatArray] = (math.inf, np.zeros(0))

    @property
    def over(self) -> bool:
        """Whether all iterations are taken."""
        return len(self.objective) >= self.num_iter

    def note(self, total: float, taps: FloatArray) -> None:
        """Count an iteration that found the deviation of ``taps``."""
        self.objective.append(total)
        if total < self.best[0]:
            self.best = total, taps
        if self._callback is not None:
            self._callback(len(self.objective), self.num_iter)


def _descend(
    data: _Data, taps: FloatArray, size: int, allowed: Callable[[float], float], course: _Course
) -> bool:
    """Step from vertex to vertex until one is proved to be the least; return whether it was.

    Every linear program is a lower bound of the deviation: no sign but those of its points is
    free. The deviation of its answer equals the bound where no other sign changed, and is then
    the least of all [1]_.

    References
    ----------
    .. [1] S. Portnoy and R. Koenker, "The Gaussian hare and the Laplacian tortoise", Statist.
       Sci. 12 (1997) 279-300.
    """
    bound, most = -math.inf, _GROWTH * size
    while not course.over and size <= most:
        near = data.nearest(taps, size)
        before, kept = course.best
        course.note(near.total, taps)
        if near.total - bound <= allowed(near.total):
            course.best = near.total, taps
            return True
        if near.total > before and bound > -math.inf:
            taps, bound, size = kept, -math.inf, 2 * size
            continue
        found = _reduced(near)
        if found is None:
            if len(near.residual) == data.n_points:
                return False
            bound, size = -math.inf, 2 * size
            continue
        taps, bound = taps + found[0], found[1]
    return False


def _reweight(
    data: _Data,
    taps: FloatArray,
    delta: float,
    size: int,
    allowed: Callable[[float], float],
    course: _Course,
) -> tuple[FloatArray, Factor | None, bool]:
    """Minimise the smoothed deviation for ever narrower ``delta``.

    Least squares again and again, weighted by what the last left: Newton's method, whose weights
    are 1 within ``delta`` and 0 outside, and where it fails the weights ``delta / |residual|``
    outside, which never raise the smoothed deviation.

    Returns
    -------
    taps : (p*q,) float64 array
        Near those of least deviation.
    factor : Factor or None
        Of the last weighted system.
    converged : bool
        Whether what smoothing hides is no more than allowed; False where few points are left
        within ``delta``, or most iterations are taken.
    """
    factor: Factor | None = None
    last: tuple[_Measured, FloatArray] | None = None
    outside = False
    # The rest is for linear programs.
    while 4 * len(course.objective) < 3 * course.num_iter:
        found = data.measure(taps, delta, outside)
        if last is not None and found.smooth > last[0].smooth * (1 + 64 * _EPS):
            # Newton went astray. From where it stood a program goes on, or the safe weights.
            inside, taps = last[0].inside, last[1]
            if inside <= size:
                break
            last, outside = None, True
            continue
        course.note(found.total, taps)
        try:
            factor = factorise(found.gram)
        except SingularFitError:
            if outside:
                break
            outside = True
            continue
        if found.total <= allowed(0.0):
            return taps, factor, True
        outside, last = False, (found, taps)
        step = delta * factor.solve(found.pull)
        taps = taps + step
        hidden = found.inside * delta / 4
        if found.pull @ step <= _SOLVED * max(hidden, allowed(found.total)):
            if hidden <= allowed(found.total):
                course.note(data.measure(taps, delta).total, taps)
                return taps, factor, True
            if found.inside <= size:
                break
            delta, last = delta / _SHRINK, None
    return taps, factor, False


def fit_lad(
    pairs: Sequence[Pair],
    kernel_shape: Shape,
    *,
    solver: str = "auto",
    points: int | None = None,
    num_iter: int | None = None,
    tol: float | None = None,
    workers: int = 1,
    callback: Progress | None = None,
) -> KernelFit:
    r"""Find the kernel of least total absolute deviation, :math:`\sum |k * x - y|`.

    Parameters
    ----------
    pairs : sequence of Pair
        Source, result, and which of their pixels belong together.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    solver : {"auto", "linear_programming", "reweighted"}, optional
        A linear program over chosen points, or least squares reweighted by the residuals, over
        chosen points or all pixels; or the first where that takes a fraction of a second.
    points : int, optional
        How many points to fit, at least one a tap (see `choose_points`). None: all pixels; for
        the linear program 5000, or 20 a tap, if there are as many.
    num_iter : int, optional
        Most iterations; 200 when None.
    tol : float, optional
        Stop where the deviation is proved to be within this share of the least; 1e-12 when None.
    workers : int, optional
        Threads to use. The answer is the same bit for bit.
    callback : callable, optional
        Called as ``callback(iterations, num_iter)`` in the calling thread; an exception stops
        the work.

    Returns
    -------
    KernelFit
        ``history["objective"]`` holds the total absolute deviation of every iteration.
        ``n_pixels`` and ``residual_rms`` are those of the fitted points; the condition number is
        that of the (last weighted) normal equations. Without equations, and so without standard
        errors.

    Raises
    ------
    SingularFitError
        If the points do not determine the kernel.
    TypeError, ValueError
        If a pixel that is used is not finite, or an argument is out of its range.

    Notes
    -----
    The least deviation is met where as many points as there are taps are fitted exactly; the
    other points count by the sign of their residuals alone, so that a pixel's error may be as
    large as it likes. Both solvers end with linear programs over the points near zero, in which
    the others have fixed signs, and stop when the answer is proved to be the least of all. Where
    more points meet in it than a program holds, smoothed deviations [1]_ are narrowed instead
    until they hide less than ``tol``.

    An iteration over images reads every pixel once. It takes ``2 * p * q`` multiply-adds a pixel,
    and ``(p * q)**2 / 2`` a pixel within the smoothed range, ever fewer. Memory beyond the images
    is some tiles and 16 matrices of ``(p * q)**2``.

    References
    ----------
    .. [1] K. Madsen and H. B. Nielsen, "A finite smoothing algorithm for linear l1 estimation",
       SIAM J. Optim. 3 (1993) 223-235.
    """
    chosen = as_choice(solver, "solver", SOLVERS)
    pairs = sweeps.held(pairs)
    taps = math.prod(kernel_shape)
    n_pixels = sum(pair.window.n_pixels for pair in pairs)
    refuse_too_few(n_pixels, taps)
    n_points = _as_points(points, taps, n_pixels)
    course = _Course(_NUM_ITER if num_iter is None else as_count(num_iter, "num_iter"), callback)
    tolerance = _TOL if tol is None else as_penalty(tol, "tol")
    if chosen == "auto":
        small = (n_points or n_pixels) * taps <= _SMALL
        chosen = "linear_programming" if small else "reweighted"
    if chosen == "linear_programming" and n_points is None:
        n_points = min(n_pixels, max(_POINTS, _POINTS_A_TAP * taps))
    if n_points is None:
        equations = equations_of(list(pairs), kernel_shape, workers, None, "auto")
        # By shift.
        gram, moments = equations.gram[::-1, ::-1].copy(), equations.moments[::-1].copy()
        energy = equations.energy
        data: _Data = _Images(pairs, kernel_shape, workers)
    else:
        for name, image, origin in sweeps.used_images(pairs):
            refuse_non_finite(name, image, origin)
        places = choose_points(pairs, kernel_shape, n_points)
        rows, answers = design_rows(pairs, kernel_shape, places), answers_at(pairs, places)
        gram, moments, energy = rows.T @ rows, answers @ rows, float(answers @ answers)
        data = _Points(rows, answers)
    factor: Factor | None = factorise(gram)
    noise = 4 * _EPS * math.sqrt(data.n_points * energy)

    def allowed(total: float) -> float:
        return tolerance * total + noise

    size = max(_NEAR, _NEAR_A_TAP * taps)
    if chosen == "reweighted":
        start = factorise(gram).solve(moments)
        left = max(energy - float(start @ moments), _EPS * energy) / data.n_points
        found, factor, converged = _reweight(
            data, start, math.sqrt(left) or 1.0, size, allowed, course
        )
    else:
        # The program over a few of the points says where the others' residuals are near zero.
        few = slice(None, None, max(1, data.n_points // size))
        near = _Near(rows[few], answers[few], np.zeros(taps), float(np.abs(answers[few]).sum()))
        first = _reduced(near)
        found, converged = np.zeros(taps) if first is None else first[0], False
    if not converged:
        converged = _descend(data, found, size, allowed, course)
    best = course.best[1]
    # So narrow that no matrix is summed.
    last = data.measure(best, float(np.finfo(np.float64).tiny) ** 0.5)
    kernel = best.reshape(kernel_shape)[::-1, ::-1]
    return KernelFit(
        kernel=np.ascontiguousarray(kernel),
        residual_rms=math.sqrt(last.energy / data.n_points),
        condition_number=math.nan if factor is None else factor.condition_number,
        rank=taps,
        n_pixels=data.n_points,
        method="lad",
        solver=chosen,
        equations=None,
        _factor=None,
        num_iter=len(course.objective),
        converged=converged,
        history={"objective": np.array(course.objective)},
    )


def _as_points(value: int | None, taps: int, n_pixels: int) -> int | None:
    """Return how many points to choose; None for all pixels."""
    if value is None:
        return None
    if not isinstance(value, Integral) or isinstance(value, bool):
        msg = f"points must be an integer, or None, got {value!r}"
        raise TypeError(msg)
    if not taps <= value <= n_pixels:
        msg = (
            f"points must be at least the number of taps, {taps}, and at most the number of fitted "
            f"pixels, {n_pixels}, got {value}"
        )
        raise ValueError(msg)
    return int(value)
