"""Sums over residuals whose absolute values are to be small.

A loop checks nothing, allocates no result, starts no thread and calls only this file.
"""

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


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
def collect_rows(x, residual, weights, kernel_shape, delta, outside, start, rows):
    r"""Collect weighted rows of the design matrix, one a column, until ``rows`` is full.

    Parameters
    ----------
    x : (>= height + p - 1, >= width + q - 1) float64 array
        The source under a tile, C order.
    residual : (height, width) float64 array
        The tile's, times the weights, C order.
    weights : (height, width) float64 array
        Of the tile's pixels, C order; 0 leaves a pixel out.
    kernel_shape : (int, int)
        ``(p, q)``.
    delta : float
        Rows of residuals less than this count as they are,
    outside : bool
        and the others ``delta / |residual|`` times, or not at all.
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
        size, weight = abs(residual[r, c]), weights[r, c]
        if weight != 0.0 and (size < delta or outside):
            if size >= delta:
                weight *= (delta / size) ** 0.5
            for i in range(p):
                for j in range(q):
                    rows[i * q + j, count] = weight * x[r + i, c + j]
            count += 1
        place += 1
    return place, count
