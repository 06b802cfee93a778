"""Border rules as index maps: the image beyond its frame, without a padded copy of it."""

from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastkernel._typing import AnyArray, Boundary, Shape

OUTSIDE = -1


class Places(NamedTuple):
    """Places of a line, some of which lie beyond its frame.

    Attributes
    ----------
    pixels : 1-D intp array
        Which pixel stands at each, as in `source_index`.
    inside : (int, int)
        Half-open range of the places inside the frame, whose pixels follow each other.
    """

    pixels: NDArray[np.intp]
    inside: tuple[int, int]


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


def load(
    image: AnyArray, origin: Shape, boundary: Boundary, out: AnyArray, fill_value: float = 0.0
) -> None:
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
    fill_value : float, optional
        What "zero" puts beyond the frame.
    """
    if all(0 <= i <= n - k for i, k, n in zip(origin, out.shape, image.shape, strict=True)):
        (top, left), (rows, cols) = origin, out.shape
        np.copyto(out, image[top : top + rows, left : left + cols], casting="unsafe")
        return
    across = parts_of(origin[1], out.shape[1], image.shape[1], boundary)
    for rows, row in parts_of(origin[0], out.shape[0], image.shape[0], boundary):
        for cols, col in across:
            part = out[rows, cols]
            if row is None or col is None:
                part[...] = fill_value
            elif isinstance(row, slice) or isinstance(col, slice):
                part[...] = image[row, col]
            else:
                part[...] = image[row[:, None], col]


# Small pairs ask for the same places in every call; those of large images take a megabyte.
@lru_cache(8)
def places_of(start: int, size: int, length: int, boundary: Boundary) -> Places:
    """Return which pixels of a line stand at ``size`` places, and which places are inside it.

    What is returned is kept: it is not to be changed.
    """
    index = source_index(start, start + size, length, boundary)
    index.flags.writeable = False
    return Places(index, _inside(start, size, length))


def _inside(start: int, size: int, length: int) -> tuple[int, int]:
    """Return which of ``size`` places are inside a line, as a half-open range."""
    first, last = (min(max(i - start, 0), size) for i in (0, length))
    return first, last


Part: TypeAlias = tuple[slice, slice | NDArray[np.intp] | None]


# Small pairs are one tile, of the same places in every call.
@lru_cache(64)
def parts_of(start: int, size: int, length: int, boundary: Boundary) -> tuple[Part, ...]:
    """Return the parts before, inside and after a line, and which pixels stand there; None for 0.

    What is returned is kept: it is not to be changed.
    """
    found: list[Part] = []
    first, last = _inside(start, size, length)
    for i, j in ((0, first), (first, last), (last, size)):
        if i < j:
            if (i, j) == (first, last):
                pixels: slice | NDArray[np.intp] | None = slice(start + i, start + j)
            elif boundary == "zero":
                pixels = None
            else:
                pixels = source_index(start + i, start + j, length, boundary)
            found.append((slice(i, j), pixels))
    return tuple(found)
