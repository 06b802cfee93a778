r"""A smooth background fitted beside the kernel, and eliminated before the kernel is solved for.

With the polynomials' values as further columns :math:`\Phi` of the design matrix ``X``, the
normal equations of both are

.. math:: \begin{pmatrix} H & C \\ C^T & B \end{pmatrix} \begin{pmatrix} k \\ b \end{pmatrix}
          = \begin{pmatrix} r \\ s \end{pmatrix}, \qquad
          C = X^T \Phi,\; B = \Phi^T \Phi,\; s = \Phi^T y .

Without ``b`` they are equations of the same form as those of a kernel alone [1]_, so every
solver works on them unchanged, and those of images with backgrounds of their own add up.

References
----------
.. [1] G. H. Golub and V. Pereyra, "The differentiation of pseudo-inverses and nonlinear least
   squares problems whose variables separate", SIAM J. Numer. Anal. 10 (1973) 413-432.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import linalg

from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.polynomial import polynomial_image
from fastkernel.estimation.solvers.direct import factorise

_EPS = float(np.finfo(np.float64).eps)

# Share of a source's energy below which what a background leaves of it is rounding.
_ROUNDING = 64 * _EPS


def terms_of(degree: int) -> tuple[list[int], list[int]]:
    """Return the degrees along rows and along columns of the terms of one total degree."""
    pairs = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    return [i for i, _ in pairs], [j for _, j in pairs]


@dataclass(frozen=True, slots=True, eq=False)
class BackgroundSums:
    r"""All that a fit needs to know of a pair to fit a background with its kernel.

    The basis is :math:`\phi_{ij} = P_i(\rho) P_j(\gamma)` with Legendre polynomials ``P`` and
    :math:`i + j` up to the degree; :math:`\rho` and :math:`\gamma` go from -1 at the first to 1 at
    the last row and column of the fitted pixels (0 where there is one).

    Attributes
    ----------
    degree : int
        Total degree of the polynomial.
    products : (p * q, terms) float64 array
        ``X.T @ phi`` in source units, taps in C order of the kernel.
    gram : (terms, terms) float64 array
        ``phi.T @ phi``.
    moments : (terms,) float64 array
        ``phi.T @ y`` in result units.
    shape : (int, int) or None
        Rows and columns of fitted pixels of the whole image whose parts share the background;
        None where there are no parts.
    """

    degree: int
    products: FloatArray
    gram: FloatArray
    moments: FloatArray
    shape: Shape | None = None

    @property
    def terms(self) -> int:
        """Number of coefficients."""
        return len(self.moments)

    def plus(self, other: "BackgroundSums", sign: int) -> "BackgroundSums":
        """Return the sums over this one's pixels and another's, or (-1) less those."""
        return replace(
            self,
            products=self.products + sign * other.products,
            gram=self.gram + sign * other.gram,
            moments=self.moments + sign * other.moments,
        )

    def solve(self, moments: FloatArray) -> FloatArray:
        """Return the coefficients ``b`` with ``gram @ b = moments``, one column each."""
        return np.asarray(linalg.solve(self.gram, moments, assume_a="pos", check_finite=False))


class Eliminated(NamedTuple):
    """Equations of a kernel alone; see `eliminated`."""

    gram: FloatArray
    moments: FloatArray
    energy: float


def eliminated(
    gram: FloatArray, moments: FloatArray, energy: float, backgrounds: Sequence[BackgroundSums]
) -> Eliminated:
    r"""Return the equations of the kernel alone, each pair's best background taken for granted.

    Parameters
    ----------
    gram, moments, energy
        Of all pairs together, without backgrounds, as in `NormalEquations`.
    backgrounds : sequence of BackgroundSums
        One a pair.

    Returns
    -------
    Eliminated
        :math:`H - C B^{-1} C^T`, :math:`r - C B^{-1} s` and :math:`e - s^T B^{-1} s`. The Gram
        matrix is zero where what is left of it is rounding: the sources are then backgrounds
        themselves.
    """
    left, right, rest = gram.copy(), moments.copy(), energy
    for sums in backgrounds:
        lower = _factor(sums)
        columns = np.column_stack([sums.products.T, sums.moments])
        white = linalg.solve_triangular(lower, columns, lower=True, check_finite=False)
        taps, answer = white[:, :-1], white[:, -1]
        left -= taps.T @ taps
        right -= answer @ taps
        rest -= float(answer @ answer)
    if np.trace(left) <= _ROUNDING * np.trace(gram):
        left[:] = 0
    return Eliminated(left, right, max(rest, 0.0))


def _factor(sums: BackgroundSums) -> FloatArray:
    """Return the Cholesky factor of a background's own equations, or say why there is none."""
    try:
        return factorise(sums.gram).lower
    except SingularFitError:
        msg = (
            f"the images do not determine a background of degree {sums.degree}: too few pixels are "
            "fitted, once those that are masked are left out. What helps: a lower degree, or more "
            "pixels in different rows and columns"
        )
        raise SingularFitError(msg) from None


