"""How the residual times the source scatters: what error bars rest on where noise is not even."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastkernel._images.borders import load
from fastkernel._images.pairs import Pair
from fastkernel._loops import design_rows, stencil
from fastkernel._machine import lapack
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import Scratch, Tile, Tiles, shares
from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.equations.background import BackgroundSums, terms_of
from fastkernel.estimation.equations.residual import Beside
from fastkernel.estimation.equations.sweeps import each_pair

_EPS = float(np.finfo(np.float64).eps)

_TILE = (64, 64)

# How far residuals are looked at for likeness, and from what correlation on they are alike, in
# units of one over the root of the pixels: some 300 lags are looked at.
_FARTHEST, _ALIKE = 8, 4.5

# Multiply-adds that all tiles together may take; beyond it evenly spread ones stand for all.
_WORK = 2e10
# Pixels that are looked at for likeness.
_LOOKED_AT = 1_000_000

# Share of the variance of noise that is left in any direction, however alike neighbours are.
_LEAST_LIKENESS = 0.02

# Columns whose products are summed at a time.
_COLUMNS = 256

# What jobs find is held until it is added, in bytes.
_HELD = 24 << 20


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was fitted to a pair, as the jobs need it.

    Attributes
    ----------
    taps : (p, q) float64 array
        The kernel by shift.
    lines : (rows, cols)
        Polynomials of the background along the axes, (degree + 1, n) each; of degree -1 for none.
    coefficients : (degree + 1, degree + 1) float64 array
        The background's.
    """

    taps: FloatArray
    lines: tuple[FloatArray, FloatArray]
    coefficients: FloatArray


def _around(tile: Tile, shape: Shape, reach: int) -> Tile:
    """Return a tile with its surroundings, as far as there are any."""
    top, left, height, width = tile
    r0, c0 = max(top - reach, 0), max(left - reach, 0)
    r1, c1 = min(top + height + reach, shape[0]), min(left + width + reach, shape[1])
    return r0, c0, r1 - r0, c1 - c0


