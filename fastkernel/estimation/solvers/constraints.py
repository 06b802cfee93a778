"""Least squares under constraints: matrices in, taps out. It sees no pixel.

Every answer is a minimum to rounding, and its constraints hold: signs exactly, a sum to rounding.
"""

import math
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from fastkernel._typing import AnyArray, FloatArray
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.solvers.direct import Factor, factorise, why_singular
from fastkernel.estimation.solvers.interior_point import approach, refuse_many_minima

_EPS = float(np.finfo(np.float64).eps)

# Full exchanges of the active set that may fail to shrink what is wrong with it.
_PATIENCE = 3
# Exchanges of single taps, and the gap that interior-point steps must reach: none is to take long.
_MAX_EXCHANGES, _GAP = 100, 1e-10


class Found(NamedTuple):
    """Taps that minimise, and the factor that found them."""

    taps: FloatArray
    factor: Factor


def minimise(
    matrix: FloatArray,
    moments: FloatArray,
    *,
    nonnegative: bool = False,
    normal: FloatArray | None = None,
) -> Found:
    """Minimise ``x @ matrix @ x / 2 - moments @ x``, perhaps under constraints.

    Parameters
    ----------
    matrix : (n, n) float64 array
        Symmetric.
    moments : (n,) float64 array
        The right-hand side.
    nonnegative : bool, optional
        Whether no entry of ``x`` may be negative.
    normal : (n,) float64 array, optional
        If given, ``normal @ x == 1``; all above 0 if ``nonnegative``.

    Returns
    -------
    Found
        The factor of a nonnegative answer is that of its positive entries.

    Raises
    ------
    SingularFitError
        If the matrix, as far as the constraints leave it, is singular.
    """
    if nonnegative:
        return minimise_nonnegative(matrix, moments, normal)
    if normal is not None:
        return minimise_on_plane(matrix, moments, normal)
    factor = factorise(matrix)
    return Found(factor.solve(moments), factor)


def minimise_on_plane(matrix: FloatArray, moments: FloatArray, normal: FloatArray) -> Found:
    """Minimise ``x @ matrix @ x / 2 - moments @ x`` where ``normal @ x == 1``.

    The Householder reflection that maps the normal onto the first axis leaves the others free:
    the matrix need be regular on the plane alone [1]_. Parameters as in `minimise`.

    References
    ----------
    .. [1] J. Nocedal and S. J. Wright, "Numerical Optimization", 2nd ed., Springer 2006,
       section 16.2 (null-space method).
    """
    size = float(linalg.norm(normal))
    start = normal / size**2
    mirror = normal / size
    mirror[0] += math.copysign(1.0, mirror[0])
    mirror /= linalg.norm(mirror)

    def reflect(x: AnyArray) -> AnyArray:
        return np.asarray(x - 2 * np.multiply.outer(mirror, mirror @ x))

    basis = reflect(np.eye(len(normal)))[:, 1:]
    if len(normal) == 1:
        return Found(start, Factor(np.zeros((0, 0)), 1.0, basis))
    half = 2 * (matrix @ mirror)
    half -= (mirror @ half) * mirror
    turned = matrix - np.multiply.outer(mirror, half) - np.multiply.outer(half, mirror)
    inner = factorise(turned[1:, 1:])
    factor = Factor(inner.lower, inner.condition_number, basis)
    return Found(start + factor.solve(moments - matrix @ start), factor)


class _ActiveSet:
    """The parts of a problem with signs that a set of free taps determines."""

    def __init__(self, matrix: FloatArray, moments: FloatArray, normal: FloatArray | None) -> None:
        self.matrix, self.moments, self.normal = matrix, moments, normal
        self.sizes = np.abs(matrix).max(axis=1)

    def solve(self, free: NDArray[np.bool_]) -> Found:
        """Return the minimum where all other taps are 0, whatever its signs."""
        taps, chosen = np.zeros(len(free)), np.flatnonzero(free)
        if not len(chosen):
            return Found(taps, Factor(np.zeros((0, 0)), 1.0, np.zeros((len(free), 0))))
        found = minimise(
            self.matrix[np.ix_(chosen, chosen)],
            self.moments[chosen],
            normal=None if self.normal is None else self.normal[chosen],
        )
        taps[chosen] = found.taps
        return Found(taps, found.factor)

    def pull(self, taps: FloatArray, free: NDArray[np.bool_]) -> FloatArray:
        """Return how much each tap at 0 would lower the objective, less what rounding makes.

        By the conditions of Karush, Kuhn and Tucker none is above 0 at the minimum.
        """
        gradient = self.moments - self.matrix @ taps
        slack = np.abs(self.moments) + self.sizes * np.abs(taps).sum()
        if self.normal is not None:
            normal = self.normal[free]
            multiplier = (normal @ gradient[free]) / (normal @ normal)
            gradient -= multiplier * self.normal
        pull: FloatArray = gradient - 10 * _EPS * len(taps) ** 0.5 * slack
        pull[free] = -math.inf
        return pull


