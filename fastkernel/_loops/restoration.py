"""What stands between the convolutions, or the transforms, of a restoration.

A loop checks nothing, allocates no result, starts no thread and calls only this file.
"""

import math

import numpy as np

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@_loop
def divide(data, tile, floor, out):
    r"""Divide the data by the blurred estimate that stands in ``out``.

    Parameters
    ----------
    data : (m, n) float32 or float64 array
        Weight times pixel, C order.
    tile : (int, int, int, int)
        ``(top, left, height, width)``.
    floor : float
        What a blurred pixel is at least, above 0, of data's type.
    out : (m, n) array of data's dtype
        The blurred estimate, overwritten in the tile; C order.

    Notes
    -----
    .. math:: r_t = w_t y_t / \max((Hz)_t, \mathrm{floor})

    Cost: a division a pixel.
    """
    top, left, height, width = tile
    for row in range(top, top + height):
        y, x = data[row, left : left + width], out[row, left : left + width]
        for c in range(width):
            x[c] = y[c] / max(x[c], floor)


@_loop
def squared_misfit(data, weights, tile, blurred):
    r"""Return the weighted sum of squared residuals of a tile.

    Parameters
    ----------
    data, weights, blurred : (m, n) float32 or float64 arrays
        Weight times pixel, weight, and the blurred estimate; one dtype, C order.
    tile : (int, int, int, int)
        ``(top, left, height, width)``.

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
    for row in range(top, top + height):
        y = data[row, left : left + width]
        w = weights[row, left : left + width]
        x = blurred[row, left : left + width]
        for c in range(width):
            if w[c] > 0:
                residual = np.float64(y[c]) - np.float64(w[c]) * x[c]
                total += residual * residual / w[c]
    return total


@_loop
def poisson_misfit(data, weights, tile, floor, blurred):
    r"""Return the weighted Kullback-Leibler divergence of a tile from its data.

    Parameters
    ----------
    data, weights, blurred : (m, n) float32 or float64 arrays
        Weight times pixel, weight, and the blurred estimate; one dtype, C order.
    tile : (int, int, int, int)
        ``(top, left, height, width)``.
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
    for row in range(top, top + height):
        for c in range(left, left + width):
            y = np.float64(data[row, c])
            model = np.float64(weights[row, c]) * max(np.float64(blurred[row, c]), floor)
            total += model - y
            if y > 0:
                total += y * math.log(y / model)
    return total


@_loop
def update(point, inverse_sensitivity, tile, out):
    r"""Multiply a point by the correlated ratios that stand in ``out``.

    Parameters
    ----------
    point, inverse_sensitivity : (M, N) float32 or float64 arrays
        What the ratios were found at, and the reciprocal of the PSF's sums over the data, 0 where
        a pixel is left as it is; C order.
    tile : (int, int, int, int)
        ``(top, left, height, width)``.
    out : (M, N) array of point's dtype
        The correlated ratios, overwritten in the tile by the new estimate; C order.

    Returns
    -------
    step, size : float
        Sums of squares of the change and of the new estimate.

    Notes
    -----
    .. math:: x_s = z_s\, (H^T r)_s / (H^T w)_s

    Cost: five operations a pixel.
    """
    top, left, height, width = tile
    squares, size, zero = 0.0, 0.0, point.dtype.type(0)
    for row in range(top, top + height):
        z = point[row, left : left + width]
        a = inverse_sensitivity[row, left : left + width]
        x = out[row, left : left + width]
        for c in range(width):
            found = z[c] * max(x[c], zero) * a[c] if a[c] > 0 else z[c]
            change = np.float64(found) - z[c]
            squares += change * change
            size += np.float64(found) * found
            x[c] = found
    return squares, size


