r"""Lagged products of the pixels of a pair, weighted by powers of the place of each.

With the place of a pixel on scales from -1 to 1, :math:`v` down and :math:`u` across, these are

.. math:: A_{ij}(\delta) = \sum_t v_t^i\, u_t^j\, x_t\, x_{t+\delta}, \qquad
          M_{ij}(\delta) = \sum_t v_t^i\, u_t^j\, y_t\, x_{t+\delta},

from transforms of rows. A factor for the row of a pixel is one for its spectrum. One for its column
is not, so rows are transformed again for every power; where two rows meet, each brings half of it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fastkernel._images.pairs import Pair
from fastkernel._loops import row_spectra
from fastkernel._loops._cascade import MAX_DEPTH
from fastkernel._loops._lanes import LANES
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import Scratch, Tiles, run_jobs, split
from fastkernel._typing import AnyArray, FloatArray, Shape
from fastkernel.estimation.equations.gathering_cost import Tiling, fft_tilings
from fastkernel.estimation.equations.row_jobs import RowReader, row_scratch

# Rows of a tile, at least: long marches, and few of them.
_ROWS = 128

# Rows whose products are summed at a time.
_BLOCK, _LEAST_BLOCK = 128, 16

# Jobs: their sums are held until they are added.
_MAX_JOBS = 32


class Scale(NamedTuple):
    """Places along an axis: that of pixel ``n`` of a window is ``start + n * step``."""

    start: float
    step: float

    def powers(self, degree: int, first: int, count: int) -> FloatArray:
        """Return the powers of the places of some pixels, (degree + 1, count)."""
        place = self.start + self.step * np.arange(first, first + count)
        return np.asarray(place ** np.arange(degree + 1.0)[:, None])


class WeightedLags(NamedTuple):
    """Sums over the pixels of a window, by powers of the column, then of the row.

    Attributes
    ----------
    ahead : list of (2 * degree + 1 - j, p, 2q - 1) float64 arrays
        For every power ``j``: the products of the source's pixels in the window, with those ``p -
        1`` rows below, from ``q - 1`` columns left to as many right; zeros left of the window.
    moments : list of (degree + 1 - j, p, q) float64 arrays
        Those of the result, with the source, by shift.
    energy : float
        Of the result.
    """

    ahead: list[FloatArray]
    moments: list[FloatArray]
    energy: float


@dataclass(frozen=True, slots=True)
class _LagsJob:
    """Some tiles of a window, their lags by halves of powers until they are unmixed.

    Attributes
    ----------
    reader : RowReader
        Of the pair.
    table : (n, 12) int array
        Of the tiles, parts of the window.
    length : int
        Of the transforms, in pixels.
    down : Scale
        Of the window's rows.
    across : (degree + 1, width + q - 1) float64 array
        The powers of the places of the columns of the window's source.
    """

    reader: RowReader
    table: AnyArray
    length: int
    down: Scale
    across: FloatArray

    def __call__(self, scratch: Scratch, stopped: Callable[[], bool]) -> WeightedLags:
        (p, q), degree, energy = self.reader.kernel_shape, len(self.across) - 1, 0.0
        height, groups = int(self.table[:, 8].max()), row_spectra.groups_of(self.length)
        *how, spectra = row_scratch(scratch, self.length, height, (p, q), degree)
        kept = _products(degree)
        weighted = scratch.array("weighted", (1, height, 2, LANES))
        rows, block, powers = self._down(height)
        out = np.zeros((groups, p, kept.in_all, 2, LANES))
        work = 4 * p * kept.in_all * height * self.length
        for given, tiles, part in self.reader.read(self.table, work):
            if stopped():
                break
            down = rows[part], block, powers[part]
            energy += row_spectra.add_weighted_row_correlations(
                *given, tiles, self.across, down, kept.table, *how, (spectra, weighted), out
            )
        found = row_spectra.correlations(out, self.length, 2 * q - 1)
        by_power = np.ascontiguousarray(np.moveaxis(found, 1, 0))
        ahead = [by_power[start:stop] for start, stop in kept.ahead]
        moments = [by_power[start:stop, :, q - 1 :] for start, stop in kept.moments]
        return WeightedLags(ahead, moments, energy)

    def _down(self, height: int) -> tuple[FloatArray, int, FloatArray]:
        """Return the powers that rows are given before they are summed, and those of sums."""
        (place, step), degree, tops = self.down, len(self.across) - 1, self.table[:, 0]
        # Where rows are far apart, the powers of sums would cancel digits.
        block = min(_BLOCK, max(_LEAST_BLOCK, self.reader.pair.window.shape[0] // 16))
        folds = np.arange(0, 2 * degree + 1, MAX_DEPTH)
        lines = place + step * np.add.outer(tops, np.arange(height))
        rows = lines[:, None] ** folds[:, None]
        starts = np.arange(0, height, block)
        powers = [
            [
                row_spectra.powers_of_sums(place + step * (top + end - 1), step)
                for end in np.minimum(starts + block, tall).tolist()
            ]
            for top, tall in self.table[:, [0, 8]].tolist()
        ]
        return rows, block, np.array(powers)


class _Products(NamedTuple):
    """Which products of spectra are summed, and where.

    Attributes
    ----------
    table : (n, 5) int array
        See `row_spectra.add_weighted_row_correlations`.
    ahead, moments : list of (int, int)
        By power of the column, which of the sums are its powers of the row.
    in_all : int
        How many sums there are.
    """

    table: AnyArray
    ahead: list[tuple[int, int]]
    moments: list[tuple[int, int]]
    in_all: int


@lru_cache(8)
def _products(degree: int) -> _Products:
    """Return those of a field of a degree: halves of powers meet, one with the other or itself."""
    asked = [(j // 2, j - j // 2, 2 * degree + 1 - j) for j in range(2 * degree + 1)]
    asked += [(j, degree + 1, degree + 1 - j) for j in range(degree + 1)]
    table, kept, ends = [], [], 0
    for half, other, count in asked:
        kept.append((ends, ends + count))
        for fold, (start, stop) in enumerate(split(count, MAX_DEPTH)):
            table.append((half, other, fold, ends + start, stop - start))
        ends += count
    found = np.array(sorted(table))
    found.flags.writeable = False
    return _Products(found, kept[: 2 * degree + 1], kept[2 * degree + 1 :], ends)


def weighted_lags(
    pair: Pair, kernel_shape: Shape, degree: int, scales: tuple[Scale, Scale], run: Run
) -> WeightedLags:
    """Gather the sums of a pair.

    Parameters
    ----------
    pair : Pair
        Of images in memory, all of whose pixels are used, with a weight of 1.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    degree : int
        The highest total power of the moments; twice as high for the source.
    scales : pair of Scale
        Of the window's rows and of its columns.
    run : Run
        How. The answer is the same bit for bit.

    Notes
    -----
    Cost: ``2 * degree + 3`` transforms of every row, and ``2 * p`` multiply-adds a pixel for every
    power of the column, 8 of them for degree 2, with ``p`` additions for every further power of
    the row, 13 of them.
    """
    window = pair.window.shape
    length, (_, width) = _tiling(window, kernel_shape)
    tiles = Tiles(window, (max(_ROWS, 2 * kernel_shape[0]), width))
    across = scales[1].powers(degree, 0, window[1] + kernel_shape[1] - 1)
    reader = RowReader.of(pair, kernel_shape)
    table = reader.table(tiles)
    jobs = [
        _LagsJob(reader, table[start:stop], length, scales[0], across)
        for start, stop in split(len(table), -(-len(table) // _MAX_JOBS))
    ]
    first, *others = run_jobs(jobs, Scratch, run.workers, run.progress)
    ahead, moments, energy = first
    for found in others:
        for total, part in zip(ahead + moments, found.ahead + found.moments, strict=True):
            total += part
        energy += found.energy
    q, step = kernel_shape[1], scales[1].step
    halves = [j // 2 for j in range(len(ahead))]
    _unmix(ahead, halves, step * np.arange(1.0 - q, q))
    _unmix(moments, list(range(len(moments))), step * np.arange(float(q)))
    return WeightedLags(ahead, moments, energy)


def _tiling(window: Shape, kernel_shape: Shape) -> Tiling:
    """Return the shortest transforms of which what is around a tile takes little.

    The spectra of all powers are then nearest to the second-level cache.
    """
    tilings = fft_tilings(window, kernel_shape)
    around = 2 * (kernel_shape[1] - 1)
    return next((tilings[n] for n in sorted(tilings) if around <= n / 8), tilings[max(tilings)])


def _unmix(sums: list[FloatArray], halves: list[int], apart: FloatArray) -> None:
    r"""Make sums of :math:`u^{j-h} (u + d)^h`, in place, those of :math:`u^j`."""
    for j, half in enumerate(halves):
        for k in range(half):
            share = math.comb(half, k) * apart ** (half - k)
            sums[j] -= share * sums[j - half + k][: len(sums[j])]
