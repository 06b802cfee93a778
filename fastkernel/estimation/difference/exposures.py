"""Images of one scene made ready: less their sky, with their bad pixels filled."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import median_filter

from fastkernel._images.checks import as_image
from fastkernel._images.masks import parted
from fastkernel._images.usable import PixelRules, as_mask, as_numbers, observe
from fastkernel._typing import AnyArray, BoolArray, FloatArray, Saturation, Shape

# Side of the places whose medians are the local sky.
_PLACE = 64

_FEWEST_GOOD = 16


class Exposure(NamedTuple):
    """An image made ready.

    Attributes
    ----------
    pixels : (m, n) float64 array
        Less ``sky``; 0 where bad.
    bad : (m, n) bool array
        Masked, not finite or saturated.
    saturated : (m, n) bool array
        At an end of its range.
    sky : float
        The median of the good pixels.
    variance : (m, n) float64 array or None
        Of the pixels' noise as it was told; positive and finite where they are good.
    name : str
        What it is called in messages.
    """

    pixels: FloatArray
    bad: BoolArray
    saturated: BoolArray
    sky: float
    variance: FloatArray | None
    name: str

    def with_sky(self) -> "Exposure":
        """Return the same with its sky left in, and nothing to be added."""
        return self._replace(pixels=self.pixels + self.sky, sky=0.0)


def exposures_of(
    images: tuple[ArrayLike, ArrayLike],
    masks: tuple[ArrayLike | None, ArrayLike | None],
    variances: tuple[ArrayLike | None, ArrayLike | None],
    saturation: Saturation | None,
) -> tuple[Exposure, Exposure]:
    """Return the science image and the reference made ready.

    Raises
    ------
    TypeError, ValueError
        If one of them is no image, they differ in shape, or what is said of them does not fit.
    """
    parts = [parted(image) for image in images]
    science, reference = (
        as_image(pixels, name) for (pixels, _), name in zip(parts, _NAMES, strict=True)
    )
    if science.shape != reference.shape:
        msg = (
            f"science and reference must have one shape, got {science.shape} and "
            f"{reference.shape}; resample the reference onto the science image's pixels first"
        )
        raise ValueError(msg)
    if saturation == "auto":
        for image, name in zip((science, reference), _NAMES, strict=True):
            _refuse_endless(image, name)
    ends = observe(reference, science, (None, None), PixelRules(saturation=saturation), None)[0]
    found = [
        _exposure(image, name, own, mask, variance, full)
        for image, name, (_, own), mask, variance, full in zip(
            (science, reference),
            _NAMES,
            parts,
            masks,
            variances,
            (ends.result_bad, ends.source_bad),
            strict=True,
        )
    ]
    return found[0], found[1]


_NAMES = "science", "reference"


def _refuse_endless(image: AnyArray, name: str) -> None:
    if image.dtype.kind not in "iu":
        msg = (
            f"saturation='auto' needs a {name} of integers, whose range ends, got dtype "
            f"{image.dtype}; pass (low, high)"
        )
        raise ValueError(msg)


def _exposure(
    image: AnyArray,
    name: str,
    own: BoolArray | None,
    mask: ArrayLike | None,
    variance: ArrayLike | None,
    saturated: BoolArray | None,
) -> Exposure:
    full = np.zeros(image.shape, np.bool_) if saturated is None else saturated
    bad = ~np.isfinite(image)
    full &= ~bad
    bad |= full
    if own is not None:
        bad |= own
    if mask is not None:
        _refuse_shape(mask, f"{name}_mask", image.shape)
        bad |= as_mask(mask, f"{name}_mask", image.shape)
    good = ~bad
    if np.count_nonzero(good) < _FEWEST_GOOD:
        msg = (
            f"{name} must have at least {_FEWEST_GOOD} good pixels, got "
            f"{np.count_nonzero(good)} that are finite and neither masked nor saturated"
        )
        raise ValueError(msg)
    sky = float(np.median(image[good].astype(np.float64)))
    pixels = np.where(good, image, sky).astype(np.float64) - sky
    return Exposure(pixels, bad, full, sky, _variance(variance, f"{name}_variance", bad), name)


def _refuse_shape(value: ArrayLike, name: str, shape: tuple[int, ...]) -> None:
    if np.shape(value) != shape:
        msg = f"{name} must have the shape {shape} of science and reference, got {np.shape(value)}"
        raise ValueError(msg)


def _variance(value: ArrayLike | None, name: str, bad: BoolArray) -> FloatArray | None:
    if value is None:
        return None
    if np.ndim(value):
        _refuse_shape(value, name, bad.shape)
    numbers = as_numbers(np.broadcast_to(value, bad.shape), name, bad.shape)
    out = np.array(numbers, np.float64)
    wrong = ~((out > 0) & (out < np.inf))
    lost = wrong & ~bad
    if lost.any():
        place = tuple(int(i) for i in np.argwhere(lost)[0])
        msg = (
            f"{name} must be finite and greater than 0, got {out[place]} at index {place}; mask "
            "such pixels"
        )
        raise ValueError(msg)
    out[wrong] = np.median(out[~wrong])
    return out


def places_of(length: int) -> list[tuple[int, int]]:
    """Return the half-open parts, of nearly one size, that a line of pixels is looked at in."""
    edges = np.linspace(0, length, max(round(length / _PLACE), 1) + 1).astype(int).tolist()
    return list(pairwise(edges))


def local_sky(exposure: Exposure) -> FloatArray:
    """Return the level around every pixel, (m, n), relative to the exposure's sky.

    Medians of places of 64 pixels and of their neighbours, between which it is linear. Good
    enough to tell light from sky, not to be taken off an image.
    """
    rows, cols = (places_of(n) for n in exposure.pixels.shape)
    levels = np.zeros((len(rows), len(cols)))
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(cols):
            inside = slice(top, bottom), slice(left, right)
            pixels = exposure.pixels[inside][~exposure.bad[inside]]
            levels[i, j] = np.median(pixels) if pixels.size else 0.0
    levels = median_filter(levels, 3, mode="nearest")
    return between(levels, exposure.pixels.shape)


def between(levels: FloatArray, shape: Shape) -> FloatArray:
    """Return values at every pixel, (m, n), that are linear between those of places."""
    down, across = (
        _interpolation(n, [(first + last - 1) / 2 for first, last in places_of(n)]) for n in shape
    )
    return np.asarray(down @ levels @ across.T)


def _interpolation(n: int, middles: list[float]) -> FloatArray:
    """Return a matrix, (n, places), by which values at places become values at pixels."""
    units = np.eye(len(middles))
    return np.array([np.interp(np.arange(n), middles, unit) for unit in units]).T
