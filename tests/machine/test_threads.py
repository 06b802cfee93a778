"""Threads that cannot be had, and threads that outlive what they were started for."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from fastkernel._machine import tiles


@pytest.fixture
def no_thread(monkeypatch):
    """Let the system have no thread left."""

    def start(thread):
        msg = "can't start new thread"
        raise RuntimeError(msg)

    monkeypatch.setattr(threading.Thread, "start", start)
    tiles._idle.clear()
    tiles._started.clear()


@pytest.mark.usefixtures("no_thread")
def test_without_a_thread_the_caller_does_all_work():
    def job(scratch, stopped):
        return threading.get_ident()

    assert tiles.run_jobs([job] * 9, object, 4) == [threading.get_ident()] * 9
    assert tiles.wait_for(threading.get_ident) == threading.get_ident()


@pytest.mark.parametrize("raises", [LookupError, KeyboardInterrupt])
def test_nothing_is_written_after_a_call_has_raised(raises):
    written = np.zeros(400)

    def job(number):
        def work(scratch, stopped):
            if number == 5:
                raise raises
            time.sleep(0.002)
            written[number] = 1

        return work

    with pytest.raises(raises):
        tiles.run_jobs([job(number) for number in range(400)], object, 4)
    before = written.sum()
    time.sleep(0.1)
    assert written.sum() == before < 400


def test_a_kept_error_of_what_was_waited_for_is_raised():
    def call():
        msg = "from there"
        raise LookupError(msg)

    with pytest.raises(LookupError, match="from there"):
        tiles.wait_for(call)
    assert tiles.wait_for(lambda: 5) == 5


LATE = """
import atexit, threading, time
import numpy as np
import fastkernel as fk
image, kernel = np.ones((900, 900)), np.ones((5, 5))

def work():
    time.sleep(0.2)
    assert fk.convolve(image, kernel, workers=2).max() == 25
    assert fk.design_matrix(image[:200, :200], 3, workers=2).shape == (198 * 198, 9)
    print("done", flush=True)

atexit.register(work)
threading.Thread(target=work).start()
"""


@pytest.mark.jit
def test_calls_work_after_the_last_line_and_at_exit():
    done = subprocess.run(
        [sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("done\ndone\n", "")
