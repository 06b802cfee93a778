"""Graphs of tasks, written by hand: one task a cell, one a chunk that others border on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from dask._task_spec import DataNode, Task, TaskRef
from dask.base import tokenize
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

from fastkernel.dask.cells import Cells, Rect, Span, spans
from fastkernel.dask.inputs import Image
from fastkernel.dask.reading import Job, Reading, cut_rims, run_cell

# Share of a chunk from which on it goes to another cell as a whole, and that of all its rims.
_MOST_OF_RIM, _MOST_OF_RIMS = 1 / 4, 1 / 2


class Tasks(NamedTuple):
    """Tasks of a window.

    Attributes
    ----------
    name : str
        Of the tasks of cells, whose keys are ``(name, i, j)``.
    layer : dict
        All tasks.
    arrays : list
        The Dask arrays that they read.
    shape : (int, int)
        Rows and columns of cells.
    """

    name: str
    layer: dict[Any, Any]
    arrays: list[Any]
    shape: tuple[int, int]

    @property
    def keys(self) -> list[Any]:
        """The cells', row by row."""
        rows, cols = self.shape
        return [(self.name, i, j) for i in range(rows) for j in range(cols)]

    def graph(self) -> HighLevelGraph:
        """Return the graph of these tasks and of what they read."""
        return HighLevelGraph.from_collections(self.name, self.layer, dependencies=self.arrays)


def tasks_of(
    label: str,
    readings: Sequence[tuple[Reading, Image]],
    cells: Cells,
    work: Callable[..., Any],
    *unique: Any,
) -> Tasks:
    """Return the tasks of a window.

    Parameters
    ----------
    label : str
        What dashboards show.
    readings : sequence of (Reading, Image)
        The images, and how each is read.
    cells : Cells
        One a task.
    work : callable
        What a task does; see `Job`.
    unique : optional
        What besides all of this tells these tasks from others.
    """
    job = Job(tuple(how for how, _ in readings), work)
    arrays = [image.array for _, image in readings if image.array is not None]
    token = tokenize(job, cells, [array.name for array in arrays], *unique)
    name, shared = f"{label}-{token}", f"{label}-job-{token}"
    layer: dict[Any, Any] = {shared: DataNode(shared, job)}
    given: dict[tuple[int, int], list[tuple[int, Any, Any]]] = defaultdict(list)
    for number, (how, image) in enumerate(readings):
        if image.array is not None:
            for cell, place, key in _given(
                f"{label}-rims-{token}", number, how, image, cells, layer
            ):
                given[cell].append((number, place, key))
    for i, rows in enumerate(cells.rows):
        for j, cols in enumerate(cells.cols):
            values = given[i, j]
            layout = tuple((number, place) for number, place, _ in values)
            refs = (TaskRef(key) for _, _, key in values)
            key = name, i, j
            layer[key] = Task(key, run_cell, TaskRef(shared), _parts(rows, cols), layout, *refs)
    return Tasks(name, layer, arrays, (len(cells.rows), len(cells.cols)))


def _parts(rows: Sequence[int], cols: Sequence[int]) -> tuple[Rect, ...]:
    return tuple(
        (top, left, bottom - top, right - left)
        for top, bottom in pairwise(rows)
        for left, right in pairwise(cols)
    )


def _given(
    label: str, number: int, how: Reading, image: Image, cells: Cells, layer: dict[Any, Any]
) -> Iterator[tuple[tuple[int, int], Any, Any]]:
    """Yield which cell is given which chunk of an array, or what was cut off it.

    A chunk that lies in one cell goes there as it is. Its neighbours need a few rows and columns:
    they are given copies of these, which are all that travels.
    """
    lines = zip(cells, how.origin, how.margin, image.edges, strict=True)
    down, across = (
        _by_chunk(line, origin, margin, edges, how.boundary)
        for line, origin, margin, edges in lines
    )
    tops, lefts = image.edges
    for a, rows in down.items():
        for b, cols in across.items():
            area = (tops[a + 1] - tops[a]) * (lefts[b + 1] - lefts[b])
            place, key = (tops[a], lefts[b]), (image.array.name, a, b)
            needed = {(i, j): _rect(r, c) for i, r in rows for j, c in cols}
            rims = {
                rect
                for rect in needed.values()
                if len(needed) > 1 and rect[2] * rect[3] <= area * _MOST_OF_RIM
            }
            rims = _outermost(rims)
            if sum(height * width for _, _, height, width in rims) > area * _MOST_OF_RIMS:
                rims = set()
            cut = f"{label}-{number}", a, b
            if rims:
                layer[cut] = Task(cut, cut_rims, TaskRef(key), place, tuple(sorted(rims)))
            for cell, rect in needed.items():
                rim = any(_inside(rect, other) for other in rims)
                yield (cell, None, cut) if rim else (cell, place, key)


def _by_chunk(
    line: Sequence[Sequence[int]], origin: int, margin: int, edges: Sequence[int], boundary: Any
) -> dict[int, list[tuple[int, Span]]]:
    """Return by chunk which cells of a line need what of it."""
    found: dict[int, list[tuple[int, Span]]] = defaultdict(list)
    for i, cell in enumerate(line):
        start, stop = cell[0] + origin, cell[-1] + origin + margin
        for span in spans(start, stop, edges, boundary):
            found[span.chunk].append((i, span))
    return found


def _rect(rows: Span, cols: Span) -> Rect:
    return rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start


def _inside(rect: Rect, other: Rect) -> bool:
    return all(
        other[axis] <= rect[axis] and rect[axis] + rect[axis + 2] <= other[axis] + other[axis + 2]
        for axis in (0, 1)
    )


def _outermost(rects: set[Rect]) -> set[Rect]:
    """Return the rectangles that lie in no other."""
    return {r for r in rects if not any(r != other and _inside(r, other) for other in rects)}


def summed(
    tasks: Tasks,
    add: Callable[..., Any],
    split_every: int,
    some: Sequence[tuple[int, int]] | None = None,
) -> Delayed:
    """Return the sum over cells, taken in one order whatever the scheduler does.

    Parameters
    ----------
    tasks : Tasks
        Whose outcomes add up.
    add : callable
        ``add(*outcomes)``.
    split_every : int
        How many are added by a task.
    some : sequence of (int, int), optional
        The cells, at least one; all of them if None. The tasks of others are not run.
    """
    label, _, token = tasks.name.rpartition("-")
    level, keys = 0, tasks.keys if some is None else [(tasks.name, *cell) for cell in some]
    while len(keys) > 1:
        groups = [keys[first : first + split_every] for first in range(0, len(keys), split_every)]
        # What is left over by itself is handed on as it is.
        keys = [
            (f"{label}-sum-{token}", level, number) if len(group) > 1 else group[0]
            for number, group in enumerate(groups)
        ]
        for key, group in zip(keys, groups, strict=True):
            if len(group) > 1:
                tasks.layer[key] = Task(key, add, *map(TaskRef, group))
        level += 1
    return Delayed(keys[0], tasks.graph(), layer=tasks.name)
