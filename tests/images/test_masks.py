"""An image that carries a set mask is never taken without it, whoever made it.

Fits of kernels use the masks that they can take apart. All else is refused.
"""

import numpy as np
import pytest
from shared import Dataset

from fastkernel import (
    SingularFitError,
    circshift,
    convolution_matrix,
    convolution_operator,
    convolve,
    correlate,
    design_matrix,
    estimate_kernel,
    fftshift,
    inverse_filter,
    inverse_kernel,
    normal_equations,
    restore_tiled,
    richardson_lucy,
    wiener,
)
from fastkernel._images.masks import masked_pixels

IMAGE = np.random.default_rng(0).random((12, 13))
RESULT = np.random.default_rng(1).random((12, 13))
BAD = np.zeros(IMAGE.shape, bool)
BAD[3, 4] = BAD[7, 1] = True
KERNEL = np.full((3, 3), 1 / 9)


class Data:
    """As NDData: no array, but it holds one, and a mask."""

    def __init__(self, mask):
        self.data, self.mask = IMAGE, mask


class Array(Data):
    """As CCDData: turns into an array, and is read by slices."""

    shape, dtype, ndim = IMAGE.shape, IMAGE.dtype, 2

    def __array__(self, dtype=None, copy=None):
        return IMAGE if self.mask is None else np.ma.array(IMAGE, mask=self.mask)

    def __getitem__(self, key):
        return Array.__array__(self)[key]


class Subclass(np.ndarray):
    """As Masked: an array with a mask that NumPy does not know."""

    mask = None


def subclass(mask):
    found = IMAGE.view(Subclass)
    found.mask = mask
    return found


class Variable(Dataset):
    """As a variable of netCDF4: ``mask`` says whether slices come masked, these carry it."""

    mask = True

    def __init__(self, bad):
        super().__init__(IMAGE)
        self.bad = bad

    def __getitem__(self, key):
        return np.ma.array(IMAGE[key], mask=self.bad[key])

    def __array__(self, dtype=None, copy=None):
        return self[:, :]


class Computed:
    """As an array of dask: no mask is seen before it is turned into an array."""

    def __array__(self, dtype=None, copy=None):
        return np.ma.array(IMAGE, mask=BAD)


MASKED = {
    "masked array": np.ma.array(IMAGE, mask=BAD),
    "all of it": np.ma.array(IMAGE, mask=True),
    "NDData": Data(BAD),
    "NDData, flags": Data(BAD * 4),
    "NDData, list": Data(BAD.tolist()),
    "CCDData": Array(BAD),
    "Masked": subclass(BAD),
    "netCDF4": Variable(BAD),
    "dask": Computed(),
    "list of masked rows": list(np.ma.array(IMAGE, mask=BAD)),
}


class Frame:
    """As a data frame of pandas: ``mask`` is a method."""

    def __array__(self, dtype=None, copy=None):
        return IMAGE

    def mask(self, condition):
        raise NotImplementedError


FREE = {
    "no mask": np.ma.array(IMAGE),
    "no pixel masked": np.ma.array(IMAGE, mask=np.zeros_like(BAD)),
    "CCDData": Array(None),
    "CCDData, no pixel masked": Array(np.zeros_like(BAD)),
    "Masked": subclass(np.zeros_like(BAD)),
    "netCDF4": Variable(np.zeros_like(BAD)),
    "pandas": Frame(),
    "list": list(np.ma.array(IMAGE)),
}

CALLS = {
    "convolve": lambda x: convolve(x, KERNEL),
    "correlate": lambda x: correlate(x, KERNEL),
    "design_matrix": lambda x: design_matrix(x, 3),
    "circshift": lambda x: circshift(x, (1, 1)),
    "fftshift": lambda x: fftshift(x, axes=0),
    "wiener": lambda x: wiener(x, KERNEL, 0.1, boundary="circular"),
    "inverse_filter": lambda x: inverse_filter(x, KERNEL),
    "richardson_lucy": lambda x: richardson_lucy(x, KERNEL, 2),
    "restore_tiled": lambda x: restore_tiled(richardson_lucy, x, KERNEL, num_iter=2),
}


def fit_with_another(x, y, **rules):
    """As a sequence, whose second pair is good."""
    both = {name: [rule, None] for name, rule in rules.items()}
    return estimate_kernel([x, IMAGE], [y, IMAGE], 3, **both).kernel


