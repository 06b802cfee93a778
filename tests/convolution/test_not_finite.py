"""Pixels that are not finite spoil what the kernel reaches from them, whatever is fastest."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastkernel import convolve, correlate


@pytest.mark.jit
@pytest.mark.parametrize("boundary", ["zero", "circular", "mirror"])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("function", [convolve, correlate])
def test_it_is_that_of_direct_sums(function, mode, boundary, rng):
    image = rng.random((110, 120))
    image[50, 60], image[0, 3], image[70, 80], image[75, 82] = np.nan, np.inf, -np.inf, np.inf
    kernel = rng.normal(size=(35, 33))
    kernel[3, 4] = 0
    with np.errstate(invalid="ignore"):
        want = function(image, kernel, mode, boundary, method="direct")
    got = function(image, kernel, mode, boundary)
    assert_allclose(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [3, 9, 41])
def test_one_nan_spoils_as_many_outputs_as_there_are_taps(size, rng):
    image = rng.random((200, 240))
    image[100, 60] = np.nan
    found = np.isnan(convolve(image, rng.random((size, size)), "same", "mirror"))
    half = size // 2
    want = np.zeros(image.shape, bool)
    want[100 - half : 101 + half, 60 - half : 61 + half] = True
    assert_array_equal(found, want)
