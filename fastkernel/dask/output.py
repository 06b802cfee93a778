"""Where the output of tasks goes: an array of Dask's, or a store whose chunks they write whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from uuid import uuid4

import dask.array
import numpy as np
from dask.array.core import normalize_chunks

from fastkernel._typing import AnyArray, Shape
from fastkernel.dask.cells import PART_BYTES, Cells, Rect, cut, edges_of, merged, sides, within
from fastkernel.dask.graph import summed, tasks_of
from fastkernel.dask.inputs import Image, refuse_unpicklable
from fastkernel.dask.labels import labelled
from fastkernel.dask.reading import Reading, View, opened

# How many tasks one task waits for, and how many the cores of a cluster should find at least.
_TOGETHER, _LEAST_TASKS = 128, 64


@dataclass(frozen=True)
class Target:
    """A store for an output, and the cells in which it is written.

    Attributes
    ----------
    store : object or callable
        What takes slices, or opens it.
    shape : (int, int)
        Its rows and columns.
    dtype : dtype
        Of its pixels.
    cells : Cells
        Of whole chunks, so that no two tasks write one.
    """

    store: Any
    shape: Shape
    dtype: np.dtype[Any]
    cells: Cells


@dataclass(frozen=True)
class _Writing:
    """What a task does."""

    work: Any
    store: Any
    dtype: np.dtype[Any]

    def __call__(self, views: Sequence[View], parts: Sequence[Rect]) -> None:
        store = opened(self.store)
        for rect in parts:
            top, left, height, width = rect
            found = as_pixels(self.work(views, [rect]), self.dtype)
            store[top : top + height, left : left + width] = found


def as_pixels(found: AnyArray, dtype: np.dtype[Any]) -> AnyArray:
    """Return what was found in a store's dtype: integers rounded, and clipped to their range.

    Examples
    --------
    >>> as_pixels(np.array([-3.0, 1.4, 300.0]), np.dtype("uint8")).tolist()
    [0, 1, 255]
    """
    if dtype.kind in "iu":
        if not np.isfinite(found).all():
            msg = f"out must be of floats for an output that is not finite, got {dtype}"
            raise ValueError(msg)
        ends = np.iinfo(dtype)
        found = np.rint(found, out=found)
        np.clip(found, ends.min, ends.max, out=found)
    return found.astype(dtype, copy=False)


def as_store(value: Any, name: str, shape: Shape) -> Target:
    """Return an argument as what takes an output of a shape.

    Raises
    ------
    TypeError
        If it takes no slices, does not pickle, is not of real numbers, or is an array in memory, of
        which workers would write to copies.
    ValueError
        If it is of another shape.
    """
    store = opened(value)
    takes = all(hasattr(store, need) for need in ("shape", "dtype", "__setitem__"))
    if not takes or isinstance(value, np.ndarray):
        msg = (
            f"{name} must be a store that takes slices, such as a Zarr array, or a callable that "
            f"opens one, got {type(store).__name__}"
        )
        raise TypeError(msg)
    if value is store:
        refuse_unpicklable(value, name)
    if tuple(store.shape) != shape:
        msg = f"{name} must have shape {shape}, got {tuple(store.shape)}"
        raise ValueError(msg)
    dtype = np.dtype(store.dtype)
    if dtype.kind not in "iuf" or dtype in (np.int64, np.uint64):
        msg = f"{name} must be of floats or of integers up to 32 bits, got dtype {dtype}"
        raise TypeError(msg)
    # A shard is written as a whole.
    sizes = getattr(store, "shards", None) or getattr(store, "chunks", None) or "auto"
    rows, cols = normalize_chunks(sizes, shape, limit="16MiB", dtype=np.float64)
    edges = edges_of(rows), edges_of(cols)
    # What a task holds in float64, and reads, is a few times this; but no few tasks take all.
    part = sides(edges, min(PART_BYTES / 8, math.prod(shape) / _LEAST_TASKS))
    bounds = merged(edges[0], part[0]), merged(edges[1], part[1])
    return Target(value, shape, dtype, cut(edges, bounds, part))


def output_of(
    label: str,
    image: Any,
    readings: Sequence[tuple[Reading, Image]],
    work: Any,
    dtype: np.dtype[Any],
    starts: Shape,
    shape: Shape,
    out: Any,
    compute: bool,
) -> Any:
    """Return what tasks find, or write it to a store.

    Parameters
    ----------
    label : str
        What dashboards show.
    image : object
        As it was given.
    readings : sequence of (Reading, Image)
        What tasks read.
    work : callable
        ``work(views, [rect])``, the output of a part.
    dtype : dtype
        Of what it returns.
    starts, shape : (int, int)
        Where in the image the output begins, and its rows and columns.
    out : object or None
        A store.
    compute : bool
        Whether to write it now.
    """
    if out is not None:
        target = as_store(out, "out", shape)
        writer = _Writing(work, target.store, target.dtype)
        tasks = tasks_of(f"{label}-to", readings, target.cells, writer, uuid4().hex)
        written = summed(tasks, _done, _TOGETHER)
        if not compute:
            return written
        written.compute()
        return out
    edges = [within(*line) for line in zip(readings[0][1].edges, starts, shape, strict=True)]
    cells = Cells(*([[a, b] for a, b in pairwise(line)] for line in edges))
    tasks = tasks_of(label, readings, cells, work)
    found = dask.array.Array(tasks.graph(), tasks.name, cells.chunks, dtype)
    return labelled(found, image, starts)


def _done(*_: None) -> None:
    """Wait for tasks."""
