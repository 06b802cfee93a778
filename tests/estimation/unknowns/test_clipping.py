"""Which pixels of a result may have been clipped."""

import numpy as np
import pytest

from fastkernel._images.usable import Observed
from fastkernel.estimation.unknowns.clipping import clipped_pixels, without_clipped


def observed(result, **known):
    return Observed(np.zeros(result.shape), result, **known)


@pytest.mark.parametrize(("dtype", "low", "high"), [("u1", 0, 255), ("u2", 0, 65535)])
def test_the_ends_of_whole_levels(dtype, low, high):
    result = np.full((20, 20), 100, dtype)
    result[3, 4], result[5, :7] = low, high
    assert np.array_equal(clipped_pixels(observed(result)), (result == low) | (result == high))


def test_fractions_end_where_several_stand(rng):
    result = rng.random((40, 40))
    assert clipped_pixels(observed(result)) is None
    result = result.clip(0.1, None)
    assert np.array_equal(clipped_pixels(observed(result)), result == 0.1)


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_hardly_any_and_nearly_all_say_nothing(share, rng):
    result = np.where(rng.random((50, 50)) < share, 0, 9).astype(np.uint8)
    assert clipped_pixels(observed(result)) is None
    assert without_clipped(observed(result)) is None


def test_wide_integers_do_not_end():
    assert clipped_pixels(observed(np.zeros((9, 9), np.int32))) is None


def test_they_join_what_is_masked():
    result = np.full((10, 10), 7, np.uint8)
    result[0], bad = 255, np.eye(10) > 0
    kept = without_clipped(observed(result, result_bad=bad))
    assert np.array_equal(kept.result_bad, bad | (result == 255))
    assert np.array_equal(without_clipped(observed(result)).result_bad, result == 255)
