"""Crops of images, against convolutions that are written out."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fastkernel._images.crops import (
    crop_of,
    fit_crop,
    fitted_to,
    largest_shape,
    lost,
    middle_of,
    move_crop,
    moved,
    told_shape,
)
from fastkernel._images.usable import Observed
from tests import naive

RNG = np.random.default_rng(4)
SOURCE = RNG.normal(size=(24, 27))


def padded(kernel, shape):
    """The same kernel in a larger one, its centre tap where that of the larger is."""
    out = np.zeros(shape)
    top, left = ((n - 1) // 2 - (k - 1) // 2 for n, k in zip(shape, kernel.shape, strict=True))
    out[top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel
    return out


def cropped_kernel(kernel, shape):
    top, left = ((k - 1) // 2 - (n - 1) // 2 for n, k in zip(shape, kernel.shape, strict=True))
    return kernel[top : top + shape[0], left : left + shape[1]]


@pytest.mark.parametrize("shape", [(3, 3), (4, 5), (5, 4), (2, 6)])
@pytest.mark.parametrize("other", [(1, 1), (3, 3), (4, 4), (6, 7), (7, 2)])
@pytest.mark.parametrize("mode", ["valid", "full"])
def test_a_crop_is_a_pair_of_another_size(shape, other, mode):
    inner = tuple(min(a, b) for a, b in zip(shape, other, strict=True))
    kernel = padded(RNG.normal(size=inner), shape)
    images = Observed(SOURCE, naive.convolve(SOURCE, kernel, mode))
    found = fitted_to(images, other)
    same = found.source.shape == found.result.shape
    wanted = cropped_kernel(padded(kernel, (9, 9)), other)
    expected = naive.convolve(found.source, wanted, "same" if same else mode)
    if mode == "full" and any(a > b for a, b in zip(other, shape, strict=True)):
        assert same
    else:
        assert same == (other == (1, 1))
    assert_allclose(found.result, expected, atol=1e-12)


def test_a_crop_is_a_view_and_a_same_pair_stays():
    images = Observed(SOURCE, naive.convolve(SOURCE, np.ones((3, 3))))
    found = fitted_to(images, (2, 2))
    assert found.source.base is SOURCE
    same = Observed(SOURCE, SOURCE)
    assert fitted_to(same, (5, 5)) is same
    assert fit_crop((9, 9), (9, 9), (5, 5)).of(same).source.shape == (9, 9)


def test_what_is_known_of_pixels_is_cropped_with_them():
    marks = np.arange(24 * 27).reshape(24, 27)
    images = Observed(marks, marks, marks > 0, marks > 1, marks * 2, marks * 3)
    found = moved(images, (2, -3))
    assert_allclose(found.result[:, :], marks[2:, :-3])
    assert_allclose(found.source[:, :], marks[:-2, 3:])
    assert_allclose(found.weights, 2 * found.result)
    assert_allclose(found.source_variance, 3 * found.source)
    assert (found.source_bad == (found.source > 0)).all()
    assert (found.result_bad == (found.result > 1)).all()


@pytest.mark.parametrize("mode", ["valid", "same", "full"])
@pytest.mark.parametrize("offset", [(0, 0), (2, -3), (-4, 1)])
def test_what_a_moved_result_has_in_common_with_its_source(mode, offset):
    kernel = RNG.normal(size=(4, 3))
    still = naive.convolve(SOURCE, kernel, mode)
    images = Observed(SOURCE, np.roll(still, offset, (0, 1)))
    found = moved(images, offset)
    inside = fitted_to(found, kernel.shape)
    if inside.source.shape == inside.result.shape:
        expected = naive.inside(inside.result, kernel.shape)
    else:
        expected = inside.result
    if mode == "full" and offset == (0, 0):
        assert found is images
    else:
        assert_allclose(expected, naive.convolve(inside.source, kernel), atol=1e-12)


@pytest.mark.parametrize("result_shape", [(20, 24), (24, 27), (27, 29)])
@pytest.mark.parametrize("offset", [(0, 0), (3, -2)])
@pytest.mark.parametrize("kernel_shape", [None, (2, 3)])
def test_crops_tell_where_pixels_stood(result_shape, offset, kernel_shape):
    numbers = np.arange(np.prod(result_shape)).reshape(result_shape)
    images = moved(Observed(SOURCE, numbers), offset)
    if kernel_shape is not None:
        images = fitted_to(images, kernel_shape)
    crop = crop_of(SOURCE.shape, result_shape, offset, kernel_shape)
    assert images.result[0, 0] == numbers[crop.origin]
    found = crop.of(Observed(SOURCE, numbers))
    assert np.array_equal(found.result, images.result)
    assert np.array_equal(found.source, images.source)


def test_shapes_that_no_kernel_leaves():
    with pytest.raises(ValueError, match=r"along both axes, got \(10, 6\)"):
        lost((8, 8), (10, 6))
    with pytest.raises(ValueError, match=r"offset must be smaller than the images, got \(9, 0\)"):
        move_crop((9, 9), (9, 9), (9, 0))


def test_what_shapes_tell():
    def pair(*shape):
        return Observed(np.zeros((60, 80)), np.zeros(shape))

    assert told_shape(pair(60, 80)) is None
    assert told_shape(pair(56, 77)) == (5, 4)
    assert told_shape(pair(62, 80)) == (3, 1)
    assert largest_shape([pair(60, 80)], 15) == (15, 15)
    assert largest_shape([pair(56, 77)], 15) == (5, 4)
    assert largest_shape([pair(60, 80), pair(56, 77)], 15) == (5, 4)
    # A result that was cropped by 40 rows is no picture of a kernel of 41.
    assert largest_shape([pair(20, 40)], 15) == (7, 13)


def test_the_middle():
    images = Observed(SOURCE, SOURCE)
    assert np.array_equal(middle_of(images, 4).source, SOURCE[10:14, 11:15])
    assert middle_of(images, 25).source.shape == (24, 25)
