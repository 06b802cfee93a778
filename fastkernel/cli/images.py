"""Images that a command makes from an image: the same dtype, the same kind of file or another."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from fastkernel._typing import AnyArray
from fastkernel.cli.errors import OutputError
from fastkernel.cli.files import Picture, pillow
from fastkernel.cli.output import check_target

_SUFFIXES = (".png", ".tif", ".tiff", ".npy")


def check_image_target(name: str, picture: Picture, *, force: bool, inputs: Iterable[str]) -> Path:
    """Check, before any work is done, that an image of the picture's kind can be written.

    Parameters
    ----------
    name : str
        The file to write: ``.png`` for grey levels of 8 bits (16 where there is one channel),
        ``.tif`` and ``.npy`` for any.
    picture : Picture
        What the image is made from.
    force : bool
        Whether the file may exist.
    inputs : iterable of str
        Files that it must not be.

    Returns
    -------
    Path
        Where to write.

    Raises
    ------
    OutputError
        If it cannot be written, or its kind cannot hold the image.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in _SUFFIXES:
        msg = f"{name!r} has none of the suffixes an image is written to: {', '.join(_SUFFIXES)}"
        raise OutputError(msg)
    wide = picture.bits == 16 and picture.pixels.ndim == 3
    if suffix == ".png" and (picture.bits not in {1, 8, 16} or wide):
        msg = f"{name!r} cannot hold these pixels, {picture.pixels.dtype}; write a .tif or .npy"
        raise OutputError(msg)
    try:
        if suffix == ".png":
            pillow()
        elif suffix != ".npy":
            import tifffile  # noqa: F401
    except ImportError as problem:
        msg = f"{suffix} needs Pillow and tifffile: pip install 'fastkernel[cli]'"
        raise OutputError(msg) from problem
    return check_target(name, force=force, inputs=inputs)


def image_bytes(pixels: AnyArray, suffix: str) -> bytes:
    """Return the contents of an image's file: ``.png``, ``.tif`` or ``.npy``."""
    buffer = io.BytesIO()
    if suffix == ".npy":
        np.save(buffer, pixels, allow_pickle=False)
    elif suffix == ".png":
        pillow().fromarray(pixels).save(buffer, "PNG")
    else:
        import tifffile

        kind = "rgb" if pixels.ndim == 3 and pixels.shape[2] == 3 else "minisblack"
        tifffile.imwrite(buffer, pixels, photometric=kind)
    return buffer.getvalue()


def remake(
    picture: Picture, make: Callable[[AnyArray, int | None], AnyArray], *, clip: bool
) -> AnyArray:
    """Return what becomes of a picture's pixels, in its own dtype.

    Parameters
    ----------
    picture : Picture
        The image.
    make : callable
        Called with the pixels and the axis of their channels, if any; returns as many pixels.
    clip : bool
        Whether floats are clipped to the range of the picture. Whole grey levels are rounded, and
        clipped to those that the file can hold, in any case.

    Returns
    -------
    array
        Of the picture's shape and dtype.
    """
    pixels = picture.pixels
    made = make(pixels, 2 if pixels.ndim == 3 else None)
    if picture.bits is not None:
        white = 1 if picture.bits == 1 else (1 << picture.bits) - 1
        levels = np.clip(np.rint(made), 0, white).astype(pixels.dtype)
        return levels * np.uint8(255) if picture.bits == 1 else levels
    if clip:
        made = np.clip(made, pixels.min(), pixels.max())
    if pixels.dtype.kind in "iu":
        limits = np.iinfo(pixels.dtype)
        made = np.clip(np.rint(made), limits.min, limits.max)
    return made.astype(pixels.dtype)
