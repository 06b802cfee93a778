"""Polynomials over a window of pixels: what a background is made of."""

import numpy as np
from numpy.polynomial.legendre import leggrid2d, legvander
from numpy.typing import ArrayLike

from fastkernel._images.windows import Within
from fastkernel._typing import FloatArray, Shape


def scaled(place: FloatArray, length: int) -> FloatArray:
    """Return places of a line of ``length`` pixels on the scale from -1 to 1."""
    return (2 * place - (length - 1)) / max(length - 1, 1)


def values_of(length: int, degree: int, start: int = 0, count: int | None = None) -> FloatArray:
    """Return the polynomials at the pixels of a line, or at some, (length or count, degree + 1)."""
    place = start + np.arange(float(length if count is None else count))
    return np.asarray(legvander(scaled(place, length), degree))


def lines_of(within: Within, shape: Shape, degree: int) -> list[FloatArray]:
    """Return the polynomials at the rows and at the columns of a part, (n, degree + 1) each."""
    axes = zip(within.shape, within.origin, shape, strict=True)
    return [values_of(length, degree, start, count) for length, start, count in axes]


def polynomial_image(
    coefficients: ArrayLike, fitted_shape: Shape, origin: Shape, shape: Shape
) -> FloatArray:
    """Return a polynomial at any pixels of the plane.

    Parameters
    ----------
    coefficients : float or (n, n) array_like
        A constant, or those of products of Legendre polynomials by degree along rows and columns.
    fitted_shape : (int, int)
        Rows and columns of the window over which the polynomials go from -1 to 1.
    origin : (int, int)
        The first pixel that is wanted, counted from the first of that window; may be negative.
    shape : (int, int)
        How many rows and columns are wanted, inside the window or beyond.

    Returns
    -------
    `shape` float64 array
        In the units of the coefficients.

    Examples
    --------
    >>> polynomial_image([[5.0, 1.0], [2.0, 0.0]], (2, 3), (0, -1), (2, 3))
    array([[1., 2., 3.],
           [5., 6., 7.]])
    """
    rows, cols = (
        scaled(first + np.arange(float(count)), length)
        for first, count, length in zip(origin, shape, fitted_shape, strict=True)
    )
    return np.asarray(leggrid2d(rows, cols, np.atleast_2d(np.asarray(coefficients, float))))
