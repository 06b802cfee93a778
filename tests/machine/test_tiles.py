import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from fastkernel._machine import tiles as _tiles


def numbered(n):
    return [lambda scratch, stopped, i=i: i for i in range(n)]


@pytest.mark.parametrize("workers", [1, 2, 5, 99])
@pytest.mark.parametrize("n", [0, 1, 7, 200])
def test_results_come_in_the_order_of_the_jobs(n, workers):
    assert _tiles.run_jobs(numbered(n), object, workers) == list(range(n))


def test_scratch_is_not_shared():
    users = {}

    def job(scratch, stopped):
        users.setdefault(id(scratch), set()).add(threading.get_ident())
        time.sleep(0.001)
        return scratch

    kept = _tiles.run_jobs([job] * 40, object, 4)
    assert len(kept) == 40
    assert all(len(threads) == 1 for threads in users.values())


def test_rows_end_in_zeros_over_whatever_stood_there():
    scratch = _tiles.Scratch()
    scratch.array("x", (4, 16)).fill(np.nan)
    found = scratch.rows("x", (3, 8), 5)
    assert found.shape == (3, 8)
    np.testing.assert_array_equal(found[:, 5:], 0)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_in_a_job_is_raised_and_stops_the_rest(workers):
    ran = []

    def job(scratch, stopped):
        ran.append(1)
        if len(ran) == 3:
            msg = "third"
            raise LookupError(msg)
        time.sleep(0.001)

    with pytest.raises(LookupError, match="third"):
        _tiles.run_jobs([job] * 500, object, workers)
    assert len(ran) < 20


def test_jobs_may_run_jobs():
    """No deadlock when every thread of the pool waits for others."""

    def job(scratch, stopped):
        return sum(_tiles.run_jobs(numbered(10), object, 4))

    assert _tiles.run_jobs([job] * 100, object, 64) == [45] * 100


@pytest.mark.parametrize(("length", "most"), [(0, 3), (1, 1), (10, 3), (9, 3)])
def test_split_covers_a_length(length, most):
    parts = list(_tiles.split(length, most))
    assert [i for start, stop in parts for i in range(start, stop)] == list(range(length))
    assert all(0 < stop - start <= most for start, stop in parts)


@pytest.mark.parametrize("together", [1, 2, 3])
@pytest.mark.parametrize("most", [1, 4, 7])
@pytest.mark.parametrize("n", [1, 6, 17])
def test_shares_leave_groups_whole(n, most, together):
    items = list(range(n))
    parts = _tiles.shares(items, most, together)
    assert [item for part in parts for item in part] == items
    assert len(parts) <= most
    assert all(len(part) % together == 0 for part in parts[:-1])


def test_tiles_cover_an_image():
    found = [
        (r, c)
        for top, left, height, width in _tiles.Tiles((7, 11), (3, 4))
        for r in range(top, top + height)
        for c in range(left, left + width)
    ]
    assert sorted(found) == [(r, c) for r in range(7) for c in range(11)]


CTRL_C = """
import _thread, threading, time
import numpy as np
from fastkernel import normal_equations

small = np.zeros((40, 40), np.float32)
normal_equations(small, small, 31, engine="fft")
image = np.zeros((6000, 6000), np.float32)

def press():
    global pressed
    pressed = time.perf_counter()
    _thread.interrupt_main()

threading.Timer(0.3, press).start()
try:
    normal_equations(image, image, 41, workers=2)
    raise SystemExit("finished before it was stopped: use a larger image")
except KeyboardInterrupt:
    print(time.perf_counter() - pressed)
assert normal_equations(small + 1, small, 3).gram[0, 0] == 38 * 38
"""


@pytest.mark.jit
@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_stops_at_once_and_the_next_call_is_right():
    done = subprocess.run(
        [sys.executable, "-c", CTRL_C], capture_output=True, text=True, timeout=120, check=True
    )
    assert float(done.stdout) < 1


FORK = """
import os, sys
import numpy as np
from fastkernel import normal_equations
from fastkernel._machine import tiles as _tiles
from fastkernel.estimation.equations import sweeps

sweeps.THREADED_WORK = 0
image = np.random.default_rng(0).integers(0, 256, (600, 900), dtype=np.uint8)
want = normal_equations(image, image, 5, workers=3).gram
for _ in range(20):
    child = os.fork()
    if child == 0:
        got = normal_equations(image, image, 5, workers=3).gram
        os._exit(0 if (got == want).all() else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
"""


@pytest.mark.jit
@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_child_works_after_a_threaded_parent():
    subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK], timeout=120, check=True
    )


@pytest.mark.jit
def test_threads_may_call_at_once():
    import numpy as np

    from fastkernel import normal_equations

    rng = np.random.default_rng(3)
    pairs = [rng.random((100 + 17 * i, 300 - 11 * i)) for i in range(8)]
    want = [normal_equations(image, image, 3 + i, workers=1).gram for i, image in enumerate(pairs)]
    start = threading.Barrier(8)
    found = {}

    def call(i):
        start.wait()
        for _ in range(10):
            found.setdefault(i, []).append(normal_equations(pairs[i], pairs[i], 3 + i).gram)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((gram == want[i]).all() for i in range(8) for gram in found[i])
