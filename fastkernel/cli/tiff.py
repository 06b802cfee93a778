"""What tifffile does not check in a TIFF: it goes round in circles, and guesses at damaged tags."""

import os
import struct
from typing import Any, BinaryIO

# Directories beyond which a file is a stack, whatever they hold.
MOST_DIRECTORIES = 1000
_MOST_TAGS = 4096

# Bytes of a value, by the number of its type.
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_BIG_TYPE_SIZES = _TYPE_SIZES | {16: 8, 17: 8, 18: 8}

# The tags without which pixels are read wrong: sizes, bits, kinds, places, compression, predictor.
_NEEDED = {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339}

_ORIENTATION, _XMP, _PROFILE = 274, 700, 34675
_INCHES = {2: 1.0, 3: 2.54}  # units of a resolution a inch, by their number


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
            msg = f"it holds more than {MOST_DIRECTORIES} pages; save the one that is meant"
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


def orientation_of(page: Any) -> int:
    """Return how the page lies: its tag, or what its XMP says of it; 1 is upright."""
    import re

    tag = page.tags.get(_ORIENTATION)
    if tag is not None:
        return int(tag.value)
    packet = page.tags.get(_XMP)
    found = packet and re.search(rb'tiff:Orientation(?:="|>)([0-9])', bytes(packet.value))
    return int(found[1]) if found else 1


def profile_of(page: Any) -> bytes | None:
    """Return the ICC profile."""
    tag = page.tags.get(_PROFILE)
    return None if tag is None else bytes(tag.value)


def dpi_of(page: Any) -> tuple[float, float] | None:
    """Return pixels an inch across and down, None where no unit of length is given."""
    unit = page.tags.get(296)
    scale = _INCHES.get(int(unit.value) if unit is not None else 2)
    pair = [page.tags.get(code) for code in (282, 283)]
    if scale is None or None in pair:
        return None
    across, down = (tag.value[0] / tag.value[1] if tag.value[1] else 0.0 for tag in pair)
    return (across * scale, down * scale) if across > 0 and down > 0 else None


def _read(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        msg = "it is cut short"
        raise ValueError(msg)
    return data
