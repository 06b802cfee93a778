"""``python -m fastkernel`` is the command."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.jit


@pytest.mark.parametrize("arguments", [["--version"], ["estimate"]])
def test_the_package_runs_as_the_command(arguments, tmp_path):
    whole, command = (
        subprocess.run(
            [sys.executable, "-m", module, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=120,
        )
        for module in ("fastkernel", "fastkernel.cli")
    )
    assert (whole.returncode, whole.stdout) == (command.returncode, command.stdout)
    assert whole.stderr == command.stderr
    assert "Traceback" not in whole.stderr
