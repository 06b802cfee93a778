import builtins
import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image

from fastkernel.cli import main
from fastkernel.cli.errors import InputError
from fastkernel.cli.files import read_picture

LIMIT = 2**20
GREY = np.random.default_rng(0).integers(0, 256, (24, 17), dtype=np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (24, 17, 3), dtype=np.uint8)
GREY16 = (GREY * 256.0 + 7).astype(np.uint16)


def png_chunk(kind, data):
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def png_bytes(rows, cols, depth=8, colour=0, data=b"", interlace=0):
    header = struct.pack(">IIBBBBB", cols, rows, depth, colour, 0, 0, interlace)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(data))
        + png_chunk(b"IEND", b"")
    )


def encode(pixels, kind, **options):
    buffer = io.BytesIO()
    if kind == "TIFF":
        tifffile.imwrite(buffer, pixels, **options)
    elif kind == "NPY":
        np.save(buffer, pixels)
    else:
        Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def read(folder, name, data, **options):
    path = folder / name
    path.write_bytes(data)
    return read_picture(str(path), **({"max_pixels": LIMIT} | options))


@pytest.mark.parametrize(
    ("name", "pixels", "bits", "options"),
    [
        ("a.png", GREY, 8, {}),
        ("a.PNG", GREY, 8, {}),
        ("a.png", GREY16, 16, {}),
        ("a.png", RGB, 8, {}),
        ("a.tif", GREY, 8, {}),
        ("a.tiff", GREY16, 16, {}),
        ("a.tif", GREY16.astype(">u2"), 16, {"byteorder": ">"}),
        ("a.tif", RGB, 8, {"photometric": "rgb"}),
        ("a.tif", RGB.astype(np.uint16) * 200, 16, {"photometric": "rgb"}),
        ("a.tif", RGB[..., :2].astype(np.uint16)[..., 0], 16, {"compression": "zlib"}),
        ("a.tif", GREY, 8, {"tile": (16, 16)}),
        ("a.tif", GREY, 8, {"bigtiff": True}),
        ("a.tif", GREY.astype(np.float32) / 7, None, {}),
        ("a.tif", GREY.astype(np.float64) / 7, None, {}),
        ("a.tif", GREY.astype(np.int16) - 50, None, {}),
        ("a.npy", GREY, 8, {}),
        ("a.npy", GREY16, 16, {}),
        ("a.npy", np.asfortranarray(GREY / 7), None, {}),
        ("a.npy", RGB, 8, {}),
    ],
)
def test_reads_what_was_stored(tmp_path, name, pixels, bits, options):
    kind = {"png": "PNG", "tif": "TIFF", "tiff": "TIFF", "npy": "NPY"}[name[2:].lower()]
    picture = read(tmp_path, name, encode(pixels, kind, **options))
    assert_array_equal(picture.pixels, pixels)
    assert picture.pixels.dtype.newbyteorder("=") == pixels.dtype.newbyteorder("=")
    assert (picture.bits, picture.lossy) == (bits, False)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_reads_jpeg(tmp_path, options):
    smooth = np.add.outer(np.arange(64), np.arange(48)).astype(np.uint8)
    picture = read(tmp_path, "a.jpeg", encode(smooth, "JPEG", quality=100, **options))
    assert np.abs(picture.pixels.astype(int) - smooth).max() <= 2
    assert (picture.bits, picture.lossy) == (8, True)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "NPY"])
def test_reads_black_and_white_as_0_and_1(tmp_path, kind):
    options = {"photometric": "minisblack"} if kind == "TIFF" else {}
    picture = read(tmp_path, f"a.{kind.lower()}", encode(GREY > 127, kind, **options))
    assert_array_equal(picture.pixels, (GREY > 127).astype(np.uint8))
    assert picture.bits == 1


def test_reads_planes_and_inverted_grey(tmp_path):
    planes = np.moveaxis(RGB, -1, 0)
    data = encode(planes, "TIFF", photometric="rgb", planarconfig="separate")
    assert_array_equal(read(tmp_path, "a.tif", data).pixels, RGB)
    data = encode(GREY, "TIFF", photometric="miniswhite")
    assert_array_equal(read(tmp_path, "a.tif", data).pixels, 255 - GREY)


