"""Images that a command makes from an image: the same dtype, the same kind of file or another."""

import argparse
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from fastkernel._typing import AnyArray
from fastkernel.cli.errors import InputError, OutputError, UsageError
from fastkernel.cli.files import Notes, Picture, pillow, read_picture, turned_note
from fastkernel.cli.light import decode, encode
from fastkernel.cli.output import check_target, write_file

_SUFFIXES = (".png", ".tif", ".tiff", ".npy")

# Called with pixels and the axis of their channels, if any; returns as many pixels.
Make = Callable[[AnyArray, int | None], AnyArray]


def remake_file(
    options: argparse.Namespace, kernel: str, make: Make, failure: str, notes: Iterable[str]
) -> None:
    """Read an image file, write what becomes of it, and say so.

    Parameters
    ----------
    options : Namespace
        What `options.read_options` read for a command that makes an image from an image.
    kernel : str
        The kernel of the command line, which may be a file that must not be overwritten.
    make : callable
        What is done to the pixels; its TypeError or ValueError is the image's fault.
    failure : str
        What the image then cannot be: "restored".
    notes : iterable of str
        What is said of the kernel, once the image is made.

    Raises
    ------
    InputError, OutputError
        If a file is not what it should be, or the image cannot be made or written.
    """
    if options.float and options.transfer == "srgb":
        msg = "--float goes with --transfer none: light of floats needs no sRGB levels"
        raise UsageError(msg)
    picture = read_picture(
        options.image, max_pixels=options.max_pixels, drop_alpha=options.drop_alpha
    )
    if options.transfer == "srgb" and picture.bits not in {8, 16}:
        msg = f"--transfer srgb needs an 8 or 16 bit file, not {options.image!r}; decode it first"
        raise InputError(msg)
    inputs = options.image, kernel
    target = check_image_target(
        options.output, picture, floats=options.float, force=options.force, inputs=inputs
    )
    linear = options.transfer == "srgb"
    try:
        pixels = remake(picture, make, clip=options.clip, linear=linear, floats=options.float)
    except (TypeError, ValueError) as problem:
        msg = f"{options.image!r} cannot be {failure}: {problem}"
        raise InputError(msg) from problem
    write_file(target, image_bytes(pixels, Path(options.output).suffix.lower(), picture.notes))
    turned = turned_note({options.image: picture})
    print(*notes, *filter(None, [turned]), f"wrote {options.output!r}", sep="\n")


def check_image_target(
    name: str, picture: Picture, *, floats: bool, force: bool, inputs: Iterable[str]
) -> Path:
    """Check, before any work is done, that an image of the picture's kind can be written.

    Parameters
    ----------
    name : str
        The file to write: ``.png`` for grey levels of 8 bits (16 where there is one channel),
        ``.tif`` and ``.npy`` for any.
    picture : Picture
        What the image is made from.
    floats : bool
        Whether its pixels are written as they are computed.
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
    wide = floats or (picture.bits == 16 and picture.pixels.ndim == 3)
    if suffix == ".png" and (picture.bits not in {1, 8, 16} or wide):
        kind = "floats" if floats else f"these pixels, {picture.pixels.dtype}"
        msg = f"{name!r} cannot hold {kind}; write a .tif or .npy"
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


def image_bytes(pixels: AnyArray, suffix: str, notes: Notes) -> bytes:
    """Return the contents of an image's file: ``.png``, ``.tif`` or ``.npy``.

    Colour profile and resolution are those of the image it was made from. It has no orientation:
    it stands upright.
    """
    buffer = io.BytesIO()
    if suffix == ".npy":
        np.save(buffer, pixels, allow_pickle=False)
    elif suffix == ".png":
        image = pillow().fromarray(pixels)
        image.save(buffer, "PNG", icc_profile=notes.profile, dpi=notes.dpi)
    else:
        import tifffile

        kind = "rgb" if pixels.ndim == 3 and pixels.shape[2] == 3 else "minisblack"
        tifffile.imwrite(
            buffer,
            pixels,
            photometric=kind,
            iccprofile=notes.profile,
            resolution=notes.dpi,
            resolutionunit=None if notes.dpi is None else "INCH",
        )
    return buffer.getvalue()


def remake(
    picture: Picture, make: Make, *, clip: bool, linear: bool = False, floats: bool = False
) -> AnyArray:
    """Return what becomes of a picture's pixels, in its own dtype unless they stay floats.

    Parameters
    ----------
    picture : Picture
        The image.
    make : callable
        What is done to the pixels.
    clip : bool
        Whether floats are clipped to the range of the picture. Whole grey levels are rounded, and
        clipped to those that the file can hold, in any case.
    linear : bool, optional
        Whether it is done to the light that 8 or 16 bit levels of sRGB stand for.
    floats : bool, optional
        Whether pixels stay what they are computed as, neither rounded nor, unless ``clip``, cut.

    Returns
    -------
    array
        Of the picture's shape.
    """
    pixels = picture.pixels
    made = make(decode(picture) if linear else pixels, 2 if pixels.ndim == 3 else None)
    if picture.bits is not None and not floats:
        white = (1 << picture.bits) - 1
        made = encode(made, white) if linear else made
        levels = np.clip(np.rint(made), 0, white).astype(pixels.dtype)
        return levels * np.uint8(255) if picture.bits == 1 else levels
    if clip:
        made = np.clip(made, pixels.min(), pixels.max())
    if floats:
        return made
    if pixels.dtype.kind in "iu":
        limits = np.iinfo(pixels.dtype)
        highest = float(limits.max)
        if highest > limits.max:  # 64 bits, which floats round up
            highest = np.nextafter(highest, 0)
        made = np.clip(np.rint(made), limits.min, highest)
    with np.errstate(over="ignore"):
        stored = made.astype(pixels.dtype)
    if stored.dtype.kind == "f" and (np.isinf(stored) & np.isfinite(made)).any():
        msg = f"it has pixels that {stored.dtype} cannot hold; --float writes them"
        raise ValueError(msg)
    return stored
