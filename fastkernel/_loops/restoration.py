"""What stands between the convolutions, or the transforms, of a restoration.

A loop checks nothing, allocates no result, starts no thread and calls only this file.
"""

import math

import numpy as np
from numba.extending import register_jitable

from fastkernel._loops._jit import loop
from fastkernel._loops._machine import fetch, settle, write_row

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
        fetch(data, top + row, left + first, last - first)
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
        fetch(point, top + row, left, width)
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
            fetch(step, top + row, left, width)
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


@register_jitable
def _mirror(column, out):
    """Write the column of a real image's transform on the other side of the middle."""
    m = column.size // 2
    out[0], out[1] = column[0], -column[1]
    for i in range(1, m):
        out[2 * i], out[2 * i + 1] = column[2 * (m - i)], -column[2 * (m - i) + 1]


@register_jitable
def _neighbour(y, beyond, column):
    """Return a column of a transform, of which two before the first and after the last follow."""
    if column < 0:
        return beyond[-1 - column]
    return y[column] if column < y.shape[0] else beyond[2 + column - y.shape[0]]


@register_jitable
def _window_column(y, beyond, column, across, down, lines, energy):
    r"""Return the energies of a column of a windowed image's transform.

    Parameters
    ----------
    y : (k, 2 * m) float32 or float64 array
        Columns of the image's transform, real and imaginary parts in turn; C order.
    beyond : (4, 2 * m) array of y's dtype
        The two columns before the first, outwards, and the two after the last.
    column : int
        Which.
    across, down : (2, 5) arrays of y's dtype
        What the window makes of a transform, see `_frames.Fading`.
    lines : (2, m + 4) array of y's dtype
        Scratch.
    energy : (m,) float64 array
        Overwritten.

    Notes
    -----
    .. math:: E_i = \Bigl| \sum_{a,b} v_a w_b\, Y_{j+a, i+b} \Bigr|^2

    Cost: 40 multiply-adds a frequency.
    """
    m = energy.size
    re, im = lines[0, 2 : m + 2], lines[1, 2 : m + 2]
    y0, y1 = _neighbour(y, beyond, column - 2), _neighbour(y, beyond, column - 1)
    y3, y4 = _neighbour(y, beyond, column + 1), _neighbour(y, beyond, column + 2)
    y2 = y[column]
    c, s = across[0], across[1]
    for i in range(m):
        r, t = 2 * i, 2 * i + 1
        re[i] = (
            c[2] * y2[r]
            + (c[0] * (y0[r] + y4[r]) - s[0] * (y0[t] - y4[t]))
            + (c[1] * (y1[r] + y3[r]) - s[1] * (y1[t] - y3[t]))
        )
        im[i] = (
            c[2] * y2[t]
            + (c[0] * (y0[t] + y4[t]) + s[0] * (y0[r] - y4[r]))
            + (c[1] * (y1[t] + y3[t]) + s[1] * (y1[r] - y3[r]))
        )
    for line in lines:
        for b in range(2):
            line[b], line[m + 2 + b] = line[2 + (b - 2) % m], line[2 + b % m]
    u, v = lines[0], lines[1]
    c, s = down[0], down[1]
    for i in range(m):
        a = (
            c[2] * u[i + 2]
            + (c[0] * (u[i] + u[i + 4]) - s[0] * (v[i] - v[i + 4]))
            + (c[1] * (u[i + 1] + u[i + 3]) - s[1] * (v[i + 1] - v[i + 3]))
        )
        b = (
            c[2] * v[i + 2]
            + (c[0] * (v[i] + v[i + 4]) + s[0] * (u[i] - u[i + 4]))
            + (c[1] * (v[i + 1] + v[i + 3]) + s[1] * (u[i + 1] - u[i + 3]))
        )
        energy[i] = np.float64(a) * a + np.float64(b) * b


