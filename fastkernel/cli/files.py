"""Images from files: only the formats listed here, checked before they are decoded."""

import io
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fastkernel._typing import AnyArray
from fastkernel.cli import fits, png
from fastkernel.cli.errors import InputError
from fastkernel.cli.picture import NO_NOTES, Notes, Picture, RefusedError, check_size, upright
from fastkernel.cli.raster import read_raster
from fastkernel.cli.tiff import read_tiff

# What stands for standard input and output.
STANDARD = "-"

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".npy": "NPY",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".pgm": "PPM",
    ".ppm": "PPM",
    ".pnm": "PPM",
    ".pbm": "PPM",
} | dict.fromkeys(fits.SUFFIXES, "FITS")
_MAGIC = {
    png.SIGNATURE: "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\x93NUMPY": "NPY",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"SIMPLE  =": "FITS",
} | {b"P%d" % number: "PPM" for number in range(1, 7)}
# Of a WebP file the first bytes, and those after its length.
_RIFF, _WEBP = b"RIFF", b"WEBP"

# Formats that hold several images.
_PAGED = {"TIFF", "GIF", "WEBP"}

# Bytes a pixel that standard input may have: four channels of float64.
_MOST_BYTES = 32


def read_picture(
    name: str,
    *,
    max_pixels: int,
    drop_alpha: bool = False,
    page: int | None = None,
    data: bytes | None = None,
) -> Picture:
    """Read an image file.

    Parameters
    ----------
    name : str
        Path of a file of one of `FORMATS`, of FITS with the extension in brackets where several
        hold images; or ``-`` for standard input, whose format is known by its first bytes.
    max_pixels : int
        Largest rows times columns, compared before anything is decoded.
    drop_alpha : bool, optional
        Leave an alpha channel out, which is refused otherwise.
    page : int, optional
        Which image of a file that holds several, from 1. It is refused to guess.
    data : bytes, optional
        What standard input held, where it was read already.

    Returns
    -------
    Picture
        The pixels, in grey levels for 8 and 16 bit files, in the file's unit otherwise.

    Raises
    ------
    InputError
        If the file is missing, damaged, mislabelled, too large or of a kind that is not taken.
    """
    if name == STANDARD and data is None:
        data = read_standard_input(max_pixels * _MOST_BYTES)
    kind = _kind_of(name, None if data is None else data[:16])
    if page is not None and kind not in _PAGED:
        msg = f"{name!r} is {kind}, which has no pages: leave --page out"
        raise InputError(msg)
    if kind == "FITS" and data is None:
        pixels, header = fits.read_fits(name, max_pixels)
        return _picture(pixels, Notes(header=header), kind, lossy=False)
    try:
        with warnings.catch_warnings():
            # Pillow and NumPy warn about oddities of a file. What matters is checked here.
            warnings.simplefilter("ignore")
            with Path(name).open("rb") if data is None else io.BytesIO(data) as file:
                pixels, notes, lossy = _decoded(file, kind, max_pixels, page)
    except (RefusedError, ImportError) as problem:
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
    return _picture(*upright(pixels, notes), kind, lossy=lossy)


def _decoded(
    file: BinaryIO, kind: str, max_pixels: int, page: int | None
) -> tuple[AnyArray, Notes, bool]:
    if kind == "NPY":
        return _read_npy(file, max_pixels), NO_NOTES, False
    if kind == "TIFF":
        return *read_tiff(file, max_pixels, page), False
    if kind == "FITS":
        msg = "FITS is not read from standard input, give its file"
        raise RefusedError(msg)
    return read_raster(file, kind, max_pixels, page)


def _picture(pixels: AnyArray, notes: Notes, kind: str, *, lossy: bool) -> Picture:
    if pixels.dtype == bool:
        # Pillow stores True as 255 in arrays it shares.
        return Picture((pixels.view(np.uint8) != 0).astype(np.uint8), 1, lossy, notes, kind)
    bits = pixels.dtype.itemsize * 8 if pixels.dtype.kind == "u" else None
    return Picture(pixels, bits if bits in {8, 16} else None, lossy, notes, kind)


