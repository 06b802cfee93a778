"""Jobs that correlate tiles by transforms of their rows: what they read, and what they add up."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from fastkernel._images.borders import load, places_of
from fastkernel._images.pairs import Pair
from fastkernel._images.rows import flat_pixels
from fastkernel._loops import lags, row_spectra
from fastkernel._loops._lanes import LANES
from fastkernel._loops._reading import KINDS, Image
from fastkernel._machine.tiles import Scratch, Tile, split
from fastkernel._typing import AnyArray, FloatArray, Shape
from fastkernel.estimation.equations.gathering_cost import fft_sums_are_exact, largest_product

# Multiply-adds after which a job looks whether to stop: some hundredths of a second.
_UNSTOPPED = 1 << 27

_FLOAT64 = np.dtype(np.float64)

_NUMBERS = {dtype: number for number, dtype in enumerate(KINDS)}


class Found(NamedTuple):
    """What the tiles of a job add up to.

    Attributes
    ----------
    moments : (p, q) float64 array
        By shift.
    base : (2, p, q) or (p, 2q - 1) float64 array
        Base entries of the Gram matrix, or an autocorrelation, see `_loops.rims.fill_base`.
    energy : float
        Of the result.
    gram : (p * q, p * q) float64 array, optional
        By shift; None where base entries and strips tell it.
    """

    moments: FloatArray
    base: FloatArray
    energy: float
    gram: FloatArray | None = None


def row_length(width: int, more: int, dtype: np.dtype[Any]) -> int:
    """Return the length of a scratch row: whole vectors, ``more`` pixels, no colliding stride."""
    lanes: int = lags.vector_lanes(dtype)
    length = -(-(-(-width // lanes) * lanes + more) // lanes) * lanes
    return length + lanes if length * dtype.itemsize % 4096 == 0 else length


class RowReader(NamedTuple):
    """What loops read of a pair: the images as they stand where they know them, or copies of tiles.

    Attributes
    ----------
    pair : Pair
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    images : (source, result) or None
        None where tiles are cast one by one.
    places : four 1-D int arrays
        See `row_spectra.add_row_correlations`.
    inside : (int, int)
        Half-open range of the columns of what the kernel sees that are the source's own.
    """

    pair: Pair
    kernel_shape: Shape
    images: tuple[Image, Image] | None
    places: tuple[AnyArray, ...]
    inside: tuple[int, int]

    @classmethod
    def of(cls, pair: Pair, kernel_shape: Shape) -> Self:
        """Return the reader of a pair."""
        window = pair.window
        around = [n + k - 1 for n, k in zip(window.shape, kernel_shape, strict=True)]
        lines = [
            places_of(start, size, length, window.boundary)
            for origin, sizes, image in (
                (window.source_origin, around, pair.source),
                (window.result_origin, window.shape, pair.result),
            )
            for start, size, length in zip(origin, sizes, image.shape, strict=True)
        ]
        source, result = map(standing_image, (pair.source, pair.result))
        images = None if source is None or result is None else (source, result)
        places = tuple(line.pixels for line in lines)
        return cls(pair, kernel_shape, images, places, lines[1].inside)

    def table(self, tiles: Sequence[Tile]) -> AnyArray:
        """Return tiles of what the kernel sees as `row_spectra.add_row_correlations` takes them."""
        (p, q), window = self.kernel_shape, self.pair.window
        rows, cols = (n + k - 1 for n, k in zip(window.shape, self.kernel_shape, strict=True))
        top, left, height, width = np.array(list(tiles)).T
        # The tile's own first column stands q - 1 columns into its surroundings.
        first, last = np.maximum(left - q + 1, 0), np.minimum(left + width + q - 1, cols)
        down = np.minimum(height + p - 1, rows - top)
        own = (np.clip(place - first, 0, last - first) for place in self.inside)
        answer = (
            np.clip(length - start, 0, size)
            for length, start, size in zip(window.shape, (top, left), (height, width), strict=True)
        )
        around = top, first, down, last - first, *own, first - left + q - 1
        return np.column_stack([*around, left - first, height, width, *answer])

    def read(self, table: AnyArray, work: int) -> Iterator[tuple[Any, AnyArray, slice]]:
        """Yield what loops take of some tiles: images and places, the tiles, and which these are.

        Parameters
        ----------
        table : (n, 12) int array
        work : int
            Multiply-adds a tile.
        """
        if self.images is not None:
            for start, stop in split(len(table), max(1, _UNSTOPPED // work)):
                yield (self.images, self.places), table[start:stop], slice(start, stop)
            return
        window = self.pair.window
        for number, tile in enumerate(table):
            top, first, down, across, *_, left, _, _, high, wide = tile.tolist()
            source, result = np.empty((down, across)), np.empty((high, wide))
            load(self.pair.source, window.source_pixel(top, first), window.boundary, source)
            if result.size:
                place = window.result_pixel(top, first + left)
                load(self.pair.result, place, window.boundary, result)
            # The tile stays where it is; what it holds begins at the first pixel of the copies.
            ends = (top, down), (first, across), (top, high), (first + left, wide)
            places = (np.arange(start + size) - start for start, size in ends)
            moved = tile.copy()
            moved[4:6] = 0, across
            images = tuple(map(standing_image, (source, result)))
            yield (images, tuple(places)), moved[None], slice(number, number + 1)


def standing_image(image: AnyArray) -> Image | None:
    """Return an image as loops read it where it stands, None if they do not know it."""
    kind = _NUMBERS.get(image.dtype)
    if kind is None or (flat := flat_pixels(image)) is None:
        return None
    return flat.pixels.view(np.uint8), kind, flat.stride


def row_scratch(
    scratch: Scratch, length: int, height: int, kernel_shape: Shape, degree: int
) -> tuple[Any, ...]:
    """Return a transform, and what loops work in: room, a tile's pixels, and spectra."""
    # Whole vectors are read from any column on.
    (p, q), wide = kernel_shape, row_length(length, LANES, _FLOAT64)
    tall = row_spectra.whole(height + p - 1)
    x, y = scratch.array("x", (tall, wide)), scratch.array("y", (row_spectra.whole(height), wide))
    shapes = row_spectra.room_shapes(length, q - 1, degree)
    room = tuple(scratch.array(f"room {i}", shape) for i, shape in enumerate(shapes))
    # Pixels that no tile fills are multiplied by zero.
    room[0].fill(0.0)
    spectra = scratch.array("spectra", row_spectra.spectra_shape(length, tall, degree))
    return row_spectra.transform_of(length), room, (x, y), spectra


