"""README is followed to the letter, from its first line to its last, in one fresh folder."""

import contextlib
import doctest
import importlib.util
import io
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from bench import front
from fastkernel.cli import main

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
if not README.exists():
    pytest.skip("an installed package has no README beside it", allow_module_level=True)
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
# What these do is done before, or while, the tests run.
DONE = ("python -m pip install ", "python -m pytest")


def run(command):
    """Run a command as the shell would, and return what it prints; without a new process."""
    name, *arguments = shlex.split(command)
    assert name == "fastkernel"
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    problem = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(problem):
        code = main(arguments)
    assert code == 0, f"{command}\n{problem.getvalue()}"
    printed.flush()
    return printed.buffer.getvalue().decode()


def follow_shell(block):
    for line in block.replace("\\\n", "").splitlines():
        for command in line.split(" && "):
            if not command.startswith(DONE):
                run(command)


def follow_console(block):
    """Commands after ``$``, and what they print; ``...`` stands for lines that are left out."""
    for one in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, wanted = one.partition("\n")
        found = run(command)
        same = doctest.OutputChecker().check_output(wanted, found, doctest.ELLIPSIS)
        assert same, f"{command}\n{found}"


def follow_python(block):
    if "fastkernel.dask" in block and not importlib.util.find_spec("fastkernel.dask"):
        return  # this package was built without its part for clusters
    exec(compile(block, "README.md", "exec"), {})


FOLLOW = {"sh": follow_shell, "console": follow_console, "python": follow_python}


@pytest.mark.jit
def test_every_block_runs_in_order_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    assert {kind for kind, _ in BLOCKS} == set(FOLLOW)
    for kind, block in BLOCKS:
        FOLLOW[kind](block)
    for name in ("kernel.npz", "report.html", "again.png", "restored.png", "inverse.npy"):
        assert (tmp_path / name).stat().st_size


@pytest.mark.skipif(not (ROOT / ".ci").exists(), reason="a source distribution has no .ci")
def test_the_two_commands_are_those_that_are_checked():
    install, tests = [block.strip() for kind, block in BLOCKS if kind == "sh"][:2]
    assert install.endswith(" && fastkernel demo")
    assert tests in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for command in (install, tests):
        (extras,) = re.findall(r"\[([\w,]+)\]", command)
        assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_it_is_short_and_its_picture_is_small():
    assert 8_000 < len(README.read_bytes()) <= 10_240
    (picture,) = re.findall(r"!\[.*?\]\((.*?)\)", TEXT, re.DOTALL)
    assert (ROOT / picture).stat().st_size < 100_000


def test_its_rows_of_speed_are_those_of_the_published_tables():
    rows = TEXT.partition("<!-- bench:speed -->\n")[2].partition("\n<!-- /bench:speed -->")[0]
    assert rows == front.table(ROOT / "bench" / "README.md")
    assert len(rows.splitlines()) == 2 + 5


def test_the_machine_is_told_once():
    assert "L1 data" not in TEXT
    page = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    letters = re.findall(r"^- ([A-Z]): .*L1 data", page, re.MULTILINE)
    assert page.count("L1 data") == len(letters) == len(set(letters))
    assert set(re.findall(r"^Machine ([A-Z]), ", page, re.MULTILINE)) == set(letters)