@_loop
def add_by_ratio(y, h, sides, taps, ends, beyond, lines, counts, first, scratch, bits, found):
    r"""Sort frequencies by what decides how much a regulariser takes of them.

    Parameters
    ----------
    y, h : (k, 2 * m) float32 or float64 arrays
        Columns of the transforms of the image and of the PSF, real and imaginary parts in turn; C
        order.
    sides : ((k,), (m,)) float64 arrays
        Parts ``a`` and ``b`` of the regulariser, as in `filter_columns`.
    taps : ((2, 5), (2, 5)) arrays of y's dtype
        Those of a window, across and down, as in `_window_column`; or empty.
    ends : (int, int)
        The columns that mirror those before the first and after the last, from which on they are
        counted up, and down; -1 where the transform goes on, and the window leaves out two.
    beyond : (4, 2 * m) array of y's dtype
        Scratch.
    lines : (2, m + 4) array of y's dtype
        Scratch.
    counts : (k,) float64 array
        How many frequencies of the full transform a column stands for.
    first : int
        Number of the lowest bin, as in Notes.
    scratch : (3, m) float64 array
        Scratch.
    bits : (3, m) int64 array
        The same memory.
    found : (bins, 3) float64 array
        Added to: the energy of ``y``, the frequencies, and how much the division would multiply
        the energy of white noise. Ratios beyond the bins go to the nearest, where they do not
        count in the last; frequencies without a penalty are left out.

    Notes
    -----
    The bins are those of :math:`(a_j + b_l)^2 / |H_{jl}|^2` whose float64 has the same exponent
    and the same three bits after it: 8 a factor of two, counted from the number 0, and no
    logarithm. Cost: a division and a few operations a frequency, and those of the window.
    """
    (across, down), (over, under) = sides, taps
    windowed, last = over.size > 0, found.shape[0] - 1
    start, stop = 0, y.shape[0]
    if windowed:
        for i in range(2):
            if ends[0] >= 0:
                _mirror(y[ends[0] + i], beyond[i])
            if ends[1] >= 0:
                _mirror(y[ends[1] - i], beyond[2 + i])
        start += 0 if ends[0] >= 0 else 2
        stop -= 0 if ends[1] >= 0 else 2
    ratio, energy, inverse = scratch[0], scratch[1], scratch[2]
    for j in range(start, stop):
        line, power, a, weight = y[j], h[j], across[j], counts[j]
        for i in range(ratio.size):
            re, im = np.float64(power[2 * i]), np.float64(power[2 * i + 1])
            penalty = a + down[i]
            inverse[i] = 1 / max(re * re + im * im, 1e-300)
            ratio[i] = penalty * penalty * inverse[i]
        if windowed:
            _window_column(y, beyond, j, over, under, lines, energy)
        else:
            for i in range(energy.size):
                re, im = np.float64(line[2 * i]), np.float64(line[2 * i + 1])
                energy[i] = re * re + im * im
        for i in range(energy.size):
            if ratio[i] > 0:
                place = min(max((bits[0, i] >> 49) - first, 0), last)
                found[place, 0] += weight * energy[i]
                found[place, 1] += weight
                if place < last:
                    found[place, 2] += weight * inverse[i]


