r"""Lagged products of the pixels of a pair, weighted by powers of the place of each.

With the place of a pixel on scales from -1 to 1, :math:`v` down and :math:`u` across, these are

.. math:: A_{ij}(\delta) = \sum_t v_t^i\, u_t^j\, x_t\, x_{t+\delta}, \qquad
          M_{ij}(\delta) = \sum_t v_t^i\, u_t^j\, y_t\, x_{t+\delta},

from transforms of rows. A factor for the row of a pixel is one for its spectrum. One for its column
is not, so rows are transformed again for every power; where two rows meet, each brings half of it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastkernel._images.borders import load
from fastkernel._images.pairs import Pair
from fastkernel._loops import lags
from fastkernel._loops._lanes import LANES
from fastkernel._machine.fft import borrowed_row_transforms
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import Scratch, Tile, Tiles, run_jobs, shares
from fastkernel._typing import AnyArray, FloatArray, Shape
from fastkernel.estimation.equations.gathering_cost import fft_tiling
from fastkernel.estimation.equations.gathering_engines import ZeroPadded

# Rows of a tile, at least: long marches, and few of them.
_ROWS = 128

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
    pair, kernel_shape
        See `weighted_lags`.
    tiles : sequence of tiles
        Parts of the window.
    length : int
        Of the transforms, in pixels.
    down : (2 * degree + 1, height) float64 array
        The powers of the places of the window's rows.
    across : (degree + 1, width + q - 1) float64 array
        Those of the columns of what its source is.
    """

    pair: Pair
    kernel_shape: Shape
    tiles: Sequence[Tile]
    length: int
    down: FloatArray
    across: FloatArray

    def __call__(self, scratch: Scratch, stopped: Callable[[], bool]) -> WeightedLags:
        (p, q), degree = self.kernel_shape, len(self.across) - 1
        core, energy = max(tile[2] for tile in self.tiles), 0.0
        with (
            borrowed_row_transforms(self.length, (degree + 2) * core) as near,
            borrowed_row_transforms(self.length, core + p - 1) as far,
        ):
            *owns, answer = map(ZeroPadded, np.split(near.rows, degree + 2))
            around, wide = ZeroPadded(far.rows), _vectors(far.spectra)
            own_spectra = np.split(_vectors(near.spectra), degree + 2)
            lines, *line = wide.shape[1:]
            ahead, moments = (
                [np.zeros((lines, line[0], most + 1 - j, 2 * p, line[1])) for j in range(most + 1)]
                for most in (2 * degree, degree)
            )
            work = [scratch.array(name, (core + p - 1, *line)) for name in ("lines", "weighted")]
            for tile in self.tiles:
                if stopped():
                    break
                (top, left, height, width), pixels = tile, self._around(tile, scratch)
                first = max(left - q + 1, 0)
                powers = self.across[:, first : first + pixels.shape[1]]
                inside = slice(left - first, left - first + width)
                for own, power in zip(owns, powers, strict=True):
                    np.multiply(
                        pixels[:height, inside], power[inside], out=own.part(0, height, width)
                    )
                energy += self._answer(tile, answer)
                near.transform()
                weights = self.down[:, top : top + height]
                for half, power in enumerate(powers):
                    part = around.part(first - left + q - 1, *pixels.shape)
                    np.multiply(pixels, power, out=part)
                    far.transform()
                    for j in range(2 * half, min(2 * half + 2, 2 * degree + 1)):
                        given = wide, own_spectra[j - half], weights[: 2 * degree + 1 - j], height
                        lags.add_weighted_row_correlations(*given, *work, ahead[j])
                    given = wide, own_spectra[-1], weights[: degree + 1 - half], height
                    lags.add_weighted_row_correlations(*given, *work, moments[half])
        return WeightedLags(
            [self._lags(total) for total in ahead],
            [self._lags(total)[..., q - 1 :] for total in moments],
            energy,
        )

    def _around(self, tile: Tile, scratch: Scratch) -> FloatArray:
        """Return the source under a tile, with what its lags reach inside the window's source."""
        (source, _, window, *_), (p, q) = self.pair, self.kernel_shape
        top, left, height, width = tile
        first, last = max(left - q + 1, 0), min(left + width, window.shape[1]) + q - 1
        pixels = scratch.array("x", (height + p - 1, last - first))
        load(source, window.source_pixel(top, first), window.boundary, pixels)
        return pixels

    def _answer(self, tile: Tile, answer: ZeroPadded) -> float:
        """Read the result under a tile, and return its energy."""
        (_, result, window, *_), (top, left, *shape) = self.pair, tile
        part = answer.part(0, *shape)
        load(result, window.result_pixel(top, left), window.boundary, part)
        return float(lags.energy(answer.array, tile[2:]))

    def _lags(self, totals: FloatArray) -> FloatArray:
        """Return sums of products of spectra as sums over pixels, (k, p, 2q - 1)."""
        spectra = lags.weighted_row_correlations(totals)
        half, reach = self.length // 2 + 1, 2 * self.kernel_shape[1] - 1
        return np.asarray(np.fft.irfft(spectra[..., :half], self.length)[..., :reach])


def _vectors(spectra: AnyArray) -> FloatArray:
    """Return spectra of rows as cache lines of vectors, real and imaginary parts in turn."""
    return spectra.view(np.float64).reshape(len(spectra), -1, lags.SIDE, LANES)


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
    power: 21 of them for degree 2.
    """
    window = pair.window.shape
    length, (_, width) = fft_tiling(window, kernel_shape)
    tiles = Tiles(window, (max(_ROWS, 2 * kernel_shape[0]), width))
    down = scales[0].powers(2 * degree, 0, window[0])
    across = scales[1].powers(degree, 0, window[1] + kernel_shape[1] - 1)
    jobs = [
        _LagsJob(pair, kernel_shape, part, length, down, across)
        for part in shares(tiles, _MAX_JOBS)
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


def _unmix(sums: list[FloatArray], halves: list[int], apart: FloatArray) -> None:
    r"""Make sums of :math:`u^{j-h} (u + d)^h`, in place, those of :math:`u^j`."""
    for j, half in enumerate(halves):
        for k in range(half):
            share = math.comb(half, k) * apart ** (half - k)
            sums[j] -= share * sums[j - half + k][: len(sums[j])]
