"""Fits of results that were moved, made in linear light, or of a kernel of unknown size."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastkernel import estimate_kernel
from fastkernel._images.levels import decode, encode
from tests import naive

KERNEL = np.outer([0.25, 0.5, 0.25], [0.1, 0.2, 0.4, 0.2, 0.1])
OFFSET = (9, -6)


@pytest.fixture
def source(rng):
    return rng.integers(10, 250, (70, 64)).astype(np.uint8)


def moved(image, fill=77):
    """An image, moved down and to the left; what comes into the frame is something else."""
    out = np.full(image.shape, fill, image.dtype)
    out[9:, :-6] = image[:-9, 6:]
    return out


def in_light(source):
    return np.rint(encode(naive.filtered(decode(source, 255), KERNEL, "same", "mirror"), 255))


@pytest.mark.parametrize("offset", [OFFSET, "auto"])
@pytest.mark.parametrize("method", ["lstsq", "lad", "richardson_lucy"])
def test_a_moved_result(offset, method, source):
    result = moved(naive.filtered(source, KERNEL, "same", "mirror"))
    fit = estimate_kernel(source, result, (3, 5), offset=offset, method=method)
    assert fit.offset == OFFSET
    assert fit.boundary is None
    assert (fit.found is None) == (offset == OFFSET)
    # Nine rows have gone with the rim of the source, and a rim of the kernel from what is left.
    assert_array_equal(fit.used, np.pad(np.ones((59, 54), bool), ((10, 1), (2, 8))))
    if method != "richardson_lucy":
        assert_allclose(fit.kernel, KERNEL, atol=1e-8)
        left = fit.residual(source, result)
        assert left.shape == (59, 54)
        assert_allclose(left, 0, atol=1e-6)
    moved_by = "moved by 9 rows and -6 columns", "moved down by 9 and to the left by 6"
    assert moved_by[offset == "auto"] in repr(fit)


def test_masks_are_those_of_the_whole_images(source, rng):
    result = moved(naive.filtered(source, KERNEL, "same", "mirror"))
    bad = rng.random(result.shape) < 0.05
    wrong = np.where(bad, 1e6, result)
    fit = estimate_kernel(source, wrong, (3, 5), offset=OFFSET, mask=bad)
    assert_allclose(fit.kernel, KERNEL, atol=1e-8)
    inside = np.pad(np.ones((59, 54), bool), ((10, 1), (2, 8)))
    assert_array_equal(fit.used, inside & ~bad)
    assert fit.judge(source, wrong).belief == fit.quality.belief == "believe it"


def test_a_plane_beside_a_moved_result(source):
    plane = np.add.outer(0.3 * np.arange(70), -0.2 * np.arange(64)) + 5
    result = moved(naive.filtered(source, KERNEL, "same", "mirror")) + plane
    fit = estimate_kernel(source, result, (3, 5), offset=OFFSET, background=1)
    assert_allclose(fit.kernel, KERNEL, atol=1e-8)
    assert_allclose(fit.residual(source, result), 0, atol=1e-6)
    # In the frame of the source, from which the result was moved.
    assert_allclose(fit.predict(source)[:-9, 6:], result[10:-1, 2:-8], atol=1e-6)


@pytest.mark.parametrize("light", ["srgb", "auto"])
def test_linear_light(light, source):
    result = in_light(source).astype(np.uint8)
    fit = estimate_kernel(source, result, (3, 5), light=light, boundary="mirror")
    assert (fit.light, fit.boundary) == ("srgb", "mirror")
    assert_allclose(fit.kernel, KERNEL, atol=5e-3)
    assert fit.residual_rms < 2 / 255
    expected = encode(naive.filtered(decode(source, 255), fit.kernel, "same", "mirror"), 255)
    assert_allclose(fit.predict(source, mode="same", boundary="mirror"), expected, atol=1e-3)
    left = fit.residual(source, result, boundary="mirror")
    assert_allclose(left, result - expected, atol=1e-3)
    assert np.abs(left).max() < 1
    facts = fit.quality.facts
    assert facts.rms == pytest.approx(np.sqrt(np.mean(left**2)), rel=1e-3)
    assert fit.judge(source, result).belief == fit.quality.belief
    assert "linear (sRGB decoded)" in repr(fit)


def test_stored_levels_stay(source):
    result = np.rint(naive.filtered(source, KERNEL, "same", "mirror")).astype(np.uint8)
    fit = estimate_kernel(source, result, (3, 5), light="auto")
    assert fit.light == fit.found.light.light == "stored"
    plain = estimate_kernel(source, result, (3, 5))
    assert_array_equal(fit.kernel, plain.kernel)
    assert (plain.light, plain.offset, plain.boundary, plain.found) == (
        "stored",
        (0, 0),
        None,
        None,
    )


def test_other_white_levels(source):
    wide = (257 * in_light(source)).astype(np.uint16)
    fit = estimate_kernel(source, wide, (3, 5), light="srgb", boundary="mirror")
    assert_allclose(fit.kernel, KERNEL, atol=5e-3)
    assert np.abs(fit.residual(source, wide)).max() < 257
    assert fit.quality.facts.rms < 100
    # Without a result the levels are those of the source.
    assert fit.predict(source).max() <= 255


@pytest.mark.parametrize("mode", ["valid", "full"])
def test_a_smaller_kernel_than_the_shapes_tell(mode, source):
    result = naive.convolve(source, np.pad(KERNEL, 1), mode)
    fit = estimate_kernel(source, result, "auto")
    assert fit.kernel.shape == fit.found.kernel_shape.shape == (3, 5)
    assert_allclose(fit.kernel, KERNEL, atol=1e-8)
    assert_allclose(fit.residual(source, result), 0, atol=1e-6)
    assert fit.used.shape == result.shape
    assert fit.judge(source, result).belief == fit.quality.belief == "believe it"
    assert "smaller ones leave" in repr(fit)


@pytest.mark.jit
def test_a_kernel_too_large_for_equations_keeps_no_account_of_pixels(rng):
    source = rng.integers(0, 256, (150, 140)).astype(np.uint8)
    kernel = np.zeros((65, 64))
    kernel[31:34, 29:34] = KERNEL
    result = naive.filtered(source, KERNEL, "same", "circular")
    fit = estimate_kernel(source, result, (65, 64), boundary="circular", light="auto")
    assert (fit.used, fit.light, fit.boundary) == (None, "stored", "circular")
    assert_allclose(fit.kernel, kernel, atol=1e-6)


@pytest.mark.jit
def test_everything_at_once(source):
    result = moved(np.rint(0.8 * naive.filtered(source, KERNEL, "same", "mirror") + 20))
    fit = estimate_kernel(
        source,
        result.astype(np.uint8),
        "auto",
        boundary="auto",
        background="auto",
        offset="auto",
        light="auto",
    )
    assert (fit.kernel.shape, fit.offset, fit.light) == ((3, 5), OFFSET, "stored")
    assert_allclose(fit.kernel, 0.8 * KERNEL, atol=2e-3)
    assert fit.background == pytest.approx(20, abs=0.5)
    told = fit.found.lines()
    assert told["offset"].startswith("found: the result was moved down by 9 and to the left by 6")
    assert told["beside the convolution"].startswith("a level, found")
    assert all(text in repr(fit) for text in told.values())


def test_channels_are_moved_and_decoded_alike(source):
    before = np.stack([source, source[::-1], source.T[:64, :64].repeat(2, 0)[:70]], axis=-1)
    before = np.ascontiguousarray(before)
    after = np.stack([moved(in_light(before[..., i])) for i in range(3)], axis=-1)
    after = after.astype(np.uint8)
    fit = estimate_kernel(before, after, (3, 5), offset="auto", light="auto", channel_axis=-1)
    assert (fit.offset, fit.light) == (OFFSET, "srgb")
    assert_allclose(fit.kernel, KERNEL, atol=5e-3)
    assert len(fit.used) == 3
    assert fit.judge(before, after, channel_axis=-1).facts.n_pixels == 3 * 59 * 54


def test_refusals(source):
    with pytest.raises(ValueError, match="offset must be None, 'auto' or two integers"):
        estimate_kernel(source, source, 3, offset=1.5)
    with pytest.raises(ValueError, match=r"boundary must be None for offset=\(1, 0\)"):
        estimate_kernel(source, source, 3, offset=(1, 0), boundary="mirror")
    with pytest.raises(ValueError, match="offset must be smaller than the images"):
        estimate_kernel(source, source, 3, offset=(70, 0))
    with pytest.raises(ValueError, match="light must be one of 'stored', 'srgb', 'auto'"):
        estimate_kernel(source, source, 3, light="linear")
    with pytest.raises(ValueError, match="light='srgb' needs a source of sRGB levels"):
        estimate_kernel(source.astype(float), source, 3, light="srgb")
    fit = estimate_kernel(source, in_light(source).astype(np.uint8), (3, 5), light="srgb")
    with pytest.raises(ValueError, match="needs a source of sRGB levels"):
        fit.predict(source.astype(float))
    with pytest.raises(ValueError, match="needs a result of sRGB levels"):
        fit.residual(source, source.astype(float))
