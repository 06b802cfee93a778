"""Sums over residuals whose absolute values are to be small.

A loop checks nothing, allocates no result, starts no thread and calls only this file.
"""

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})

# Rows and columns of a block of `add_products`: 16 sums under way keep the multipliers busy.
BLOCK = 4


@_loop
def clip_residual(y, convolved, delta, residual):
    r"""Replace a tile of the result by its residual, divided by ``delta`` and clipped.

    Parameters
    ----------
    y : (height, >= width) float64 array
        The result, C order; overwritten with numbers from -1 to 1.
    convolved : (height, width) float64 array
        What is to explain it, C order.
    delta : float
        Positive, in result units.
    residual : (height, width) float64 array
        Overwritten with result less convolution, C order.

    Returns
    -------
    total : float
        Sum of the absolute residual.
    smooth : float
        The same with ``r**2 / (2 * delta) + delta / 2`` for residuals less than ``delta``.
    energy : float
        Sum of the squared residual.
    count : int
        How many are less than ``delta``.

    Notes
    -----
    Cost: a few operations a pixel.
    """
    total, smooth, energy, count = 0.0, 0.0, 0.0, 0
    inverse = 1.0 / delta
    for r in range(convolved.shape[0]):
        row, model, left = y[r], convolved[r], residual[r]
        for c in range(convolved.shape[1]):
            value = row[c] - model[c]
            size = abs(value)
            left[c] = value
            row[c] = min(max(value * inverse, -1.0), 1.0)
            total += size
            energy += value * value
            inside = size < delta
            smooth += 0.5 * (size * size * inverse + delta) if inside else size
            count += 1 if inside else 0
    return total, smooth, energy, count


@_loop
def collect_rows(x, residual, kernel_shape, delta, outside, start, rows):
    r"""Collect weighted rows of the design matrix, one a column, until ``rows`` is full.

    Parameters
    ----------
    x : (>= height + p - 1, >= width + q - 1) float64 array
        The source under a tile, C order.
    residual : (height, width) float64 array
        The tile's, C order.
    kernel_shape : (int, int)
        ``(p, q)``.
    delta : float
        Rows of residuals less than this have weight 1,
    outside : bool
        and the others ``delta / |residual|``, or none.
    start : int
        Pixel of the tile, row by row, to begin with.
    rows : (>= p * q, n) float64 array
        Overwritten in the first ``count`` columns, with shifts in C order.

    Returns
    -------
    next : int
        The pixel to go on with.
    count : int
        Columns that were written.

    Notes
    -----
    Cost: ``p * q`` copies a row of weight.
    """
    p, q = kernel_shape
    height, width = residual.shape
    count, place = 0, start
    while place < height * width and count < rows.shape[1]:
        r, c = place // width, place % width
        size = abs(residual[r, c])
        if size < delta or outside:
            weight = 1.0 if size < delta else (delta / size) ** 0.5
            for i in range(p):
                for j in range(q):
                    rows[i * q + j, count] = weight * x[r + i, c + j]
            count += 1
        place += 1
    return place, count


@_loop
def add_products(rows, count, out):
    r"""Add the products of all pairs of rows to the upper triangle of ``out``.

    Parameters
    ----------
    rows : (n, >= count) float64 array
        ``n`` a multiple of `BLOCK`, C order.
    count : int
        Columns to sum over.
    out : (n, n) float64 array
        Accumulator, updated in place; below the diagonal only inside its blocks.

    Notes
    -----
    .. math:: \mathrm{out}_{ij} \mathrel{+}= \sum_c a_{ic}\, a_{jc}

    Cost: ``n * (n + 4) / 2`` multiply-adds a column. The answer does not depend on threads, as
    that of a library for linear algebra may.
    """
    for i in range(0, rows.shape[0], BLOCK):
        a0, a1 = rows[i][:count], rows[i + 1][:count]
        a2, a3 = rows[i + 2][:count], rows[i + 3][:count]
        for j in range(i, rows.shape[0], BLOCK):
            b0, b1 = rows[j][:count], rows[j + 1][:count]
            b2, b3 = rows[j + 2][:count], rows[j + 3][:count]
            s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = 0.0
            s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = 0.0
            for c in range(count):
                s00 += a0[c] * b0[c]
                s01 += a0[c] * b1[c]
                s02 += a0[c] * b2[c]
                s03 += a0[c] * b3[c]
                s10 += a1[c] * b0[c]
                s11 += a1[c] * b1[c]
                s12 += a1[c] * b2[c]
                s13 += a1[c] * b3[c]
                s20 += a2[c] * b0[c]
                s21 += a2[c] * b1[c]
                s22 += a2[c] * b2[c]
                s23 += a2[c] * b3[c]
                s30 += a3[c] * b0[c]
                s31 += a3[c] * b1[c]
                s32 += a3[c] * b2[c]
                s33 += a3[c] * b3[c]
            out[i, j] += s00
            out[i, j + 1] += s01
            out[i, j + 2] += s02
            out[i, j + 3] += s03
            out[i + 1, j] += s10
            out[i + 1, j + 1] += s11
            out[i + 1, j + 2] += s12
            out[i + 1, j + 3] += s13
            out[i + 2, j] += s20
            out[i + 2, j + 1] += s21
            out[i + 2, j + 2] += s22
            out[i + 2, j + 3] += s23
            out[i + 3, j] += s30
            out[i + 3, j + 1] += s31
            out[i + 3, j + 2] += s32
            out[i + 3, j + 3] += s33
