"""A script of a user passes the strictest settings of both type checkers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

pytestmark = pytest.mark.jit


def told(*command):
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=HERE, capture_output=True, text=True, timeout=300
    )
    return done.stdout + done.stderr


def test_mypy_strict():
    pytest.importorskip("mypy")
    assert "Success: no issues found" in told("mypy", "--strict", "user_script.py")


def test_pyright_strict():
    pytest.importorskip("pyright")
    output = told("pyright", "--pythonpath", sys.executable)
    if not re.search(r"\d+ errors?", output):
        pytest.skip("pyright could not fetch its program")
    assert "0 errors" in output, output
