"""``-``: kernels and images that come and go through pipes."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy import ndimage

from fastkernel import psf
from fastkernel.cli import main
from fastkernel.cli.kernels import read_kernel_file
from fastkernel.cli.scene import dead_leaves

SCENE = dead_leaves(96, np.random.default_rng(3))
BLUR = psf.gaussian(3, 0.8)


def light_of(levels):
    x = levels / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def levels_of(light):
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * coded).astype(np.uint8)


BLURRED_IN_LIGHT = levels_of(ndimage.convolve(light_of(SCENE), BLUR, mode="nearest"))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(SCENE).save("a.png")
    Image.fromarray(BLURRED_IN_LIGHT).save("b.png")
    Image.fromarray(np.rint(0.8 * SCENE + 20).astype(np.uint8)).save("c.png")


class Output(io.StringIO):
    """Text on top of bytes, as standard output has it."""

    def __init__(self):
        super().__init__()
        self.buffer = io.BytesIO()


def piped(arguments, monkeypatch, data=b""):
    """Run the command with bytes on standard input; return its code and what it wrote."""
    out = Output()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    monkeypatch.setattr(sys, "stdout", out)
    code = main(arguments)
    return code, out.buffer.getvalue(), out.getvalue()


@pytest.mark.jit
def test_what_was_found_travels_with_the_kernel(monkeypatch, capsys):
    code, data, text = piped(["estimate", "a.png", "b.png", "-o", "-"], monkeypatch)
    assert (code, text) == (0, "")
    assert "light: linear (sRGB decoded)" in capsys.readouterr().err
    with np.load(io.BytesIO(data), allow_pickle=False) as parts:
        assert str(parts["light"]) == "srgb"
        assert parts["kernel"].shape == parts["standard_errors"].shape == (3, 3)
        assert_allclose(parts["kernel"], BLUR, atol=2e-3)
    code, image, _ = piped(
        ["restore", "b.png", "--kernel", "-", "-o", "-", "--method", "inverse"], monkeypatch, data
    )
    assert code == 0
    assert "light: linear (sRGB decoded), for which the kernel was found" in capsys.readouterr().err
    found = np.asarray(Image.open(io.BytesIO(image)))
    # The same with the light said, and something else in the stored values.
    Path("k.npz").write_bytes(data)
    arguments = ["restore", "k.npz", "b.png", "--method", "inverse", "--transfer"]
    for transfer, same in {"srgb": True, "none": False}.items():
        assert main([*arguments, transfer, "-o", f"{transfer}.png"]) == 0
        said = np.asarray(Image.open(f"{transfer}.png"))
        assert np.array_equal(found, said) == same


@pytest.mark.jit
def test_what_was_found_explains_the_result():
    assert main(["estimate", "a.png", "b.png", "-o", "k.npz", "-q"]) == 0
    assert main(["apply", "k.npz", "a.png", "-o", "again.png", "-q"]) == 0
    again = np.asarray(Image.open("again.png")).astype(int)
    assert np.abs(again - BLURRED_IN_LIGHT).max() <= 1


def test_a_level_travels_with_the_kernel(capsys):
    command = ["estimate", "a.png", "c.png", "--size", "1", "--background", "constant"]
    assert main([*command, "-o", "k.npz"]) == 0
    found = read_kernel_file("k.npz")
    assert found.background == pytest.approx(20, abs=0.1)
    assert found.taps == pytest.approx(0.8, abs=1e-3)
    assert main(["apply", "k.npz", "a.png", "-o", "again.png"]) == 0
    assert (
        main(["restore", "k.npz", "c.png", "--keep-sum", "--method", "inverse", "-o", "back.png"])
        == 0
    )
    out = capsys.readouterr().out
    assert "found beside the kernel, is added" in out
    assert "found beside the kernel, is taken off" in out
    again, back = (np.asarray(Image.open(name)).astype(int) for name in ("again.png", "back.png"))
    assert np.abs(again - np.asarray(Image.open("c.png"))).max() <= 1
    assert np.abs(back - SCENE).max() <= 2
    assert main([*command, "-o", "k.npy"]) == 0
    told = capsys.readouterr().out
    assert "wrote 'k.npy' (the background is not in it; .npz would hold that)" in told


def test_a_correlation_is_turned_back():
    taps = np.arange(6.0).reshape(2, 3)
    np.savez("k.npz", kernel=taps, kind="correlation")
    assert_array_equal(read_kernel_file("k.npz").taps, taps[::-1, ::-1])


@pytest.mark.parametrize("kind", ["npy", "csv", "png", "tif"])
def test_a_kernel_comes_through_a_pipe(kind, monkeypatch):
    buffer = io.BytesIO()
    levels = np.array([[1, 2], [3, 4]], np.uint8)
    if kind == "npy":
        np.save(buffer, levels / 10)
    elif kind == "csv":
        buffer.write(b"0.1,0.2\n0.3,0.4\n")
    else:
        Image.fromarray(levels).save(buffer, {"png": "PNG", "tif": "TIFF"}[kind])
    code, image, _ = piped(
        ["apply", "-", "a.png", "-o", "-", "--format", "npy"], monkeypatch, buffer.getvalue()
    )
    assert code == 0
    np.save("k.npy", levels / 10)
    assert main(["apply", "k.npy", "a.png", "-o", "b.npy"]) == 0
    assert_array_equal(np.load(io.BytesIO(image)), np.load("b.npy"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "BMP", "PPM", "GIF", "NPY"])
def test_an_image_goes_through_a_pipe_in_its_own_format(kind, monkeypatch):
    buffer = io.BytesIO()
    pixels = np.stack([SCENE, SCENE.T, SCENE[::-1]], axis=-1)
    if kind == "NPY":
        np.save(buffer, pixels)
    elif kind == "GIF":
        Image.fromarray(SCENE).save(buffer, kind)
        pixels = SCENE
    else:
        options = {"lossless": True} if kind == "WEBP" else {}
        Image.fromarray(pixels).save(buffer, kind, **options)
    code, data, text = piped(["apply", "box:1", "-", "-o", "-"], monkeypatch, buffer.getvalue())
    assert (code, text) == (0, "")
    if kind == "NPY":
        assert_array_equal(np.load(io.BytesIO(data)), pixels)
    else:
        image = Image.open(io.BytesIO(data))
        assert image.format == ("PNG" if kind == "GIF" else kind)
        assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize(
    ("arguments", "data", "code", "message"),
    [
        (["apply", "box:1", "-", "-o", "new.png"], b"", 3, "standard input is empty"),
        (["apply", "box:1", "-", "-o", "new.png"], b"words", 3, "no image of a kind that is read"),
        (["apply", "-", "a.png", "-o", "b.png"], b"words", 3, "is not a table of numbers"),
        (["apply", "-", "a.png", "-o", "b.png"], b"PK\3\4", 3, "no kernel that estimate wrote"),
        (["apply", "box:1", "-", "-o", "out/"], b"x", 2, "has no name to be written to"),
        (["estimate", "-", "-"], b"x", 2, "standard input can be read once"),
        (["estimate", "a.png", "b.png", "-o", "-", "--json"], b"", 2, "both write to standard"),
        (["invert", "box:3", "--size", "5", "-o", "-", "--json"], b"", 2, "both write to standard"),
        (["apply", "box:3", "a.png", "-o", "-", "--json"], b"", 2, "both write to standard"),
        (["apply", "box:1", "-", "-o", "-", "--max-pixels", "9"], bytes(300), 3, "more than 288"),
    ],
)
def test_refusals(arguments, data, code, message, monkeypatch, capsys):
    found, written, text = piped(arguments, monkeypatch, data)
    err = capsys.readouterr().err
    assert message in err
    assert (found, written, text, err.count("\n")) == (code, b"", "", 1)


def test_no_image_on_a_terminal(monkeypatch, capsys):
    out = Output()
    out.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["apply", "box:1", "a.png", "-o", "-"]) == 4
    assert "standard output is a terminal" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", out)
    assert main(["apply", "box:1", "-", "-o", "new.png"]) == 3
    assert "standard input is the keyboard" in capsys.readouterr().err


@pytest.mark.jit
@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
def test_estimate_and_restore_in_one_pipe():
    fastkernel = f'"{sys.executable}" -m fastkernel.cli'
    command = (
        f"{fastkernel} estimate a.png b.png -o - -q | "
        f"{fastkernel} restore b.png --kernel - -o - -q > out.png"
    )
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, timeout=240, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    restored = np.asarray(Image.open("out.png")).astype(float)
    inside = (slice(8, -8),) * 2
    before = np.square(BLURRED_IN_LIGHT.astype(float) - SCENE)[inside].mean()
    assert np.square(restored - SCENE)[inside].mean() < 0.3 * before