def minimise_nonnegative(
    matrix: FloatArray, moments: FloatArray, normal: FloatArray | None = None
) -> Found:
    """Minimise ``x @ matrix @ x / 2 - moments @ x`` over ``x >= 0``, perhaps on a plane.

    Taps of the wrong sign are exchanged, all at once as long as that shrinks their number [3]_,
    then one at a time, by which the objective falls with every exchange: that ends, at the
    minimum [1]_ [2]_. Where the matrix is singular, or that takes long, interior-point steps go
    to the minimum first, which must then be the only one. Parameters as in `minimise`.

    References
    ----------
    .. [1] C. L. Lawson and R. J. Hanson, "Solving Least Squares Problems", Prentice-Hall 1974,
       chapter 23.
    .. [2] R. Bro and S. de Jong, "A fast non-negativity-constrained least squares algorithm",
       J. Chemometrics 11 (1997) 393-401.
    .. [3] L. F. Portugal, J. J. Júdice, L. N. Vicente, "A comparison of block pivoting and
       interior-point algorithms for linear least squares problems with nonnegative variables",
       Math. Comp. 63 (1994) 625-643.
    """
    problem = _ActiveSet(matrix, moments, normal)
    guess = _exchanged(problem)
    if guess is not None:
        # A start that keeps the constraints, from which every step leads down.
        free, found = guess
        exact = _exchanged_singly(problem, free, found, np.maximum(found.taps, 0.0))
        if exact is not None:
            return exact
    why = "" if guess is not None else why_singular(matrix)
    if not np.diag(matrix).max() > 0:
        raise SingularFitError(why)
    near = approach(matrix, moments, normal)
    if not near.gap < _GAP:
        raise SingularFitError(why or why_singular(matrix))
    if guess is None:
        refuse_many_minima(matrix, moments, normal, why)
    free = near.taps > near.pulls
    taps = np.where(free, near.taps, 0.0)
    exact = None
    # The minimum is known even where what it rests on has no factor.
    with suppress(SingularFitError):
        exact = _exchanged_singly(problem, free.copy(), problem.solve(free), taps)
    if exact is not None:
        return exact
    if normal is not None:
        taps /= normal @ taps
    return Found(taps, Factor(np.zeros((0, 0)), math.inf, np.zeros((len(taps), 0))))


def _exchanged_singly(
    problem: _ActiveSet, free: NDArray[np.bool_], found: Found, taps: FloatArray
) -> Found | None:
    """Go down to the minimum from taps that are not negative; None if it takes too long."""
    if problem.normal is not None:
        taps /= problem.normal @ taps
    refused = np.zeros(len(taps), np.bool_)
    for _ in range(_MAX_EXCHANGES):
        if (found.taps[free] < 0).any():
            wrong = free & (found.taps < 0)
            ratios = taps[wrong] / (taps[wrong] - found.taps[wrong])
            taps = taps + float(ratios.min()) * (found.taps - taps)
            free &= ~(wrong & (taps <= _EPS * taps.max()))
            free[np.flatnonzero(wrong)[int(ratios.argmin())]] = False
            taps = np.where(free, np.maximum(taps, 0.0), 0.0)
            found = problem.solve(free)
            continue
        taps = found.taps
        pull = problem.pull(taps, free)
        pull[refused] = -math.inf
        best = int(np.argmax(pull))
        if not pull[best] > 0:
            return found
        free[best] = True
        tried = problem.solve(free)
        if tried.taps[best] > 0:
            refused[:] = False
            found = tried
        else:
            # Only rounding pulled it.
            free[best], refused[best] = False, True
    return None


def _exchanged(problem: _ActiveSet) -> tuple[NDArray[np.bool_], Found] | None:
    """Return a guess at the free taps, the one with the fewest wrong taps that was met.

    None where the whole matrix is singular.
    """
    n = len(problem.moments)
    free, fewest, patience = np.ones(n, np.bool_), n + 1, _PATIENCE
    best = None
    while patience and fewest > 0:
        try:
            found = problem.solve(free)
        except SingularFitError:
            break
        wrong = (free & (found.taps < 0)) | (problem.pull(found.taps, free) > 0)
        count = int(wrong.sum())
        if count < fewest:
            fewest, best, patience = count, (free, found), _PATIENCE
        else:
            patience -= 1
        free = free ^ wrong
    return best