@dataclass(frozen=True, slots=True)
class FftJob:
    """Some tiles of a pair, correlated by transforms of their rows.

    The tiles part the whole virtual source, not the window. A row of a tile is zero-padded, the
    same row with its surroundings is not (zeros beyond the source): the product of their
    transforms, one conjugated, is that of their correlation. Down the columns lags are summed as
    they are.
    """

    reader: RowReader
    table: AnyArray
    length: int

    def __call__(self, scratch: Scratch, stopped: Callable[[], bool]) -> Found:
        """Return the moments, the autocorrelation and the energy, exact for narrow integers."""
        (p, q), energy, height = self.reader.kernel_shape, 0.0, int(self.table[:, 8].max())
        how = row_scratch(scratch, self.length, height, (p, q), 0)
        ones = np.ones((1, self.reader.pair.window.shape[1] + q - 1))
        totals = np.zeros((2, row_spectra.groups_of(self.length), p, 2, LANES))
        for given, tiles, _ in self.reader.read(self.table, 8 * p * height * self.length):
            if stopped():
                break
            energy += row_spectra.add_row_correlations(*given, tiles, ones, *how, totals)
        found = [row_spectra.correlations(part, self.length, 2 * q - 1) for part in totals]
        if self._is_exact():
            found = [np.rint(part) for part in found]
        return Found(found[1][:, q - 1 :], found[0], energy)

    def _is_exact(self) -> bool:
        source, result, *_ = self.reader.pair
        if source.dtype.kind == "f" or result.dtype.kind == "f":
            return False
        n_pixels = int(self.table[:, 8].sum()) * self.length
        return fft_sums_are_exact(n_pixels, largest_product(source, result), self.length)