@_loop
def update_step(point, inverse_sensitivity, tile, step, out):
    r"""Do what `update` does, and compare the step with the one before.

    Parameters
    ----------
    point, inverse_sensitivity : (M, N) float32 or float64 arrays
        As in `update`.
    tile : (int, int, int, int)
        ``(top, left, height, width)``.
    step : (M, N) array of point's dtype
        The step before, overwritten in the tile by this one; C order.
    out : (M, N) array of point's dtype
        As in `update`.

    Returns
    -------
    squares, size, product : float
        Sums of squares of the step and of the new estimate, and of the products of both steps.

    Notes
    -----
    Cost: seven operations a pixel.
    """
    top, left, height, width = tile
    squares, size, product, zero = 0.0, 0.0, 0.0, point.dtype.type(0)
    for row in range(top, top + height):
        z = point[row, left : left + width]
        a = inverse_sensitivity[row, left : left + width]
        g = step[row, left : left + width]
        x = out[row, left : left + width]
        for c in range(width):
            found = z[c] * max(x[c], zero) * a[c] if a[c] > 0 else z[c]
            change = found - z[c]
            squares += np.float64(change) * change
            product += np.float64(change) * g[c]
            size += np.float64(found) * found
            g[c] = change
            x[c] = found
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
    out : (M, N) array of point's dtype
        Divided in the tile; C order.

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
            x = out[row, left : left + width]
            if left == 0:
                x[0] /= 1 - amount * (down[0] - above[0] + across[0])
            start = 1 if left == 0 else 0
            here, was = across[1:], across
            d, u = down[1:], above[1:]
            for c in range(width - start):
                x[c + start] /= 1 - amount * (d[c] - u[c] + here[c] - was[c])
        above, down = down, above


@_loop
def filter_columns(y, h, across, down, amount):
    r"""Divide spectra by those of a PSF, regularised, in place.

    Parameters
    ----------
    y, h : (k, m) complex64 or complex128 arrays
        Columns of the transforms of the image and of the PSF, C order; ``y`` is overwritten.
    across : (k,) float64 array
        ``a``, the regulariser's part of each column.
    down : (m,) float64 array
        ``b``, its part of each row.
    amount : float
        Strength ``s``, at least 0.

    Notes
    -----
    .. math:: Y_{jl} \leftarrow
              \frac{\overline{H_{jl}}\, Y_{jl}}{|H_{jl}|^2 + s\, (a_j + b_l)^2}

    or 0 where the divisor is. Cost: a division and ten operations a frequency.
    """
    for j in range(y.shape[0]):
        for i in range(y.shape[1]):
            re, im = np.float64(h[j, i].real), np.float64(h[j, i].imag)
            penalty = across[j] + down[i]
            divisor = re * re + im * im + amount * penalty * penalty
            inverse = 1 / divisor if divisor > 0 else 0.0
            u, v = np.float64(y[j, i].real), np.float64(y[j, i].imag)
            y[j, i] = complex((re * u + im * v) * inverse, (re * v - im * u) * inverse)


@_loop
def add_by_ratio(y, h, across, down, counts, first, per_octave, found):
    r"""Sort frequencies by what decides how much a regulariser takes of them.

    Parameters
    ----------
    y, h : (k, m) complex64 or complex128 arrays
        Columns of the transforms of the image and of the PSF, C order.
    across, down : (k,) and (m,) float64 arrays
        Parts of the regulariser, as in `filter_columns`.
    counts : (k,) float64 array
        How many frequencies of the full transform a column stands for.
    first : float
        Binary logarithm of the ratio at which the bins begin.
    per_octave : int
        Bins to a factor of two.
    found : (2, bins) float64 array
        Added to: the energy of ``y``, and the frequencies. Ratios beyond the bins go to the
        nearest; frequencies without a penalty are left out.

    Notes
    -----
    Bins of :math:`\log_2 ((a_j + b_l)^2 / |H_{jl}|^2)`. Cost: a logarithm a frequency.
    """
    last = found.shape[1] - 1
    for j in range(y.shape[0]):
        for i in range(y.shape[1]):
            penalty = across[j] + down[i]
            if penalty <= 0:
                continue
            re, im = np.float64(h[j, i].real), np.float64(h[j, i].imag)
            power = re * re + im * im
            place = last
            if power > 0:
                ratio = math.log2(penalty * penalty / power)
                place = int(min(max((ratio - first) * per_octave, 0.0), np.float64(last)))
            u, v = np.float64(y[j, i].real), np.float64(y[j, i].imag)
            found[0, place] += counts[j] * (u * u + v * v)
            found[1, place] += counts[j]
