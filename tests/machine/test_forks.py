"""A child that is forked while another thread is anywhere in a call can make calls of its own."""

import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.jit,
    pytest.mark.skipif(sys.platform == "win32", reason="there is no fork"),
]

# The child has a few seconds, and says by its status what became of it.
FORKS = """
import os, signal, threading, time
import numpy as np
import fastkernel as fk

rng = np.random.default_rng(0)
image, smooth = rng.random((90, 200)), np.outer(np.hanning(43)[1:-1], np.hanning(41)[1:-1])
call = {call}
{before}
stop = threading.Event()

def work():
    while True:
        call()
        if stop.is_set():
            return

threads = [threading.Thread(target=work) for _ in range({threads})]
for thread in threads:
    thread.start()
children = []
for _ in range({children}):
    time.sleep({pause})
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        call()
        os._exit(0)
    children.append(child)
states = [os.waitpid(child, 0)[1] for child in children]
stop.set()
for thread in threads:
    thread.join()
assert not any(states), states
"""
KEPT = "lambda: fk.convolve(image, smooth)"
FIT = "lambda: fk.estimate_kernel(image, image, 3)"


@pytest.mark.parametrize(
    "case",
    [
        {"call": KEPT, "before": "call()", "threads": 3, "children": 60, "pause": 0},
        {
            "call": "lambda: fk.inverse_kernel([[1.0, 0.4]], (3, 9))",
            "before": "call()",
            "threads": 2,
            "children": 40,
            "pause": 0.001,
        },
        # The imports are done: what is left is compilation, or the cache.
        {"call": FIT, "before": "fk.estimate_kernel", "threads": 1, "children": 4, "pause": 0.03},
        {"call": FIT, "before": "", "threads": 1, "children": 6, "pause": 0.05},
    ],
    ids=["what is computed once", "inverse", "first call", "first call with its imports"],
)
def test_a_child_forked_meanwhile_works(case):
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS.format(**case)], timeout=60, check=True
    )


# The other thread is at this import when the parent forks, and goes on while the parent waits.
FORK_DURING_IMPORT = """
import os, signal, sys, threading, time
import fastkernel as fk

class Slow:
    def find_spec(self, name, path, target=None):
        if name == {name!r}:
            entered.set()
            time.sleep(0.3)

entered = threading.Event()
sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=lambda: fk.convolve)
thread.start()
assert entered.wait(20)
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if fk.convolve([[1, 2]], [[3]])[0, 1] == 6 else 1)
assert os.waitpid(child, 0)[1] == 0
thread.join()
"""


@pytest.mark.parametrize(
    "name",
    [
        "fastkernel.convolution.convolve",  # nothing is imported yet
        "numba.core.transforms",  # which takes a lock of logging's
        "fastkernel._loops.stencil",  # which takes a lock of the compiler's
    ],
)
def test_a_fork_waits_for_an_import_and_holds_nothing_that_it_needs(name):
    code = FORK_DURING_IMPORT.format(name=name)
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=30, check=True)


def test_a_lock_is_free_in_the_child_and_in_the_parent():
    code = """
import os, threading
from fastkernel._loops._unbroken import hold_across_forks
locks = threading.RLock(), threading.RLock()
hold_across_forks(*locks)
entered, leave = threading.Event(), threading.Timer(0.2, lambda: None)

def hold():
    with locks[0], locks[1]:
        entered.set()
        leave.join()

leave.start()
threading.Thread(target=hold).start()
entered.wait()
child = os.fork()  # waits until both are free

def free():
    got = []
    other = threading.Thread(target=lambda: got.extend(l.acquire(timeout=5) for l in locks))
    other.start(); other.join()
    return got == [True, True]

if child == 0:
    os._exit(0 if free() else 1)
assert free() and os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=30, check=True)
