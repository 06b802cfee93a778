"""``fastkernel estimate`` told nothing but two files."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from fastkernel import psf
from fastkernel._images.levels import decode, encode
from fastkernel.cli import main
from tests import naive
from tests.shared import photo

BLUR = psf.gaussian((3, 5), 0.9)
SHARP = np.array([[0, -0.6, 0], [-0.6, 3.4, -0.6], [0, -0.6, 0]])


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture(scope="module")
def picture():
    return photo()[100:196, 150:250].astype(np.uint8)


def estimate(capsys, source, result, *more):
    """What is printed about two images, which are rounded to files of 8 bits."""
    for name, image in (("a.png", source), ("b.png", result)):
        Image.fromarray(np.rint(image).clip(0, 255).astype(np.uint8)).save(name)
    code = main(["estimate", "a.png", "b.png", *more])
    told = capsys.readouterr()
    return code, told.out + told.err


def same(image, kernel, rule="mirror"):
    return naive.filtered(image, kernel, "same", rule)


def test_size_and_border(picture, capsys):
    code, told = estimate(capsys, picture, same(picture, BLUR, "circular"), "-o", "k.npy")
    assert code == 0
    assert told.startswith("3x5 kernel")
    assert "size: found; smaller ones leave" in told
    assert "offset: none\nborder: circular, found\n" in told
    assert "verdict: believe it:" in told
    assert_allclose(np.load("k.npy"), BLUR, atol=2e-3)


@pytest.mark.jit
def test_a_moved_result_with_gain_and_level(picture, capsys):
    after = 0.8 * same(picture, BLUR) + 15
    _, told = estimate(capsys, picture[12:, :-9], after[:-12, 9:], "-o", "k.npy")
    assert told.startswith("3x5 kernel")
    assert "offset: found: the result was moved down by 12 and to the left by 9;" in told
    assert "beside the convolution: a level, found; without it" in told
    assert "background: 15" in told.replace("14.9", "15").replace("15.0", "15")
    assert "border" not in told
    assert_allclose(np.load("k.npy"), 0.8 * BLUR, atol=4e-3)


@pytest.mark.jit
def test_linear_light(picture, capsys):
    result = encode(same(decode(picture, 255), BLUR), 255)
    _, told = estimate(capsys, picture, result, "-o", "k.npy")
    assert "light: linear (sRGB decoded); stored values would leave a residual of" in told
    assert_allclose(np.load("k.npy"), BLUR, atol=5e-3)
    _, told = estimate(capsys, picture, result, "--transfer", "srgb")
    assert told.startswith("3x5 kernel")
    assert "light: linear (sRGB decoded)\n" in told


@pytest.mark.jit
def test_clipped_pixels_are_left_out(picture, capsys):
    picture = (1.15 * picture).clip(0, 255).astype(np.uint8)
    after = same(picture, SHARP)
    assert np.mean((after < 0) | (after > 255)) > 0.04
    _, told = estimate(capsys, picture, after, "-o", "k.npy")
    assert told.startswith("3x3 kernel")
    assert "of the pixels were left out" in told
    assert_allclose(np.load("k.npy"), SHARP, atol=3e-3)


@pytest.mark.jit
def test_clipped_light_is_left_out(picture, capsys):
    after = encode(same(decode(picture, 255), SHARP), 255)
    _, told = estimate(capsys, picture, after, "-o", "k.npy")
    assert told.startswith("3x3 kernel")
    assert "of the pixels were left out" in told
    assert_allclose(np.load("k.npy"), SHARP, atol=3e-2)


@pytest.mark.jit
def test_colours(picture, capsys):
    colours = np.stack([picture, picture[::-1], picture[:, ::-1]], axis=-1)
    after = np.stack([same(colours[..., i], BLUR) for i in range(3)], axis=-1)
    _, told = estimate(capsys, colours[:, 7:], after[:, :-7])
    assert told.startswith("3x5 kernel")
    assert "moved down by 0 and to the right by 7" in told
    assert "channels counted apart" in told


@pytest.mark.jit
def test_a_valid_pair_of_a_larger_kernel(picture, capsys):
    _, told = estimate(capsys, picture, naive.convolve(picture, np.pad(BLUR, 1)))
    assert told.startswith("3x5 kernel")
    _, told = estimate(capsys, picture, naive.convolve(picture, BLUR))
    assert told.startswith("3x5 kernel")
    assert "may be larger" not in told


@pytest.mark.jit
def test_strangers(picture, capsys, rng):
    _, told = estimate(capsys, picture, rng.integers(0, 256, picture.shape))
    assert "offset: not found: nothing in the result clearly goes with the source" in told
    assert "verdict: do not believe it" in told


@pytest.mark.jit
def test_what_made_the_border_is_none_of_the_rules(picture, capsys):
    _, told = estimate(capsys, picture[8:-8, 8:-8], same(picture, psf.box(5))[8:-8, 8:-8])
    assert "border: made by none of the rules that are known" in told


@pytest.mark.jit
def test_what_is_told_is_taken(picture, capsys):
    after = 0.8 * same(picture, BLUR) + 15
    _, told = estimate(capsys, picture, after, "--boundary", "mirror", "--background", "1")
    assert told.startswith("3x5 kernel")
    assert "offset" not in told
    assert "border" not in told
    assert f"pixels fitted: {picture.size}\n" in told
    more = ("-k", "3x5", "--offset=-6,4", "--background", "auto")
    _, told = estimate(capsys, picture[:-6, 4:], after[6:, :-4], *more)
    assert "size: found" not in told
    assert "beside the convolution: a level, found" in told
    assert "verdict: believe it:" in told
    _, told = estimate(capsys, picture[:-6, 4:], after[6:, :-4], "-k", "3x5", "--offset", "auto")
    assert "moved up by 6 and to the right by 4" in told


@pytest.mark.jit
def test_as_json(picture, capsys):
    after = same(picture, BLUR)
    _, told = estimate(capsys, picture[5:], after[:-5], "--json")
    found = json.loads(told)["found"]
    assert found["kernel_shape"] == [3, 5]
    assert found["offset"]["offset"] == [5, 0]
    assert found["boundary"]["boundary"] is None
    assert found["smaller_ones_leave"] > 1


@pytest.mark.jit
@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--offset", "5"], 2, "expected auto, or rows and columns as in 5,-3"),
        (["--offset", "1,2", "--boundary", "mirror"], 3, "boundary must be None for offset=(1, 2)"),
        (["--offset", "500,0"], 3, "offset must be smaller than the images, got (500, 0)"),
        (["--background", "auto", "--transfer", "srgb"], 0, "light: linear"),
    ],
)
def test_refusals(picture, capsys, more, code, message):
    found, told = estimate(capsys, picture, picture, *more)
    assert found == code
    assert message in told


def test_a_flat_source(capsys):
    code, told = estimate(capsys, np.full((40, 40), 9), np.full((40, 40), 9))
    assert code == 1
    assert "the source is flat" in told
