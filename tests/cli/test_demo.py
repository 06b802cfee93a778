import re
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy.signal import convolve

from fastkernel.cli import doctor, main
from fastkernel.cli.demo import TRUTH
from fastkernel.cli.scene import dead_leaves

FILES = {"source.png", "result.png", "kernel.npy", "kernel.png", "figure.png"}


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def names_in(folder):
    return {path.name for path in Path(folder).iterdir()}


def pixels_of(name):
    with Image.open(f"fastkernel-demo/{name}") as image:
        return np.array(image)


def test_demo_recovers_its_kernel(capsys):
    assert main(["demo", "--size", "96"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert names_in("fastkernel-demo") == FILES
    kernel = np.load("fastkernel-demo/kernel.npy")
    assert_allclose(kernel, TRUTH, atol=2e-3)

    source, result, picture = map(pixels_of, ("source.png", "result.png", "kernel.png"))
    assert source.shape == result.shape == (96, 96)
    valid = convolve(source.astype(float), TRUTH, mode="valid", method="direct")
    assert_array_equal(result[2:-2, 2:-2], np.rint(valid))
    assert max(picture.shape) >= 256

    lines = out.splitlines()
    assert lines[0].split() == ["true", "kernel", "estimated", "kernel"]
    table = np.array([line.split() for line in lines[1:6]], float)
    assert_allclose(table[:, :5], TRUTH, atol=1e-4)
    assert_allclose(table[:, 5:], kernel, atol=1e-4)
    largest = re.search(r"largest difference: ([^,]+),", out)[1]
    assert float(largest) == pytest.approx(np.abs(kernel - TRUTH).max(), rel=0.1)

    command = re.search(r"^try: fastkernel (.+)$", out, re.MULTILINE)[1]
    assert main(command.split()) == 0
    assert "verdict: believe it: " in capsys.readouterr().out


def test_demo_spares_what_exists(capsys):
    folder = Path("deep/folder")
    folder.mkdir(parents=True)
    (folder / "kernel.npy").write_bytes(b"mine")
    arguments = ["demo", "--size", "32", "-o", str(folder)]
    assert main(arguments) == 4
    assert "'deep/folder/kernel.npy' exists; --force overwrites it" in capsys.readouterr().err
    assert names_in(folder) == {"kernel.npy"}
    assert main([*arguments, "--force"]) == 0
    assert names_in(folder) == FILES
    Path("file").write_bytes(b"")
    assert main(["demo", "--size", "32", "-o", "file"]) == 4
    assert "'file' cannot be made: " in capsys.readouterr().err


def test_demo_without_matplotlib_or_pillow(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["demo", "--size", "32"]) == 0
    assert "no figure.png: figures need matplotlib: pip install 'fastkernel[plot]'\n" in (
        capsys.readouterr().out
    )
    assert names_in("fastkernel-demo") == FILES - {"figure.png"}
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert main(["demo", "--size", "32", "-o", "other"]) == 4
    assert "pip install 'fastkernel[cli]'" in capsys.readouterr().err
    assert not Path("other").exists()


def test_truth_is_alike_under_no_flip_and_no_turn():
    views = [np.rot90(kernel, turn) for kernel in (TRUTH, TRUTH.T) for turn in range(4)]
    assert all(not np.array_equal(TRUTH, view) for view in views[1:])
    assert TRUTH.sum() == 1


@pytest.mark.parametrize("side", [1, 5, 40, 128])
def test_scene_is_covered_and_repeatable(side):
    scene = dead_leaves(side, np.random.default_rng(5))
    assert (scene.shape, scene.dtype) == ((side, side), np.uint8)
    assert_array_equal(scene, dead_leaves(side, np.random.default_rng(5)))
    if side == 128:
        assert 90 < scene.mean() < 165
        assert len(np.unique(scene)) > 200


def test_doctor_says_what_a_report_needs(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for package in ("python", "numpy", "scipy", "numba", "pyfftw", "pillow", "tifffile"):
        assert re.search(rf"^{package} \d", out, re.MULTILINE)
    assert re.search(r"^processor: .+, \d+ usable cores$", out, re.MULTILINE)
    assert re.search(r"^Numba cache: .+$", out, re.MULTILINE)
    assert "FFTW, which is GPL" in out


def test_doctor_warns_of_a_shared_cache(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_cache_path", lambda: tmp_path)
    tmp_path.chmod(0o777)
    assert main(["doctor"]) == 0
    assert "others may write there" in capsys.readouterr().out
    cache = tmp_path / "loops"
    cache.mkdir(0o755)
    monkeypatch.setattr(doctor, "_cache_path", lambda: cache)
    assert main(["doctor"]) == 0
    assert f"others may write in {str(tmp_path)!r} above it" in capsys.readouterr().out
    tmp_path.chmod(0o1777)
    assert main(["doctor"]) == 0
    assert "others may write" not in capsys.readouterr().out
    monkeypatch.setattr(doctor, "_cache_path", lambda: None)
    monkeypatch.setattr(doctor, "_PACKAGES", ("no-such-package",))
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "no-such-package not installed\n" in out
    assert "Numba cache: none\n" in out
