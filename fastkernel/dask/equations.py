"""Normal equations of images on a cluster: one task a cell, and a tree of sums."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Literal, cast

import numpy as np
from dask.delayed import Delayed

from fastkernel._images.checks import as_count, as_degree, as_workers
from fastkernel._images.usable import PixelRules
from fastkernel._typing import Background, Border, Engine, FloatArray, NanPolicy, Saturation, Shape
from fastkernel.dask.cells import Rect
from fastkernel.dask.graph import summed, tasks_of
from fastkernel.dask.pairs import ClusterPair, Pixels, as_batch, as_pair
from fastkernel.dask.reading import View
from fastkernel.estimation.equations.formed import normal_equations as gathered
from fastkernel.estimation.equations.gathering import as_engine
from fastkernel.estimation.equations.gathering_cost import choose_engine
from fastkernel.estimation.equations.normal_equations import NormalEquations
from fastkernel.estimation.equations.residual import residual_equations as left_over
from fastkernel.estimation.methods.lstsq import FORMED


@dataclass(frozen=True)
class Way:
    """How the sums of a pair are taken.

    Attributes
    ----------
    background : int or None
        Degree of what the result has beside the convolution.
    engine : str
        Of all cells.
    batch : int or "auto"
        Chunks of the result in a cell.
    split_every : int
        Sums that a task adds.
    workers : int
        Threads of a task.
    """

    background: int | None
    engine: Engine
    batch: Any
    split_every: int
    workers: int


def normal_equations(
    source: Any,
    result: Any,
    kernel_shape: Shape | int,
    *,
    boundary: Border | None = None,
    background: Background | None = None,
    weights: Any = None,
    mask: Any = None,
    source_mask: Any = None,
    saturation: Saturation | None = None,
    nan_policy: NanPolicy = "raise",
    engine: Engine = "auto",
    batch: int | Literal["auto"] = "auto",
    split_every: int = 8,
    workers: int = 1,
) -> Delayed:
    r"""Gather the normal equations of a kernel from images on a cluster.

    Nothing is padded and nothing rechunked. A task takes the pixels of some chunks of the result
    and names the rectangles of the source's chunks that belong to them, beyond the frame by the
    border's rule; the sums of all tasks are added by a tree.

    Parameters
    ----------
    source, result : (m, n) and (rows, cols) images of real numbers
        As in `fastkernel.normal_equations`, each one of: a Dask array, of chunks of any size; an
        `xarray.DataArray`; a store that is read by slices and pickles, such as a Zarr array,
        which tasks read themselves; a callable without arguments that opens one on the worker,
        such as ``lambda: h5py.File(path)["image"]``.
    kernel_shape : (int, int) or int
        Rows ``p`` and columns ``q`` of the kernel, in pixels; at most 4096 taps.
    boundary, background, engine : optional
        As in `fastkernel.normal_equations`. The engine is chosen once, for the whole image, and a
        background is that of the whole.
    weights, mask, source_mask : image, optional
        As there; of any of these kinds. Masks of chunks (`numpy.ma`) are used as well.
    saturation, nan_policy : optional
        As there, but for ``saturation="auto"``.
    batch : int or "auto", optional
        How many chunks of the result a task takes. "auto": so many that their equations have at
        most a sixteenth of the bytes of their pixels.
    split_every : int, optional
        How many sums a task adds, at least 2.
    workers : int, optional
        Threads of a task, beside what the scheduler runs at once.

    Returns
    -------
    dask.delayed.Delayed
        Of `NormalEquations`. For integers of at most 8 bits they are those of one machine bit for
        bit, however the images are chunked; others are the same bits in every scheduler.

    Raises
    ------
    TypeError, ValueError
        As `fastkernel.normal_equations` does; if an image is none of the above or does not
        pickle; if its chunks are of unknown sizes. The tasks raise what they find in the pixels,
        with indices in the whole image.

    Examples
    --------
    >>> import dask.array as da
    >>> import fastkernel
    >>> import numpy as np
    >>> from scipy import ndimage
    >>> image = np.random.default_rng(0).integers(0, 256, (60, 70), dtype=np.uint8)
    >>> blurred = ndimage.convolve(image, [[0, 1, 0], [1, 2, 1], [0, 1, 0]])
    >>> source, result = da.from_array(image, chunks=20), da.from_array(blurred, chunks=25)
    >>> equations = normal_equations(source, result, 3, boundary="symmetric").compute()
    >>> whole = fastkernel.normal_equations(image, blurred, 3, boundary="symmetric")
    >>> bool((equations.gram == whole.gram).all())
    True
    """
    rules = PixelRules(mask, source_mask, weights, saturation, nan_policy)
    pair = as_pair(source, result, kernel_shape, boundary, rules)
    return equations_of(pair, as_way(pair, background, engine, batch, split_every, workers))


def as_way(
    pair: ClusterPair, background: Any, engine: Any, batch: Any, split_every: Any, workers: Any
) -> Way:
    """Return how to sum, checked, with the engine that the whole image asks for."""
    taps = math.prod(pair.kernel_shape)
    if taps > FORMED:
        msg = (
            f"kernel_shape must have at most {FORMED} taps on a cluster, where equations are "
            f"formed, got {pair.kernel_shape}, {taps}; crop the images to one machine's memory "
            "and use fastkernel.estimate_kernel"
        )
        raise ValueError(msg)
    if as_count(split_every, "split_every") < 2:
        msg = f"split_every must be at least 2, got {split_every!r}"
        raise ValueError(msg)
    degree = None if background is None else as_degree(background)
    # All that is asked of these is what their pixels are.
    source, result = cast(Any, pair.source), cast(Any, pair.result)
    chosen = as_engine(engine, cast(Any, [pair]))
    if chosen == "auto":
        chosen = choose_engine(source, result, pair.window.shape, pair.kernel_shape)
    threads = as_workers(1 if workers is None else workers)
    return Way(degree, cast(Engine, chosen), as_batch(batch), int(split_every), threads)


def equations_of(pair: ClusterPair, way: Way) -> Delayed:
    """Return the sums over a pair."""
    work = _Gathering(pair.kernel_shape, pair.window.shape, pair.rules, way)
    return _summed("equations", pair, way, work)


def counted_of(pair: ClusterPair, way: Way, *, between_ends: bool = False) -> Delayed:
    """Return `Counted` sums over a pair, or over its result's pixels that no range cut off."""
    work = _Counting(pair.kernel_shape, pair.window.shape, pair.rules, way, between_ends)
    return _summed("equations", pair, way, work)


