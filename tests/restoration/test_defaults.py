"""What restorations leave by default is never farther from the truth than what they were given."""

import io

import numpy as np
import pytest
import skimage.data
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy import signal

from fastkernel import inverse_filter, psf, richardson_lucy, wiener
from fastkernel.restoration.noise import stored_variance

pytestmark = pytest.mark.jit  # hundreds of iterations over pictures

BLURS = {"gaussian": psf.gaussian(9, 1.5), "disk": psf.disk(3.0), "motion": psf.motion(11, 30)}


def jpeg(image, quality):
    file = io.BytesIO()
    whole = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    Image.fromarray(whole).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).astype(float)


NOISES = {
    "8 bits": lambda image, rng: np.rint(image),
    "gaussian 0.5": lambda image, rng: image + rng.normal(0, 1.3, image.shape),
    "gaussian 5": lambda image, rng: np.clip(image + rng.normal(0, 12.8, image.shape), 0, None),
    "poisson": lambda image, rng: rng.poisson(1.6 * image) / 1.6,
    "jpeg 90": lambda image, rng: jpeg(image, 90),
    "jpeg 75": lambda image, rng: jpeg(image, 75),
    "jpeg 75 in parts of 1": lambda image, rng: jpeg(image, 75) / 255 * 200,
}


def error(found, truth):
    return float(np.sqrt(np.square(found - truth).mean()))


def pair(photo, taps, noise, rng):
    scene = getattr(skimage.data, photo)().astype(float)[60:230, 100:270]
    (p, q), (m, n) = taps.shape, scene.shape
    sharp = scene[p // 2 : m - p // 2, q // 2 : n - q // 2]
    blurred = np.clip(signal.convolve2d(scene, taps, "valid"), 0, None)
    return sharp, np.clip(NOISES[noise](blurred, rng), 0, None)


@pytest.mark.parametrize("photo", ["camera", "coins"])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("blur", BLURS)
def test_the_default_is_nearer_to_the_truth(blur, noise, photo, rng):
    taps = BLURS[blur]
    sharp, image = pair(photo, taps, noise, rng)
    if "parts" in noise:
        sharp = sharp / 255 * 200
    before = error(image, sharp)
    assert error(richardson_lucy(image, taps), sharp) < before
    assert error(wiener(image, taps), sharp) < before


def test_a_blur_without_noise_is_sharpened_in_full(rng):
    scene = skimage.data.camera().astype(float)[60:230, 100:270]
    taps = BLURS["gaussian"]
    image = signal.convolve2d(scene, taps, "valid")
    done = []
    found = richardson_lucy(image, taps, callback=lambda *counts: done.append(counts))
    if len(done) < 50:
        assert error(found, richardson_lucy(image, taps, noise=None)) < 1
    else:
        assert_array_equal(found, richardson_lucy(image, taps, noise=None))


def test_the_noise_of_bad_pixels_is_not_that_of_the_image(rng):
    sharp, image = pair("camera", BLURS["disk"], "gaussian 0.5", rng)
    weights = (rng.random(image.shape) > 0.01).astype(float)
    spoilt = np.where(weights > 0, image, np.nan)
    found = richardson_lucy(spoilt, BLURS["disk"], weights=weights)
    whole = richardson_lucy(image, BLURS["disk"])
    assert error(found, sharp) < 1.2 * error(whole, sharp)


@pytest.mark.parametrize("step", [1.0, 1 / 255, 0.37])
def test_rounding_is_noise_of_a_twelfth_of_a_step(step, rng):
    image = np.rint(rng.normal(100, 20, (60, 70))) * step
    assert_allclose(stored_variance(image), step**2 / 12, rtol=1e-6)
    assert stored_variance(image + 1e-3 * step * rng.random(image.shape)) < step**2 / 1000


def test_blocks_show_and_their_absence_too(rng):
    smooth = 100 + 50 * np.sin(np.add.outer(np.arange(128), np.arange(160)) / 9)
    blocks = np.kron(rng.normal(0, 2, (16, 20)), np.ones((8, 8)))
    assert stored_variance(smooth) == 0
    for cut in (0, 3):
        # Jumps between independent blocks have twice their variance, on each axis.
        found = stored_variance((smooth + blocks)[cut:, cut:])
        assert 0.4 * 2**2 < found < 2 * 2 * 2**2


@pytest.mark.parametrize("restore", [richardson_lucy, wiener, lambda x, h: inverse_filter(x, h, 0)])
def test_a_psf_of_any_sum_divides_the_answer_by_it(restore, rng):
    image = rng.random((40, 44)) + 1
    taps = np.array([[0, 1, 0], [1, 6, 1], [0, 1, 0]]) / 10
    want = restore(image, taps)
    for factor in (0.25, 8.0):
        assert_allclose(restore(image, taps * factor) * factor, want, rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "powers"), [(np.float32, (-90, 56, 100)), (float, (-900, -400, -190, 190, 400, 900))]
)
def test_a_change_of_units_changes_nothing(dtype, powers, rng):
    _, image = pair("camera", BLURS["disk"], "gaussian 0.5", rng)
    image = (image / 200).astype(dtype)
    for power in powers:
        unit = dtype(2.0**power)
        for restore in (wiener, lambda x, h: wiener(x, h, 0.01), richardson_lucy):
            want = restore(image, BLURS["disk"])
            assert_allclose(restore(image * unit, BLURS["disk"]) / unit, want, rtol=1e-4, atol=1e-4)


def test_big_endian_images_keep_their_precision(rng):
    image = (rng.random((50, 52)) + 1).astype(np.float32)
    for restore in (wiener, richardson_lucy, inverse_filter):
        want = restore(image, BLURS["disk"])
        got = restore(image.astype(">f4"), BLURS["disk"])
        assert got.dtype == np.float32
        assert_array_equal(got, want)


def test_the_border_is_not_guessed_where_a_guess_would_ring(rng):
    _, image = pair("camera", BLURS["motion"], "8 bits", rng)
    found = wiener(image, BLURS["motion"])
    assert_array_equal(found, wiener(image, BLURS["motion"], boundary="unknown"))
    _, image = pair("camera", BLURS["disk"], "gaussian 5", rng)
    found = wiener(image, BLURS["disk"])
    assert_array_equal(found, wiener(image, BLURS["disk"], boundary="symmetric"))
