"""Image files that Pillow reads: PNG, JPEG, GIF, BMP, WebP, PGM and PPM."""

import math
import re
import struct
from typing import Any, BinaryIO

import numpy as np

from fastkernel._typing import AnyArray
from fastkernel.cli import jpeg, png
from fastkernel.cli.picture import (
    DRAWING,
    GREY_OR_RGB,
    Notes,
    RefusedError,
    check_size,
    page_of,
)

_ORIENTATION, _X_RESOLUTION = 0x0112, 0x011A
# Pixels of a strip.
_STRIP = 1 << 20
_MODES = {"1", "L", "LA", "I;16", "I;16B", "RGB", "RGBA"}


def pillow() -> Any:
    """Return ``PIL.Image``, or say what to install."""
    try:
        from PIL import Image
    except ImportError as problem:
        msg = "pictures such as PNG and JPEG need Pillow: pip install 'fastkernel[cli]'"
        raise ImportError(msg) from problem
    return Image


def read_raster(
    file: BinaryIO, kind: str, max_pixels: int, page: int | None
) -> tuple[AnyArray, Notes, bool]:
    """Read an image by Pillow, once what that does not check is checked.

    Parameters
    ----------
    file : binary file
        At its start.
    kind : str
        Its format, by its first bytes.
    max_pixels : int
        Largest rows times columns, compared before anything is decoded.
    page : int or None
        Which image of an animation, from 1.

    Returns
    -------
    pixels : (rows, cols) or (rows, cols, channels) array
        As stored; colours in the place of numbers of a palette.
    notes : Notes
        What the file says beside.
    lossy : bool
        Whether it was compressed with losses.
    """
    image_module = pillow()
    deep = None
    if kind == "PNG":
        header = png.read_header(file)
        check_size(header.rows, header.cols, max_pixels)
        deep = png.check_chunks(file, header)
    elif kind == "PPM":
        _check_levels(file)
    file.seek(0)
    limit, image_module.MAX_IMAGE_PIXELS = image_module.MAX_IMAGE_PIXELS, None
    try:
        with image_module.open(file, formats=(kind,)) as image:
            check_size(image.height, image.width, max_pixels)
            image.seek(page_of(page, getattr(image, "n_frames", 1)))
            if kind == "JPEG":
                _check_mode(image)
                jpeg.check_whole(file, image_module)
            if deep is not None:
                image.load()  # for what stands after the pixels
                return png.deep_pixels(deep, header, image_module), _notes(image), False
            return _pixels_of(image), _notes(image), kind == "JPEG" or _is_lossy(file, kind)
    finally:
        image_module.MAX_IMAGE_PIXELS = limit


def _check_mode(image: Any) -> None:
    if image.mode not in _MODES:
        msg = f"its colours are {image.mode}; {GREY_OR_RGB}"
        raise RefusedError(msg)


def _pixels_of(image: Any) -> AnyArray:
    """Return pixels, those of a palette as grey or colours, with alpha where any is not opaque."""
    # An animation has alpha for what a frame leaves as it was.
    palette = image.mode in {"P", "PA"}
    made = palette or getattr(image, "n_frames", 1) > 1
    if palette:
        see_through = image.mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if see_through else "RGB")
    elif image.mode == "I" and image.format == "PPM":  # 16 bits, as `_check_levels` saw to
        return _array_of(image).astype(np.uint16)
    _check_mode(image)
    pixels = _array_of(image)
    if not made or pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 4 and (pixels[..., 3] == 255).all():
        pixels = pixels[..., :3]
    grey = all((pixels[..., 0] == pixels[..., i]).all() for i in (1, 2))
    if not (palette and grey):
        return np.ascontiguousarray(pixels)
    kept = [0, 3] if pixels.shape[2] == 4 else 0
    return np.ascontiguousarray(pixels[..., kept])


def _array_of(image: Any) -> AnyArray:
    """Return the pixels, taken over by strips: all at once Pillow would copy them twice."""
    image.load()
    cols, rows = image.size
    strip = max(1, _STRIP // max(cols, 1))
    parts = (
        np.asarray(image.crop((0, top, cols, min(top + strip, rows))))
        for top in range(0, rows, strip)
    )
    first = next(parts)
    if rows <= strip:
        return first
    pixels = np.empty((rows, *first.shape[1:]), first.dtype)
    pixels[:strip] = first
    for number, part in enumerate(parts, start=1):
        pixels[number * strip : (number + 1) * strip] = part
    return pixels


def _check_levels(file: BinaryIO) -> None:
    """Refuse a PGM or PPM whose levels Pillow would stretch or cut."""
    fields = re.sub(rb"#[^\n]*", b" ", file.read(4096)).split(maxsplit=4)
    if len(fields) < 4 or fields[0] in {b"P1", b"P4"} or not fields[3].isdigit():
        return
    most, colour = int(fields[3]), fields[0] in {b"P3", b"P6"}
    if most not in ({255} if colour else {255, 65535}):
        msg = (
            f"its levels end at {most}; 255 is read, and 65535 of grey: save it as 8 bit, or as 16 "
            "bit PNG or TIFF"
        )
        raise RefusedError(msg)


def _is_lossy(file: BinaryIO, kind: str) -> bool:
    """Tell whether any image of a WebP file is of the lossy kind."""
    if kind != "WEBP":
        return False
    file.seek(12)
    while len(head := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        inner = file.read(20)[16:] if name == b"ANMF" else b""
        if b"VP8 " in (name, inner):
            return True
        file.seek(length + length % 2 - (20 if name == b"ANMF" else 0), 1)
    return False


def _notes(image: Any) -> Notes:
    """Return what Pillow found beside the pixels, once these are decoded."""
    info, exif = image.info, image.getexif()
    orientation = exif.get(_ORIENTATION, 1)
    # Pillow gives 72 dots an inch to a JPEG that has EXIF and says nothing of its resolution.
    invented = (
        info.get("jfif_unit", 0) == 0 and image.format == "JPEG" and _X_RESOLUTION not in exif
    )
    dpi = None if invented else info.get("dpi")
    if dpi is not None:
        dpi = float(dpi[0]), float(dpi[1])
        dpi = dpi if 0 < dpi[0] < math.inf and 0 < dpi[1] < math.inf else None
    return Notes(
        orientation if isinstance(orientation, int) else 1,
        info.get("icc_profile") or None,
        dpi,
        info.get(DRAWING),
        exif=exif_block(exif),
    )


def exif_block(exif: Any) -> bytes | None:
    """Return EXIF without its orientation; None where there is nothing in it, or it is damaged."""
    exif.pop(_ORIENTATION, None)
    try:
        return exif.tobytes() if len(exif) else None
    except Exception:  # whatever Pillow meets in the blocks of cameras: pixels are what matters
        return None
