"""The engines of convolution: jobs that read an image tile by tile and write disjoint outputs.

Loops read an image where it stands if they can. Otherwise, and for transforms, a job reads it into
its worker's own scratch, which casts, re-orders and extends it. An output depends on its tile
alone, so neither the number of workers nor the layout of an array changes a bit of it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fastkernel._images.borders import Places, load, places_of
from fastkernel._images.windows import Window
from fastkernel._loops import stencil, tile_copies
from fastkernel._machine.kept import kept_property
from fastkernel._machine.tiles import (
    Scratch,
    Scratches,
    Tile,
    Tiles,
    own_scratch,
    run_jobs,
    shares,
    split,
)
from fastkernel._typing import AnyArray, Shape
from fastkernel.convolution.convolution_cost import engine_times, fft_lengths
from fastkernel.convolution.tile_pair import TilePair

# A tile of the image fills half of a second-level cache of 1 MB; long rows are read at the speed
# of memory. Smaller tiles are done too soon: threads then wait for each other between them. A
# separable kernel's tiles are at least as tall as the kernel.
TILE_SHAPE = (128, 1024)

# Multiply-adds after which a job looks whether to stop: some hundredths of a second.
_UNSTOPPED = 1 << 28

# Enough for an even share on any machine.
MAX_JOBS = 256

# Nanoseconds of work below which threads cost more than they save.
THREADED_TIME = 300_000

# The same that a job takes, at least.
_JOB_TIME = 1_000_000


class Plane(NamedTuple):
    """An image, and the array of the window's shape that takes its correlation, if one does."""

    image: AnyArray
    out: AnyArray | None = None


# Takes the beginning of an array, the outputs of a tile: ``take(found, tile, scratch)``.
Take = Callable[[AnyArray, Tile, Scratch], None]

# Overwrites a part of the outputs: ``change(found, shape, origin, tile)``, see `RoundTrip`.
Change = Callable[[AnyArray, Shape, Shape, Tile], object]


class Factors(NamedTuple):
    """The column and the row whose product is a kernel: (p, 1) and (1, q)."""

    column: AnyArray
    row: AnyArray


