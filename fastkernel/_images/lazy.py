"""Images that are read when they are sliced: HDF5 and Zarr datasets and their like."""

from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastkernel._images.borders import Part, parts_of
from fastkernel._images.masks import unmasked
from fastkernel._loops._unbroken import import_whole
from fastkernel._typing import AnyArray, Boundary, Shape


class LazyImage:
    """An array-like of two dimensions that is read by slices.

    Parameters
    ----------
    array : object
        With ``shape``, ``dtype`` and slicing.
    name : str, optional
        What it is called where a part of it turns out to be masked.

    Attributes
    ----------
    chunks : (int, int)
        Rows and columns of what is decoded at a time; 1 where that is not told.
    """

    def __init__(self, array: Any, name: str = "image") -> None:
        self._array, self._name = array, name
        self.shape: tuple[int, ...] = tuple(int(n) for n in array.shape)
        self.dtype = np.dtype(array.dtype)
        self.ndim = len(self.shape)
        self.size = int(np.prod(self.shape, dtype=object))
        self.chunks = chunks_of(array)

    def is_of(self, array: object) -> bool:
        """Return whether this is what is read."""
        return self._array is array

    def __getitem__(self, key: Any) -> AnyArray:
        return unmasked(self._array[key], self._name)


class LazyPart:
    """A part of an image that is read by slices, read by slices of rows itself.

    Parameters
    ----------
    image : LazyImage
        The whole.
    origin, shape : (int, int)
        Where the part begins in it, and its size.
    """

    def __init__(self, image: LazyImage, origin: Shape, shape: Shape) -> None:
        self._image, self._origin, self.shape, self.dtype = image, origin, shape, image.dtype

    def __getitem__(self, key: tuple[slice, slice]) -> AnyArray:
        rows, cols = (
            slice(start + part.indices(n)[0], start + part.indices(n)[1])
            for start, part, n in zip(self._origin, key, self.shape, strict=True)
        )
        return self._image[rows, cols]


def chunks_of(array: Any, name: str = "chunks") -> Shape:
    """Return rows and columns of the chunks of a store, at most its own; 1 where it has none."""
    try:
        rows, cols = (
            min(int(n), max(int(length), 1))
            for n, length in zip(getattr(array, name), array.shape, strict=True)
        )
    except (AttributeError, TypeError, ValueError):
        return 1, 1
    return max(rows, 1), max(cols, 1)


def written_chunks(store: Any) -> Shape:
    """Return rows and columns of what is best written at a time: shards, chunks, or 1."""
    shards = chunks_of(store, "shards")
    return shards if shards != (1, 1) else chunks_of(store)


def is_lazy(value: Any) -> bool:
    """Return whether ``value`` is better read in parts than turned into an array."""
    if isinstance(value, np.ndarray) or hasattr(value, "__array_interface__"):
        return False
    if not all(hasattr(value, name) for name in ("shape", "dtype", "__getitem__")):
        return False
    if hasattr(value, "tocoo"):  # parts of a sparse matrix are no arrays either
        return False
    try:
        np.dtype(value.dtype)
        return len(value.shape) == 2
    except TypeError:
        return False


def is_dask(value: Any) -> bool:
    """Return whether ``value`` is a Dask array, or a DataArray that holds one; imports nothing."""
    # Arrays of some dtypes have no buffer to be asked for.
    if isinstance(value, np.ndarray):
        return False
    return any(
        getattr(type(part), "__module__", "").partition(".")[0] == "dask"
        and hasattr(part, "__dask_graph__")
        and hasattr(part, "chunks")
        for part in (value, getattr(value, "data", None))
    )


@cache
def handed_over(module: str) -> ModuleType:
    """Return the module of `fastkernel.dask` that serves such images.

    By its name, and when the first one comes: it stands above whoever hands an image over to it,
    who knows nothing else of it.
    """
    return import_whole(f"fastkernel.dask.{module}")


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
    lines = [
        parts_of(start, n, length, boundary)
        for start, n, length in zip(origin, shape, image.shape, strict=True)
    ]
    needed = [_needed(line, length) for line, length in zip(lines, image.shape, strict=True)]
    out = np.zeros(shape, image.dtype)
    if not all(index.size for index in needed):
        return out
    rows, cols = (runs(index) for index in needed)
    parts = [[image[r0:r1, c0:c1] for c0, c1 in cols] for r0, r1 in rows]
    found = parts[0][0] if len(rows) == len(cols) == 1 else np.block(parts)
    # Where the part is the image's own, it is what was read.
    if all(len(line) == 1 and isinstance(line[0][1], slice) for line in lines):
        return found
    for rows_there, row in lines[0]:
        for cols_there, col in lines[1]:
            if row is not None and col is not None:
                line = found[_within(row, needed[0])]
                out[rows_there, cols_there] = line[:, _within(col, needed[1])]
    return out


def _needed(line: Sequence[Part], length: int) -> NDArray[np.intp]:
    """Return the pixels of an image of some length that parts of a line take, in order."""
    found = np.zeros(length, bool)
    for _, pixels in line:
        if pixels is not None:
            found[pixels] = True
    return np.flatnonzero(found)


def _within(pixels: slice | NDArray[np.intp], needed: NDArray[np.intp]) -> Any:
    """Return where pixels stand among those that were read."""
    if isinstance(pixels, slice):
        first = int(np.searchsorted(needed, pixels.start))
        return slice(first, first + pixels.stop - pixels.start)
    return np.searchsorted(needed, pixels)


def runs(index: NDArray[np.intp]) -> list[tuple[int, int]]:
    """Return the half-open runs of consecutive numbers in a sorted index."""
    if not index.size:
        return []
    parts = np.split(index, np.flatnonzero(np.diff(index) > 1) + 1)
    return [(int(part[0]), int(part[-1]) + 1) for part in parts]
