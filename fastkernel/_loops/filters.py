"""Filters of the transforms of an image, and conjugate gradients on them.

A loop checks nothing, allocates no result, starts no thread and calls only this file.
"""

import numpy as np

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


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
