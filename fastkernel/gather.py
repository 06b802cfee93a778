"""The only reader of pixels: images in, sums over their pixels out.

Every image is read tile by tile into a worker's own scratch, which casts, re-orders and extends
it; the loops see nothing else. Sums add up in the order of the tiles, so neither the number of
workers nor the layout of the images changes a bit of them.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from fastkernel import _tiles
from fastkernel._borders import load
from fastkernel._checks import refuse_non_finite, refuse_overflow
from fastkernel._loops import lags, rims, stencil
from fastkernel._typing import AnyArray, FloatArray, Progress, Shape
from fastkernel._windows import Window

# A tile's two scratch arrays fill half of a 2 MB second-level cache.
TILE_SHAPES = {np.dtype(np.int16): (256, 512), np.dtype(np.float64): (256, 256)}

# Enough for an even share on any usual machine, few enough that their sums stay small.
MAX_JOBS = 64

# Multiply-adds below which threads cost more than they save.
THREADED_WORK = 10_000_000

# Positions of a rim strip that are read at a time.
SEGMENT = 4096


T = TypeVar("T")


class Pair(NamedTuple):
    """A source, its result, and which of their pixels belong together."""

    source: AnyArray
    result: AnyArray
    window: Window


@dataclass(frozen=True, slots=True)
class Sums:
    """What a least-squares fit needs to know about its pixels; shifts in correlation order."""

    gram: FloatArray
    moments: FloatArray
    energy: float


class _Scratch:
    """The working space of one thread, made when it is first needed and used again."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, np.dtype], AnyArray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> AnyArray:
        """Return an array of ``shape`` with finite, otherwise arbitrary content."""
        key, size = (name, np.dtype(dtype)), int(np.prod(shape))
        if key not in self._arrays or self._arrays[key].size < size:
            self._arrays[key] = np.zeros(size, dtype)
        return self._arrays[key][:size].reshape(shape)


def scratch_dtype(source: AnyArray, result: AnyArray) -> np.dtype:
    """Return the dtype in which a pair is multiplied: int16 is exact and fastest for 8 bits."""
    narrow = all(
        image.dtype.kind in "biu" and image.dtype.itemsize == 1 for image in (source, result)
    )
    return np.dtype(np.int16 if narrow else np.float64)


