"""Equations of up to some hundred unknowns: their Cholesky factors, and what these tell.

All by the calling thread. BLAS gives such matrices to several, which wait for each other: where
cores are free that gains little, and where other processes keep them busy it takes many times
longer. Of small ones a good part of the time is what a library looks at before it begins.

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

# Columns at which the search for the longest of an inverse looks, at most.
_UPHILL = 5


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
        for col in range(row, n):
            room[row, col] = matrix[row, col]
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


@register_jitable
def _solve(upper, x):
    r"""Solve the equations of a Cholesky factor where their right side stands.

    Parameters
    ----------
    upper : (n, n) float64 array
        C order; nothing below the diagonal is read.
    x : (n,) float64 array
        The right side, overwritten with the solution.

    Notes
    -----
    .. math:: U^T U x = b

    Cost: ``n**2`` multiply-adds.
    """
    n = len(x)
    for i in range(n):
        found, rest, below = x[i] / upper[i, i], upper[i][i + 1 :], x[i + 1 :]
        x[i] = found
        for j in range(len(below)):
            below[j] -= found * rest[j]
    for i in range(n - 1, -1, -1):
        total, rest, below = 0.0, upper[i][i + 1 :], x[i + 1 :]
        for j in range(len(below)):
            total += rest[j] * below[j]
        x[i] = (x[i] - total) / upper[i, i]


# Compiled as it stands: a loop that calls it would compile it twice.
solve_upper = _loop(_solve)


@_loop
def reciprocal_condition(matrix, upper, room):
    r"""Return the inverse of an estimate of a symmetric matrix's condition number in the 1-norm.

    Parameters
    ----------
    matrix : (n, n) float64 array
        C order.
    upper : (n, n) float64 array
        Its Cholesky factor, C order.
    room : (2, n) float64 array
        Overwritten.

    Returns
    -------
    float
        No less than the true one, and most often that.

    Notes
    -----
    The norm of the inverse is that of [1]_, the largest that its product with a vector of length 1
    comes to: the mean of all columns, then, uphill, single ones, and one of alternating signs.
    Cost: ``n**2`` multiply-adds, and as many for each of at most a dozen solutions.

    References
    ----------
    .. [1] N. J. Higham, "FORTRAN codes for estimating the one-norm of a real or complex matrix",
       ACM Trans. Math. Softw. 14 (1988) 381-396, doi:10.1145/50063.214386.
    """
    n, x, signs, norm = len(matrix), room[0], room[1], 0.0
    for i in range(n):
        # Of a symmetric matrix a row is as long as a column.
        row, found = matrix[i], 0.0
        for j in range(len(row)):
            found += abs(row[j])
        norm = max(norm, found)
    largest, column, turn, uphill = 0.0, -1, 0, True
    # At even turns the inverse meets the mean of all columns, or one of them, and at odd ones the
    # signs found there, which tell the next; at last what alternates.
    while True:
        for i in range(n):
            if not uphill:
                x[i] = (1.0 + i / max(n - 1, 1)) * (1.0 if i % 2 == 0 else -1.0)
            elif turn % 2 == 1:
                x[i] = signs[i]
            else:
                x[i] = 1.0 / n if turn == 0 else 1.0 if i == column else 0.0
        _solve(upper, x)
        found = 0.0
        for i in range(n):
            found += abs(x[i])
        if not uphill:
            break
        if turn % 2 == 0:
            turned = False
            for i in range(n):
                sign = 1.0 if x[i] >= 0 else -1.0
                turned = turned or turn == 0 or sign != signs[i]
                signs[i] = sign
            uphill = turned and found > largest
            largest = max(largest, found)
        else:
            steepest = 0
            for i in range(1, n):
                if abs(x[i]) > abs(x[steepest]):
                    steepest = i
            higher = column < 0 or abs(x[steepest]) > abs(x[column])
            uphill = higher and turn < 2 * _UPHILL
            column = steepest
        turn += 1
    return 1.0 / (norm * max(largest, 2.0 * found / (3.0 * n)))


@_loop
def residual_energy(gram, moments, taps, energy):
    r"""Return the squared residual of some taps, by the equations.

    Parameters
    ----------
    gram : (n, n) float64 array
        C order.
    moments, taps : (n,) float64 arrays
    energy : float
        Of the result.

    Notes
    -----
    .. math:: y^T y + k^T (G k - 2 m)

    Cost: ``n**2`` multiply-adds.
    """
    total = energy
    for i in range(len(taps)):
        row, change = gram[i], -2.0 * moments[i]
        for j in range(len(row)):
            change += row[j] * taps[j]
        total += taps[i] * change
    return total


@_loop
def solve_shifts(by_shift, moments_by_shift, energy, gram, moments, upper, room, taps):
    r"""Solve the equations that sums over pixels make, with what tells how well.

    Parameters
    ----------
    by_shift, moments_by_shift : (n, n) and (n,) float64 arrays
        Products of the source with itself and with the result, in the order of shifts.
    energy : float
        Of the result.
    gram, moments : (n, n) and (n,) float64 arrays
        Overwritten with the same in the order of taps, which a convolution turns round.
    upper : (n, n) float64 array
        Overwritten with the Cholesky factor, C order.
    room : (n + 1, n) float64 array
        Overwritten.
    taps : (n,) float64 array
        Overwritten with the solution; without meaning where there is none.

    Returns
    -------
    (float, float)
        The inverse of the condition number in the 1-norm, 0 where there is no factor, and the
        energy of the residual.

    Notes
    -----
    .. math:: G = U^T U, \quad k = U^{-1} U^{-T} m, \quad
              \|y - X k\|^2 = y^T y + k^T (G k - 2 m)

    Cost: ``n**3 / 2`` multiply-adds.
    """
    n = len(taps)
    for i in range(n):
        moments[i] = moments_by_shift[n - 1 - i]
        line, turned = gram[i], by_shift[n - 1 - i]
        for j in range(n):
            line[j] = turned[n - 1 - j]
    for i in range(n):
        for j in range(n):
            upper[i, j] = gram[i, j] if j >= i else 0.0
    for i in range(n):
        row = upper[i][i:]
        if not row[0] > 0:
            return 0.0, energy
        reciprocal = 1 / math.sqrt(row[0])
        for j in range(len(row)):
            row[j] *= reciprocal
        for k in range(1, len(row)):
            factor, rest, below = row[k], row[k:], upper[i + k][i + k :]
            for j in range(len(below)):
                below[j] -= factor * rest[j]
    # The inverse of the factor, a row from those below it.
    for i in range(n - 1, -1, -1):
        own, reciprocal = room[i][i:], 1 / upper[i, i]
        for j in range(len(own)):
            own[j] = 0.0
        for k in range(i + 1, n):
            factor, rest, below = upper[i, k] * reciprocal, own[k - i :], room[k][k:]
            for j in range(len(below)):
                rest[j] -= factor * below[j]
        own[0] = reciprocal
    sums, norm, of_inverse, left = room[n], 0.0, 0.0, energy
    for i in range(n):
        sums[i] = 0.0
    for i in range(n):
        row, below, moment = room[i][i:], sums[i:], moments[i]
        for j in range(len(row)):
            below[j] += moment * row[j]
    for i in range(n):
        row, below, tap = room[i][i:], sums[i:], 0.0
        for j in range(len(row)):
            tap += row[j] * below[j]
        taps[i] = tap
    for i in range(n):
        sums[i] = 0.0
    for i in range(n):
        row, size, change = gram[i], 0.0, -2.0 * moments[i]
        for j in range(n):
            size += abs(row[j])
            change += row[j] * taps[j]
        norm, left = max(norm, size), left + taps[i] * change
        for j in range(i, n):
            one, other, entry = room[i][j:], room[j][j:], 0.0
            for k in range(len(other)):
                entry += one[k] * other[k]
            sums[i] += abs(entry)
            sums[j] += abs(entry) if j > i else 0.0
    for i in range(n):
        of_inverse = max(of_inverse, sums[i])
    return 1.0 / (norm * of_inverse), left
