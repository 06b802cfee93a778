"""Images from files: only the formats listed here, checked before they are decoded."""

import logging
import math
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastkernel._typing import AnyArray
from fastkernel.cli import png, tiff
from fastkernel.cli.errors import InputError

_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".npy": "NPY",
}
_MAGIC = {
    png.SIGNATURE: "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\x93NUMPY": "NPY",
}
_DEFLATE = {8, 32946}
_TIFF_COMPRESSIONS = {1, 5, 32773} | _DEFLATE  # none, LZW and PackBits besides
_GREY_OR_RGB = "convert it to grey or RGB first"

# The key of the text that marks drawings of ours: enlarged, and no taps.
DRAWING = "fastkernel drawing"

# EXIF orientations: whether rows and columns are swapped, then which of them are reversed.
_TURNS = {
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}


@dataclass(frozen=True)
class Notes:
    """What a file says beside its pixels.

    Attributes
    ----------
    orientation : int
        As in EXIF: how the stored pixels lay before they were turned upright; 1 for upright.
    profile : bytes or None
        The ICC profile of its colours.
    dpi : (float, float) or None
        Pixels an inch across and down, of the upright image.
    drawing : str or None
        Which drawing of ours it is.
    alpha : bool
        Whether an alpha channel was left out.
    """

    orientation: int = 1
    profile: bytes | None = None
    dpi: tuple[float, float] | None = None
    drawing: str | None = None
    alpha: bool = False


_NO_NOTES = Notes()


@dataclass(frozen=True)
class Picture:
    """An image and what its file says about it.

    Attributes
    ----------
    pixels : (rows, cols) or (rows, cols, channels) array
        Upright, in any real dtype as stored; black and white images as 0 and 1.
    bits : int or None
        1, 8 or 16 where the pixels are whole grey levels from 0 to ``2**bits - 1``.
    lossy : bool
        Whether the file was compressed with losses.
    notes : Notes
        What the file says beside.
    """

    pixels: AnyArray
    bits: int | None
    lossy: bool
    notes: Notes = _NO_NOTES


class _RefusedError(Exception):
    """A sound file that is not taken; the message says why."""


def read_picture(name: str, *, max_pixels: int, drop_alpha: bool = False) -> Picture:
    """Read an image file.

    Parameters
    ----------
    name : str
        Path of a PNG, JPEG, TIFF or .npy file.
    max_pixels : int
        Largest rows times columns, compared before anything is decoded.
    drop_alpha : bool, optional
        Leave an alpha channel out, which is refused otherwise.

    Returns
    -------
    Picture
        The pixels, in grey levels for 8 and 16 bit files, in the file's unit otherwise.

    Raises
    ------
    InputError
        If the file is missing, damaged, mislabelled, too large or of a kind that is not taken.
    """
    reader = {"PNG": _read_png, "JPEG": _read_jpeg, "TIFF": _read_tiff, "NPY": _read_npy}
    path = Path(name)
    kind = _kind_of(path)
    try:
        with warnings.catch_warnings():
            # Pillow and NumPy warn about oddities of a file. What matters is checked here.
            warnings.simplefilter("ignore")
            pixels, notes = reader[kind](path, max_pixels)
    except (_RefusedError, ImportError) as problem:
        msg = f"{name!r}: {problem}"
        raise InputError(msg) from problem
    except MemoryError:
        raise
    except Exception as problem:  # decoders raise anything on damaged files
        msg = f"{name!r} is damaged or of a kind that cannot be read: {problem}"
        raise InputError(msg) from problem
    if kind != "NPY" and pixels.ndim == 3 and pixels.shape[2] in {2, 4}:
        pixels = _without_alpha(pixels, name, drop_alpha)
        notes = replace(notes, alpha=True)
    pixels, notes = _upright(pixels, notes)
    if pixels.dtype == bool:
        # Pillow stores True as 255 in arrays it shares.
        return Picture((pixels.view(np.uint8) != 0).astype(np.uint8), 1, False, notes)
    bits = pixels.dtype.itemsize * 8 if pixels.dtype.kind == "u" else None
    return Picture(pixels, bits if bits in {8, 16} else None, kind == "JPEG", notes)


def turned_note(pictures: Mapping[str, Picture]) -> str:
    """Return what to say of the files whose pixels are not stored upright, or nothing."""
    turned = [repr(name) for name, picture in pictures.items() if picture.notes.orientation != 1]
    if not turned:
        return ""
    verb = "were" if len(turned) > 1 else "was"
    return f"{' and '.join(turned)} {verb} turned upright, by the EXIF orientation of the file"


