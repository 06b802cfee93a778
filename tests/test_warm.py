"""What is compiled ahead, and how many threads the environment asks for."""

import os
import subprocess
import sys

import pytest

from fastkernel._machine.tiles import usable_cores

EVERY_LOOP = """
import importlib, pkgutil
import fastkernel
from fastkernel import _loops
fastkernel.warm_up()
from fastkernel._loops._jit import Loop
cold = []
for module in pkgutil.iter_modules(_loops.__path__):
    part = importlib.import_module(f"fastkernel._loops.{module.name}")
    for name, found in vars(part).items():
        if isinstance(found, Loop) and found.__module__ == part.__name__:
            if not found.compiled.signatures:
                cold.append(f"{module.name}.{name}")
print(*cold)
"""

THREADS = """
from fastkernel._images.checks import as_workers
try:
    print(as_workers(None), as_workers(5))
except ValueError as reason:
    print(reason)
"""


def printed(script, **variables):
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.jit
def test_no_loop_stays_cold():
    assert printed(EVERY_LOOP) == ""


@pytest.mark.jit
@pytest.mark.parametrize(
    ("told", "answer"),
    [
        ("3", "3 5"),
        (" 1 ", "1 5"),
        ("0", "FASTKERNEL_NUM_THREADS must be a positive integer, got '0'"),
        ("-2", "FASTKERNEL_NUM_THREADS must be a positive integer, got '-2'"),
        ("two", "FASTKERNEL_NUM_THREADS must be a positive integer, got 'two'"),
    ],
)
def test_threads_of_the_environment(told, answer):
    assert printed(THREADS, FASTKERNEL_NUM_THREADS=told) == answer


@pytest.mark.jit
def test_without_a_word_every_core_is_used():
    assert printed(THREADS, FASTKERNEL_NUM_THREADS="") == f"{usable_cores()} 5"
