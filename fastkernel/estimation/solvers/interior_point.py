"""Interior-point steps to a nonnegative minimum: work that is bounded, however singular."""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import linalg

from fastkernel._machine import lapack
from fastkernel._typing import FloatArray
from fastkernel.estimation.errors import SingularFitError

_EPS = float(np.finfo(np.float64).eps)
_MAX_ITER = 100
# Where the gap ends, as a share of the objective: rounding of the sums hides the rest.
_GAP = 1e-15
# How far a step goes of the way to the bounds.
_SHARE = 0.995
# Moments that differ by this share are the same to rounding; minima that differ by that share of
# the largest tap are two.
_TILT, _APART = 1e-13, 0.5


class Central(NamedTuple):
    """Taps within the bounds, and what holds each: the taps that are 0 have the larger pull.

    Attributes
    ----------
    taps, pulls : (n,) float64 array
        In units of the taps both.
    gap : float
        By how much the objective may be above its least, as a share of the moments' part of it.
    """

    taps: FloatArray
    pulls: FloatArray
    gap: float


def approach(matrix: FloatArray, moments: FloatArray, normal: FloatArray | None) -> Central:
    """Go near the minimum of ``x @ matrix @ x / 2 - moments @ x`` over ``x >= 0``.

    The predictor and corrector of Mehrotra [1]_. Of many minima it goes to their middle.

    Parameters
    ----------
    matrix : (n, n) float64 array
        Symmetric, positive semidefinite to rounding, not zero.
    moments : (n,) float64 array
        The right-hand side.
    normal : (n,) float64 array or None
        If given, ``normal @ x == 1``; all above 0.

    Returns
    -------
    Central
        Within rounding of the least, or as near as 100 steps came.

    References
    ----------
    .. [1] J. Nocedal and S. J. Wright, "Numerical Optimization", 2nd ed., Springer 2006,
       section 16.6.
    """
    n, largest = len(moments), float(np.diag(matrix).max())
    pulled = float(np.abs(moments).max()) / largest
    scale = pulled if normal is None else 1 / float(normal.sum())
    scale = scale or 1.0
    gram, right = matrix / largest, moments / (largest * scale)
    plane = np.zeros((0, n)) if normal is None else scale * normal[None, :]
    goal = np.ones(len(plane))
    taps, pulls, weights = np.ones(n) / n, np.ones(n), np.zeros(len(plane))
    guard = n * _EPS * float(np.abs(gram).sum(axis=0).max())
    for _ in range(_MAX_ITER):
        slope = gram @ taps - right - plane.T @ weights - pulls
        missed = plane @ taps - goal
        gap = float(taps @ pulls)
        size = max(float(np.abs(right) @ taps), _EPS)
        if gap <= _GAP * size and np.abs(slope).max() <= n * _EPS and (abs(missed) <= 1e-14).all():
            break
        inner = gram.copy()
        inner.flat[:: n + 1] += pulls / taps + guard
        lower, info = lapack.cholesky(inner)
        if info:
            break

        solve = partial(_step, lower, slope, missed, taps, pulls, plane)
        along, lift, _more = solve(np.zeros(n))
        ahead = min(_room(taps, along), _room(pulls, lift))
        left = float((taps + ahead * along) @ (pulls + ahead * lift))
        target = (left / gap) ** 3 * gap / n
        along, lift, more = solve(target - along * lift)
        go = min(1.0, _SHARE * min(_room(taps, along), _room(pulls, lift)))
        if not go > 1e-8 or not np.isfinite(along).all():
            break
        taps, pulls = taps + go * along, pulls + go * lift
        weights = weights + go * more
    size = max(float(np.abs(right) @ taps), _EPS)
    return Central(taps * scale, pulls * scale, float(taps @ pulls) / size)


def _step(
    lower: FloatArray,
    slope: FloatArray,
    missed: FloatArray,
    taps: FloatArray,
    pulls: FloatArray,
    plane: FloatArray,
    centre: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return Newton's step of taps, pulls and the plane's weight."""
    down = -slope - pulls + centre / taps
    along = np.asarray(linalg.lapack.dpotrs(lower, down, lower=1)[0])
    more = np.zeros(len(plane))
    if len(plane):
        across = linalg.lapack.dpotrs(lower, plane[0], lower=1)[0]
        more = (-missed - plane @ along) / (plane @ across)
        along = along + more[0] * across
    return along, (centre - pulls * along) / taps - pulls, more


def _room(values: FloatArray, step: FloatArray) -> float:
    """Return how much of a step keeps all values above 0, at most 1 / _SHARE."""
    falls = step < 0
    most = float((values[falls] / -step[falls]).min()) if falls.any() else math.inf
    return min(most, 1 / _SHARE)


def refuse_many_minima(
    matrix: FloatArray, moments: FloatArray, normal: FloatArray | None, why: str
) -> None:
    """Raise if rounding of the moments would choose between minima that are far apart."""
    slack = _TILT * float(np.abs(moments).max())
    tilt = slack * np.random.default_rng(0).uniform(-1, 1, len(moments))
    one, two = (approach(matrix, moments + sign * tilt, normal).taps for sign in (1, -1))
    if np.abs(one - two).max() > _APART * max(one.max(), two.max()):
        raise SingularFitError(why)
