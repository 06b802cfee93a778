"""LAPACK on large matrices, without holding the GIL and without holding up Ctrl-C.

SciPy's wrappers hold the GIL for as long as LAPACK works, a minute for a few thousand rows. Large
matrices go to the same routines of the same library by the pointers that SciPy publishes for
compiled code, `scipy.linalg.cython_lapack`, with the arguments of the wrappers: the answers are
theirs, bit for bit. `ctypes` releases the GIL, and `tiles.wait_for` hears Ctrl-C.

BLAS gives all but the smallest work to threads of its own, which go on looking for more when it is
done: for some hundredths of a second they take a core from the loops of the next call. So what a
fit does with matrices of up to some hundred rows comes from loops of our own.
"""

import ctypes
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeAlias

import numpy as np
from scipy import linalg
from scipy.linalg import cython_lapack, lapack

from fastkernel._loops import equations as loops
from fastkernel._machine.tiles import aligned_zeros, wait_for
from fastkernel._typing import FloatArray

# Rows up to which the wrappers are done in less than a tenth of a second: of what takes the time
# of a few products of matrices, and of what takes that of many.
_FEW, _MANY = 512, 256

# Rows up to which BLAS keeps to one thread where it factorises, and where it solves; up to which
# loops of our own do both; and multiply-adds of a product up to which it keeps to one.
_ONE_THREAD, _SOLVED, _OWN = 120, 96, 1536
_PRODUCT = 1 << 18

_Argument: TypeAlias = str | int | float | FloatArray | Any


def cholesky(matrix: FloatArray) -> tuple[FloatArray, int]:
    """Return the lower Cholesky factor of a symmetric matrix, and 0 if there is one."""
    n = len(matrix)
    # Turned over it is the same, in the order that LAPACK reads.
    if n <= _ONE_THREAD:
        lower, info = lapack.dpotrf(matrix.T, lower=1, clean=1)
        return lower, int(info)
    if n <= _OWN:
        room = aligned_zeros(math.prod(loops.room_shape(n)), np.dtype(np.float64))
        given = np.asarray(matrix, np.float64, order="C")
        info = int(loops.factorise_upper(given, room.reshape(loops.room_shape(n))))
        return room[: n * n].reshape(n, n).T, info
    lower = np.array(matrix.T, np.float64, order="F")
    info = _call("dpotrf", "L", n, lower, n)
    for column in range(1, n):
        lower[:column, column] = 0
    return lower, info


def reciprocal_condition(matrix: FloatArray, lower: FloatArray) -> float:
    """Return the inverse of an estimate of a symmetric matrix's condition number in the 1-norm.

    Parameters
    ----------
    matrix : (n, n) float64 array
    lower : (n, n) float64 array
        Its Cholesky factor, by `cholesky`.
    """
    n = len(matrix)
    if _SOLVED < n <= _OWN:
        given, upper = (np.asarray(part, np.float64, order="C") for part in (matrix, lower.T))
        return float(loops.reciprocal_condition(given, upper, np.empty((2, n))))
    norm = lapack.dlange("1", matrix.T)
    return float(lapack.dpocon(lower, norm, uplo="L")[0])


def solve_factored(lower: FloatArray, right: FloatArray) -> FloatArray:
    """Return the solution of the equations of a Cholesky factor, (n,) or a column for each."""
    if right.ndim == 1 and _SOLVED < len(right) <= _OWN:
        found = np.array(right, np.float64)
        loops.solve_upper(np.asarray(lower.T, np.float64, order="C"), found)
        return found
    return np.asarray(lapack.dpotrs(lower, right, lower=1)[0])


def residual_energy(
    gram: FloatArray, moments: FloatArray, energy: float, taps: FloatArray
) -> float:
    """Return the squared residual of some taps, ``energy + taps @ (gram @ taps - 2 * moments)``."""
    if _SOLVED < len(taps) <= _OWN:
        parts = (np.asarray(part, np.float64, order="C") for part in (gram, moments, taps))
        return float(loops.residual_energy(*parts, float(energy)))
    return float(energy + taps @ (gram @ taps - 2 * moments))


