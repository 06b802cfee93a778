"""From equations and options to a kernel: which solver answers what is asked."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import linalg, sparse

from fastkernel._typing import FloatArray, Progress
from fastkernel.errors import SingularFitError
from fastkernel.estimation.fit import KernelFit
from fastkernel.estimation.solvers.constraints import minimise, symmetric_basis
from fastkernel.estimation.solvers.descents import applied, descend
from fastkernel.estimation.solvers.direct import Factor, factorise, least_eigenvalue, refuse_too_few
from fastkernel.estimation.solvers.options import Options
from fastkernel.estimation.solvers.penalties import Penalty, gcv_weight
from fastkernel.estimation.solvers.separable import alternate

if TYPE_CHECKING:
    from fastkernel.estimation.equations.normal_equations import NormalEquations


class _Answer(NamedTuple):
    """Taps, and what the solver has to say of them."""

    taps: FloatArray
    solver: str
    condition_number: float
    rank: int
    factor: Factor | None = None
    num_iter: int = 0
    converged: bool = True
    history: Mapping[str, FloatArray] | None = None


def solve_equations(
    equations: "NormalEquations", options: Options, progress: Progress | None = None
) -> KernelFit:
    """Find the kernel; `NormalEquations.solve` with its arguments checked.

    Parameters
    ----------
    equations : NormalEquations
        What to solve.
    options : Options
        How, and under which constraints.
    progress : callable, optional
        Called as ``progress(done, total)`` with the iterations of a solver that takes any.

    Returns
    -------
    KernelFit
        Its ``solver`` is "cholesky", "active_set", "alternating_least_squares", "minimum_norm",
        "gradient_descent" or "fista".

    Raises
    ------
    SingularFitError
        If the source does not determine what is asked for.
    ValueError
        If the kernel's shape or the step does not suit the options.
    """
    shape, n_pixels = equations.kernel_shape, equations.n_pixels
    options.refuse_shape(shape)
    if not n_pixels:
        refuse_too_few(0, math.prod(shape))
    basis = None if options.symmetric is None else symmetric_basis(shape, options.symmetric)
    weight = _weight(equations, basis, options)
    penalty, gram = Penalty(weight, options.smooth), equations.gram
    if weight:
        gram = np.asarray(gram + penalty.matrix(shape))

    def residual_energy(taps: FloatArray) -> float:
        left = equations.energy + taps @ (equations.gram @ taps - 2 * equations.moments)
        return max(float(left), equations.hidden_energy)

    if options.descends:
        answer = _descended(equations, gram, penalty, options, progress)
    elif options.separable:

        def measure(taps: FloatArray) -> tuple[float, float]:
            residual = residual_energy(taps)
            pushed = float(taps @ penalty(taps.reshape(shape)).ravel())
            return (residual + pushed) / 2, math.sqrt(residual / n_pixels)

        answer = _alternated(equations, gram, options, measure, progress)
    elif options.solver == "minimum_norm":
        answer = _minimum_norm(equations, basis)
    else:
        answer = _direct(equations, gram, basis, options)
    return KernelFit(
        kernel=answer.taps.reshape(shape),
        residual_rms=math.sqrt(residual_energy(answer.taps) / n_pixels),
        condition_number=answer.condition_number,
        rank=answer.rank,
        n_pixels=n_pixels,
        method="lstsq",
        solver=answer.solver,
        equations=equations,
        _factor=answer.factor,
        num_iter=answer.num_iter,
        converged=answer.converged,
        history=answer.history,
        ridge=weight / n_pixels if options.penalty is None else options.penalty,
    )


def _weight(
    equations: "NormalEquations", basis: "sparse.csr_array | None", options: Options
) -> float:
    """Return the penalty times the number of pixels."""
    if options.penalty is not None:
        return options.penalty * equations.n_pixels
    return gcv_weight(
        *_reduced(equations.gram, equations.moments, basis),
        equations.energy,
        equations.n_pixels - equations.background_terms,
        equations.hidden_energy,
    )


def _reduced(
    gram: FloatArray, moments: FloatArray, basis: "sparse.csr_array | None"
) -> tuple[FloatArray, FloatArray]:
    """Return the equations of the coordinates of a basis."""
    if basis is None:
        return gram, moments
    return np.asarray(basis.T @ (basis.T @ gram).T), np.asarray(basis.T @ moments)


def _direct(
    equations: "NormalEquations",
    gram: FloatArray,
    basis: "sparse.csr_array | None",
    options: Options,
) -> _Answer:
    """Solve exactly, in the coordinates of the symmetry."""
    matrix, moments = _reduced(gram, equations.moments, basis)
    n, normal = len(gram), None
    if options.unit_sum:
        normal = np.ones(n) if basis is None else np.asarray(basis.T @ np.ones(n))
    if gram is equations.gram and not options.nonnegative:
        left = equations.n_pixels - equations.background_terms
        refuse_too_few(left, len(matrix) - int(options.unit_sum))
    taps, factor = minimise(matrix, moments, nonnegative=options.nonnegative, normal=normal)
    condition = factor.condition_number
    if basis is not None:
        taps = basis @ taps
    if options.nonnegative:
        # Taps that stand at their bound have no error of the usual kind.
        return _Answer(taps, "active_set", condition, n)
    if basis is not None:
        inner = basis if factor.basis is None else basis @ factor.basis
        factor = Factor(factor.lower, condition, inner)
    return _Answer(taps, "cholesky", condition, n, factor)


def _minimum_norm(equations: "NormalEquations", basis: "sparse.csr_array | None") -> _Answer:
    """Return the shortest minimiser, the condition number of what it rests on, and the rank."""
    matrix, moments = _reduced(equations.gram, equations.moments, basis)
    eigenvalues, vectors = linalg.eigh(matrix, check_finite=False)
    known = eigenvalues > least_eigenvalue(eigenvalues[-1], len(equations.gram))
    values, axes = eigenvalues[known], vectors[:, known]
    taps = axes @ ((axes.T @ moments) / values)
    condition = float(values[-1] / values[0]) if len(values) else math.inf
    return _Answer(taps if basis is None else basis @ taps, "minimum_norm", condition, len(values))


def _descended(
    equations: "NormalEquations",
    gram: FloatArray,
    penalty: Penalty,
    options: Options,
    progress: Progress | None,
) -> _Answer:
    """Descend, which does not need the source to tell all taps apart."""
    shape = equations.kernel_shape
    with applied(equations.gram, shape) as matrix:
        found = descend(
            matrix,
            equations.moments.reshape(shape),
            equations.energy,
            equations.hidden_energy,
            equations.n_pixels,
            penalty,
            options,
            progress,
        )
    condition, rank, _ = _determined(gram)
    return _Answer(
        found.taps.ravel(),
        options.solver,
        condition,
        rank,
        num_iter=found.num_iter,
        converged=found.converged,
        history=found.history,
    )


def _determined(gram: FloatArray) -> tuple[float, int, Factor | None]:
    """Return condition number, infinite for a singular matrix, rank, and a factor if there is."""
    try:
        factor = factorise(gram)
    except SingularFitError:
        # Pivoting tells the rank at the cost of another factor; eigenvalues would take tenfold.
        least = least_eigenvalue(np.diag(gram).max(), len(gram))
        rank = linalg.lapack.dpstrf(gram, tol=least, lower=1)[2]
        return math.inf, int(rank), None
    return factor.condition_number, len(gram), factor


def _alternated(
    equations: "NormalEquations",
    gram: FloatArray,
    options: Options,
    measure: Callable[[FloatArray], tuple[float, float]],
    progress: Progress | None,
) -> _Answer:
    """Alternate from the unconstrained kernel, or from the moments where there is none."""
    shape, moments = equations.kernel_shape, equations.moments
    condition, rank, factor = _determined(gram)
    start = moments if factor is None else factor.solve(moments)
    found = alternate(gram, moments, shape, start.reshape(shape), options, measure, progress)
    return _Answer(
        found.taps.ravel(),
        "alternating_least_squares",
        condition,
        rank,
        num_iter=found.num_iter,
        converged=found.converged,
        history=found.history,
    )