@_loop
def least_cross_validation(found, per_octave, octaves, least, least_noise, sharpest, caution, bins):
    r"""Return the balance of the least score of generalised cross-validation.

    Parameters
    ----------
    found : (k, 3) float64 array
        As `add_by_ratio` leaves it.
    per_octave : int
        Bins to a factor of two.
    octaves : int
        The binary logarithm of the lowest bin's ratio is minus that.
    least : float
        Energy that is none, but rounding.
    least_noise : (float, float)
        What is added to the energy of a frequency: the larger of a share of the mean, and of a
        number.
    sharpest : float
        The power of the PSF's sum, by which the gain of noise is multiplied.
    caution : float
        How much noise that is as strong as the image adds to the score, as a share of it.
    bins : (4, k) float64 array
        Scratch.

    Returns
    -------
    float
        The binary logarithm of the balance; minus infinity where there is no energy.

    Notes
    -----
    .. math:: V = \frac{\sum_i E_i r_i^2}{(\sum_i N_i r_i)^2}, \qquad
              r_i = \frac{\lambda \rho_i}{1 + \lambda \rho_i}, \qquad
              \mathrm{score} = V \left(1 + \gamma\, V \frac{\sum_i N_i}{\sum_i E_i}
              \sum_i G_i (1 - r_i)^2\right)

    at every second octave, then ever closer around the best, to 1/32 of an octave. Where all
    :math:`r_i` are near 0 or 1 the score hardly changes, and is left out. Cost: a division a bin
    and balance.
    """
    used, low, high, total, count = 0, 0, 0, 0.0, 0.0
    energy, number, power, gain = bins[0], bins[1], bins[2], bins[3]  # power over penalty
    for place in range(found.shape[0]):
        if found[place, 1] > 0:
            octave = place // per_octave - octaves
            ratio = 1 + (place % per_octave + 0.5) / per_octave
            if used == 0:
                high = min(16 - octave, octaves)
            low = max(-8 - octave, -octaves)
            energy[used], number[used] = found[place, 0], found[place, 1]
            gain[used] = sharpest * found[place, 2]
            power[used] = math.ldexp(1.0, -octave) / ratio
            total += energy[used]
            count += number[used]
            used += 1
    if not total > least:
        return -np.inf
    noise = max(least_noise[0] * total / count, least_noise[1])
    for i in range(used):
        energy[i] += noise * number[i]
    first, step, steps, best = np.float64(low), 2.0, (high - low) // 2 + 1, 0.0
    for _ in range(4):
        lowest = np.inf
        for i in range(steps):
            octave_here = first + i * step
            inverse, misfit, freedom, gained = 2.0**-octave_here, 0.0, 0.0, 0.0
            for j in range(used):
                left = 1 / (1 + inverse * power[j])
                misfit += energy[j] * left * left
                freedom += number[j] * left
                gained += gain[j] * (1 - left) * (1 - left)
            score = misfit / (freedom * freedom)
            score *= 1 + caution * score * gained * count / total
            if score < lowest:
                lowest, best = score, octave_here
        first, step, steps = best - step, step / 4, 9
    return best


@_loop
def join(x, after, before, share):
    r"""Fill what stands beyond the ends of rows with two continuations, one turning into the other.

    Parameters
    ----------
    x : (k, n) float32 or float64 array
        Its last columns are overwritten; C order.
    after, before : (margin,) int64 arrays
        Which columns continue the row, and lead to its beginning.
    share : (margin,) float64 array
        That of ``before``, from 0 to 1.

    Notes
    -----
    Cost: three operations a pixel.
    """
    n = x.shape[1] - share.size
    for r in range(x.shape[0]):
        row = x[r]
        for c in range(share.size):
            row[n + c] = (1 - share[c]) * row[after[c]] + share[c] * row[before[c]]


@_loop
def blend(after, before, share, out):
    r"""Turn one image into another from row to row.

    Parameters
    ----------
    after, before : (k, n) float32 or float64 arrays
        The images, C order.
    share : (k,) float64 array
        That of ``before``, from 0 to 1.
    out : (k, n) array of their dtype
        Overwritten; rows in C order.

    Notes
    -----
    Cost: three operations a pixel.
    """
    for r in range(share.size):
        x, y, z, part = after[r], before[r], out[r], share[r]
        for c in range(x.size):
            z[c] = (1 - part) * x[c] + part * y[c]


@_loop
def crop_around(pixels, top, left, scale, out):
    r"""Write a part of a periodic image, scaled.

    Parameters
    ----------
    pixels : (m, n) float32 or float64 array
        One period, C order.
    top, left : int
        Where the part begins, from 0, below m and n.
    scale : float
        What pixels are multiplied by.
    out : (rows, cols) array of pixels' dtype
        Overwritten; rows in C order, no more than m, and columns no more than n.

    Notes
    -----
    Cost: one multiplication a pixel.
    """
    m, n = pixels.shape
    cols = out.shape[1]
    until = min(cols, n - left)
    for r in range(out.shape[0]):
        source = pixels[top + r if top + r < m else top + r - m]
        row, right = out[r], source[left:]
        for c in range(until):
            row[c] = right[c] * scale
        rest = row[until:]
        for c in range(rest.size):
            rest[c] = source[c] * scale


