"""Kinds of image files, in and out, and what goes through beside the pixels."""

import io
import json
import re
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from astropy.io import fits
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageCms

from fastkernel.cli import main
from fastkernel.cli.errors import InputError
from fastkernel.cli.files import read_picture
from fastkernel.cli.image_output import SUFFIXES
from fastkernel.cli.scene import dead_leaves

GREY = dead_leaves(41, np.random.default_rng(0))[:, :30]
RGB = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)
GREY16 = GREY * np.uint16(250) + np.arange(30, dtype=np.uint16)
RGB16 = np.stack([GREY16, GREY16[::-1], GREY16[:, ::-1]], axis=-1)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
MAKER, MODEL, ORIENTATION, EXPOSURE, EXIF_DIRECTORY = 271, 272, 274, 33434, 34665


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(name, **options):
    return read_picture(name, **({"max_pixels": 2**20} | options))


def exif(orientation=1):
    block = Image.Exif()
    block[MAKER], block[MODEL], block[ORIENTATION] = "Maker", "Model 7", orientation
    block.get_ifd(EXIF_DIRECTORY)[EXPOSURE] = 0.25
    whole = Image.Exif()
    whole.load(block.tobytes())  # which alone makes its directories travel to TIFF
    return whole


def few_colours(pixels):
    return Image.fromarray(pixels).quantize(32)


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp"])
def test_a_palette_is_read_as_its_colours(name):
    image = few_colours(RGB)
    image.save(name)
    picture = read(name)
    assert_array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    assert (picture.bits, picture.lossy) == (8, False)
    image = few_colours(np.stack([GREY] * 3, axis=-1))
    image.save(name)
    grey = np.asarray(image.convert("RGB"))
    if (grey.min(axis=-1) == grey.max(axis=-1)).all():
        assert_array_equal(read(name).pixels, grey[..., 0])


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_a_palette_that_is_seen_through_has_alpha(name):
    image = few_colours(RGB)
    image.save(name, transparency=int(np.asarray(image)[0, 0]))
    with pytest.raises(InputError, match="--drop-alpha"):
        read(name)
    found = read(name, drop_alpha=True)
    with Image.open(name) as image:
        assert_array_equal(found.pixels, np.asarray(image.convert("RGBA"))[..., :3])
    # A transparent colour that no pixel has hides nothing.
    spare = Image.fromarray(GREY % 4).convert("L").convert("P")
    spare.putpalette([0, 0, 0, 9, 9, 9, 20, 90, 20, 30, 30, 90, 7, 7, 7])
    spare.save(name, transparency=4)
    assert read(name).pixels.shape == (41, 30, 3)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("a.bmp", GREY),
        ("a.bmp", RGB),
        ("a.pgm", GREY),
        ("a.pgm", GREY16),
        ("a.ppm", RGB),
        ("a.pnm", RGB),
        ("a.webp", RGB),
    ],
)
def test_lossless_kinds_give_their_pixels(name, pixels):
    if name == "a.pgm" and pixels is GREY16:
        data = b"P5\n# a remark\n30 41\n65535\n" + GREY16.astype(">u2").tobytes()
        Path(name).write_bytes(data)
    else:
        kind = "PPM" if name.endswith("m") else None
        Image.fromarray(pixels).save(name, kind, lossless=True)
    picture = read(name)
    assert_array_equal(picture.pixels, pixels)
    assert picture.pixels.dtype == pixels.dtype
    assert (picture.bits, picture.lossy) == (8 * pixels.dtype.itemsize, False)


def test_a_lossy_webp_is_known():
    Image.fromarray(RGB).save("a.webp", quality=60)
    assert read("a.webp").lossy
    frames = [Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())]
    for lossless in (False, True):
        frames[0].save("b.webp", save_all=True, append_images=frames[1:], lossless=lossless)
        assert read("b.webp", page=2).lossy != lossless


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"P5 2 2 100\n" + bytes(4), "its levels end at 100"),
        (b"P6 2 2 65535\n" + bytes(24), "its levels end at 65535"),
        (b"P5 2 2 255\n" + bytes(3), "damaged"),
        (b"P5 99999 99999 255\n", "more than --max-pixels"),
    ],
)
def test_refused_pgm(data, message):
    Path("a.pgm").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read("a.pgm")


