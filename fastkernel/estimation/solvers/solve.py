"""From equations and options to a kernel: which solver answers what is asked."""

import math
import re

import numpy as np

from fastkernel._machine import lapack
from fastkernel._typing import FloatArray, Progress
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.solvers.bases import Basis, reduced, symmetric_basis
from fastkernel.estimation.solvers.constraints import minimise
from fastkernel.estimation.solvers.descents import applied, descend
from fastkernel.estimation.solvers.direct import (
    RIDGE_HELPS,
    Factor,
    factorise,
    least_eigenvalue,
    refuse_too_few,
    why_singular,
)
from fastkernel.estimation.solvers.options import SolverOptions
from fastkernel.estimation.solvers.penalties import Penalty, gcv_weight
from fastkernel.estimation.solvers.separable import alternate
from fastkernel.estimation.solvers.small import FEW, solve_shifts
from fastkernel.estimation.solvers.solution import Solution, System

# Sums of squares below which rounding is no longer relative; and between which the squares of
# equations, which some solvers take, are numbers of float64.
_LEAST_SQUARES, _SQUARED = 2.0**-1000, (2.0**-400, 2.0**400)


def solve(system: System, options: SolverOptions, progress: Progress | None = None) -> Solution:
    """Find the kernel; `NormalEquations.solve` with its arguments checked.

    Parameters
    ----------
    system : System
        What to solve.
    options : SolverOptions
        How, and under which constraints.
    progress : callable, optional
        Called as ``progress(done, total)`` with the iterations of a solver that takes any.

    Returns
    -------
    Solution
        Its ``solver`` is "cholesky", "active_set", "alternating_least_squares", "minimum_norm",
        "gradient_descent" or "fista".

    Raises
    ------
    SingularFitError
        If the source does not determine what is asked for.
    ValueError
        If the kernel's shape does not suit the options, or the step is too large.
    """
    shape = system.kernel_shape
    options.refuse_shape(shape)
    if not system.n_pixels:
        refuse_too_few(0, math.prod(shape))
    _refuse_extremes(system, options)
    basis = options.basis
    if options.symmetric is not None:
        basis = symmetric_basis(shape, options.symmetric)
    weight = _weight(system, basis, options)
    penalty, gram = Penalty(weight, options.smooth), system.gram
    if weight:
        gram = np.asarray(gram + penalty.matrix(shape))
    ridge = weight / system.total_weight if options.penalty is None else options.penalty
    try:
        if options.descends:
            found = _descended(system, gram, penalty, options, progress)
        elif options.separable:
            found = _alternated(system, gram, penalty, options, progress)
        elif options.solver == "minimum_norm":
            found = _minimum_norm(system, basis)
        else:
            found = _direct(system, gram, basis, options)
    except SingularFitError as reason:
        told = _reworded(str(reason), ridge, options)
        if told == str(reason):
            raise
        raise SingularFitError(told) from reason
    return found._replace(ridge=ridge)


def _refuse_extremes(system: System, options: SolverOptions) -> None:
    """Raise for sums of squares that leave float64 on the way to the kernel."""
    squares = options.penalty is None or options.descends or options.separable
    least, most = _SQUARED if squares else (_LEAST_SQUARES, math.inf)
    for name, size in (("source", system.gram.diagonal().max()), ("result", system.energy)):
        if size > 0 and not least <= size <= most:
            range_ = f"from {least:.0e}" + (f" to {most:.0e}" if squares else "")
            msg = (
                f"{name} must have a sum of squares {range_} for this solver and this ridge, "
                f"got {size:.1e}: what follows from it is no number of float64; give the pixels "
                "another unit, in which they are near 1"
            )
            raise ValueError(msg)


def _reworded(reason: str, ridge: float, options: SolverOptions) -> str:
    """Return why a fit is singular in terms of what was asked."""
    if options.penalty != 0:
        asked = f'the {ridge:.1e} that "gcv" chose' if options.penalty is None else f"{ridge:.1e}"
        reason = reason.replace(RIDGE_HELPS, f"a ridge= larger than {asked}")
    if options.basis is not None:
        reason = re.sub(r"(\d+) taps", r"\1 unknowns", reason)
        reason = reason.replace("a smaller kernel_shape", "fewer columns of basis")
    return reason


def _weight(system: System, basis: Basis | None, options: SolverOptions) -> float:
    """Return the penalty times the number of pixels."""
    if options.penalty is not None:
        return options.penalty * system.total_weight
    matrix, moments = _coordinates(system.gram, system.moments, basis)
    weighed = None
    if options.smooth:
        weighed = reduced(Penalty(1.0, smooth=True).matrix(system.kernel_shape).toarray(), basis)
    return gcv_weight(
        matrix,
        moments,
        system.energy,
        system.n_pixels - system.background_terms,
        system.hidden_energy,
        weighed,
    )


