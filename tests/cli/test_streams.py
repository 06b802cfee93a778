"""Standard streams that are closed, full or poor, and folders that are gone."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastkernel.cli import main
from fastkernel.cli.streams import Stream

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="streams of POSIX")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.random.default_rng(0).random((40, 40)) * 255)


def run(arguments, redirection, **environment):
    command = f'"{sys.executable}" -m fastkernel.cli {arguments} {redirection}'
    return subprocess.run(
        ["sh", "-c", command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | environment,
    )


APPLY = "apply a.npy box:3 -o b.npy"
ESTIMATE = "estimate a.npy a.npy --size 3"


@pytest.mark.jit
@pytest.mark.parametrize(
    ("arguments", "redirection", "code", "written", "said"),
    [
        (APPLY, ">&-", 0, "b.npy", ""),
        (APPLY, "2>&-", 0, "b.npy", ""),
        (APPLY, "<&- >&- 2>&-", 0, "b.npy", ""),
        (APPLY, ">/dev/full", 0, "b.npy", ""),
        (f"{ESTIMATE} -o k.npy", ">/dev/full 2>/dev/full", 0, "k.npy", ""),
        (ESTIMATE, ">&-", 4, None, "fastkernel: error: standard output: it is closed\n"),
        (ESTIMATE, "2>/dev/full >/dev/full", 4, None, ""),
        ("apply no.npy box:3 -o b.npy", "2>&-", 3, None, ""),
        ("apply no.npy box:3 -o b.npy", "2>/dev/full", 3, None, ""),
        ("apply a.npy", "2>/dev/full", 2, None, ""),
        ("--version", ">/dev/full", 4, None, "standard output: No space left on device\n"),
    ],
)
def test_the_exit_code_tells_of_the_output(arguments, redirection, code, written, said):
    if "/dev/full" in redirection and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    done = run(arguments, redirection)
    assert done.returncode == code
    assert done.stderr.endswith(said)
    assert bool(done.stderr) == bool(said)
    assert {path.name for path in Path().iterdir()} - {"a.npy"} == ({written} if written else set())
    if written:
        np.load(written)


@pytest.mark.jit
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1:strict"])
def test_a_name_that_the_stream_cannot_spell(encoding):
    done = run("apply a.npy box:3 -o 写真.npy", "", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("写真.npy").exists()
    assert done.stdout == "wrote '\\u5199\\u771f.npy'\n"


@pytest.mark.jit
def test_a_folder_that_is_gone(tmp_path):
    Path("gone").mkdir()
    inside = f'cd gone && rmdir ../gone && "{sys.executable}" -m fastkernel.cli'
    for arguments in (f"apply {tmp_path}/a.npy box:3 -o z.npy", f"estimate {tmp_path}/a.npy b 3"):
        Path("gone").mkdir(exist_ok=True)
        done = subprocess.run(
            ["sh", "-c", f"{inside} {arguments}"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode in {2, 4}
        assert done.stderr.startswith("fastkernel: error: ")
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)


def test_a_kernel_and_its_figure_are_two_files(capsys, monkeypatch):
    monkeypatch.setattr("fastkernel.cli.estimate.read_picture", None)  # the work would call it
    monkeypatch.setattr("fastkernel.cli.invert.read_kernel", None)
    Path("link.png").symlink_to("k.png")
    Path("sub").mkdir()
    for command in ("estimate a.npy a.npy --size 3", "invert box:3 --size 3"):
        for plot in ("k.png", "./k.png", "sub/../k.png", "link.png", str(Path.cwd() / "k.png")):
            arguments = [*command.split(), "-o", "k.png", "--plot", plot, "--force"]
            assert main(arguments) == 2
            out, err = capsys.readouterr()
            assert out == ""
            assert "-o and --plot both write 'k.png'; give the figure another name" in err
            assert not Path("k.png").exists()


def test_a_stream_keeps_what_went_wrong():
    class Poor(io.StringIO):
        encoding = "ascii"

        def flush(self):
            raise OSError(28, "No space left on device")

    behind = Poor()
    stream = Stream(behind)
    stream.write("aé")
    assert (behind.getvalue(), stream.problem) == ("a\\xe9", None)
    stream.flush()
    stream.write("more")
    assert stream.problem.errno == 28
    assert behind.getvalue() == "a\\xe9"
    closed = Stream(None)
    assert not closed.isatty()
    closed.write("lost")
    assert closed.problem is not None