@pytest.mark.parametrize("channels", [3, 4])
def test_deep_png_is_read_and_written_whole(channels):
    pixels = np.dstack([RGB16, np.full_like(GREY16, 65535)])[..., :channels]
    # OpenCV writes with filters of all kinds, and keeps colours the other way round.
    order = [2, 1, 0, 3][:channels]
    assert cv2.imwrite("a.png", np.ascontiguousarray(pixels[..., order]))
    picture = read("a.png", drop_alpha=True)
    assert_array_equal(picture.pixels, RGB16)
    assert picture.bits == 16
    assert main(["apply", "box:1", "a.png", "--drop-alpha", "-o", "b.png"]) == 0
    assert_array_equal(cv2.imread("b.png", cv2.IMREAD_UNCHANGED)[..., ::-1], RGB16)


def test_deep_png_of_seven_passes():
    """Rows of an interlaced file are those of every eighth pixel, then of what lies between."""
    passes = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4)]
    passes += [(2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1)]
    data = b""
    for row, row_step, col, col_step in passes:
        part = RGB16[row::row_step, col::col_step].astype(">u2")
        # Each row less the pixel to the left, byte by byte: filter 1.
        lines = part.view(np.uint8).reshape(len(part), -1)
        left = np.pad(lines, ((0, 0), (6, 0)))[:, :-6]
        data += b"".join(b"\1" + line.tobytes() for line in lines - left)
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 30, 41, 16, 2, 0, 0, 1)}
    chunks |= {b"IDAT": zlib.compress(data), b"IEND": b""}
    file = b"\x89PNG\r\n\x1a\n"
    for kind, content in chunks.items():
        file += struct.pack(">I", len(content)) + kind + content
        file += struct.pack(">I", zlib.crc32(kind + content))
    Path("a.png").write_bytes(file)
    assert_array_equal(read("a.png").pixels, RGB16)


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.webp"])
def test_a_page_is_chosen_and_never_guessed(name, capsys):
    frames = [RGB, RGB[::-1].copy(), 255 - RGB]
    if name == "a.tif":
        tifffile.imwrite(name, np.stack(frames), photometric="rgb")
    else:
        images = [few_colours(f) if name == "a.gif" else Image.fromarray(f) for f in frames]
        images[0].save(name, save_all=True, append_images=images[1:], lossless=True)
    with pytest.raises(InputError, match="it holds 3 pages; --page says which is meant, from 1"):
        read(name)
    with pytest.raises(InputError, match="it holds 3 pages, and has no --page 4"):
        read(name, page=4)
    for page, frame in enumerate(frames, start=1):
        found = read(name, page=page).pixels.astype(int)
        assert np.abs(found - frame).mean() < (25 if name == "a.gif" else 1e-9)
    assert main(["apply", "box:1", name, "--page", "3", "-o", "b.tif"]) == 0
    assert np.abs(tifffile.imread("b.tif").astype(int) - frames[2]).mean() < 25


@pytest.mark.parametrize("quality", [20, 75, 95])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_cut_jpeg_is_refused_though_it_has_its_end_marker(quality, options, rng):
    buffer = io.BytesIO()
    Image.fromarray(np.tile(RGB, (3, 3, 1))).save(buffer, "JPEG", quality=quality, **options)
    data = buffer.getvalue()
    for trailing in (b"", b"what a phone adds" * 40):
        Path("a.jpg").write_bytes(data + trailing)
        wanted = np.asarray(Image.open(io.BytesIO(data)))
        assert_array_equal(read("a.jpg").pixels, wanted)
    # Between two scans, a progressive file that ends is whole: it is only less fine.
    markers = [m.start() for m in re.finditer(rb"\xff[^\x00\xd0-\xd7\xff]", data)]
    for place in rng.integers(data.index(b"\xff\xda") + 20, len(data) - 8, 12):
        if any(abs(place - marker) < 60 for marker in markers):
            continue
        Path("a.jpg").write_bytes(data[:place] + b"\xff\xd9")
        with pytest.raises(InputError, match=r"cut|damaged"):
            read("a.jpg")


