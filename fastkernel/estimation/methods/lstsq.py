"""Least squares over all pixels: the exact fit, and what corrects its rounding."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastkernel._images.pairs import Pair, held
from fastkernel._machine.run import Run
from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.equations.background import (
    BackgroundSums,
    background_of,
    background_sums_of,
    coefficients_of,
)
from fastkernel.estimation.equations.gathering import as_engine, equations_of
from fastkernel.estimation.equations.normal_equations import NormalEquations
from fastkernel.estimation.equations.residual import (
    residual_moments,
    residual_moments_beside,
    residual_moments_by_transforms,
)
from fastkernel.estimation.equations.unformed import UnformedEquations, unformed_equations
from fastkernel.estimation.fit import Fitted, KernelFit, fit_of
from fastkernel.estimation.problem import Problem
from fastkernel.estimation.solvers.conjugate_gradients import (
    condition_number,
    conjugate_gradients,
)
from fastkernel.estimation.solvers.descents import descend
from fastkernel.estimation.solvers.direct import Factor, refuse_too_few
from fastkernel.estimation.solvers.options import SolverOptions
from fastkernel.estimation.solvers.penalties import Penalty
from fastkernel.estimation.solvers.solution import Solution
from fastkernel.estimation.solvers.solve import solve

_EPS = float(np.finfo(np.float64).eps)

# Taps beyond which the equations are not formed: they would take 128 MiB, and a minute soon.
FORMED = 4096

# Share of the taps' size that rounding may reach before the pixels are read again.
_ROUNDING_ALLOWED = 1e-11
_MAX_REFINEMENTS = 3

# The pixels correct what conjugate gradients leave, so none need reach full accuracy; what
# corrections correct is mostly rounding, of all frequencies, which takes more iterations than an
# image does.
_TOL, _REFINE_TOL = 1e-8, 1e-3
_MAX_UNFORMED_REFINEMENTS = 5
# Share of the taps' size below which a correction is the last.
_REFINED = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(SolverOptions):
    """What "lstsq" takes: what its solvers do, and ``engine``, how pixels are summed."""

    of_problem: ClassVar = ("boundary", "background")

    engine: str = "auto"


def fit(problem: Problem, options: Options, run: Run) -> KernelFit:
    """Gather, solve, and correct what rounding did; see `estimate_kernel`."""
    shape, pairs = problem.shape, problem.pairs()
    engine = as_engine(options.engine, pairs)
    options.refuse_shape(shape)
    # Where a side is 1 or 2 the equations are no larger than what replaces them.
    if math.prod(shape) > FORMED and min(shape) > 2:
        if problem.background is not None:
            msg = (
                f"background goes with kernels of at most {FORMED} taps, got kernel_shape "
                f"{shape}; subtract it from result, or use a smaller kernel_shape"
            )
            raise ValueError(msg)
        return fit_unformed(pairs, shape, options, run)
    backgrounds = background_sums_of(pairs, shape, problem.background, run.workers)
    equations = equations_of(pairs, shape, run, engine, backgrounds)
    system = equations.system
    solution = solve(system, options, run.progress)
    energy = system.residual_energy(solution.taps)
    factor = None if options.smooth else solution.factor
    if factor is not None and _rounding_shows(solution, energy, equations, pairs):
        kernel, energy = _refine(solution, energy, factor, equations, pairs, backgrounds, run)
        solution = solution._replace(taps=kernel)
    found = [background_of(part, solution.taps) for part in backgrounds]
    return fit_of(
        solution,
        energy,
        equations.n_pixels,
        method="lstsq",
        equations=equations,
        background=(found[0] if len(found) == 1 else np.array(found)) if found else None,
        fitted=[Fitted(pair.source.shape, pair.window) for pair in pairs] if found else (),
    )


def _rounding_shows(
    solution: Solution, energy: float, equations: NormalEquations, pairs: Sequence[Pair]
) -> bool:
    """Tell whether the data are fine enough to see the rounding of the equations."""
    if any(pair.result.dtype.kind != "f" for pair in pairs):
        return False
    resolution = max(float(np.finfo(pair.result.dtype).eps) for pair in pairs)
    residual_hidden = energy <= 1.01 * equations.hidden_energy
    return solution.condition_number * _EPS > max(resolution, _ROUNDING_ALLOWED) or (
        residual_hidden and resolution <= _EPS
    )


def _refine(
    solution: Solution,
    energy: float,
    factor: Factor,
    equations: NormalEquations,
    pairs: Sequence[Pair],
    backgrounds: Sequence[BackgroundSums],
    run: Run,
) -> tuple[FloatArray, float]:
    """Correct the taps by the residual of the pixels until the corrections stop shrinking."""
    kernel, penalty, last = solution.taps, solution.ridge * equations.n_pixels, math.inf
    coefficients = [coefficients_of(sums, kernel) for sums in backgrounds]
    if backgrounds:
        pairs = held(pairs)
    for _ in range(_MAX_REFINEMENTS):
        flipped = np.ascontiguousarray(kernel[::-1, ::-1])
        if backgrounds:
            by_shift, left, coefficients = residual_moments_beside(
                pairs, flipped, backgrounds, coefficients, run.silent
            )
        else:
            by_shift, left = residual_moments(pairs, flipped, run.silent)
        moments = by_shift[::-1]
        step = factor.solve(moments - penalty * kernel.ravel())
        size = float(np.abs(step).max())
        if not size < last / 2:
            break
        kernel, last = kernel + step.reshape(kernel.shape), size
        energy = left + float(step @ (equations.gram @ step) - 2 * (step @ moments))
        if size <= 4 * _EPS * float(np.abs(kernel).max()):
            break
    return kernel, energy


def fit_unformed(
    pairs: Sequence[Pair], kernel_shape: Shape, options: SolverOptions, run: Run
) -> KernelFit:
    r"""Fit a kernel of many taps without a Gram matrix, by conjugate gradients or by a descent.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one, of windows for this kernel.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    options : SolverOptions
        A descent and its constraints, or the penalty of conjugate gradients.
    run : Run
        How; it hears of the first reading of pixels, then of the iterations of a descent.

    Returns
    -------
    KernelFit
        Without ``equations``, and with ``standard_errors`` of NaN: both need the Gram matrix.
        ``condition_number`` is an estimate from below, in the 2-norm.

    Raises
    ------
    SingularFitError
        If there are fewer pixels than taps, or the source does not tell the taps apart.
    ValueError
        If a pixel that is used is not finite, the sums overflow, the step of a descent is too
        large, or the options need the Gram matrix.

    Notes
    -----
    The pixels are read once for the sums. A descent ends there, but for the residual. After a
    solve they are read again: the residual, computed pixel by pixel, gives the moments that the
    next solve corrects the taps by, so that rounding reaches the taps at about the square root of
    ``condition_number`` times 1e-16 of their size, and a small residual is seen. Memory: see
    `unformed.Operator`.
    """
    ridge = _unformed_penalty(options, kernel_shape)
    # The rims of a dataset are read again and again: hold it.
    pairs = held(pairs)
    if ridge == 0:
        refuse_too_few(sum(pair.window.n_pixels for pair in pairs), math.prod(kernel_shape))
    equations = unformed_equations(pairs, kernel_shape, run)
    if options.descends:
        solution, energy = _descended(pairs, equations, ridge, options, run)
    else:
        solution, energy = _solved(pairs, equations, ridge, run)
    return fit_of(solution, energy, equations.n_pixels, method="lstsq")


def _unformed_penalty(options: SolverOptions, kernel_shape: Shape) -> float:
    """Return the penalty of options that can be served without a Gram matrix, or raise."""
    options.refuse_shape(kernel_shape)
    taps = f"the {math.prod(kernel_shape)} taps of kernel_shape {kernel_shape}"
    penalty = options.penalty
    if options.solver == "minimum_norm" or options.separable or penalty is None:
        msg = (
            "solver='minimum_norm', separable=True and ridge='gcv' need the normal equations, "
            f"which are not formed for {taps}; use a smaller kernel_shape, or "
            "normal_equations(...).solve(...) if you have "
            f"{8 * math.prod(kernel_shape) ** 2 / 2**30:.1f} GiB of memory and the time"
        )
        raise ValueError(msg)
    constrained = options.nonnegative or options.unit_sum or options.symmetric or options.smooth
    if constrained and not options.descends:
        msg = (
            "nonnegative, unit_sum, symmetric and ridge=('smooth', ...) go with "
            f"solver='gradient_descent' and 'fista' for {taps}, got solver={options.solver!r}"
        )
        raise ValueError(msg)
    return penalty


def _descended(
    pairs: Sequence[Pair],
    equations: UnformedEquations,
    ridge: float,
    options: SolverOptions,
    run: Run,
) -> tuple[Solution, float]:
    """Descend on the operator: whatever a kernel must be, it must be when flipped."""
    operator, n_pixels = equations.operator, equations.n_pixels
    penalty = Penalty(ridge * n_pixels, options.smooth)
    # A smoothness penalty only adds to what stands here.
    operator.ridge = 0.0 if penalty.smooth else penalty.weight
    condition = condition_number(operator)
    operator.ridge, hidden = 0.0, 4 * _EPS * equations.energy
    found = descend(
        operator,
        equations.moments,
        equations.energy,
        hidden,
        n_pixels,
        penalty,
        options,
        run.progress,
    )
    _, energy = residual_moments_by_transforms(pairs, found.taps, run.silent)
    kernel = np.ascontiguousarray(found.taps[::-1, ::-1])
    solution = found.solution(options.solver, condition, kernel.size)
    return solution._replace(taps=kernel, ridge=ridge), energy


def _solved(
    pairs: Sequence[Pair],
    equations: UnformedEquations,
    ridge: float,
    run: Run,
) -> tuple[Solution, float]:
    """Solve by conjugate gradients, and correct by the pixels."""
    operator, energy = equations.operator, equations.energy
    kernel_shape = equations.moments.shape
    operator.ridge = ridge * equations.n_pixels
    condition = condition_number(operator)
    taps = conjugate_gradients(operator, equations.moments, _TOL).taps
    last = math.inf
    for _ in range(_MAX_UNFORMED_REFINEMENTS):
        by_shift, energy = residual_moments_by_transforms(pairs, taps, run.silent)
        left = by_shift.reshape(kernel_shape)
        step = conjugate_gradients(operator, left - operator.ridge * taps, _REFINE_TOL).taps
        size = float(np.abs(step).max())
        if not size < last / 2:
            break
        without_ridge = operator(step) - operator.ridge * step
        energy += float(np.sum(step * (without_ridge - 2 * left)))
        taps, last = taps + step, size
        if size <= _REFINED * float(np.abs(taps).max()):
            break
    solution = Solution(
        taps=np.ascontiguousarray(taps[::-1, ::-1]),
        solver="conjugate_gradients",
        rank=taps.size,
        condition_number=condition,
        ridge=ridge,
    )
    return solution, energy
