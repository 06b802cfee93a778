"""What Pillow does not do for PNG: notice that rows stop early, and 16 bits of colour."""

import io
import struct
import zlib
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fastkernel._typing import AnyArray

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


def check_chunks(file: BinaryIO, header: Header) -> bytearray | None:
    """Walk all chunks to the end: checksums, and as many decoded bytes as there are pixels.

    Parameters
    ----------
    file : binary file
        At the chunk after its header.
    header : Header
        What that says.

    Returns
    -------
    bytearray or None
        Rows of 16 bit colours as `deep_pixels` takes them; None for all that Pillow reads.
    """
    inflater, decoded, expected, kind = zlib.decompressobj(), 0, _decoded_size(header), b""
    kept = bytearray() if header.depth == 16 and header.colour != GREY else None
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", _read(file, 8))
        checksum = zlib.crc32(kind)
        while length:
            piece = _read(file, min(length, 1 << 16))
            length -= len(piece)
            checksum = zlib.crc32(piece, checksum)
            if kind == b"IDAT" and decoded < expected:
                # No more than the pixels: a small file may unpack to anything.
                rows = inflater.decompress(piece, expected - decoded)
                decoded += len(rows)
                if kept is not None:
                    kept += rows
        if struct.unpack(">I", _read(file, 4))[0] != checksum:
            msg = f"the checksum of its chunk {kind!r} is wrong"
            raise ValueError(msg)
    if decoded < expected:
        msg = f"its pixels stop after {decoded} of {expected} bytes"
        raise ValueError(msg)
    return kept


def deep_pixels(packed: bytearray, header: Header, image_module: Any) -> AnyArray:
    """Return 16 bit pixels of several channels, of which Pillow keeps the upper bytes alone.

    Parameters
    ----------
    packed : bytearray
        The rows as they were inflated, each behind the number of its filter.
    header : Header
        Of the file.
    image_module : module
        ``PIL.Image``.

    Returns
    -------
    (rows, cols, channels) uint16 array
        The pixels.

    Notes
    -----
    The filters of PNG act on every byte of a pixel for itself. Half of the bytes of each pixel are
    the rows of an image of 8 bits with as many channels, which Pillow decodes; so are the others.
    """
    channels = _CHANNELS[header.colour]
    rows_of, place = np.frombuffer(packed, np.uint8), 0
    halves: list[list[bytes]] = [[], []]
    for rows, cols in _passes(header):
        size = rows * (1 + 2 * channels * cols)
        lines = rows_of[place : place + size].reshape(rows, -1)
        place += size
        pixels = lines[:, 1:].reshape(rows, cols, 2, channels)
        for half, out in enumerate(halves):
            beside = pixels[:, :, half].reshape(rows, -1)
            out.append(np.concatenate([lines[:, :1], beside], axis=1).tobytes())
    found = np.empty((header.rows, header.cols, 2, channels), np.uint8)
    for half, out in enumerate(halves):
        data = _png(header._replace(depth=8), zlib.compress(b"".join(out), 0))
        with image_module.open(io.BytesIO(data), formats=("PNG",)) as image:
            found[:, :, half] = np.asarray(image).reshape(header.rows, header.cols, channels)
    stored = found.reshape(header.rows, header.cols, channels, 2)
    return np.ascontiguousarray(stored).view(">u2")[..., 0].astype(np.uint16)


def deep_bytes(pixels: AnyArray, notes: dict[bytes, bytes]) -> bytes:
    """Return the file of an image of 16 bit colours.

    Parameters
    ----------
    pixels : (rows, cols, channels) uint16 array
        Of 2 to 4 channels.
    notes : dict of bytes to bytes
        Contents of the chunks that go before the pixels, by their names.
    """
    rows, cols, channels = pixels.shape
    lines = pixels.astype(">u2").view(np.uint8).reshape(rows, -1)
    # Each byte less the one above it, which all readers undo: it packs better than none.
    lines = np.diff(lines, axis=0, prepend=np.zeros_like(lines[:1]))
    up = np.full((rows, 1), 2, np.uint8)
    packed = zlib.compress(np.concatenate([up, lines], axis=1).tobytes())
    header = Header(cols, rows, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return _png(header, packed, notes)


def _png(header: Header, packed: bytes, notes: dict[bytes, bytes] | None = None) -> bytes:
    chunks = {b"IHDR": struct.pack(">IIBBBBB", *header)} | (notes or {})
    chunks |= {b"IDAT": packed, b"IEND": b""}
    parts = [SIGNATURE]
    for kind, data in chunks.items():
        parts += [struct.pack(">I4s", len(data), kind), data]
        parts.append(struct.pack(">I", zlib.crc32(kind + data)))
    return b"".join(parts)


def _read(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        msg = "it is cut short"
        raise ValueError(msg)
    return data


def _decoded_size(header: Header) -> int:
    bits = header.depth * _CHANNELS[header.colour]
    # A filter byte leads each row.
    return sum(rows * (1 + (cols * bits + 7) // 8) for rows, cols in _passes(header))


def _passes(header: Header) -> list[tuple[int, int]]:
    """Return rows and columns of the passes that have any."""
    passes = _PASSES if header.interlace else ((0, 1, 0, 1),)
    sizes = (
        (len(range(row, header.rows, row_step)), len(range(col, header.cols, col_step)))
        for row, row_step, col, col_step in passes
    )
    return [(rows, cols) for rows, cols in sizes if rows and cols]
