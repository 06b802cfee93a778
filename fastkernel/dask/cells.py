"""Cutting the pixels of a window into cells that follow chunks, and what each needs to read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np

from fastkernel._images.borders import OUTSIDE, source_index
from fastkernel._images.lazy import runs
from fastkernel._typing import Boundary, Shape

# Row, column, height and width in pixels of the window.
Rect: TypeAlias = tuple[int, int, int, int]
Edges: TypeAlias = tuple[list[int], list[int]]

# Bytes of an image that a task reads at a time: as many chunks as that holds, at least one.
PART_BYTES = 32 << 20


class Cells(NamedTuple):
    """A grid of cells.

    Attributes
    ----------
    rows, cols : list of list of int
        Of every row or column of cells the edges of its parts, the first of which is the cell's
        own beginning and the last its end, in pixels of the window.
    """

    rows: list[list[int]]
    cols: list[list[int]]

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The cells' sizes, as Dask has them."""
        rows, cols = (tuple(e[-1] - e[0] for e in line) for line in self)
        return rows, cols


def edges_of(sizes: Sequence[int]) -> list[int]:
    """Return where chunks begin, and where the last one ends.

    Examples
    --------
    >>> edges_of((3, 4))
    [0, 3, 7]
    """
    return [0, *np.cumsum(sizes).tolist()]


def within(edges: Sequence[int], start: int, size: int) -> list[int]:
    """Return edges between chunks inside a part of a line, in pixels of the part.

    Examples
    --------
    >>> within([0, 3, 7, 9], 2, 6)
    [0, 1, 5, 6]
    """
    inside = (edge - start for edge in edges[1:-1] if 0 < edge - start < size)
    return [0, *dict.fromkeys(inside), size]


def merged(edges: Sequence[int], least: float) -> list[int]:
    """Return the edges between parts of at least so many pixels; one part where there are fewer.

    Examples
    --------
    >>> merged([0, 3, 6, 9, 12], 5)
    [0, 6, 12]
    >>> merged([0, 3, 6, 9, 10], 6)
    [0, 10]
    """
    kept = [edges[0]]
    for edge in edges[1:]:
        if edge - kept[-1] >= least:
            kept.append(edge)
    if kept[-1] != edges[-1]:
        # What is left over is too short for a part of its own.
        kept[max(len(kept) - 1, 1) :] = [edges[-1]]
    return kept


def nearest(edges: Sequence[int], bounds: Sequence[int]) -> list[int]:
    """Return the edges that are nearest to bounds, both ends among them.

    Examples
    --------
    >>> nearest([0, 4, 8, 12], [0, 5, 7, 12])
    [0, 4, 8, 12]
    >>> nearest([0, 10, 20], [0, 3, 6, 9, 20])
    [0, 10, 20]
    """
    line = np.asarray(edges)
    between = np.searchsorted((line[1:] + line[:-1]) / 2, bounds)
    return [int(edge) for edge in np.unique(line[between])]


def cut(edges: Edges, bounds: Edges, part: Shape) -> Cells:
    """Return a grid of cells.

    Parameters
    ----------
    edges, bounds : pair of lists of int
        Those of chunks along both axes, and which of them the cells have.
    part : (int, int)
        Most rows and columns of what a task reads at a time, if a chunk has no more.
    """
    lines = []
    for line, some, most in zip(edges, bounds, part, strict=True):
        cells = pairwise(some)
        lines.append([_packed([e for e in line if a <= e <= b], most) for a, b in cells])
    return Cells(*lines)


def _packed(edges: Sequence[int], most: int) -> list[int]:
    """Return the edges of parts of at most so many pixels, or of one chunk that has more."""
    kept = [edges[0]]
    for before, edge in pairwise(edges):
        if edge - kept[-1] > most and before > kept[-1]:
            kept.append(before)
    return [*kept, edges[-1]]


def sides(edges: Edges, n_pixels: float) -> Shape:
    """Return the sides of nearly square parts of a window that hold so many pixels."""
    height, width = edges[0][-1], edges[1][-1]
    side = math.ceil(math.sqrt(n_pixels))
    if width < side:
        return min(height, math.ceil(n_pixels / width)), width
    return min(height, side), min(width, math.ceil(n_pixels / min(height, side)))


class Span(NamedTuple):
    """What is needed of a chunk along one axis: pixels of the image, half-open."""

    chunk: int
    start: int
    stop: int


def spans(start: int, stop: int, edges: Sequence[int], boundary: Boundary) -> list[Span]:
    """Return what of which chunks stands at each place of ``start <= i < stop``.

    Parameters
    ----------
    start, stop : int
        Places along a line of the image; may lie beyond its frame.
    edges : sequence of int
        Of the image's chunks.
    boundary : str
        What stands beyond the frame, as in `source_index`.

    Returns
    -------
    list of Span
        At most one a chunk: from the first to the last pixel that is needed.

    Examples
    --------
    >>> spans(-2, 3, [0, 4, 8], "circular")
    [Span(chunk=0, start=0, stop=3), Span(chunk=1, start=6, stop=8)]
    """
    length = edges[-1]
    needed = [(max(start, 0), min(stop, length))]
    for first, last in ((start, min(stop, 0)), (max(start, length), stop)):
        if first < last:
            index = source_index(first, last, length, boundary)
            needed += runs(np.unique(index[index != OUTSIDE]))
    found: dict[int, Span] = {}
    for first, last in needed:
        if first >= last:
            continue
        number = int(np.searchsorted(edges, first, side="right")) - 1
        while number < len(edges) - 1 and edges[number] < last:
            low, high = max(first, edges[number]), min(last, edges[number + 1])
            old = found.get(number, Span(number, low, high))
            found[number] = Span(number, min(low, old.start), max(high, old.stop))
            number += 1
    return [found[number] for number in sorted(found)]
