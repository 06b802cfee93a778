"""Files are written whole or not at all."""

import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from fastkernel import NormalEquations, normal_equations
from fastkernel._machine import files

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="modes and links differ")


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, rng):
    path, image = tmp_path / "equations.npz", rng.random((9, 9))
    first = normal_equations(image, image, 3)
    first.save(path)

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        normal_equations(image, image, 5).save(path)
    monkeypatch.undo()
    np.testing.assert_array_equal(NormalEquations.load(path).gram, first.gram)
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    def pressed(number):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", pressed)
    with pytest.raises(KeyboardInterrupt):
        files.write_whole(tmp_path / "new", b"data")
    assert not list(tmp_path.iterdir())


@POSIX
def test_modes_and_links_stay(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"old")
    file.chmod(0o600)
    link.symlink_to(file)
    files.write_whole(link, b"new")
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs /dev/null")
def test_a_device_is_written_to_and_not_replaced(rng):
    image = rng.random((9, 9))
    normal_equations(image, image, 3).save("/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
