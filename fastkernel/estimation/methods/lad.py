"""Least total absolute deviation: a fit that a minority of wrong pixels cannot pull away."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import ClassVar, get_args

import numpy as np
from scipy import optimize

from fastkernel._images.checks import as_choice, as_count, as_penalty, refuse_non_finite
from fastkernel._images.extremes import refuse_extremes
from fastkernel._images.pairs import OMIT, Fitted, Pair, held, used_images
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import wait_for
from fastkernel._typing import FloatArray, LadSolver, Progress
from fastkernel.estimation.equations.formed import gathered
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.fit import KernelFit, fit_of
from fastkernel.estimation.methods.lad_points import (
    AllPixels,
    Data,
    Measured,
    Near,
    Points,
    answers_at,
    choose_points,
    design_rows,
    weights_at,
)
from fastkernel.estimation.problem import Problem
from fastkernel.estimation.solvers.direct import Factor, factorise, refuse_too_few
from fastkernel.estimation.solvers.solution import Solution

_EPS = float(np.finfo(np.float64).eps)

SOLVERS: tuple[LadSolver, ...] = get_args(LadSolver)

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


def _reduced(near: Near) -> tuple[FloatArray, float] | None:
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
    data: Data, taps: FloatArray, size: int, allowed: Callable[[float], float], course: _Course
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
    data: Data,
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
    last: tuple[Measured, FloatArray] | None = None
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What "lad" takes.

    Attributes
    ----------
    solver : {"auto", "linear_programming", "reweighted"}
        A linear program over chosen points, or least squares reweighted by the residuals, over
        chosen points or all pixels; or the first where that takes a fraction of a second.
    points : int or None
        How many points to fit, at least one a tap (see `choose_points`). None: all pixels; for
        the linear program 5000, or 20 a tap, if there are as many.
    num_iter : int or None
        Most iterations; 200 when None.
    tol : float or None
        Stop where the deviation is proved to be within this share of the least; 1e-12 when None.

    Raises
    ------
    TypeError, ValueError
        If one is out of its range; for ``points`` see `fit`.
    """

    of_problem: ClassVar = (
        *("boundary", "mask", "source_mask", "weights", "saturation", "nan_policy"),
    )

    solver: str = "auto"
    points: int | None = None
    num_iter: int | None = None
    tol: float | None = None

    def __post_init__(self) -> None:
        as_choice(self.solver, "solver", SOLVERS)
        if self.num_iter is not None:
            object.__setattr__(self, "num_iter", as_count(self.num_iter, "num_iter"))
        if self.tol is not None:
            object.__setattr__(self, "tol", as_penalty(self.tol, "tol"))


def fit(problem: Problem, options: Options, run: Run) -> KernelFit:
    r"""Find the kernel of least total absolute deviation, :math:`\sum |k * x - y|`.

    Parameters
    ----------
    problem : Problem
        The images, read into memory where they are lazy.
    options : Options
        How to find it.
    run : Run
        How; it hears of every iteration.

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
        If a pixel that is used is not finite, or ``points`` is fewer than the taps or more than
        the pixels.

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
    kernel_shape, pairs = problem.shape, _normalised(held(problem.pairs()))
    taps = math.prod(kernel_shape)
    n_pixels = sum(pair.n_pixels for pair in pairs)
    refuse_too_few(n_pixels, taps)
    refuse_extremes(pairs, "lad")
    n_points = _as_points(options.points, taps, n_pixels)
    course = _Course(_NUM_ITER if options.num_iter is None else options.num_iter, run.progress)
    tolerance = _TOL if options.tol is None else options.tol
    chosen = options.solver
    if chosen == "auto":
        small = (n_points or n_pixels) * taps <= _SMALL
        chosen = "linear_programming" if small else "reweighted"
    if chosen == "linear_programming" and n_points is None:
        n_points = min(n_pixels, max(_POINTS, _POINTS_A_TAP * taps))
    if n_points is None:
        gram, moments, energy = gathered(pairs, kernel_shape, None, run.silent).sums
        data: Data = AllPixels(pairs, kernel_shape, run.silent)
    else:
        for name, image, origin in used_images(pairs):
            refuse_non_finite(name, image, origin, OMIT)
        places = choose_points(pairs, kernel_shape, n_points)
        weights = weights_at(pairs, places)
        rows = weights[:, None] * design_rows(pairs, kernel_shape, places)
        answers = weights * answers_at(pairs, places)
        gram, moments, energy = rows.T @ rows, answers @ rows, float(answers @ answers)
        data = Points(rows, answers)
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
        near = Near(rows[few], answers[few], np.zeros(taps), float(np.abs(answers[few]).sum()))
        first = _reduced(near)
        found, converged = np.zeros(taps) if first is None else first[0], False
    if not converged:
        converged = _descend(data, found, size, allowed, course)
    best = course.best[1]
    # So narrow that no matrix is summed.
    last = data.measure(best, float(np.finfo(np.float64).tiny) ** 0.5)
    solution = Solution(
        taps=np.ascontiguousarray(best.reshape(kernel_shape)[::-1, ::-1]),
        solver=chosen,
        rank=taps,
        condition_number=math.nan if factor is None else factor.condition_number,
        num_iter=len(course.objective),
        converged=converged,
        history={"objective": np.array(course.objective)},
    )
    return fit_of(
        solution,
        last.energy,
        data.n_points,
        method="lad",
        fitted=[Fitted.of(pair) for pair in pairs] if data.n_points == n_pixels else [],
    )


def _normalised(pairs: Sequence[Pair]) -> list[Pair]:
    """Return pairs whose weights have the root mean square 1, in which residuals are measured."""
    squares = [
        (float(pair.n_pixels) if pair.weights is None else _energy(pair), pair.n_pixels)
        for pair in pairs
    ]
    total, n_pixels = (sum(part) for part in zip(*squares, strict=True))
    scale = math.sqrt(n_pixels / total) if total > 0 else 1.0
    if all(pair.weights is None for pair in pairs):
        return list(pairs)
    return [
        pair._replace(
            weights=scale * (np.ones(pair.window.shape) if pair.weights is None else pair.weights)
        )
        for pair in pairs
    ]


def _energy(pair: Pair) -> float:
    """Return the sum of the squared weights of the pixels that are fitted."""
    weights = np.asarray(pair.weights, np.float64)
    return float(np.sum(weights**2, where=True if pair.used is None else pair.used))


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
