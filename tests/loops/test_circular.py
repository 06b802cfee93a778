"""Pairs of tiles are convolved circularly, each by itself, in every length and both precisions."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from shared import JIT

from fastkernel._loops import _processor, circular, passes, tile_copies

DTYPES = [np.dtype(np.float32), np.dtype(np.float64)]
LENGTHS = [n for n in range(16, 600 if JIT else 100) if passes.is_length(n, "f4")]


def rotated_sum(image, taps):
    """The definition: the sum of the image, moved around by every tap and multiplied by it."""
    found = np.zeros(image.shape)
    for (i, j), tap in np.ndenumerate(taps):
        found += tap * np.roll(image, (i, j), (0, 1))
    return found


def arrays(shape, dtype):
    (m, n), width = shape, passes.lanes(dtype)
    pair = np.zeros((2, m, n + width), dtype)
    between, panel = np.zeros((2, n, m), dtype), np.zeros((2, max(m, n), width), dtype)
    return pair, between, panel, passes.passes(m, dtype), passes.passes(n, dtype)


def convolved(images, taps, dtype):
    """Convolve two images of one shape as the loops do it."""
    shape = images[0].shape
    pair, *rest = arrays(shape, dtype)
    spectrum = np.empty((2, math.prod(shape)), dtype)
    pair[0, : taps.shape[0], : taps.shape[1]] = taps / math.prod(shape)
    circular.transform_pair(pair, *rest, spectrum)
    pair[:, :, : shape[1]] = images
    pair[:, :, shape[1] :] = np.nan  # which nothing may read
    circular.convolve_pair(pair, *rest, spectrum)
    return pair[:, :, : shape[1]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", LENGTHS)
def test_equals_the_definition_in_every_length(n, dtype, rng):
    other = LENGTHS[(LENGTHS.index(n) * 5 + 2) % min(len(LENGTHS), 8)]
    for shape in ((n, other), (other, n)):
        images = rng.integers(-9, 10, (2, *shape)).astype(float)
        taps = rng.integers(-9, 10, (3, 4)).astype(float)
        got = convolved(images, taps, dtype)
        assert got.dtype == dtype
        for image, found in zip(images, got, strict=True):
            assert_array_equal(np.rint(found), rotated_sum(image, taps))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_errors_are_a_few_roundings_of_the_largest_pixel(dtype, rng):
    shape = (96, 128) if JIT else (32, 48)
    images, taps = rng.random((2, *shape)), rng.random((15, 15))
    taps /= taps.sum()
    for image, found in zip(images, convolved(images, taps, dtype), strict=True):
        assert_allclose(found, rotated_sum(image, taps), rtol=0, atol=6 * np.finfo(dtype).eps)


def test_the_tiles_of_a_pair_are_kept_apart(rng):
    image, taps = rng.random((32, 32)), rng.random((3, 3))
    alone = convolved([image, 0 * image], taps, np.dtype(float))
    assert_allclose(alone[0], rotated_sum(image, taps), rtol=1e-13)
    assert np.abs(alone[1]).max() < 1e-13
    swapped = convolved([0 * image, image], taps, np.dtype(float))
    assert_allclose(swapped[::-1], alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", LENGTHS)
def test_passes_make_up_the_length(n):
    assert math.prod(passes.radices(n)) == n
    assert passes.radices(n)[-1] in (4, 8)
    _, table = passes.passes(n, np.dtype(float))
    assert_allclose(np.hypot(table[::2], table[1::2]), 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_tile_is_written_and_what_is_not_finite_seen(bad, dtype, rng):
    found, out = rng.random((5, 7)).astype(dtype), np.zeros((6, 8), dtype)
    assert tile_copies.write_tile(found, (3, 4), out, 2, 1)
    want = np.zeros((6, 8), dtype)
    want[2:5, 1:5] = found[:3, :4]
    assert_array_equal(out, want)
    found[3, 0] = bad  # beyond the part that is written
    assert tile_copies.write_tile(found, (3, 4), out, 2, 1)
    found[2, 3] = bad
    with np.errstate(invalid="ignore"):
        assert not tile_copies.write_tile(found, (3, 4), out, 2, 1)
    assert_array_equal(out[4, 4], dtype.type(bad))
    found[:] = np.finfo(dtype).max  # finite, though its sum is not
    assert tile_copies.write_tile(found, (3, 4), out, 2, 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_images_are_written_past_the_caches_all_the_same(dtype, rng):
    """Wherever a row begins and ends between the borders of vectors."""
    found, out = rng.random((3, 80)).astype(dtype), np.zeros((1061, 2003), dtype)
    assert out.nbytes >= _processor.STREAMED
    for left, width in [(0, 80), (1, 1), (5, 3), (7, 64), (1923, 80), (2002, 1), (9, 77)]:
        assert tile_copies.write_tile(found, (3, width), out, 1058, left)
        assert_array_equal(out[1058:, left : left + width], found[:, :width])
        assert np.count_nonzero(out) == 3 * width
        out[1058:] = 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tile_is_read_with_zeros_beyond_the_frame(dtype, rng):
    image = rng.random((7, 9)).astype(dtype)
    padded = np.pad(image, 20)
    for top in (-20, -3, 0, 2, 6, 7, 11):
        for left in (-20, -9, -2, 0, 4, 8, 9, 12):
            for height, width in ((1, 1), (5, 4), (14, 16)):
                out = np.full((15, 17), np.nan, dtype)
                tile_copies.read_tile(image, top, left, (height, width), out)
                rows, cols = slice(top + 20, top + 20 + height), slice(left + 20, left + 20 + width)
                assert_array_equal(out[:height, :width], padded[rows, cols])
                assert np.isnan(out[height:]).all()
                assert np.isnan(out[:, width:]).all()
