"""Sweeps: one pass over pairs that convolves, does something with every tile, and correlates.

While a tile is in cache its convolution is compared with the result, and what a caller makes of
the two is correlated with the source: a pixel is read once for all three.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from fastkernel._images.borders import load
from fastkernel._images.lazy import LazyImage
from fastkernel._loops import lags, stencil
from fastkernel._machine.tiles import Scratch, Tile, Tiles, run_jobs, shares
from fastkernel._typing import AnyArray, FloatArray, Shape
from fastkernel.estimation.equations import gathering_engines as engines
from fastkernel.estimation.equations.gathering_engines import Pair

T = TypeVar("T")

# Pixels times taps below which threads cost more than they save.
THREADED_WORK = 10_000_000


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
    ) -> tuple[FloatArray, T | None]:
        (source, result, window), (p, q) = self.pair, self.taps.shape
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
            lags.add_tile(x, y, (height, width), False, sums, out)
        return out[0], found


def sweep(
    pairs: Sequence[Pair],
    taps: FloatArray,
    act: Callable[[View, T | None], T],
    workers: int,
    max_jobs: int | None = None,
) -> Iterator[tuple[int, FloatArray, T]]:
    """Convolve every tile, act on it, and correlate what the action left with the source.

    Parameters
    ----------
    pairs : sequence of Pair
        Of images in memory.
    taps : (p, q) float64 array
        The kernel by shift, that is flipped both ways.
    act : callable
        Called as ``act(view, found)`` for the tiles of a job in order, with what it returned for
        the tile before, None for the first. It may overwrite ``view.y``.
    workers : int
        Threads to use. The answer is the same bit for bit.
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
    jobs = [
        _SweepJob(number, pair, taps, part, act)
        for number, pair in enumerate(pairs)
        for part in shares(
            Tiles(pair.window.shape, engines.direct_tile_shape("float", pair.window.shape[1])),
            max_jobs or engines.MAX_JOBS,
        )
    ]
    work = sum(pair.window.n_pixels for pair in pairs) * taps.size
    found = run_jobs(jobs, Scratch, workers if work > THREADED_WORK else 1)
    for job, (moments, last) in zip(jobs, found, strict=True):
        if last is not None:
            yield job.number, moments, last


def used_images(pairs: Sequence[Pair]) -> Iterator[tuple[str, AnyArray, Shape]]:
    """Yield what is read of pairs: its name in a message, its pixels, and where they begin."""
    for i, (source, result, window) in enumerate(pairs):
        (top, left), (height, width) = window.result_origin, window.shape
        index = f"[{i}]" if len(pairs) > 1 else ""
        yield f"source{index}", source, (0, 0)
        used = result[top : top + height, left : left + width]
        yield f"result{index}", used, window.result_origin


def in_memory(image: AnyArray) -> AnyArray:
    """Return an image as an array, read as a whole where it is read by slices."""
    return image[:, :] if isinstance(image, LazyImage) else image


def held(pairs: Sequence[Pair]) -> list[Pair]:
    """Return pairs whose images are in memory, for methods that read them again and again."""
    return [Pair(in_memory(pair.source), in_memory(pair.result), pair.window) for pair in pairs]
