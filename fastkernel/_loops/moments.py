"""Weighted sums of the rows of tiles.

A loop checks nothing, allocates no result, starts no thread and calls only this file.
"""

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
# No nnan or ninf, so a NaN pixel reaches the sums, where the caller finds it.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@_loop
def add_row_sums(image, width, weights, out):
    r"""Add the weighted sums of every row to ``out``.

    Parameters
    ----------
    image : (height, >= width) float64 array
        The rows, C order.
    width : int
        Number of columns to sum over.
    weights : (n, width) float64 array
        C order.
    out : (height, n) float64 array
        Accumulator, updated in place.

    Notes
    -----
    .. math:: \mathrm{out}_{rk} \mathrel{+}= \sum_c w_{kc}\, x_{rc}

    Cost: ``n`` multiply-adds a pixel, of rows that stay in the first-level cache.
    """
    for r in range(out.shape[0]):
        row = image[r][:width]
        for k in range(out.shape[1]):
            weight = weights[k][:width]
            total = 0.0
            for c in range(width):
                total += weight[c] * row[c]
            out[r, k] += total


@_loop
def weigh(y, weights):
    r"""Multiply a tile by weights, in place, and return its weighted energy.

    Parameters
    ----------
    y : (height, >= width) float64 array
        C order; overwritten.
    weights : (height, width) float64 array
        C order.

    Returns
    -------
    float
        The sum of the weights times the squares.

    Notes
    -----
    .. math:: \sum_t w_t y_t^2

    Cost: three operations a pixel.
    """
    energy = 0.0
    for r in range(weights.shape[0]):
        row, line = y[r][: weights.shape[1]], weights[r]
        for c in range(line.shape[0]):
            value = line[c] * row[c]
            energy += value * row[c]
            row[c] = value
    return energy


@_loop
def block_energies(image, weights, side, out):
    r"""Write what the blocks of a tile vary by, in squares, about the weighted mean of the tile.

    Parameters
    ----------
    image, weights : (height, width) float64 arrays
        C order; the weights not negative, and not all zero.
    side : int
        Of the blocks; those at the far sides are smaller.
    out : (ceil(height / side), ceil(width / side)) float64 array
        Overwritten.

    Notes
    -----
    .. math:: \mathrm{out}_b = \sum_{t \in b} w_t (y_t - \bar y)^2

    Cost: four multiply-adds a pixel.
    """
    height, width = image.shape
    total, mean = 0.0, 0.0
    for r in range(height):
        row, heed = image[r], weights[r]
        for c in range(width):
            total += heed[c]
            mean += heed[c] * row[c]
    mean /= total
    out[:] = 0.0
    for r in range(height):
        row, heed, blocks = image[r], weights[r], out[r // side]
        for block in range(len(blocks)):
            energy = 0.0
            for c in range(block * side, min((block + 1) * side, width)):
                energy += heed[c] * (row[c] - mean) ** 2
            blocks[block] += energy
