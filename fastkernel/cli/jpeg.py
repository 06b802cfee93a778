"""What Pillow does not check in a JPEG: whether its pixels were all there before its end marker."""

import io
import re
import zlib
from typing import Any, BinaryIO

# A marker that ends a run of coded pixels: neither a stuffed zero, nor a restart, nor a filler.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SCAN, _END = 0xDA, 0xD9

# Bytes of no meaning, none of them 255, and the same ones every time; then again after each of the
# restart markers, the next of which a decoder may be waiting for.
_BYTES = bytes((i * i * 7 + i * 31) % 251 for i in range(4096))
_FILLING = _BYTES + b"".join(bytes([0xFF, 0xD0 + i]) + _BYTES for i in range(8))


def check_whole(file: BinaryIO, image_module: Any) -> None:
    """Refuse a file whose pixels stop before its end marker.

    Parameters
    ----------
    file : binary file
        A JPEG.
    image_module : module
        ``PIL.Image``.

    Raises
    ------
    ValueError
        If decoding goes on into what stands after the pixels.

    Notes
    -----
    A decoder that comes upon the end marker too early makes the rest up without a word: grey, or
    what earlier scans of a progressive file said. It is found out by bytes put before the marker:
    they change nothing in an image that is whole, since no decoder gets so far.
    """
    file.seek(0)
    data = file.read()
    end = _end_of_pixels(data)
    plain = _digest(data, image_module)
    if plain != _digest(data[:end] + _FILLING + data[end:], image_module):
        msg = "its pixels stop before its end marker: it was cut"
        raise ValueError(msg)


def _digest(data: bytes, image_module: Any) -> int:
    """Return a checksum of the decoded pixels, which are not kept."""
    with image_module.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return zlib.crc32(image.tobytes())


def _end_of_pixels(data: bytes) -> int:
    """Return where the coded pixels of the last scan of the first image end."""
    place = 2
    while place + 4 <= len(data):
        marker = data[place + 1]
        if data[place] != 0xFF or marker == _END:
            return place
        if marker == 0xFF:
            place += 1
            continue
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _SCAN:
            found = _MARKER.search(data, place)
            if found is None:
                return len(data)
            place = found.start()
    return min(place, len(data))
