"""Ratios of images, for multiplicative updates.

A loop checks nothing, allocates no result, starts no thread and calls only this file.
"""

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@_loop
def divide(y, convolved, logarithms, floor):
    r"""Divide a tile of the result by a convolution, in place, and judge the convolution.

    Parameters
    ----------
    y : (height, >= width) float64 array
        The result, not negative, C order; overwritten by the ratio, 0 where ``convolved`` is not
        more than ``floor``.
    convolved : (height, width) float64 array
        What is to explain it, C order.
    logarithms : (height, width) float64 array
        Those of ``convolved``, finite, C order.
    floor : float
        Positive.

    Returns
    -------
    likelihood : float
        The Poisson log-likelihood but for the terms of ``y`` alone.
    energy : float
        Sum of the squared differences.

    Notes
    -----
    .. math:: \sum_t \left( y_t \log m_t - m_t \right), \qquad \sum_t (y_t - m_t)^2

    Cost: a division and three multiply-adds a pixel.
    """
    likelihood, energy = 0.0, 0.0
    width = convolved.shape[1]
    for r in range(convolved.shape[0]):
        row, model, logs = y[r][:width], convolved[r], logarithms[r]
        for c in range(width):
            pixel, expected = row[c], model[c]
            likelihood += pixel * logs[c] - expected
            energy += (pixel - expected) ** 2
            row[c] = pixel / expected if expected > floor else 0.0
    return likelihood, energy
