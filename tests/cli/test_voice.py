"""How much is said, in which colours and how wide; and what a shell completes."""

import argparse
import io
import os
import re
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from fastkernel._typing import Boundary, Symmetry
from fastkernel.cli import main, options, streams, words
from fastkernel.cli.kernels import _BLURS
from fastkernel.cli.progress import ProgressBar
from fastkernel.cli.scene import dead_leaves
from fastkernel.cli.voice import Voice

SCENE = dead_leaves(64, np.random.default_rng(3))
COMMANDS = ("estimate", "demo", "apply", "restore", "invert", "match", "doctor", "completion")
# Whatever a terminal shows without a place of its own.
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    Image.fromarray(SCENE).save("a.png")
    blurred = ndimage.uniform_filter(SCENE.astype(float), 3)
    Image.fromarray(np.rint(blurred).astype(np.uint8)).save("b.png")
    Image.fromarray(ndimage.median_filter(SCENE, 5)).save("c.png")


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(streams.Stream, "isatty", lambda _: True)


RUNS = {
    "estimate": ["estimate", "a.png", "b.png", "--size", "3", "-o", "k.npz"],
    "found": ["estimate", "a.png", "b.png"],
    "apply": ["apply", "box:3", "a.png", "-o", "x.png"],
    "restore": ["restore", "box:3", "b.png", "-o", "y.png"],
    "invert": ["invert", "gaussian:0.7", "--size", "7", "-o", "g.npy"],
    "demo": ["demo", "--size", "32"],
    "doctor": ["doctor"],
}


# Those that look for something go over the pixels many times.
BY_RUN = pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.jit) if c in {"found", "restore"} else c for c in RUNS],
)