@_loop
def blur_direction(h, residual, direction, across, down, amount, seen, share, out):
    r"""Choose a direction of conjugate gradients from the last, and blur it.

    Parameters
    ----------
    h, residual : (k, m) complex64 or complex128 arrays
        Columns of the transforms of the PSF and of the residual of the normal equations, C order.
    direction : (k, m) array of h's dtype
        The last direction, overwritten by the next; C order.
    across, down, amount : as in `filter_columns`
        The regulariser.
    seen : float
        Share of the pixels that have to be explained.
    share : float
        How much of the last direction stays.
    out : (k, m) array of h's dtype
        Overwritten by the transform of the blurred direction; C order.

    Notes
    -----
    .. math:: P \leftarrow \frac{R}{c\,|H|^2 + s\, (a_j + b_l)^2} + \beta P

    or without the first term where its divisor is 0. Cost: a division and some twenty operations
    a frequency.
    """
    for j in range(h.shape[0]):
        for i in range(h.shape[1]):
            re, im = np.float64(h[j, i].real), np.float64(h[j, i].imag)
            penalty = across[j] + down[i]
            divisor = seen * (re * re + im * im) + amount * penalty * penalty
            inverse = 1 / divisor if divisor > 0 else 0.0
            p, r = direction[j, i], residual[j, i]
            u, v = inverse * r.real + share * p.real, inverse * r.imag + share * p.imag
            direction[j, i] = complex(u, v)
            out[j, i] = complex(re * u - im * v, re * v + im * u)


@_loop
def normal_product(h, blurred, x, across, down, amount, counts, out):
    r"""Apply the adjoint blur to what is seen of a blurred image, and add the penalty.

    Parameters
    ----------
    h, blurred, x : (k, m) complex64 or complex128 arrays
        Columns of the transforms of the PSF, of what is seen of the blurred image, and of the
        image itself; C order.
    across, down, amount : as in `filter_columns`
        The regulariser.
    counts : (k,) float64 array
        How many frequencies of the full transform a column stands for.
    out : (k, m) array of h's dtype
        Overwritten; C order.

    Returns
    -------
    float
        The product of the image and ``out``, over all frequencies.

    Notes
    -----
    .. math:: \overline{H}\, V + s\, (a_j + b_l)^2\, X

    Cost: some fifteen operations a frequency.
    """
    product = 0.0
    for j in range(h.shape[0]):
        part = 0.0
        for i in range(h.shape[1]):
            re, im = np.float64(h[j, i].real), np.float64(h[j, i].imag)
            b, z = blurred[j, i], x[j, i]
            root = across[j] + down[i]
            penalty = amount * root * root
            u = re * b.real + im * b.imag + penalty * z.real
            v = re * b.imag - im * b.real + penalty * z.imag
            part += u * z.real + v * z.imag
            out[j, i] = complex(u, v)
        product += counts[j] * part
    return product


@_loop
def descend(h, x, residual, direction, product, across, down, amount, seen, step, counts):
    r"""Take a step of conjugate gradients.

    Parameters
    ----------
    h : (k, m) complex64 or complex128 array
        Columns of the transform of the PSF, C order.
    x, residual : (k, m) arrays of h's dtype
        Of the image and of the residual of the normal equations, changed in place; C order.
    direction, product : (k, m) arrays of h's dtype
        Where the step goes, and what `normal_product` makes of it; C order.
    across, down, amount : as in `filter_columns`
        The regulariser.
    seen : float
        As in `blur_direction`.
    step : float
        Length of the step; 0 to see how large the residual is.
    counts : (k,) float64 array
        How many frequencies of the full transform a column stands for.

    Returns
    -------
    float
        The residual's square over the divisor of `blur_direction`, over all frequencies.

    Notes
    -----
    Cost: a division and some twenty operations a frequency.
    """
    size = 0.0
    for j in range(h.shape[0]):
        part = 0.0
        for i in range(h.shape[1]):
            p, q, z, r = direction[j, i], product[j, i], x[j, i], residual[j, i]
            x[j, i] = complex(z.real + step * p.real, z.imag + step * p.imag)
            u, v = r.real - step * q.real, r.imag - step * q.imag
            residual[j, i] = complex(u, v)
            re, im = np.float64(h[j, i].real), np.float64(h[j, i].imag)
            penalty = across[j] + down[i]
            divisor = seen * (re * re + im * im) + amount * penalty * penalty
            part += (u * u + v * v) / divisor if divisor > 0 else 0.0
        size += counts[j] * part
    return size
