"""One pass over the pixels of pairs: jobs on threads, block by block where images are lazy.

Every sum over pixels is found by a pass. In a sweep every tile is convolved, and what a caller
makes of the outcome is correlated with the source, while it is in cache: a pixel is read once for
all three.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from fastkernel._images.borders import load
from fastkernel._images.lazy import LazyImage, read
from fastkernel._images.pairs import Pair
from fastkernel._images.windows import Window
from fastkernel._loops import lags, stencil
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import Scratch, Tile, Tiles, own_scratch, run_jobs, shares, split
from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.equations import gathering_engines as engines

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# Multiply-adds of a pass below which threads cost more than they save.
THREADED_WORK = 40_000_000

# Pixels below which making room for them is a part of the work, so that it is kept.
SMALL = 1 << 17

# Multiply-adds a pixel and tap of a sweep: there, back, and as much for what stands between.
_SWEPT = 4

# Least rows, and columns, of a block of an image that is read by slices: at most 16 MB of float64
# of each image is in memory at a time unless the kernel is taller than 128.
BLOCK_SHAPE = (256, 8192)


class Job(Protocol[T_co]):
    """Some tiles of a pair. What it finds depends on them alone."""

    def __call__(self, scratch: Scratch, stopped: Callable[[], bool], /) -> T_co:
        """Read them; leave early once ``stopped()``."""
        ...


def each_pair(
    pairs: Sequence[Pair],
    kernel_shape: Shape,
    make_jobs: Callable[[int, Pair], Sequence[Job[T]]],
    run: Run,
    work: float = math.inf,
) -> Iterator[tuple[Pair, list[tuple[Job[T], T]]]]:
    """Yield every pair, or block of one, with its jobs and what they found.

    A bounded number of jobs, and of blocks in memory, is under way at a time. Jobs come in order,
    so that what they found adds up to the same bits whoever worked.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels: how far blocks overlap.
    make_jobs : callable
        ``make_jobs(number, pair)`` returns the jobs of a pair, or of a block of pair ``number``.
    run : Run
        How.
    work : float, optional
        Multiply-adds a pixel; where they are few in all, one thread does them.
    """
    total = sum(pair.window.n_pixels for pair in pairs)
    done = 0

    def finish(batch: list[tuple[Pair, Sequence[Job[T]]]]) -> Iterator[tuple[Pair, Any]]:
        nonlocal done
        pixels = sum(pair.window.n_pixels for pair, _ in batch)

        def report(finished: int, of: int) -> None:
            if run.progress is not None:
                run.progress(done + pixels * finished // of, total)

        jobs = [job for _, own in batch for job in own]
        workers = run.workers if pixels * work > THREADED_WORK else 1
        small = workers == 1 and pixels <= SMALL
        found = iter(run_jobs(jobs, own_scratch if small else Scratch, workers, report))
        done += pixels
        for pair, own in batch:
            yield pair, [(job, next(found)) for job in own]

    batch: list[tuple[Pair, Sequence[Job[T]]]] = []
    for number, pair in enumerate(pairs):
        for part in _resident(pair, kernel_shape):
            batch.append((part, make_jobs(number, part)))
            if part is not pair or sum(len(own) for _, own in batch) >= engines.MAX_JOBS:
                yield from finish(batch)
                batch = []
    if batch:
        yield from finish(batch)


def _resident(pair: Pair, kernel_shape: Shape) -> Iterator[Pair]:
    """Yield a pair whole, or block by block where an image is read by slices.

    The sums of blocks add up. A block of the source keeps the rows that the next one needs, so
    nothing is read twice but the few columns that neighbours share in images wider than a block.
    """
    source, result, window, *_ = pair
    if not (isinstance(source, LazyImage) or isinstance(result, LazyImage)):
        yield pair
        return
    (p, q), (height, width) = kernel_shape, window.shape
    cols = min(width, BLOCK_SHAPE[1])
    rows = max(BLOCK_SHAPE[0], 2 * p)
    for left, right in split(width, cols):
        kept = np.empty((0, 0))
        for top, bottom in split(height, rows):
            shape = bottom - top, right - left
            part, origin, boundary = source, window.source_pixel(top, left), window.boundary
            if isinstance(source, LazyImage):
                # All of the first block, then what follows the rows that were kept.
                old = 0 if top == 0 else p - 1
                part = read(
                    source,
                    (origin[0] + old, origin[1]),
                    (shape[0] + p - 1 - old, shape[1] + q - 1),
                    boundary,
                )
                part = np.vstack([kept, part]) if old else part
                kept = part[len(part) - p + 1 :].copy()
                origin, boundary = (0, 0), "zero"
            answer, place = result, window.result_pixel(top, left)
            if isinstance(result, LazyImage):
                answer, place = read(result, place, shape, "zero"), (0, 0)
            yield Pair(part, answer, Window(origin, place, shape, boundary))


class View(NamedTuple):
    """A tile while it is in cache.

    Attributes
    ----------
    number : int
        Of the pair.
    tile : (int, int, int, int)
        ``(top, left, height, width)``, in pixels of the window.
    x : (>= height + p - 1, >= width + q - 1) float64 array
        The source under the tile, C order.
    y : (height, >= width) float64 array
        The result, C order; what stands here after the action is correlated with the source.
    convolved : (height, width) float64 array
        The convolution, C order.
    scratch : Scratch
        Working space; the names "x", "y", "convolved" and "sums" are taken.
    stopped : callable
        Whether to leave early.
    """

    number: int
    tile: Tile
    x: FloatArray
    y: FloatArray
    convolved: FloatArray
    scratch: Scratch
    stopped: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class _SweepJob(Generic[T]):
    """Some tiles of a pair."""

    number: int
    pair: Pair
    taps: FloatArray
    tiles: Sequence[Tile]
    act: Callable[[View, T | None], T]

    def __call__(
        self, scratch: Scratch, stopped: Callable[[], bool]
    ) -> tuple[int, FloatArray, T | None]:
        (source, result, window, *_), (p, q) = self.pair, self.taps.shape
        dtype = np.dtype(np.float64)
        sums = scratch.array("sums", lags.sums_shape((p, q), dtype))
        out, found = np.zeros((lags.KINDS, p, q)), None
        lanes = lags.vector_lanes(dtype)
        for tile in self.tiles:
            if stopped():
                break
            top, left, height, width = tile
            cols = width + q - 1
            x = scratch.array("x", (height + p - 1, stencil.row_length(cols, dtype)))
            # One vector beyond the last whole one, so that rows do not compete for the cache.
            y = scratch.array("y", (height, -(-width // lanes) * lanes + lanes))
            convolved = scratch.array("convolved", (height, width))
            load(source, window.source_pixel(top, left), window.boundary, x[:, :cols])
            load(result, window.result_pixel(top, left), window.boundary, y[:, :width])
            stencil.correlate_tile(x, (0, 0), self.taps, (height, width), convolved, 0, 0)
            view = View(self.number, tile, x, y, convolved, scratch, stopped)
            found = self.act(view, found)
            lags.add_tiles(x[None], y[None], (height, width), False, sums, out[None])
        return self.number, out[0], found


def sweep(
    pairs: Sequence[Pair],
    taps: FloatArray,
    act: Callable[[View, T | None], T],
    run: Run,
    max_jobs: int | None = None,
) -> Iterator[tuple[int, FloatArray, T]]:
    """Convolve every tile, act on it, and correlate what the action left with the source.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one.
    taps : (p, q) float64 array
        The kernel by shift, that is flipped both ways.
    act : callable
        Called as ``act(view, found)`` for the tiles of a job in order, with what it returned for
        the tile before, None for the first. It may overwrite ``view.y``.
    run : Run
        How. The answer is the same bit for bit.
    max_jobs : int, optional
        Most jobs a pair: what they find is held until all are done.

    Yields
    ------
    number : int
        Of the pair.
    moments : (p, q) float64 array
        By shift: sums of what was left in ``view.y`` times the shifted source.
    found : object
        What the action returned for the last tile of a job. Jobs come in order.
    """

    def make_jobs(number: int, pair: Pair) -> list[_SweepJob[T]]:
        shape = pair.window.shape
        tiles = Tiles(shape, engines.direct_tile_shape("float", shape[1]))
        parts = shares(tiles, max_jobs or engines.MAX_JOBS)
        return [_SweepJob(number, pair, taps, part, act) for part in parts]

    shape = taps.shape[0], taps.shape[1]
    for _, pieces in each_pair(pairs, shape, make_jobs, run, _SWEPT * taps.size):
        for _, (number, moments, last) in pieces:
            if last is not None:
                yield number, moments, last
