"""Copies of tiles out of images, and into them.

A loop checks nothing, allocates no result, starts no thread and calls only this file.
"""

from fastkernel._loops._jit import loop
from fastkernel._loops._processor import ROWS_AHEAD, fetch, settle, write_row

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
# No nnan or ninf: a NaN pixel must show in the outcome.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@_loop
def read_tile(image, top, left, shape, out):
    """Read a part of an image, and zeros beyond its frame.

    Parameters
    ----------
    image : (m, n) float32 or float64 array
        C order.
    top, left : int
        Where the part begins; may lie beyond the frame.
    shape : (int, int)
        ``(height, width)`` of the part.
    out : (>= height, >= width) array of image's dtype
        Its first rows and columns are overwritten; C order.

    Notes
    -----
    Cost: a copy a pixel.
    """
    (height, width), (m, n) = shape, image.shape
    last = max(0, min(width, n - left))
    first = min(max(0, -left), last)
    for row in range(height):
        x = out[row, :width]
        if top + row < 0 or top + row >= m:
            x[:] = 0
            continue
        fetch(image, (top + row + ROWS_AHEAD) * image.shape[1] + left + first, last - first)
        x[:first] = 0
        x[last:] = 0
        inside, pixels = x[first:last], image[top + row, left + first : left + last]
        for c in range(inside.size):
            inside[c] = pixels[c]


@_loop
def write_tile(found, shape, out, top, left):
    """Write the first rows and columns of a tile into an image, and see whether they are finite.

    Parameters
    ----------
    found : (>= height, >= width) float32 or float64 array
        The tile, C order.
    shape : (int, int)
        ``(height, width)`` to write.
    out : array of found's dtype
        Overwritten; C order.
    top, left : int
        Where the tile begins in ``out``.

    Returns
    -------
    bool
        False where a pixel is not finite.

    Notes
    -----
    Cost: a multiply-add a pixel.
    """
    height, width = shape
    spoilt = out.dtype.type(0)
    for row in range(height):
        x = found[row, :width]
        for c in range(width):
            spoilt += x[c] * 0  # NaN where a pixel is not finite
        write_row(found, row, width, out, top + row, left)
    settle()
    return spoilt == 0


@_loop
def add_tile(found, down, across, out, top, left):
    r"""Add the first rows and columns of a tile, times a factor of each, to an image.

    Parameters
    ----------
    found : (>= height, >= width) float64 array
        The tile, C order.
    down, across : (height,) and (width,) float64 arrays
        The factors.
    out : float64 array
        Added to; C order.
    top, left : int
        Where the tile begins in ``out``.

    Returns
    -------
    bool
        False where a pixel is not finite.

    Notes
    -----
    .. math:: o_t \leftarrow o_t + v_{t_0} u_{t_1} f_t

    Cost: three multiply-adds a pixel.
    """
    spoilt = 0.0
    for row in range(down.size):
        x, y = found[row, : across.size], out[top + row, left : left + across.size]
        for c in range(across.size):
            y[c] += down[row] * across[c] * x[c]
            spoilt += x[c] * 0  # NaN where a pixel is not finite
    return spoilt == 0
