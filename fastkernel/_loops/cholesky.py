"""Cholesky factors of matrices of some hundred rows, by one thread.

BLAS gives these to several, which wait for each other: where cores are free that gains nothing, and
where other processes keep them busy it takes many times longer.

A loop checks nothing, allocates no result, starts no thread and calls only this file.
"""

import math

from numba.extending import register_jitable

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
# No nnan or ninf: a NaN has to stop the factorisation.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})

# Rows that are read together, which the first-level cache holds.
_TOGETHER = 4


@register_jitable
def _subtract(matrix, above, first, row, other):
    """Subtract four rows, times what they have in its column, from a row, and from another."""
    a, b = matrix[above, first:], matrix[above + 1, first:]
    c, d = matrix[above + 2, first:], matrix[above + 3, first:]
    x, y = matrix[row, first:], matrix[other, first:]
    i, j = row - first, other - first
    xa, xb, xc, xd = a[i], b[i], c[i], d[i]
    ya, yb, yc, yd = a[j], b[j], c[j], d[j]
    for k in range(x.size):
        s, t, u, v = a[k], b[k], c[k], d[k]
        x[k] -= xa * s + xb * t + xc * u + xd * v
        y[k] -= ya * s + yb * t + yc * u + yd * v


@_loop
def factorise_upper(matrix):
    r"""Overwrite a symmetric matrix with its upper Cholesky factor, zeros below the diagonal.

    Parameters
    ----------
    matrix : (n, n) float64 array
        C order; only the diagonal and what is above it is read.

    Returns
    -------
    int
        The number of the first pivot that is not positive, counted from 1, where the
        factorisation ends; 0 if there is none.

    Notes
    -----
    .. math:: A = U^T U

    Rows are found four at a time, from all rows above. Cost: ``n**3 / 6`` multiply-adds.
    """
    n = len(matrix)
    for first in range(0, n, _TOGETHER):
        last = min(first + _TOGETHER, n)
        # The last rows are too short to be found together.
        known = first if last - first == _TOGETHER else 0
        for above in range(0, known, _TOGETHER):
            for row in range(first, last, 2):
                _subtract(matrix, above, first, row, row + 1)
        for j in range(first, last):
            row = matrix[j]
            for k in range(known, j):
                factor, above_row = matrix[k, j], matrix[k]
                for i in range(j, n):
                    row[i] -= factor * above_row[i]
            if not row[j] > 0:
                return j + 1
            pivot = math.sqrt(row[j])
            for i in range(j, n):
                row[i] /= pivot
            row[:j] = 0.0
    return 0
