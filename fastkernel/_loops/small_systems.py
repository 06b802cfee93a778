"""Many small systems of normal equations, gathered and solved one after the other.

A loop checks nothing, allocates no result, starts no thread and calls only this file and the
vectors of `_lanes`.
"""

import numpy as np
from numba.extending import register_jitable

from fastkernel._loops._jit import loop
from fastkernel._loops._lanes import LANES, alike, load, root, size, store, where_positive

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


# Sums that are mixed at a time: of a dozen systems they fill half of a first-level cache.
_MIXED = 128


@_loop
def gather_answers(x, features, y, kernel_shape, grams):
    r"""Gather the products of many small images with what is to explain them.

    Parameters
    ----------
    x : (n, >= height + p - 1, >= width + q - 1) float64 or int16 array
        The sources, C order.
    features : (k, height, width) float64 array
        Polynomials of the background, C order.
    y : (n, >= height, >= width) array of x's dtype
        The results, C order.
    kernel_shape : (int, int)
        ``(p, q)``.
    grams : (n, m + 1, m + 1) float64 array
        With ``m = p * q + k``; the last columns but one are overwritten above the diagonal, the
        last one below the taps.

    Notes
    -----
    .. math:: \sum_t f_{kt}\, x_{t+a}, \quad \sum_t f_{kt} f_{lt}, \quad
              \sum_t f_{kt}\, y_t, \quad \sum_t y_t^2

    Cost: ``k * (p * q + (k + 3) / 2) + 1`` multiply-adds a pixel.
    """
    p, q = kernel_shape
    n_features, height, width = features.shape
    taps = p * q
    last = taps + n_features
    for s in range(len(x)):
        image, result, gram = x[s], y[s], grams[s]
        for k in range(n_features):
            for i in range(p):
                for j in range(q):
                    total = 0.0
                    for r in range(height):
                        row, pixels = features[k, r], image[r + i][j : j + width]
                        for c in range(width):
                            total += row[c] * pixels[c]
                    gram[i * q + j, taps + k] = total
            for other in range(k, n_features):
                total = 0.0
                for r in range(height):
                    row, beside = features[k, r], features[other, r]
                    for c in range(width):
                        total += row[c] * beside[c]
                gram[taps + k, taps + other] = total
            total = 0.0
            for r in range(height):
                row, pixels = features[k, r], result[r][:width]
                for c in range(width):
                    total += row[c] * pixels[c]
            gram[taps + k, last] = total
        total = 0.0
        for r in range(height):
            pixels = result[r][:width]
            for c in range(width):
                total += np.float64(pixels[c]) * np.float64(pixels[c])
        gram[last, last] = total


@_loop
def solve_stack(grams, taps, ridge, work, answers, errors, numbers):
    r"""Solve a stack of normal equations by Cholesky factors, with what these tell.

    Parameters
    ----------
    grams : (n, m + 1, m + 1) float64 array
        The upper triangles of the products of all columns of design matrices, those of the taps
        first, and of the results, which come last; C order.
    taps : int
        Columns of the kernel.
    ridge : float
        Added to the diagonal of the taps.
    work : `work_shape` float64 array
        Overwritten.
    answers : (n, m) float64 array
        Overwritten with the least-squares solutions, by column; without meaning where there is
        none.
    errors : (n, taps) float64 array
        Overwritten with the diagonals of the inverses.
    numbers : (n, 3) float64 array
        Overwritten with the energy of the residual, the condition number in the 1-norm (infinite
        where a pivot is not positive), and the energy of the result.

    Notes
    -----
    .. math:: L L^T = G + \lambda I, \quad k = L^{-T} L^{-1} m, \quad
              \|y - X k\|^2 = y^T y - m^T k - \lambda \|k\|^2

    As many systems as a vector has lanes are solved at a time. Cost: ``m**3 / 2`` multiply-adds.
    """
    n, m = len(grams), grams.shape[1] - 1
    for first in range(0, n, LANES):
        # The last ones stand in the lanes that are left over, too.
        for lane in range(LANES):
            gram = grams[min(first + lane, n - 1)]
            for i in range(m + 1):
                for j in range(i, m + 1):
                    work[0, i, j, lane] = gram[i, j]
            for i in range(taps):
                work[0, i, i, lane] += ridge
        _solve_lanes(work, m)
        for lane in range(min(LANES, n - first)):
            gram, k, found = grams[first + lane], answers[first + lane], numbers[first + lane]
            energy, largest, norm = gram[m, m], 0.0, 0.0
            for i in range(m):
                k[i] = work[1, m, i, lane]
                energy -= k[i] * gram[i, m]
                norm = max(norm, work[0, m, i, lane])
                largest = max(largest, work[2, m, i, lane])
                if i < taps:
                    energy -= ridge * k[i] * k[i]
                    errors[first + lane, i] = work[2, i, i, lane]
            regular = work[1, m, m, lane] > 0.0
            found[0] = energy if regular else gram[m, m]
            found[1] = norm * largest if regular else np.inf
            found[2] = gram[m, m]


