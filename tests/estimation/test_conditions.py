"""Kernels and images are as right as the condition of their equations lets them be."""

import numpy as np
import pytest

from fastkernel import SingularFitError, estimate_kernel, inverse_filter

pytestmark = pytest.mark.jit
EPS = np.finfo(np.float64).eps


def convolved(image, kernel):
    """A periodic convolution, in more digits than float64 has, rounded at the end."""
    wide, (p, q) = image.astype(np.longdouble), kernel.shape
    moves = ((i, j, (i - p // 2, j - q // 2)) for i, j in np.ndindex(p, q))
    return np.asarray(sum(kernel[i, j] * np.roll(wide, by, (0, 1)) for i, j, by in moves), float)


@pytest.mark.parametrize("strength", [0.0, 5.57, 11.14, 11.57, 20.0, 40.0, 60.0])
@pytest.mark.parametrize("seed", range(8))
def test_the_smoother_a_source_the_less_is_known(strength, seed):
    rng, rows, cols = np.random.default_rng(seed), np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)
    spectrum = np.fft.rfft2(rng.normal(size=(64, 64))) * np.exp(-strength * (rows**2 + cols**2))
    source, kernel = np.fft.irfft2(spectrum, (64, 64)), rng.random((5, 5))
    fit = estimate_kernel(source, convolved(source, kernel), 5, boundary="circular")
    error = np.linalg.norm(fit.kernel - kernel) / np.linalg.norm(kernel)
    assert error <= 10 * EPS * np.sqrt(fit.condition_number)


def test_a_source_that_is_too_smooth_is_refused():
    place = 2 * np.pi * np.arange(64) / 64
    source = np.cos(place)[:, None] + np.cos(place)
    with pytest.raises(SingularFitError):
        estimate_kernel(source, source, 5, boundary="circular")


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e5, 1e8, 1e11, 1e14])
def test_a_division_by_what_is_nearly_zero(condition):
    side, image = (1 - 1 / condition) / 4, np.random.default_rng(0).normal(size=(64, 64))
    psf = np.array([[side, 1 - 2 * side, side]])
    found = inverse_filter(convolved(image, psf), psf, 0)
    assert np.linalg.norm(found - image) <= 10 * EPS * condition * np.linalg.norm(image)
