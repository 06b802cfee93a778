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


def room_shapes(length: int) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of what loops work in: a panel, and sums."""
    # Rows are turned over in whole vectors: the last may reach beyond the panel.
    return (length + LANES, LANES), (MOST_SUMS, 2, LANES)


def spectra_shape(length: int, rows: int) -> tuple[int, int, int, int]:
    """Return the shape of the spectra of so many rows, and of one more."""
    # Groups a power of two apart would compete for places in the first-level cache.
    return groups_of(length), whole(rows) + 1, 2, LANES


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
def _fold(panel, turns):
    """Make one complex number of every two that stand half a row apart, in place."""
    half = len(turns)
    for k in range(half):
        cosine, sine = alike(turns[k, 0]), alike(turns[k, 1])
        near, far = load(panel, k), load(panel, half + k)
        store(panel, k, cosine * near - sine * far)
        store(panel, half + k, alike(0.0) - (sine * near + cosine * far))


@register_jitable
def _transform(pixels, part, offset, weights, transform, room, out):
    """Transform a part of every row, by weights of columns if there are any, with zeros around.

    Cost: about ``2.5 * log2(n) + 4`` operations a pixel.
    """
    (left, height, width), (radices_, table, turns), (panel, _) = part, transform, room
    half, stride, flat = len(turns), pixels.shape[1], pixels.reshape(-1)
    both, rows, found = panel[: 2 * half].reshape(2, half, LANES), out.shape[1], out.reshape(-1)
    for row in range(0, height, LANES):
        for col in range(0, width, LANES):
            start = row * stride + left + col
            transpose(flat, start, stride, panel, (offset + col) * LANES, LANES)
        for col in range(len(weights)):
            store(panel, offset + col, alike(weights[col]) * load(panel, offset + col))
        for col in range(2 * half - width):
            store(panel, col if col < offset else col + width, alike(0.0))
        if height - row < LANES:
            for col in range(offset, offset + width):
                for lane in range(height - row, LANES):
                    panel[col, lane] = 0.0
        _fold(panel, turns)
        forward(both[0], both[1], 0, LANES, half, radices_, table, radices_.size, both)
        for group in range(len(out)):
            for which in range(2):
                start = (which * half + group * LANES) * LANES
                place = ((group * rows + row) * 2 + which) * LANES
                transpose(panel, start, LANES, found, place, 2 * LANES)


@register_jitable
def _add_products(far, near, height, sums, out):
    """Add the products of the spectra of rows, at all lags of rows, conjugated the near ones."""
    groups, p, rows, near_rows = out.shape[0], out.shape[1], far.shape[1], near.shape[1]
    parts = -(-p // most_lags(1))
    for group in range(groups):
        for number in range(parts):
            lag, n = lag_group(number, parts, p)
            march(far, group * rows + lag, near, group * near_rows, height, n, 1, sums)
            for i in range(2 * n):
                place = (group * p + lag) * 2 + i
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
def add_row_correlations(images, places, tiles, transform, room, scratch, spectra, out):
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
    transform : Transform
    room : tuple of arrays
        Working space, see `room_shapes`.
    scratch : (array, array)
        Working space for the source around a tile and the result under it, float64, rows to a
        `whole` number and columns to whole vectors.
    spectra : (array, array)
        Working space for those of the rows around a tile, and of those under it.
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
    (x, y), (far, near), none, energy, lags = scratch, spectra, scratch[0][0, :0], 0.0, out.shape[2]
    for i in range(len(tiles)):
        tile = tiles[i]
        energy += _read_tile(images, places, tile, lags, scratch)
        # The source around the tile, the source under it, and the result there.
        for turn in range(3):
            pixels, into, height = y if turn == 2 else x, far if turn == 0 else near, tile[8]
            part, offset = (tile[7], height, tile[9]), 0
            if turn == 0:
                part, offset = (0, height + lags - 1, tile[3]), tile[6]
            elif turn == 2:
                height = tile[10] if tile[11] > 0 else 0
                part = 0, height, tile[11]
            if height > 0:
                _transform(pixels, part, offset, none, transform, room, into)
                if turn > 0:
                    _add_products(far, near, height, room[1], out[turn - 1])
    return energy


@register_jitable
def _weigh(spectra, weights, height, out):
    """Write the spectra of rows times the weights of these."""
    for group in range(len(spectra)):
        for row in range(height):
            place = (group * spectra.shape[1] + row) * 2
            store(out, place, alike(weights[row]) * load(spectra, place))
            store(out, place + 1, alike(weights[row]) * load(spectra, place + 1))


@register_jitable
def _add_weighted_products(far, near, height, block, powers, sums, out, first, count):
    """Add products as `_add_products` does, by powers of the row; kept from ``first`` on."""
    groups, p, kept = out.shape[0], out.shape[1], out.shape[2]
    rows, near_rows, parts = far.shape[1], near.shape[1], -(-p // most_lags(count))
    for group in range(groups):
        start, near_start = group * rows, group * near_rows
        for number in range(parts):
            lag, n = lag_group(number, parts, p)
            for row in range(0, height, block):
                at, near_at, shares = start + lag + row, near_start + row, powers[row // block]
                length = min(block, height - row)
                march_deep(far, at, near, near_at, length, n, count, sums)
                for i in range(n):
                    for power in range(count):
                        place = ((group * p + lag + i) * kept + first + power) * 2
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
    spectra : (array, array, array)
        Working space for those of the rows around the tile; for those under it, by power, and of
        the result; and for some of these once more.
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
    (x, y), (far, near, weighted), none, energy = scratch, spectra, scratch[0][0, :0], 0.0
    (rows, block, powers), degree, lags = down, len(across) - 1, out.shape[1]
    for i in range(len(tiles)):
        tile = tiles[i]
        first, cols, offset, left = tile[1], tile[3], tile[6], tile[7]
        height, width, held = tile[8], tile[9], -1
        energy += _read_tile(images, places, tile, lags, scratch)
        # The source under the tile, by every power, the result, and what is around the tile.
        for number in range(degree + 2 + len(products)):
            pixels, part, start, into = x, (left, height, width), 0, near[min(number, degree + 1)]
            power = number
            if number == degree + 1:
                pixels, part, power = y, (0, height, width), 0
            elif number > degree + 1:
                power = products[number - degree - 2, 0]
                part, start, into = (0, height + lags - 1, cols), offset, far
            if number < degree + 2 or power != held:
                at = first + part[0]
                weights = across[power, at : at + part[2]] if power > 0 else none
                _transform(pixels, part, start, weights, transform, room, into)
            if number < degree + 2:
                continue
            held, product = power, products[number - degree - 2]
            chosen, fold = near[product[1]], product[2]
            if fold > 0:
                _weigh(chosen, rows[i, fold], height, weighted)
                chosen = weighted
            blocks, kept = (height, block, powers[i]), (product[3], product[4])
            _add_weighted_products(far, chosen, *blocks, room[1], out, *kept)
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
