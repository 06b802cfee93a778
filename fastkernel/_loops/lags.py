"""Lagged products of images: the sums over pixels from which normal equations are assembled.

A loop checks nothing, allocates no result, starts no thread and calls only this file, the march and
what casts pixels.
Scratch is C-ordered float64, or int16 where both images hold integers of at most 8 bits.
"""

from typing import Any

import numpy as np
from numba.extending import register_jitable
from numpy.typing import DTypeLike

from fastkernel._loops._jit import loop
from fastkernel._loops._march import (
    ACROSS,
    AHEAD,
    LINE_LAGS,
    MOMENTS,
    TILE_LAGS,
    lag_group,
    march_lines,
    march_tile,
)
from fastkernel._loops._march import MAX_LAGS as MAX_LAGS
from fastkernel._loops._march import vector_lanes as vector_lanes
from fastkernel._loops._processor import ROWS_AHEAD, VECTOR_BYTES, fetch
from fastkernel._loops._reading import cast_pixels, read_part, sum_of_squares

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
# No nnan or ninf, so a NaN pixel reaches the sums, where the caller finds it.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})

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


@_loop
def add_image_tiles(source, result, places, origin, tiles, x, y, sums, out):
    r"""Add the lagged products of tiles of two images, as they stand in memory, to ``out``.

    Parameters
    ----------
    source, result : Image
        See `_reading`; of 8 bits where they are cast to int16.
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
    (p, q), (rows, cols), (pixels, kind, stride), total = out.shape[1:], places, result, 0.0
    for i in range(len(tiles)):
        top, left, height, width = tiles[i, 0], tiles[i, 1], tiles[i, 2], tiles[i, 3]
        down, across = rows[top : top + height + p - 1], cols[left : left + width + q - 1]
        read_part(source, down, across, tiles[i, 4], tiles[i, 5], x)
        for r in range(height):
            start = origin + (top + r) * stride + left
            fetch(pixels, (start + ROWS_AHEAD * stride) << kind, width << kind)
            cast_pixels(pixels, kind, start, width, y, r * y.shape[1])
            total += sum_of_squares(y[r][:width])
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
        total += sum_of_squares(image[r][:width])
    return total
