r"""What the tiles of a pair say of a kernel that varies.

With the kernel :math:`k(\rho, \gamma) = \sum_j \phi_j(\rho, \gamma)\, c_j`, and the functions of
position taken to be constant inside a tile, the equations of the coefficients are sums over tiles

.. math:: H_{jl} = \sum_T \phi_j(T)\, \phi_l(T)\, X_T^T W X_T

so that a tile's own equations, found as those of a constant kernel, are all that is read of it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np

from fastkernel._images.borders import load
from fastkernel._images.pairs import Pair, refuse_unusable
from fastkernel._images.windows import Within
from fastkernel._loops import lags, moments, rims, small_systems, stencil
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import Scratch, Tile, run_jobs, shares
from fastkernel._typing import AnyArray, FloatArray, Shape
from fastkernel.estimation.equations.background import terms_of
from fastkernel.estimation.equations.chosen_rows import Choice, RowsJob
from fastkernel.estimation.equations.gathering_engines import rim_scratch
from fastkernel.estimation.fields.frame import Frame
from fastkernel.estimation.polynomial import lines_of

# Tiles whose equations are mixed together, in bytes, and what all jobs hold before it is added.
_MIXED, _HELD = 4 << 20, 56 << 20

# The least side of tiles to ask for, and how many along a side tell error bars to some percent.
LEAST_TILE, _LEAST_TILES = 8, 8

# Pixels along a side of the blocks by which the light of a tile is found.
_BLOCK = 4


class FieldSums(NamedTuple):
    """Sums over tiles, mixed by products of functions of position.

    Attributes
    ----------
    mixed : (terms * (terms + 1) / 2, m, m) float64 array
        For ``j <= l``, row by row: the products of the columns of a design matrix of shifts, the
        background and the result, ``m = p * q + background terms + 1``; above the diagonal and on
        it.
    noise : (terms * (terms + 1) / 2, p * q) float64 array
        What the source's noise adds to the diagonal, by shift.
    n_pixels : int
        Pixels that are fitted.
    total_weight : float
        Sum of their weights.
    places : (tiles, 2) float64 array or None
        Row and column of the result at which every tile was taken to stand; NaN for one none of
        whose pixels are fitted. None of sums that are exact, over no tiles.
    """

    mixed: FloatArray
    noise: FloatArray
    n_pixels: int
    total_weight: float
    places: FloatArray | None

    def changed(self, other: "FieldSums", sign: int) -> "FieldSums":
        """Return the sums with another's pixels, or (-1) without them."""
        return FieldSums(
            self.mixed + sign * other.mixed,
            self.noise + sign * other.noise,
            self.n_pixels + sign * other.n_pixels,
            self.total_weight + sign * other.total_weight,
            self.places,
        )

    def beside(self, other: "FieldSums") -> "FieldSums":
        """Return the sums with those over other tiles of the same whole."""
        places = np.concatenate([self.places, other.places])
        return self.changed(other, 1)._replace(places=places)


def tile_edges(window_shape: Shape, tile: int) -> tuple[list[int], list[int]]:
    """Return where tiles begin, by row and by column, and where the last one ends.

    They are of nearly one size, smaller where there would be few of them.
    """
    counts = [max(round(n / tile), min(_LEAST_TILES, n)) for n in window_shape]
    rows, cols = (
        np.linspace(0, n, count + 1).astype(int).tolist()
        for n, count in zip(window_shape, counts, strict=True)
    )
    return rows, cols


def tiles_of(window_shape: Shape, tile: int) -> list[Tile]:
    """Return the tiles of a window."""
    return _between(*tile_edges(window_shape, tile))


def tiles_within(within: Within, shape: Shape, tile: int) -> list[Tile]:
    """Return the tiles of a whole that a window holds, in pixels of the window.

    Parameters
    ----------
    within : Within
        Where the window stands in the whole's; it begins and ends with tiles of that.
    shape : (int, int)
        The window's.
    tile : int
        Side of the tiles, in pixels.
    """
    axes = zip(tile_edges(within.shape, tile), within.origin, shape, strict=True)
    return _between(*([e - start for e in line if 0 <= e - start <= n] for line, start, n in axes))


def _between(rows: Sequence[int], cols: Sequence[int]) -> list[Tile]:
    return [
        (top, left, bottom - top, right - left)
        for top, bottom in pairwise(rows)
        for left, right in pairwise(cols)
    ]


def background_lines(
    pair: Pair, degree: int | None
) -> tuple[tuple[FloatArray, FloatArray], AnyArray]:
    """Return a background's polynomials by row and by column, and which make every term."""
    degrees = [] if degree is None else list(zip(*terms_of(degree), strict=True))
    lines = lines_of(pair.within, pair.window.shape, degree or 0)
    rows, cols = (np.ascontiguousarray(line.T) for line in lines)
    return (rows, cols), np.array(degrees, np.intp).reshape(-1, 2)


