"""Circular shift of rows of bytes."""

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
_loop = loop(nogil=True, error_model="numpy")


@_loop
def fill_shifted(image, shift, span, out):
    r"""Fill rows of ``out`` with the rows of ``image``, shifted around in both directions.

    Parameters
    ----------
    image : (planes, rows, width) uint8 array
        The bytes of a stack of images, C order.
    shift : (int, int)
        ``0 <= s < rows`` and ``0 <= b < width``, in rows and in bytes.
    span : (int, int)
        Half-open range of the rows of ``out`` to fill, counted through all planes.
    out : (planes, rows, width) uint8 array
        Another array than ``image``, C order.

    Notes
    -----
    .. math:: \mathrm{out}_{k,\,r,\,c} = x_{k,\,(r-s) \bmod m,\,(c-b) \bmod w}

    Cost: one read and one write per byte, in two runs per row.
    """
    rows, width = image.shape[1:]
    down, right = shift
    for line in range(span[0], span[1]):
        plane, r = line // rows, line % rows
        x = image[plane, r - down if r >= down else r - down + rows]
        y = out[plane, r]
        # Sliced first, so that both runs are counted from 0.
        head, tail = y[:right], x[width - right :]
        for c in range(right):
            head[c] = tail[c]
        head, tail = y[right:], x[: width - right]
        for c in range(width - right):
            head[c] = tail[c]
