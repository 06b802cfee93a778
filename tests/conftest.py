import itertools
import os
import signal

import numpy as np
import pytest
from hypothesis import settings

# Compilation trips deadlines; a failure must be repeatable by whoever sees it.
# The stricter runs look at loops, slowly.
STRICT = {"NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK"} & os.environ.keys()
settings.register_profile(
    "fastkernel",
    deadline=None,
    derandomize=True,
    print_blob=True,
    max_examples=50 if STRICT else 200,
)
# By `--hypothesis-profile nightly`: other examples every time.
settings.register_profile("nightly", deadline=None, print_blob=True, max_examples=5000)
settings.load_profile("fastkernel")


@pytest.fixture
def rng():
    return np.random.default_rng(20261121)


@pytest.fixture(autouse=True)
def scratch_holds_nan(monkeypatch):
    """Threads keep their scratch, and what an image with NaN left there must reach no other."""
    from fastkernel._machine.tiles import Scratch

    def array(self, name, shape, dtype=np.float64, *, plain=Scratch.array):
        found = plain(self, name, shape, dtype)
        if found.dtype.kind in "fc":
            found.fill(np.nan)
        return found

    monkeypatch.setattr(Scratch, "array", array)


@pytest.fixture
def hears_ctrl_c():
    """Ctrl-C is heard here and by children: what a script starts with ``&`` is born deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def small_tiles(monkeypatch):
    """Cut even the smallest image into tiles, strips and jobs."""
    from fastkernel._loops import passes
    from fastkernel.convolution import convolution_engines as convolve_engines
    from fastkernel.estimation.equations import gathering_engines as engines
    from fastkernel.estimation.equations import sweeps

    def shortest_lengths(window_shape, kernel_shape, itemsize):
        return tuple(
            next(n for n in itertools.count(k + 2) if passes.is_length(n, f"f{itemsize}"))
            for k in kernel_shape
        )

    monkeypatch.setattr(engines, "TILE_SHAPES", dict.fromkeys(engines.TILE_SHAPES, (3, 5)))
    monkeypatch.setattr(engines, "SEGMENT", 4)
    monkeypatch.setattr(engines, "MAX_JOBS", 5)
    monkeypatch.setattr(engines, "FFT_TILES", 1)
    monkeypatch.setattr(engines, "fft_tiling", lambda window_shape, kernel_shape: (64, (4, 5)))
    monkeypatch.setattr(sweeps, "THREADED_WORK", 0)
    monkeypatch.setattr(convolve_engines, "TILE_SHAPE", (3, 5))
    monkeypatch.setattr(convolve_engines, "MAX_JOBS", 5)
    monkeypatch.setattr(convolve_engines, "THREADED_TIME", 0)
    monkeypatch.setattr(convolve_engines, "fft_lengths", shortest_lengths)
