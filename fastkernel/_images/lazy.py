"""Images that are read when they are sliced: HDF5 and Zarr datasets and their like."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastkernel._images.borders import OUTSIDE, source_index
from fastkernel._images.masks import unmasked
from fastkernel._typing import AnyArray, Boundary, Shape


class LazyImage:
    """An array-like of two dimensions that is read by slices.

    Parameters
    ----------
    array : object
        With ``shape``, ``dtype`` and slicing.
    name : str, optional
        What it is called where a part of it turns out to be masked.
    """

    def __init__(self, array: Any, name: str = "image") -> None:
        self._array, self._name = array, name
        self.shape: tuple[int, ...] = tuple(int(n) for n in array.shape)
        self.dtype = np.dtype(array.dtype)
        self.ndim = len(self.shape)
        self.size = int(np.prod(self.shape, dtype=object))

    def __getitem__(self, key: Any) -> AnyArray:
        return unmasked(self._array[key], self._name)


def is_lazy(value: Any) -> bool:
    """Return whether ``value`` is better read in parts than turned into an array."""
    if isinstance(value, np.ndarray) or hasattr(value, "__array_interface__"):
        return False
    if not all(hasattr(value, name) for name in ("shape", "dtype", "__getitem__")):
        return False
    try:
        np.dtype(value.dtype)
        return len(value.shape) == 2
    except TypeError:
        return False


def read(image: LazyImage, origin: Shape, shape: Shape, boundary: Boundary) -> AnyArray:
    """Return a part of the endless image as an array, every pixel of it read once.

    Parameters
    ----------
    image : LazyImage
        What to read.
    origin : (int, int)
        Row and column of the part's first pixel; may lie beyond the frame.
    shape : (int, int)
        Size of the part.
    boundary : str
        What stands beyond the frame, as in `borders.source_index`.

    Returns
    -------
    (rows, cols) array
        Of the image's dtype.
    """
    places = [
        source_index(start, start + n, length, boundary)
        for start, n, length in zip(origin, shape, image.shape, strict=True)
    ]
    needed = [np.unique(place[place != OUTSIDE]) for place in places]
    out = np.zeros(shape, image.dtype)
    if not all(index.size for index in needed):
        return out
    rows, cols = (_runs(index) for index in needed)
    found = np.block([[image[r0:r1, c0:c1] for c0, c1 in cols] for r0, r1 in rows])
    # Where the part is the image's own, it is what was read.
    if all(np.array_equal(place, index) for place, index in zip(places, needed, strict=True)):
        return found
    row, col = (np.searchsorted(n, p) for n, p in zip(needed, places, strict=True))
    inside = np.ix_(*(place != OUTSIDE for place in places))
    out[inside] = found[np.ix_(row[places[0] != OUTSIDE], col[places[1] != OUTSIDE])]
    return out


def _runs(index: NDArray[np.intp]) -> list[tuple[int, int]]:
    """Return the half-open runs of consecutive numbers in a sorted index."""
    parts = np.split(index, np.flatnonzero(np.diff(index) > 1) + 1)
    return [(int(part[0]), int(part[-1]) + 1) for part in parts]
