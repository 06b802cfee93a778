"""What stands between the products of conjugate gradients.

A loop checks nothing, allocates no result, starts no thread and calls only this file.
"""

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@_loop
def lay(gradient, taps, ridge, tile):
    r"""Add a penalty's share to a gradient, and lay it into a corner of zeros.

    Parameters
    ----------
    gradient : (p, q) float64 array
        That of the squares; changed in place. C order.
    taps : (p, q) float64 array
        Where it was taken, C order.
    ridge : float
        The penalty.
    tile : (>= p, >= q) float64 array
        Overwritten; C order.

    Notes
    -----
    .. math:: g \leftarrow g + \lambda x

    Cost: a multiply-add a tap.
    """
    p, q = taps.shape
    for i in range(p):
        row, g, x = tile[i], gradient[i], taps[i]
        for j in range(q):
            g[j] += ridge * x[j]
            row[j] = g[j]
        row[q:] = 0
    tile[p:] = 0


@_loop
def product(x, y):
    """Return the product of an array and the beginning of another.

    Parameters
    ----------
    x : (p, q) float64 array
        C order.
    y : (>= p, >= q) float64 array
        C order.

    Returns
    -------
    float
        The sum of the products.

    Notes
    -----
    Cost: a multiply-add a tap.
    """
    total = 0.0
    for i in range(x.shape[0]):
        a, b = x[i], y[i]
        for j in range(a.size):
            total += a[j] * b[j]
    return total


@_loop
def combine(x, share, y, factor):
    r"""Add a multiple of an array to a multiple of another.

    Parameters
    ----------
    x : (p, q) float64 array
        Changed in place; C order.
    share : float
        How much of ``x`` stays.
    y : (>= p, >= q) float64 array
        Of which the beginning is added; C order.
    factor : float
        What it is multiplied by.

    Returns
    -------
    float
        The sum of x's squares, afterwards.

    Notes
    -----
    .. math:: x \leftarrow \alpha x + \beta y

    Cost: three multiply-adds a tap.
    """
    total = 0.0
    for i in range(x.shape[0]):
        a, b = x[i], y[i]
        for j in range(a.size):
            a[j] = share * a[j] + factor * b[j]
            total += a[j] * a[j]
    return total
