"""Blocks of images that are read by slices: every chunk of a store is decoded once, plus halos.

An image is parted into strips of whole chunks from top to bottom, and these into blocks. A strip
keeps the rows that it has read and needs again, so a chunk is decoded once for each strip that
needs pixels of it: its own, and a neighbour within reach of the kernel; and once more where a
"circular" border continues one end of the image with the other.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from fastkernel._images.borders import OUTSIDE, source_index
from fastkernel._images.lazy import LazyImage, runs, written_chunks
from fastkernel._images.windows import Window
from fastkernel._machine.tiles import Tile, split
from fastkernel._typing import AnyArray, Boundary, Shape

# Least rows, and columns where there are no chunks, of a block: at most 16 MB of float64 of each
# image is in memory at a time unless the kernel is taller than 128.
BLOCK_SHAPE = (256, 8192)

# Bytes of a block of whole chunks, or of two if those are larger: the wider, the fewer chunks are
# decoded for two strips.
_BLOCK_BYTES = 32 << 20


def block_shape(chunks: Shape, itemsize: int, least: int = 1) -> Shape:
    """Return rows and columns of blocks of whole chunks, of at least some rows."""
    rows = chunks[0] * math.ceil(max(BLOCK_SHAPE[0], least) / chunks[0])
    across = max(2, _BLOCK_BYTES // (rows * chunks[1] * itemsize))
    return rows, min(across, BLOCK_SHAPE[1]) if chunks[1] == 1 else chunks[1] * across


def cuts(length: int, step: int, offset: int = 0) -> Iterator[tuple[int, int]]:
    """Yield the half-open parts of a line that end where its place plus ``offset`` is a multiple.

    Examples
    --------
    >>> list(cuts(10, 4, 1))
    [(0, 3), (3, 7), (7, 10)]
    """
    # What little may stand before the line belongs to the first part.
    first = min(length, step - (offset if -step < offset < 0 else offset % step))
    yield 0, first
    for start, stop in split(length - first, step):
        yield first + start, first + stop


def blocks_of(
    image: AnyArray, window: Window, kernel_shape: Shape, out: AnyArray
) -> Iterator[tuple[Tile, AnyArray, Window]]:
    """Yield the blocks of what a kernel makes of an image, and what each is made of.

    Parameters
    ----------
    image : (m, n) array or LazyImage
        What is read.
    window : Window
        The outputs.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    out : array or store of the window's shape
        Where outputs go; blocks are whole chunks of it if it has any, or of the image.

    Yields
    ------
    tile : (int, int, int, int)
        ``(top, left, height, width)``, in pixels of the window.
    part : array
        In memory.
    inside : Window
        Of the block, as one of the part's outputs.
    """
    (p, q), (height, width) = kernel_shape, window.shape
    chunks, offset = chunks_beneath(image, out), (0, 0)
    if isinstance(image, LazyImage) and written_chunks(out) == (1, 1):
        offset = window.source_origin
    rows, cols = block_shape(chunks, max(image.dtype.itemsize, out.dtype.itemsize), 2 * p)
    down, across = (i if n > 1 else 0 for i, n in zip(offset, chunks, strict=True))
    for left, right in cuts(width, cols, across):
        strip: Strip | None = None
        for top, bottom in cuts(height, rows, down):
            (row, col), shape = window.source_pixel(top, left), (bottom - top, right - left)
            part, boundary = image, window.boundary
            if isinstance(image, LazyImage):
                first, end = col, col + shape[1] + q - 1
                start, stop = row, row + shape[0] + p - 1
                if boundary == "zero":
                    # What is filled in beyond the frame need not be of the image's dtype.
                    first, end = max(first, 0), min(end, image.shape[1])
                    start, stop = max(start, 0), min(stop, image.shape[0])
                strip = strip or Strip(image, first, end - first, boundary)
                part, boundary = strip.rows(start, stop, p), "zero"
                row, col = row - start, col - first
            inside = replace(
                window,
                source_origin=(row, col),
                result_origin=(0, 0),
                shape=shape,
                boundary=boundary,
            )
            yield (top, left, *shape), part, inside


def blocks_of_tiles(image: AnyArray, tile_shape: Shape, halo: Shape, out: AnyArray) -> list[Tile]:
    """Return blocks of whole tiles, strip by strip; an array to an array is one block.

    Where the chunks of ``out``, or of the image if ``out`` has none, are larger than tiles, blocks
    are whole chunks.
    """
    (m, n) = image.shape
    if isinstance(out, np.ndarray) and not isinstance(image, LazyImage):
        return [(0, 0, m, n)]
    chunks = chunks_beneath(image, out)
    rows, cols = map(max, zip(tile_shape, chunks, strict=True))
    if chunks[1] > 1:
        size = (rows + 2 * halo[0]) * cols * max(image.dtype.itemsize, out.dtype.itemsize)
        cols *= max(1, _BLOCK_BYTES // size)
    return [
        (top, left, bottom - top, right - left)
        for left, right in split(n, cols)
        for top, bottom in split(m, rows)
    ]


def surrounded(
    image: AnyArray, blocks: Sequence[Tile], halo: Shape
) -> Iterator[tuple[Tile, AnyArray, Shape]]:
    """Yield blocks, by `blocks_of_tiles`, with what stands around them in an image.

    Yields
    ------
    block : (int, int, int, int)
        ``(top, left, height, width)``, in pixels of the image.
    part : array
        In memory, a halo wider where the image has one.
    origin : (int, int)
        Where the part begins in the image.
    """
    strip: Strip | None = None
    for block in blocks:
        top, left, height, width = block
        first, end = max(left - halo[1], 0), min(left + width + halo[1], image.shape[1])
        start, stop = max(top - halo[0], 0), min(top + height + halo[0], image.shape[0])
        if isinstance(image, LazyImage):
            if strip is None or top == 0:
                strip = Strip(image, first, end - first, "zero")
            yield block, strip.rows(start, stop), (start, first)
        else:
            yield block, image[start:stop, first:end], (start, first)


def chunks_beneath(image: AnyArray, out: AnyArray) -> Shape:
    """Return the chunks of a store that is written, or of an image that is read; 1 for neither."""
    chunks = (1, 1) if isinstance(out, np.ndarray) else written_chunks(out)
    if chunks == (1, 1) and isinstance(image, LazyImage):
        return image.chunks
    return chunks


class Strip:
    """Some columns of an endless image, read from top to bottom.

    Parameters
    ----------
    image : LazyImage
        What to read.
    first, count : int
        The first column, which may lie beyond the frame, and how many there are.
    boundary : str
        What stands beyond the frame, as in `borders.source_index`.
    """

    def __init__(self, image: LazyImage, first: int, count: int, boundary: Boundary) -> None:
        self._image, self._count, self._boundary = image, count, boundary
        place = source_index(first, first + count, image.shape[1], boundary)
        self._inside = place != OUTSIDE
        needed = np.unique(place[self._inside])
        self._runs = runs(needed)
        self._cols = np.searchsorted(needed, place[self._inside])
        self._plain = np.array_equal(place, needed)
        self._held, self._top = np.empty((0, len(needed)), image.dtype), 0

    def rows(self, start: int, stop: int, again: int = 0) -> AnyArray:
        """Return rows that may lie beyond the frame, at or below those of the call before.

        Parameters
        ----------
        start, stop : int
            Half-open range.
        again : int, optional
            How many rows above ``start``, in the frame, a later call may need.

        Returns
        -------
        (stop - start, count) array
            Of the image's dtype; not to be written to.
        """
        length = self._image.shape[0]
        first, last = (min(max(i, 0), length) for i in (start, stop))
        self._hold(max(first - again, 0), last)
        if self._plain and (first, last) == (start, stop):
            return self._held[first - self._top : last - self._top]
        place = source_index(start, stop, length, self._boundary)
        inside = place != OUTSIDE
        place = place[inside]
        here = (place >= self._top) & (place < self._top + len(self._held))
        elsewhere = np.unique(place[~here])
        found = np.concatenate([self._held, *(self._read(*run) for run in runs(elsewhere))])
        row = place - self._top
        row[~here] = len(self._held) + np.searchsorted(elsewhere, place[~here])
        out = np.zeros((stop - start, self._count), self._image.dtype)
        out[np.ix_(inside, self._inside)] = found[np.ix_(row, self._cols)]
        return out

    def _hold(self, first: int, last: int) -> None:
        """Read on, to the end of a chunk, and forget what stands above."""
        held, bottom = self._held[max(first - self._top, 0) :], self._top + len(self._held)
        if last > bottom:
            size = self._image.chunks[0]
            start = max(bottom, first)
            end = min(-(-last // size) * size, self._image.shape[0])
            more = self._read(start, end)
            held = np.concatenate([held, more]) if len(held) else more
        self._held, self._top = held, max(first, self._top)

    def _read(self, start: int, stop: int) -> AnyArray:
        parts = [self._image[start:stop, left:right] for left, right in self._runs]
        if len(parts) == 1:
            return parts[0]
        return np.hstack(parts) if parts else np.empty((stop - start, 0), self._image.dtype)
