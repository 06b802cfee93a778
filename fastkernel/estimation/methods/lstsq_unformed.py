"""Least squares for kernels of so many taps that their equations are not formed."""

import math
from collections.abc import Sequence

import numpy as np

from fastkernel._images.pairs import Pair, held
from fastkernel._machine.run import Run
from fastkernel._typing import Shape
from fastkernel.estimation.equations.residual import residual_sums
from fastkernel.estimation.equations.unformed import UnformedEquations, unformed_equations
from fastkernel.estimation.fit import KernelFit, fit_of
from fastkernel.estimation.solvers.conjugate_gradients import (
    condition_number,
    conjugate_gradients,
)
from fastkernel.estimation.solvers.descents import descend
from fastkernel.estimation.solvers.direct import refuse_too_few
from fastkernel.estimation.solvers.options import SolverOptions
from fastkernel.estimation.solvers.penalties import Penalty
from fastkernel.estimation.solvers.solution import Solution

_EPS = float(np.finfo(np.float64).eps)

# The pixels correct what conjugate gradients leave, so none need reach full accuracy; what
# corrections correct is mostly rounding, of all frequencies, which takes more iterations than an
# image does.
_TOL, _REFINE_TOL = 1e-8, 1e-3
_MAX_REFINEMENTS = 5
# Share of the taps' size below which a correction is the last.
_REFINED = 1e-10


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
    reading, solving = run, run
    if options.descends:
        reading, solving = run.halves(sum(pair.window.n_pixels for pair in pairs))
    equations = unformed_equations(pairs, kernel_shape, reading)
    if options.descends:
        solution, energy = _descended(pairs, equations, ridge, options, solving)
    else:
        solution, energy = _solved(pairs, equations, ridge, run)
    return fit_of(solution, energy, equations.n_pixels, method="lstsq")


def _unformed_penalty(options: SolverOptions, kernel_shape: Shape) -> float:
    """Return the penalty of options that can be served without a Gram matrix, or raise."""
    options.refuse_shape(kernel_shape)
    taps = f"the {math.prod(kernel_shape)} taps of kernel_shape {kernel_shape}"
    penalty = options.penalty
    needs_gram = options.solver == "minimum_norm" or options.separable
    if needs_gram or penalty is None or options.basis is not None:
        msg = (
            "solver='minimum_norm', separable=True, basis and a ridge that 'gcv' chooses need the "
            f"normal equations, which are not formed for {taps}; use a smaller kernel_shape, or "
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
    energy = residual_sums(pairs, found.taps, None, run.silent, transforms=True).energy
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
    for _ in range(_MAX_REFINEMENTS):
        by_shift, energy, _ = residual_sums(pairs, taps, None, run.silent, transforms=True)
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
