"""A cluster of processes, two of which die while they work."""

import subprocess
import sys

import pytest

pytest.importorskip("distributed")
pytest.importorskip("zarr")

SCRIPT = '''
import os, signal, sys, threading, time
import dask, dask.array as da, numpy as np, zarr
from distributed import Client, LocalCluster
import fastkernel, fastkernel.dask as cluster

class Slow:
    """A store that takes its time."""
    def __init__(self, image, chunks):
        self.image, self.chunks, self.shape, self.dtype = image, chunks, image.shape, image.dtype
    def __getitem__(self, key):
        time.sleep(0.1)
        return self.image[key]

def same(found, whole):
    return all(np.array_equal(getattr(found, name), getattr(whole, name))
               for name in ("gram", "moments", "energy", "n_pixels"))

def kill(pids):
    time.sleep(0.5)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)

def main(folder):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (256, 240), dtype=np.uint8)
    result = rng.integers(0, 256, (256, 240), dtype=np.uint8)
    options = dict(n_workers=3, threads_per_worker=1, dashboard_address=":0")
    with LocalCluster(**options) as workers, Client(workers) as client:
        floats = [da.from_array(rng.random((256, 240)), chunks=n) for n in (50, 64)]
        equations = cluster.normal_equations(*floats, 5, boundary="mirror", batch=1)
        print("floats", same(equations.compute(), equations.compute(scheduler="sync")))
        store = zarr.create_array(folder + "/in", shape=image.shape, dtype="u1", chunks=(64, 64))
        out = zarr.create_array(folder + "/out", shape=image.shape, dtype="f8", chunks=(64, 64))
        store[:] = image
        kernel = rng.random((7, 4))
        cluster.convolve(store, kernel, "same", "mirror", out=out)
        exact = fastkernel.convolve(image, kernel, "same", "mirror")
        print("store", np.array_equal(out[:], exact))
        lazy = cluster.convolve(da.from_array(image, chunks=50), kernel, "same", "mirror")
        print("array", np.array_equal(lazy.compute(), exact), flush=True)
        slow = Slow(image, (32, 32)), Slow(result, (32, 32))
        equations = cluster.normal_equations(*slow, 5, boundary="circular", batch=1)
        pids = list(client.run(os.getpid).values())[:2]
        killer = threading.Thread(target=kill, args=(pids,))
        killer.start()
        found = equations.compute()
        killer.join()
        whole = fastkernel.normal_equations(image, result, 5, boundary="circular")
        print("bytes", same(found, whole))
        print("killed", sum(not os.path.exists(f"/proc/{pid}") for pid in pids), flush=True)

if __name__ == "__main__":
    main(sys.argv[1])
'''


@pytest.mark.jit
def test_two_of_three_workers_die_and_nothing_changes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = dict(line.split() for line in done.stdout.splitlines() if len(line.split()) == 2)
    assert told == {"killed": "2", **dict.fromkeys(("bytes", "floats", "store", "array"), "True")}
