"""Generalised cross-validation of a regularised division, from sums over bins of frequencies.

A loop checks nothing, allocates no result, starts no thread and calls only this file.
"""

import math

import numpy as np
from numba.extending import register_jitable

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


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
        What the window makes of a transform, see `framing.Fading`.
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
        Parts ``a`` and ``b`` of the regulariser, as in `filters.filter_columns`.
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
    float
        The energy of noise at a frequency, without the share of the mean.

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
        return -np.inf, 0.0
    noise = max(least_noise[0] * total / count, least_noise[1])
    for i in range(used):
        energy[i] += noise * number[i]
    first, step, steps, best, level = np.float64(low), 2.0, (high - low) // 2 + 1, 0.0, 0.0
    for _ in range(4):
        lowest = np.inf
        for i in range(steps):
            octave_here = first + i * step
            inverse, misfit, freedom, gained, added = 2.0**-octave_here, 0.0, 0.0, 0.0, 0.0
            for j in range(used):
                left = 1 / (1 + inverse * power[j])
                misfit += energy[j] * left * left
                freedom += number[j] * left
                gained += gain[j] * (1 - left) * (1 - left)
                added += number[j] * left * left
            score = misfit / (freedom * freedom)
            score *= 1 + caution * score * gained * count / total
            if score < lowest:
                lowest, best = score, octave_here
                level = (misfit - (noise - least_noise[1]) * added) / freedom
        first, step, steps = best - step, step / 4, 9
    return best, level
