r"""What the tiles of a pair say of a kernel that varies.

With the kernel :math:`k(\rho, \gamma) = \sum_j \phi_j(\rho, \gamma)\, c_j`, and the polynomials
taken to be constant inside a tile, the equations of the coefficients are sums over tiles

.. math:: H_{jl} = \sum_T \phi_j(T)\, \phi_l(T)\, X_T^T W X_T

so that a tile's own equations, found as those of a constant kernel, are all that is read of it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.polynomial.legendre import legval
from scipy.ndimage import uniform_filter

from fastkernel._images.borders import load
from fastkernel._images.pairs import Pair, refuse_unusable
from fastkernel._loops import small_systems
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import Scratch, Tile, run_jobs, shares
from fastkernel._typing import AnyArray, FloatArray, Shape
from fastkernel.estimation.equations.background import terms_of
from fastkernel.estimation.equations.chosen_rows import Choice, RowsJob
from fastkernel.estimation.polynomial import values_of

# Tiles whose equations are mixed together, in bytes, and what all jobs hold before it is added.
_MIXED, _HELD = 4 << 20, 48 << 20


class Frame(NamedTuple):
    """Where positions are counted: the result's rows and columns go from -1 to 1.

    Attributes
    ----------
    shape : (int, int)
        Of the result.
    degree : int
        Of the polynomials.
    """

    shape: Shape
    degree: int

    def values(self, rows: Any, cols: Any) -> FloatArray:
        """Return the polynomials at places of the result, (terms, ...)."""
        places = np.broadcast_arrays(np.asarray(rows, float), np.asarray(cols, float))
        u, v = (
            (2 * place - (n - 1)) / max(n - 1, 1)
            for place, n in zip(places, self.shape, strict=True)
        )
        units = np.eye(self.degree + 1)
        down, across = ([legval(x, unit) for unit in units] for x in (u, v))
        return np.array([down[i] * across[j] for i, j in zip(*terms_of(self.degree), strict=True)])

    @property
    def terms(self) -> int:
        """How many polynomials there are."""
        return len(terms_of(self.degree)[0])


class FieldSums(NamedTuple):
    """Sums over tiles, mixed by products of polynomials.

    Attributes
    ----------
    mixed : (terms * (terms + 1) / 2, m, m) float64 array
        For ``j <= l``, row by row: the products of the columns of a design matrix of shifts, the
        background and the result, ``m = p * q + background terms + 1``.
    noise : (terms * (terms + 1) / 2, p * q) float64 array
        What the source's noise adds to the diagonal, by shift.
    n_pixels : int
        Pixels that are fitted.
    total_weight : float
        Sum of their weights.
    """

    mixed: FloatArray
    noise: FloatArray
    n_pixels: int
    total_weight: float


def tiles_of(window_shape: Shape, tile: int) -> list[Tile]:
    """Return tiles of nearly one size."""
    edges = [
        np.linspace(0, n, max(round(n / tile), 1) + 1).astype(int).tolist() for n in window_shape
    ]
    return [
        (top, left, bottom - top, right - left)
        for top, bottom in zip(edges[0], edges[0][1:], strict=False)
        for left, right in zip(edges[1], edges[1][1:], strict=False)
    ]


@dataclass(frozen=True, slots=True)
class _TilesJob:
    """The equations of some tiles, mixed."""

    pair: Pair
    kernel_shape: Shape
    tiles: Sequence[Tile]
    frame: Frame
    lines: tuple[FloatArray, FloatArray]
    degrees: AnyArray

    def __call__(self, scratch: Scratch, stopped: Callable[[], bool]) -> tuple[FloatArray, ...]:
        (p, q), terms = self.kernel_shape, self.frame.terms
        m, mixtures = p * q + len(self.degrees) + 1, terms * (terms + 1) // 2
        out, noise = np.zeros((mixtures, m * m)), np.zeros((mixtures, p * q))
        together = max(1, _MIXED // (8 * m * m))
        grams, energies = np.zeros((together, m, m)), np.zeros((together, p * q))
        weights, count = np.zeros((together, mixtures)), 0
        first, second = np.triu_indices(terms)
        for number, tile in enumerate(self.tiles):
            if stopped():
                break
            place = self._gather(tile, grams[count], energies[count], scratch)
            if place is not None:
                values = self.frame.values(*place)
                weights[count] = values[first] * values[second]
                count += 1
            if count == together or (count and number == len(self.tiles) - 1):
                small_systems.mix_stack(
                    np.ascontiguousarray(weights[:count]), grams[:count].reshape(count, -1), out
                )
                noise += weights[:count].T @ energies[:count]
                count = 0
        return out, noise

    def _gather(
        self, tile: Tile, gram: FloatArray, energies: FloatArray, scratch: Scratch
    ) -> tuple[float, float] | None:
        """Fill in a tile's equations; return where its light stands, None where none is fitted."""
        (source, result, window, used, *_), (p, q) = self.pair, self.kernel_shape
        top, left, height, width = tile
        inside = slice(top, top + height), slice(left, left + width)
        fitted = height * width if used is None else int(np.count_nonzero(used[inside]))
        if not fitted:
            return None
        y = np.empty((height, width))
        load(result, window.result_pixel(top, left), window.boundary, y)
        whole = self.pair.weights is None and 2 * fitted > y.size
        if whole:
            x = scratch.array("x", (1, height + p - 1, width + q - 1))
            load(source, window.source_pixel(top, left), window.boundary, x[0])
            answers = np.empty((1, len(self.degrees) + 1, height, width))
            down, across = (
                line[:, start : start + n]
                for line, start, n in zip(self.lines, (top, left), (height, width), strict=True)
            )
            for k, (i, j) in enumerate(self.degrees):
                answers[0, k] = np.outer(down[i], across[j])
            answers[0, -1] = y
            line = scratch.array("line", (width + q - 1,))
            small_systems.gather_stack(x, answers, (p, q), line, gram[None])
            gram[:] = np.triu(gram)
        if not whole or fitted < y.size:
            choice: Choice = "left out" if whole else "fitted"
            job = RowsJob(
                self.pair, (p, q), [tile], self.lines, self.degrees, choice, thinning=None
            )
            rows = np.triu(job(scratch, _never))
            gram[:] = gram - rows if whole else rows
        weights = np.empty((height, width))
        self.pair.load_weights(top, left, weights)
        if self.pair.source_variance is not None:
            energies[:] = self._noise(tile, weights)
        row, col = _centroid(y, weights)
        place = self.pair.window.result_pixel(top, left)
        return place[0] + row, place[1] + col

    def _noise(self, tile: Tile, weights: FloatArray) -> FloatArray:
        """Return the sums of the weights times the source's variance, by shift."""
        (p, q), window = self.kernel_shape, self.pair.window
        top, left, height, width = tile
        variance = np.empty((height + p - 1, width + q - 1))
        place = window.source_pixel(top, left)
        load(cast(AnyArray, self.pair.source_variance), place, window.boundary, variance)
        if np.ptp(variance) == 0:
            return np.full(p * q, variance[0, 0] * weights.sum())
        views = np.lib.stride_tricks.sliding_window_view(variance, (height, width))
        return np.array([np.sum(weights * views[i, j]) for i in range(p) for j in range(q)])