def coefficients_of(sums: BackgroundSums, kernel: FloatArray) -> FloatArray:
    """Return the coefficients of a pair's best background beside a kernel, one a term."""
    return sums.solve(sums.moments - kernel.ravel() @ sums.products)


def as_background(sums: BackgroundSums, coefficients: FloatArray) -> float | FloatArray:
    """Return coefficients as a number for a constant, else as a matrix by degree."""
    if sums.degree == 0:
        return float(coefficients[0])
    out = np.zeros((sums.degree + 1, sums.degree + 1))
    out[terms_of(sums.degree)] = coefficients
    return out


def as_coefficients(background: float | FloatArray) -> FloatArray:
    """Return a background, a number or a matrix by degree, as coefficients, one a term."""
    matrix = np.atleast_2d(np.asarray(background, np.float64))
    return np.asarray(matrix[terms_of(len(matrix) - 1)])


def background_of(sums: BackgroundSums, kernel: FloatArray) -> float | FloatArray:
    r"""Return a pair's best background beside a kernel.

    Parameters
    ----------
    sums : BackgroundSums
        Of the pair.
    kernel : (p, q) float64 array
        The kernel, in result units per source unit.

    Returns
    -------
    float or (degree + 1, degree + 1) float64 array
        The constant; or the coefficients, in result units, of :math:`P_i(\rho) P_j(\gamma)`, 0
        where ``i + j`` is more than the degree (see `BackgroundSums`). `background_image`
        evaluates them over the fitted pixels, `polynomial_image` anywhere.
    """
    return as_background(sums, coefficients_of(sums, kernel))


def background_image(background: float | FloatArray, window_shape: Shape) -> FloatArray:
    """Return the pixels of a background over the fitted pixels.

    Parameters
    ----------
    background : float or (n, n) float64 array
        As `background_of` returns it.
    window_shape : (int, int)
        Rows and columns of the fitted pixels.

    Returns
    -------
    `window_shape` float64 array
        In result units.

    Examples
    --------
    >>> background_image(np.array([[5.0, 1.0], [2.0, 0.0]]), (2, 3))
    array([[2., 3., 4.],
           [6., 7., 8.]])
    """
    return polynomial_image(background, window_shape, (0, 0), window_shape)


def told(background: BackgroundSums | None) -> str:
    """Return what a message says of a background."""
    if background is None:
        return "none"
    return f"one of degree {background.degree} over {background.shape} fitted pixels"


def joined(one: BackgroundSums | None, other: BackgroundSums | None) -> BackgroundSums | None:
    """Return the sums over the pixels of both, or raise ValueError."""
    if one is None or other is None:
        return one or other
    if (one.degree, one.shape) != (other.degree, other.shape):
        msg = (
            f"cannot join {told(one)} and {told(other)}: only parts of one image share a "
            "background; eliminate() that of each image before they are added"
        )
        raise ValueError(msg)
    return one.plus(other, 1)
