"""``fastkernel estimate --report`` and ``--json``."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy import ndimage

from fastkernel import KernelFit, psf
from fastkernel.cli import main, output
from fastkernel.cli.estimate import _as_options
from fastkernel.cli.output import json_text
from fastkernel.cli.scene import dead_leaves

SCENE = dead_leaves(80, np.random.default_rng(3))
COLOUR = np.stack([dead_leaves(64, np.random.default_rng(seed)) for seed in range(3)], axis=-1)
BLUR = psf.gaussian(3, 0.7)
ASKED = ["estimate", "a.png", "b.png", "--size", "3"]


def blurred(image):
    exact = ndimage.convolve(image.astype(float), BLUR, mode="mirror")
    return np.rint(exact).clip(0, 255).astype(np.uint8)


@pytest.fixture
def save(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def save(name, pixels):
        np.save(name, pixels) if name.endswith(".npy") else Image.fromarray(pixels).save(name)

    return save


@pytest.fixture
def pair(save):
    save("a.png", SCENE)
    save("b.png", blurred(SCENE))


def answer(arguments, capsys):
    assert main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def failure(arguments, capsys):
    before = sorted(path.name for path in Path().iterdir())
    code = main(arguments)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"fastkernel: error: [^\n]+\n", err)
    assert sorted(path.name for path in Path().iterdir()) == before
    return code, err


def test_json_holds_what_was_found_in_full(pair, capsys):
    found = answer([*ASKED, "-o", "kernel.npy"], capsys)
    assert_array_equal(found["kernel"], np.load("kernel.npy"))
    assert_allclose(found["kernel"], BLUR, atol=2e-3)
    errors = np.array(found["standard_errors"])
    assert errors.shape == (3, 3)
    assert (np.abs(found["kernel"] - BLUR) < 6 * errors).all()
    assert found["written"] == ["kernel.npy"]
    assert found["found"] == {
        "kernel_shape": [3, 3],
        "smaller_ones_leave": None,
        "light": "stored",
        "background": None,
        "ridge": 0.0,
    }
    assert found["residual"]["unit"] == "grey level"
    assert found["residual"]["n_pixels"] == 78 * 78
    predicted = ndimage.convolve(SCENE.astype(float), np.array(found["kernel"]))
    left = (blurred(SCENE) - predicted.clip(0, 255))[1:-1, 1:-1]
    assert found["residual"]["rms"] == pytest.approx(np.sqrt(np.mean(left**2)), rel=1e-9)
    verdict = found["verdict"]
    assert verdict["belief"] == "believe it"
    assert verdict["explained"] is True
    assert verdict["reasons"][0].startswith("nothing but rounding is left unexplained")
    assert verdict["helps"] == []
    assert verdict["facts"]["rms"] == found["residual"]["rms"]


def test_json_says_null_where_nothing_is_known(pair, capsys):
    found = answer([*ASKED, "--method", "fft"], capsys)
    assert found["standard_errors"] == [[None] * 3] * 3
    assert found["method"] == "fft"
    assert "this method knows no error bars" in found["verdict"]["reasons"]
    assert "--method lstsq, which knows them" in found["verdict"]["helps"]


def test_json_of_a_flipped_and_scaled_kernel(pair, capsys):
    save = answer(ASKED, capsys)
    found = answer([*ASKED, "--correlation", "--normalize"], capsys)
    assert (found["kind"], found["normalized"]) == ("correlation", True)
    want = np.array(save["kernel"])[::-1, ::-1]
    assert_allclose(found["kernel"], want / want.sum(), rtol=1e-12)


def test_json_and_text_have_the_same_verdict_and_exit_code(save, capsys):
    save("a.png", SCENE)
    save("b.png", ndimage.median_filter(SCENE, 5))
    found = answer(ASKED, capsys)
    assert main(ASKED) == 0
    line = re.search(r"^verdict: (.*)$", capsys.readouterr().out, re.MULTILINE)[1]
    helps = [f"what would help: {text}" for text in found["verdict"]["helps"]]
    said = [f"{found['verdict']['belief']}: {'; '.join(found['verdict']['reasons'])}", *helps]
    assert line == "; ".join(said)
    assert main([*ASKED, "--json", "--strict"]) == 5
    out, err = capsys.readouterr()
    assert json.loads(out)["verdict"]["belief"] == "do not believe it"
    assert "not to be believed" in err


@pytest.mark.parametrize("background", ["constant", "1"])
def test_json_of_channels_and_their_backgrounds(save, capsys, background):
    save("a.png", COLOUR)
    save("b.png", np.stack([blurred(COLOUR[..., c]) // 2 + 20 for c in range(3)], axis=-1))
    found = answer([*ASKED, "--background", background], capsys)
    levels = np.array(found["found"]["background"])
    assert levels.shape == ((3,) if background == "constant" else (3, 2, 2))
    assert_allclose(levels if levels.ndim == 1 else levels[:, 0, 0], 19.75, atol=1)


@pytest.mark.jit
def test_a_page_is_written(pair, capsys):
    assert main([*ASKED, "--report", "report.html"]) == 0
    out = capsys.readouterr().out
    assert out.endswith("wrote 'report.html'\n")
    text = Path("report.html").read_text(encoding="utf-8")
    assert "<title>3×3 kernel from a.png to b.png</title>" in text
    assert "✓ believe it" in text
    assert len(re.findall("<svg ", text)) == 8
    assert len(text) < 1_000_000


def test_a_report_of_colour_is_of_all_channels(save, capsys):
    save("a.png", COLOUR)
    save("b.png", np.stack([blurred(COLOUR[..., c]) for c in range(3)], axis=-1))
    found = answer([*ASKED, "--report", "report.txt"], capsys)
    text = Path("report.txt").read_text(encoding="utf-8")
    assert f"verdict: {found['verdict']['belief']}\n" in text
    assert f"over {3 * 62 * 62} pixels" in text
    assert found["written"] == ["report.txt"]


def test_a_report_in_linear_light_says_so(pair):
    assert main([*ASKED, "--transfer", "srgb", "--report", "report.txt"]) == 0
    first, second, *_ = Path("report.txt").read_text(encoding="utf-8").splitlines()
    assert first == "3×3 kernel from a.png to b.png in linear light"
    assert second.startswith("verdict: ")


def test_a_report_is_not_overwritten(pair, capsys):
    Path("report.txt").write_text("old")
    code, line = failure([*ASKED, "--report", "report.txt"], capsys)
    assert (code, "'report.txt' exists; --force overwrites it" in line) == (4, True)
    assert Path("report.txt").read_text() == "old"
    assert main([*ASKED, "--report", "report.txt", "--force"]) == 0
    assert Path("report.txt").read_text(encoding="utf-8").startswith("3×3 kernel")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (
            ["--report", "r.pdf"],
            4,
            "'r.pdf' has none of the suffixes a report is written to: .html",
        ),
        (["--report", "gone/r.html"], 4, "'gone/r.html' cannot be written: No such file"),
        (["--report", "r.txt", "--plot", "r.txt"], 2, "--plot and --report both write 'r.txt'"),
        (["--report", "r.png", "-o", "r.png"], 2, "-o and --report both write 'r.png'"),
        (
            ["-o", "r.png", "--plot", "r.png"],
            2,
            "-o and --plot both write 'r.png'; give the figure",
        ),
    ],
)
def test_refusals_of_a_report(pair, capsys, arguments, code, says):
    got, line = failure([*ASKED, *arguments], capsys)
    assert got == code
    assert says in line


def test_an_input_is_no_report(save, capsys):
    save("a.npy", SCENE)
    Path("b.txt").symlink_to("a.npy")
    code, line = failure(["estimate", "a.npy", "a.npy", "--size", "3", "--report", "b.txt"], capsys)
    assert (code, "is an input; give the output another name" in line) == (4, True)


def test_a_page_needs_matplotlib(pair, capsys, monkeypatch):
    find = output.importlib.util.find_spec
    monkeypatch.setattr(
        output.importlib.util,
        "find_spec",
        lambda name: None if name == "matplotlib" else find(name),
    )
    code, line = failure([*ASKED, "--report", "r.html"], capsys)
    assert (code, "figures need matplotlib: pip install 'fastkernel[plot]'" in line) == (4, True)
    assert main([*ASKED, "--report", "r.txt"]) == 0


def test_nothing_is_left_of_a_report_that_fails(pair, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(KernelFit, "report", fail)
    assert main([*ASKED, "--report", "r.txt"]) == 3
    assert not Path("r.txt").exists()


def test_arguments_become_options():
    known = {"size": 5, "method": "lstsq", "background": None}
    helps = [
        "try kernel_shape=(5, 17)",
        'background="constant": the residual has a mean of 3',
        'method="lad", which few wrong pixels cannot pull away',
        'unheard_of="auto", which the command does not have',
        "more iterations",
    ]
    want = [
        "try --size 5x17",
        "--background constant: the residual has a mean of 3",
        "--method lad, which few wrong pixels cannot pull away",
        "more iterations",
    ]
    assert _as_options(helps, known, "") == want
    assert _as_options(helps, known, "--method lad, which others said before") == [
        want[0],
        want[1],
        want[3],
    ]


def test_json_of_numbers():
    value = {"a": np.float64(0.1), 1: [np.nan, -np.inf, np.int64(3)], "c": (True, None, "é")}
    assert json_text(value) == '{"a": 0.1, "1": [null, null, 3], "c": [true, null, "\\u00e9"]}'