FITS = {
    "lstsq": lambda x, y, **rules: estimate_kernel(x, y, 3, **rules).kernel,
    "lad": lambda x, y, **rules: estimate_kernel(x, y, 3, method="lad", **rules).kernel,
    "richardson_lucy": lambda x, y, **rules: (
        estimate_kernel(x, y, 3, method="richardson_lucy", num_iter=3, **rules).kernel
    ),
    "sequence": fit_with_another,
    "normal_equations": lambda x, y, **rules: normal_equations(x, y, 3, **rules).gram,
}
# What holds pixels and a mask of their shape, apart from each other.
TAKEN_APART = ["masked array", "NDData", "NDData, flags", "NDData, list", "CCDData"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", MASKED)
def test_refused_in_one_image(kind, call):
    with pytest.raises(TypeError, match=r"image must not be masked, got a mask that is set at"):
        CALLS[call](MASKED[kind])


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", FREE)
def test_taken_where_no_pixel_is_masked(kind, call):
    np.testing.assert_array_equal(CALLS[call](FREE[kind]), CALLS[call](IMAGE))


@pytest.mark.parametrize("call", FITS)
@pytest.mark.parametrize("kind", TAKEN_APART)
def test_used_in_a_pair(kind, call):
    free = FITS[call](IMAGE, RESULT)
    for got, want in (
        (FITS[call](MASKED[kind], RESULT), FITS[call](IMAGE, RESULT, source_mask=BAD)),
        (FITS[call](RESULT, MASKED[kind]), FITS[call](RESULT, IMAGE, mask=BAD)),
    ):
        np.testing.assert_array_equal(got, want)
        assert not np.array_equal(got, free)


@pytest.mark.parametrize("call", FITS)
@pytest.mark.parametrize("mask", [None, np.zeros_like(BAD)], ids=["no mask", "no pixel masked"])
def test_what_is_no_array_is_read_whether_masked_or_not(mask, call):
    free = FITS[call](IMAGE, RESULT)
    np.testing.assert_array_equal(FITS[call](Data(mask), RESULT), free)
    np.testing.assert_array_equal(FITS[call](Array(mask), RESULT), free)


def test_all_of_an_image_masked():
    whole = MASKED["all of it"]
    for x, y in ((whole, RESULT), (IMAGE, whole)):
        for method in ("lstsq", "lad", "richardson_lucy"):
            with pytest.raises(SingularFitError, match=r"0 pixels .* masked are left out"):
                estimate_kernel(x, y, 3, method=method)
        assert normal_equations(x, y, 3).n_pixels == 0
        np.testing.assert_array_equal(
            fit_with_another(x, y), estimate_kernel(IMAGE, IMAGE, 3).kernel
        )


@pytest.mark.parametrize("call", FITS)
@pytest.mark.parametrize("kind", sorted({*MASKED} - {*TAKEN_APART, "all of it"}))
def test_refused_in_a_pair_where_it_cannot_be_taken_apart(kind, call):
    advice = r" must not be masked, got a mask .* lost here; crop to pixels that are good"
    with pytest.raises(TypeError, match=r"source(\[0\])?" + advice):
        FITS[call](MASKED[kind], IMAGE)
    with pytest.raises(TypeError, match=r"result(\[0\])?" + advice):
        FITS[call](IMAGE, MASKED[kind])


@pytest.mark.parametrize("kind", MASKED)
def test_refused_by_the_method_that_leaves_no_pixel_out(kind):
    for name, pair in (("source", (MASKED[kind], IMAGE)), ("result", (IMAGE, MASKED[kind]))):
        with pytest.raises((TypeError, ValueError), match=rf"{name} must not be masked") as caught:
            estimate_kernel(*pair, 3, method="fft", epsilon=1.0)
        assert "crop to pixels that are good" in str(caught.value)


@pytest.mark.parametrize("kind", MASKED)
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x: convolve(IMAGE, x), "kernel"),
        (lambda x: convolution_matrix(x, (12, 13)), "kernel"),
        (lambda x: convolution_operator(x, (12, 13)), "kernel"),
        (lambda x: inverse_kernel(x, 3), "kernel"),
        (lambda x: wiener(IMAGE, x, 0.1), "psf"),
        (lambda x: richardson_lucy(IMAGE, KERNEL, 2, weights=x), "weights"),
        (lambda x: estimate_kernel(IMAGE, IMAGE, 3).predict(x), "source"),
        (lambda x: estimate_kernel(IMAGE, IMAGE, 3).residual(IMAGE, x), "result"),
    ],
)
def test_refused_in_every_other_argument(call, name, kind):
    with pytest.raises(TypeError, match=rf"{name} must not be masked"):
        call(MASKED[kind])


def test_vectors_of_an_operator():
    operator = convolution_operator(KERNEL, (3, 4), "same")
    vector = np.ma.masked_less(np.arange(12.0), 3)
    for call in (operator.dot, operator.matvec, operator.rmatvec, lambda x: operator @ x):
        with pytest.raises(TypeError, match=r"vector must not be masked, .* 3 pixels"):
            call(vector)


def test_an_output_is_no_place_for_a_mask():
    with pytest.raises(TypeError, match=r"out must not be masked, .* pass a plain array"):
        circshift(IMAGE, (1, 1), out=MASKED["masked array"].copy())


def test_structured_masks():
    pixels = np.ma.array([[(1, 2.0)], [(3, 4.0)]], "i2,f4", mask=[[(False, True)], [(False,) * 2]])
    assert masked_pixels(pixels) == 1
    with pytest.raises(TypeError, match=r"image must not be masked"):
        circshift(pixels, (1, 0))


def test_no_advice_puts_numbers_in_place_of_pixels():
    hurt = np.where(BAD, np.nan, IMAGE)
    for call in (
        lambda: estimate_kernel(hurt, IMAGE, 3),
        lambda: estimate_kernel(MASKED["dask"], IMAGE, 3),
        lambda: estimate_kernel(MASKED["masked array"], IMAGE, 3, method="fft"),
        lambda: wiener(hurt, KERNEL, 0.1),
        lambda: convolve(hurt, KERNEL, method="fft"),
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        assert "crop" in str(caught.value) or "leaves such pixels out" in str(caught.value)
        assert not {"fill", "filled", "replace"} & set(str(caught.value).replace("(", " ").split())