def rank_one_factors(taps: AnyArray) -> Factors | None:
    """Return the factors of a kernel of rank one within rounding, None of any other.

    The largest tap's column and row are such factors. Of whole numbers they are divided by
    their greatest common divisors, so that their product is the kernel without any rounding.

    Parameters
    ----------
    taps : (p, q) float32 or float64 array
        Finite.

    Examples
    --------
    >>> import numpy as np
    >>> factors = rank_one_factors(np.array([[6.0, 9.0], [10.0, 15.0]]))
    >>> factors.column.ravel().tolist(), factors.row.ravel().tolist()
    ([3.0, 5.0], [2.0, 3.0])
    """
    i, j = np.unravel_index(np.abs(taps).argmax(), taps.shape)
    pivot, column, row = taps[i, j], taps[:, [j]], taps[[i], :]
    if pivot == 0:
        return Factors(column, row)
    (p, q), eps = taps.shape, float(np.finfo(taps.dtype).eps)
    # Most kernels are not, which one tap far from that row and column tells.
    one, other = (i + p // 2) % p, (j + q // 2) % q
    far, beside, above = (
        float(tap / pivot) for tap in (taps[one, other], taps[one, j], row[0, other])
    )
    if abs(far - beside * above) > 8 * eps * taps.size:
        return None
    if (
        float(pivot).is_integer()
        and abs(pivot) < 2**53
        and (column == np.rint(column)).all()
        and (row == np.rint(row)).all()
    ):
        divisors = [np.gcd.reduce(line.astype(np.int64), axis=None) for line in (column, row)]
        whole, rest = column / divisors[0], row / divisors[1]
        factor = pivot / (whole[i, 0] * rest[0, j])
        if factor == np.rint(factor) and ((factor * whole) * rest == taps).all():
            return Factors((factor * whole).astype(taps.dtype), rest.astype(taps.dtype))
    # In units of the largest tap, so that no sum overflows.
    unit = taps / pivot
    row = unit[[i], :]
    deviations, sizes = (
        np.abs(part).sum(dtype=np.float64) for part in (unit[:, [j]] * row - unit, unit)
    )
    # An output moves by the sum of all deviations at most, however small each tap is.
    if not deviations <= 2 * eps * sizes:
        return None
    return Factors(column, row)


@dataclass(frozen=True)
class Correlation:
    """A correlation of planes with taps, over a window.

    Attributes
    ----------
    planes : sequence of Plane
        Images of one shape and their outputs, float32 or float64.
    taps : (p, q) array of the outputs' dtype
        Finite.
    window : Window
        The outputs, and what they are made of.
    take : callable, optional
        What takes the outputs of a tile, which begin ``found``, while they stand in the cache, in
        place of a plane's ``out``; called as ``take(found, tile, scratch)`` from several threads
        at once. It may overwrite ``found``.
    """

    planes: Sequence[Plane]
    taps: AnyArray
    window: Window
    take: Take | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the taps, the scratch and the outputs."""
        return self.taps.dtype

    @property
    def kernel_shape(self) -> Shape:
        """``(p, q)``."""
        return self.taps.shape[0], self.taps.shape[1]

    @kept_property
    def factors(self) -> Factors | None:
        """The factors of the taps, where they have any."""
        return rank_one_factors(self.taps)

    def chosen(self, engine: str, times: Mapping[str, float] | None = None) -> str:
        """Return the engine, for "auto" by the model of cost, whose ``times`` may be known."""
        if engine != "auto":
            return engine
        times = times or engine_times(self.window.shape, self.kernel_shape, self.dtype.itemsize)
        # Whether a kernel is separable is asked only where that would be the fastest.
        first, second, _ = sorted(times, key=lambda name: times[name])
        return second if first == "separable" and self.factors is None else first

    def run(self, engine: str, workers: int) -> bool:
        """Compute the outputs; see `prepared`."""
        return self.prepared(engine, workers)()

    def prepared(self, engine: str, workers: int) -> Callable[[], bool]:
        """Return what computes the outputs, as often as it is called, by one thread at a time.

        Parameters
        ----------
        engine : {"auto", "direct", "separable", "fft"}
            How; by the model of cost for "auto".
        workers : int
            Threads to use.

        Returns
        -------
        callable
            Returns False where transforms met a number that is not finite, which spoils its tile.
        """
        times = engine_times(self.window.shape, self.kernel_shape, self.dtype.itemsize)
        engine = self.chosen(engine, times)
        make = {"direct": self._direct, "separable": self._separable, "fft": self._fft}[engine]
        way = make()
        tiles = Tiles(self.window.shape, way.tile_shape)
        if times[engine] * len(self.planes) < THREADED_TIME:
            workers = 1
        # Small images are a few jobs, one alone for one thread.
        most = min(MAX_JOBS, max(2 * workers, int(times[engine] / _JOB_TIME))) if workers > 1 else 1
        share = max(1, most // len(self.planes))
        jobs = [
            _Job(plane, part, way)
            for plane in self.planes
            for part in shares(tiles, share, way.together)
        ]
        # Each worker begins in a part of its own: new pages of memory are then not fought over.
        part = -(-len(jobs) // workers)
        jobs = [job for first in range(part) for job in jobs[first::part]]
        scratches = Scratches()

        def run() -> bool:
            # One thread has a working space of its own, whose pages are there.
            fine = all(run_jobs(jobs, own_scratch if workers == 1 else scratches.lend, workers))
            scratches.regain()
            return fine

        return run

    def _load(self, plane: Plane, tile: Tile, out: AnyArray) -> None:
        top, left, *_ = tile
        window = self.window
        origin = window.source_pixel(top, left)
        load(plane.image, origin, window.boundary, out, window.fill_value)

    def _direct(self) -> "_Way":
        height, width = TILE_SHAPE
        cols = self.window.shape[1]
        # Tiles of one width; of a narrow image taller ones.
        even = -(-cols // -(-cols // width))
        shape = height * max(1, min(4, width // cols)), even
        return self._by_sums(shape, self.taps, self.taps[:0, :1])

    def _separable(self) -> "_Way":
        column, row = map(np.ascontiguousarray, self.factors or ())
        return self._by_sums((max(TILE_SHAPE[0], len(column)), TILE_SHAPE[1]), row, column)

    def _by_sums(self, tile_shape: Shape, taps: AnyArray, column: AnyArray) -> "_Way":
        """Return the way by sums of products, one kernel or a row and a column."""
        (p, q), window, dtype = self.kernel_shape, self.window, self.dtype
        work_of_tile = math.prod(tile_shape) * (taps.size + column.size)
        fill = dtype.type(window.fill_value)

        def correlate(
            x: AnyArray, places: Sequence[Places], tiles: Any, scratch: Scratch, *out: Any
        ) -> None:
            table = np.array(list(tiles))
            height, width = table[:, 2:].max(axis=0).tolist()
            length = stencil.row_length(width + q - 1, dtype)
            room = (
                scratch.array("around", (height + p - 1, length), dtype),
                scratch.array("between", (height if len(column) else 0, length), dtype),
            )
            rows, cols = places
            inside = np.array([*rows.inside, *cols.inside])
            maps = rows.pixels, cols.pixels
            given = maps, inside, fill, taps, column, table
            stencil.correlate_image(x, *given, room, *out)

        def work(plane: Plane, tiles: Sequence[Tile], scratch: Scratch) -> bool:
            image, out = plane.image, plane.out
            # Loops would be compiled again for what cannot be written to.
            standing = image.dtype == dtype and _plain(image) and image.flags.writeable
            target = out if out is not None and _plain(out) else None
            if standing and target is not None:
                correlate(image, self._places(image.shape), tiles, scratch, target, (0, 0))
                return True
            for tile in tiles:
                top, left, height, width = tile
                found = scratch.array("found", (height, width), dtype)
                if standing:
                    places = self._places(image.shape)
                    correlate(image, places, [tile], scratch, found, (top, left))
                else:
                    x = self._loaded(plane, tile, scratch)
                    sides = height + p - 1, width + q - 1
                    places = [Places(np.arange(n), (0, n)) for n in sides]
                    given = x, places, [(0, 0, height, width)], scratch
                    if target is not None:
                        correlate(*given, target, (-top, -left))
                        continue
                    correlate(*given, found, (0, 0))
                if self.take is not None:
                    self.take(found, tile, scratch)
                elif out is not None:
                    out[top : top + height, left : left + width] = found
            return True

        return _Way(tile_shape, work, most=max(1, _UNSTOPPED // work_of_tile))

    def _loaded(self, plane: Plane, tile: Tile, scratch: Scratch) -> AnyArray:
        """Return the image under a tile, in rows as the loops need them."""
        (p, q), (height, width) = self.kernel_shape, tile[2:]
        shape = height + p - 1, stencil.row_length(width + q - 1, self.dtype)
        x = scratch.array("x", shape, self.dtype)
        self._load(plane, tile, x[:, : width + q - 1])
        return x

    def _places(self, shape: Shape) -> list[Places]:
        """Return which rows and columns of an image stand where the window sees them."""
        window = self.window
        return [
            places_of(start, n + k - 1, length, window.boundary)
            for start, n, k, length in zip(
                window.source_origin, window.shape, self.kernel_shape, shape, strict=True
            )
        ]

    def _fft(self) -> "_Way":
        p, q = self.kernel_shape
        lengths = fft_lengths(self.window.shape, self.kernel_shape, self.dtype.itemsize)
        pair = TilePair(lengths, self.dtype)
        spectrum = pair.spectrum(self.taps)

        def work(plane: Plane, tiles: Sequence[Tile], scratch: Scratch) -> bool:
            arrays = pair.arrays(scratch)
            for i in range(2):
                rows = cols = 0
                if i < len(tiles):
                    rows, cols = tiles[i][2] + p - 1, tiles[i][3] + q - 1
                    self._load(plane, tiles[i], arrays.pair[i, :rows, :cols])
                arrays.pair[i, rows:] = 0
                arrays.pair[i, :rows, cols:] = 0
            pair.correlate(arrays, spectrum)
            fine = True
            for found, tile in zip(arrays.pair, tiles, strict=False):
                if self.take is not None:
                    self.take(found, tile, scratch)
                elif plane.out is not None:
                    fine &= _written(found, plane.out, tile)
            return fine

        return _Way((lengths[0] - p + 1, lengths[1] - q + 1), work, together=2)


@dataclass(frozen=True)
class RoundTrip:
    """A "valid" correlation, a change of what it finds, and the adjoint of the correlation.

    Both are done with a tile while it stands in the cache, by transforms; what is found in between
    is nowhere stored.

    Attributes
    ----------
    taps : (p, q) float32 or float64 array
        Finite.
    shape : (int, int)
        Of the image, (M, N); what is found in between has (M - p + 1, N - q + 1).
    """

    taps: AnyArray
    shape: Shape

    @kept_property
    def _lengths(self) -> Shape:
        p, q = self.taps.shape
        return fft_lengths(self.shape, (2 * p - 1, 2 * q - 1), self.taps.itemsize)

    @kept_property
    def _scratches(self) -> Scratches:
        return Scratches()

    @kept_property
    def _both(self) -> TilePair:
        return TilePair(self._lengths, self.taps.dtype)

    @kept_property
    def _spectra(self) -> tuple[AnyArray, AnyArray]:
        return self._both.spectrum(self.taps), self._both.spectrum(self.taps[::-1, ::-1])

    def run(
        self,
        image: AnyArray,
        change: Change,
        take: Take,
        workers: int,
    ) -> None:
        """Do it.

        Parameters
        ----------
        image : (M, N) array of the taps' dtype
            Finite, C order.
        change : callable
            ``change(found, shape, origin, tile)`` overwrites the first rows and columns of
            ``found``, a part of what is found that begins at ``origin``, which may lie beyond its
            frame; what lies beyond is to become 0. Parts overlap; ``tile``, as far as it lies
            inside the frame, belongs to no other.
        take : callable
            Takes the beginning of an array, the outcome in a tile of the image.
        workers : int
            Threads to use. The outcome is the same bit for bit.
        """
        (m, n), (p, q) = self._lengths, self.taps.shape
        both, (there, back) = self._both, self._spectra
        tiles = Tiles(self.shape, (m - 2 * p + 2, n - 2 * q + 2))
        found_shape = m - p + 1, n - q + 1

        def work(some: Sequence[Tile], scratch: Scratch, stopped: Callable[[], bool]) -> None:
            for first, last in split(len(some), 2):
                if stopped():
                    break
                arrays = both.arrays(scratch)
                arrays.pair[last - first :] = 0
                parts = list(zip(arrays.pair, some[first:last], strict=False))
                origins = [(top - p + 1, left - q + 1) for _, (top, left, *_) in parts]
                for (part, _), origin in zip(parts, origins, strict=True):
                    tile_copies.read_tile(image, *origin, (m, n), part)
                both.correlate(arrays, there)
                for (part, tile), origin in zip(parts, origins, strict=True):
                    change(part, found_shape, origin, tile)
                    # What wrapped around may be anything, and large enough to spoil the rest.
                    part[found_shape[0] :] = 0
                    part[:, found_shape[1] :] = 0
                both.correlate(arrays, back)
                for part, tile in parts:
                    take(part, tile, scratch)

        jobs = [partial(work, part) for part in shares(tiles, MAX_JOBS, 2)]
        run_jobs(jobs, self._scratches.lend, workers)
        self._scratches.regain()


class _Way(NamedTuple):
    """How an engine works: on tiles of a shape, so many of them at once, more if that pays."""

    tile_shape: Shape
    work: Callable[[Plane, Sequence[Tile], Scratch], bool]
    together: int = 1
    most: int = 1


@dataclass(frozen=True, slots=True)
class _Job:
    """Some tiles of a plane."""

    plane: Plane
    tiles: Sequence[Tile]
    way: _Way

    def __call__(self, scratch: Scratch, stopped: Callable[[], bool]) -> bool:
        fine = True
        with np.errstate(over="ignore", invalid="ignore"):
            for first, last in split(len(self.tiles), max(self.way.together, self.way.most)):
                if stopped():
                    break
                fine &= self.way.work(self.plane, self.tiles[first:last], scratch)
        return fine


def _written(found: AnyArray, out: AnyArray, tile: Tile) -> bool:
    """Write the beginning of ``found`` into a tile of any output; tell whether it is finite."""
    top, left, height, width = tile
    if _plain(out):
        return bool(tile_copies.write_tile(found, (height, width), out, top, left))
    inside = found[:height, :width]
    out[top : top + height, left : left + width] = inside
    return bool(np.isfinite(inside).all())


def _plain(out: AnyArray) -> bool:
    """Return whether loops can write into an array."""
    return out.flags.c_contiguous and out.flags.aligned and out.dtype.isnative
