"""What an iteration of Richardson and Lucy does to a tile between its convolutions.

A loop checks nothing, allocates no result, starts no thread and calls only this file.
"""

import math

import numpy as np

from fastkernel._loops._jit import loop
from fastkernel._loops._processor import ROWS_AHEAD, fetch, settle, write_row

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@_loop
def divide(blurred, shape, origin, data, floor):
    r"""Divide data by a part of the blurred estimate, in its place.

    Parameters
    ----------
    blurred : (>= height, >= width) float32 or float64 array
        A part of the blurred estimate, overwritten by the ratio, 0 beyond the data; C order.
    shape : (int, int)
        ``(height, width)``.
    origin : (int, int)
        Row and column of its first pixel in ``data``; may lie beyond.
    data : (m, n) array of blurred's dtype
        Weight times pixel, C order.
    floor : float
        What a blurred pixel is at least, above 0, of data's type.

    Notes
    -----
    .. math:: r_t = w_t y_t / \max((Hz)_t, \mathrm{floor})

    Cost: a division a pixel.
    """
    (top, left), (height, width), (m, n) = origin, shape, data.shape
    first, last = max(0, -left), max(0, min(width, n - left))
    first = min(first, last)
    for row in range(height):
        x = blurred[row, :width]
        if top + row < 0 or top + row >= m:
            x[:] = 0
            continue
        fetch(data, (top + row + ROWS_AHEAD) * data.shape[1] + left + first, last - first)
        x[:first] = 0
        x[last:] = 0
        inside = x[first:last]
        y = data[top + row, left + first : left + last]
        for c in range(inside.size):
            inside[c] = y[c] / max(inside[c], floor)


@_loop
def squared_misfit(blurred, at, data, weights, tile):
    r"""Return the weighted sum of squared residuals of a tile.

    Parameters
    ----------
    blurred : (rows, cols) float32 or float64 array
        A part of the blurred estimate, C order.
    at : (int, int)
        Row and column of the tile's first pixel in it.
    data, weights : (m, n) arrays of blurred's dtype
        Weight times pixel, and weight; C order.
    tile : (int, int, int, int)
        ``(top, left, height, width)``, inside the data.

    Returns
    -------
    float
        In squared units of a pixel.

    Notes
    -----
    .. math:: \sum_{w_t > 0} w_t\, (y_t - (Hz)_t)^2

    Cost: a division a pixel.
    """
    top, left, height, width = tile
    total = 0.0
    for row in range(height):
        x = blurred[at[0] + row, at[1] : at[1] + width]
        y = data[top + row, left : left + width]
        w = weights[top + row, left : left + width]
        for c in range(width):
            if w[c] > 0:
                residual = np.float64(y[c]) - np.float64(w[c]) * x[c]
                total += residual * residual / w[c]
    return total


@_loop
def poisson_misfit(blurred, at, data, weights, tile, floor):
    r"""Return the weighted Kullback-Leibler divergence of a tile from its data.

    Parameters
    ----------
    blurred, at, data, weights, tile : as in `squared_misfit`
    floor : float
        What a blurred pixel is at least, above 0.

    Returns
    -------
    float
        In units of a pixel.

    Notes
    -----
    .. math:: \sum_t w_t\, (y_t \ln (y_t / (Hz)_t) - y_t + (Hz)_t)

    Cost: a logarithm a pixel.
    """
    top, left, height, width = tile
    total = 0.0
    for row in range(height):
        x = blurred[at[0] + row, at[1] : at[1] + width]
        counts = data[top + row, left : left + width]
        w = weights[top + row, left : left + width]
        for c in range(width):
            y = np.float64(counts[c])
            model = np.float64(w[c]) * max(np.float64(x[c]), floor)
            total += model - y
            if y > 0:
                total += y * math.log(y / model)
    return total


