"""Lagged products: the sums over pixels from which the normal equations are assembled.

A loop checks nothing, allocates no result, starts no thread and calls only this file. Scratch
rows are C-ordered float32 or float64. In float32 a row of whole numbers is summed exactly while
its total stays below 2**24 (`normal.py` chooses the width of a tile so); every row sum joins a
float64 accumulator.
"""

from numba import njit

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
# No nnan or ninf, so a NaN pixel reaches the sums, where the caller finds it.
_loop = njit(
    nogil=True,
    cache=True,
    error_model="numpy",
    fastmath={"reassoc", "contract", "arcp", "nsz"},
)


@_loop
def _dot_1(v, rows, first, step, out):
    """Add the dot product of ``v`` with one row to ``out[0]``."""
    r0 = rows[first][: v.size]
    zero = v.dtype.type(0)
    s0 = zero
    for c in range(v.size):
        s0 += v[c] * r0[c]
    out[0] += s0


@_loop
def _dot_2(v, rows, first, step, out):
    """Add the dot products of ``v`` with two rows to ``out[:2]``."""
    r0 = rows[first][: v.size]
    r1 = rows[first + step][: v.size]
    zero = v.dtype.type(0)
    s0 = s1 = zero
    for c in range(v.size):
        x = v[c]
        s0 += x * r0[c]
        s1 += x * r1[c]
    out[0] += s0
    out[1] += s1


@_loop
def _dot_4(v, rows, first, step, out):
    """Add the dot products of ``v`` with four rows to ``out[:4]``."""
    r0 = rows[first][: v.size]
    r1 = rows[first + step][: v.size]
    r2 = rows[first + 2 * step][: v.size]
    r3 = rows[first + 3 * step][: v.size]
    zero = v.dtype.type(0)
    s0 = s1 = s2 = s3 = zero
    for c in range(v.size):
        x = v[c]
        s0 += x * r0[c]
        s1 += x * r1[c]
        s2 += x * r2[c]
        s3 += x * r3[c]
    out[0] += s0
    out[1] += s1
    out[2] += s2
    out[3] += s3


@_loop
def _dot_6(v, rows, first, step, out):
    """Add the dot products of ``v`` with six rows to ``out[:6]``."""
    r0 = rows[first][: v.size]
    r1 = rows[first + step][: v.size]
    r2 = rows[first + 2 * step][: v.size]
    r3 = rows[first + 3 * step][: v.size]
    r4 = rows[first + 4 * step][: v.size]
    r5 = rows[first + 5 * step][: v.size]
    zero = v.dtype.type(0)
    s0 = s1 = s2 = s3 = s4 = s5 = zero
    for c in range(v.size):
        x = v[c]
        s0 += x * r0[c]
        s1 += x * r1[c]
        s2 += x * r2[c]
        s3 += x * r3[c]
        s4 += x * r4[c]
        s5 += x * r5[c]
    out[0] += s0
    out[1] += s1
    out[2] += s2
    out[3] += s3
    out[4] += s4
    out[5] += s5


@_loop
def _dots(v, rows, first, step, count, out):
    """Add the dot products of ``v`` with ``count`` rows to ``out[:count]``."""
    i = 0
    while count - i >= 6:
        _dot_6(v, rows, first + i * step, step, out[i:])
        i += 6
    if count - i >= 4:
        _dot_4(v, rows, first + i * step, step, out[i:])
        i += 4
    if count - i >= 2:
        _dot_2(v, rows, first + i * step, step, out[i:])
        i += 2
    if count - i == 1:
        _dot_1(v, rows, first + i * step, step, out[i:])


@_loop
def add_tile(rows, height, width, p, q, ahead, behind):
    R = height
    for u in range(R + p - 1):
        low = max(0, u - p + 1)
        high = min(u, R - 1)
        for j in range(q):
            v = rows[2 * u][j : j + width]
            _dots(v, rows, 2 * low, 1, 2 * (high - low + 1), ahead[j, 2 * (low - u + p - 1) :])
            if j > 0 and u < R:
                _dots(v, rows, 2 * (u + 1), 2, p - 1, behind[j])
