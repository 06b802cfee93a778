"""The engines: jobs that read pixels, tile by tile, and add up their lagged products.

Every job reads into a worker's own scratch, which casts, re-orders and extends the images; the
loops see nothing else. What a job finds depends on its tiles alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Self

import numpy as np

from fastkernel._images.borders import load, places_of
from fastkernel._images.pairs import Pair
from fastkernel._images.windows import Window
from fastkernel._loops import lags, rims
from fastkernel._loops._reading import Image
from fastkernel._machine.tiles import Scratch, Tile, Tiles, shares, split
from fastkernel._typing import AnyArray, FloatArray, Shape
from fastkernel.estimation.equations.gathering_cost import fft_tiling
from fastkernel.estimation.equations.row_jobs import (
    FftJob,
    Found,
    RowReader,
    row_length,
    standing_image,
)

# A tile's two scratch arrays fill a quarter, and half, of a 2 MB second-level cache; long rows are
# read at the speed of memory.
TILE_SHAPES = {"integer": (128, 1024), "float": (64, 1024)}
SCRATCH_DTYPES: dict[str, np.dtype[Any]] = {
    "integer": np.dtype(np.int16),
    "float": np.dtype(np.float64),
}

# Multiply-adds after which a job looks whether to stop: some hundredths of a second.
UNSTOPPED = 100_000_000

# Enough for an even share on any usual machine, few enough that their sums stay small.
MAX_JOBS = 64

# Tiles of a job that transforms, at least: what it does once is then a small part of its work.
FFT_TILES = 6

# Taps up to which a single tile's rim is worth no jobs of its own.
MAX_WHOLE = 121

# Positions of a rim strip that are read at a time.
SEGMENT = 2048

# Of these, positions that the loops hold in a first-level cache.
RIM_BLOCK = 256


def rim_scratch(scratch: Scratch, kernel_shape: Shape, tile_shape: Shape) -> tuple[FloatArray, ...]:
    """Return what `rims.slide_products` works in."""
    shapes = rims.rim_shapes(kernel_shape, tile_shape)
    return tuple(scratch.array(f"rim {i}", shape) for i, shape in enumerate(shapes))


def _first_pixel(window: Window, result: Image) -> int:
    """Return where the window begins among the pixels of a result."""
    top, left = window.result_origin
    return top * result[2] + left


class InPlace(NamedTuple):
    """A pair whose pixels loops read where they stand: what these take beside tiles and scratch."""

    source: Image
    result: Image
    places: tuple[AnyArray, AnyArray]
    origin: int
    inside: tuple[int, int]

    @classmethod
    def of(cls, pair: Pair, kernel_shape: Shape, engine: str) -> Self | None:
        """Return what loops read; None if they do not know such images."""
        x, y = map(standing_image, pair[:2])
        if x is None or y is None or (engine == "integer" and x[1] + y[1] > 0):
            return None
        window = pair.window
        rows, cols = (
            places_of(start, size + k - 1, length, window.boundary)
            for start, size, k, length in zip(
                window.source_origin, window.shape, kernel_shape, pair.source.shape, strict=True
            )
        )
        return cls(x, y, (rows.pixels, cols.pixels), _first_pixel(window, y), cols.inside)

    def of_another(self, x: Image, y: Image, window: Window) -> Self:
        """Return the same of another pair of the same shapes."""
        return type(self)(x, y, self.places, _first_pixel(window, y), self.inside)


@dataclass(frozen=True, slots=True)
class DirectJob:
    """Some tiles of a pair, multiplied in float64 or, where both are narrow integers, in int16."""

    pair: Pair
    kernel_shape: Shape
    tiles: AnyArray
    largest: Shape
    engine: str
    in_place: InPlace | None

    def __call__(self, scratch: Scratch, stopped: Callable[[], bool]) -> Found:
        """Return the sums."""
        out, energy = np.zeros((lags.KINDS, *self.kernel_shape)), 0.0
        together = max(1, UNSTOPPED // (3 * math.prod(self.largest + self.kernel_shape)))
        key = self.engine, self.kernel_shape, self.largest
        room = scratch.again(key, lambda: self._room(scratch))
        for start, stop in split(len(self.tiles), together):
            if stopped():
                break
            energy += self._add(self.tiles[start:stop], room, out, self.in_place)
        return Found(out[0], out[1:], energy)

    def _room(self, scratch: Scratch) -> tuple[AnyArray, AnyArray, AnyArray]:
        """Return room for the largest tile of the source and the result, and for its sums."""
        (p, q), (height, width), dtype = (
            self.kernel_shape,
            self.largest,
            SCRATCH_DTYPES[self.engine],
        )
        x = scratch.array("x", (height + p - 1, row_length(width, q - 1, dtype)), dtype)
        y = scratch.array("y", (height, row_length(width, 0, dtype)), dtype)
        sums_shape, sums_dtype = lags.sums_shape((p, q), dtype), lags.sums_dtype(dtype)
        return x, y, scratch.array("sums", sums_shape, sums_dtype)

    def _add(
        self,
        tiles: AnyArray,
        room: tuple[AnyArray, AnyArray, AnyArray],
        out: FloatArray,
        in_place: InPlace | None,
    ) -> float:
        """Add the lagged products of tiles, and return the energy of their result."""
        x, y, sums = room
        if in_place is not None:
            return float(lags.add_image_tiles(*in_place[:-1], tiles, x, y, sums, out))
        energy = 0.0
        for top, left, height, width in tiles.tolist():
            self._load((top, left, height, width), x, y)
            lags.add_tiles(x[None], y[None], (height, width), True, sums, out[None])
            energy += lags.energy(y, (height, width))
        return energy

    def _load(self, tile: Tile, x: AnyArray, y: AnyArray) -> None:
        """Cast the source and the result under a tile, and zeros where vectors reach."""
        (source, result, window, *_), (p, q) = self.pair, self.kernel_shape
        top, left, height, width = tile
        x, y, cols = x[: height + p - 1], y[:height], width + q - 1
        x[:, cols:], y[:, width:] = 0, 0
        load(source, window.source_pixel(top, left), window.boundary, x[:, :cols])
        load(result, window.result_pixel(top, left), window.boundary, y[:, :width])


@dataclass(frozen=True, slots=True)
class WholeJob(DirectJob):
    """A pair that is one tile: what moves into its window and out of it stands in scratch too."""

    def __call__(self, scratch: Scratch, _: Callable[[], bool]) -> Found:
        """Return the sums, with the Gram matrix."""
        return self.found(scratch, self.in_place)

    def found(self, scratch: Scratch, in_place: InPlace | None) -> Found:
        """Return the same of any pair of this shape and these dtypes, where loops can read it."""
        (p, q), shape = self.kernel_shape, self.largest

        def make_room() -> tuple[Any, ...]:
            return self._room(scratch), rim_scratch(scratch, (p, q), shape)

        room, rim = scratch.again(("whole", self.engine, p, q, shape), make_room)
        out, gram = np.zeros((1, lags.KINDS, p, q)), np.empty((1, p * q, p * q))
        energy = self._add(self.tiles, room, out[0], in_place)
        rims.slide_products(room[0][None], (p, q), shape, out, rim, True, gram)
        return Found(out[0, 0], out[0, 1:], energy, gram[0])


@dataclass(frozen=True, slots=True)
class RimJob:
    """Part of the two strips, rows (axis 0) or columns (axis 1), by which the window can move."""

    pair: Pair
    kernel_shape: Shape
    axis: int
    segments: Sequence[tuple[int, int]]

    def __call__(self, scratch: Scratch, stopped: Callable[[], bool]) -> FloatArray:
        """Return the lagged products of all pairs of a strip's lines, (2, lags, n, n).

        First those of the strip that leaves the window, then those of the one that enters it.
        """
        window, n_lags = self.pair.window, self.kernel_shape[1 - self.axis]
        n, lanes = self.kernel_shape[self.axis] - 1, lags.vector_lanes(np.float64)
        out, sums = np.zeros((2, n_lags, n, n)), np.zeros((2 * lags.MAX_LAGS, lanes))
        for start, stop in self.segments:
            if stopped():
                break
            length = stop - start + n_lags - 1
            lines = scratch.rows("lines", (length, row_length(n, n + lanes, sums.dtype)), n)
            strip = lines[:, :n] if self.axis == 1 else lines[:, :n].T
            for products, across in zip(out, (0, window.shape[self.axis]), strict=True):
                place = (start, across) if self.axis == 1 else (across, start)
                load(self.pair.source, window.source_pixel(*place), window.boundary, strip)
                lags.add_line_products(lines, stop - start, RIM_BLOCK, sums, products)
        return out


TileJob = DirectJob | FftJob


def direct_tile_shape(engine: str, cols: int) -> Shape:
    """Return the shape of the tiles of a window of ``cols`` columns: taller where it is narrow."""
    height, width = TILE_SHAPES[engine]
    return height * max(1, min(4, width // cols)), width


def tile_jobs(pair: Pair, kernel_shape: Shape, engine: str) -> list[TileJob]:
    """Return the jobs that together read every pixel of a pair."""
    window = pair.window
    if engine == "fft":
        length, tile_shape = fft_tiling(window.shape, kernel_shape)
        rows, cols = (n + k - 1 for n, k in zip(window.shape, kernel_shape, strict=True))
        reader = RowReader.of(pair, kernel_shape)
        table = reader.table(Tiles((rows, cols), tile_shape))
        each = -(-len(table) // min(MAX_JOBS, -(-len(table) // FFT_TILES)))
        return [
            FftJob(reader, table[start:stop], length) for start, stop in split(len(table), each)
        ]
    tile_shape = direct_tile_shape(engine, window.shape[1])
    height, width = (min(n, k) for n, k in zip(window.shape, tile_shape, strict=True))
    in_place = InPlace.of(pair, kernel_shape, engine)
    inside = None if in_place is None else in_place.inside
    table = _tile_table(window.shape, tile_shape, kernel_shape[1] - 1, inside)
    how = (height, width), engine, in_place
    if len(table) == 1 and math.prod(kernel_shape) <= MAX_WHOLE:
        return [WholeJob(pair, kernel_shape, table, *how)]
    each = -(-len(table) // MAX_JOBS)
    return [
        DirectJob(pair, kernel_shape, table[start:stop], *how)
        for start, stop in split(len(table), each)
    ]


@lru_cache(4)
def _tile_table(
    shape: Shape, tile_shape: Shape, more: int, inside: tuple[int, int] | None
) -> AnyArray:
    """Return the tiles of a window as an array; with the ends of what is inside, if that is told.

    That is the half-open range, of a tile's columns and ``more``, that are the source's own.
    """
    tiles = Tiles(shape, tile_shape).table()
    if inside is not None:
        left, width = tiles[:, 1], tiles[:, 3] + more
        first, last = (np.minimum(np.maximum(place - left, 0), width) for place in inside)
        tiles = np.column_stack([tiles, first, np.maximum(first, last)])
    tiles.flags.writeable = False
    return tiles


def is_whole(jobs: Sequence[object]) -> bool:
    """Return whether one job does a whole pair, its rim included."""
    return isinstance(jobs[0], WholeJob)


def rim_jobs(pair: Pair, kernel_shape: Shape) -> list[RimJob]:
    """Return the jobs that read the strips by which the window can move."""
    return [
        RimJob(pair, kernel_shape, axis, part)
        for axis in (0, 1)
        if kernel_shape[axis] > 1
        for part in shares(list(split(pair.window.shape[1 - axis], SEGMENT)), 8)
    ]
