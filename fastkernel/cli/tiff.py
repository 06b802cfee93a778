"""What tifffile does not check in a TIFF: it goes round in circles, and guesses at damaged tags."""

import logging
import math
import os
import struct
import zlib
from typing import Any, BinaryIO

import numpy as np

from fastkernel._typing import AnyArray
from fastkernel.cli.picture import GREY_OR_RGB, Notes, RefusedError, check_size, page_of
from fastkernel.cli.raster import exif_block, pillow

# Directories beyond which a file is a stack, whatever they hold.
MOST_DIRECTORIES = 1000
_MOST_TAGS = 4096

# Bytes of a value, by the number of its type.
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_BIG_TYPE_SIZES = _TYPE_SIZES | {16: 8, 17: 8, 18: 8}

# The tags without which pixels are read wrong: sizes, bits, kinds, places, compression, predictor.
_NEEDED = {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339}

_ORIENTATION, _XMP, _PROFILE = 274, 700, 34675
_DEFLATE = {8, 32946}
_COMPRESSIONS = {1, 5, 32773} | _DEFLATE  # none, LZW and PackBits besides
# What of a directory tells of the picture and not of how it is stored: title, maker, model, date,
# author, rights, and the directories of EXIF and of the place.
_TOLD = {270, 271, 272, 306, 315, 33432, 34665, 34853}
_INCHES = {2: 1.0, 3: 2.54}  # units of a resolution an inch, by their number


def read_tiff(file: BinaryIO, max_pixels: int, number: int | None) -> tuple[AnyArray, Notes]:
    """Read a page of a TIFF by tifffile, once what that does not check is checked.

    Parameters
    ----------
    file : binary file
        At its start.
    max_pixels : int
        Largest rows times columns, compared before anything is decoded.
    number : int or None
        Which page, from 1, smaller copies of others not counted.
    """
    try:
        import tifffile
    except ImportError as problem:
        msg = "TIFF needs tifffile: pip install 'fastkernel[cli]'"
        raise ImportError(msg) from problem
    logging.getLogger("tifffile").disabled = True  # it logs what is wrong with a file, then guesses
    check_directories(file)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    with tifffile.TiffFile(file) as opened:
        every: Any = opened.pages
        pages = [page for page in every if not page.is_reduced]
        page = pages[page_of(number, len(pages))]
        _check_page(page, max_pixels)
        inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        check_strips(page, size)
        if page.compression in _DEFLATE:
            _check_inflated(opened, page)
        try:
            pixels = page.asarray()
        except ValueError as problem:
            if "imagecodecs" not in str(problem):
                raise
            msg = f"{problem}: pip install imagecodecs, or save it uncompressed"
            raise RefusedError(msg) from problem
        if pixels.ndim == 3 and page.axes[0] == "S":
            pixels = np.moveaxis(pixels, 0, -1)
        notes = Notes(
            _orientation_of(page), _profile_of(page), _dpi_of(page), exif=_exif_of(file, page)
        )
    # Not for floats: there is no telling what white is.
    array: AnyArray = np.invert(pixels) if inverted and pixels.dtype.kind in "bu" else pixels
    return array, notes


def _check_page(page: Any, max_pixels: int) -> None:
    """Refuse a page that is too large, whose pixels are of another kind, or not all there."""
    import tifffile

    check_size(page.imagelength, page.imagewidth, max_pixels)
    check_size(max(page.tilelength, 1), max(page.tilewidth, 1), max_pixels)
    if page.photometric not in {
        tifffile.PHOTOMETRIC.MINISWHITE,
        tifffile.PHOTOMETRIC.MINISBLACK,
        tifffile.PHOTOMETRIC.RGB,
    }:
        name = getattr(page.photometric, "name", page.photometric)
        msg = f"its colours are {name}; {GREY_OR_RGB}"
        raise RefusedError(msg)
    if page.samplesperpixel > 4 or page.imagedepth > 1:
        msg = f"it has {page.samplesperpixel} channels and depth {page.imagedepth}; 4 and 1 fit"
        raise RefusedError(msg)
    if page.dtype is None or page.dtype.kind not in "buif":
        msg = f"its pixels are {page.dtype}; real numbers are needed"
        raise RefusedError(msg)
    if len(page.databytecounts) != math.prod(page.chunked) or not all(page.databytecounts):
        msg = "some of its strips or tiles are missing"
        raise ValueError(msg)
    if page.compression not in _COMPRESSIONS:
        name = getattr(page.compression, "name", page.compression)
        msg = f"its compression is {name}; save it uncompressed"
        raise RefusedError(msg)


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


