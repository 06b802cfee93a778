"""The background of a difference: a polynomial through what is left where there is no light."""

import numpy as np

from fastkernel._typing import BoolArray, FloatArray
from fastkernel.estimation.equations.background import terms_of
from fastkernel.estimation.polynomial import polynomial_image, values_of

# Standard deviations that a pixel may be off the polynomial, and how often this is looked at.
_CLIP, _ROUNDS = 3.0, 4


def fitted_background(
    residual: FloatArray, good: BoolArray, spread: float, degree: int
) -> FloatArray:
    """Fit a polynomial to the good pixels that do not stick out of it.

    Parameters
    ----------
    residual : (m, n) float64 array
        What is left; finite where good.
    good : (m, n) bool array
        Pixels that count.
    spread : float
        Standard deviation of their noise.
    degree : int
        Of the polynomial.

    Returns
    -------
    (degree + 1, degree + 1) float64 array
        Coefficients of products of Legendre polynomials, by degree along rows and columns.
    """
    lines = [values_of(n, degree) for n in residual.shape]
    down, across = ((x[:, :, None] * x[:, None, :]).reshape(len(x), -1) for x in lines)
    values, names, side = np.where(good, residual, 0.0), terms_of(degree), degree + 1
    out, members = np.zeros((side, side)), good
    for _ in range(_ROUNDS):
        weights = members.astype(np.float64)
        squares = (down.T @ (weights @ across)).reshape(side, side, side, side)
        gram = squares.transpose(0, 2, 1, 3)[names][:, *names]
        moments = (lines[0].T @ (weights * values) @ lines[1])[names]
        out[names] = np.linalg.lstsq(gram, moments, rcond=None)[0]
        off = values - polynomial_image(out, residual.shape, (0, 0), residual.shape)
        kept = good & (np.abs(off) < _CLIP * spread)
        if np.count_nonzero(kept) < len(names[0]) or np.array_equal(kept, members):
            break
        members = kept
    return out
