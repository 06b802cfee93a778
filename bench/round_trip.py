"""A photograph blurred and divided again, and what rounding to 8 bits makes of that."""

import math

import numpy as np
from numpy.typing import NDArray

import fastkernel
from fastkernel import psf

EPSILON = 1e-5  # added to the transform of the blur, in blurring as in dividing
RADIUS = 18  # of exp(-r**2 / RADIUS)
LENGTH = 30  # of the motion, in pixels
NUM_ITER, QUICK_NUM_ITER = 50, 3

PHOTOGRAPH, BLURRED, DIVIDED, ROUNDED, WIENER, RICHARDSON_LUCY = STATIONS = [
    "photograph",
    "blurred",
    "blurred, divided",
    "rounded to 8 bits, divided",
    "rounded, Wiener",
    "rounded, Richardson-Lucy",
]


def blurs(shape: tuple[int, int]) -> dict[str, NDArray]:
    """The Gaussian, as large as the picture, and the motion."""
    middle = [(side - 1) // 2 for side in shape]
    return {
        f"Gaussian, radius {RADIUS}": psf.gaussian(shape, math.sqrt(RADIUS / 2), centre=middle),
        f"motion of {LENGTH} pixels": psf.motion(LENGTH),
    }


def pictures(photograph: NDArray, blur: NDArray, num_iter: int) -> dict[str, NDArray]:
    """All stations of one way there and back. Beyond its frame a picture wraps around."""
    taps = blur.copy()
    taps[tuple((side - 1) // 2 for side in taps.shape)] += EPSILON
    blurred = fastkernel.convolve(photograph, taps, "same", "circular")
    rounded = np.clip(np.rint(blurred), 0, 255)
    return {
        PHOTOGRAPH: photograph,
        BLURRED: blurred,
        DIVIDED: fastkernel.inverse_filter(blurred, blur, EPSILON),
        ROUNDED: fastkernel.inverse_filter(rounded, blur, EPSILON),
        WIENER: fastkernel.wiener(rounded, blur, boundary="circular"),
        RICHARDSON_LUCY: fastkernel.richardson_lucy(
            rounded, blur, num_iter, boundary="circular", noise=None
        ),
    }


def errors(stations: dict[str, NDArray]) -> dict[str, float]:
    """Root mean squares over all pixels, in grey levels, of whatever is not the photograph."""
    truth = stations[PHOTOGRAPH]
    return {
        name: float(np.sqrt(np.mean(np.square(picture - truth))))
        for name, picture in stations.items()
        if name != PHOTOGRAPH
    }
