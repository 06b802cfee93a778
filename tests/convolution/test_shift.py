"""Circular shifts equal NumPy's, for every dtype, layout and shift."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fastkernel.convolution import shift as module
from fastkernel.convolution.shift import circshift, fftshift, ifftshift

DTYPES = [*"?bBhHiIlLqQefdgFDGOSU", ">f4", ">u2", "M8[s]", "i2,f4"]


def images(rng, shape, dtype="f8"):
    return rng.integers(0, 100, shape).astype(np.dtype(dtype) if dtype not in "SU" else f"{dtype}3")


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(module, "THREADED_BYTES", 0)
    monkeypatch.setattr(module, "PART_BYTES", 100)


@given(
    shape=hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=6),
    shift=st.tuples(st.integers(-20, 20), st.integers(-20, 20)),
    backwards=st.booleans(),
)
def test_equals_roll(shape, shift, backwards):
    image = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    image = image[..., ::-1] if backwards else image
    got = circshift(image, shift)
    assert got.dtype == image.dtype
    assert got.flags.c_contiguous
    assert_array_equal(got, np.roll(image, shift, (-2, -1)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype, rng):
    image = images(rng, (2, 5, 7), dtype)
    got = circshift(image, (2, -3))
    assert got.dtype == image.dtype
    assert_array_equal(got, np.roll(image, (2, -3), (1, 2)))


@pytest.mark.parametrize("shift", [(0, 0), (10**30, -(10**30)), (-1, 0), (np.int8(3), np.uint8(4))])
def test_any_size_of_shift(shift, rng):
    image = images(rng, (4, 6))
    want = np.roll(image, tuple(int(s) % n for s, n in zip(shift, (4, 6), strict=True)), (0, 1))
    assert_array_equal(circshift(image, shift), want)
    assert_array_equal(circshift(image.tolist(), shift), want)


@pytest.mark.parametrize("workers", [1, 2, 3, None])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (13, 9), (3, 5, 11), (2, 1, 3, 4)])
def test_workers_change_nothing(shape, workers, rng, small_parts):
    image = images(rng, shape, "f4")
    image.flags.writeable = False
    for shift in ((0, 0), (1, 2), (-2, 1), (shape[-2] // 2, shape[-1] // 2)):
        want = np.roll(image, shift, (-2, -1))
        assert_array_equal(circshift(image, shift, workers=workers), want)


@pytest.mark.jit
def test_large_images_are_cut_into_parts(rng):
    image = rng.random((1200, 1100), np.float32)
    assert image.nbytes > module.THREADED_BYTES
    for shift in ((600, 550), (-1, 3), (7, 0)):
        assert_array_equal(circshift(image, shift), np.roll(image, shift, (0, 1)))


def test_layouts_of_image_and_out(rng):
    wide = images(rng, (12, 14), "i4")
    for image in (wide, wide[::2, ::2], wide.T, wide[::-1], np.asfortranarray(wide)):
        want = np.roll(image, (3, -2), (0, 1))
        big = np.zeros((2 * image.shape[0], 3 * image.shape[1]), "i4")
        for out in (np.empty(image.shape, "i4"), big[::2, ::3], np.empty(image.shape, "i4", "F")):
            assert circshift(image, (3, -2), out=out) is out
            assert_array_equal(out, want)
        assert np.count_nonzero(big) <= np.count_nonzero(want)


def test_arrays_that_share_a_buffer_and_no_element(rng):
    wide = images(rng, (6, 8))
    want = np.roll(wide[:, ::2], (1, 1), (0, 1))
    assert_array_equal(circshift(wide[:, ::2], (1, 1), out=wide[:, 1::2]), want)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 2, 2)])
def test_nothing_to_shift(shape):
    assert circshift(np.zeros(shape), (1, 1)).shape == shape


@pytest.mark.parametrize("shape", [(4, 4), (5, 5), (1, 6), (2, 3, 4), (3, 4, 5)])
def test_fftshift_and_its_inverse(shape, rng):
    image = images(rng, shape, "D")
    out = np.empty_like(image)
    assert_array_equal(fftshift(image), np.fft.fftshift(image, (-2, -1)))
    assert_array_equal(ifftshift(image), np.fft.ifftshift(image, (-2, -1)))
    assert fftshift(image, out=out) is out
    assert_array_equal(ifftshift(out), image)
    assert_array_equal(ifftshift(image, out=out), ifftshift(image))


IMAGE = np.zeros((4, 5))
FROZEN = np.zeros((4, 5))
FROZEN.flags.writeable = False

CASES = {
    "one integer": (
        {"shift": 3},
        ValueError,
        r"shift must be two integers \(rows, cols\), got 3; say \(3, 0\) or \(0, 3\)",
    ),
    "three integers": ({"shift": (1, 2, 3)}, ValueError, r"shift must be .* got \(1, 2, 3\)"),
    "fractions": ({"shift": (1.5, 2)}, ValueError, r"shift must be two integers .* \(1\.5, 2\)"),
    "truth": ({"shift": (True, 2)}, ValueError, r"shift must be two integers .* \(True, 2\)"),
    "one line": (
        {"image": np.zeros(4)},
        ValueError,
        r"image must have at least 2 dimensions, .* got shape \(4,\); .* image\[None\]",
    ),
    "masked": (
        {"image": np.ma.masked_less(IMAGE, 1)},
        TypeError,
        r"image must not be masked, .* shift \.data and \.mask apart",
    ),
    "out of another shape": (
        {"out": np.zeros((5, 4))},
        ValueError,
        r"out must have shape \(4, 5\), got \(5, 4\)",
    ),
    "out of another dtype": (
        {"out": np.zeros((4, 5), np.float32)},
        TypeError,
        r"out must have dtype float64, got float32",
    ),
    "out is a list": ({"out": [[0.0]]}, TypeError, r"out must be a NumPy array, got list"),
    "out is read-only": ({"out": FROZEN}, ValueError, r"out must be writeable, got a read-only"),
    "out is the image": ({"out": IMAGE}, ValueError, r"out must not overlap image"),
    "out is the image turned": ({"out": IMAGE[::-1]}, ValueError, r"out must not overlap"),
    "no workers": ({"workers": 0}, ValueError, r"workers must be a positive integer"),
}


@pytest.mark.parametrize("case", CASES)
def test_refusals(case):
    changes, error, message = CASES[case]
    arguments = {"image": IMAGE, "shift": (1, 1), **changes}
    with pytest.raises(error, match=message):
        circshift(arguments.pop("image"), arguments.pop("shift"), **arguments)


@given(data=st.data(), shape=hnp.array_shapes(min_dims=1, max_dims=4, max_side=5))
def test_axes_are_those_of_numpy(data, shape):
    image = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    axis = st.integers(-len(shape), len(shape) - 1)
    axes = data.draw(axis | st.lists(axis, max_size=4).map(tuple))
    assert_array_equal(fftshift(image, axes), np.fft.fftshift(image, axes))
    assert_array_equal(ifftshift(image, axes=axes), np.fft.ifftshift(image, axes))
    count = len(axes) if isinstance(axes, tuple) else 1
    shift = data.draw(st.lists(st.integers(-9, 9), min_size=count, max_size=count).map(tuple))
    assert_array_equal(circshift(image, shift, axis=axes), np.roll(image, shift, axes))
    assert_array_equal(circshift(image, -3, axis=axes), np.roll(image, -3, axes))


@pytest.mark.parametrize("dtype", ["f8", "f4", "u2", "i8", "c16", "M8[s]", "i2,f4"])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_byte_orders_of_image_and_out(dtype, layout, rng):
    native = images(rng, (5, 7), dtype)
    orders = [np.dtype(dtype).newbyteorder(sign) for sign in "<>"]
    for order_of_image in orders:
        image = np.asarray(native.astype(order_of_image), order=layout)
        for order in orders:
            out = np.empty((5, 7), order)
            assert circshift(image, (2, -3), out=out) is out
            assert_array_equal(out.astype(native.dtype), np.roll(native, (2, -3), (0, 1)))
            fftshift(image, out=out)
            assert_array_equal(out.astype(native.dtype), np.fft.fftshift(native))


@pytest.mark.parametrize("axis", [2, -3, "rows", 1.0, True, (0, 2), None])
def test_axes_that_there_are_not(axis):
    with pytest.raises(ValueError, match=r"axes must be axes of an array of 2 dimensions, got"):
        fftshift(IMAGE, [axis])
    with pytest.raises(ValueError, match=r"axis must be axes of an array of 2 dimensions, got"):
        circshift(IMAGE, 1, axis=(axis,))


def test_a_shift_for_each_axis():
    with pytest.raises(
        ValueError, match=r"shift must be an integer for each axis that is named, got \(1, 2\)"
    ):
        circshift(IMAGE, (1, 2), axis=0)
    with pytest.raises(ValueError, match=r"image must have at least 1 dimension, got shape \(\)"):
        circshift(3.0, 1, axis=())
