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
def slope(gradient, tile):
    """Return the product of a gradient and the beginning of a tile.

    Parameters
    ----------
    gradient : (p, q) float64 array
        C order.
    tile : (>= p, >= q) float64 array
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
    for i in range(gradient.shape[0]):
        g, row = gradient[i], tile[i]
        for j in range(g.size):
            total += g[j] * row[j]
    return total


@_loop
def turn(direction, tile, share):
    r"""Choose a direction from the last and a tile that tells the way downhill.

    Parameters
    ----------
    direction : (p, q) float64 array
        The last direction, overwritten by the next; C order.
    tile : (>= p, >= q) float64 array
        C order.
    share : float
        How much of the last direction stays.

    Returns
    -------
    float
        The sum of the direction's squares.

    Notes
    -----
    .. math:: d \leftarrow t + \beta d

    Cost: two multiply-adds a tap.
    """
    total = 0.0
    for i in range(direction.shape[0]):
        d, row = direction[i], tile[i]
        for j in range(d.size):
            d[j] = row[j] + share * d[j]
            total += d[j] * d[j]
    return total


@_loop
def step(x, direction, length):
    r"""Take a step.

    Parameters
    ----------
    x : (p, q) float64 array
        Changed in place; C order.
    direction : (p, q) float64 array
        C order.
    length : float
        Of the step, in directions; 0 to see how large ``x`` is.

    Returns
    -------
    float
        The sum of x's squares, afterwards.

    Notes
    -----
    .. math:: x \leftarrow x + \alpha d

    Cost: two multiply-adds a tap.
    """
    total = 0.0
    for i in range(x.shape[0]):
        y, d = x[i], direction[i]
        for j in range(y.size):
            y[j] += length * d[j]
            total += y[j] * y[j]
    return total
