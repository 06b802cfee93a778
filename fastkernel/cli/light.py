"""Stored grey levels, and the light they stand for.

GIMP since 2.10 and most cameras convolve in linear light, while the file holds sRGB levels. A fit
of the stored levels is then wrong by tens of percent and nothing says so, hence both are tried.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastkernel._typing import AnyArray, Shape
from fastkernel.cli.errors import InputError
from fastkernel.cli.files import Picture
from fastkernel.errors import SingularFitError
from fastkernel.estimation.equations.background import background_image
from fastkernel.estimation.quality import Facts, Plane, facts_of
from fastkernel.estimation.unknowns.light import CLEARLY_LESS
from fastkernel.estimation.unknowns.light import decode as decode_levels
from fastkernel.estimation.unknowns.light import encode as encode

if TYPE_CHECKING:
    from fastkernel import KernelFit

STORED = "stored values"
LINEAR = "linear (sRGB decoded)"
_LIGHTS = {"auto": (STORED, LINEAR), "none": (STORED,), "srgb": (LINEAR,)}

_STRIP_ROWS = 256


@dataclass(frozen=True)
class LightFit:
    """A fit, the light it was made in, and what it leaves unexplained.

    Attributes
    ----------
    fit : KernelFit
        The kernel, between values of the chosen light.
    light : str
        `STORED` or `LINEAR`.
    facts : Facts
        Of the residual in stored values of the result. Where these are grey levels, the prediction
        is clipped to those that the file can hold, and compared where no border rule matters.
    other_rms : float or None
        Residual of the light that was not chosen, None where it was not tried.
    """

    fit: "KernelFit"
    light: str
    facts: Facts
    other_rms: float | None = None

    @property
    def residual_rms(self) -> float:
        """Root mean square of the residual, in stored values; robust for a robust method."""
        return self.facts.rms


def fit_light(
    source: Picture, result: Picture, size: Shape, transfer: str, **tuning: Any
) -> LightFit:
    """Fit the kernel in stored values, in linear light, or in the better of both.

    Parameters
    ----------
    source, result : Picture
        The images.
    size : (int, int)
        Rows and columns of the kernel.
    transfer : {"auto", "none", "srgb"}
        Both lights, stored values, or linear light.
    **tuning
        Passed to `fastkernel.estimate_kernel`.

    Returns
    -------
    LightFit
        The fit with the smaller residual.

    Raises
    ------
    InputError
        If linear light is asked for and the files do not hold sRGB levels.
    SingularFitError
        If the images do not determine the kernel.
    """
    if not {source.bits, result.bits} <= {8, 16}:
        if transfer == "srgb":
            msg = "--transfer srgb needs 8 or 16 bit files; decode others first"
            raise InputError(msg)
        return _fit_levels(source, result, size, STORED, tuning)
    fits: list[LightFit] = []
    for light in _LIGHTS[transfer]:
        try:
            fits.append(_fit_levels(source, result, size, light, tuning))
        except SingularFitError:
            if not fits:
                raise
    if len(fits) == 1:
        return fits[0]
    stored, linear = fits
    if linear.residual_rms < CLEARLY_LESS * stored.residual_rms:
        return replace(linear, other_rms=stored.residual_rms)
    return replace(stored, other_rms=linear.residual_rms)


def _fit_levels(
    source: Picture, result: Picture, size: Shape, light: str, tuning: dict[str, Any]
) -> LightFit:
    before, after = (decode(p) if light == LINEAR else p.pixels for p in (source, result))
    fit = _estimate(before, after, size, tuning)
    planes = _planes(fit, before, result, light)
    # One bit has no levels but black and white.
    limits = (0.0, float(_white(result))) if result.bits in {8, 16} else None
    return LightFit(fit, light, facts_of(planes, limits=limits, robust=fit.method == "lad"))


def _planes(fit: "KernelFit", before: AnyArray, result: Picture, light: str) -> Iterator[Plane]:
    """Yield what is compared where no border rule matters, some rows of a channel at a time."""
    from fastkernel import convolve

    size = fit.kernel.shape
    shapes = list(zip(before.shape, result.pixels.shape, size, strict=False))
    # Where the pixels begin that no border rule touches, in a result of any of the three sizes.
    top, left = ((n - m + k) // 2 for m, n, k in shapes)
    rows, cols = (m - k + 1 for m, _, k in shapes)
    stored = np.atleast_3d(result.pixels)[top : top + rows, left : left + cols]
    before = np.atleast_3d(before)
    # The centre tap, counted in a flipped kernel from its other side.
    i, j = (k - 1 - (k - 1) // 2 for k in size)
    for channel in range(stored.shape[2]):
        beside = _background(fit, channel, (rows, cols))
        for row in range(0, rows, _STRIP_ROWS):
            strip = stored[row : row + _STRIP_ROWS, :, channel]
            window = before[row : row + len(strip) + size[0] - 1, :, channel]
            predicted = convolve(window.astype(np.float64), fit.kernel, "valid")
            predicted += beside[row : row + len(strip)]
            if light == LINEAR:
                predicted = encode(predicted, _white(result))
            if result.bits is not None:
                predicted = np.clip(predicted, 0, _white(result))
            centre = window[i : i + len(strip), j : j + cols]
            if light == LINEAR:
                centre = encode(centre, _white(result))
            yield Plane(strip - predicted, centre, strip)


def _background(fit: "KernelFit", channel: int, shape: Shape) -> AnyArray:
    """Return the level or polynomial beside a channel's convolution, over the compared pixels."""
    if fit.background is None:
        return np.zeros((shape[0], 1))
    levels = np.asarray(fit.background)
    # One of a single channel has no axis of channels.
    own = levels[channel] if levels.ndim in {1, 3} else levels
    return background_image(own, shape)


def _estimate(
    source: AnyArray, result: AnyArray, size: Shape, tuning: dict[str, Any]
) -> "KernelFit":
    from fastkernel import estimate_kernel

    channel_axis = -1 if source.ndim == 3 else None
    return estimate_kernel(source, result, size, channel_axis=channel_axis, **tuning)


def _white(picture: Picture) -> int:
    return (1 << (picture.bits or 0)) - 1


def decode(picture: Picture) -> AnyArray:
    """Return linear light from 0 to 1."""
    return decode_levels(picture.pixels, _white(picture))