def check_directories(file: BinaryIO) -> None:
    """Walk the chain of directories to its end: none twice, all inside the file.

    Parameters
    ----------
    file : binary file
        At its start.

    Raises
    ------
    ValueError
        If the chain or a tag that the pixels need is damaged.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    order, big = ("<" if _read(file, 2) == b"II" else ">"), False
    (version,) = struct.unpack(f"{order}H", _read(file, 2))
    if version == 43:
        big = struct.unpack(f"{order}HH", _read(file, 4)) == (8, 0)
        if not big:
            msg = "its header is damaged"
            raise ValueError(msg)
    count_format, entry_format, offset_format = (
        (f"{order}Q", f"{order}HHQQ", f"{order}Q")
        if big
        else (f"{order}H", f"{order}HHII", f"{order}I")
    )
    (offset,) = struct.unpack(offset_format, _read(file, struct.calcsize(offset_format)))
    seen: set[int] = set()
    while offset:
        if offset in seen:
            msg = "its directories go round in circles"
            raise ValueError(msg)
        if len(seen) == MOST_DIRECTORIES:
            msg = f"it holds more than {MOST_DIRECTORIES} pages; save the one that is meant alone"
            raise ValueError(msg)
        seen.add(offset)
        if offset >= size:
            msg = f"a directory is said to be at byte {offset} of {size}"
            raise ValueError(msg)
        file.seek(offset)
        (count,) = struct.unpack(count_format, _read(file, struct.calcsize(count_format)))
        if not 1 <= count <= _MOST_TAGS:
            msg = f"a directory is said to have {count} tags"
            raise ValueError(msg)
        entries = _read(file, count * struct.calcsize(entry_format))
        for entry in struct.iter_unpack(entry_format, entries):
            _check_tag(entry, size, big)
        (offset,) = struct.unpack(offset_format, _read(file, struct.calcsize(offset_format)))


def _check_tag(entry: tuple[int, ...], size: int, big: bool) -> None:
    code, kind, count, place = entry
    if code not in _NEEDED:
        return
    width = (_BIG_TYPE_SIZES if big else _TYPE_SIZES).get(kind)
    if width is None or not count:
        msg = f"its tag {code} has {count} values of type {kind}"
        raise ValueError(msg)
    # Values that fit stand in the place of their offset.
    if count * width > (8 if big else 4) and place + count * width > size:
        msg = f"its tag {code} lies outside the file"
        raise ValueError(msg)


def check_strips(page: Any, size: int) -> None:
    """Refuse strips or tiles outside the file, or too short for pixels that are not packed.

    Parameters
    ----------
    page : tifffile.TiffPage
        The page; its compression is one that is read.
    size : int
        Bytes of the file.
    """
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if offset + count > size:
            msg = f"its pixels end at byte {offset + count} of {size}"
            raise ValueError(msg)
    needed = -(-page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample // 8)
    if page.compression == 1 and sum(page.databytecounts) < needed:
        msg = f"its pixels stop after {sum(page.databytecounts)} of {needed} bytes"
        raise ValueError(msg)


def _orientation_of(page: Any) -> int:
    """Return how the page lies: its tag, or what its XMP says of it; 1 is upright."""
    import re

    tag = page.tags.get(_ORIENTATION)
    if tag is not None:
        return int(tag.value)
    packet = page.tags.get(_XMP)
    found = packet and re.search(rb'tiff:Orientation(?:="|>)([0-9])', bytes(packet.value))
    return int(found[1]) if found else 1


def _profile_of(page: Any) -> bytes | None:
    """Return the ICC profile."""
    tag = page.tags.get(_PROFILE)
    return None if tag is None else bytes(tag.value)


def _dpi_of(page: Any) -> tuple[float, float] | None:
    """Return pixels an inch across and down, None where no unit of length is given."""
    unit = page.tags.get(296)
    scale = _INCHES.get(int(unit.value) if unit is not None else 2)
    pair = [page.tags.get(code) for code in (282, 283)]
    if scale is None or None in pair:
        return None
    across, down = (tag.value[0] / tag.value[1] if tag.value[1] else 0.0 for tag in pair)
    return (across * scale, down * scale) if across > 0 and down > 0 else None


def _exif_of(file: BinaryIO, page: Any) -> bytes | None:
    """Return what the page tells of its picture as an EXIF block."""
    if not any(tag.code in _TOLD for tag in page.tags):
        return None
    try:
        exif = pillow().Exif()
        exif.endian = page.parent.byteorder
        exif.load_from_fp(file, page.offset)
        for code in set(exif) - _TOLD:
            del exif[code]
        return exif_block(exif)
    except Exception:  # without Pillow, and whatever it meets: pixels are what matters
        return None


def _read(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        msg = "it is cut short"
        raise ValueError(msg)
    return data