def _row_length(width: int, more: int, dtype: np.dtype) -> int:
    """Return the length of a scratch row: whole vectors, ``more`` pixels, no colliding stride."""
    lanes: int = lags.vector_lanes(dtype)
    length = -(-(-(-width // lanes) * lanes + more) // lanes) * lanes
    return length + lanes if length * dtype.itemsize % 4096 == 0 else length


@dataclass(frozen=True, slots=True)
class _TileJob:
    """Some tiles of a pair: their lagged products, and the energy of the result in them."""

    pair: Pair
    kernel_shape: Shape
    tiles: Sequence[tuple[int, int, int, int]]
    subtract: FloatArray | None

    def work(self, scratch: _Scratch, stopped: Callable[[], bool]) -> tuple[FloatArray, float]:
        (source, result, window), (p, q) = self.pair, self.kernel_shape
        alone = self.subtract is not None
        dtype = np.dtype(np.float64) if alone else scratch_dtype(source, result)
        sums = scratch.array(
            "sums", lags.sums_shape(self.kernel_shape, dtype), lags.sums_dtype(dtype)
        )
        out, energy = np.zeros((lags.KINDS, p, q)), 0.0
        for top, left, height, width in self.tiles:
            if stopped():
                break
            x = scratch.array("x", (height + p - 1, _row_length(width, q - 1, dtype)), dtype)
            y = scratch.array("y", (height, _row_length(width, 0, dtype)), dtype)
            (r, c), (i, j) = window.source_origin, window.result_origin
            load(source, (r + top, c + left), window.boundary, x[:, : width + q - 1])
            load(result, (i + top, j + left), window.boundary, y[:, :width])
            if alone:
                stencil.subtract_correlation(x, self.subtract, (height, width), y)
            energy += lags.add_tile(x, y, (height, width), 1 if alone else lags.KINDS, sums, out)
        return out, energy


@dataclass(frozen=True, slots=True)
class _RimJob:
    """Part of a strip of rows (axis 0) or columns (axis 1) that enters or leaves the window."""

    pair: Pair
    kernel_shape: Shape
    axis: int
    entering: bool
    segments: Sequence[tuple[int, int]]

    def work(self, scratch: _Scratch, stopped: Callable[[], bool]) -> FloatArray:
        window, n_lags = self.pair.window, self.kernel_shape[1 - self.axis]
        n = self.kernel_shape[self.axis] - 1
        out = np.zeros((n_lags, n, n))
        origin = list(window.source_origin)
        origin[self.axis] += window.shape[self.axis] if self.entering else 0
        along = origin[1 - self.axis]
        for start, stop in self.segments:
            if stopped():
                break
            lines = scratch.array("lines", (n, stop - start + n_lags - 1))
            origin[1 - self.axis] = along + start
            strip = lines if self.axis == 0 else lines.T
            load(self.pair.source, (origin[0], origin[1]), window.boundary, strip)
            rims.add_line_products(lines, stop - start, out)
        return out


_Job = _TileJob | _RimJob


def _shares(items: Sequence[T], most: int) -> list[Sequence[T]]:
    """Return ``items`` in at most ``most`` consecutive parts of nearly one size."""
    size = max(1, -(-len(items) // most))
    return [items[start:stop] for start, stop in _tiles.split(len(items), size)]


def _tile_jobs(pair: Pair, kernel_shape: Shape, subtract: FloatArray | None = None) -> list[_Job]:
    dtype = np.dtype(np.float64) if subtract is not None else scratch_dtype(pair[0], pair[1])
    tiles = _tiles.tiles(pair.window.shape, TILE_SHAPES[dtype])
    return [_TileJob(pair, kernel_shape, part, subtract) for part in _shares(tiles, MAX_JOBS)]


def _rim_jobs(pair: Pair, kernel_shape: Shape) -> list[_Job]:
    return [
        _RimJob(pair, kernel_shape, axis, entering, part)
        for axis in (0, 1)
        if kernel_shape[axis] > 1
        for entering in (False, True)
        for part in _shares(list(_tiles.split(pair.window.shape[1 - axis], SEGMENT)), 8)
    ]


def _assemble(
    pair: Pair, kernel_shape: Shape, base: FloatArray, strips: list[FloatArray]
) -> FloatArray:
    """Return the Gram matrix from its base entries and the strips, rows and columns."""
    (p, q), window = kernel_shape, pair.window
    corners = np.empty((4, p - 1, q - 1))
    (top, left), (height, width) = window.source_origin, window.shape
    if corners.size:
        places = [(r, c) for r in (top, top + height) for c in (left, left + width)]
        for place, corner in zip(places, corners, strict=True):
            load(pair.source, place, window.boundary, corner)
    gram = np.empty((p, q, p, q))
    rims.fill_gram(base[1], base[2], strips[1], strips[0], corners, np.empty((q, q)), gram)
    return gram.reshape(p * q, p * q)


def _run(
    pairs: Sequence[Pair],
    kernel_shape: Shape,
    make_jobs: Callable[[Pair], list[_Job]],
    workers: int,
    progress: Progress | None,
) -> Iterator[tuple[Pair, list[tuple[_Job, Any]]]]:
    """Yield every pair with its jobs and what they found, a bounded number of jobs at a time."""
    all_jobs = [make_jobs(pair) for pair in pairs]
    taps, total, done = math.prod(kernel_shape), sum(map(len, all_jobs)), 0
    first = 0
    while first < len(pairs):
        last, jobs = first, list[_Job]()
        while last < len(pairs) and (last == first or len(jobs) < MAX_JOBS):
            jobs += all_jobs[last]
            last += 1
        work = 3 * taps * sum(pair.window.n_pixels for pair in pairs[first:last])

        def report(finished: int, _: int, before: int = done) -> None:
            if progress is not None:
                progress(before + finished, total)

        found = _tiles.run(
            [job.work for job in jobs],
            _Scratch,
            workers if work > THREADED_WORK else 1,
            report,
        )
        done += len(jobs)
        pieces = iter(zip(jobs, found, strict=True))
        for i in range(first, last):
            yield pairs[i], list(itertools.islice(pieces, len(all_jobs[i])))
        first = last


def gather(
    pairs: Sequence[Pair], kernel_shape: Shape, workers: int, progress: Progress | None = None
) -> Sums:
    """Return the sums of all pairs.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    workers : int
        Threads to use.
    progress : callable, optional
        Called as ``progress(done, total)``.

    Returns
    -------
    Sums
        ``gram`` (p*q, p*q), ``moments`` (p*q,) by shift, and ``energy``.

    Raises
    ------
    ValueError
        If a pixel that is used is not finite, or the sums overflow.
    """
    p, q = kernel_shape
    gram, moments, energy = np.zeros((p * q, p * q)), np.zeros(p * q), 0.0
    # Pixels that are not finite show in the sums; looking for them first would cost a pass.
    with np.errstate(over="ignore", invalid="ignore"):
        for pair, pieces in _run(
            pairs,
            kernel_shape,
            lambda pair: [*_tile_jobs(pair, kernel_shape), *_rim_jobs(pair, kernel_shape)],
            workers,
            progress,
        ):
            base = np.zeros((lags.KINDS, p, q))
            strips = [np.zeros((q, p - 1, p - 1)), np.zeros((p, q - 1, q - 1))]
            for job, found in pieces:
                if isinstance(job, _TileJob):
                    base += found[0]
                    energy += found[1]
                elif job.entering:
                    strips[job.axis] += found
                else:
                    strips[job.axis] -= found
            gram += _assemble(pair, kernel_shape, base, strips)
            moments += base[0].ravel()
    _refuse_non_finite(pairs, gram, moments, energy)
    return Sums(gram, moments, energy)


def gather_residual(
    pairs: Sequence[Pair], taps: FloatArray, workers: int
) -> tuple[FloatArray, float]:
    """Return the moments and the energy of what a kernel leaves unexplained.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one, of finite pixels.
    taps : (p, q) float64 array
        The kernel by shift, that is flipped both ways.
    workers : int
        Threads to use.

    Returns
    -------
    moments : (p*q,) float64 array
        Sums of the residual times the shifted source.
    energy : float
        Sum of the squared residual.
    """
    moments, energy = np.zeros(taps.size), 0.0
    shape = (taps.shape[0], taps.shape[1])
    for _, pieces in _run(pairs, shape, lambda pair: _tile_jobs(pair, shape, taps), workers, None):
        for _, found in pieces:
            moments += found[0][0].ravel()
            energy += found[1]
    return moments, energy


def _refuse_non_finite(
    pairs: Sequence[Pair], gram: FloatArray, moments: FloatArray, energy: float
) -> None:
    if np.isfinite(gram).all() and np.isfinite(moments).all() and math.isfinite(energy):
        return
    for i, (source, result, window) in enumerate(pairs):
        (top, left), (height, width) = window.result_origin, window.shape
        index = f"[{i}]" if len(pairs) > 1 else ""
        used = result[top : top + height, left : left + width]
        refuse_non_finite(f"source{index}", source)
        refuse_non_finite(f"result{index}", used, window.result_origin)
    refuse_overflow()
