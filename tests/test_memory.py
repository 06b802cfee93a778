"""Bounded memory: what a fit allocates does not depend on the image."""

import sys
import tracemalloc

import numpy as np
import pytest

from fastkernel import estimate_kernel, normal_equations

pytestmark = pytest.mark.jit


def peak_of(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("taps", [5, 9])
def test_no_array_of_the_size_of_the_image_is_allocated(dtype, taps):
    image = np.ones((3000, 3000), dtype)
    normal_equations(image, image, taps, workers=1)  # compiled, and what is kept is kept
    allocated = peak_of(lambda: normal_equations(image, image, taps, workers=1))
    assert allocated < 8 * 2**20


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("taps", [3, 15, 31])
@pytest.mark.parametrize("side", [500, 2000])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_fit_holds_no_more_than_its_documentation_says(dtype, side, taps, workers, rng):
    image = (255 * rng.random((side, side))).astype(dtype)
    estimate_kernel(image, image, taps, workers=workers)
    allocated = peak_of(lambda: estimate_kernel(image, image, taps, workers=workers))
    most = 16 * taps**4 + 48 * 2 * taps * 2 * side + workers * (3 * 2**20 + 6 * 2**10 * taps**2)
    assert allocated < 1.15 * most


def test_a_mapped_file_is_read_tile_by_tile(tmp_path):
    """A sparse file larger than any copy that we would allow."""
    image = np.memmap(tmp_path / "image", np.uint8, "w+", shape=(6000, 8000))
    image[2000:2010, 3000:3010] = 200
    got = []
    allocated = peak_of(lambda: got.append(normal_equations(image, image, 3)))
    assert allocated < 8 * 2**20
    assert got[0].gram[4, 4] == 100 * 200**2
    assert got[0].n_pixels == 6000 * 8000 - 2 * (6000 + 8000 - 2)


HUGE = """
import sys
import numpy as np
from fastkernel import normal_equations

side, taps = map(int, sys.argv[2:])
image = np.memmap(sys.argv[1], np.uint8, "w+", shape=(side, side))
image[-40:-30, -50:-40] = 200
image[:10, :10] = 100

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))

normal_equations(np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8), taps)
before, most = anonymous(), 0

def watch(done, total):
    global most
    most = max(most, anonymous())

found = normal_equations(image, image, taps, callback=watch)
rim = taps - 1
assert found.n_pixels == (side - rim) ** 2
middle = taps * taps // 2
assert found.gram[middle, middle] == 100 * 200**2 + (10 - rim // 2) ** 2 * 100**2
assert found.energy == found.gram[middle, middle]
print((most - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts anonymous pages as Linux does")
@pytest.mark.parametrize(("side", "taps"), [(12000, 9), (46400, 3)])
def test_a_sparse_file_of_more_pixels_than_memory_would_like(side, taps, tmp_path):
    """Beyond the mapped pages less than 64 MiB; the second has more than 2**31 pixels."""
    import subprocess

    path = str(tmp_path / "image")
    done = subprocess.run(
        [sys.executable, "-c", HUGE, path, str(side), str(taps)],
        timeout=300,
        check=True,
        capture_output=True,
        text=True,
    )
    assert float(done.stdout) < 64


GUARD = """
import mmap, ctypes, numpy as np, sys
from fastkernel._loops import circular, lags, passes

page = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

def guarded(shape, dtype):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    pages = -(-size // page)
    memory = mmap.mmap(-1, (pages + 1) * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert libc.mprotect(address + pages * page, page, 0) == 0
    offset = pages * page - size
    return np.frombuffer(memory, np.uint8, size, offset).view(dtype).reshape(shape)

for dtype in (np.int16, np.float64):
    lanes = lags.vector_lanes(dtype)
    for height, width, p, q in [(3, 5, 2, 3), (4, lanes, 5, 1), (1, 2 * lanes + 1, 7, 6)]:
        wide = -(-width // lanes) * lanes
        x = guarded((height + p - 1, wide + q - 1), dtype)
        y = guarded((height, wide), dtype)
        sums = np.zeros(lags.sums_shape((p, q), dtype), lags.sums_dtype(dtype))
        lags.add_tiles(x[None], y[None], (height, width), True, sums, np.zeros((1, 3, p, q)))

for dtype in map(np.dtype, (np.float32, np.float64)):
    for m, n in [(16, 48), (96, 32), (64, 64)]:
        lanes = passes.lanes(dtype)
        arrays = [
            guarded(shape, dtype) for shape in ((2, m, n), (2, n, m), (2, max(m, n), lanes))
        ]
        arrays += [passes.passes(m, dtype), passes.passes(n, dtype), guarded((2, m * n), dtype)]
        circular.transform_pair(*arrays)
        circular.convolve_pair(*arrays)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="guards pages through mprotect")
def test_no_pixel_past_the_scratch_is_read():
    import subprocess

    subprocess.run([sys.executable, "-c", GUARD], timeout=120, check=True)


def test_the_bound_of_exact_integers():
    from fastkernel.estimation.equations.gathering_cost import int16_tile_is_exact
    from fastkernel.estimation.equations.gathering_engines import direct_tile_shape

    for cols in range(1, 2000):
        height, width = direct_tile_shape("integer", cols)
        assert int16_tile_is_exact((height, min(width, cols)), 255 * 255)
    assert not int16_tile_is_exact((256, 512), 255**2 * 1000)
