"""The model that chooses an engine. That the choice is the fastest one is for the bench to show."""

import numpy as np
import pytest

from fastkernel import _cost, engines

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
    # In taps along a side; measured between 9 and 11, and between 17 and 25.
    low, high = {"float": (7, 13), "integer": (15, 31)}[direct]
    assert low < 2 * crossing + 1 <= high


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
    window = engines.Window((0, 0), (0, 0), (10**6 - 8, 10**6 - 8), "zero")
    pair = engines.Pair(image, image, window)
    assert len(engines.rim_jobs(pair, (9, 9))) <= 16
    assert len(engines.tile_jobs(pair, (9, 9), "fft")) <= engines.MAX_JOBS
