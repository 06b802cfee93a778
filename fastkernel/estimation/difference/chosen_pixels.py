"""Which pixels a kernel that matches two images is fitted to: those near light that fit."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter

from fastkernel._images.pairs import spread
from fastkernel._typing import BoolArray, FloatArray, Shape
from fastkernel.estimation.difference.exposures import Exposure, local_sky

# Light is told from sky by this many standard deviations of a pixel, and so far around it what
# a kernel does to it is seen, in pixels.
_LIGHT, _AROUND = 5.0, 3

# A pixel sticks out by this many standard deviations; those beside it by these.
_OUT, _BESIDE = 5.0, 3.0

# Error of a kernel that is not held against a pixel, as a share of the light matched to it.
_KERNEL_ERROR = 0.03

# Steps around what sticks out that are left out of a fit too.
MARGIN = 2

# Width of the smoothing of a first choice, in pixels; it halves the peak of a star of that width.
_SMOOTHING = 1.5


def first_choice(images: Sequence[tuple[Exposure, float]]) -> BoolArray:
    """Return pixels near what stands out in both images, before anything was matched.

    Parameters
    ----------
    images : sequence of (Exposure, float)
        Images, each with the standard deviation of its sky.
    """
    lit = np.ones(images[0][0].pixels.shape, np.bool_)
    for exposure, noise in images:
        smooth = gaussian_filter(exposure.pixels, _SMOOTHING) - local_sky(exposure)
        lit &= smooth > _LIGHT / 2 * noise
    return around(lit, _AROUND)


def near_light(light: FloatArray, variance: FloatArray) -> BoolArray:
    """Return pixels near light that stands out of the noise of a difference."""
    return around(light > _LIGHT * np.sqrt(variance), _AROUND)


def sticking_out(residual: FloatArray, light: FloatArray, variance: FloatArray) -> BoolArray:
    """Return pixels whose residual is neither noise nor the error of a kernel, NaN not among them.

    Parameters
    ----------
    residual, light, variance : (m, n) float64 arrays
        What a fit leaves, the light that it matched, and the variance of what it leaves.
    """
    squares = residual**2 / (variance + (_KERNEL_ERROR * np.maximum(light, 0.0)) ** 2)
    out = squares > _OUT**2
    return np.asarray(out | (around(out, 1) & (squares > _BESIDE**2)))


def reached(bad: BoolArray, kernel_shape: Shape) -> BoolArray:
    """Return which results have a bad pixel of the source among those that they are made of."""
    (p, q), used = kernel_shape, np.ones(bad.shape, np.bool_)
    spread(bad, (-(p // 2), -(q // 2)), "zero", kernel_shape, used)
    return ~used


def around(pixels: BoolArray, steps: int) -> BoolArray:
    """Return pixels and their neighbours, so many steps along rows and columns."""
    return np.asarray(binary_dilation(pixels, iterations=steps)) if pixels.any() else pixels