def _coordinates(
    gram: FloatArray, moments: FloatArray, basis: Basis | None
) -> tuple[FloatArray, FloatArray]:
    """Return the equations of the coordinates of a basis."""
    return reduced(gram, basis), moments if basis is None else np.asarray(basis.T @ moments)


def _direct(
    system: System,
    gram: FloatArray,
    basis: Basis | None,
    options: SolverOptions,
) -> Solution:
    """Solve exactly, in the coordinates of the basis."""
    matrix, moments = _coordinates(gram, system.moments, basis)
    shape, n, normal = system.kernel_shape, len(gram), None
    if options.unit_sum:
        normal = np.ones(n) if basis is None else np.asarray(basis.T @ np.ones(n))
    if gram is system.gram and not options.nonnegative:
        left = system.n_pixels - system.background_terms
        refuse_too_few(left, len(matrix) - int(options.unit_sum))
        if basis is None and normal is None and n <= FEW:
            return _solved_at_once(system)
    taps, factor = minimise(matrix, moments, nonnegative=options.nonnegative, normal=normal)
    condition = factor.condition_number
    if basis is not None:
        taps = basis @ taps
    if options.nonnegative:
        # Taps that stand at their bound have no error of the usual kind.
        return Solution(
            taps=taps.reshape(shape), solver="active_set", condition_number=condition, rank=n
        )
    if basis is not None:
        inner = basis if factor.basis is None else basis @ factor.basis
        factor = Factor(factor.lower, condition, inner)
    return Solution(
        taps=taps.reshape(shape),
        solver="cholesky",
        condition_number=condition,
        rank=n if options.basis is None else len(matrix),
        factor=factor,
    )


def _solved_at_once(system: System) -> Solution:
    """Solve the equations of some dozen taps as they stand."""
    turned = np.ascontiguousarray(system.gram[::-1, ::-1], np.float64)
    moments = np.ascontiguousarray(system.moments[::-1], np.float64)
    *_, found = solve_shifts(turned, moments, float(system.energy), system.kernel_shape)
    if found is None:
        raise SingularFitError(why_singular(system.gram))
    return found


def _minimum_norm(system: System, basis: Basis | None) -> Solution:
    """Return the shortest minimiser, the condition number of what it rests on, and the rank."""
    matrix, moments = _coordinates(system.gram, system.moments, basis)
    eigenvalues, vectors = lapack.eigenvectors(matrix)
    known = eigenvalues > least_eigenvalue(eigenvalues[-1], len(system.gram))
    values, axes = eigenvalues[known], vectors[:, known]
    taps = axes @ ((axes.T @ moments) / values)
    condition = float(values[-1] / values[0]) if len(values) else math.inf
    return Solution(
        taps=np.asarray(taps if basis is None else basis @ taps).reshape(system.kernel_shape),
        solver="minimum_norm",
        condition_number=condition,
        rank=len(values),
    )


def _descended(
    system: System,
    gram: FloatArray,
    penalty: Penalty,
    options: SolverOptions,
    progress: Progress | None,
) -> Solution:
    """Descend, which does not need the source to tell all taps apart."""
    shape = system.kernel_shape
    with applied(system.gram, shape) as matrix:
        found = descend(
            matrix,
            system.moments.reshape(shape),
            system.energy,
            system.hidden_energy,
            system.total_weight,
            penalty,
            options,
            progress,
        )
    condition, rank, _ = _determined(reduced(gram, options.basis))
    return found.solution(options.solver, condition, rank)


def _determined(gram: FloatArray) -> tuple[float, int, Factor | None]:
    """Return condition number, infinite for a singular matrix, rank, and a factor if there is."""
    try:
        factor = factorise(gram)
    except SingularFitError:
        # Pivoting tells the rank at the cost of another factor; eigenvalues would take tenfold.
        least = least_eigenvalue(np.diag(gram).max(), len(gram))
        return math.inf, lapack.rank(gram, least), None
    return factor.condition_number, len(gram), factor


def _alternated(
    system: System,
    gram: FloatArray,
    penalty: Penalty,
    options: SolverOptions,
    progress: Progress | None,
) -> Solution:
    """Alternate from the unconstrained kernel, or from the moments where there is none."""
    shape, moments = system.kernel_shape, system.moments

    def measure(taps: FloatArray) -> tuple[float, float]:
        residual = system.residual_energy(taps)
        pushed = float(taps @ penalty(taps.reshape(shape)).ravel())
        return (residual + pushed) / 2, math.sqrt(residual / system.total_weight)

    condition, rank, factor = _determined(gram)
    start = moments if factor is None else factor.solve(moments)
    found = alternate(gram, moments, shape, start.reshape(shape), options, measure, progress)
    return found.solution("alternating_least_squares", condition, rank)
