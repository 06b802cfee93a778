"""Orthonormal columns that span the kernels to choose from: those of a symmetry, or any given.

A kernel is the columns times its coordinates, and as long as them: a ridge on the coordinates is
one on the taps, the shortest coordinates are those of the shortest kernel.
"""

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from fastkernel._images.checks import refuse_non_finite
from fastkernel._images.masks import unmasked
from fastkernel._machine import lapack
from fastkernel._typing import FloatArray, Shape

# One row a tap, one orthonormal column a coordinate.
Basis: TypeAlias = FloatArray | sparse.csr_array

_EPS = float(np.finfo(np.float64).eps)
_NAMED = 5


def tap_groups(kernel_shape: Shape, symmetric: str | None) -> NDArray[np.int64]:
    """Return for every tap the number of the group of taps that it equals.

    Examples
    --------
    >>> tap_groups((1, 5), "even")
    array([0, 1, 2, 1, 0])
    >>> tap_groups((3, 2), "up_down").reshape(3, 2)
    array([[0, 1],
           [2, 3],
           [0, 1]])
    """
    numbers = np.arange(math.prod(kernel_shape)).reshape(kernel_shape)
    if symmetric is not None:
        numbers = np.minimum.reduce(_images(numbers, symmetric))
    return np.unique(numbers.ravel(), return_inverse=True)[1].astype(np.int64)


def _images(array: NDArray[np.int64], symmetric: str) -> list[NDArray[np.int64]]:
    """Return all images of an array under the turns and mirrors of a symmetry."""
    match symmetric:
        case "even":
            return [array, np.rot90(array, 2)]
        case "left_right":
            return [array, np.fliplr(array)]
        case "up_down":
            return [array, np.flipud(array)]
        case "mirror":
            return [array, np.fliplr(array), np.flipud(array), np.rot90(array, 2)]
    turned = [np.rot90(array, quarters) for quarters in range(4)]
    return turned if symmetric == "rotation" else [*turned, *(one.T for one in turned)]


def symmetric_basis(kernel_shape: Shape, symmetric: str) -> "sparse.csr_array":
    """Return orthonormal columns that span the kernels of a symmetry.

    Parameters
    ----------
    kernel_shape : (int, int)
        ``(p, q)``.
    symmetric : str
        One of `options.SYMMETRIES`.

    Returns
    -------
    (p * q, n) sparse array
        One entry a row, the same for taps that are equal: so are the products, bit for bit.
    """
    groups = tap_groups(kernel_shape, symmetric)
    entries = 1 / np.sqrt(np.bincount(groups))[groups]
    return sparse.csr_array((entries, (np.arange(groups.size), groups)))


def orthonormal_basis(value: Any) -> FloatArray:
    """Return orthonormal columns that span the kernels that the columns of ``value`` do.

    Parameters
    ----------
    value : (n, b) array_like of real numbers
        One row a tap, one kernel a column, of any lengths.

    Returns
    -------
    (n, b) float64 array
        By a QR decomposition with pivoting, of columns whose largest entries are made 1.

    Raises
    ------
    TypeError
        If ``value`` does not hold real numbers, or is masked.
    ValueError
        If it is no matrix, an entry is not finite, or columns are sums of others to rounding.
    """
    if sparse.issparse(value):
        msg = f"basis must be a NumPy array, got a {type(value).__name__}; pass basis.toarray()"
        raise TypeError(msg)
    given = unmasked(value, "basis", "fill it: every tap of a basis is a number")
    if given.dtype.kind not in "biuf":
        msg = f"basis must hold real numbers, got dtype {given.dtype}; a kernel has real taps"
        raise TypeError(msg)
    if given.ndim != 2 or not given.size:
        msg = (
            "basis must have shape (p * q, b), one row a tap in C order of the kernel and at "
            f"least one column, got shape {given.shape}; kernels stacked as (b, p, q) are "
            "stack.reshape(b, -1).T"
        )
        raise ValueError(msg)
    columns = given.astype(np.float64)
    refuse_non_finite("basis", columns, advice="leave that column out")
    # By the largest entries, for squares might overflow or vanish.
    sizes = np.abs(columns).max(axis=0)
    columns /= np.where(sizes > 0, sizes, 1.0)
    found, upper, order = linalg.qr(columns, mode="economic", pivoting=True, check_finite=False)
    pivots = np.abs(np.diag(upper))
    rank = int((pivots > max(columns.shape) * _EPS * pivots[0]).sum())
    if rank < columns.shape[1]:
        dependent = sorted(order[rank:].tolist())
        named = ", ".join(map(str, dependent[:_NAMED])) + ", ..." * (len(dependent) > _NAMED)
        msg = (
            f"basis must have independent columns; {len(dependent)} of its {columns.shape[1]} are "
            f"sums of the others to rounding (numbers {named}): leave them out"
        )
        raise ValueError(msg)
    return np.ascontiguousarray(found)


def reduced(matrix: FloatArray, basis: Basis | None) -> FloatArray:
    """Return a quadratic form of the taps as one of the coordinates, ``basis.T @ H @ basis``."""
    if basis is None:
        return matrix
    if isinstance(basis, np.ndarray):
        return lapack.product(basis.T, lapack.product(matrix, basis))
    return np.asarray(basis.T @ (basis.T @ matrix).T)
