"""Borders of another value than zero, and the dtype of the output."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage, signal
from shared import JIT

from fastkernel import convolve, correlate

ENGINES = ["direct", "separable", "fft", "auto"]
SHAPES = [
    ((9, 11), (3, 3)),
    ((9, 11), (5, 1)),
    ((4, 3), (7, 9)),
    ((200, 230) if JIT else (60, 70), (9, 15)),
]


def pair(rng, shape, kernel_shape, engine):
    image = rng.integers(-99, 99, shape).astype(float)
    kernel = rng.integers(-9, 9, kernel_shape).astype(float)
    return image, np.outer(kernel[:, 0], kernel[0]) if engine == "separable" else kernel


@pytest.mark.parametrize(("shape", "kernel_shape"), SHAPES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fill", [7, -3.0, 1e6])
def test_fill_value_is_that_of_scipy(shape, kernel_shape, engine, fill, rng):
    image, kernel = pair(rng, shape, kernel_shape, engine)
    close = {"rtol": 1e-10, "atol": 1e-13 * abs(fill) * np.abs(kernel).sum() + 1e-9}
    options = {"method": engine, "fill_value": fill}
    want = ndimage.convolve(image, kernel, mode="constant", cval=fill)
    assert_allclose(convolve(image, kernel, "same", "constant", **options), want, **close)
    want = ndimage.correlate(image, kernel, mode="constant", cval=fill)
    assert_allclose(correlate(image, kernel, "same", **options), want, **close)
    for mode in ("full", "same"):
        want = signal.convolve2d(image, kernel, mode, fillvalue=fill)
        assert_allclose(convolve(image, kernel, mode, "fill", **options), want, **close)
    if shape >= kernel_shape:
        want = signal.convolve2d(image, kernel, "valid")
        assert_allclose(convolve(image, kernel, "valid", **options), want, **close)


@pytest.mark.parametrize("engine", ["direct", "separable"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
def test_whole_numbers_stay_exact(engine, dtype, rng):
    image, kernel = pair(rng, (40, 50), (5, 4), engine)
    image = np.abs(image).astype(dtype)
    want = signal.convolve2d(image.astype(np.int64), kernel.astype(np.int64), fillvalue=255)
    found = convolve(image, kernel, fill_value=255, method=engine)
    assert_array_equal(found, want)
    channels = np.stack([image, image[::-1]], -1)
    found = convolve(channels, kernel, fill_value=255, method=engine, channel_axis=-1)
    assert_array_equal(found[..., 0], want)


def test_nothing_cancels_beside_a_large_fill(rng):
    """Less the fill and more of it again, small pixels would lose all their digits."""
    image, kernel = rng.random((30, 30)) * 1e-12, rng.random((3, 3))
    found = convolve(image, kernel, "same", fill_value=1e6, method="direct")
    want = ndimage.convolve(image, kernel)[1:-1, 1:-1]
    assert_allclose(found[1:-1, 1:-1], want, rtol=1e-13)


@pytest.mark.parametrize("given", ["u1", "f4", "f8", ">f8", "i8"])
@pytest.mark.parametrize("engine", ENGINES)
def test_dtype_is_that_of_sums_and_output(given, engine, rng):
    image, kernel = pair(rng, (40, 50), (5, 4), engine)
    image = np.abs(image).astype(given)
    want = signal.convolve2d(image.astype(float), kernel)
    for dtype, rtol in (("float32", 1e-6), (np.float64, 1e-14), (np.dtype("f4"), 1e-6)):
        found = convolve(image, kernel, method=engine, dtype=dtype)
        assert found.dtype == np.dtype(dtype)
        assert_allclose(found, want, rtol=0, atol=rtol * np.abs(want).max())
        out = np.empty(want.shape, dtype)
        assert convolve(image, kernel, method=engine, dtype=dtype, out=out) is out
        assert_array_equal(out, found)
    assert correlate(image, kernel, dtype="float32").dtype == np.float32


def test_a_pixel_beyond_float32_is_named_by_transforms():
    image = np.ones((64, 64))
    image[5, 6] = 1e300
    with pytest.raises(ValueError, match=r"image in float32 must be finite, got inf at .*\(5, 6\)"):
        convolve(image, np.ones((5, 5)), method="fft", dtype="float32")


IMAGE, KERNEL = np.ones((4, 5)), np.ones((3, 3))
REFUSED = {
    "another border": (
        {"boundary": "mirror", "fill_value": 1},
        ValueError,
        r"fill_value goes with boundary='zero', .* got 1 with 'mirror'; leave it out",
    ),
    "no number": ({"fill_value": "1"}, TypeError, r"fill_value must be a number, got '1'"),
    "NaN": ({"fill_value": np.nan}, ValueError, r"fill_value must be finite, got nan"),
    "too large": (
        {"fill_value": 1e300, "dtype": "float32"},
        ValueError,
        r"fill_value must be finite in float32, got 1e\+300; use dtype='float64'",
    ),
    "whole numbers": ({"dtype": int}, TypeError, r"dtype must be float32 or float64, got <class"),
    "other bytes": ({"dtype": ">f4"}, TypeError, r"dtype must be float32 or float64, got '>f4'"),
    "no dtype": ({"dtype": "real"}, TypeError, r"dtype must be .* got 'real'"),
    "out of another": (
        {"dtype": "float32", "out": np.empty((6, 7))},
        TypeError,
        r"out must have dtype float32, got float64",
    ),
}


@pytest.mark.parametrize("call", [convolve, correlate])
@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case, call):
    options, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        call(IMAGE, KERNEL, **options)


def test_no_fill_goes_with_every_border():
    for rule in ("circular", "mirror", "nearest"):
        convolve(IMAGE, KERNEL, "same", rule, fill_value=0.0)