@pytest.mark.parametrize("interlace", [0, 1])
def test_reads_interlaced_png(tmp_path, interlace):
    passes = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4)]
    passes += [(2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1)]
    parts = [GREY[r::rs, c::cs] for r, rs, c, cs in passes] if interlace else [GREY]
    data = b"".join(b"\0" + row.tobytes() for part in parts for row in part)
    picture = read(tmp_path, "a.png", png_bytes(24, 17, data=data, interlace=interlace))
    assert_array_equal(picture.pixels, GREY)
    with pytest.raises(InputError, match="its pixels stop after"):
        read(tmp_path, "a.png", png_bytes(24, 17, data=data[:-1], interlace=interlace))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_alpha_is_left_out_on_demand_only(tmp_path, kind):
    rgba = np.dstack([RGB, GREY])
    options = {"photometric": "rgb", "extrasamples": ["unassalpha"]} if kind == "TIFF" else {}
    name, data = f"a.{kind.lower()}", encode(rgba, kind, **options)
    with pytest.raises(InputError, match="--drop-alpha"):
        read(tmp_path, name, data)
    assert_array_equal(read(tmp_path, name, data, drop_alpha=True).pixels, RGB)
    grey_alpha = Image.fromarray(GREY).convert("LA")
    buffer = io.BytesIO()
    grey_alpha.save(buffer, kind)
    assert_array_equal(read(tmp_path, name, buffer.getvalue(), drop_alpha=True).pixels, GREY)


def converted(mode, kind):
    buffer = io.BytesIO()
    Image.fromarray(RGB).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def inflated(count):
    """Return a TIFF of the size of GREY whose one strip unpacks to ``count`` bytes."""
    return encode(np.zeros((1, count), np.uint8), "TIFF", compression="zlib").replace(
        struct.pack("<I", count), struct.pack("<I", GREY.shape[1])
    )