@BY_RUN
@pytest.mark.parametrize("columns", [40, 80])
def test_lines_fit_the_terminal(case, columns, terminal, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(RUNS[case]) == 0
    lines = ESCAPES.sub("", capsys.readouterr().out).splitlines()
    assert lines
    for line in lines:
        # Words are never cut, nor is a command that is there to be copied.
        assert len(line) <= columns or len(line.split()) < 3 or line.startswith("try:"), line


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_readable_in_40_columns(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    assert main([command, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: fastkernel {command}")
    assert max(map(len, lines[: lines.index("")])) <= 40
    assert max(map(len, lines)) <= 48  # an option and its value stay on one line
    assert np.mean([len(line) > 40 for line in lines]) < 0.05


def test_a_file_gets_whole_lines_and_no_colours(capsys):
    assert main(RUNS["estimate"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert any(len(line) > 80 and line.startswith("verdict: ") for line in out.splitlines())


@pytest.mark.parametrize(("result", "colour"), [("b.png", "\x1b[32m"), ("c.png", "\x1b[1;31m")])
def test_a_verdict_has_the_colour_of_its_belief(result, colour, terminal, monkeypatch, capsys):
    command = ["estimate", "a.png", result, "--size", "3"]
    assert main(command) == 0
    assert f"verdict:{colour}" in capsys.readouterr().out
    for name, value in {"NO_COLOR": "1", "TERM": "dumb"}.items():
        with monkeypatch.context() as context:
            context.setenv(name, value)
            assert main(command) == 0
            assert "\x1b" not in capsys.readouterr().out


def test_an_error_is_red_on_a_terminal(terminal, capsys):
    assert main(["apply", "box:3", "none.png", "-o", "x.png"]) == 3
    assert capsys.readouterr().err.startswith("\x1b[1;31mfastkernel: error:\x1b[0m 'none.png'")


def test_an_error_is_broken_at_words_for_a_terminal_alone(terminal, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    command = ["apply", "box:3", "none.png", "-o", "x.png"]
    assert main(command) == 3
    broken = ESCAPES.sub("", capsys.readouterr().err)
    assert max(map(len, broken.splitlines())) <= 40
    monkeypatch.setattr(streams.Stream, "isatty", lambda _: False)
    assert main(command) == 3
    assert capsys.readouterr().err == broken.replace("\n  ", " ")


@BY_RUN
def test_quiet_says_nothing(case, capsys):
    assert main([*RUNS[case], "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_verbose_says_what_was_used_and_how_long_it_took(capsys):
    assert main([*RUNS["estimate"], "--verbose"]) == 0
    err = capsys.readouterr().err
    for phase in ("reading", "fitting", "judging", "advising", "writing k.npz"):
        assert re.search(
            rf"^{phase}: \d+\.\d{{3}} s \(\d+\.\d{{3}} s of processor\)$", err, re.MULTILINE
        )
    assert "method: lstsq, solver: cholesky, engine of the sums: integer\n" in err
    assert main([*RUNS["apply"], "-v"]) == 0
    assert "engine: direct\n" in capsys.readouterr().err
    assert main([*RUNS["apply"], "-v", "-q"]) == 2


@pytest.mark.jit
def test_the_bar_is_one_and_fits(terminal, monkeypatch, capsys):
    monkeypatch.setattr("fastkernel.cli.progress._PATIENCE", 0)
    monkeypatch.setattr("fastkernel.cli.progress._PAUSE", 0)
    monkeypatch.setenv("COLUMNS", "40")
    assert main([*RUNS["found"]]) == 0
    drawn = capsys.readouterr().err.split("\r")
    shares = [int(share) for share in re.findall(r"(\d+)%", " ".join(drawn))]
    assert shares == sorted(shares)
    labels = [re.sub(r".*% ", "", state).strip() for state in drawn if "%" in state]
    assert list(dict.fromkeys(labels)) == ["reading", "fitting", "judging", "advising"]
    assert max(map(len, drawn)) < 40
    assert main([*RUNS["found"], "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_words_go_to_standard_error_where_a_file_takes_standard_output(capsys):
    voice = Voice(argparse.Namespace(quiet=False, verbose=False), aside=True)
    voice.say("one")
    voice.fact("name", "two")
    assert capsys.readouterr() == ("", "one\nname: two\n")


def test_a_bar_never_goes_back():
    bar = ProgressBar()
    bar.over("one", 0.0, 0.5)
    bar(9, 10)
    bar(1, 10)
    assert bar.share == 0.45
    bar.over("two", 0.5, 1.0)
    bar(20, 10)
    assert bar.share == 1.0


def test_words_are_those_of_the_library():
    assert set(words.BOUNDARIES) == set(get_args(Boundary))
    assert set(words.SYMMETRIES) == set(get_args(Symmetry))
    assert set(words.BLURS) == set(_BLURS)


@pytest.mark.parametrize("spelling", ["richardson_lucy", "richardson-lucy"])
def test_a_method_has_one_name_everywhere(spelling):
    for command in (RUNS["restore"], RUNS["found"]):
        found = options.read_options([*command, "--method", spelling])
        assert found.method == "richardson_lucy"


@pytest.mark.parametrize("shell", words.SHELLS)
def test_completion_is_printed(shell, capsys):
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert "fastkernel" in out
    assert {"bash": "complete ", "zsh": "compdef", "fish": "complete --command"}[shell] in out


def test_completion_needs_argcomplete(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert main(["completion", "bash"]) == 4
    assert "pip install 'fastkernel[cli]'" in capsys.readouterr().err
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    assert main(["doctor"]) == 0


@pytest.mark.jit
@pytest.mark.skipif(sys.platform == "win32", reason="descriptors of POSIX")
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("fastkernel ", set(COMMANDS)),
        ("fastkernel res", {"restore"}),
        ("fastkernel restore --method ", {"wiener", "richardson_lucy", "inverse"}),
        ("fastkernel apply box:3 ", {"a.png", "b.png", "c.png"}),
        ("fastkernel completion ", set(words.SHELLS)),
    ],
)
def test_what_a_shell_completes(line, wanted, tmp_path):
    """As the lines of argcomplete ask: in the environment, and answered on a file."""
    answer = tmp_path / "answer"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "_ARGCOMPLETE_IFS": "\n",
    }
    code = "import sys; sys.argv = ['fastkernel']; from fastkernel.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, timeout=60, check=True, text=True
    )
    found = {word.strip() for word in answer.read_text(encoding="utf-8").split("\n")}
    assert wanted <= found
    assert len(found) < len(wanted) + 30


@pytest.mark.jit
def test_completion_imports_nothing_heavy():
    code = (
        "import sys, fastkernel.cli.options\n"
        "print([name for name in ('numpy', 'numba', 'scipy', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


def test_standard_output_that_is_no_file_takes_no_bytes(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert main([*RUNS["apply"][:3], "-o", "-"]) == 4
    assert "standard output: it is closed" in capsys.readouterr().err
