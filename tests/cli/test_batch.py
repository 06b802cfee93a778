"""Many images in one process: names, refusals before the work, failures that stop no other."""

import json
import os
import re
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from scipy import ndimage

from fastkernel.cli import main, streams
from fastkernel.cli.scene import dead_leaves

SCENES = [dead_leaves(40, np.random.default_rng(seed)) for seed in range(3)]
BOX = np.ones((3, 3)) / 9


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("in").mkdir()
    for i, scene in enumerate(SCENES):
        Image.fromarray(scene).save(f"in/{i}.png")


def names_in(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def blurred(scene):
    return np.rint(ndimage.convolve(scene.astype(float), BOX, mode="nearest"))


def files():
    return [f"in/{i}.png" for i in range(3)]


@pytest.mark.parametrize(
    ("given", "output"),
    [(files(), "out/"), (files(), "out"), (["in"], "out"), (["in/0.png", "in"], "out")],
)
def test_images_keep_their_names_in_a_folder(given, output, capsys):
    code = main(["apply", "box:3", *given, "-o", output])
    if "in/0.png" in given and "in" in given:
        assert code == 2
        assert "'in/0.png' and 'in/0.png' would both be written" in capsys.readouterr().err
        assert not Path("out").exists()
        return
    assert code == 0
    assert names_in("out") == names_in("in")
    for i, scene in enumerate(SCENES):
        assert_array_equal(np.asarray(Image.open(f"out/{i}.png")), blurred(scene))
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("wrote")] == [
        f"wrote {str(Path('out', f'{i}.png'))!r}" for i in range(3)
    ]


def test_images_may_stand_on_both_sides_of_an_option():
    assert main(["apply", "box:3", "in/0.png", "-o", "out/", "in/1.png"]) == 0
    assert names_in("out") == ["0.png", "1.png"]


def test_a_kernel_named_by_its_option_leaves_images_alone():
    Path("restored").mkdir()
    assert main(["restore", *files(), "--kernel", "gaussian:1", "-o", "restored"]) == 0
    assert names_in("restored") == names_in("in")


def test_a_folder_of_images_may_hold_the_kernel():
    np.save("in/k.npy", BOX)
    Path("in/notes.txt").write_text("no image", encoding="utf-8")
    Path("in/.hidden.png").write_bytes(b"")
    assert main(["apply", "in/k.npy", "in", "-o", "out"]) == 0
    assert names_in("out") == ["0.png", "1.png", "2.png"]


def test_a_format_is_that_of_all(capsys):
    Image.fromarray(SCENES[0]).save("in/animal.gif")
    assert main(["apply", "box:1", "in", "-o", "out", "--format", "tif"]) == 0
    assert names_in("out") == ["0.tif", "1.tif", "2.tif", "animal.tif"]
    assert main(["apply", "box:1", "in/animal.gif", "-o", "out"]) == 0
    assert "animal.png" in names_in("out")


@pytest.mark.parametrize(
    ("make", "arguments", "code", "message"),
    [
        ("in2/0.PNG", ["in", "in2", "-o", "out"], 2, "would both be written to"),
        ("out/2.png", ["in", "-o", "out"], 4, "'out/2.png' exists; --force overwrites it"),
        (None, ["in", "-o", "in"], 4, "'in/0.png' is an input"),
        (None, ["in", "-o", "in", "--force"], 4, "'in/0.png' is an input"),
        (None, ["in", "-o", "all.png"], 2, "3 images need a folder to be written to"),
        (None, ["in", "-o", "-"], 2, "3 images need a folder to be written to"),
        ("other/0.txt", ["other", "-o", "out"], 3, "'other' holds no image"),
        ("file", ["in", "-o", "file/out"], 4, "'file/out' cannot be made: Not a directory"),
        (None, ["in", "-o", "out", "--float", "--quality", "5"], 2, "leave --float out"),
    ],
)
def test_nothing_is_done_where_a_file_could_be_lost(make, arguments, code, message, capsys):
    if make:
        Path(make).parent.mkdir(exist_ok=True)
        Path(make).write_bytes(b"mine")
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}
    assert main(["apply", "box:3", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    after = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}
    assert before == after


def test_a_failure_stops_no_other(capsys):
    Path("in/1.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    np.save("in/3.npy", np.ones((5, 5), complex))
    assert main(["apply", "box:3", "in", "-o", "out"]) == 3
    out, err = capsys.readouterr()
    assert names_in("out") == ["0.png", "2.png"]
    lines = err.splitlines()
    assert len(lines) == 2
    assert re.match("fastkernel: error: 'in/1.png' is damaged", lines[0])
    assert re.match("fastkernel: error: 'in/3.npy': its pixels are complex128", lines[1])
    assert out.count("wrote") == 2
    # What the first image could not be told is told with the next.
    Image.fromarray(np.full((3, 3), 9, np.uint8)).save("k.png")
    assert main(["apply", "--kernel", "k.png", "in/1.png", "in/0.png", "-o", "two"]) == 3
    assert "holds grey levels" in capsys.readouterr().out


def test_json_names_what_was_written_and_what_was_not(capsys):
    Path("in/1.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    assert main(["apply", "box:3", "in", "-o", "out", "--json"]) == 3
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert answer == {
        "written": [str(Path("out", name)) for name in ("0.png", "2.png")],
        "failed": [str(Path("in", "1.png"))],
        "notes": [],
    }
    assert err.count("\n") == 1


def test_one_bar_goes_over_all(monkeypatch, capsys):
    monkeypatch.setattr("fastkernel.cli.progress._PATIENCE", 0)
    monkeypatch.setattr("fastkernel.cli.progress._PAUSE", 0)
    monkeypatch.setattr(streams.Stream, "isatty", lambda _: True)
    monkeypatch.setenv("NO_COLOR", "1")
    command = ["restore", "gaussian:1", "in", "-o", "out", "--method", "richardson_lucy"]
    assert main(command) == 0
    shares = [int(share) for share in re.findall(r"(\d+)% \d/3", capsys.readouterr().err)]
    assert len(shares) > 6
    assert shares == sorted(shares)
    assert shares[0] < 5
    assert shares[-1] > 60


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_what_is_overwritten_keeps_its_mode():
    Path("out").mkdir()
    for name, mode in {"0.png": 0o600, "1.png": 0o640}.items():
        Path("out", name).write_bytes(b"old")
        Path("out", name).chmod(mode)
    umask = os.umask(0o022)
    try:
        assert main(["apply", "box:3", "in", "-o", "out", "--force"]) == 0
    finally:
        os.umask(umask)
    modes = [stat.S_IMODE(Path("out", f"{i}.png").stat().st_mode) for i in range(3)]
    assert modes == [0o600, 0o640, 0o644]
    assert_array_equal(np.asarray(Image.open("out/0.png")), blurred(SCENES[0]))