def written(name, out, *options):
    assert main(["apply", "box:1", name, "-o", out, "--force", *options]) == 0
    return out


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read_again(suffix):
    pixels = GREY if suffix in {".pgm", ".fits", ".fit", ".fts"} else RGB
    Image.fromarray(pixels).save("a.png")
    found = read(written("a.png", f"b{suffix}")).pixels
    lossy = suffix in {".jpg", ".jpeg"}
    assert np.abs(found.astype(int) - pixels).mean() < (6 if lossy else 1e-9)


def test_quality_is_that_of_jpeg_and_webp():
    Image.fromarray(RGB).save("a.png")
    for kind in ("jpg", "webp"):
        sizes = [
            Path(written("a.png", f"b.{kind}", "--quality", q)).stat().st_size for q in ("10", "90")
        ]
        assert sizes[0] < sizes[1]
        assert read(f"b.{kind}").lossy
    written("a.png", "c.webp")
    assert not read("c.webp").lossy


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.tif"])
@pytest.mark.parametrize("out", ["y.jpg", "y.png", "y.webp", "y.tif"])
def test_exif_profile_and_resolution_are_kept(name, out):
    options = {} if name == "x.webp" else {"dpi": (300, 150)}
    image = Image.fromarray(RGB)
    image.save(name, icc_profile=PROFILE, exif=exif(orientation=6), **options)
    written(name, out)
    with Image.open(out) as image:
        found = image.getexif()
        assert (found[MAKER], found[MODEL]) == ("Maker", "Model 7")
        assert float(found.get_ifd(EXIF_DIRECTORY)[EXPOSURE]) == 0.25
        assert found.get(ORIENTATION, 1) == 1
        assert image.info["icc_profile"] == PROFILE
        if name != "x.webp" and out != "y.webp":
            # Turned by a quarter.
            assert_allclose([float(x) for x in image.info["dpi"]], (150, 300), rtol=1e-2)
        assert image.size == (41, 30)


def test_deep_png_keeps_what_stands_beside():
    tifffile.imwrite(
        "x.tif",
        RGB16,
        photometric="rgb",
        iccprofile=PROFILE,
        resolution=(300, 150),
        resolutionunit="INCH",
        extratags=[(MAKER, "s", 0, "Maker", True)],
    )
    written("x.tif", "y.png")
    with Image.open("y.png") as image:
        assert image.info["icc_profile"] == PROFILE
        assert image.getexif()[MAKER] == "Maker"
        assert_allclose(image.info["dpi"], (300, 150), rtol=1e-3)
    written("y.png", "z.tif")
    with tifffile.TiffFile("z.tif") as file:
        assert file.pages[0].tags[MAKER].value == "Maker"
        assert_array_equal(file.asarray(), RGB16)


def test_fits_keeps_its_header_and_its_floats(capsys):
    header = fits.Header({"OBJECT": "M 31", "EXPTIME": 30.0})
    pixels = (GREY / 7).astype(np.float32)
    units = [fits.PrimaryHDU(), fits.ImageHDU(pixels, header, name="SCI")]
    fits.HDUList(units).writeto("x.fits")
    assert main(["apply", "box:1", "x.fits[SCI]", "-o", "y.fits"]) == 0
    with fits.open("y.fits") as file:
        assert file[0].header["OBJECT"] == "M 31"
        assert_array_equal(file[0].data, pixels)
    assert main(["estimate", "x.fits", "y.fits", "--size", "1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["kernel"] == [[pytest.approx(1, abs=1e-6)]]
    assert main(["apply", "box:1", "x.fits", "y.fits", "-o", "out"]) == 0
    assert main(["apply", "box:1", "x.fits", "-o", "y.png"]) == 4
    Image.fromarray(RGB).save("a.png")
    assert main(["apply", "box:1", "a.png", "-o", "z.fits"]) == 4
    assert "cannot hold these pixels, uint8 of 3 channels; write a .png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "missing", "advice"),
    [
        ("b.png", "PIL", ".png needs Pillow: pip install 'fastkernel[cli]'"),
        ("b.tif", "tifffile", ".tif needs tifffile: pip install 'fastkernel[cli]'"),
        ("b.fits", "astropy.io", ".fits needs astropy: pip install 'fastkernel[fits]'"),
    ],
)
def test_names_the_extra_that_an_output_needs(name, missing, advice, monkeypatch, capsys):
    np.save("a.npy", GREY)
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["apply", "box:1", "a.npy", "-o", name]) == 4
    assert advice in capsys.readouterr().err
