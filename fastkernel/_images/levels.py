"""Levels of sRGB, and the light that they stand for."""

import numpy as np

from fastkernel._images.pairs import in_memory
from fastkernel._images.usable import Observed
from fastkernel._typing import AnyArray


def white_of(image: AnyArray) -> float | None:
    """Return the level that stands for white; None where levels cannot be those of sRGB.

    It is the largest that unsigned integers of 8 or 16 bits hold, and 1 of numbers from 0 to 1.
    """
    if image.dtype in (np.uint8, np.uint16):
        return float(np.iinfo(image.dtype).max)
    if image.dtype.kind == "f":
        pixels = in_memory(image)
        if pixels.size and pixels.min() >= 0 and pixels.max() <= 1:
            return 1.0
    return None


def decode(levels: AnyArray, white: float) -> AnyArray:
    """Return linear light from 0 to 1 of sRGB levels.

    Parameters
    ----------
    levels : array
        Unsigned integers up to ``white``, or numbers from 0 to 1.
    white : float
        The level of white.

    Returns
    -------
    array
        Float32 of integers, else of the dtype of ``levels``.

    References
    ----------
    IEC 61966-2-1:1999, "Default RGB colour space - sRGB".
    """
    if levels.dtype.kind in "iu":
        table = _light_of(np.linspace(0.0, 1.0, int(white) + 1)).astype(np.float32)
        return np.asarray(table[levels])
    return _light_of(levels / white).astype(levels.dtype, copy=False)


def _light_of(stored: AnyArray) -> AnyArray:
    dark = stored <= 0.04045
    bright = np.maximum((stored + 0.055) / 1.055, 0.0) ** 2.4
    return np.where(dark, stored / 12.92, bright)


def encode(light: AnyArray, white: float) -> AnyArray:
    """Return the levels of light from 0 to 1, the inverse of `decode` but for rounding."""
    light = np.clip(light, 0, 1)
    dark = light <= 0.0031308
    return np.asarray(white * np.where(dark, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055))


def linear(image: AnyArray, name: str) -> tuple[AnyArray, float]:
    """Return an image in linear light, and the level that stood for white; as `linear_white`."""
    white = linear_white(image, name)
    return decode(in_memory(image), white), white


def linear_white(image: AnyArray, name: str) -> float:
    """Return the level that stands for white in an image that is to be decoded.

    Raises
    ------
    ValueError
        If it does not hold sRGB levels.
    """
    white = white_of(image)
    if white is None:
        msg = (
            f"light='srgb' needs a {name} of sRGB levels: uint8, uint16, or floats from 0 to 1; "
            f"got dtype {image.dtype}; scale it, or decode both images first"
        )
        raise ValueError(msg)
    return white


def decoded(images: Observed) -> Observed:
    """Return a pair of images in linear light.

    Raises
    ------
    ValueError
        If an image does not hold sRGB levels, or the variance of the source is given: it is that
        of levels.
    """
    if images.source_variance is not None:
        msg = (
            "source_variance goes with light='stored': it is that of stored levels; decode both "
            "images first and give the variance of what they then hold"
        )
        raise ValueError(msg)
    source, result = linear(images.source, "source")[0], linear(images.result, "result")[0]
    return images._replace(source=source, result=result)
