"""Penalties on the taps, and how large to choose them. They see no pixel."""

import math
from typing import NamedTuple

import numpy as np
from scipy import linalg, sparse

from fastkernel._machine import lapack
from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.solvers.direct import least_eigenvalue

_EPS = float(np.finfo(np.float64).eps)

# Trial penalties reach from rounding of the largest eigenvalue to this many times it; then the
# best one's neighbours bound the next trials.
_LARGEST, _REGULAR = 1e3, 10
_TRIALS, _ROUNDS = 100, 4


class Penalty(NamedTuple):
    r"""Half a quadratic form of the taps, added to half the squared residual.

    Attributes
    ----------
    weight : float
        The penalty times the number of pixels, in squared source units.
    smooth : bool
        Whether it weighs the second differences of the taps along rows and along columns, zeros
        beyond the kernel, or the taps themselves.
    """

    weight: float
    smooth: bool

    def __call__(self, taps: FloatArray) -> FloatArray:
        """Return the gradient at (p, q) taps."""
        if not self.smooth:
            return self.weight * taps
        total = np.zeros(taps.shape)
        for lines, out in ((taps, total), (taps.T, total.T)):
            out += 6 * lines
            for lag, factor in ((1, -4), (2, 1)):
                out[lag:] += factor * lines[:-lag]
                out[:-lag] += factor * lines[lag:]
        return self.weight * total

    def matrix(self, kernel_shape: Shape) -> "sparse.sparray":
        """Return the matrix whose product with the taps is the gradient."""
        if not self.smooth:
            return self.weight * sparse.eye_array(math.prod(kernel_shape), format="csr")
        rows, cols = map(_squared_differences, kernel_shape)
        return self.weight * sparse.kronsum(cols, rows, format="csr")


def _squared_differences(length: int) -> "sparse.sparray":
    """Return ``D.T @ D`` of the second differences of a line, zeros beyond it."""
    column = np.zeros(max(length, 3))
    column[:3] = 6.0, -4.0, 1.0
    return sparse.csr_array(linalg.toeplitz(column[:length]))


def gcv_weight(
    gram: FloatArray,
    moments: FloatArray,
    energy: float,
    n_pixels: int,
    hidden: float,
    penalty: FloatArray | None = None,
) -> float:
    r"""Choose the weight of a penalty by generalised cross-validation.

    Parameters
    ----------
    gram : (n, n) float64 array
        In squared source units.
    moments : (n,) float64 array
        In source times result units.
    energy : float
        Of the result, in squared result units.
    n_pixels : int
        Pixels of the result, less what was fitted beside the kernel.
    hidden : float
        Residual energy below which rounding hides it, in squared result units.
    penalty : (n, n) float64 array, optional
        The matrix ``P`` that is weighed, positive definite; the identity if None.

    Returns
    -------
    float
        The weight ``w`` in squared source units that has the least

        .. math:: V(w) = \frac{n \|y - X k_w\|^2}
                  {(n - \mathrm{tr}\, X (X^T X + w P)^{-1} X^T)^2}

        among 0, where the equations are regular, and those from rounding of the largest
        eigenvalue to a thousand times it.

    Notes
    -----
    It estimates how well every pixel is foretold by a fit without it [1]_, so it expects noise
    that is independent from pixel to pixel. With ``P = L @ L.T`` the taps ``inv(L.T) @ u`` have
    the penalty ``u @ u``. Cost: one eigendecomposition, ``9 * n**3``, and ``3 * n**3`` for ``L``.

    References
    ----------
    .. [1] G. H. Golub, M. Heath, G. Wahba, "Generalized cross-validation as a method for choosing
       a good ridge parameter", Technometrics 21 (1979) 215-223.
    """
    if penalty is not None:
        lower, _ = lapack.cholesky(penalty)
        gram = lapack.solve_lower(lower, lapack.solve_lower(lower, gram).T)
        moments = lapack.solve_lower(lower, moments[:, None])[:, 0]
    found, vectors = lapack.eigenvectors(gram)
    largest = float(found[-1])
    if not largest > 0:
        return 0.0
    # What rounding makes of a 0 is none: counted, it would pass for pixels that fit themselves.
    rounding = least_eigenvalue(largest, len(gram))
    known = found > rounding
    eigenvalues = found[known]
    explained = (vectors.T @ moments)[known] ** 2 / eigenvalues
    least = max(energy - float(explained.sum()), hidden)

    def score(weights: FloatArray) -> FloatArray:
        lost = weights[:, None] / (eigenvalues + weights[:, None])
        freedom = n_pixels - len(eigenvalues) + lost.sum(axis=1)
        return np.asarray(n_pixels * (least + lost**2 @ explained) / freedom**2)

    # Where the equations are singular, the penalty must make them regular.
    smallest = _EPS * largest if known.all() else _REGULAR * len(gram) ** 0.5 * rounding
    trials = np.geomspace(smallest, _LARGEST * largest, _TRIALS)
    for _ in range(_ROUNDS):
        best = int(np.argmin(score(trials)))
        weight = trials[best : best + 1]
        around = trials[max(best - 1, 0)], trials[min(best + 1, _TRIALS - 1)]
        trials = np.geomspace(*around, _TRIALS)
    regular = len(eigenvalues) == len(gram) < n_pixels
    if regular and score(np.zeros(1))[0] <= score(weight)[0]:
        return 0.0
    return float(weight[0])