def read_standard_input(most: int) -> bytes:
    """Return all that standard input holds, up to so many bytes; `InputError` beyond."""
    stream = sys.stdin
    if stream is None or stream.closed:
        msg = "standard input is closed; give a file in the place of '-'"
        raise InputError(msg)
    if stream.isatty():
        msg = "standard input is the keyboard; '-' takes what a pipe or '<' brings"
        raise InputError(msg)
    # By pieces: a buffered reader would set aside as many bytes as it is asked for.
    pieces, length = [], 0
    while length <= most and (piece := stream.buffer.read(1 << 20)):
        pieces.append(piece)
        length += len(piece)
    data = b"".join(pieces)
    if not data:
        msg = "standard input is empty"
        raise InputError(msg)
    if len(data) > most:
        msg = f"standard input has more than {most} bytes; --max-pixels allows more"
        raise InputError(msg)
    return data


def sniff(head: bytes) -> str | None:
    """Return the format of a file by its first 16 bytes, None where it is none of ours."""
    if head[:4] == _RIFF and head[8:12] == _WEBP:
        return "WEBP"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def _kind_of(name: str, head: bytes | None) -> str:
    """Return the format that the name and the first bytes agree on; of the bytes without a name."""
    path = Path(fits.parted(name)[0] if fits.is_fits(name) else name)
    kind = FORMATS.get(path.suffix.lower())
    if head is None:
        head = _head(path, name)
    found = sniff(head)
    if name == STANDARD:
        if found is None:
            msg = "standard input holds no image of a kind that is read"
            raise InputError(msg)
        return found
    if kind is None:
        msg = f"{name!r} has none of the names that are read: {', '.join(FORMATS)}"
        raise InputError(msg)
    if found != kind:
        what = f"is {found} by its first bytes" if found else f"does not begin as {kind} files do"
        msg = f"{name!r} {what}; rename it, or save it as {kind} again"
        raise InputError(msg)
    return kind


def _head(path: Path, name: str) -> bytes:
    try:
        if path.exists() and not path.is_file():
            msg = f"{name!r} is not a file; give the path of an image"
            raise InputError(msg)
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as problem:
        msg = f"{name!r} cannot be read: {problem.strerror}"
        raise InputError(msg) from problem
    if not head:
        msg = f"{name!r} is empty"
        raise InputError(msg)
    return head


def _read_npy(file: BinaryIO, max_pixels: int) -> AnyArray:
    path = getattr(file, "name", None)
    pixels: AnyArray
    if path is None:  # nothing to map, and all its bytes are there
        pixels = np.load(file, allow_pickle=False)
    else:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    if pixels.ndim not in {2, 3} or (pixels.ndim == 3 and pixels.shape[2] > 4):
        msg = (
            f"its array has shape {pixels.shape}; (rows, cols) is needed, "
            "or (rows, cols, channels) with at most 4 channels"
        )
        raise RefusedError(msg)
    check_size(pixels.shape[0], pixels.shape[1], max_pixels)
    if pixels.dtype.kind not in "buif":
        msg = f"its pixels are {pixels.dtype}; real numbers are needed"
        raise RefusedError(msg)
    if isinstance(pixels, np.memmap) and pixels.offset + pixels.nbytes != _length(file):
        msg = "its size is not the one its header gives"
        raise ValueError(msg)
    return np.asarray(pixels)


def _length(file: BinaryIO) -> int:
    return file.seek(0, io.SEEK_END)


def _without_alpha(pixels: AnyArray, name: str, drop_alpha: bool) -> AnyArray:
    if not drop_alpha:
        msg = f"{name!r} has an alpha channel; --drop-alpha leaves it out"
        raise InputError(msg)
    return pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]
