"""The model that chooses an engine. That the choice is the fastest one is for the bench to show."""

import numpy as np
import pytest

from fastkernel._images.pairs import Pair
from fastkernel._images.windows import Window
from fastkernel._loops import passes
from fastkernel.convolution import convolution_cost as _convolve_cost
from fastkernel.estimation.equations import gathering_cost as _cost
from fastkernel.estimation.equations import gathering_engines as engines

SIZES = [256, 512, 1024, 2048, 4096, 32768]


def choices(dtype, size):
    image = np.empty((1, 1), dtype)
    return [_cost.choose_engine(image, image, (size - k + 1,) * 2, (k, k)) for k in range(1, 64, 2)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("dtype", "direct"), [(np.uint8, "integer"), (np.float32, "float")])
def test_there_is_one_crossing_from_loops_to_transforms(dtype, direct, size):
    found = choices(dtype, size)
    crossing = found.index("fft")
    assert found == [direct] * crossing + ["fft"] * (len(found) - crossing)
    # In taps along a side; measured between 5 and 11, and between 11 and 27.
    low, high = {"float": (5, 13), "integer": (11, 27)}[direct]
    assert low < 2 * crossing + 1 <= high


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize("size", [512, 2048, 4096])
def test_convolution_crosses_from_sums_to_transforms_once(size, itemsize):
    found = []
    for k in range(3, 64, 2):
        times = dict(_convolve_cost.engine_times((size, size), (k, k), itemsize))
        del times["separable"]
        found.append(min(times, key=times.get))
    crossing = found.index("fft")
    assert found == ["direct"] * crossing + ["fft"] * (len(found) - crossing)
    # In taps along a side; measured between 9 and 11.
    assert 7 <= 2 * crossing + 3 <= 15


@pytest.mark.parametrize("separable", [False, True])
def test_a_round_trip_pays_for_all_but_small_kernels(separable):
    pays = [
        _convolve_cost.round_trip_pays((2048, 2048), (k, k), 4, separable=separable)
        for k in range(1, 40, 2)
    ]
    crossing = pays.index(True)
    assert pays == [False] * crossing + [True] * (len(pays) - crossing)
    assert 5 <= 2 * crossing + 1 <= 19


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize("window", [(1, 1), (4000, 7), (300, 5000)])
@pytest.mark.parametrize("taps", [(1, 1), (3, 200), (700, 15)])
def test_lengths_are_those_that_transforms_take(taps, window, itemsize):
    lengths = _convolve_cost.fft_lengths(window, taps, itemsize)
    for n, k in zip(lengths, taps, strict=True):
        assert passes.is_length(n, f"f{itemsize}")
        assert n >= k


@pytest.mark.parametrize("shape", [(5, 5), (1, 40), (40, 1), (300, 3), (3, 300), (257, 255)])
@pytest.mark.parametrize("window", [(1, 1), (4000, 7), (7, 4000), (900, 1100)])
def test_tiles_hold_their_surroundings(shape, window):
    length, (height, width) = _cost.fft_tiling(window, shape)
    assert width + 2 * (shape[1] - 1) <= length
    assert min(height, width) > 0
    for n, k, step in zip(window, shape, (height, width), strict=True):
        assert step <= n + k - 1


def test_a_mixed_pair_is_as_wide_as_its_wider_image():
    narrow, wide = np.empty((1, 1), np.uint8), np.empty((1, 1), np.uint16)
    assert _cost.is_narrow(narrow, narrow)
    assert not _cost.is_narrow(narrow, wide)
    assert not _cost.is_narrow(narrow, np.empty((1, 1), np.float32))


def test_the_rim_of_a_job_is_bounded():
    """However long an image, few jobs, and few of their products, are kept at a time."""
    image = np.broadcast_to(np.uint8(0), (10**6, 10**6))
    window = Window((0, 0), (0, 0), (10**6 - 8, 10**6 - 8), "zero")
    pair = Pair(image, image, window)
    assert len(engines.rim_jobs(pair, (9, 9))) <= 16
    assert len(engines.tile_jobs(pair, (9, 9), "fft")) <= engines.MAX_JOBS
