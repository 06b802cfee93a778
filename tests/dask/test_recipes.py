"""Equations that other engines add up, as bench/README.md shows."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import naive
import numpy as np
import pytest

import fastkernel

PAGE = Path(__file__).resolve().parents[2] / "bench" / "README.md"
# Spark starts Pythons of its own; in a container one is root.
ALLOWED = {
    "PYSPARK_PYTHON": sys.executable,
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
KERNEL = np.outer([1, 2, 4, 2, 1], [1, 3, 2]) / 60


def blocks():
    if not PAGE.exists():
        return []
    (section,) = re.findall(r"## Other engines\n(.*?)\n## ", PAGE.read_text("utf-8"), re.DOTALL)
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def engine(recipe):
    """What a recipe imports that is no part of Python."""
    modules = [node for node in ast.walk(ast.parse(recipe)) if isinstance(node, ast.ImportFrom)]
    names = [node.module for node in modules]
    names += [
        alias.name
        for node in ast.walk(ast.parse(recipe))
        if isinstance(node, ast.Import)
        for alias in node.names
    ]
    return next((n for n in names if n.split(".")[0] not in sys.stdlib_module_names), names[0])


@pytest.mark.jit
@pytest.mark.parametrize("recipe", blocks()[1:], ids=engine)
def test_recipes_find_the_kernel(rng, tmp_path, recipe):
    pytest.importorskip(engine(recipe))
    assert len(recipe.strip().splitlines()) <= 8
    source = rng.integers(0, 256, (300, 90), dtype=np.uint8)
    result = np.rint(naive.convolve(source, KERNEL, "same")).astype(np.uint8)
    np.save(tmp_path / "source.npy", source)
    np.save(tmp_path / "result.npy", result)
    (tmp_path / "script.py").write_text(f"{blocks()[0]}\n{recipe}", encoding="utf-8")
    launcher = ["mpiexec", "-n", "2"] if "mpi4py" in recipe and shutil.which("mpiexec") else []
    done = subprocess.run(
        [*launcher, sys.executable, "script.py"],
        cwd=tmp_path,
        env=os.environ | ALLOWED,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    plain = re.sub(r"\x1b\[\w*", "", done.stdout)  # mpiexec colours what it hands on
    printed = np.array(re.findall(r"[-+\d.e]+", plain), float).reshape(5, 3)
    whole = fastkernel.estimate_kernel(source, result, (5, 3)).kernel
    np.testing.assert_allclose(printed, whole, rtol=0, atol=1e-8)
    assert abs(whole - KERNEL).max() < 1e-3


def test_there_are_recipes():
    if not PAGE.exists():
        pytest.skip("an installed package has no page beside it")
    assert [engine(recipe).split(".")[0] for recipe in blocks()[1:]] == [
        "mpi4py",
        "ray",
        "pyspark",
        "concurrent",
    ]