def _upright(pixels: AnyArray, notes: Notes) -> tuple[AnyArray, Notes]:
    """Turn pixels as their orientation asks for, if it is one that EXIF knows."""
    if notes.orientation not in _TURNS:
        return pixels, replace(notes, orientation=1)
    swapped, reversed_axes = _TURNS[notes.orientation]
    pixels = np.flip(pixels.swapaxes(0, 1) if swapped else pixels, reversed_axes)
    if swapped and notes.dpi is not None:
        notes = replace(notes, dpi=notes.dpi[::-1])
    return np.ascontiguousarray(pixels), notes


def _kind_of(path: Path) -> str:
    """Return the format that the name and the first bytes agree on."""
    name = str(path)
    kind = _FORMATS.get(path.suffix.lower())
    try:
        if path.exists() and not path.is_file():
            msg = f"{name!r} is not a file; give the path of an image"
            raise InputError(msg)
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as problem:
        msg = f"{name!r} cannot be read: {problem.strerror}"
        raise InputError(msg) from problem
    if not head:
        msg = f"{name!r} is empty"
        raise InputError(msg)
    found = next((found for magic, found in _MAGIC.items() if head.startswith(magic)), None)
    if kind is None:
        msg = f"{name!r} has none of the names that are read: {', '.join(_FORMATS)}"
        raise InputError(msg)
    if found != kind:
        what = f"is {found} by its first bytes" if found else f"does not begin as {kind} files do"
        msg = f"{name!r} {what}; rename it, or save it as {kind} again"
        raise InputError(msg)
    return kind


def _check_size(rows: int, cols: int, max_pixels: int) -> None:
    if rows * cols > max_pixels:
        msg = f"{rows} x {cols} pixels are more than --max-pixels {max_pixels}"
        raise _RefusedError(msg)
    if rows * cols < 1:
        msg = "it has no pixels"
        raise _RefusedError(msg)


def pillow() -> Any:
    """Return ``PIL.Image``, or say what to install."""
    try:
        from PIL import Image
    except ImportError as problem:
        msg = "PNG and JPEG need Pillow: pip install 'fastkernel[cli]'"
        raise ImportError(msg) from problem
    return Image


def _read_png(path: Path, max_pixels: int) -> tuple[AnyArray, Notes]:
    with path.open("rb") as file:
        header = png.read_header(file)
        _check_size(header.rows, header.cols, max_pixels)
        if header.colour == png.PALETTE:
            msg = f"its pixels are numbers of a palette, not grey levels; {_GREY_OR_RGB}"
            raise _RefusedError(msg)
        if header.depth == 16 and header.colour != png.GREY:
            msg = "16 bit colour PNG is not read without loss; save it as 16 bit TIFF"
            raise _RefusedError(msg)
        png.check_chunks(file, header)
    return _decode(path, "PNG", max_pixels)


def _read_jpeg(path: Path, max_pixels: int) -> tuple[AnyArray, Notes]:
    return _decode(path, "JPEG", max_pixels)


def _decode(path: Path, kind: str, max_pixels: int) -> tuple[AnyArray, Notes]:
    image_module = pillow()
    limit, image_module.MAX_IMAGE_PIXELS = image_module.MAX_IMAGE_PIXELS, None
    try:
        with image_module.open(path, formats=(kind,)) as image:
            _check_size(image.height, image.width, max_pixels)
            if image.mode not in {"1", "L", "LA", "I;16", "RGB", "RGBA"}:
                msg = f"its colours are {image.mode}; {_GREY_OR_RGB}"
                raise _RefusedError(msg)
            return np.asarray(image), _notes(image)
    finally:
        image_module.MAX_IMAGE_PIXELS = limit


def _notes(image: Any) -> Notes:
    """Return what Pillow found beside the pixels, once these are decoded."""
    info, exif = image.info, image.getexif()
    orientation = exif.get(0x0112, 1)
    # Pillow gives 72 dots an inch to a JPEG that has EXIF and says nothing of its resolution.
    invented = info.get("jfif_unit", 0) == 0 and image.format == "JPEG" and 0x011A not in exif
    dpi = None if invented else info.get("dpi")
    if dpi is not None:
        dpi = float(dpi[0]), float(dpi[1])
        dpi = dpi if 0 < dpi[0] < math.inf and 0 < dpi[1] < math.inf else None
    return Notes(
        orientation if isinstance(orientation, int) else 1,
        info.get("icc_profile") or None,
        dpi,
        info.get(DRAWING),
    )


