"""What Pillow does not check in a PNG: it loads one whose rows stop early without a word."""

import struct
import zlib
from typing import BinaryIO, NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, PALETTE = 0, 3

_CHANNELS = {GREY: 1, 2: 3, PALETTE: 1, 4: 2, 6: 4}

# First row, row step, first column, column step of the seven passes of an interlaced image.
_PASSES = (
    (0, 8, 0, 8),
    (0, 8, 4, 8),
    (4, 8, 0, 4),
    (0, 4, 2, 4),
    (2, 4, 0, 2),
    (0, 2, 1, 2),
    (1, 2, 0, 1),
)


class Header(NamedTuple):
    """The fields of IHDR."""

    cols: int
    rows: int
    depth: int
    colour: int
    compression: int
    filtering: int
    interlace: int


def read_header(file: BinaryIO) -> Header:
    """Read signature and IHDR, and leave the file at the next chunk."""
    head = file.read(33)
    if len(head) < 33 or head[8:16] != b"\0\0\0\rIHDR":
        msg = "its header is damaged"
        raise ValueError(msg)
    if struct.unpack(">I", head[29:])[0] != zlib.crc32(head[12:29]):
        msg = "the checksum of its header is wrong"
        raise ValueError(msg)
    header = Header(*struct.unpack(">IIBBBBB", head[16:29]))
    if header.colour not in _CHANNELS or header.interlace > 1:
        msg = f"its header asks for colour type {header.colour}, interlace {header.interlace}"
        raise ValueError(msg)
    return header


def check_chunks(file: BinaryIO, header: Header) -> None:
    """Walk all chunks to the end: checksums, and as many decoded bytes as there are pixels."""
    inflater, decoded, expected, kind = zlib.decompressobj(), 0, _decoded_size(header), b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", _read(file, 8))
        checksum = zlib.crc32(kind)
        while length:
            piece = _read(file, min(length, 1 << 16))
            length -= len(piece)
            checksum = zlib.crc32(piece, checksum)
            if kind == b"IDAT" and decoded < expected:
                decoded += len(inflater.decompress(piece))
        if struct.unpack(">I", _read(file, 4))[0] != checksum:
            msg = f"the checksum of its chunk {kind!r} is wrong"
            raise ValueError(msg)
    if decoded < expected:
        msg = f"its pixels stop after {decoded} of {expected} bytes"
        raise ValueError(msg)


def _read(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        msg = "it is cut short"
        raise ValueError(msg)
    return data


def _decoded_size(header: Header) -> int:
    bits = header.depth * _CHANNELS[header.colour]
    total = 0
    for row, row_step, col, col_step in _PASSES if header.interlace else ((0, 1, 0, 1),):
        rows = len(range(row, header.rows, row_step))
        cols = len(range(col, header.cols, col_step))
        total += rows * (1 + (cols * bits + 7) // 8) if cols else 0  # a filter byte leads each row
    return total
