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

from fastkernel._images.blocks import Strip, block_shape, cuts
from fastkernel._images.borders import load
from fastkernel._images.lazy import LazyImage
from fastkernel._images.pairs import Pair
from fastkernel._images.windows import Window, Within
from fastkernel._loops import lags, stencil
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import Scratch, Tile, Tiles, own_scratch, run_jobs, shares
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
        for part in resident(pair, kernel_shape):
            batch.append((part, make_jobs(number, part)))
            if part is not pair or sum(len(own) for _, own in batch) >= engines.MAX_JOBS:
                yield from finish(batch)
                batch = []
    if batch:
        yield from finish(batch)


def resident(pair: Pair, kernel_shape: Shape) -> Iterator[Pair]:
    """Yield a pair whole, or block by block where an image is read by slices.

    The sums of blocks add up; ``part_of`` says where a block stands. What is decoded twice is told
    in `_images.blocks`.
    """
    lazy = [image for image in pair[:2] if isinstance(image, LazyImage)]
    if not lazy:
        yield pair
        return
    source, result, window, *_ = pair
    (p, q), (height, width), place = kernel_shape, window.shape, pair.within
    # Strips and blocks end where chunks of the result do, or of the source if that alone has any.
    chunked = next((image for image in reversed(lazy) if image.chunks[1] > 1), lazy[-1])
    chunks = max(image.chunks[0] for image in lazy), chunked.chunks[1]
    rows, cols = block_shape(chunks, max(image.dtype.itemsize for image in lazy), 2 * p)
    origin = window.result_origin if chunked is result else window.source_origin
    down, across = (i if n > 1 else 0 for i, n in zip(origin, chunked.chunks, strict=True))
    for left, right in cuts(width, cols, across):
        strips = [
            Strip(image, first[1] + left, right - left + more, boundary)
            if isinstance(image, LazyImage)
            else None
            for image, first, more, boundary in (
                (source, window.source_origin, q - 1, window.boundary),
                (result, window.result_origin, 0, "zero"),
            )
        ]
        for top, bottom in cuts(height, rows, down):
            part, first, boundary = source, window.source_pixel(top, left), window.boundary
            if strips[0] is not None:
                part = strips[0].rows(first[0], first[0] + bottom - top + p - 1, p)
                first, boundary = (0, 0), "zero"
            answer, at = result, window.result_pixel(top, left)
            if strips[1] is not None:
                answer, at = strips[1].rows(at[0], at[0] + bottom - top), (0, 0)
            yield Pair(
                part,
                answer,
                Window(first, at, (bottom - top, right - left), boundary),
                part_of=Within((place.origin[0] + top, place.origin[1] + left), place.shape),
            )


def place_in(pair: Pair, block: Pair) -> Shape:
    """Return where a block begins in the window of its pair."""
    (row, col), (top, left) = block.within.origin, pair.within.origin
    return (row - top, col - left) if block is not pair else (0, 0)


class View(NamedTuple):
    """A tile while it is in cache.

    Attributes
    ----------
    number : int
        Of the pair.
    tile : (int, int, int, int)
        ``(top, left, height, width)``, in pixels of the pair's window.
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
    """Some tiles of a pair, or of a block that begins at ``origin`` of its window."""

    number: int
    pair: Pair
    origin: Shape
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
            x = scratch.rows("x", (height + p - 1, stencil.row_length(cols, dtype)), cols)
            # One vector beyond the last whole one, so that rows do not compete for the cache.
            y = scratch.rows("y", (height, -(-width // lanes) * lanes + lanes), width)
            convolved = scratch.array("convolved", (height, width))
            load(source, window.source_pixel(top, left), window.boundary, x[:, :cols])
            load(result, window.result_pixel(top, left), window.boundary, y[:, :width])
            stencil.correlate_tile(x, (0, 0), self.taps, (height, width), convolved, 0, 0)
            place = top + self.origin[0], left + self.origin[1], height, width
            view = View(self.number, place, x, y, convolved, scratch, stopped)
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
        origin = place_in(pairs[number], pair)
        return [_SweepJob(number, pair, origin, taps, part, act) for part in parts]

    shape = taps.shape[0], taps.shape[1]
    for _, pieces in each_pair(pairs, shape, make_jobs, run, _SWEPT * taps.size):
        for _, (number, moments, last) in pieces:
            if last is not None:
                yield number, moments, last
