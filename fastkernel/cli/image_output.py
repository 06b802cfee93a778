"""Image files that are written: what each format can hold, and its contents."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

from fastkernel._typing import AnyArray
from fastkernel.cli import png
from fastkernel.cli.errors import OutputError
from fastkernel.cli.files import FORMATS, STANDARD
from fastkernel.cli.fits import astropy_fits, fits_bytes
from fastkernel.cli.picture import Notes, Picture
from fastkernel.cli.raster import pillow

# What is written: all that is read but GIF, of which 256 colours are left, and PBM.
SUFFIXES = tuple(suffix for suffix in FORMATS if FORMATS[suffix] != "GIF" and suffix != ".pbm")

# Quality of JPEG unless another is asked for: one at which its blocks are not seen.
JPEG_QUALITY = 95

# Which kinds hold the grey levels of a picture and nothing else, by their bits.
_DEPTHS = {"PNG": {1, 8, 16}, "JPEG": {1, 8}, "WEBP": {1, 8}, "BMP": {1, 8}, "PPM": {1, 8, 16}}
_NEEDS = {"FITS": "astropy", "TIFF": "tifffile"}

_INCH_PER_METRE = 39.37007874


def check_suffix(name: str, suffix: str) -> None:
    """Check, before any work is done, that images are written to files of this suffix."""
    if suffix not in SUFFIXES:
        what = f"{name!r} has none of the suffixes an image is written to"
        if name == STANDARD:
            what = f"images are not written as {suffix or 'nothing'}; --format takes"
        msg = f"{what}: {', '.join(SUFFIXES)}"
        raise OutputError(msg)
    kind = FORMATS[suffix]
    try:
        if kind == "FITS":
            astropy_fits()
        elif kind == "TIFF":
            import tifffile  # noqa: F401
        elif kind != "NPY":
            pillow()
    except ImportError as problem:
        extra = "fits" if kind == "FITS" else "cli"
        msg = f"{suffix} needs {_NEEDS.get(kind, 'Pillow')}: pip install 'fastkernel[{extra}]'"
        raise OutputError(msg) from problem


def check_holds(name: str, suffix: str, picture: Picture, *, floats: bool) -> None:
    """Check, before any work is done, that a kind of file can hold an image like a picture.

    Parameters
    ----------
    name, suffix : str
        The file to write, and the suffix of its format.
    picture : Picture
        What the image is made from.
    floats : bool
        Whether its pixels are written as they are computed.

    Raises
    ------
    OutputError
        If its kind cannot hold the image.
    """
    kind, pixels = FORMATS[suffix], picture.pixels
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    depths = _DEPTHS.get(kind)
    holds = depths is None or (picture.bits in depths and not floats)
    if kind == "PPM":
        of_suffix = {".pgm": {1}, ".ppm": {3}}.get(suffix, {1, 3})
        holds &= channels in of_suffix and (channels == 1 or picture.bits != 16)
    elif kind == "FITS":
        holds = channels == 1
    elif depths is not None:
        holds &= channels in ({1, 2, 3, 4} if kind == "PNG" else {1, 3})
    if not holds:
        what = "floats" if floats else f"these pixels, {pixels.dtype}"
        beside = f" of {channels} channels" if channels > 1 else ""
        best = ".npy" if kind == "TIFF" else ".tif or .npy"
        if picture.bits is not None and not floats:
            best = f".png, {best}"
        msg = f"{name!r} cannot hold {what}{beside}; write a {best}"
        raise OutputError(msg)


def image_bytes(pixels: AnyArray, suffix: str, notes: Notes, quality: int | None = None) -> bytes:
    """Return the contents of an image's file.

    Parameters
    ----------
    pixels : (rows, cols) or (rows, cols, channels) array
        What `check_holds` let through.
    suffix : str
        One of `SUFFIXES`.
    notes : Notes
        Of the image it was made from, whose colour profile, EXIF, resolution and header of FITS it
        keeps where the format has a place for them. It has no orientation: it stands upright.
    quality : int, optional
        From 1 to 100, of JPEG and WebP; WebP keeps all without it, JPEG is written at
        `JPEG_QUALITY`.
    """
    kind, buffer = FORMATS[suffix], io.BytesIO()
    if kind == "NPY":
        import numpy as np

        np.save(buffer, pixels, allow_pickle=False)
        return buffer.getvalue()
    if kind == "FITS":
        return fits_bytes({"IMAGE": pixels}, notes.header, {})
    if kind == "PNG" and pixels.ndim == 3 and pixels.dtype.itemsize == 2:
        return png.deep_bytes(pixels, _png_chunks(notes))
    if kind == "TIFF":
        _save_tiff(buffer, pixels, notes)
        return buffer.getvalue()
    kept: dict[str, Any] = {
        name: value
        for name, value in {
            "icc_profile": notes.profile,
            "dpi": notes.dpi,
            "exif": notes.exif,
        }.items()
        if value is not None
    }
    if kind == "JPEG":
        # At full resolution of colour: halving it would be a blur that nobody asked for.
        kept |= {"quality": quality or JPEG_QUALITY, "subsampling": 0}
    elif kind == "WEBP":
        kept |= {"lossless": True} if quality is None else {"quality": quality}
        kept |= {"exact": True}
    pillow().fromarray(pixels).save(buffer, kind, **kept)
    return buffer.getvalue()


def _png_chunks(notes: Notes) -> dict[bytes, bytes]:
    """Return the chunks of PNG that stand for what is known beside the pixels."""
    chunks = {}
    if notes.profile is not None:
        chunks[b"iCCP"] = b"ICC Profile\0\0" + zlib.compress(notes.profile)
    if notes.dpi is not None:
        across, down = (round(dots * _INCH_PER_METRE) for dots in notes.dpi)
        chunks[b"pHYs"] = struct.pack(">IIB", across, down, 1)
    if notes.exif is not None:
        chunks[b"eXIf"] = notes.exif.removeprefix(b"Exif\0\0")
    return chunks


def _save_tiff(buffer: io.BytesIO, pixels: AnyArray, notes: Notes) -> None:
    """Write a TIFF: by Pillow where there is EXIF, which tifffile has no place for."""
    plain = pixels.dtype == "uint8" and (pixels.ndim == 2 or pixels.shape[2] == 3)
    if notes.exif is not None and (plain or (pixels.ndim == 2 and pixels.dtype == "uint16")):
        image_module = pillow()
        exif = image_module.Exif()
        exif.load(notes.exif)
        kept = {} if notes.dpi is None else {"dpi": notes.dpi}
        image = image_module.fromarray(pixels)
        image.save(buffer, "TIFF", exif=exif, icc_profile=notes.profile, **kept)
        return
    import tifffile

    tifffile.imwrite(
        buffer,
        pixels,
        photometric="rgb" if pixels.ndim == 3 and pixels.shape[2] == 3 else "minisblack",
        iccprofile=notes.profile,
        resolution=notes.dpi,
        resolutionunit=None if notes.dpi is None else "INCH",
        extratags=_texts(notes),
    )


def _texts(notes: Notes) -> list[tuple[int, str, int, str, bool]]:
    """Return the texts of EXIF that tifffile writes: title, maker, model, date, author, rights."""
    if notes.exif is None:
        return []
    exif = pillow().Exif()
    exif.load(notes.exif)
    texts = ((code, exif.get(code)) for code in (270, 271, 272, 306, 315, 33432))
    return [(code, "s", 0, text, True) for code, text in texts if isinstance(text, str)]


def name_of_kind(name: str, suffix: str | None) -> str:
    """Return the name, without folders, under which an image made from a file is written.

    Parameters
    ----------
    name : str
        The file it is made from.
    suffix : str or None
        What was asked for; without it that of the file, or ``.png`` where none is written.

    Examples
    --------
    >>> name_of_kind("in/a.jpg", None), name_of_kind("b.gif", None), name_of_kind("c.png", ".tif")
    ('a.jpg', 'b.png', 'c.tif')
    """
    from fastkernel.cli.fits import parted

    path = Path(parted(name)[0])
    if suffix is None:
        suffix = path.suffix if path.suffix.lower() in SUFFIXES else ".png"
    return path.with_suffix(suffix).name
