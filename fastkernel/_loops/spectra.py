"""Sums over pixels and frequencies of whole images.

A loop checks nothing, allocates no result, starts no thread and calls only this file.
"""

import numpy as np

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
# No nnan or ninf: a NaN pixel must show in the sums.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@_loop
def sum_of_squares(x):
    r"""Return the energy of some rows.

    Parameters
    ----------
    x : (k, n) float32 or float64 array
        Rows in C order.

    Returns
    -------
    float
        :math:`\sum x^2`, summed in float64 row by row; not finite where a pixel is not.

    Notes
    -----
    Cost: one multiply-add a pixel.
    """
    total = 0.0
    for r in range(x.shape[0]):
        row, energy = x[r], 0.0
        for c in range(row.size):
            pixel = np.float64(row[c])  # float(pixel) would stay float32
            energy += pixel * pixel
        total += energy
    return total


@_loop
def add_products(x, y, cross, power):
    r"""Add the cross-spectrum and the power spectrum of a pair of images.

    Parameters
    ----------
    x, y : (k, m) complex128 arrays
        Spectra of source and result, C order.
    cross : (k, m) complex128 array
        Accumulator, updated in place.
    power : (k, m) float64 array
        Accumulator, updated in place.

    Notes
    -----
    .. math:: C \mathrel{+}= \overline{X}\, Y, \qquad P \mathrel{+}= |X|^2

    Cost: 6 multiply-adds a frequency.
    """
    for r in range(x.shape[0]):
        a, b, c, p = x[r], y[r], cross[r], power[r]
        for i in range(a.size):
            u, v = a[i], b[i]
            c[i] += complex(u.real * v.real + u.imag * v.imag, u.real * v.imag - u.imag * v.real)
            p[i] += u.real * u.real + u.imag * u.imag


@_loop
def divide(cross, power, epsilon, out, explained):
    r"""Divide a cross-spectrum by a power spectrum, guarded.

    Parameters
    ----------
    cross : (k, m) complex128 array
        ``C``, C order.
    power : (k, m) float64 array
        ``P``, not negative. Where it is 0 and ``epsilon`` is too, what comes out is not finite.
    epsilon : float
        The guard, not negative.
    out : (k, m) complex128 array
        Overwritten with ``K``.
    explained : (k,) float64 array
        Overwritten, row by row, with how much less energy ``Y - K X`` has than ``Y``.

    Notes
    -----
    .. math:: K = \frac{C}{P + \epsilon}, \qquad
              |Y|^2 - |Y - K X|^2 = |C|^2\, \frac{P + 2 \epsilon}{(P + \epsilon)^2}

    summed over the pairs of images. Cost: one division and 6 multiply-adds a frequency.
    """
    for r in range(cross.shape[0]):
        c, p, k, energy = cross[r], power[r], out[r], 0.0
        for i in range(c.size):
            inverse = 1.0 / (p[i] + epsilon)
            re, im = c[i].real * inverse, c[i].imag * inverse
            k[i] = complex(re, im)
            energy += (re * re + im * im) * (p[i] + 2.0 * epsilon)
        explained[r] = energy
