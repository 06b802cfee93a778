"""The answer to a match of two images: their difference, and all that is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from fastkernel._typing import BoolArray, FloatArray, Shape
from fastkernel.estimation.difference.direction import Convolved
from fastkernel.estimation.fields.kernel_field import KernelField
from fastkernel.estimation.polynomial import polynomial_image
from fastkernel.estimation.quality import Belief


class MatchFlag(IntFlag):
    """What is said of a pixel of a difference; 0 of one that is good.

    Attributes
    ----------
    SCIENCE, REFERENCE
        A pixel of that image that is masked or not finite has a part in it: the difference is NaN.
    SATURATED
        A saturated pixel of either image has a part in it: the difference is NaN.
    BORDER
        So near to the border that the kernel reaches beyond it: the difference is NaN.
    CLIPPED
        The difference sticks out of its noise: a source that changed, a cosmic ray, or light that
        the kernel does not match. No kernel was fitted to such pixels.
    NEIGHBOUR
        Decorrelation mixed it with pixels that have no difference, which were taken to be 0: its
        noise is not white there, and a source near to it may have lost light.
    """

    SCIENCE = 1
    REFERENCE = 2
    SATURATED = 4
    BORDER = 8
    CLIPPED = 16
    NEIGHBOUR = 32


MISSING = MatchFlag.SCIENCE | MatchFlag.REFERENCE | MatchFlag.SATURATED | MatchFlag.BORDER


@dataclass(frozen=True, slots=True)
class MatchQuality:
    """How far to believe a difference, and the numbers behind it.

    Attributes
    ----------
    belief : {"believe it", "believe it with care", "do not believe it"}
        The verdict.
    reasons : tuple of str
        What it rests on, the weightiest first.
    score_std : float
        Standard deviation of the difference over its noise where there is no light, robustly; 1
        where the variances are right.
    score_rms_on_light : float
        Root mean square of the difference over its noise near light, of pixels that are not
        clipped; above ``score_std`` where the kernel does not match. NaN without light.
    correlation : float
        Of the scores of neighbours where there is no light; 0 for white noise.
    missing, clipped : float
        Shares of pixels that have no difference, and whose difference sticks out.
    n_pixels : int
        Pixels that the kernel was fitted to.
    science_width, reference_width : float
        Standard deviation of what stands in the images, in pixels; NaN where it is not known.
    """

    belief: Belief
    reasons: tuple[str, ...]
    score_std: float
    score_rms_on_light: float
    correlation: float
    missing: float
    clipped: float
    n_pixels: int
    science_width: float
    reference_width: float

    def __str__(self) -> str:
        return f"{self.belief}: {'; '.join(self.reasons)}"


@dataclass(frozen=True, eq=False, repr=False)
class ImageMatch:
    """The difference of two images of one scene, one of them matched to the other.

    Attributes
    ----------
    difference : (m, n) float64 array
        Science less reference, in units of the science image whichever was convolved. NaN where
        a bad pixel of either has a part in it, and along the border.
    variance : (m, n) float64 array
        Of the noise of every pixel of ``difference``, in squared units; NaN where that is.
    field : KernelField
        The kernel of every place and the background: ``field.predict`` of the image that was
        convolved is what is taken from the other, before decorrelation.
    flags : (m, n) uint8 array
        Sums of `MatchFlag`; 0 where nothing is to be said.
    used : (m, n) bool array
        Which pixels the kernel was fitted to.
    direction : {"reference", "science"}
        Which image was convolved.
    decorrelated : bool
        Whether the noise of ``difference`` was made white.
    quality : MatchQuality
        How far to believe it.
    """

    difference: FloatArray
    variance: FloatArray
    field: KernelField
    flags: NDArray[np.uint8]
    used: BoolArray
    direction: Convolved
    decorrelated: bool
    quality: MatchQuality

    @property
    def scores(self) -> FloatArray:
        """The difference over the standard deviation of its noise, (m, n)."""
        return self.difference / np.sqrt(self.variance)

    @property
    def background(self) -> FloatArray:
        """What was fitted beside the matched image, (m, n), in units of the other image."""
        return background_of(self.field)

    def __repr__(self) -> str:
        (m, n), (p, q), quality = self.difference.shape, self.field.kernel_shape, self.quality
        scale = float(self.field.scale_at(*((k - 1) / 2 for k in self.field.shape)))
        white = "decorrelated" if self.decorrelated else "not decorrelated"
        return "\n  ".join(
            [
                f"ImageMatch of {m}×{n} pixels, the {self.direction} convolved, {white}",
                f"kernels {p}×{q} of degree {self.field.degree}, sum of the taps {scale:.6g}",
                f"scores: {quality.score_std:.3f} on sky, {quality.score_rms_on_light:.3f} on "
                "light",
                f"missing: {quality.missing:.2%}, clipped: {quality.clipped:.3%} of the pixels",
                str(quality),
            ]
        )


def background_of(field: KernelField) -> FloatArray:
    """Return the background of a field at every pixel of the result."""
    if field.background is None:
        return np.zeros(field.shape)
    return background_image(field.background, field.shape, field.kernel_shape)


def background_image(level: FloatArray, shape: Shape, kernel_shape: Shape) -> FloatArray:
    """Return a background at every pixel, whose polynomials belong to those off the border."""
    (m, n), (p, q) = shape, kernel_shape
    return polynomial_image(level, (m - p + 1, n - q + 1), (-(p // 2), -(q // 2)), shape)
