"""What restoration demands of its arguments."""

import math
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike

from fastkernel._images.checks import (
    as_boundary,
    as_image,
    as_output_dtype,
    float_dtype,
    refuse_non_finite,
)
from fastkernel._machine.tiles import split
from fastkernel._typing import AnyArray, FloatArray, Shape


def as_psf(
    value: Any, image_shape: Shape, name: str = "psf", whole: str = "the image"
) -> FloatArray:
    """Return a PSF as finite float64 taps that are no larger than the image and not all 0."""
    given = as_image(value, name)
    taps = np.array(given, np.float64, order="C")
    power = float(np.vdot(taps, taps))  # cheaper than to look at every tap
    if not math.isfinite(power):
        refuse_non_finite(name, given)
    if given.shape[0] > image_shape[0] or given.shape[1] > image_shape[1]:
        msg = (
            f"{name} must not be larger than {whole}, got shape {given.shape} for "
            f"{image_shape}; crop it about its centre tap"
        )
        raise ValueError(msg)
    if power == 0 and not taps.any():
        msg = f"{name} must not be zero everywhere; it blurs every image to nothing"
        raise ValueError(msg)
    return taps


def refuse_zero_sum(psf: FloatArray, name: str = "psf") -> None:
    """Raise if the image's edges cannot turn into its blur."""
    if abs(psf.sum()) <= 1e-12 * np.abs(psf).sum():
        msg = (
            f"{name} must not sum to 0 with boundary='edge_taper', which blurs the edges by it; "
            "use 'symmetric' or 'unknown'"
        )
        raise ValueError(msg)


def refuse_negative_taps(psf: FloatArray, name: str = "psf") -> None:
    """Raise for the first negative tap."""
    bad = np.argwhere(psf < 0)
    if len(bad):
        i, j = map(int, bad[0])
        msg = (
            f"{name} must not be negative in Richardson-Lucy, got {psf[i, j]} at index {(i, j)}; "
            "clip it, or use wiener"
        )
        raise ValueError(msg)


def as_psfs(value: Any, image_shape: Shape, channel_axis: int | None, n: int) -> list[FloatArray]:
    """Return the PSF of every channel: one for all, or a stack with an axis of channels."""
    stack = np.asanyarray(value)
    if channel_axis is None or stack.ndim != 3:
        return [as_psf(value, image_shape) for _ in range(n)]
    channels = np.moveaxis(as_image(value, "psf", 3), channel_axis, 0)
    if len(channels) != n:
        msg = (
            f"psf must have as many channels as image, or be of shape (p, q) for all of them; "
            f"got {len(channels)} and {n}"
        )
        raise ValueError(msg)
    return [as_psf(taps, image_shape, f"psf of channel {i}") for i, taps in enumerate(channels)]


def as_weights(
    value: Any, image_shape: Shape, channel_axis: int | None, n: int
) -> list[AnyArray | None]:
    """Return the weights of every channel, finite and not negative."""
    if value is None:
        return [None] * n
    stacked = np.ndim(value) == 3 and channel_axis is not None
    given = as_image(value, "weights", 3 if stacked else 2)
    planes = list(np.moveaxis(given, cast(int, channel_axis), 0)) if stacked else [given] * n
    if len(planes) != n or planes[0].shape != image_shape:
        msg = (
            f"weights must have the shape of the image or of each of its channels, {image_shape}, "
            f"got {given.shape}"
        )
        raise ValueError(msg)
    for plane in planes:
        refuse_non_finite("weights", plane)
        if (plane < 0).any():
            msg = f"weights must not be negative, got {plane.min()}; use 0 for a bad pixel"
            raise ValueError(msg)
        if not plane.any():
            msg = "weights must be above 0 somewhere; no pixel is left"
            raise ValueError(msg)
    return list(planes)


def refuse_negative_pixels(
    image: AnyArray, weights: AnyArray | None, origin: Shape = (0, 0)
) -> None:
    """Raise for the first pixel that counts and is negative or not finite.

    ``origin`` is added to its index.
    """
    for top, bottom in split(image.shape[0], 256):
        strip = image[top:bottom, :]
        fine = (strip >= 0) & (strip < np.inf)
        if weights is not None:
            fine |= weights[top:bottom, :] == 0
        if not fine.all():
            row, col = map(int, np.argwhere(~fine)[0])
            msg = (
                f"image must be finite and not negative in Richardson-Lucy, got {strip[row, col]} "
                f"at index {(row + top + origin[0], col + origin[1])}; clip it, add its "
                "background back, or give the pixel weight 0"
            )
            raise ValueError(msg)


def computed_in(image: AnyArray, dtype: DTypeLike | None, origin: Shape | None = None) -> AnyArray:
    """Return an image that is restored in a dtype; itself for None.

    ``origin`` is added to the index of a pixel that overflows.
    """
    asked = as_output_dtype(dtype, image)
    if asked == float_dtype(image):
        return image
    with np.errstate(over="ignore"):
        found = image.astype(asked)
    lost = np.argwhere(np.isinf(found) & np.isfinite(image))
    if len(lost):
        place = tuple(map(int, lost[0]))
        at = place if origin is None else (place[0] + origin[0], place[1] + origin[1])
        msg = (
            f"image must be finite in {asked}, got {image[place]} at index {at}; use "
            "dtype='float64'"
        )
        raise ValueError(msg)
    return found


def as_border(value: Any, further: tuple[str, ...]) -> str:
    """Return the name of a border rule, or of one of some ``further`` treatments."""
    if value in further:
        return str(value)
    try:
        return as_boundary(value)
    except ValueError as error:
        more = ", ".join(map(repr, further))
        raise ValueError(f"{error}; or one of {more}" if more else str(error)) from None


def as_range(value: Any, name: str) -> tuple[float, float]:
    """Return ``value`` as ``(low, high)``; None on a side leaves it open."""
    try:
        low, high = value
        low = -math.inf if low is None else float(low)
        high = math.inf if high is None else float(high)
    except (TypeError, ValueError):
        low, high = 0.0, -1.0
    if not low < high:
        msg = f"{name} must be (low, high) with low < high, None where open, got {value!r}"
        raise ValueError(msg)
    return low, high
