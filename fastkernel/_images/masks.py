"""Masks that come with an image: where one is set, the image is not taken without it."""

from typing import Any

import numpy as np

from fastkernel._typing import AnyArray, BoolArray

ADVICE = "crop to pixels that are good"


def masked_pixels(value: Any) -> int:
    """Return at how many pixels of an array-like a mask is set.

    Parameters
    ----------
    value : object
        Anything: NumPy's masked arrays, what holds its mask as an attribute (astropy's Masked,
        NDData and CCDData), and lists of them. A method named ``mask`` (pandas) is no mask, and
        a single flag beside pixels that are read by slices (netCDF4) only says whether these
        will come masked.

    Examples
    --------
    >>> masked_pixels([np.ma.masked_less([1, 2, 3], 3), np.zeros(3)])
    2
    """
    if isinstance(value, list | tuple):
        return sum(map(masked_pixels, value))
    mask = getattr(value, "mask", None)
    if mask is None or callable(mask):
        return 0
    mask = np.asarray(mask)
    if mask.dtype.names is not None:  # one flag a field
        mask = np.frombuffer(mask.tobytes(), np.bool_)
    single = mask.ndim == 0 and not isinstance(value, np.ndarray)
    if mask.dtype.kind not in "biufO" or (single and hasattr(value, "__getitem__")):
        return 0
    return int(np.count_nonzero(mask))


def parted(value: Any) -> tuple[Any, BoolArray | None]:
    """Return the pixels of an array-like that carries a set mask, and the mask; None without.

    Parameters
    ----------
    value : object
        Anything, as for `masked_pixels`. What holds its pixels as ``unmasked`` or ``data`` beside
        a mask of their shape, or of one that NumPy stretches to it, is taken apart.
    """
    if isinstance(value, list | tuple):
        return value, None
    if not masked_pixels(value):
        # What is no array, as NDData, is none without a mask either.
        holds = hasattr(value, "mask") and hasattr(value, "data")
        return value.data if holds and not hasattr(value, "__array__") else value, None
    if isinstance(value, np.ma.MaskedArray):
        return np.ma.getdata(value), np.ma.getmaskarray(value)
    pixels = getattr(value, "unmasked", getattr(value, "data", None))
    mask = np.asarray(value.mask)
    if pixels is None or isinstance(pixels, memoryview) or mask.dtype.kind not in "biu":
        return value, None  # refused like any mask that would be lost
    try:
        return pixels, np.broadcast_to(mask != 0, np.shape(pixels))
    except ValueError:
        msg = f"an image's mask must have its shape {np.shape(pixels)}, got {mask.shape}"
        raise ValueError(msg) from None


def refuse_masked(value: Any, name: str, advice: str = ADVICE) -> None:
    """Raise for an array-like that carries a set mask, which its pixels alone would lose."""
    count = masked_pixels(value)
    if count:
        msg = (
            f"{name} must not be masked, got a mask that is set at {count} pixels and would be "
            f"lost here; {advice}"
        )
        raise TypeError(msg)


def unmasked(value: Any, name: str, advice: str = ADVICE) -> AnyArray:
    """Return ``value`` as an array; TypeError if it carries a set mask, or turns into one's."""
    refuse_masked(value, name, advice)
    array = np.asanyarray(value)
    # What makes an array of itself (dask, CCDData) may make a masked one.
    refuse_masked(array, name, advice)
    return np.asarray(array)