def work_shape(unknowns: int) -> tuple[int, int, int, int]:
    """Return the shape of what `solve_stack` works in."""
    return 3, unknowns + 1, unknowns + 1, LANES


@register_jitable
def _solve_lanes(work, m):
    """Solve the systems in the lanes of ``work[0]``.

    Leaves the solution in ``work[1, m]``, whether there is one behind it, the diagonal of the
    inverse in ``work[2]``, and the sums of the columns of both matrices in ``work[0, m]`` and
    ``work[2, m]``.
    """
    one, zero, step = alike(1.0), alike(0.0), m + 1
    # Rows of the matrix, of its factor (the diagonal inverted), of the factor's inverse turned.
    matrix, lower, inverse = work[0], work[1], work[2]
    # What a matrix has below its last row is not used otherwise.
    for i in range(m):
        total = zero
        for j in range(m):
            total = total + size(load(matrix, min(i, j) * step + max(i, j)))
        store(matrix, m * step + i, total)
    regular = one
    for i in range(m):
        for j in range(i + 1):
            value = load(matrix, j * step + i)
            for c in range(j):
                value = value - load(lower, i * step + c) * load(lower, j * step + c)
            if i == j:
                regular = where_positive(value, regular, zero)
                value = one / root(where_positive(value, value, one))
            else:
                value = value * load(lower, j * step + j)
            store(lower, i * step + j, value)
    for j in range(m):
        for i in range(j, m):
            value = one if i == j else zero
            for c in range(j, i):
                value = value - load(lower, i * step + c) * load(inverse, j * step + c)
            store(inverse, j * step + i, value * load(lower, i * step + i))
        store(lower, m * step + j, zero)
        store(inverse, m * step + j, zero)
    for i in range(m):
        own, sums, solved = load(matrix, i * step + m), zero, load(lower, m * step + i)
        for j in range(i + 1):
            value = zero
            for c in range(i, m):
                value = value + load(inverse, i * step + c) * load(inverse, j * step + c)
            sums, solved = sums + size(value), solved + value * load(matrix, j * step + m)
            if j < i:
                beside, place = load(lower, m * step + j), m * step + j
                store(lower, place, beside + value * own)
                store(inverse, place, load(inverse, place) + size(value))
            else:
                # No later row reads it.
                store(inverse, i * step + i, value)
        store(lower, m * step + i, solved)
        store(inverse, m * step + i, sums)
    store(lower, m * step + m, regular)


@_loop
def mix_stack(weights, grams, out):
    r"""Add mixtures of symmetric matrices to accumulators.

    Parameters
    ----------
    weights : (k, n) float64 array
        C order.
    grams : (n, m, m) float64 array
        Read above the diagonal and on it, C order.
    out : (k, m, m) float64 array
        Updated in place above the diagonal and on it, C order.

    Notes
    -----
    .. math:: \mathrm{out}_k \mathrel{+}= \sum_n w_{kn} G_n

    Cost: ``n * k`` multiply-adds an entry, of which as many as stay in the first cache are added
    to at a time.
    """
    (k, n), m = weights.shape, grams.shape[1]
    for i in range(m):
        for start in range(i, m, _MIXED):
            stop = min(start + _MIXED, m)
            for mixture in range(k):
                total, own = out[mixture, i, start:stop], weights[mixture]
                for first in range(0, n - 3, 4):
                    a, b, c, d = own[first], own[first + 1], own[first + 2], own[first + 3]
                    if a != 0.0 or b != 0.0 or c != 0.0 or d != 0.0:
                        one, two = grams[first, i, start:stop], grams[first + 1, i, start:stop]
                        three, four = (
                            grams[first + 2, i, start:stop],
                            grams[first + 3, i, start:stop],
                        )
                        for j in range(stop - start):
                            total[j] += a * one[j] + b * two[j] + (c * three[j] + d * four[j])
                for last in range(n - n % 4, n):
                    weight, row = own[last], grams[last, i, start:stop]
                    for j in range(stop - start):
                        total[j] += weight * row[j]
