"""Lagged products of images: the sums over pixels from which normal equations are assembled.

A loop checks nothing, allocates no result, starts no thread and calls only this file and the march.
Scratch is C-ordered float64, or int16 where both images hold integers of at most 8 bits.
"""

from typing import Any

import numpy as np
from numba import config
from numba.extending import register_jitable
from numpy.typing import DTypeLike, NDArray

from fastkernel._loops._jit import loop
from fastkernel._loops._lanes import LANES, alike, load, store
from fastkernel._loops._march import (
    ACROSS,
    AHEAD,
    LINE_LAGS,
    MOMENTS,
    SWAPPED,
    TILE_LAGS,
    lag_group,
    march_lines,
    march_spectra,
    march_tile,
)
from fastkernel._loops._march import MAX_LAGS as MAX_LAGS
from fastkernel._loops._march import vector_lanes as vector_lanes
from fastkernel._loops._processor import ROWS_AHEAD, VECTOR_BYTES, fetch

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
# No nnan or ninf, so a NaN pixel reaches the sums, where the caller finds it.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})

# Vectors of a cache line.
SIDE = max(1, 64 // VECTOR_BYTES)

# Sums that `add_tiles` takes of each lag.
KINDS = 3


def sums_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype of the lane sums of scratch of ``dtype``."""
    return np.dtype(np.int32 if dtype == np.int16 else np.float64)


def sums_shape(kernel_shape: tuple[int, int], dtype: DTypeLike) -> tuple[int, int, int]:
    """Return the shape of the lane sums that `add_tiles` works in."""
    p, q = kernel_shape
    return q, KINDS * p, VECTOR_BYTES // sums_dtype(dtype).itemsize


@_loop
def add_tiles(x, y, tile_shape, everything, sums, out):
    r"""Add the lagged products of tiles to ``out``, each to its own.

    Parameters
    ----------
    x : (n, >= height + p - 1, >= width + q - 1 rounded up to whole vectors) array
        The source under each tile, float64 or int16, C order. Whole vectors are read: pad the
        rows with numbers.
    y : (n, >= height, >= width rounded up to whole vectors) array of x's dtype
        The result under each tile, C order.
    tile_shape : (int, int)
        ``(height, width)`` of the tiles, in output pixels.
    everything : bool
        False for the moments alone.
    sums : `sums_shape` array of `sums_dtype`
        Working space. Integer sums are exact while no 32-bit lane overflows.
    out : (n, 3, p, q) float64 array
        Accumulators, updated in place.

    Notes
    -----
    With `t` over a tile,

    .. math:: \mathrm{out}_{0ij} \mathrel{+}= \sum_t y_t\, x_{t+(i,j)}, \quad
              \mathrm{out}_{1ij} \mathrel{+}= \sum_t x_t\, x_{t+(i,j)}, \quad
              \mathrm{out}_{2ij} \mathrel{+}= \sum_t x_{t+(0,j)}\, x_{t+(i,0)},

    the last only for ``j > 0``. Cost: ``3pq - p`` multiply-adds per pixel.
    """
    for tile in range(len(x)):
        _add_tile(x[tile], y[tile], tile_shape, everything, sums, out[tile])


@register_jitable
def _add_tile(source, result, tile_shape, everything, sums, found):
    """Do what `add_tiles` says, of one tile."""
    (height, width), (p, q) = tile_shape, found.shape[1:]
    lanes = VECTOR_BYTES // source.itemsize
    groups = -(-p // (TILE_LAGS if everything else MAX_LAGS))
    sums[:] = 0
    for col in range(0, width, lanes):
        for shift in range(q):
            kinds = MOMENTS
            if everything:
                kinds = MOMENTS | AHEAD | ACROSS if shift > 0 else MOMENTS | AHEAD
            for group in range(groups):
                lag, n = lag_group(group, groups, p)
                place = sums[shift, KINDS * lag :]
                march_tile(source, result, 0, col, shift, lag, height, width, kinds, n, place)
    for shift in range(q):
        n_kinds = (KINDS if shift > 0 else 2) if everything else 1
        for group in range(groups):
            lag, n = lag_group(group, groups, p)
            for kind in range(n_kinds):
                for i in range(n):
                    total = 0.0
                    for lane in range(sums.shape[2]):
                        total += sums[shift, KINDS * lag + kind * n + i, lane]
                    found[kind, lag + i, shift] += total


def _copy_plain(pixels, out):
    """Copy as `_copy` does, in NumPy: what runs when the JIT is off."""
    out[:] = pixels[: len(out)]


@register_jitable
def _copy_jitted(pixels, out):
    """Cast the first pixels of a row into all of another."""
    for c in range(len(out)):
        out[c] = pixels[c]


_copy: Any = _copy_plain if config.DISABLE_JIT else _copy_jitted


def _squares_plain(row):
    """Add up squares as `_squares` does, in NumPy: what runs when the JIT is off."""
    return float(np.sum(np.square(row, dtype=np.float64)))


@register_jitable
def _squares_jitted(row):
    """Return the sum of the squares of some pixels; of int16, as an integer."""
    total = 0 * row[0]
    for c in range(len(row)):
        total += row[c] * row[c]
    return total


_squares: Any = _squares_plain if config.DISABLE_JIT else _squares_jitted


@register_jitable
def _read(image, stride, rows, cols, first, last, out):
    """Cast what stands at some rows and columns of a flat image, and zeros where vectors reach."""
    width = len(cols)
    for r in range(len(rows)):
        line, row = out[r], rows[r]
        if row < 0:
            line[:] = 0
            continue
        if first < last and r + ROWS_AHEAD < len(rows):
            fetch(image, rows[r + ROWS_AHEAD] * stride + cols[first], last - first)
        pixels = image[row * stride : row * stride + stride]
        for c in range(first):
            line[c] = pixels[cols[c]] if cols[c] >= 0 else 0
        if first < last:
            _copy(pixels[cols[first] :], line[first:last])
        for c in range(last, width):
            line[c] = pixels[cols[c]] if cols[c] >= 0 else 0
        line[width:] = 0


@_loop
def add_image_tiles(source, result, strides, places, origin, tiles, x, y, sums, out):
    r"""Add the lagged products of tiles of two images, as they stand in memory, to ``out``.

    Parameters
    ----------
    source, result : 1-D arrays of one dtype
        All pixels of the images, row after row.
    strides : (int, int)
        How far their rows are apart, in pixels.
    places : (rows, cols), each a 1-D int array
        Which row and column of the source stands at each place of the window and around it,
        negative for zeros.
    origin : int
        Where the window begins in ``result``.
    tiles : (n, 6) int array
        ``(top, left, height, width)`` of each, in pixels of the window, and the half-open range of
        its columns that are the source's own, one after the other.
    x, y : 2-D arrays of float64 or int16
        Room for a tile of each, as `add_tiles` reads it. The last one is left there.
    sums : `sums_shape` array of `sums_dtype`
        Working space.
    out : (3, p, q) float64 array
        Accumulators, updated in place.

    Returns
    -------
    float
        The energy of the result, see `energy`.

    Notes
    -----
    The sums of `add_tiles`. Cost: ``3pq - p + 1`` multiply-adds per pixel.
    """
    (p, q), (rows, cols), total = out.shape[1:], places, 0.0
    for i in range(len(tiles)):
        top, left, height, width = tiles[i, 0], tiles[i, 1], tiles[i, 2], tiles[i, 3]
        down, across = rows[top : top + height + p - 1], cols[left : left + width + q - 1]
        _read(source, strides[0], down, across, tiles[i, 4], tiles[i, 5], x)
        for r in range(height):
            start = origin + (top + r) * strides[1] + left
            fetch(result, start + ROWS_AHEAD * strides[1], width)
            _copy(result[start : start + width], y[r][:width])
            total += _squares(y[r][:width])
            y[r][width:] = 0
        _add_tile(x, y, (height, width), True, sums, out)
    return total


@_loop
def add_line_products(lines, length, block, sums, out):
    r"""Add the lagged products of every pair of lines to ``out``.

    Parameters
    ----------
    lines : (>= length + lags - 1, >= n rounded up to whole vectors, twice) float64 array
        The lines side by side, one a column, C order. Whole vectors are read: pad with numbers.
    length : int
        Number of positions to sum over.
    block : int
        Positions to march over at a time.
    sums : (2 * MAX_LAGS, lanes) float64 array
        Working space.
    out : (lags, n, n) float64 array
        Accumulator, updated in place.

    Notes
    -----
    .. math:: \mathrm{out}_{juv} \mathrel{+}= \sum_{t < \mathrm{length}} l_{t,u}\, l_{t+j,v}

    Cost: ``lags * n**2`` multiply-adds a position. A tile's march over the lines beside
    themselves, its lanes kept apart: lane `u` at shift `s` holds the pair `(u, u + s)`.
    """
    lags, n = out.shape[0], out.shape[1]
    lanes = sums.shape[1]
    groups = -(-lags // LINE_LAGS)
    for row in range(0, length, block):
        height = min(block, length - row)
        for col in range(0, n, lanes):
            for shift in range(n - col):
                for group in range(groups):
                    lag, m = lag_group(group, groups, lags)
                    sums[:] = 0
                    march_lines(
                        lines, lines, row, col, shift, lag, height, n, MOMENTS | ACROSS, m, sums
                    )
                    for i in range(m):
                        for u in range(col, min(col + lanes, n - shift)):
                            out[lag + i, u, u + shift] += sums[i, u - col]
                            if shift > 0:
                                out[lag + i, u + shift, u] += sums[m + i, u - col]


@_loop
def add_row_correlations(wide, own, answer, height, own_out, answer_out):
    r"""Add the products of the spectra of rows, at all lags of rows, to two accumulators.

    Parameters
    ----------
    wide : (>= height + p - 1, n) float64 array
        Spectra of rows, real and imaginary parts in turn; ``n`` a whole number of vectors.
    own, answer : (>= height, n) float64 arrays
        Spectra of the rows that they are correlated with.
    height : int
        Number of rows to correlate.
    own_out, answer_out : (2 * p, n) float64 arrays
        Accumulators, updated in place; `row_correlations` reads them.

    Notes
    -----
    .. math:: \sum_{t < \mathrm{height}} \overline{c_{tf}}\, w_{t+i,\,f}

    Four real products make a complex one; they are summed as they come, element by element with
    ``c`` as it is and with its parts swapped. Cost: ``8 * p`` multiply-adds an element.
    """
    p, n = own_out.shape[0] // 2, own_out.shape[1]
    lanes = VECTOR_BYTES // wide.itemsize
    kinds = MOMENTS | SWAPPED
    groups = -(-p // MAX_LAGS)
    for col in range(0, n, lanes):
        for group in range(groups):
            lag, m = lag_group(group, groups, p)
            march_spectra(wide, own, 0, col, 0, lag, height, n, kinds, m, own_out[2 * lag :, col:])
            march_spectra(
                wide, answer, 0, col, 0, lag, height, n, kinds, m, answer_out[2 * lag :, col:]
            )


@_loop
def add_weighted_row_correlations(wide, own, weights, height, lines, weighted, out):
    r"""Add the products of the spectra of rows, at all lags of rows, by several weights of rows.

    Parameters
    ----------
    wide : (>= height + p - 1, m, side, lanes) float64 array
        Spectra of rows, real and imaginary parts in turn, by cache lines of ``side`` vectors.
    own : (>= height, m, side, lanes) float64 array
        Spectra of the rows that they are correlated with.
    weights : (k, height) float64 array
        Those of these rows.
    height : int
        Number of rows to correlate.
    lines, weighted : (>= height + p - 1, side, lanes) float64 arrays
        Working space: what is below each other stands side by side there.
    out : (m, side, k, 2 * p, lanes) float64 array
        Accumulators, updated in place; `weighted_row_correlations` reads them.

    Notes
    -----
    .. math:: \sum_{t < \mathrm{height}} w_{kt}\, \overline{c_{tf}}\, x_{t+i,\,f}

    Summed as by `add_row_correlations`. Cost: ``k * (4 * p + 1)`` multiply-adds an element.
    """
    m, side, k_weights, p = wide.shape[1], out.shape[1], out.shape[2], out.shape[3] // 2
    groups, kinds = -(-p // MAX_LAGS), MOMENTS | SWAPPED
    above, beside = lines.reshape(len(lines), -1), weighted.reshape(len(weighted), -1)
    for line in range(m):
        for r in range(height + p - 1):
            for v in range(side):
                store(lines, r * side + v, load(wide, (r * m + line) * side + v))
        for k in range(k_weights):
            for r in range(height):
                weight = alike(weights[k, r])
                for v in range(side):
                    store(weighted, r * side + v, weight * load(own, (r * m + line) * side + v))
            for v in range(side):
                for group in range(groups):
                    lag, n = lag_group(group, groups, p)
                    col, part = v * LANES, out[line, v, k, 2 * lag :]
                    width = col + LANES
                    march_spectra(above, beside, 0, col, 0, lag, height, width, kinds, n, part)


def weighted_row_correlations(out: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Return the sums of `add_weighted_row_correlations` as complex numbers, (k, p, n // 2)."""
    rows = np.moveaxis(out, (2, 3), (0, 1))
    return np.array([row_correlations(part.reshape(len(part), -1)) for part in rows])


def row_correlations(out: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Return the sums of `add_row_correlations` as complex numbers, (p, n // 2)."""
    p = len(out) // 2
    found = np.empty((p, out.shape[1] // 2), np.complex128)
    groups = -(-p // MAX_LAGS)
    for lag, n in (lag_group(group, groups, p) for group in range(groups)):
        straight, swapped = out[2 * lag : 2 * lag + n], out[2 * lag + n : 2 * lag + 2 * n]
        found.real[lag : lag + n] = straight[:, ::2] + straight[:, 1::2]
        found.imag[lag : lag + n] = swapped[:, 1::2] - swapped[:, ::2]
    return found


@_loop
def energy(image, tile_shape):
    """Return the sum of the squares of a tile.

    Parameters
    ----------
    image : (>= height, >= width) float64 or int16 array
        The pixels, C order.
    tile_shape : (int, int)
        ``(height, width)`` of the tile.

    Returns
    -------
    float
        Exact for whole numbers while it is below 2**53.

    Notes
    -----
    Cost: one multiply-add a pixel.
    """
    height, width = tile_shape
    total = 0.0
    for r in range(height):
        total += _squares(image[r][:width])
    return total
