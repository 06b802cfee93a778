"""Stored grey levels, and the light they stand for.

GIMP since 2.10 and most cameras convolve in linear light, while the file holds sRGB levels. A fit
of the stored levels is then wrong by tens of percent and nothing says so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastkernel._images.crops import fitted_to, middle_of
from fastkernel._images.levels import decoded, encode, white_of
from fastkernel._images.pairs import in_memory, pair_of
from fastkernel._images.usable import Observed
from fastkernel._machine.run import Run
from fastkernel._typing import Light, Shape
from fastkernel.convolution.convolve import convolved
from fastkernel.estimation.equations.background import background_image, background_of
from fastkernel.estimation.equations.formed import gathered
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.unknowns.clipping import without_clipped

# Linear light must explain the result this much better: where both explain it alike, as with a
# kernel of a single tap, the plain reading is kept.
CLEARLY_LESS = 0.98

# Of the background beside stored levels: what a gain and a level make of them looks like light.
_DEGREE = 2

# Side of the part of the images by which the light is told.
_SIDE = 512


@dataclass(frozen=True, slots=True)
class LightFound:
    """In which light a result was made.

    Attributes
    ----------
    light : {"stored", "srgb"}
        As the levels stand, or linear, decoded from sRGB.
    stored_rms, linear_rms : float
        What a kernel leaves in either, root mean square in stored units of the result; NaN where
        it was not tried.
    """

    light: Light
    stored_rms: float = math.nan
    linear_rms: float = math.nan

    @property
    def ratio(self) -> float:
        """How many times as much the other light leaves; NaN where it was not tried."""
        own, other = self.stored_rms, self.linear_rms
        if self.light == "srgb":
            own, other = other, own
        return math.inf if own == 0 else other / own

    @property
    def sure(self) -> bool:
        """Whether the other light leaves clearly more."""
        return self.ratio >= 1 / CLEARLY_LESS


def find_light(images: Sequence[Observed], kernel_shape: Shape, run: Run) -> LightFound:
    """Find whether a convolution was made of levels or of the light that they stand for.

    Parameters
    ----------
    images : sequence of Observed
        Pairs that were made alike, not moved.
    kernel_shape : (int, int)
        At least as large as the kernel.
    run : Run
        How.

    Returns
    -------
    LightFound
        "stored" unless linear light explains the middle of the results clearly better.
    """
    readable = all(
        white_of(image) is not None and pair.source_variance is None
        for pair in images
        for image in (pair.source, pair.result)
    )
    if not readable:
        return LightFound("stored")
    parts = []
    for pair in images:
        part = middle_of(fitted_to(pair, (1, 1)), max(_SIDE, 4 * max(kernel_shape)))
        parts.append(without_clipped(part) or part)
    stored = _left(parts, parts, kernel_shape, _DEGREE, run)
    linear = _left(parts, [decoded(part) for part in parts], kernel_shape, None, run)
    light: Light = "srgb" if linear < CLEARLY_LESS * stored else "stored"
    return LightFound(light, stored, linear)


def _left(
    stored: Sequence[Observed],
    read: Sequence[Observed],
    kernel_shape: Shape,
    degree: int | None,
    run: Run,
) -> float:
    """Return what a kernel and a background leave, in stored units, of images in some light."""
    pairs = [pair_of(part, kernel_shape, None) for part in read]
    try:
        sums = gathered(pairs, kernel_shape, degree, run.silent)
        kernel = sums.equations(kernel_shape).solve().kernel
    except SingularFitError:
        return math.inf
    energy, count = 0.0, 0
    for i, (images, pair) in enumerate(zip(stored, pairs, strict=True)):
        (top, left), (rows, cols) = pair.window.result_origin, pair.window.shape
        predicted = convolved(pair.source, kernel, pair.window, run.workers)
        if sums.backgrounds:
            background = background_of(sums.backgrounds[i], kernel)
            predicted += background_image(background, (rows, cols))
        white = white_of(images.result) or 1.0
        predicted = predicted.clip(0, white) if stored is read else encode(predicted, white)
        residual = in_memory(images.result)[top : top + rows, left : left + cols] - predicted
        if pair.used is not None:
            residual = residual[pair.used]
        energy += float(np.vdot(residual, residual))
        count += residual.size
    return math.sqrt(energy / max(count, 1))
