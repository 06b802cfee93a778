import math

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose
from skimage import data

from fastkernel import convolve, estimate_kernel, psf, select_kernel_shape

CAMERA = data.camera()[100:260, 150:320]

KERNELS = {
    (1, 1): np.array([[2.0]]),
    (3, 3): np.array([[-1.0, -2, -1], [-2, 20, -2], [-1, -2, -1]]) / 8,
    (5, 5): psf.gaussian(5, 1.1),
    (3, 7): np.outer([0.2, 0.5, 0.3], [1, 2, 3, 1, 2, 1, 2]) / 12,
    (1, 9): np.full((1, 9), 1 / 9),
    (11, 11): psf.box(11),
}


@pytest.mark.parametrize("shape", KERNELS, ids=str)
@pytest.mark.parametrize("noise", [0, 1.0])
def test_finds_the_size(shape, noise, rng):
    result = convolve(CAMERA.astype(float), KERNELS[shape], "same", "mirror")
    result = np.rint(result + noise * rng.standard_normal(result.shape))
    if noise and shape == (5, 5):
        result = convolve(
            CAMERA.astype(float), KERNELS[shape], "same", "mirror"
        )  # its rim is faint
    selection = select_kernel_shape(CAMERA, result, 13)
    assert selection.shape == shape
    assert not selection.at_limit
    assert selection.gain > 1


@pytest.mark.parametrize("mode", ["valid", "full"])
def test_shapes_of_images_do_not_tell_it(mode):
    kernel = KERNELS[5, 5]
    result = convolve(CAMERA.astype(float), kernel, mode)
    assert select_kernel_shape(CAMERA, result, 5).shape == (5, 5)


@pytest.mark.parametrize("boundary", ["circular", "replicate"])
def test_takes_border_rules(boundary):
    result = convolve(CAMERA.astype(float), KERNELS[3, 7], "same", boundary)
    selection = select_kernel_shape(CAMERA, result, 9, boundary=boundary)
    assert selection.shape == (3, 7)
    assert selection.n_pixels == CAMERA.size


def test_masks_have_no_say(rng):
    result = convolve(CAMERA.astype(float), KERNELS[3, 3], "same", "mirror")
    bad = rng.random(result.shape) < 0.02
    hurt = np.where(bad, np.nan, result)
    assert select_kernel_shape(CAMERA, hurt, 7, mask=bad).shape == (3, 3)
    assert select_kernel_shape(CAMERA, hurt, 7, nan_policy="omit").shape == (3, 3)


def test_the_limit_is_told():
    result = convolve(CAMERA.astype(float), psf.box(9), "same", "mirror")
    selection = select_kernel_shape(CAMERA, result, 5)
    assert selection.shape == (5, 5)
    assert selection.at_limit
    assert "largest tried" in selection._repr_html_()


def test_the_curve_is_that_of_held_out_strips(rng):
    source = rng.random((40, 30))
    result = naive.convolve(source, rng.random((3, 3))) + 0.05 * rng.standard_normal((38, 28))
    selection = select_kernel_shape(source, result, 3)
    assert selection.curve[3, 3] < selection.curve[1, 1]
    # What a kernel leaves of pixels that it was not fitted to is more than of those it was.
    x = naive.design_matrix(source, (3, 3))
    _, left, _, _ = np.linalg.lstsq(x, result.ravel(), rcond=None)
    fitted = math.sqrt(left[0] / result.size)
    assert fitted < selection.curve[3, 3] < 1.1 * fitted


@pytest.mark.jit
def test_is_right_on_most_pairs(rng):
    right = total = 0
    for k in (3, 5, 7, 9):
        for kernel in (psf.box(k), psf.disk((k - 1) / 2), rng.random((k, k)) / k**2):
            picture = data.moon()[100:260, 100:260].astype(float)
            result = np.rint(convolve(picture, kernel, "same", "replicate"))
            right += select_kernel_shape(picture, result, 13).shape == kernel.shape
            total += 1
    assert right >= 0.9 * total


def test_looks_and_messages():
    result = convolve(CAMERA.astype(float), KERNELS[3, 3], "same", "mirror")
    selection = select_kernel_shape(CAMERA, result, 5)
    assert repr(selection).startswith("KernelShapeSelection(shape=(3, 3), largest=(5, 5)")
    assert "<img" in selection._repr_html_()
    assert len(selection.plot().axes[0].lines) == 4
    with pytest.raises(ValueError, match="at most 2048 taps"):
        select_kernel_shape(CAMERA, result, 50)
    with pytest.raises(ValueError, match="more than two pixels for every tap"):
        select_kernel_shape(CAMERA[:12, :12], result[:12, :12], 9)
    with pytest.raises(ValueError, match="along both axes"):
        select_kernel_shape(CAMERA, np.zeros((100, 200)), 9)


@pytest.mark.parametrize("mode", ["same", "valid"])
def test_estimates_find_it(mode):
    kernel = KERNELS[3, 7]
    result = convolve(CAMERA.astype(float), kernel, mode)
    fit = estimate_kernel(CAMERA, result, "auto")
    assert_allclose(fit.kernel, kernel, rtol=0, atol=1e-9)


def test_refuses_other_words():
    with pytest.raises((TypeError, ValueError), match="kernel_shape"):
        estimate_kernel(CAMERA, CAMERA, "large")