@_loop
def update(correlated, point, inverse_sensitivity, tile, measured, step, out):
    r"""Make a tile of the next estimate.

    Parameters
    ----------
    correlated : (>= height, >= width) float32 or float64 array
        The correlated ratios in the tile, overwritten; C order.
    point, inverse_sensitivity : (M, N) arrays of correlated's dtype
        What the ratios were found at, and the reciprocal of the PSF's sums over the data, 0 where
        a pixel is left as it is; C order. A reciprocal of (1, 1) is that of all pixels.
    tile : (int, int, int, int)
        ``(top, left, height, width)``.
    measured : bool
        Whether to sum squares.
    step : (M, N) or (0, 0) array of correlated's dtype
        The change before, overwritten in the tile by this one; C order.
    out : (M, N) array of correlated's dtype
        Overwritten in the tile; C order.

    Returns
    -------
    change, size, product : float
        Sums of squares of the change and of the new estimate, and of the products of the change
        and the one before; 0 unless ``measured``, or without ``step``.

    Notes
    -----
    .. math:: x_s = z_s\, (H^T r)_s / (H^T w)_s

    Cost: ten operations a pixel.
    """
    top, left, height, width = tile
    squares, size, product, zero = 0.0, 0.0, 0.0, point.dtype.type(0)
    uniform, compared = inverse_sensitivity.size == 1, step.size > 0
    for row in range(height):
        fetch(point, (top + row + ROWS_AHEAD) * point.shape[1] + left, width)
        x, z = correlated[row, :width], point[top + row, left : left + width]
        if uniform:
            factor = inverse_sensitivity[0, 0]
            for c in range(width):
                x[c] = z[c] * max(x[c], zero) * factor
        else:
            a = inverse_sensitivity[top + row, left : left + width]
            for c in range(width):
                x[c] = z[c] * max(x[c], zero) * a[c] if a[c] > 0 else z[c]
        if measured:
            for c in range(width):
                change = np.float64(x[c]) - z[c]
                squares += change * change
                size += np.float64(x[c]) * x[c]
        if compared:
            fetch(step, (top + row + ROWS_AHEAD) * step.shape[1] + left, width)
            g = step[top + row, left : left + width]
            for c in range(width):
                change = x[c] - z[c]
                product += np.float64(change) * g[c]
                g[c] = change
        write_row(correlated, row, width, out, top + row, left)
    settle()
    return squares, size, product


@_loop
def extrapolate(newer, older, factor, tile, out):
    r"""Continue the way from one estimate to the next.

    Parameters
    ----------
    newer, older : (M, N) float32 or float64 arrays
        Two estimates, C order.
    factor : float
        Share of the way to add, of newer's type.
    tile : (int, int, int, int)
        ``(top, left, height, width)``.
    out : (M, N) array of newer's dtype
        Overwritten in the tile; C order.

    Notes
    -----
    .. math:: z = \max(x + \alpha\, (x - x'), 0)

    Cost: three operations a pixel.
    """
    top, left, height, width = tile
    zero = newer.dtype.type(0)
    for row in range(top, top + height):
        x, y = newer[row, left : left + width], older[row, left : left + width]
        z = out[row, left : left + width]
        for c in range(width):
            z[c] = max(x[c] + factor * (x[c] - y[c]), zero)


@_loop
def damp(point, amount, smallest, tile, lines, out):
    r"""Divide by what total variation adds to the sensitivity.

    Parameters
    ----------
    point : (M, N) float32 or float64 array
        The estimate whose variation is damped, C order.
    amount : float
        Strength, below 1/4, which keeps the divisor positive.
    smallest : float
        What is added to the length below which gradients count less, above 0.
    tile : (int, int, int, int)
        ``(top, left, height, width)``.
    lines : (3, > width) float64 array
        Scratch.
    out : (>= height, >= width) array of point's dtype
        The correlated ratios in the tile, divided; C order.

    Notes
    -----
    .. math:: \mathrm{out}_s \mathrel{/}= 1 - \lambda\,
              \mathrm{div} \frac{\nabla z}{\sqrt{|\nabla z|^2 + (8 \lambda z + \epsilon)^2}}

    with forward differences in the gradient, 0 beyond the frame, and backward ones in the
    divergence. Gradients below :math:`8 \lambda z` count less: a step against the variation goes
    too far there, and would turn a flat place into a chessboard. Cost: a root and two divisions a
    pixel.
    """
    rows = point.shape[0]
    top, left, height, width = tile
    first = max(left - 1, 0)
    count = left + width - first
    above, down, across = lines[0], lines[1], lines[2]
    above[:count] = 0
    for row in range(max(top - 1, 0), top + height):
        z = point[row, first : first + count]
        below = point[min(row + 1, rows - 1), first : first + count]
        beyond = point[row, first + 1 : first + count + 1]
        if beyond.size < count:
            across[count - 1] = 0
            dy = np.float64(below[count - 1]) - z[count - 1]
            soft = 8 * amount * np.float64(z[count - 1]) + smallest
            down[count - 1] = dy / math.sqrt(dy * dy + soft * soft)
        for c in range(beyond.size):
            dy = np.float64(below[c]) - z[c]
            dx = np.float64(beyond[c]) - z[c]
            soft = 8 * amount * np.float64(z[c]) + smallest
            inverse = 1 / math.sqrt(dy * dy + dx * dx + soft * soft)
            across[c], down[c] = dx * inverse, dy * inverse
        if row >= top:
            x = out[row - top, :width]
            if left == 0:
                x[0] /= 1 - amount * (down[0] - above[0] + across[0])
            start = 1 if left == 0 else 0
            here, was = across[1:], across
            d, u = down[1:], above[1:]
            for c in range(width - start):
                x[c + start] /= 1 - amount * (d[c] - u[c] + here[c] - was[c])
        above, down = down, above
