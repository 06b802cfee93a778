"""First calls: Ctrl-C does not reach Numba, and a broken cache is mended."""

import collections
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from fastkernel._loops import _unbroken

FIRST = """
import sys
import numpy as np, fastkernel as fk
x = np.random.default_rng(0).random((60, 60))
print("go", flush=True)
try:
    fk.estimate_kernel(x, x, 3)
    print("finished", end=" ")
except KeyboardInterrupt:
    print("interrupted", end=" ")
for _ in range(2):
    assert abs(fk.estimate_kernel(x, x, 3).kernel[1, 1] - 1) < 1e-9
print("right")
"""


@pytest.mark.jit
@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_a_first_call_may_be_interrupted_anywhere(tmp_path):
    ends = collections.Counter()
    for delay in (0.15, 0.4, 0.8, 1.3, 2.0):
        child = subprocess.Popen(
            [sys.executable, "-c", FIRST],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        )
        try:
            child.stdout.readline()
            time.sleep(delay)
            child.send_signal(signal.SIGINT)
            found, told = child.communicate(timeout=60)
        finally:
            child.kill()
        # Pressed later than that, it is right to stop the program.
        if "finished" not in found:
            assert (child.returncode, found, told) == (0, "interrupted right\n", "")
        ends[found] += 1
    assert ends["interrupted right\n"]


def test_what_is_made_out_of_reach_is_made():
    main = threading.get_ident()
    assert _unbroken.out_of_reach(threading.get_ident) != main
    found = []
    other = threading.Thread(
        target=lambda: found.append(
            _unbroken.out_of_reach(threading.get_ident) == threading.get_ident()
        )
    )
    other.start()
    other.join()
    assert found == [True]


@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_without_a_thread_ctrl_c_is_heard_afterwards(monkeypatch):
    def start(thread):
        msg = "can't start new thread"
        raise RuntimeError(msg)

    monkeypatch.setattr(threading.Thread, "start", start)
    done = []

    def call():
        signal.raise_signal(signal.SIGINT)
        done.append(True)

    with pytest.raises(KeyboardInterrupt):
        _unbroken.out_of_reach(call)
    assert done == [True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.jit
@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_a_broken_cache_is_mended(tmp_path, suffix):
    code = (
        "import numpy as np, fastkernel as fk\n"
        "x = np.random.default_rng(0).random((30, 30))\n"
        "print(np.array_equal(fk.circshift(x, (3, 2)), np.roll(x, (3, 2), (0, 1))))"
    )

    def run():
        done = subprocess.run(
            [sys.executable, "-c", "import sys; " + code],
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        )
        return done.stderr

    assert run() == ""
    files = list(tmp_path.rglob(f"*{suffix}"))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:40])
    assert run() == ""
    assert all(file.stat().st_size > 40 for file in files)