def _never() -> bool:
    return False


def _centroid(y: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Return where what a tile tells of the kernel stands: at its light, or in its middle.

    Detail tells of a kernel, not sky: what sticks out of twice the median, a few pixels wide.
    """
    height, width = y.shape
    total = weights.sum()
    heed = weights * (y - np.sum(weights * y) / total) ** 2
    heed = uniform_filter(heed, 5, mode="constant")
    heed = np.maximum(heed - 2 * np.median(heed), 0) + 1e-9 * heed.max()
    total = heed.sum()
    if not (total > 0 and math.isfinite(total)):
        return (height - 1) / 2, (width - 1) / 2
    rows, cols = heed.sum(axis=1) / total, heed.sum(axis=0) / total
    return float(rows @ np.arange(height)), float(cols @ np.arange(width))


def field_sums(
    pair: Pair, kernel_shape: Shape, frame: Frame, tile: int, degree: int | None, run: Run
) -> FieldSums:
    """Gather the equations of a field.

    Parameters
    ----------
    pair : Pair
        Of images in memory.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    frame : Frame
        The polynomials of the taps.
    tile : int
        Side of the tiles, in pixels.
    degree : int or None
        Of the background, None for none.
    run : Run
        How. The answer is the same bit for bit.

    Raises
    ------
    ValueError
        If a pixel that is used is not finite.
    """
    window, terms = pair.window, frame.terms
    degrees = [] if degree is None else list(zip(*terms_of(degree), strict=True))
    table = np.array(degrees, np.intp).reshape(-1, 2)
    rows, cols = (np.ascontiguousarray(values_of(n, degree or 0).T) for n in window.shape)
    m, mixtures = math.prod(kernel_shape) + len(table) + 1, terms * (terms + 1) // 2
    most = int(min(max(_HELD // (8 * mixtures * m * m), 2), 64))
    jobs = [
        _TilesJob(pair, kernel_shape, part, frame, (rows, cols), table)
        for part in shares(tiles_of(window.shape, tile), most)
    ]
    mixed, noise = np.zeros((mixtures, m * m)), np.zeros((mixtures, math.prod(kernel_shape)))
    with np.errstate(over="ignore", invalid="ignore"):
        for found, energies in run_jobs(jobs, Scratch, run.workers, run.progress):
            mixed += found
            noise += energies
    grams = mixed.reshape(mixtures, m, m)
    refuse_unusable([pair], grams[0], grams[0], float(grams[0, -1, -1]))
    return FieldSums(grams, noise, pair.n_pixels, pair.total_weight)
