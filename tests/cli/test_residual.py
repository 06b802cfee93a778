"""What a kernel leaves, as an image: pixels that took no part in the fit are no part of it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from fastkernel import estimate_kernel
from fastkernel.cli.picture import Picture
from fastkernel.cli.residual import residual_picture
from fastkernel.cli.scene import dead_leaves, grained

SHARPEN = np.array([[0, -0.3, 0], [-0.3, 2.2, -0.3], [0, -0.3, 0]])


def scene(seed):
    rng = np.random.default_rng(seed)
    return grained(dead_leaves(60, rng), rng)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_residual_is_that_of_the_pixels_that_were_used(channels):
    source = np.stack([scene(seed) for seed in range(channels)], axis=-1)
    exact = np.stack(
        [ndimage.convolve(source[..., i].astype(float), SHARPEN) for i in range(channels)], axis=-1
    )
    result = np.rint(exact).clip(0, 255).astype(np.uint8)
    if channels == 1:
        source, result = source[..., 0], result[..., 0]
    fit = estimate_kernel(source, result, 3, channel_axis=-1 if channels > 1 else None)
    found = residual_picture(Picture(source, 8, False), Picture(result, 8, False), fit)
    inside = np.s_[1:-1, 1:-1]
    before = np.atleast_3d(source).astype(float)
    kept = [ndimage.convolve(before[..., i], fit.kernel) for i in range(channels)]
    predicted = np.stack(kept, axis=-1)
    planes = [np.atleast_3d(image)[inside].astype(float) for image in (result, predicted)]
    sound = (planes[0] > 0) & (planes[0] < 255)
    assert not sound.all()
    left = np.where(sound, planes[0] - planes[1], 0.0).sum(axis=-1)
    count = sound.sum(axis=-1)
    assert_array_equal(np.isnan(found), count == 0)
    assert_allclose(found[count > 0], (left / np.maximum(count, 1))[count > 0], atol=1e-9)


def test_a_fit_of_other_pixels_has_no_picture():
    source = scene(0)
    result = np.roll(source, 9, axis=0)[:50, :50]
    fit = estimate_kernel(source[:40, :40], source[:40, :40], 3)
    pictures = Picture(source, 8, False), Picture(result, 8, False)
    assert residual_picture(*pictures, fit) is None
