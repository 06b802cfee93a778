"""Cholesky factors of matrices of some hundred rows, by one thread.

BLAS gives these to several, which wait for each other: where cores are free that gains little, and
where other processes keep them busy it takes many times longer.

A loop checks nothing, allocates no result, starts no thread and calls only this file and what is
written as LLVM's vectors beside it.
"""

import math

from numba.extending import register_jitable

from fastkernel._loops._jit import loop
from fastkernel._loops._lanes import LANES, alike, load, store

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
# No nnan or ninf: a NaN has to stop the factorisation.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})

# Rows whose products are taken off together, and columns: their sums stay in registers.
_ROWS = 4
_COLS = 2 * LANES

# Rows that are found before they are taken off all rows below: of these, the second cache holds
# more than a thousand columns.
_TOGETHER = 32


def room_shape(n: int) -> tuple[int, int]:
    """Return the shape of what a matrix of ``n`` rows is factorised in: whole blocks."""
    rows, cols = -(-n // _ROWS) * _ROWS, -(-n // _COLS) * _COLS
    # Rows a power of two apart would compete for places in the first-level cache.
    return rows, cols + _COLS if cols % 512 == 0 else cols


@register_jitable
def _subtract(room, flat, first, last, row, col):
    """Subtract rows, times what they have in the columns of four rows, from a block of these."""
    apart = room.shape[1] // LANES
    a = (row * room.shape[1] + col) // LANES
    b, c, d = a + apart, a + 2 * apart, a + 3 * apart
    a0, a1, b0, b1 = load(flat, a), load(flat, a + 1), load(flat, b), load(flat, b + 1)
    c0, c1, d0, d1 = load(flat, c), load(flat, c + 1), load(flat, d), load(flat, d + 1)
    for k in range(first, last):
        above, place = room[k], k * apart + col // LANES
        u, v = load(flat, place), load(flat, place + 1)
        x, y = alike(above[row]), alike(above[row + 1])
        z, w = alike(above[row + 2]), alike(above[row + 3])
        a0, a1 = a0 - x * u, a1 - x * v
        b0, b1 = b0 - y * u, b1 - y * v
        c0, c1 = c0 - z * u, c1 - z * v
        d0, d1 = d0 - w * u, d1 - w * v
    store(flat, a, a0)
    store(flat, a + 1, a1)
    store(flat, b, b0)
    store(flat, b + 1, b1)
    store(flat, c, c0)
    store(flat, c + 1, c1)
    store(flat, d, d0)
    store(flat, d + 1, d1)


@_loop
def factorise_upper(matrix, room):
    r"""Write the upper Cholesky factor of a symmetric matrix, zeros below the diagonal.

    Parameters
    ----------
    matrix : (n, n) float64 array
        C order; only the diagonal and what is above it is read.
    room : float64 array
        See `room_shape`; zeros. The factor is written to its beginning, row after row of ``n``.

    Returns
    -------
    int
        The number of the first pivot that is not positive, counted from 1, where the
        factorisation ends; 0 if there is none.

    Notes
    -----
    .. math:: A = U^T U

    Rows are found four at a time and taken off those below, near ones at once, all others by blocks
    of columns when some dozen are found. Cost: ``n**3 / 6`` multiply-adds.
    """
    n, cols, flat = len(matrix), room.shape[1], room.reshape(-1)
    for row in range(n):
        room[row, row:n] = matrix[row, row:]
    for first in range(0, n, _TOGETHER):
        last = min(first + _TOGETHER, n)
        for four in range(first, last, _ROWS):
            end = min(four + _ROWS, last)
            for j in range(four, end):
                row = room[j]
                for k in range(four, j):
                    factor, above = room[k, j], room[k]
                    for i in range(j, n):
                        row[i] -= factor * above[i]
                if not row[j] > 0:
                    return j + 1
                reciprocal = 1 / math.sqrt(row[j])
                for i in range(j, n):
                    row[i] *= reciprocal
            for below in range(end, last, _ROWS):
                for col in range(below // _COLS * _COLS, cols, _COLS):
                    _subtract(room, flat, four, end, below, col)
        for below in range(last, n, _ROWS):
            for col in range(below // _COLS * _COLS, cols, _COLS):
                _subtract(room, flat, first, last, below, col)
    for row in range(n):
        for col in range(row):
            flat[row * n + col] = 0.0
        for col in range(row, n):
            flat[row * n + col] = flat[row * cols + col]
    return 0
