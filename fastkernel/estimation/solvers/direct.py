"""Solvers of the normal equations: matrices in, taps out. They see no pixel."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from fastkernel._machine import lapack
from fastkernel._typing import FloatArray
from fastkernel.estimation.errors import SingularFitError

_EPS = float(np.finfo(np.float64).eps)

# What is said to those who did not ask for one.
RIDGE_HELPS = "ridge= to prefer small taps"


@dataclass(frozen=True, slots=True)
class Factor:
    """The Cholesky factor of a Gram matrix, with what it says of the problem.

    Attributes
    ----------
    lower : (n, n) float64 array
        Lower triangle ``L`` with ``L @ L.T`` the matrix, in units of the source; the rest is zero.
    condition_number : float
        The matrix's condition number in the 1-norm, or an estimate of it.
    basis : (m, n) float64 array or sparse array, or None
        Orthonormal columns that span what constraints leave of ``m`` taps; the matrix is that of
        the coordinates. None where there are no constraints and ``m`` is ``n``.
    """

    lower: FloatArray
    condition_number: float
    basis: "FloatArray | sparse.sparray | None" = None

    def solve(self, moments: FloatArray) -> FloatArray:
        """Return the taps ``x`` with ``H x = moments``, as far as constraints leave them free."""
        if self.basis is None:
            return lapack.solve_factored(self.lower, moments)
        if not len(self.lower):
            return np.zeros(moments.shape)
        return np.asarray(self.basis @ lapack.solve_factored(self.lower, self.basis.T @ moments))

    def inverse_diagonal(self) -> FloatArray:
        """Return the diagonal of the inverse matrix, that of the taps where it has a basis."""
        if not len(self.lower):
            return np.zeros(self.basis.shape[0] if self.basis is not None else 0)
        inverse = lapack.inverse_of_lower(self.lower)
        if isinstance(self.basis, np.ndarray):
            inverse = lapack.product(self.basis, inverse.T).T
        elif self.basis is not None:
            inverse = (self.basis @ inverse.T).T
        return np.asarray((inverse**2).sum(axis=0))


def factorise(gram: FloatArray, ridge_energy: float = 0.0) -> Factor:
    """Factorise a Gram matrix, or say why it determines nothing.

    Parameters
    ----------
    gram : (n, n) float64 array
        Symmetric, in squared source units.
    ridge_energy : float, optional
        Added to its diagonal, in squared source units.

    Returns
    -------
    Factor
        Reusable for any right-hand side.

    Raises
    ------
    SingularFitError
        If the condition number passes ``1 / (n * eps)``: rounding alone would fill the answer.

    References
    ----------
    .. [1] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., SIAM 2002,
       chapters 10 (Cholesky) and 15 (condition estimation).
    """
    n = len(gram)
    matrix = gram if ridge_energy == 0 else gram + ridge_energy * np.eye(n)
    lower, info = lapack.cholesky(matrix)
    reciprocal = lapack.reciprocal_condition(matrix, lower) if info == 0 else 0.0
    if not reciprocal > n * _EPS:
        raise SingularFitError(why_singular(matrix))
    return Factor(lower, 1.0 / reciprocal)


def why_singular(matrix: FloatArray) -> str:
    """Say what the eigenvalues of a singular matrix tell of the source."""
    n = len(matrix)
    eigenvalues = lapack.eigenvalues(matrix)
    least, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    rank = int((eigenvalues > least_eigenvalue(largest, n)).sum())
    if rank <= 1 < n or not largest > 0:
        cause = "the source is flat"
    elif rank < n:
        cause = f"the source tells only {rank} of its {n} taps apart"
    else:
        cause = (
            "its equations are too close to singular, with a condition number of "
            f"{largest / least:.1e}"
        )
    return (
        f"the images do not determine the kernel: {cause}. What helps: a source with more detail "
        "(edges or noise in every direction), more images of the same kernel, a smaller "
        f"kernel_shape, or {RIDGE_HELPS}"
    )


def least_eigenvalue(largest: float, n_taps: int) -> float:
    """Return what rounding of the largest eigenvalue of a Gram matrix may make of one that is 0."""
    return n_taps * _EPS * max(float(largest), 0.0)


def refuse_too_few(n_pixels: int, n_taps: int) -> None:
    """Raise if there are fewer pixels than taps."""
    if n_pixels < n_taps:
        masked = "" if n_pixels else ", once those that are masked are left out"
        msg = (
            f"the images do not determine the kernel: {n_pixels} pixels for {n_taps} taps{masked}. "
            "What helps: larger images, more images of the same kernel, or a smaller kernel_shape"
        )
        raise SingularFitError(msg)