SHORT = zlib.compress(GREY[:4].tobytes())
ZIPPED = encode(GREY, "TIFF", compression="zlib", rowsperstrip=24)
UNSTRIPPED = encode(GREY, "TIFF", rowsperstrip=24)
REFUSALS = {
    "empty": ("a.png", b"", "is empty"),
    "other name": ("a.xcf", b"gimp xcf", "none of the names that are read: .png"),
    "mislabelled": ("a.png", encode(GREY, "JPEG"), "is JPEG by its first bytes"),
    "numpy as tiff": ("a.tif", encode(GREY, "NPY"), "is NPY by its first bytes"),
    "postscript": ("a.png", b"%!PS-Adobe-3.0", "does not begin as PNG files do"),
    "palette tiff": ("a.tif", converted("P", "TIFF"), "colours are PALETTE"),
    "cmyk jpeg": ("a.jpg", converted("CMYK", "JPEG"), "colours are CMYK; convert it to grey"),
    "cmyk tiff": ("a.tif", converted("CMYK", "TIFF"), "colours are SEPARATED"),
    "png bomb": ("a.png", png_bytes(2**30, 2**30), "more than --max-pixels"),
    "png of nothing": ("a.png", png_bytes(0, 3), "has no pixels"),
    "png rows missing": ("a.png", png_bytes(9, 9, data=bytes(10)), "stop after 10 of 90 bytes"),
    "png without end": ("a.png", encode(GREY, "PNG")[:-12], "it is cut short"),
    "png half": ("a.png", encode(GREY, "PNG")[:200], "it is cut short"),
    "png head": ("a.png", encode(GREY, "PNG")[:20], "its header is damaged"),
    "png colour": ("a.png", png_bytes(2, 2, colour=9), "colour type 9"),
    "jpeg half": ("a.jpg", encode(RGB, "JPEG")[:-40], "truncated"),
    "tiff half": ("a.tif", UNSTRIPPED[:-40], "damaged"),
    "tiff head": ("a.tif", UNSTRIPPED[:6], "damaged"),
    "tiff pages": ("a.tif", encode(np.stack([GREY, GREY]), "TIFF"), "2 pages"),
    "tiff complex": ("a.tif", encode(GREY.astype(np.complex64), "TIFF"), "pixels are complex64"),
    "tiff lzw": ("a.tif", None, "pip install imagecodecs"),
    "tiff channels": (
        "a.tif",
        encode(np.zeros((8, 9, 5), np.uint8), "TIFF", photometric="minisblack", planarconfig=1),
        "5 channels",
    ),
    "tiff bomb": ("a.tif", inflated(10**6), "it unpacks to more than its pixels"),
    "tiff lzma": ("a.tif", encode(GREY, "TIFF", compression="lzma"), "compression is LZMA"),
    "npy head": ("a.npy", encode(GREY, "NPY")[:60], "damaged"),
    "npy half": ("a.npy", encode(GREY, "NPY")[:-9], "damaged"),
    "npy longer": ("a.npy", encode(GREY, "NPY") + b"x", "its size is not the one"),
    "npy pickle": ("a.npy", encode(np.array([{}], object), "NPY"), "damaged"),
    "npy complex": ("a.npy", encode(GREY + 1j, "NPY"), "pixels are complex128"),
    "npy row": ("a.npy", encode(GREY[0], "NPY"), r"shape (17,)"),
    "npy stack": ("a.npy", encode(np.zeros((9, 9, 9)), "NPY"), "at most 4 channels"),
    "npy large": ("a.npy", encode(np.zeros((1, LIMIT + 1), bool), "NPY"), "--max-pixels"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refuses(tmp_path, case):
    name, data, message = REFUSALS[case]
    if case == "tiff lzw":
        pytest.importorskip("PIL.TiffImagePlugin")
        buffer = io.BytesIO()
        Image.fromarray(GREY).save(buffer, "TIFF", compression="tiff_lzw")
        data = buffer.getvalue()
        try:
            import imagecodecs  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("imagecodecs reads LZW")
    with pytest.raises(InputError) as caught:
        read(tmp_path, name, data)
    assert message in str(caught.value)
    assert repr(str(tmp_path / name)) in str(caught.value)


def test_refuses_tiff_with_a_short_or_missing_strip(tmp_path):
    with tifffile.TiffFile(io.BytesIO(ZIPPED)) as tiff:
        offset = tiff.pages[0].dataoffsets[0]
        counts = tiff.pages[0].tags["StripByteCounts"].valueoffset
    data = bytearray(ZIPPED)
    data[offset : offset + len(SHORT)] = SHORT
    with pytest.raises(InputError, match="damaged"):
        read(tmp_path, "a.tif", bytes(data))
    data = bytearray(ZIPPED)
    data[counts : counts + 2] = bytes(2)
    with pytest.raises(InputError, match="damaged"):
        read(tmp_path, "a.tif", bytes(data))


def chained(offsets, *, last, order="<", big=False):
    """Return a TIFF whose directories, one after the other, stand at some offsets."""
    offset, count, tag = ("Q", "Q", "HHQQ") if big else ("I", "H", "HHII")
    tags = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 1, 16), (277, 3, 1, 1), (278, 4, 1, 8), (279, 4, 1, 64)]
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 43 if big else 42)
    head += struct.pack(f"{order}HH", 8, 0) if big else b""
    data = bytearray(max(offsets) + 400)
    start = head + struct.pack(order + offset, offsets[0])
    data[: len(start)] = start
    for place, following in zip(offsets, [*offsets[1:], last], strict=True):
        entries = b"".join(struct.pack(order + tag, *entry) for entry in tags)
        block = struct.pack(order + count, len(tags)) + entries
        block += struct.pack(order + offset, following)
        data[place : place + len(block)] = block
    return bytes(data)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("directories", "last", "message"),
    [
        (1, 100, "go round in circles"),
        (3, 100, "go round in circles"),
        (3, 900, "go round in circles"),
        (1, 10**9, "a directory is said to be at byte 1000000000 of"),
        (1, 17, "directory"),
        (1001, 0, "more than 1000 pages"),
    ],
)
def test_a_chain_of_tiff_directories_ends(tmp_path, order, big, directories, last, message):
    offsets = [100 + 400 * i for i in range(directories)]
    with pytest.raises(InputError, match=message):
        read(tmp_path, "a.tif", chained(offsets, last=last, order=order, big=big))


def test_directories_may_stand_in_any_order(tmp_path):
    with pytest.raises(InputError, match="it holds 3 pages"):
        read(tmp_path, "a.tif", chained([900, 100, 500], last=0))


