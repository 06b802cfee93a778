"""Least squares where the source is noisy: the penalty without which the answer would be wild."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from fastkernel._images.pairs import Pair
from fastkernel._machine import lapack
from fastkernel._typing import FloatArray, Ridge
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.solvers.bases import reduced
from fastkernel.estimation.solvers.options import SolverOptions
from fastkernel.estimation.solvers.penalties import Penalty
from fastkernel.estimation.solvers.solution import Solution, System
from fastkernel.estimation.solvers.solve import solve

T = TypeVar("T", bound=SolverOptions)

# The penalty on second differences that goes with a noisy source, in units of its variance: 0.03
# to 0.1 were best for point spread functions in simulated star fields. Kernels with sharp edges
# want less of it: so often it is halved.
_SMOOTH_SHARE, _HALVINGS = 0.05, 7


def with_ridge(options: T, pairs: Sequence[Pair]) -> T:
    """Return options with a smooth penalty where noise is taken off the Gram matrix."""
    variances = [pair.source_variance for pair in pairs]
    mean = np.mean(
        [0.0 if part is None else np.mean(part[:, :], dtype=np.float64) for part in variances]
    )
    return replace(options, ridge=("smooth", _SMOOTH_SHARE * float(mean)))


def pull_of(system: System, solution: Solution, *, smooth: bool) -> FloatArray:
    """Return with what the penalty pulls at the taps, (p * q,), in the units of moments."""
    penalty = Penalty(solution.ridge * system.total_weight, smooth)
    return penalty(solution.taps).ravel()


def with_less_ridge(
    system: System, options: SolverOptions, first: Solution, scatter: FloatArray
) -> Solution:
    """Return the solution by the part of a smooth penalty that leaves the least error expected.

    Parameters
    ----------
    system : System
        What is solved.
    options : SolverOptions
        With the whole penalty.
    first : Solution
        By the whole penalty.
    scatter : (p * q, p * q) float64 array
        Of its scores.

    Notes
    -----
    What is expected is the sum of the variances of all taps, and of the squares of what the
    penalty moves them by. A penalty that is too large hides the latter, so it is never made
    larger: bars tell where it was too small. Cost: a few products of (p * q, p * q) matrices a
    trial.
    """
    best, least = first, _expected(system, first, scatter)
    for halvings in range(1, _HALVINGS + 1):
        ridge: Ridge = ("smooth", first.ridge / 2**halvings)
        try:
            found = solve(system, replace(options, ridge=ridge))
        except SingularFitError:
            break
        error = _expected(system, found, scatter)
        if error < least:
            best, least = found, error
    return best


def _expected(system: System, solution: Solution, scatter: FloatArray) -> float:
    """Return the expected sum of the squared errors of a solution's taps."""
    factor = solution.factor
    if factor is None or not len(factor.lower):
        return 0.0  # nothing is left free
    half = lapack.inverse_of_lower(factor.lower)
    inverse = lapack.product(half.T, half)
    scattered = lapack.product(inverse, reduced(scatter, factor.basis))
    shift = factor.solve(pull_of(system, solution, smooth=True))
    return float(np.vdot(scattered, inverse) + shift @ shift)
