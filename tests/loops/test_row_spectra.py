"""Rows are transformed and correlated as NumPy does it, in every length, at every place."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from shared import JIT

from fastkernel._loops import passes, row_spectra
from fastkernel._loops._cascade import MAX_DEPTH
from fastkernel._loops._lanes import LANES
from fastkernel._loops._reading import KINDS

LENGTHS = [n for n in range(32, 800 if JIT else 100, 2) if passes.is_length(n // 2, "f8")]


def image_of(pixels):
    return np.ascontiguousarray(pixels).reshape(-1).view(np.uint8), KINDS.index(pixels.dtype)


def given(source, result, tiles):
    """What a loop takes of two images, one pixel of the result for each of the source."""
    images = tuple((*image_of(image), image.shape[1]) for image in (source, result))
    places = tuple(np.arange(n) for n in (*source.shape, *result.shape))
    return images, places, np.array(tiles)


def room_of(length, height, lags, reach, degree=0):
    """Working space full of NaN, but for the pixels that weights of zero must not meet."""
    tall = row_spectra.whole(height + lags - 1)
    transform = row_spectra.transform_of(length)
    shapes = row_spectra.room_shapes(length, reach - 1, degree)
    room = tuple(np.full(shape, np.nan) for shape in shapes)
    room[0][:] = 0
    scratch = tuple(np.full((tall, length + LANES), np.nan) for _ in range(2))
    spectra = np.full(row_spectra.spectra_shape(length, tall, degree), np.nan)
    return transform, room, scratch, spectra


def correlation(source, tile, other, lags, reach):
    """The definition, over the pixels of a tile: ``other[t] * source[t + lag]``, zeros outside."""
    top, left, height, width = tile
    padded = np.pad(source, ((0, lags), (reach - 1, reach - 1)))
    found = np.empty((lags, 2 * reach - 1))
    for i, j in np.ndindex(found.shape):
        ahead = padded[top + i : top + i + height, left + j : left + j + width]
        found[i, j] = np.sum(other * ahead)
    return found


@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_definition_in_every_length(length, rng):
    lags, reach, height = 3, 4, 11
    width = length - 2 * (reach - 1)
    source = rng.integers(-9, 10, (height + lags + 2, width + 5)).astype(np.float32)
    result = rng.integers(-9, 10, source.shape).astype(np.float32)
    # Two columns of the source are left of the tile, none right of what it reaches.
    tile, reads = (2, 2, height, width), min(width + reach + 1, source.shape[1])
    down = min(height + lags - 1, len(source) - 2)
    row = [2, 0, down, reads, 0, reads, reach - 3, 2, height, width, height, width]
    how, ones = room_of(length, height, lags, reach), np.ones((1, source.shape[1]))
    out = np.zeros((2, row_spectra.groups_of(length), lags, 2, LANES))
    energy = row_spectra.add_row_correlations(*given(source, result, [row]), ones, *how, out)
    inside = slice(2, 2 + height), slice(2, 2 + width)
    found = [row_spectra.correlations(part, length, 2 * reach - 1) for part in out]
    reached = source.astype(float)
    reached[:, reads:] = 0
    for got, other in zip(found, (source[inside], result[inside]), strict=True):
        want = correlation(reached, tile, other.astype(float), lags, reach)
        assert_allclose(got, want, rtol=0, atol=1e-9)
    assert energy == np.sum(result[inside].astype(float) ** 2)


def test_a_row_of_huge_pixels_does_not_spoil_the_sum(rng):
    """Rows stand side by side, not in one transform: an error is a rounding of its own row."""
    source = rng.normal(size=(9, 64))
    source[4] *= 1e12
    how, ones = room_of(64, 9, 1, 1), np.ones((1, 64))
    out = np.zeros((2, row_spectra.groups_of(64), 1, 2, LANES))
    row = [0, 0, 9, 64, 0, 64, 0, 0, 9, 64, 0, 0]
    row_spectra.add_row_correlations(*given(source, source, [row]), ones, *how, out)
    found = row_spectra.correlations(out[0], 64, 1)
    assert_allclose(found[0, 0], np.sum(source**2), rtol=1e-14)
    assert not out[1].any()


@pytest.mark.parametrize("count", range(1, 2 * MAX_DEPTH))
@pytest.mark.parametrize("block", [5, 40])
def test_powers_of_rows_and_columns(block, count, rng):
    """One product of spectra, by powers of the row in folds, and one of the column."""
    height, lags, length, reach = 23, 4, 32, 3
    width = length - 2 * (reach - 1)
    source, result = rng.normal(size=(2, height + lags - 1, width + 2 * (reach - 1)))
    row = [0, 0, len(source), source.shape[1], 0, source.shape[1], 0, 2, height, width]
    row += [height, width]
    *how, spectra = room_of(length, height, lags, reach, degree=2)
    v, u = 0.3 + 0.02 * np.arange(height), np.linspace(-0.7, 0.9, source.shape[1])
    starts = range(0, height, block)
    powers = [
        row_spectra.powers_of_sums(0.3 + 0.02 * (min(start + block, height) - 1), 0.02)
        for start in starts
    ]
    folds = range(math.ceil(count / MAX_DEPTH))
    down = np.array([[v ** (MAX_DEPTH * fold) for fold in folds]]), block, np.array([powers])
    products = [(1, 3, n, MAX_DEPTH * n, min(MAX_DEPTH, count - MAX_DEPTH * n)) for n in folds]
    out = np.zeros((row_spectra.groups_of(length), lags, count, 2, LANES))
    weighted = np.full((1, height, 2, LANES), np.nan)
    row_spectra.add_weighted_row_correlations(
        *given(source, result, [row]),
        u ** np.arange(3.0)[:, None],
        down,
        np.array(products),
        *how,
        (spectra, weighted),
        out,
    )
    found = row_spectra.correlations(out, length, 2 * reach - 1)
    answer = result[:height, 2 : 2 + width]
    for power in range(count):
        heavy = answer * v[:, None] ** power
        want = correlation(source * u, (0, 2, height, width), heavy, lags, reach)
        assert_allclose(found[:, power], want, rtol=0, atol=1e-12 * np.abs(want).max())