@pytest.mark.parametrize(
    ("find", "put", "message"),
    [
        (
            struct.pack("<HHI", 258, 3, 1),
            struct.pack("<HHI", 258, 99, 1),
            "tag 258 has 1 values of",
        ),
        (struct.pack("<HHI", 258, 3, 1), struct.pack("<HHI", 258, 3, 0), "tag 258 has 0 values"),
        (struct.pack("<HHI", 258, 3, 1), struct.pack("<HHI", 258, 3, 9**9), "outside the file"),
        (
            struct.pack("<HHI", 256, 4, 1) + b"\x11",
            struct.pack("<HHI", 256, 4, 1) + b"\x12",
            "stop",
        ),
    ],
)
def test_refuses_tiff_tags_that_lie(tmp_path, find, put, message):
    data = encode(GREY, "TIFF", rowsperstrip=24)
    assert data.count(find) == 1
    with pytest.raises(InputError, match=message):
        read(tmp_path, "a.tif", data.replace(find, put))


def test_orientation_in_the_xmp_of_a_tiff(tmp_path):
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="3"/></x:xmpmeta>'
    data = encode(GREY, "TIFF", extratags=[(700, "B", len(packet), packet, True)])
    assert_array_equal(read(tmp_path, "a.tif", data).pixels, GREY[::-1, ::-1])


def test_refuses_what_is_no_file(tmp_path):
    with pytest.raises(InputError, match="is not a file"):
        read_picture(str(tmp_path), max_pixels=LIMIT)
    with pytest.raises(InputError, match="No such file"):
        read_picture(str(tmp_path / "none.png"), max_pixels=LIMIT)


@pytest.mark.parametrize(
    ("name", "kind", "missing", "advice"),
    [
        ("a.png", "PNG", "PIL", "need Pillow: pip install 'fastkernel[cli]'"),
        ("a.jpg", "JPEG", "PIL", "need Pillow: pip install 'fastkernel[cli]'"),
        ("a.tif", "TIFF", "tifffile", "needs tifffile: pip install 'fastkernel[cli]'"),
    ],
)
def test_names_the_extra_that_is_missing(tmp_path, monkeypatch, name, kind, missing, advice):
    real_import = builtins.__import__

    def fake_import(module, *args, **kwargs):
        if module.partition(".")[0] == missing:
            raise ImportError(module)
        return real_import(module, *args, **kwargs)

    data = encode(GREY, kind)
    monkeypatch.setattr(builtins, "__import__", fake_import)
    with pytest.raises(InputError) as caught:
        read(tmp_path, name, data)
    assert advice in str(caught.value)


def test_leaves_the_limit_of_pillow_as_it_was(tmp_path):
    before = Image.MAX_IMAGE_PIXELS
    read(tmp_path, "a.png", encode(GREY, "PNG"))
    assert before == Image.MAX_IMAGE_PIXELS


def mutations(data, rng):
    yield from (data[: len(data) * i // 12] for i in range(12))
    for _ in range(24):
        damaged = bytearray(data)
        position = int(rng.integers(len(data) if rng.random() < 0.4 else min(len(data), 400)))
        if rng.random() < 0.5:
            damaged[position] ^= 1 << int(rng.integers(8))
        else:
            word = rng.choice([0, 1, 2**16, 2**31 - 1, 2**32 - 1])
            damaged[position : position + 4] = struct.pack("<I", word)
        yield bytes(damaged)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "zlib", "rowsperstrip": 8}),
        ("TIFF", {"tile": (16, 16)}),
        ("NPY", {}),
    ],
)
def test_damaged_files_end_in_one_line(tmp_path, capsys, kind, options):
    rng = np.random.default_rng(7)
    pixels = GREY / 3 if kind == "NPY" else GREY
    source, result = tmp_path / "source.npy", tmp_path / f"result.{kind.lower()}"
    np.save(source, GREY)
    for data in mutations(encode(pixels, kind, **options), rng):
        result.write_bytes(data)
        code = main(["estimate", str(source), str(result), "--size", "3", "--max-pixels", "5000"])
        out, err = capsys.readouterr()
        assert code in {0, 1, 3}
        assert err.count("\n") == (code != 0)
        assert (out == "") == (code != 0)
