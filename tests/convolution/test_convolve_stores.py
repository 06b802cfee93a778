"""Convolution from and to stores of chunks, against that of arrays."""

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from stores import Store

from fastkernel import convolve, correlate
from fastkernel._images import blocks

# What is read and written, which is the same whatever computes.
pytestmark = pytest.mark.jit

SHAPE = (93, 110)
KERNELS = {"direct": np.arange(15.0).reshape(3, 5), "separable": np.outer([1, 2, 4], [1, 3, 5, 1])}
CASES = [("full", "zero"), ("valid", "zero"), *(("same", rule) for rule in naive.PAD_MODES)]


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_SHAPE", (16, 1))
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 16 * 40 * 8)


@pytest.mark.parametrize(("mode", "boundary"), CASES)
@pytest.mark.parametrize("method", KERNELS)
@pytest.mark.parametrize("function", [convolve, correlate])
def test_bits_are_those_of_arrays(function, method, mode, boundary, rng, small_blocks):
    kernel = KERNELS[method]
    for image in (rng.integers(0, 256, SHAPE).astype(np.uint8), rng.random(SHAPE, np.float32)):
        options = {"mode": mode, "boundary": boundary, "method": method}
        want = function(image, kernel, **options)
        for chunks in ((20, 17), (200, 200), (7, 110)):
            source, out = Store(image, chunks), Store(np.empty_like(want), (30, 25))
            assert function(source, kernel, out=out, workers=2, **options) is out
            assert_array_equal(out.array, want)
            assert out.writes.max() == out.writes.min() == 1
            assert_array_equal(function(Store(image, chunks), kernel, **options), want)
            target = Store(np.empty_like(want), (30, 25))
            assert_array_equal(function(image, kernel, out=target, **options).array, want)


@pytest.mark.parametrize(("mode", "boundary"), CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transforms_of_blocks(mode, boundary, dtype, rng, small_blocks):
    image, kernel = rng.integers(0, 256, SHAPE).astype(np.uint8), rng.random((9, 12))
    want = naive.filtered(image, kernel, mode, boundary)
    out = Store(np.empty(want.shape, dtype), (30, 25))
    convolve(
        Store(image, (20, 17)),
        kernel,
        mode,
        boundary,
        method="fft",
        out=out,
        dtype=dtype,
        workers=2,
    )
    error = 6e-7 if dtype is np.float32 else 2e-15
    assert_allclose(out.array, want, rtol=0, atol=error * want.max())
    again = Store(np.empty(want.shape, dtype), (30, 25))
    convolve(Store(image, (20, 17)), kernel, mode, boundary, method="fft", out=again, dtype=dtype)
    assert_array_equal(again.array, out.array)


@pytest.mark.jit
@pytest.mark.parametrize("chunks", [(256, 200), (64, 900), (7, 5)])
@pytest.mark.parametrize("boundary", naive.PAD_MODES)
def test_every_chunk_is_decoded_and_written_once(chunks, boundary, rng):
    image = rng.integers(0, 256, (1000, 900)).astype(np.uint8)
    source, out = Store(image, chunks), Store(np.empty((1000, 900)), chunks)
    convolve(source, np.ones((5, 4)), "same", boundary, out=out)
    assert source.decodes[1:-1].max() == 1
    assert source.decodes.max() <= 1 + (boundary == "circular")
    assert out.writes.max() == out.writes.min() == 1
    assert max(source.largest, out.largest) < image.size


def test_blocks_follow_the_images_chunks_where_out_has_none(rng, small_blocks):
    image = rng.random(SHAPE)
    source = Store(image, (20, 50))
    got = convolve(source, np.ones((3, 2)), "same", "mirror")
    assert_array_equal(got, convolve(image, np.ones((3, 2)), "same", "mirror"))
    # A strip is two chunks wide, and reads a column of the next one.
    assert source.decodes.max() == 2
    assert source.decodes[:, 0].max() == 1


def test_shards_are_written_once(rng, small_blocks):
    out = Store(np.empty(SHAPE), (40, 30))
    out.chunks, out.shards = (10, 10), (40, 30)
    convolve(rng.random(SHAPE), np.ones((3, 3)), "same", out=out)
    assert out.writes.max() == 1


def test_what_stands_beyond_the_frame_need_not_be_of_the_images_dtype(rng, small_blocks):
    image, kernel = rng.integers(0, 256, SHAPE).astype(np.uint8), np.ones((3, 5))
    want = convolve(image, kernel, "full", fill_value=0.25)
    got = convolve(Store(image, (20, 17)), kernel, "full", fill_value=0.25)
    assert_array_equal(got, want)


@pytest.mark.parametrize("method", ["auto", "fft"])
def test_pixels_that_are_not_finite(method, rng, small_blocks):
    image, kernel = rng.random((300, 110)), rng.random((15, 15))
    image[280, 100], image[290, 7] = np.nan, np.inf
    store = Store(image, (20, 17))
    if method == "fft":
        with pytest.raises(ValueError, match=r"image must be finite, got nan at index \(280, 100"):
            convolve(store, kernel, "same", method="fft")
        assert store.largest < image.size
        convolve(store, kernel, "same", method="fft", check_finite=False)
        big = np.full((40, 40), 1e300)
        with pytest.raises(ValueError, match=r"image in float32 must be finite, .* \(0, 0\)"):
            convolve(Store(big, (20, 17)), kernel, method="fft", dtype=np.float32)
        return
    for boundary in ("zero", "mirror"):
        want = naive.filtered(image, kernel, "same", boundary)
        assert_allclose(convolve(store, kernel, "same", boundary), want, rtol=1e-12)


def test_refusals(rng):
    image, kernel = rng.random((9, 8)), np.ones((3, 3))

    class ReadOnly:
        shape, dtype, __getitem__ = (9, 8), np.dtype(float), image.__getitem__

    class Lazily(Store):
        __module__ = "dask.array.core"
        __dask_graph__ = None

    wrong = {
        "assignment": (ReadOnly(), TypeError, "out must be a NumPy array, or .* got ReadOnly"),
        "dask": (Lazily(image, (3, 3)), TypeError, "out must be a NumPy array, or .* got Lazily"),
        "dtype": (
            Store(image.astype(np.float32), (3, 3)),
            TypeError,
            "out must have dtype float64, got float32",
        ),
        "shape": (Store(image.T, (3, 3)), ValueError, r"out must have shape \(9, 8\), got \(8, 9"),
    }
    for out, error, message in wrong.values():
        for given in (image, Store(image, (3, 3))):
            with pytest.raises(error, match=message):
                convolve(given, kernel, "same", out=out)
    store = Store(image, (3, 3))
    with pytest.raises(ValueError, match="out must not be image, which is read while"):
        convolve(store, kernel, "same", out=store)
    stack = Store(np.empty((9, 8, 3)), (3, 3, 1), grid=(3, 3, 1))
    with pytest.raises(TypeError, match="or for an image of two dimensions"):
        convolve(np.ones((9, 8, 3)), kernel, "same", channel_axis=2, out=stack)
