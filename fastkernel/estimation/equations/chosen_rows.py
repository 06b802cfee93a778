"""Sums over single rows of the design matrix: those of pixels that have a weight of their own.

A mask or weights break what lets the sums of all shifts follow from a few. Where few pixels are
left out, their rows are subtracted from the sums over all; otherwise the rows of those that are
fitted are added up. Either way the background's columns and the result stand in the row as well,
so that one product of rows holds all sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from fastkernel._images.borders import load
from fastkernel._images.pairs import Pair, refuse_unusable
from fastkernel._loops import design_rows
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import Scratch, Tile, Tiles, shares, split
from fastkernel._typing import AnyArray, FloatArray, Shape
from fastkernel.estimation.equations import gathering_engines as engines
from fastkernel.estimation.equations.background import BackgroundSums, terms_of
from fastkernel.estimation.equations.sweeps import each_pair
from fastkernel.estimation.polynomial import lines_of

Choice = Literal["fitted", "left out"]


class Thinning(NamedTuple):
    """Which share of the rows stands for all of them; see `design_rows.thin_out`.

    Attributes
    ----------
    level, scale, share : float
        A typical pixel, typical energy by the weights, and the share.
    """

    level: float
    scale: float
    share: float


def thinning(pair: Pair, kernel_shape: Shape, share: float) -> Thinning:
    """Return how to thin out a pair's rows, from what evenly spread tiles look like."""
    tiles = Tiles(pair.window.shape, (32, 256))
    chosen = [tiles[i * len(tiles) // 16] for i in range(16)] if len(tiles) > 16 else list(tiles)
    found = []
    for top, left, height, width in chosen:
        x, weights = np.empty((height, width)), np.empty((height, width))
        load(pair.source, pair.window.source_pixel(top, left), pair.window.boundary, x)
        pair.load_weights(top, left, weights)
        found.append((x.ravel(), weights.ravel()))
    pixels, weights = (np.concatenate(parts) for parts in zip(*found, strict=True))
    level = float(pixels.mean())
    energy = math.prod(kernel_shape) * float(np.mean((pixels - level) ** 2))
    return Thinning(level, energy * float(weights.mean()), share)


# Rows of the design matrix whose products are summed at a time: no power of two, at which they
# would compete for the cache.
_COLUMNS = 520

# What jobs find is held until it is added, in bytes.
_HELD = 16 << 20

# Share of a tile's pixels that are chosen, from which on all are multiplied.
_DENSE = 0.5


class RowSums(NamedTuple):
    """Sums over rows of the design matrix, by shift; see `BackgroundSums` and `gathering.Sums`.

    Attributes
    ----------
    gram : (p * q, p * q) float64 array
    moments : (p * q,) float64 array
    energy : float
    products : (p * q, terms) float64 array
        Of shifts and background.
    background : (terms, terms) float64 array
    answers : (terms,) float64 array
        Of background and result.
    """

    gram: FloatArray
    moments: FloatArray
    energy: float
    products: FloatArray
    background: FloatArray
    answers: FloatArray

    def background_sums(self, degree: int) -> BackgroundSums:
        """Return what belongs to the background, by tap."""
        products = np.ascontiguousarray(self.products[::-1])
        return BackgroundSums(degree, products, self.background, self.answers)


def _parts(matrix: FloatArray, taps: int) -> RowSums:
    x, b = slice(0, taps), slice(taps, -1)
    return RowSums(
        matrix[x, x],
        matrix[x, -1],
        float(matrix[-1, -1]),
        matrix[x, b],
        matrix[b, b],
        matrix[b, -1],
    )


@dataclass(frozen=True, slots=True)
class RowsJob:
    """Some tiles of a pair, or of a block of one."""

    pair: Pair
    kernel_shape: Shape
    tiles: Sequence[Tile]
    lines: tuple[FloatArray, FloatArray]
    degrees: Any
    choice: Choice
    thinning: Thinning | None

    def __call__(self, scratch: Scratch, stopped: Callable[[], bool]) -> FloatArray:
        """Return the products of all pairs of columns, (n, n) with ``n = p*q + terms + 1``."""
        (source, result, window, *_), (p, q) = self.pair, self.kernel_shape
        size = p * q + len(self.degrees) + 1
        padded = -(-size // design_rows.BLOCK) * design_rows.BLOCK
        columns = scratch.array("columns", (padded, _COLUMNS))
        columns[size:] = 0
        out = np.zeros((padded, padded))
        for top, left, height, width in self.tiles:
            weights = self._weights((top, left, height, width), scratch)
            places = np.flatnonzero(weights)
            if not places.size:
                continue
            x = scratch.array("x", (height + p - 1, width + q - 1))
            y = scratch.array("y", (height, width))
            load(source, window.source_pixel(top, left), window.boundary, x)
            load(result, window.result_pixel(top, left), window.boundary, y)
            if self.thinning is not None:
                line = scratch.array("line", (width + q - 1,))
                design_rows.thin_out(x, (p, q), (top, left), *self.thinning, line, weights)
                places = np.flatnonzero(weights)
            down, across = (
                np.ascontiguousarray(line[:, start : start + n])
                for line, start, n in zip(self.lines, (top, left), (height, width), strict=True)
            )
            beside = (p, q), down, across, self.degrees
            if places.size <= _DENSE * weights.size:
                chosen = np.sqrt(weights.ravel()[places], dtype=np.float64)
                for part in split(len(places), _COLUMNS):
                    own = places[slice(*part)]
                    design_rows.collect_chosen(x, y, own, chosen[slice(*part)], *beside, columns)
                    design_rows.add_products(columns, len(own), out)
                    if stopped():
                        break
                continue
            pixel, roots = 0, np.sqrt(weights, dtype=np.float64)
            while pixel < roots.size and not stopped():
                pixel, count = design_rows.collect_all(x, y, roots, *beside, pixel, columns)
                design_rows.add_products(columns, count, out)
        found = np.triu(out[:size, :size])
        return np.asarray(found + np.triu(found, 1).T)

    def _weights(self, tile: Tile, scratch: Scratch) -> AnyArray:
        """Return the weights of a tile's chosen pixels, 0 for the others."""
        top, left, height, width = tile
        inside = slice(top, top + height), slice(left, left + width)
        used = self.pair.used
        if self.pair.weights is None and used is not None and self.thinning is None:
            return ~used[inside] if self.choice == "left out" else used[inside]
        weights = scratch.array("weights", (height, width))
        self.pair.load_weights(top, left, weights)
        return np.subtract(1.0, weights, out=weights) if self.choice == "left out" else weights


def rows_of(
    pairs: Sequence[Pair],
    kernel_shape: Shape,
    degree: int | None,
    run: Run,
    choice: Choice = "fitted",
    share: float = 1.0,
) -> list[RowSums]:
    r"""Return the sums over the rows of single pixels.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one, of images in memory.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    degree : int or None
        Of the background, None for none.
    run : Run
        How. The answer is the same bit for bit.
    choice : {"fitted", "left out"}, optional
        Which pixels: those that are fitted, by their weights, or those that a mask leaves out,
        each once.
    share : float, optional
        Of typical rows that are taken; those of more energy are taken more often, and all of them
        stand for so many more that the sums are, but for chance, those of all rows.

    Returns
    -------
    list of RowSums
        One a pair.

    Raises
    ------
    ValueError
        If a chosen pixel is not finite, or the sums overflow.

    Notes
    -----
    Cost: ``n * (n + 1) / 2`` multiply-adds a chosen pixel, with ``n = p*q + terms + 1``. Sums of
    integers of at most 8 bits are exact while they are below 2**53.
    """
    taps = math.prod(kernel_shape)
    # Without a background there is no line to multiply.
    pairs_of_degrees = [] if degree is None else list(zip(*terms_of(degree), strict=True))
    degrees = np.array(pairs_of_degrees, np.intp).reshape(-1, 2)
    size = taps + len(degrees) + 1
    most = int(min(max(_HELD // (8 * size * size), 2), engines.MAX_JOBS))
    totals = [np.zeros((size, size)) for _ in pairs]

    def make_jobs(_: int, pair: Pair) -> list[RowsJob]:
        shape = pair.window.shape
        thin = thinning(pair, kernel_shape, share) if share < 1 else None
        down, across = (line.T for line in lines_of(pair.within, shape, degree or 0))
        tiles = Tiles(shape, engines.direct_tile_shape("float", shape[1]))
        return [
            RowsJob(pair, kernel_shape, part, (down, across), degrees, choice, thin)
            for part in shares(tiles, most)
        ]

    with np.errstate(over="ignore", invalid="ignore"):
        found = each_pair(pairs, kernel_shape, make_jobs, run, size * size / 2)
        for total, (_, pieces) in zip(totals, found, strict=True):
            for _, matrix in pieces:
                total += matrix
    sums = [_parts(matrix, taps) for matrix in totals]
    for pair, part in zip(pairs, sums, strict=True):
        refuse_unusable([pair], part.gram, part.moments, part.energy)
    return sums
