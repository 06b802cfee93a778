"""Plans, and fits by transforms, under threads and forks: right answers, no hang, no abort."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.jit

THREADS = """
import threading
import numpy as np
from fastkernel import inverse_filter, normal_equations

def both(image, psf, workers):
    fit = normal_equations(image, image, psf.shape, engine="fft", workers=workers)
    return inverse_filter(image, psf, workers=workers), fit.gram

rng = np.random.default_rng(0)
cases = [(rng.random((90 + 31 * i, 700 - 60 * i)), rng.random((3 + i, 9 - i))) for i in range(8)]
want = [both(x, k, 1) for x, k in cases]
barrier, wrong = threading.Barrier(8), []

def call(i):
    barrier.wait()
    for turn in range(25):
        image, psf = cases[(i + turn) % 8]
        found = both(image, psf, 1 + turn % 3)
        if not all(map(np.array_equal, found, want[(i + turn) % 8])):
            wrong.append((i, turn))

threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not wrong, wrong
"""

FORKS = """
import os, threading
import numpy as np
from fastkernel import inverse_filter, normal_equations
from fastkernel._machine import fft as _fft

image, psf = np.random.default_rng(0).random((60, 200)), np.eye(5)
want = inverse_filter(image, psf), normal_equations(image, image, 5, engine="fft").gram
stop = threading.Event()

def plan():
    n = 0
    while not stop.is_set():
        n += 1
        with _fft.borrowed_tile_transforms((8, 64 + 2 * (n % 97)), np.dtype(np.float64)):
            pass

planners = [threading.Thread(target=plan) for _ in range(2)]
for planner in planners:
    planner.start()
try:
    for _ in range(100):
        child = os.fork()
        if child == 0:
            fit = normal_equations(image, image, 5, engine="fft", workers=2)
            found = inverse_filter(image, psf, workers=2), fit.gram
            os._exit(0 if all(map(np.array_equal, found, want)) else 1)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
finally:
    stop.set()
    for planner in planners:
        planner.join()
"""

POOL = """
import multiprocessing, sys
import numpy as np
from fastkernel import inverse_filter, normal_equations
from fastkernel.estimation.equations import sweeps

sweeps.THREADED_WORK = 0
image = np.random.default_rng(0).random((900, 1000))

def fit(k):
    restored = inverse_filter(image, np.eye(k), workers=2)
    part = image[:300, :400]
    return restored.sum(), normal_equations(part, part, k, engine="fft", workers=2).gram.sum()

if __name__ == "__main__":
    want = [fit(k) for k in (3, 4, 5, 6)]
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        assert pool.map(fit, (3, 4, 5, 6)) == want
"""


def run(code, *arguments, folder=None):
    command = [sys.executable, "-W", "ignore::DeprecationWarning"]
    if folder is not None:
        path = folder / "script.py"
        path.write_text(code)
        command += [str(path), *arguments]
    else:
        command += ["-c", code]
    subprocess.run(command, timeout=120, check=True)


def test_eight_threads_with_different_shapes():
    run(THREADS)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_hundred_forks_while_others_plan():
    run(FORKS)


@pytest.mark.parametrize("method", ["spawn"] if sys.platform == "win32" else ["fork", "forkserver"])
def test_pools_after_a_threaded_parent(method, tmp_path):
    run(POOL, method, folder=tmp_path)


def test_another_process_finds_the_same_bits():
    code = (
        "import numpy as np; from fastkernel import inverse_filter, normal_equations\n"
        "x = np.random.default_rng(1).random((200, 500))\n"
        "print(inverse_filter(x, x[:9, :9]).tobytes().hex()[:4000])\n"
        "print(normal_equations(x, x, 9, engine='fft').gram.tobytes().hex()[:4000])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, timeout=120, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(found) == 1
