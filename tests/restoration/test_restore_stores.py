"""Tiles from and to stores of chunks, and the dtype of what is restored."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from stores import Store

from fastkernel import convolve, inverse_filter, restore_tiled, richardson_lucy, wiener
from fastkernel._images import blocks
from fastkernel.restoration import tiled

# What is read and written, which is the same whatever computes.
pytestmark = pytest.mark.jit

PSF = np.outer([1, 2, 1], [1, 2, 3, 1]) / 28
FIXED = {"balance": 0.1, "boundary": "symmetric"}


@pytest.fixture
def image(rng):
    return (255 * rng.random((63, 90))).astype(np.uint8)


@pytest.mark.parametrize("dtype", [None, np.float32])
@pytest.mark.parametrize("chunks", [(10, 12), (5, 4), (20, 24), (63, 90), (7, 50)])
def test_tiles_of_stores(chunks, dtype, image, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 30 * 50 * 8)
    source, out = Store(image, chunks), Store(np.empty(image.shape, dtype or float), chunks)
    options = {"tile_shape": (10, 12), "halo": (3, 4), "dtype": dtype} | FIXED
    steps = []
    found = restore_tiled(
        wiener, source, PSF, out=out, callback=lambda *step: steps.append(step), **options
    )
    assert found is out
    assert steps == [(i, len(steps)) for i in range(1, len(steps) + 1)]
    whole = restore_tiled(wiener, image, PSF, **options)
    if all(max(pair) % min(pair) == 0 for pair in zip(chunks, (10, 12), strict=True)):
        # Tiles begin where those of an array do.
        assert_array_equal(out.array, whole)
        assert out.writes.max() == out.writes.min() == 1
    else:
        assert_allclose(out.array, whole, atol=0.5 * np.ptp(whole))
        assert out.writes.max() <= 4
    # A strip of blocks, and its neighbours' halos.
    assert source.decodes.max() <= 3
    assert source.decodes[:, 0].max() <= 2
    from_array = Store(np.empty(image.shape, dtype or float), chunks)
    restore_tiled(wiener, image, PSF, out=from_array, **options)
    assert_array_equal(from_array.array, out.array)


@pytest.mark.parametrize(
    ("chunks", "shape"),
    [
        (None, (32, 32)),
        ((10, 12), (30, 24)),
        ((45, 90), (23, 30)),
        ((1, 90), (32, 30)),
    ],
)
def test_tiles_follow_chunks(chunks, shape, image, monkeypatch):
    monkeypatch.setattr(tiled, "_TILE", 32)
    calls = []

    def restore(part, psf):
        calls.append(part.shape)
        return part.astype(float)

    source = Store(image, chunks, grid=chunks or image.shape)
    found = restore_tiled(restore, source, PSF, halo=(0, 0))
    assert_array_equal(found, image)
    assert max(calls) == shape
    if chunks:
        assert source.decodes.max() == source.decodes.min() == 1


def test_halos_are_decoded_once_along_a_strip(image):
    source = Store(image, (10, 90))
    restore_tiled(wiener, source, PSF, tile_shape=(10, 30), **FIXED)
    assert source.decodes.max() == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
@pytest.mark.parametrize("stored", [False, True])
def test_a_bad_pixel_is_named_in_the_whole_image(value, stored, image):
    bad = image.astype(float)
    bad[51, 77] = value
    given = Store(bad, (10, 12)) if stored else bad
    options = {"tile_shape": (10, 12), "num_iter": 2}
    match = rf"image must be finite and not negative in .*, got {value} at index \(51, 77\)"
    with pytest.raises(ValueError, match=match):
        restore_tiled(richardson_lucy, given, PSF, **options)
    if value > 0 or np.isnan(value):
        with pytest.raises(ValueError, match=rf"image must be finite, got {value} .*\(51, 77\)"):
            restore_tiled(wiener, given, PSF, tile_shape=(10, 12), **FIXED)


RESTORED = {
    "wiener": lambda image, **options: wiener(image, PSF, 0.01, **options),
    "gcv": lambda image, **options: wiener(image, PSF, boundary="symmetric", **options),
    "unknown": lambda image, **options: wiener(image, PSF, 0.5, boundary="unknown", **options),
    "inverse": lambda image, **options: inverse_filter(image, PSF, 0.1, guarded=True, **options),
    "lucy": lambda image, **options: richardson_lucy(image, PSF, 5, **options),
    "tiled": lambda image, **options: restore_tiled(
        richardson_lucy, image, PSF, num_iter=5, tile_shape=(20, 20), **options
    ),
}


@pytest.mark.parametrize("name", RESTORED)
def test_dtype_of_what_is_restored(name, image):
    blurred = convolve(image[:30, :34], PSF, "same", "symmetric").round().clip(0, 255)
    stored = blurred.astype(np.uint8)
    restore = RESTORED[name]
    want, single = restore(stored), restore(stored, dtype=np.float32)
    assert want.dtype == np.float64
    assert single.dtype == np.float32
    assert_array_equal(restore(stored, dtype="float64"), want)
    assert_array_equal(single, restore(stored.astype(np.float32)))
    assert_allclose(single, want, atol=2e-4 * np.abs(want).max())
    assert_array_equal(restore(stored.astype(np.float32), dtype=np.float64), want)


@pytest.mark.parametrize("name", RESTORED)
def test_refusals_of_a_dtype(name, image):
    restore = RESTORED[name]
    with pytest.raises(TypeError, match="dtype must be float32 or float64, got"):
        restore(image, dtype=np.uint8)
    large = np.full((40, 40), 1.0)
    large[33, 4] = 1e300
    with pytest.raises(ValueError, match=r"image must be finite in float32, .* index \(33, 4\)"):
        restore(large, dtype=np.float32)


def test_refusals_of_an_output(image):
    source = Store(image.astype(float), (10, 12))
    options = {"tile_shape": (10, 12)} | FIXED
    with pytest.raises(ValueError, match="out must not be image, which is read"):
        restore_tiled(wiener, source, PSF, out=source, **options)
    with pytest.raises(TypeError, match="out must have dtype float32, got float64"):
        restore_tiled(wiener, image, PSF, out=source, dtype=np.float32, **options)
    with pytest.raises(TypeError, match=r"out must be a NumPy array, or .* got list"):
        restore_tiled(wiener, image, PSF, out=[[0.0]], **options)
    with pytest.raises(ValueError, match=r"out must have shape \(63, 90\), got \(3, 3\)"):
        restore_tiled(wiener, image, PSF, out=Store(np.empty((3, 3)), (3, 3)), **options)