def narrow_product(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return ``a @ b``, so many columns at a time that BLAS keeps to the calling thread."""
    (m, k), n = a.shape, b.shape[1]
    out, step = np.empty((m, n)), max(1, _PRODUCT // max(m * k, 1))
    for start in range(0, n, step):
        np.matmul(a, b[:, start : start + step], out=out[:, start : start + step])
    return out


def inverse_of_lower(lower: FloatArray) -> FloatArray:
    """Return the inverse of a regular lower triangle."""
    n = len(lower)
    if n <= _FEW:
        return np.asarray(lapack.dtrtri(lower, lower=1)[0])
    inverse = np.array(lower, np.float64, order="F")
    _call("dtrtri", "L", "N", n, inverse, n)
    return inverse


def solve_lower(lower: FloatArray, right: FloatArray) -> FloatArray:
    """Return the solution of a regular lower triangle, one column for each on the right."""
    n, columns = right.shape
    if max(n, columns) <= _FEW:
        return np.asarray(linalg.solve_triangular(lower, right, lower=True, check_finite=False))
    triangle, found = np.asfortranarray(lower), np.array(right, np.float64, order="F")
    _call("dtrtrs", "L", "N", "N", n, columns, triangle, n, found, n)
    return found


def rank(matrix: FloatArray, least: float) -> int:
    """Return the rank of a positive semidefinite matrix: its pivots above ``least``."""
    n = len(matrix)
    if n <= _FEW:
        return int(lapack.dpstrf(matrix, tol=least, lower=1)[2])
    lower, pivots, found = np.array(matrix, np.float64, order="F"), _ints(n), ctypes.c_int(0)
    _call("dpstrf", "L", n, lower, n, pivots, found, float(least), np.empty(2 * n))
    return found.value


def eigenvalues(matrix: FloatArray) -> FloatArray:
    """Return the eigenvalues of a symmetric matrix, in ascending order."""
    if len(matrix) <= _MANY:
        return np.asarray(linalg.eigvalsh(matrix, check_finite=False))
    return _eigen(matrix, "N")[0]


def eigenvectors(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the eigenvalues of a symmetric matrix, in ascending order, and their vectors."""
    if len(matrix) <= _MANY:
        values, vectors = linalg.eigh(matrix, check_finite=False)
        return np.asarray(values), np.asarray(vectors)
    return _eigen(matrix, "V")


def _eigen(matrix: FloatArray, job: str) -> tuple[FloatArray, FloatArray]:
    n = len(matrix)
    left, found = np.array(matrix, np.float64, order="F"), ctypes.c_int(0)
    values, vectors = np.empty(n), np.empty((n, n) if job == "V" else (1, 1), order="F")
    size, int_size, _ = lapack.dsyevr_lwork(n, lower=1)
    info = _call(
        "dsyevr",
        *(job, "A", "L", n, left, n, 0.0, 1.0, 1, n, 0.0),
        *(found, values, vectors, len(vectors), _ints(2 * n)),
        *(np.empty(int(size)), int(size), _ints(int(int_size)), int(int_size)),
    )
    if info:
        msg = f"the eigenvalues of a matrix of {n} rows were not found (dsyevr: {info})"
        raise linalg.LinAlgError(msg)
    return values, vectors


def singular_values(matrix: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the singular value decomposition of a square matrix: ``u``, ``s``, ``v.T``."""
    n = len(matrix)
    if n <= _MANY:
        left, values, right = linalg.svd(matrix, check_finite=False)
        return np.asarray(left), np.asarray(values), np.asarray(right)
    given, values = np.array(matrix, np.float64, order="F"), np.empty(n)
    left, right = np.empty((n, n), order="F"), np.empty((n, n), order="F")
    size = int(lapack.dgesdd_lwork(n, n, compute_uv=1, full_matrices=1)[0])
    info = _call(
        "dgesdd",
        *("A", n, n, given, n, values, left, n, right, n),
        *(np.empty(size), size, _ints(8 * n)),
    )
    if info:
        msg = f"the singular values of a matrix of {n} rows were not found (dgesdd: {info})"
        raise linalg.LinAlgError(msg)
    return left, values, right


def product(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return ``a @ b``."""
    if max(*a.shape, *b.shape) <= _FEW:
        return np.asarray(a @ b)
    return np.asarray(wait_for(partial(np.matmul, a, b), abandon=True))


def _ints(n: int) -> Any:
    """Return room for what LAPACK calls integers."""
    return np.zeros(n, np.intc)


@cache
def _routine(name: str) -> Callable[..., None]:
    """Return a routine of LAPACK, which takes the addresses of all of its arguments."""
    capsule = cython_lapack.__pyx_capi__[name]
    name_of, pointer_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.CFUNCTYPE(None)(pointer_of(capsule, name_of(capsule)))


def _call(name: str, *arguments: _Argument) -> int:
    """Call a routine with letters, numbers and arrays in Fortran's order; return its ``info``.

    Interrupted, it goes on and holds all of its arguments.
    """
    info = ctypes.c_int(0)
    passed = [*map(_passed, arguments), info]
    addresses = [
        ctypes.c_void_p(one.ctypes.data) if isinstance(one, np.ndarray) else ctypes.byref(one)
        for one in passed
    ]
    routine = _routine(name)

    def work(held: list[Any] = passed) -> None:  # noqa: ARG001
        routine(*addresses)

    wait_for(work, abandon=True)
    return info.value


def _passed(argument: _Argument) -> Any:
    """Return something of which LAPACK can be given the address."""
    match argument:
        case str():
            return ctypes.c_char(argument.encode())
        case int():
            return ctypes.c_int(argument)
        case float():
            return ctypes.c_double(argument)
        case _:
            return argument
