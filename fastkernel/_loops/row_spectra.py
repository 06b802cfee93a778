r"""Transforms of the rows of images, and the products of rows that stand some lags apart.

A loop checks nothing, allocates no result, starts no thread and calls only this file and what is
written as LLVM's vectors beside it: long functions from one place, for every other takes compiling.

Rows stand side by side, a vector of them, as columns of a panel in the first-level cache. Zeros
around them leave room for what a transform wraps round, so it may as well change its sign there:
with :math:`n` pixels, half of the frequencies between the usual ones,

.. math:: X_j = \sum_t x_t\, e^{-i \pi t (4j + 1) / n}, \qquad 0 \le j < n / 2,

tell all of a real row (the others are conjugates), and are a complex transform of half its length,
of :math:`e^{-i \pi k / n} (x_k - i\, x_{k+n/2})`. Spectra, (groups, rows, 2, lanes) arrays, hold
them in the order in which the passes leave them, in groups of as many as a vector has lanes: of
every row the real and the imaginary parts.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from fastkernel._loops._cascade import MAX_DEPTH, MOST_SUMS, march, march_deep, most_lags
from fastkernel._loops._column_transforms import forward
from fastkernel._loops._jit import loop
from fastkernel._loops._lanes import LANES, alike, load, store
from fastkernel._loops._march import lag_group
from fastkernel._loops._processor import transpose
from fastkernel._loops._reading import read_part, sum_of_squares
from fastkernel._loops.passes import passes, radices

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
# No nnan or ninf, so a NaN pixel reaches the sums, where the caller finds it.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


class Transform(NamedTuple):
    """What rows of a length are transformed with.

    Attributes
    ----------
    radices, table : arrays
        Of `passes.passes`, for half the length.
    turns : (n / 2, 2) float64 array
        Cosine and sine of half a turn in ``n`` steps.
    """

    radices: NDArray[np.int64]
    table: NDArray[np.float64]
    turns: NDArray[np.float64]


@lru_cache(16)
def transform_of(length: int) -> Transform:
    """Return what rows of ``length`` pixels are transformed with; half is a `passes.is_length`."""
    angles = np.pi / length * np.arange(length // 2)
    turns = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    turns.flags.writeable = False
    return Transform(*passes(length // 2, np.dtype(np.float64)), turns)


@lru_cache(16)
def _order(length: int) -> NDArray[np.int64]:
    """Return where the passes leave every frequency."""
    # A pass of radix r puts the frequencies that leave the rest q by r into block q.
    found = np.zeros(1, int)
    for radix in reversed(radices(length // 2)):
        found = (np.arange(radix)[:, None] + radix * found).ravel()
    return np.argsort(found)


def groups_of(length: int) -> int:
    """Return how many groups of frequencies the spectra of rows have."""
    return length // (2 * LANES)


def whole(rows: int) -> int:
    """Return how many rows are transformed where there are so many."""
    return -(-rows // LANES) * LANES


def room_shapes(length: int, reach: int, degree: int) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of what loops work in.

    Parameters
    ----------
    length : int
        Of the transforms.
    reach : int
        Columns on either side of a tile that lags reach.
    degree : int
        Of the weights of columns.

    Returns
    -------
    tuple of tuple of int
        Pixels of some rows, turned over in whole vectors, of which the last may reach beyond a
        row; a panel; the weights of all that is transformed; and sums.
    """
    pixels = length + reach + LANES, LANES
    return pixels, (2, length // 2, LANES), (2 * degree + 3, length), (MOST_SUMS, 2, LANES)


def spectra_shape(length: int, rows: int, degree: int) -> tuple[int, ...]:
    """Return the shape of the spectra of so many rows: around a tile, under it, and the result's.

    Of both of the first, there are those of all powers.
    """
    # Groups a power of two apart would compete for places in the first-level cache.
    return 2 * degree + 3, groups_of(length), whole(rows) + 1, 2, LANES


@lru_cache(256)
def powers_of_sums(place: float, step: float) -> NDArray[np.float64]:
    r"""Return the matrix that makes powers of places of sums of sums.

    Parameters
    ----------
    place, step : float
        Of the last row, and from one to the next.

    Returns
    -------
    (MAX_DEPTH, MAX_DEPTH) float64 array
        One power a row.

    Notes
    -----
    A row that is ``r`` rows above the last counts :math:`\binom{r+j}{j}` times in the sums of
    order ``j``. Its place, :math:`(v - hr)^i`, is a sum of these: the differences of powers of
    ``r``, backwards from -1, are its coefficients.
    """
    powers = np.arange(MAX_DEPTH)
    values = np.arange(-1, -1 - MAX_DEPTH, -1) ** powers[:, None]
    differences = np.zeros((MAX_DEPTH, MAX_DEPTH))
    for order in powers:
        differences[:, order] = values[:, 0]
        values = values[:, :-1] - values[:, 1:]
    shares = [
        [math.comb(i, m) * place ** max(i - m, 0) * (-step) ** m for m in powers.tolist()]
        for i in powers.tolist()
    ]
    found = np.asarray(shares) @ differences
    found.flags.writeable = False
    return found


@register_jitable
def _weigh_columns(tile, across, weights):
    """Write the weights of all that is transformed, by place in the transform: zeros around it."""
    powers, first, offset = len(across), tile[1], tile[6]
    weights[:] = 0.0
    for power in range(powers):
        for col in range(tile[3]):
            weights[power, offset + col] = across[power, first + col]
        for col in range(tile[9]):
            weights[powers + power, col] = across[power, first + tile[7] + col]
    weights[2 * powers, : tile[11]] = 1.0


@register_jitable
def _fold(pixels, first, weights, turns, panel):
    """Make one complex number of every two weighted pixels that stand half a row apart."""
    half = len(turns)
    for k in range(half):
        cosine, sine = alike(turns[k, 0]), alike(turns[k, 1])
        near = alike(weights[k]) * load(pixels, first + k)
        far = alike(weights[half + k]) * load(pixels, first + half + k)
        store(panel, k, cosine * near - sine * far)
        store(panel, half + k, alike(0.0) - (sine * near + cosine * far))


@register_jitable
def _transform(scratch, tile, lags, transform, room, spectra):
    """Transform the rows of a tile: around it and under it, by powers of columns, and the result's.

    Rows are turned over once for all powers, and told apart by weights. Cost: about ``2.5 *
    log2(n) + 5`` operations for every pixel and power.
    """
    (radices_, table, turns), (pixels, panel, weights, _) = transform, room
    half, powers, rows = len(turns), len(weights) // 2, spectra.shape[2]
    for turn in range(2):
        image = scratch[turn]
        flat, stride = image.reshape(-1), image.shape[1]
        offset, cols, height = (tile[6], tile[3], tile[8] + lags - 1)
        if turn == 1:
            offset, cols, height = 0, tile[11], tile[10]
        for row in range(0, height, LANES):
            for col in range(0, cols, LANES):
                transpose(flat, row * stride + col, stride, pixels, (offset + col) * LANES, LANES)
            # What was read beyond the pixels may be NaN, which no weight makes zero.
            for col in range(offset + cols, offset + -(-cols // LANES) * LANES):
                store(pixels, col, alike(0.0))
            if height - row < LANES:
                for col in range(offset, offset + cols):
                    pixels[col, height - row :] = 0.0
            first, last = 0, 2 * powers if row < tile[8] else powers
            if turn == 1:
                first, last = 2 * powers, 2 * powers + 1
            for number in range(first, last):
                # The tile's own first column stands as far into its surroundings as lags reach.
                start = tile[6] + tile[7] if powers <= number < 2 * powers else 0
                _fold(pixels, start, weights[number], turns, panel)
                forward(panel[0], panel[1], 0, LANES, half, radices_, table, radices_.size, panel)
                out = spectra[number].reshape(-1)
                for group in range(spectra.shape[1]):
                    place = (group * rows + row) * 2 * LANES
                    for which in range(2):
                        begin = (which * half + group * LANES) * LANES
                        transpose(panel, begin, LANES, out, place + which * LANES, 2 * LANES)


@register_jitable
def _add_products(far, near, start, height, sums, out):
    """Add the products of the spectra of rows, at all lags of rows, conjugated the near ones."""
    p = len(out)
    parts = -(-p // most_lags(1))
    for number in range(parts):
        lag, n = lag_group(number, parts, p)
        march(far, start + lag, near, start, height, n, 1, sums)
        for i in range(2 * n):
            place = lag * 2 + i
            store(out, place, load(out, place) + load(sums, i))


@register_jitable
def _read_tile(images, places, tile, lags, scratch):
    """Read a tile of both images, and return the energy of the result's."""
    (source, result), (x, y), energy = images, scratch, 0.0
    rows, cols, result_rows, result_cols = places
    top, left = tile[0], tile[1]
    down, across = rows[top : top + tile[2]], cols[left : left + tile[3]]
    read_part(source, down, across, tile[4], tile[5], x)
    for row in range(tile[2], tile[8] + lags - 1):
        for col in range(x.shape[1]):
            x[row, col] = 0.0
    if tile[10] > 0 and tile[11] > 0:
        left += tile[7]
        down = result_rows[top : top + tile[10]]
        across = result_cols[left : left + tile[11]]
        read_part(result, down, across, 0, tile[11], y)
        for row in range(tile[10]):
            energy += sum_of_squares(y[row][: tile[11]])
    return energy


@_loop
def add_row_correlations(images, places, tiles, across, transform, room, scratch, spectra, out):
    r"""Add the products of the spectra of the rows of tiles, at all lags of rows.

    Parameters
    ----------
    images : (source, result)
        See `_reading.Image`.
    places : four 1-D int arrays
        Which row and column of the source stands at each place of what the kernel sees, negative
        for zeros, and which of the result at each of the window.
    tiles : (n, 12) int array
        Of each: the first row and column of the source around it, and how many to read; which of
        these columns follow each other in the source, half-open; where the first stands in what
        is transformed; how many columns left of the tile are read; the tile's height and width;
        the height and width of the result there, from its first row and column on.
    across : (1, width) float64 array
        The weights of the columns of what the kernel sees: ones.
    transform : Transform
    room : tuple of arrays
        Working space, see `room_shapes`; pixels without NaN.
    scratch : (array, array)
        Working space for the source around a tile and the result under it, float64, rows to a
        `whole` number and columns to whole vectors.
    spectra : array
        Working space, see `spectra_shape`.
    out : (2, groups, p, 2, lanes) float64 array
        Accumulators of the source's own products and of those with the result, updated in place.

    Returns
    -------
    float
        The energy of the result.

    Notes
    -----
    .. math:: \sum_{t < \mathrm{height}} \overline{n_{tf}}\, w_{t+i,\,f}

    Cost: ``8 * p`` multiply-adds a complex number, and three transforms of rows.
    """
    energy, lags, rows = 0.0, out.shape[2], spectra.shape[2]
    for i in range(len(tiles)):
        tile = tiles[i]
        energy += _read_tile(images, places, tile, lags, scratch)
        _weigh_columns(tile, across, room[2])
        _transform(scratch, tile, lags, transform, room, spectra)
        for group in range(out.shape[1]):
            for turn in range(2):
                height = tile[10] if tile[11] > 0 else 0
                if turn == 0:
                    height = tile[8]
                if height > 0:
                    near, found = spectra[1 + turn], out[turn, group]
                    _add_products(spectra[0], near, group * rows, height, room[3], found)
    return energy


@register_jitable
def _weigh(spectra, start, weights, height, out):
    """Write the spectra of rows times the weights of these."""
    for row in range(height):
        place = (start + row) * 2
        store(out, 2 * row, alike(weights[row]) * load(spectra, place))
        store(out, 2 * row + 1, alike(weights[row]) * load(spectra, place + 1))


@register_jitable
def _add_weighted_products(far, start, near, near_start, height, how, sums, out, first, count):
    """Add products as `_add_products` does, by powers of the row; kept from ``first`` on."""
    (block, powers), p, kept = how, out.shape[0], out.shape[1]
    parts = -(-p // most_lags(count))
    for number in range(parts):
        lag, n = lag_group(number, parts, p)
        for row in range(0, height, block):
            shares, length = powers[row // block], min(block, height - row)
            march_deep(far, start + lag + row, near, near_start + row, length, n, count, sums)
            for i in range(n):
                for power in range(count):
                    place = ((lag + i) * kept + first + power) * 2
                    re, im = load(out, place), load(out, place + 1)
                    for order in range(power + 1):
                        share, of = alike(shares[power, order]), (i * count + order) * 2
                        re, im = re + share * load(sums, of), im + share * load(sums, of + 1)
                    store(out, place, re)
                    store(out, place + 1, im)


@_loop
def add_weighted_row_correlations(
    images, places, tiles, across, down, products, transform, room, scratch, spectra, out
):
    r"""Add the products of the spectra of the rows of tiles, by powers of the row and the column.

    Parameters
    ----------
    images, places, tiles, transform, room, scratch
        As in `add_row_correlations`.
    across : (degree + 1, width) float64 array
        The powers of the places of the columns of what the kernel sees.
    down : (rows, block, powers)
        A (tiles, folds, height) float64 array of the powers that rows are given before they are
        summed, of the first fold 1; how many rows are summed at a time; and, of every such block
        of every tile, what makes powers of its sums, see `powers_of_sums`.
    products : (n, 5) int array
        Of each: the powers of the column that the row around the tile, and the one under it, is
        given (``degree + 1`` for the result's); its fold; where its powers of the row begin
        in ``out``; and how many.
    spectra : (array, array)
        Working space: see `spectra_shape`, and for a group of some of these once more.
    out : (groups, p, k, 2, lanes) float64 array
        Accumulators, updated in place.

    Returns
    -------
    float
        The energy of the result.

    Notes
    -----
    .. math:: \sum_{t < \mathrm{height}} v_t^j\, \overline{n_{tf}}\, w_{t+i,\,f}

    The sums of products, the sums of these from the first row to each, and so on, have binomial
    coefficients for weights. Cost: ``2 * degree + 3`` transforms of rows; 4 multiply-adds for
    each product, lag and complex number, and two additions for every power.
    """
    energy, lags, (spectra_, weighted), (rows, block, powers) = 0.0, out.shape[1], spectra, down
    apart, halves = spectra_.shape[2], len(across)
    for i in range(len(tiles)):
        tile = tiles[i]
        energy += _read_tile(images, places, tile, lags, scratch)
        _weigh_columns(tile, across, room[2])
        _transform(scratch, tile, lags, transform, room, spectra_)
        for group in range(len(out)):
            start = group * apart
            for number in range(len(products)):
                product = products[number]
                far, near, fold = spectra_[product[0]], spectra_[halves + product[1]], product[2]
                near_start = start
                if fold > 0:
                    _weigh(near, start, rows[i, fold], tile[8], weighted)
                    near, near_start = weighted, 0
                how, kept = (block, powers[i]), (product[3], product[4])
                _add_weighted_products(
                    far, start, near, near_start, tile[8], how, room[3], out[group], *kept
                )
    return energy


def correlations(out: NDArray[np.float64], length: int, reach: int) -> NDArray[np.float64]:
    """Return sums of products of spectra as correlations of rows.

    Parameters
    ----------
    out : (groups, ..., 2, lanes) float64 array
        Of `add_row_correlations` or `add_weighted_row_correlations`.
    length : int
        Of the transforms.
    reach : int
        How many lags of columns to return.

    Returns
    -------
    (..., reach) float64 array
    """
    lines = np.moveaxis(out, 0, -2)
    spectra = np.empty((*out.shape[1:-2], length // 2), np.complex128)
    for part, values in zip((spectra.real, spectra.imag), np.moveaxis(lines, -3, 0), strict=True):
        part[...] = values.reshape(part.shape)
    turns = transform_of(length).turns @ [1, 1j]
    found = np.fft.ifft(spectra[..., _order(length)]) * turns
    return np.concatenate([found.real, -found.imag], axis=-1)[..., :reach]
