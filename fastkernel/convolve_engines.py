"""The engines of convolution: jobs that read an image tile by tile and write disjoint outputs.

Every job reads into a worker's own scratch, which casts, re-orders and extends the image; the
loops and the plans see nothing else. An output depends on its tile alone, so neither the number
of workers nor the layout of an array changes a bit of it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fastkernel import _fft, _tiles
from fastkernel._borders import load
from fastkernel._convolve_cost import engine_times, fft_lengths
from fastkernel._loops import stencil
from fastkernel._typing import AnyArray, Shape
from fastkernel._windows import Window

# A tile of the image fills a quarter of a 2 MB second-level cache; long rows are read at the
# speed of memory. A separable kernel's tiles are at least as tall as the kernel.
TILE_SHAPE = (64, 1024)
SEPARABLE_WIDTH = 512

# Enough for an even share on any machine.
MAX_JOBS = 256

# Nanoseconds of work below which threads cost more than they save.
THREADED_TIME = 300_000


class Plane(NamedTuple):
    """An image, and the array of the window's shape that takes its correlation."""

    image: AnyArray
    out: AnyArray


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
    if abs(pivot) < 2**53 and (column == np.rint(column)).all() and (row == np.rint(row)).all():
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
    if not deviations <= 2 * float(np.finfo(taps.dtype).eps) * sizes:
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
    then : callable, optional
        Called as ``then(tile, scratch)`` when a tile of the outputs of one plane is done, while
        it stands in the cache; from several threads at once.
    """

    planes: Sequence[Plane]
    taps: AnyArray
    window: Window
    then: Callable[[_tiles.Tile, _tiles.Scratch], None] | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the taps, the scratch and the outputs."""
        return self.taps.dtype

    @property
    def kernel_shape(self) -> Shape:
        """``(p, q)``."""
        return self.taps.shape[0], self.taps.shape[1]

    @cached_property
    def factors(self) -> Factors | None:
        """The factors of the taps, where they have any."""
        return rank_one_factors(self.taps)

    def run(self, engine: str, workers: int) -> bool:
        """Compute the outputs.

        Parameters
        ----------
        engine : {"auto", "direct", "separable", "fft"}
            How; by the model of cost for "auto".
        workers : int
            Threads to use.

        Returns
        -------
        bool
            False where transforms met a number that is not finite, which spoils its tile.
        """
        shapes = self.window.shape, self.kernel_shape
        times = engine_times(*shapes, self.dtype.itemsize)
        if engine == "auto":
            # Whether a kernel is separable is asked only where that would be the fastest.
            first, second, _ = sorted(times, key=lambda name: times[name])
            engine = second if first == "separable" and self.factors is None else first
        make = {"direct": self._direct, "separable": self._separable, "fft": self._fft}[engine]
        tile_shape, work = make()
        tiles = _tiles.Tiles(self.window.shape, tile_shape)
        share = max(1, MAX_JOBS // len(self.planes))
        jobs = [
            _Job(plane, part, work, self.then)
            for plane in self.planes
            for part in _tiles.shares(tiles, share)
        ]
        if times[engine] * len(self.planes) < THREADED_TIME:
            workers = 1
        # Each worker begins in a part of its own: new pages of memory are then not fought over.
        part = -(-len(jobs) // workers)
        jobs = [job for first in range(part) for job in jobs[first::part]]
        return all(_tiles.run(jobs, _tiles.Scratch, workers))

    def _load(self, plane: Plane, tile: _tiles.Tile, out: AnyArray) -> None:
        top, left, *_ = tile
        load(plane.image, self.window.source_pixel(top, left), self.window.boundary, out)

    def _loaded(self, plane: Plane, tile: _tiles.Tile, scratch: _tiles.Scratch) -> AnyArray:
        """Return the image under a tile, in rows as the loops need them."""
        (p, q), (height, width) = self.kernel_shape, tile[2:]
        cols = width + q - 1
        x = scratch.array("x", (height + p - 1, stencil.row_length(cols, self.dtype)), self.dtype)
        self._load(plane, tile, x[:, :cols])
        return x

    def _correlate(
        self, x: AnyArray, taps: AnyArray, plane: Plane, tile: _tiles.Tile, scratch: _tiles.Scratch
    ) -> None:
        """Write the correlation of ``x`` into a tile of any output."""
        (top, left, height, width), out = tile, plane.out
        if out.flags.c_contiguous and out.flags.aligned and out.dtype.isnative:
            stencil.correlate_tile(x, taps, (height, width), out, top, left)
            return
        found = scratch.array("found", (height, width), self.dtype)
        stencil.correlate_tile(x, taps, (height, width), found, 0, 0)
        out[top : top + height, left : left + width] = found

    def _direct(self) -> "tuple[Shape, _Work]":
        def work(plane: Plane, tile: _tiles.Tile, scratch: _tiles.Scratch) -> bool:
            x = self._loaded(plane, tile, scratch)
            self._correlate(x, self.taps, plane, tile, scratch)
            return True

        height, width = TILE_SHAPE
        cols = self.window.shape[1]
        # Tiles of one width; of a narrow image taller ones.
        even = -(-cols // -(-cols // width))
        return (height * max(1, min(4, width // cols)), even), work

    def _separable(self) -> "tuple[Shape, _Work]":
        p, q = self.kernel_shape
        column, row = map(np.ascontiguousarray, self.factors or ())

        def work(plane: Plane, tile: _tiles.Tile, scratch: _tiles.Scratch) -> bool:
            x = self._loaded(plane, tile, scratch)
            height, cols = tile[2], tile[3] + q - 1
            between = scratch.array("between", (height, x.shape[1]), self.dtype)
            stencil.correlate_tile(x, column, (height, cols), between, 0, 0)
            self._correlate(between, row, plane, tile, scratch)
            return True

        return (max(TILE_SHAPE[0], p), min(TILE_SHAPE[1], SEPARABLE_WIDTH)), work

    def _fft(self) -> "tuple[Shape, _Work]":
        p, q = self.kernel_shape
        lengths = fft_lengths(self.window.shape, self.kernel_shape, self.dtype.itemsize)
        with _fft.borrowed_tile_transforms(lengths, self.dtype) as plan:
            plan.tile[:] = 0
            plan.tile[:p, :q] = self.taps
            plan.forward()
            spectrum = plan.spectrum.conj() / self.dtype.type(math.prod(lengths))

        def work(plane: Plane, tile: _tiles.Tile, scratch: _tiles.Scratch) -> bool:  # noqa: ARG001
            top, left, height, width = tile
            rows, cols = height + p - 1, width + q - 1
            with (
                _fft.borrowed_tile_transforms(lengths, self.dtype) as plan,
                np.errstate(over="ignore", invalid="ignore"),
            ):
                plan.tile[rows:] = 0
                plan.tile[:rows, cols:] = 0
                self._load(plane, tile, plan.tile[:rows, :cols])
                plan.forward()
                np.multiply(plan.spectrum, spectrum, out=plan.spectrum)
                plan.inverse()
                # What wraps around lies beyond the tile.
                found = plan.tile[:height, :width]
                plane.out[top : top + height, left : left + width] = found
                return bool(np.isfinite(found).all())

        return (lengths[0] - p + 1, lengths[1] - q + 1), work


_Work = Callable[[Plane, _tiles.Tile, _tiles.Scratch], bool]


@dataclass(frozen=True, slots=True)
class _Job:
    """Some tiles of a plane."""

    plane: Plane
    tiles: Sequence[_tiles.Tile]
    work: _Work
    then: Callable[[_tiles.Tile, _tiles.Scratch], None] | None

    def __call__(self, scratch: _tiles.Scratch, stopped: Callable[[], bool]) -> bool:
        fine = True
        for tile in self.tiles:
            if stopped():
                break
            fine &= self.work(self.plane, tile, scratch)
            if self.then is not None:
                self.then(tile, scratch)
        return fine
