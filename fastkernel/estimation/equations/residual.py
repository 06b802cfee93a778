"""What a kernel leaves unexplained, computed pixel by pixel: its moments and its energy."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from fastkernel._images.borders import load
from fastkernel._images.pairs import Pair
from fastkernel._loops import lags, moments
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import Scratch, Tile, Tiles, shares
from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.equations import gathering_engines as engines
from fastkernel.estimation.equations.background import BackgroundSums, terms_of
from fastkernel.estimation.equations.sweeps import View, each_pair, sweep
from fastkernel.estimation.polynomial import values_of


def residual_moments(pairs: Sequence[Pair], taps: FloatArray, run: Run) -> tuple[FloatArray, float]:
    """Return the moments and the energy of what a kernel leaves unexplained, tap by tap.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one, of finite pixels.
    taps : (p, q) float64 array
        The kernel by shift, that is flipped both ways.
    run : Run
        How. The answer is the same bit for bit.

    Returns
    -------
    moments : (p*q,) float64 array
        By shift: sums of the residual times the shifted source.
    energy : float
        Sum of the squared residual.
    """

    def act(view: View, found: float | None) -> float:
        height, width = view.convolved.shape
        left_over = view.y[:, :width]
        left_over -= view.convolved
        return (found or 0.0) + float(lags.energy(view.y, (height, width)))

    right, energy = np.zeros(taps.shape), 0.0
    for _, found, part in sweep(pairs, taps, act, run):
        right += found
        energy += part
    return right.ravel(), energy


@dataclass(frozen=True, slots=True)
class _TransformJob:
    """Some tiles of a pair, convolved and correlated by transforms of a grid."""

    pair: Pair
    shape: Shape
    spectrum: NDArray[np.complex128]
    grid: Shape
    tiles: Sequence[Tile]

    def __call__(self, _: Scratch, stopped: Callable[[], bool]) -> tuple[FloatArray, float]:
        (p, q), window = self.shape, self.pair.window
        total, energy = np.zeros(self.spectrum.shape, np.complex128), 0.0
        for top, left, height, width in self.tiles:
            if stopped():
                break
            x, y = np.empty((height + p - 1, width + q - 1)), np.empty((height, width))
            load(self.pair.source, window.source_pixel(top, left), window.boundary, x)
            load(self.pair.result, window.result_pixel(top, left), window.boundary, y)
            spectrum = fft.rfft2(x, self.grid)
            y -= fft.irfft2(spectrum * self.spectrum, self.grid)[:height, :width]
            energy += float(np.sum(y * y))
            total += spectrum * fft.rfft2(y, self.grid).conj()
        return fft.irfft2(total, self.grid)[:p, :q], energy


def residual_moments_by_transforms(
    pairs: Sequence[Pair], taps: FloatArray, run: Run
) -> tuple[FloatArray, float]:
    """Return what `residual_moments` does, for kernels of so many taps that transforms are faster.

    Parameters and answer are those of `residual_moments`, but for rounding.
    """
    p, q = taps.shape
    grid = _grid(p), _grid(q)
    spectrum = fft.rfft2(taps, grid).conj()

    def make_jobs(_: int, pair: Pair) -> list[_TransformJob]:
        tiles = Tiles(pair.window.shape, (grid[0] - p + 1, grid[1] - q + 1))
        parts = shares(tiles, engines.MAX_JOBS)
        return [_TransformJob(pair, (p, q), spectrum, grid, part) for part in parts]

    right, energy = np.zeros((p, q)), 0.0
    for _, pieces in each_pair(pairs, (p, q), make_jobs, run.silent, math.inf):
        for _, (part, part_energy) in pieces:
            right += part
            energy += part_energy
    return right.ravel(), energy


def _grid(k: int) -> int:
    return int(fft.next_fast_len(max(256, 4 * k), real=True))


def residual_moments_beside(
    pairs: Sequence[Pair],
    taps: FloatArray,
    backgrounds: Sequence[BackgroundSums],
    coefficients: Sequence[FloatArray],
    run: Run,
) -> tuple[FloatArray, float, list[FloatArray]]:
    """Return what a kernel and backgrounds leave unexplained.

    Parameters
    ----------
    pairs : sequence of Pair
        Of images in memory.
    taps : (p, q) float64 array
        The kernel by shift, that is flipped both ways.
    backgrounds : sequence of BackgroundSums
        One a pair.
    coefficients : sequence of (terms,) float64 array
        One a pair, near those that are best beside the kernel.
    run : Run
        How. The answer is the same bit for bit.

    Returns
    -------
    moments : (p*q,) float64 array
        By shift: the right-hand side, for the equations that `eliminate` makes, of a correction
        to the kernel.
    energy : float
        Of the residual beside the best backgrounds.
    coefficients : list of (terms,) float64 array
        These backgrounds'.
    """
    values = [
        [values_of(n, sums.degree).T.copy() for n in pair.window.shape]
        for pair, sums in zip(pairs, backgrounds, strict=True)
    ]
    n_terms = [sums.degree + 1 for sums in backgrounds]

    def act(view: View, found: tuple[FloatArray, float] | None) -> tuple[FloatArray, float]:
        (top, left, height, width), number = view.tile, view.number
        n, (rows, cols) = n_terms[number], values[number]
        total, energy = found or (np.zeros((n, n)), 0.0)
        rows, cols = rows[:, top : top + height].copy(), cols[:, left : left + width].copy()
        left_over = view.y[:, :width]
        left_over -= view.convolved
        matrix = np.zeros((n, n))
        matrix[terms_of(n - 1)] = coefficients[number]
        for row, across in zip(rows, matrix @ cols, strict=True):
            left_over -= row[:, None] * across
        sums, down = np.zeros((height, n)), np.zeros((n, n))
        moments.add_row_sums(view.y, width, cols, sums)
        moments.add_row_sums(np.ascontiguousarray(sums.T), height, rows, down)
        total += down.T
        return total, energy + lags.energy(view.y, (height, width))

    right, energy = np.zeros(taps.shape), 0.0
    left = [np.zeros((n, n)) for n in n_terms]
    for number, found, (sums, part) in sweep(pairs, taps, act, run):
        right += found
        left[number] += sums
        energy += part
    moments_by_tap = right[::-1, ::-1].ravel()
    corrected = []
    for sums_of_pair, before, found in zip(backgrounds, coefficients, left, strict=True):
        unexplained = found[terms_of(sums_of_pair.degree)]
        step = sums_of_pair.solve(unexplained)
        moments_by_tap = moments_by_tap - sums_of_pair.products @ step
        energy -= float(unexplained @ step)
        corrected.append(before + step)
    return moments_by_tap[::-1], max(energy, 0.0), corrected
