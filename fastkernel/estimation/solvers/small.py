"""Equations of some dozen taps, solved by one loop: libraries look at much before they begin."""

import numpy as np

from fastkernel._loops import equations as loops
from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.solvers.direct import Factor
from fastkernel.estimation.solvers.solution import Solution

_EPS = float(np.finfo(np.float64).eps)

# Taps up to which the loop takes less time than LAPACK, whose code is not at hand at once.
FEW = 81


def solve_shifts(
    by_shift: FloatArray, moments: FloatArray, energy: float, kernel_shape: Shape
) -> tuple[FloatArray, FloatArray, Solution | None]:
    """Solve equations of at most `FEW` taps, given in the order of shifts.

    Parameters
    ----------
    by_shift, moments : (n, n) and (n,) float64 arrays
        C order.
    energy : float
        Of the result.
    kernel_shape : (int, int)
        Of ``n`` taps.

    Returns
    -------
    gram, moments : (n, n) and (n,) float64 arrays
        In the order of taps, which a convolution turns round.
    solution : Solution or None
        None if the condition number passes ``1 / (n * eps)``, see `direct.factorise`.
    """
    n = len(moments)
    gram, by_tap, taps = np.empty((n, n)), np.empty(n), np.empty(kernel_shape)
    upper, room = np.empty((n, n)), np.empty((n + 1, n))
    arrays = gram, by_tap, upper, room, taps.reshape(-1)
    reciprocal, left = loops.solve_shifts(by_shift, moments, energy, *arrays)
    if not reciprocal > n * _EPS:
        return gram, by_tap, None
    condition = 1.0 / reciprocal
    factor = Factor(upper.T, condition)
    return gram, by_tap, Solution(taps, "cholesky", n, condition, factor, energy=left)