def _weighted_residual(
    pair: Pair, fitted: Fitted, tile: Tile, scratch: Scratch
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return a tile's residual times its weights, the weights, and the source under the tile."""
    (source, result, window, *_), (p, q) = pair, fitted.taps.shape
    top, left, height, width = tile
    cols = width + q - 1
    length = stencil.row_length(cols, np.dtype(np.float64))
    x = scratch.rows("x", (height + p - 1, length), cols)
    residual, convolved = np.empty((height, width)), np.empty((height, width))
    load(source, window.source_pixel(top, left), window.boundary, x[:, :cols])
    load(result, window.result_pixel(top, left), window.boundary, residual)
    stencil.correlate_tile(x, (0, 0), fitted.taps, (height, width), convolved, 0, 0)
    residual -= convolved
    rows, lines = fitted.lines
    residual -= rows[:, top : top + height].T @ (
        fitted.coefficients @ lines[:, left : left + width]
    )
    weights = np.empty((height, width))
    pair.load_weights(top, left, weights)
    residual *= weights
    return residual, weights, x[:, :cols]


@dataclass(frozen=True, slots=True)
class _LikenessJob:
    """Sums of the weighted residual times itself at all lags, over some tiles, and of how many."""

    pair: Pair
    fitted: Fitted
    tiles: Sequence[Tile]

    def __call__(self, scratch: Scratch, stopped: Callable[[], bool]) -> FloatArray:
        n = 2 * _FARTHEST + 1
        out = np.zeros((2, n, n))
        for tile in self.tiles:
            if stopped():
                break
            r, weights, _ = _weighted_residual(self.pair, self.fitted, tile, scratch)
            grid = tuple(k + _FARTHEST for k in r.shape)
            index = np.ix_(*(np.arange(-_FARTHEST, _FARTHEST + 1) % k for k in grid))
            used = weights > 0
            np.divide(r, np.sqrt(weights), out=r, where=used)
            for total, values in zip(out, (r, used), strict=True):
                power = np.abs(np.fft.rfft2(values, grid)) ** 2
                total += np.fft.irfft2(power, grid)[index]
        return out


class _Sums(NamedTuple):
    """Sums over pixels of products of two vectors, with a row for every shift and every term.

    Attributes
    ----------
    rows : (n, n) float64 array
        Of the rows of the design matrix, by their weights.
    scores : (n, n) float64 array
        Of the pixels' parts of the gradient.
    spread : (n, n) float64 array
        Of the rows, each with the rows of its neighbours by how alike their residuals are.
    """

    rows: FloatArray
    scores: FloatArray
    spread: FloatArray


@dataclass(frozen=True, slots=True)
class _ScatterJob:
    """The sums of some tiles."""

    pair: Pair
    fitted: Fitted
    tiles: Sequence[Tile]
    likeness: FloatArray

    def __call__(self, scratch: Scratch, stopped: Callable[[], bool]) -> _Sums:
        size, reach = self.fitted.taps.size + len(self._terms()), len(self.likeness) // 2
        both = size if reach == 0 else 2 * size
        outs = [np.zeros((_padded(n), _padded(n))) for n in (both, size)]
        columns = [np.zeros((len(out), _COLUMNS)) for out in outs]
        for tile in self.tiles:
            if stopped():
                break
            around = _around(tile, self.pair.window.shape, reach)
            inner = tile[0] - around[0], tile[1] - around[1], tile[2], tile[3]
            rows, scores = self._rows(around, inner, scratch)
            own = _part(rows, inner)
            parts = [own if reach == 0 else np.concatenate([own, self._spread(rows, inner)])]
            parts.append(scores)
            for part, column, out in zip(parts, columns, outs, strict=True):
                flat = part.reshape(len(part), -1)
                for start in range(0, flat.shape[1], _COLUMNS):
                    count = min(_COLUMNS, flat.shape[1] - start)
                    column[: len(flat), :count] = flat[:, start : start + count]
                    design_rows.add_products(column, count, out)
        found, scores = (_whole(out) for out in outs)
        crossed = found[:size, :size] if reach == 0 else found[:size, size:both]
        return _Sums(found[:size, :size], scores[:size, :size], (crossed + crossed.T) / 2)

    def _terms(self) -> list[tuple[int, int]]:
        degree = len(self.fitted.coefficients) - 1
        return list(zip(*terms_of(degree), strict=True)) if degree >= 0 else []

    def _spread(self, rows: FloatArray, inner: Tile) -> FloatArray:
        """Return the sums of neighbours' rows by how alike their residuals are."""
        reach, out = len(self.likeness) // 2, np.empty((len(rows), inner[2], inner[3]))
        # So many zeros that what leaves at one end does not come back at the other.
        grid = tuple(n + reach for n in rows.shape[1:])
        lags = np.zeros(grid)
        lags[np.ix_(*(np.arange(-reach, reach + 1) % n for n in grid))] = self.likeness
        spectrum = np.fft.rfft2(lags)
        for row, mixed in zip(rows, out, strict=True):
            mixed[...] = _part(np.fft.irfft2(np.fft.rfft2(row, grid) * spectrum, grid), inner)
        return out

    def _rows(self, tile: Tile, inner: Tile, scratch: Scratch) -> tuple[FloatArray, FloatArray]:
        """Return the rows of a tile by the roots of their weights, and the scores of a part."""
        (p, q), (top, left, height, width) = self.fitted.taps.shape, tile
        residual, weights, x = _weighted_residual(self.pair, self.fitted, tile, scratch)
        terms, roots = self._terms(), np.sqrt(weights)
        rows = np.empty((p * q + len(terms), height, width))
        for a in range(p * q):
            i, j = divmod(a, q)
            np.multiply(roots, x[i : i + height, j : j + width], out=rows[a])
        down, across = self.fitted.lines
        for k, (i, j) in enumerate(terms):
            line = down[i, top : top + height, None] * across[j, left : left + width]
            np.multiply(roots, line, out=rows[p * q + k])
        # The residual stands here by its weights; the rows by the roots of theirs.
        np.divide(residual, roots, out=residual, where=roots > 0)
        scores = _part(rows, inner) * _part(residual, inner)
        if self.pair.source_variance is not None:
            noise, window = np.empty((height + p - 1, width + q - 1)), self.pair.window
            place = window.source_pixel(top, left)
            load(self.pair.source_variance, place, window.boundary, noise)
            for a, tap in enumerate(self.fitted.taps.ravel()):
                i, j = divmod(a, q)
                added = tap * (weights * noise[i : i + height, j : j + width])
                scores[a] += _part(added, inner)
        return rows, scores


def _part(values: FloatArray, inner: Tile) -> FloatArray:
    top, left, height, width = inner
    return values[..., top : top + height, left : left + width]


def _padded(n: int) -> int:
    return -(-n // design_rows.BLOCK) * design_rows.BLOCK


def _whole(upper: FloatArray) -> FloatArray:
    upper = np.triu(upper)
    return np.asarray(upper + np.triu(upper, 1).T)


def scatter_of(
    pairs: Sequence[Pair],
    taps: FloatArray,
    beside: Beside | None,
    backgrounds: Sequence[BackgroundSums],
    gram: FloatArray,
    run: Run,
) -> FloatArray:
    r"""Return the scatter of the scores: of the pixels' parts of the gradient.

    Parameters
    ----------
    pairs : sequence of Pair
        Of images in memory.
    taps : (p, q) float64 array
        The kernel by shift, that is flipped both ways.
    beside : Beside or None
        The backgrounds, as `residual.Beside`,
    backgrounds : sequence of BackgroundSums
        and the sums from which they were eliminated.
    gram : (p * q, p * q) float64 array
        Of all pixels, by tap, less the backgrounds.
    run : Run
        How. The answer is the same bit for bit.

    Returns
    -------
    (p * q, p * q) float64 array
        By tap. Where noise is uneven and white it is :math:`\sum_t u_t u_t^T`, with the scores
        :math:`u_t = w_t (r_t x_t + V_t k)`; where it is even, and alike in neighbours,
        :math:`\sum_{ts} \sqrt{w_t w_s} c_{t-s} x_t x_s^T`, with the covariance ``c`` of weighted
        residuals up to 8 pixels apart. Both are taken as factors of the Gram matrix, and
        multiplied. Where many pixels have many taps, tiles that are spread evenly stand for all.

    Notes
    -----
    The covariance of noise is a mean over all pixels, and so is known far better than that of
    scores, which an estimate without such a model would sum up.

    Cost: ``n**2`` multiply-adds a pixel with ``n = p*q + terms``, threefold where neighbours are
    alike.
    """
    shape, size = (taps.shape[0], taps.shape[1]), taps.size
    fitted = [_fitted(i, taps, beside, pairs) for i in range(len(pairs))]
    likeness = _likeness(pairs, shape, fitted, run)
    work = float(size * size) * (1 if len(likeness) == 1 else 2.5)
    most = int(min(max(_HELD // (48 * size * size), 2), 32))

    def jobs(number: int, pair: Pair) -> list[_ScatterJob]:
        tiles = _spread_tiles(pair, _WORK / work / len(pairs))
        return [_ScatterJob(pair, fitted[number], part, likeness) for part in shares(tiles, most)]

    totals = np.zeros((3, size, size))
    each = each_pair(pairs, shape, jobs, run.silent)
    for number, (_, pieces) in enumerate(each):
        for i in range(3):
            joint = np.sum([found[i] for _, found in pieces], axis=0)
            if beside is not None:
                joint = _eliminated(joint, size, backgrounds[number])
            totals[i] += joint
    rows, scores, spread = (np.ascontiguousarray(part[::-1, ::-1]) for part in totals)
    return _combined(gram, rows, scores, spread)


def _spread_tiles(pair: Pair, pixels: float) -> list[Tile]:
    """Return tiles of so many pixels, spread evenly."""
    tiles = Tiles(pair.window.shape, _TILE)
    wanted = int(min(max(pixels // math.prod(_TILE), 16), len(tiles)))
    return [tiles[i * len(tiles) // wanted] for i in range(wanted)]


def _likeness(
    pairs: Sequence[Pair], shape: Shape, fitted: Sequence[Fitted], run: Run
) -> FloatArray:
    """Return the correlation of residuals with their neighbours', as far as they are alike."""

    def jobs(number: int, pair: Pair) -> list[_LikenessJob]:
        tiles = _spread_tiles(pair, _LOOKED_AT)
        return [_LikenessJob(pair, fitted[number], part) for part in shares(tiles, 16)]

    looked = [
        found for _, pieces in each_pair(pairs, shape, jobs, run.silent) for _, found in pieces
    ]
    products, counts = np.sum(looked, axis=0)
    variances = products / np.maximum(counts, 1)
    own = variances[_FARTHEST, _FARTHEST]
    if not own > 0:
        return np.ones((1, 1))
    found = variances / own
    alike = np.abs(found) > _ALIKE / np.sqrt(np.maximum(counts, 1))
    row, col = np.indices(alike.shape) - _FARTHEST
    ring = np.maximum(np.abs(row), np.abs(col))
    reach = 0
    while reach < _FARTHEST and alike[ring == reach + 1].any():
        reach += 1
    near = slice(_FARTHEST - reach, _FARTHEST + reach + 1)
    return np.ascontiguousarray(found[near, near])


def _combined(
    gram: FloatArray, rows: FloatArray, scores: FloatArray, spread: FloatArray
) -> FloatArray:
    """Return the Gram matrix times what scores and likeness make of the rows' own."""
    white = lapack.inverse_of_lower(_lower(rows))
    uneven, alike = (
        lapack.product(lapack.product(white, part), white.T) for part in (scores, spread - rows)
    )
    values, vectors = lapack.eigenvectors(np.eye(len(gram)) + (alike + alike.T) / 2)
    # A covariance of noise that is cut off may be less than nothing in some directions.
    root = lapack.product(vectors * np.sqrt(np.maximum(values, _LEAST_LIKENESS)), vectors.T)
    factor = lapack.product(_lower(gram), root)
    return lapack.product(lapack.product(factor, uneven), factor.T)


def _lower(gram: FloatArray) -> FloatArray:
    """Return the Cholesky factor of a Gram matrix that rounding may have made singular."""
    n = len(gram)
    floor = n * _EPS * float(np.trace(gram)) + float(np.finfo(np.float64).tiny)
    return lapack.cholesky(gram + floor * np.eye(n))[0]


def _fitted(
    number: int,
    taps: FloatArray,
    beside: Beside | None,
    pairs: Sequence[Pair],
) -> Fitted:
    if beside is None:
        rows, cols = (np.zeros((0, n)) for n in pairs[number].window.shape)
        return Fitted(taps, (rows, cols), np.zeros((0, 0)))
    return Fitted(taps, beside.lines[number], beside.coefficients[number])


def _eliminated(joint: FloatArray, size: int, sums: BackgroundSums) -> FloatArray:
    """Return the scatter of the taps once the background is the best beside them, by shift."""
    mix = sums.solve(sums.products[::-1].T).T
    x, both, b = joint[:size, :size], joint[:size, size:], joint[size:, size:]
    crossed = both @ mix.T
    return np.asarray(x - crossed - crossed.T + mix @ b @ mix.T)
