"""What a task reads: parts of an endless image, from chunks that it was given or from a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np

from fastkernel._images.borders import OUTSIDE, source_index
from fastkernel._images.lazy import LazyImage, read
from fastkernel._typing import AnyArray, BoolArray, Boundary, Shape
from fastkernel.dask.cells import Rect

# Pixels of an image, and the row and column of the first.
Piece: TypeAlias = tuple[int, int, AnyArray]


class Patchwork:
    """An image of which some pixels are here.

    Parameters
    ----------
    shape : (int, int)
        Of the whole image.
    dtype : dtype
        Of its pixels.
    pieces : sequence of (int, int, array)
        Row and column of a part's first pixel, and the part. Where parts overlap they agree.
    """

    def __init__(self, shape: Shape, dtype: np.dtype[Any], pieces: Sequence[Piece]) -> None:
        self.shape, self.dtype, self._pieces = shape, dtype, pieces

    def __getitem__(self, key: tuple[slice, slice]) -> AnyArray:
        (top, bottom), (left, right) = ((part.start, part.stop) for part in key)
        out = np.empty((bottom - top, right - left), self.dtype)
        for row, col, pixels in self._pieces:
            first, last = max(top, row), min(bottom, row + pixels.shape[0])
            start, stop = max(left, col), min(right, col + pixels.shape[1])
            if first < last and start < stop:
                part = pixels[first - row : last - row, start - col : stop - col]
                out[first - top : last - top, start - left : stop - left] = part
        return out


class Part(NamedTuple):
    """A part of an endless image.

    Attributes
    ----------
    pixels : (rows, cols) array
        Of the image's dtype.
    bad : (rows, cols) bool array or None
        Where the image carries a mask.
    places : ((rows,) array, (cols,) array)
        Which rows and columns of the image stand there, `OUTSIDE` for none.
    """

    pixels: AnyArray
    bad: BoolArray | None
    places: tuple[AnyArray, AnyArray]

    def place(self, row: int, col: int) -> Shape:
        """Return where a pixel stands in the whole image."""
        return int(self.places[0][row]), int(self.places[1][col])

    def refuse_masked(self, advice: str) -> None:
        """Raise if a mask is set, which would be lost."""
        if self.bad is not None and self.bad.any():
            row, col = np.argwhere(self.bad)[0]
            msg = (
                f"image must not be masked, got a mask that is set at index "
                f"{self.place(row, col)} and would be lost here; {advice}"
            )
            raise TypeError(msg)


@dataclass(frozen=True)
class Reading:
    """How the tasks of a window read one of their images.

    Attributes
    ----------
    name : str
        In messages.
    shape, dtype
        Of the whole image.
    store : object, callable or None
        What is read by slices, or opens it; None where tasks are given chunks.
    origin : (int, int)
        Row and column of the image that the window's first pixel reads first.
    margin : (int, int)
        How many more rows and columns than a part of the window has are read for it.
    boundary : str
        What stands beyond the frame.
    """

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    store: Any
    origin: Shape = (0, 0)
    margin: Shape = (0, 0)
    boundary: Boundary = "zero"

    def place(self, rect: Rect) -> tuple[Shape, Shape]:
        """Return the first row and column that a part of the window reads, and how many."""
        (top, left), (down, across) = self.origin, self.margin
        return (rect[0] + top, rect[1] + left), (rect[2] + down, rect[3] + across)

    def view(self, pieces: Sequence[Piece]) -> View:
        """Return what reads: the store, opened, or chunks."""
        if self.store is None:
            return View(self, Patchwork(self.shape, self.dtype, _unmasked(pieces)), _masks(pieces))
        return View(self, opened(self.store), [])


class View:
    """An image, as a task sees it.

    Parameters
    ----------
    reading : Reading
        How.
    image : object
        What is read by slices.
    masks : sequence of (int, int, bool array)
        Where a part of it is masked.
    """

    def __init__(self, reading: Reading, image: Any, masks: Sequence[Piece]) -> None:
        self.reading, self._image = reading, LazyImage(image, reading.name)
        self._masks = masks

    def read(self, rect: Rect) -> Part:
        """Return what a part of the window needs."""
        how = self.reading
        origin, shape = how.place(rect)
        pixels = read(self._image, origin, shape, how.boundary)
        bad = None
        if self._masks:
            masks = LazyImage(Patchwork(how.shape, np.dtype(bool), self._masks))
            bad = cast(BoolArray, read(masks, origin, shape, how.boundary))
        rows, cols = (
            source_index(start, start + n, length, how.boundary)
            for start, n, length in zip(origin, shape, how.shape, strict=True)
        )
        return Part(pixels, bad, (rows, cols))


def opened(store: Any) -> Any:
    """Return what can be sliced: a store, or what a callable opens."""
    return store() if callable(store) and not hasattr(store, "shape") else store


def beyond(part: Part) -> BoolArray | None:
    """Return which pixels of a part lie beyond the frame where zeros stand; None for none."""
    rows, cols = (place == OUTSIDE for place in part.places)
    return rows[:, None] | cols if rows.any() or cols.any() else None


def _unmasked(pieces: Sequence[Piece]) -> list[Piece]:
    return [(row, col, np.ma.getdata(pixels)) for row, col, pixels in pieces]


def _masks(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the masks of pieces; none where no pixel is masked."""
    if not any(np.ma.is_masked(pixels) for _, _, pixels in pieces):
        return []
    return [(row, col, np.ma.getmaskarray(pixels)) for row, col, pixels in pieces]


@dataclass(frozen=True)
class Job:
    """What all tasks of a window share.

    Attributes
    ----------
    readings : tuple of Reading
        Of every image that they read.
    work : callable
        ``work(views, parts)``, what a task does.
    """

    readings: tuple[Reading, ...]
    work: Callable[[list[View], Sequence[Rect]], Any]


# Which image a value belongs to, and where its first pixel stands; None where it is a list of
# pieces, which say that themselves.
Layout: TypeAlias = Sequence[tuple[int, Shape | None]]


def run_cell(job: Job, parts: Sequence[Rect], layout: Layout, *values: Any) -> Any:
    """Run a task: give every image the pixels that came with it, and do the work."""
    pieces: list[list[Piece]] = [[] for _ in job.readings]
    for (number, place), value in zip(layout, values, strict=True):
        pieces[number] += value if place is None else [(*place, np.asanyarray(value))]
    views = [how.view(some) for how, some in zip(job.readings, pieces, strict=True)]
    return job.work(views, parts)


def cut_rims(chunk: Any, place: Shape, rects: Sequence[Rect]) -> list[Piece]:
    """Return copies of what other cells need of a chunk, whose first pixel stands at ``place``."""
    pixels = np.asanyarray(chunk)
    return [
        (
            top,
            left,
            pixels[
                top - place[0] : top - place[0] + height, left - place[1] : left - place[1] + width
            ].copy(),
        )
        for top, left, height, width in rects
    ]
