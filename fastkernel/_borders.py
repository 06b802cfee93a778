"""Border rules as index maps: the image beyond its frame, without a padded copy of it."""

import numpy as np
from numpy.typing import NDArray

from fastkernel._typing import AnyArray, Boundary, Shape

OUTSIDE = -1


def source_index(start: int, stop: int, length: int, boundary: Boundary) -> NDArray[np.intp]:
    """Return which pixel of a line stands at each place of ``start <= i < stop``.

    Parameters
    ----------
    start, stop : int
        Half-open range of places; places below 0 or from ``length`` on lie beyond the frame.
    length : int
        Pixels in the line, at least 1.
    boundary : {"zero", "circular", "replicate", "symmetric", "mirror"}
        The rule. Symmetric repeats the edge pixel, mirror does not.

    Returns
    -------
    (stop - start,) intp array
        Indices into the line; `OUTSIDE` where the rule puts a zero.

    Examples
    --------
    >>> source_index(-2, 6, 4, "mirror").tolist()
    [2, 1, 0, 1, 2, 3, 2, 1]
    """
    i = np.arange(start, stop, dtype=np.intp)
    match boundary:
        case "zero":
            return np.where((i >= 0) & (i < length), i, OUTSIDE)
        case "circular":
            return i % length
        case "replicate":
            return i.clip(0, length - 1)
        case "symmetric":
            i %= 2 * length
            return np.minimum(i, 2 * length - 1 - i)
        case "mirror":
            i %= max(1, 2 * length - 2)
            return np.minimum(i, 2 * length - 2 - i) if length > 1 else i


def load(image: AnyArray, origin: Shape, boundary: Boundary, out: AnyArray) -> None:
    """Fill ``out`` with the part of the endless image whose first pixel is at ``origin``.

    Parameters
    ----------
    image : (m, n) array
        Any real dtype, layout and byte order.
    origin : (int, int)
        Row and column of ``out[0, 0]`` in ``image``; may lie beyond the frame.
    boundary : str
        What stands beyond the frame, as in `source_index`.
    out : (rows, cols) array
        Overwritten; every pixel is cast to its dtype.
    """
    (top, left), (rows, cols), (m, n) = origin, out.shape, image.shape
    if 0 <= top <= m - rows and 0 <= left <= n - cols:
        np.copyto(out, image[top : top + rows, left : left + cols], casting="unsafe")
        return
    row = source_index(top, top + rows, m, boundary)
    col = source_index(left, left + cols, n, boundary)
    out[...] = image[row[:, None], col]
    out[row == OUTSIDE] = 0
    out[:, col == OUTSIDE] = 0