def residual_of(pair: ClusterPair, way: Way, kernel: FloatArray, background: Any) -> Delayed:
    """Return the sums over what a kernel leaves of a pair, for `NormalEquations.refine`."""
    work = _Leaving(pair.kernel_shape, pair.window.shape, pair.rules, way, kernel, background)
    return _summed("residual", pair, way, work)


def _summed(label: str, pair: ClusterPair, way: Way, work: Any) -> Delayed:
    taps = math.prod(pair.kernel_shape)
    tasks = tasks_of(label, pair.readings(), pair.cells(way.batch, 8 * taps * taps), work)
    return summed(tasks, _added, way.split_every)


def _added(*outcomes: Any) -> Any:
    return reduce(add, outcomes)


@dataclass(frozen=True)
class _Gathering:
    """What a task does: the equations of the parts of a cell, added up."""

    kernel_shape: Shape
    window_shape: Shape
    rules: dict[str, Any]
    way: Way

    def __call__(self, views: list[View], parts: Sequence[Rect]) -> Any:
        return _added(*(self._of(Pixels(views, rect), rect) for rect in parts))

    def _of(self, pixels: Pixels, rect: Rect) -> Any:
        images = pixels["source"].pixels, pixels["result"].pixels
        options = {**self.rules, **pixels.options(), "workers": self.way.workers}
        if self.way.background is not None:
            options["within"] = (rect[0], rect[1]), self.window_shape
        try:
            return self._equations(images, options)
        except ValueError:
            pixels.refuse_unusable()
            raise

    def _equations(self, images: tuple[Any, Any], options: dict[str, Any]) -> NormalEquations:
        way = self.way
        return gathered(
            *images, self.kernel_shape, background=way.background, engine=way.engine, **options
        )


@dataclass(frozen=True)
class Counted:
    """Equations, and how many pixels of a result of integers stand at the ends of their range."""

    equations: NormalEquations
    at_ends: int

    def __add__(self, other: Counted) -> Counted:
        return Counted(self.equations + other.equations, self.at_ends + other.at_ends)

    def __sizeof__(self) -> int:
        return sys.getsizeof(self.equations)


@dataclass(frozen=True)
class _Counting(_Gathering):
    """What a task does that counts."""

    between_ends: bool

    def _of(self, pixels: Pixels, rect: Rect) -> Counted:
        levels = pixels["result"].pixels
        if levels.dtype.kind not in "iu":
            return Counted(super()._of(pixels, rect), 0)
        ends = np.iinfo(levels.dtype)
        at_ends = (levels == ends.min) | (levels == ends.max)
        if self.between_ends and at_ends.any():
            pixels = pixels.without(at_ends)
        return Counted(super()._of(pixels, rect), int(np.count_nonzero(at_ends)))


@dataclass(frozen=True)
class _Leaving(_Gathering):
    """What a task of a second pass does."""

    kernel: FloatArray
    background: Any

    def _equations(self, images: tuple[Any, Any], options: dict[str, Any]) -> NormalEquations:
        return left_over(*images, self.kernel, background=self.background, **options)
