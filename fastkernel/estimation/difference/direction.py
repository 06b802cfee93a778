r"""Which of two images is sharper, and how wide the kernel is that makes it like the other.

The autocorrelation of what stands in an image has twice the squared width of its point spread
function. White noise adds to it at lag 0 alone. With a Gaussian core,

.. math:: A(d) \propto \exp\left(-\frac{d^2}{4 \sigma^2}\right), \qquad
          \sigma^2 = \frac{3}{4 \ln(A(1) / A(2))},

and the kernel between two images of the same scene has the difference of their squared widths.
"""

import math
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from fastkernel._typing import BoolArray, FloatArray
from fastkernel.estimation.difference.exposures import Exposure, places_of

# Which image is convolved.
Convolved: TypeAlias = Literal["reference", "science"]

# A place counts where its autocorrelation stands out from noise by this many standard deviations.
_STANDS_OUT = 10.0

# Width that is told where none can be measured.
_UNKNOWN = 1.0


class Widths(NamedTuple):
    """How wide what stands in two images is.

    Attributes
    ----------
    science, reference : float
        Standard deviation of the core of the point spread function, with what is resolved, in
        pixels; NaN where nothing stands out.
    difference : float
        Of their squares, in squared pixels; the median over places of the images.
    """

    science: float
    reference: float
    difference: float

    @property
    def sharper(self) -> Convolved:
        """The image to convolve: the reference unless the science image is sharper."""
        return "science" if self.difference < 0 else "reference"

    def kernel_width(self) -> float:
        """Return the standard deviation of the kernel that makes the one like the other."""
        if math.isnan(self.difference):
            return _UNKNOWN
        return math.sqrt(abs(self.difference))


def widths_of(science: Exposure, reference: Exposure) -> Widths:
    """Measure the widths of two images, at the same places and pixels."""
    bad = science.bad | reference.bad
    found = np.array([_squares(one.pixels, bad) for one in (science, reference)])
    both = np.isfinite(found).all(axis=0)
    if not both.any():
        return Widths(math.nan, math.nan, math.nan)
    found = found[:, both]
    middle = np.sqrt(np.median(found, axis=1))
    return Widths(float(middle[0]), float(middle[1]), float(np.median(found[0] - found[1])))


def _squares(pixels: FloatArray, bad: BoolArray) -> FloatArray:
    """Return the squared width in every place of an image, NaN where nothing stands out."""
    rows, cols = (places_of(n) for n in pixels.shape)
    out = []
    for top, bottom in rows:
        for left, right in cols:
            inside = slice(top, bottom), slice(left, right)
            out.append(_square(pixels[inside], bad[inside]))
    return np.array(out)


def _square(pixels: FloatArray, bad: BoolArray) -> float:
    good = ~bad
    if np.count_nonzero(good) < pixels.size / 2 or min(pixels.shape) < 3:
        return math.nan
    level = float(np.median(pixels[good]))
    light = np.where(bad, 0.0, pixels - level)
    near, far = (
        float(np.sum(light[d:] * light[:-d]) + np.sum(light[:, d:] * light[:, :-d])) for d in (1, 2)
    )
    # The products of white noise have the squared variance as their own.
    spread = (1.4826 * float(np.median(np.abs(light[good])))) ** 2 * math.sqrt(2 * light.size)
    if not (far > _STANDS_OUT * spread and near > far):
        return math.nan
    return 3 / (4 * math.log(near / far))