def _read_tiff(path: Path, max_pixels: int) -> tuple[AnyArray, Notes]:
    try:
        import tifffile
    except ImportError as problem:
        msg = "TIFF needs tifffile: pip install 'fastkernel[cli]'"
        raise ImportError(msg) from problem
    logging.getLogger("tifffile").disabled = True  # it logs what is wrong with a file, then guesses
    with path.open("rb") as plain:
        tiff.check_directories(plain)
    with tifffile.TiffFile(path) as file:
        every: Any = file.pages
        pages = [page for page in every if not page.is_reduced]
        if len(pages) != 1:
            msg = f"it holds {len(pages)} pages; save the one that is meant"
            raise _RefusedError(msg)
        page = pages[0]
        _check_size(page.imagelength, page.imagewidth, max_pixels)
        _check_size(max(page.tilelength, 1), max(page.tilewidth, 1), max_pixels)
        inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        if page.photometric not in {
            tifffile.PHOTOMETRIC.MINISWHITE,
            tifffile.PHOTOMETRIC.MINISBLACK,
            tifffile.PHOTOMETRIC.RGB,
        }:
            name = getattr(page.photometric, "name", page.photometric)
            msg = f"its colours are {name}; {_GREY_OR_RGB}"
            raise _RefusedError(msg)
        if page.samplesperpixel > 4 or page.imagedepth > 1:
            msg = f"it has {page.samplesperpixel} channels and depth {page.imagedepth}; 4 and 1 fit"
            raise _RefusedError(msg)
        if page.dtype is None or page.dtype.kind not in "buif":
            msg = f"its pixels are {page.dtype}; real numbers are needed"
            raise _RefusedError(msg)
        if len(page.databytecounts) != math.prod(page.chunked) or not all(page.databytecounts):
            msg = "some of its strips or tiles are missing"
            raise ValueError(msg)
        if page.compression not in _TIFF_COMPRESSIONS:
            name = getattr(page.compression, "name", page.compression)
            msg = f"its compression is {name}; save it uncompressed"
            raise _RefusedError(msg)
        tiff.check_strips(page, path.stat().st_size)
        if page.compression in _DEFLATE:
            _check_inflated(file, page)
        try:
            pixels = page.asarray()
        except ValueError as problem:
            if "imagecodecs" not in str(problem):
                raise
            msg = f"{problem}: pip install imagecodecs, or save it uncompressed"
            raise _RefusedError(msg) from problem
        if pixels.ndim == 3 and page.axes[0] == "S":
            pixels = np.moveaxis(pixels, 0, -1)
        notes = Notes(tiff.orientation_of(page), tiff.profile_of(page), tiff.dpi_of(page))
    # Not for floats: there is no telling what white is.
    array: AnyArray = np.invert(pixels) if inverted and pixels.dtype.kind in "bu" else pixels
    return array, notes


def _check_inflated(file: Any, page: Any) -> None:
    """Refuse strips and tiles that unpack to more than the image, which tifffile unpacks whole."""
    pixels = page.imagelength * page.imagewidth + page.tilelength * page.tilewidth
    limit = pixels * page.samplesperpixel * page.dtype.itemsize
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.filehandle.seek(offset)
        packed = file.filehandle.read(count)
        if len(zlib.decompressobj().decompress(packed, limit + 1)) > limit:
            msg = "it unpacks to more than its pixels"
            raise ValueError(msg)


def _read_npy(path: Path, max_pixels: int) -> tuple[AnyArray, Notes]:
    pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    if pixels.ndim not in {2, 3} or (pixels.ndim == 3 and pixels.shape[2] > 4):
        msg = (
            f"its array has shape {pixels.shape}; (rows, cols) is needed, "
            "or (rows, cols, channels) with at most 4 channels"
        )
        raise _RefusedError(msg)
    _check_size(pixels.shape[0], pixels.shape[1], max_pixels)
    if pixels.dtype.kind not in "buif":
        msg = f"its pixels are {pixels.dtype}; real numbers are needed"
        raise _RefusedError(msg)
    if pixels.offset + pixels.nbytes != path.stat().st_size:
        msg = "its size is not the one its header gives"
        raise ValueError(msg)
    return np.asarray(pixels), _NO_NOTES


def _without_alpha(pixels: AnyArray, name: str, drop_alpha: bool) -> AnyArray:
    if not drop_alpha:
        msg = f"{name!r} has an alpha channel; --drop-alpha leaves it out"
        raise InputError(msg)
    return pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]