@dataclass(frozen=True, slots=True)
class _TilesJob:
    """The equations of some tiles, mixed."""

    pair: Pair
    kernel_shape: Shape
    tiles: Sequence[Tile]
    frame: Frame
    lines: tuple[FloatArray, FloatArray]
    degrees: AnyArray
    known: FloatArray | None
    first: Shape

    # Another thread has not heard what the calling one ignores.
    @np.errstate(over="ignore", invalid="ignore")
    def __call__(
        self, scratch: Scratch, stopped: Callable[[], bool]
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        (p, q), terms = self.kernel_shape, self.frame.terms
        m, mixtures = p * q + len(self.degrees) + 1, terms * (terms + 1) // 2
        out, noise = np.zeros((mixtures, m, m)), np.zeros((mixtures, p * q))
        together = min(max(1, _MIXED // (8 * m * m)), len(self.tiles))
        grams, energies = np.zeros((together, m, m)), np.zeros((together, p * q))
        places = np.full((len(self.tiles), 2), np.nan)
        first, second = np.triu_indices(terms)
        waiting: list[int] = []
        for number, tile in enumerate(self.tiles):
            if stopped():
                break
            count = len(waiting)
            light = self._gather(tile, grams[count], energies[count], scratch)
            if light is not None:
                places[number] = light if self.known is None else self.known[number]
                waiting.append(number)
            if len(waiting) == together or (waiting and number == len(self.tiles) - 1):
                values = self.frame.values(*places[waiting].T)
                weights = values[first] * values[second]
                small_systems.mix_stack(weights, grams[: len(waiting)], out)
                noise += weights @ energies[: len(waiting)]
                waiting = []
        return out, noise, places

    def _gather(
        self, tile: Tile, gram: FloatArray, energies: FloatArray, scratch: Scratch
    ) -> tuple[float, float] | None:
        """Fill in a tile's equations; return where its light stands, None where none is fitted."""
        (_, result, window, used, *_) = self.pair
        top, left, height, width = tile
        inside = slice(top, top + height), slice(left, left + width)
        fitted = height * width if used is None else int(np.count_nonzero(used[inside]))
        if not fitted:
            return None
        lanes, terms = lags.vector_lanes(np.dtype(np.float64)), len(self.degrees)
        shape = terms + 1, height, -(-width // lanes) * lanes + lanes
        answers = scratch.rows("answers", shape, width)
        y = answers[-1, :, :width]
        load(result, window.result_pixel(top, left), window.boundary, y)
        whole = self.pair.weights is None and 2 * fitted > y.size
        if whole:
            down, across = (
                line[:, start : start + n]
                for line, start, n in zip(self.lines, (top, left), (height, width), strict=True)
            )
            for k, (i, j) in enumerate(self.degrees):
                np.outer(down[i], across[j], out=answers[k, :, :width])
            self._sum(tile, answers, gram, scratch)
        if not whole or fitted < y.size:
            choice: Choice = "left out" if whole else "fitted"
            what = (self.pair, self.kernel_shape, [tile], self.lines, self.degrees)
            rows = RowsJob(*what, choice, thinning=None)(scratch, _never)
            gram[:] = gram - rows if whole else rows
        weights = scratch.array("tile weights", (height, width))
        self.pair.load_weights(top, left, weights)
        if self.pair.source_variance is not None:
            energies[:] = self._noise(tile, weights, scratch)
        if self.known is not None:
            return 0.0, 0.0
        row, col = _light(y, weights)
        return self.first[0] + top + row, self.first[1] + left + col

    def _sum(self, tile: Tile, answers: FloatArray, gram: FloatArray, scratch: Scratch) -> None:
        """Write the products of the shifts of a whole tile, and with what they are to explain."""
        (top, left, height, width), (p, q) = tile, self.kernel_shape
        dtype, window, taps = np.dtype(np.float64), self.pair.window, p * q
        cols = width + q - 1
        x = scratch.rows("tile", (height + p - 1, stencil.row_length(cols, dtype)), cols)
        load(self.pair.source, window.source_pixel(top, left), window.boundary, x[:, :cols])
        sums = scratch.array("sums", lags.sums_shape((p, q), dtype))
        for k, answer in enumerate(answers):
            found = np.zeros((lags.KINDS, p, q))
            last = k == len(answers) - 1
            lags.add_tiles(x[None], answer[None], (height, width), last, sums, found[None])
            gram[:taps, taps + k] = found[0].ravel()
        rim = rim_scratch(scratch, (p, q), (height, width))
        shapes = (p, q), (height, width)
        rims.slide_products(x[None], *shapes, found[None], rim, False, gram[None])
        flat = answers[:, :, :width].reshape(len(answers), -1)
        gram[taps:, taps:] = flat @ flat.T

    def _noise(self, tile: Tile, weights: FloatArray, scratch: Scratch) -> FloatArray:
        """Return the sums of the weights times the source's variance, by shift."""
        (p, q), window = self.kernel_shape, self.pair.window
        top, left, height, width = tile
        dtype, cols = np.dtype(np.float64), width + q - 1
        variance = scratch.rows("noise", (height + p - 1, stencil.row_length(cols, dtype)), cols)
        inside = variance[:, :cols]
        place = window.source_pixel(top, left)
        load(cast(AnyArray, self.pair.source_variance), place, window.boundary, inside)
        if np.ptp(inside) == 0:
            return np.full(p * q, inside[0, 0] * weights.sum())
        lanes = lags.vector_lanes(dtype)
        heed = scratch.rows("heed", (height, -(-width // lanes) * lanes + lanes), width)
        heed[:, :width] = weights
        sums = scratch.array("sums", lags.sums_shape((p, q), dtype))
        found = np.zeros((lags.KINDS, p, q))
        lags.add_tiles(variance[None], heed[None], (height, width), False, sums, found[None])
        return np.asarray(found[0].ravel())


def _never() -> bool:
    return False


def _light(y: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Return where what a tile tells of the kernel stands: at its light, or in its middle.

    Detail tells of a kernel, not sky: what the blocks of a few pixels vary by more than twice as
    much as most of them.
    """
    counts = [-(-n // _BLOCK) for n in y.shape]
    blocks = np.empty(counts)
    moments.block_energies(y, weights, _BLOCK, blocks)
    blocks = np.maximum(blocks - 2 * np.median(blocks), 0) + 1e-9 * blocks.max()
    total = float(blocks.sum())
    if not (total > 0 and math.isfinite(total)):
        return (y.shape[0] - 1) / 2, (y.shape[1] - 1) / 2
    row, col = (
        float(blocks.sum(axis=1 - axis) @ _middles(n) / total) for axis, n in enumerate(y.shape)
    )
    return row, col


@lru_cache(16)
def _middles(length: int) -> FloatArray:
    """Return where the middles of the blocks of a line stand."""
    starts = np.arange(0, length, _BLOCK)
    return np.asarray((starts + np.minimum(starts + _BLOCK, length) - 1) / 2)


def field_sums(
    pair: Pair,
    kernel_shape: Shape,
    frame: Frame,
    tile: int,
    degree: int | None,
    run: Run,
    places: FloatArray | None = None,
    first: Shape | None = None,
) -> FieldSums:
    """Gather the equations of a field.

    Parameters
    ----------
    pair : Pair
        Of images in memory. Where it is a part of a whole it begins and ends with tiles of that,
        and all is counted in the whole: the sums of its parts add up to the whole's.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    frame : Frame
        The functions of which taps are sums.
    tile : int
        Side of the tiles, in pixels.
    degree : int or None
        Of the background, None for none.
    run : Run
        How. The answer is the same bit for bit.
    places : (tiles, 2) float64 array, optional
        Where tiles are taken to stand; at their light if None.
    first : (int, int), optional
        Row and column of the frame at which the window begins; those of the result if None.

    Raises
    ------
    ValueError
        If a pixel that is used is not finite.
    """
    terms, tiles = frame.terms, tiles_within(pair.within, pair.window.shape, tile)
    lines, table = background_lines(pair, degree)
    first = first or pair.window.result_origin
    m, mixtures = math.prod(kernel_shape) + len(table) + 1, terms * (terms + 1) // 2
    most = int(min(max(_HELD // (8 * mixtures * m * m), 2), 64))
    parts = shares(tiles, most)
    known = [None] * len(parts) if places is None else _alike(places, parts)
    jobs = [
        _TilesJob(pair, kernel_shape, part, frame, lines, table, where, first)
        for part, where in zip(parts, known, strict=True)
    ]
    mixed, noise = np.zeros((mixtures, m, m)), np.zeros((mixtures, math.prod(kernel_shape)))
    lights = []
    with np.errstate(over="ignore", invalid="ignore"):
        for found, energies, light in run_jobs(jobs, Scratch, run.workers, run.progress):
            mixed += found
            noise += energies
            lights.append(light)
    refuse_unusable([pair], mixed, noise, 0.0)
    return FieldSums(mixed, noise, pair.n_pixels, pair.total_weight, np.concatenate(lights))


def _alike(places: FloatArray, parts: Sequence[Sequence[Tile]]) -> list[FloatArray]:
    """Return places in the same parts as tiles."""
    return np.split(places, np.cumsum([len(part) for part in parts])[:-1])
