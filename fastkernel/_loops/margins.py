"""Rows that continue an image beyond its border, and parts of a periodic one.

A loop checks nothing, allocates no result, starts no thread and calls only this file.
"""

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


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
