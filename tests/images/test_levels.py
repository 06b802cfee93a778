"""Levels of sRGB, against the standard's curve."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fastkernel._images.levels import decode, decoded, encode, white_of
from fastkernel._images.usable import Observed


def srgb(light):
    """The standard's curve, pixel by pixel."""

    def level(value):
        if value <= 0.0031308:
            return 12.92 * value
        return 1.055 * value ** (1 / 2.4) - 0.055

    return np.vectorize(level)(light)


@pytest.fixture
def levels(rng):
    return rng.integers(5, 250, (60, 60)).astype(np.uint8)


def test_the_curve_is_the_standards():
    stored = np.arange(256, dtype=np.uint8)
    assert_allclose(srgb(decode(stored, 255)), stored / 255, atol=1e-6)
    assert_allclose(encode(decode(stored, 255), 255), stored, atol=1e-4)
    assert decode(stored, 255).dtype == np.float32
    fractions = np.linspace(0, 1, 7)
    assert_allclose(srgb(decode(fractions, 1)), fractions, atol=1e-12)
    assert decode(fractions, 1).dtype == np.float64
    assert_allclose(encode(np.array([-1.0, 2.0]), 255), [0, 255])


def test_numbers_that_are_no_levels(levels):
    with pytest.raises(ValueError, match=r"light='srgb' needs a source of sRGB levels.*float64"):
        decoded(Observed(levels.astype(float), levels))
    with pytest.raises(ValueError, match=r"light='srgb' needs a result of sRGB levels.*int32"):
        decoded(Observed(levels, levels.astype(np.int32)))
    assert white_of(np.array([0.0, 1.5])) is None


def test_a_known_variance_is_that_of_levels(levels):
    pair = Observed(levels, levels, source_variance=np.ones(levels.shape))
    with pytest.raises(ValueError, match="source_variance goes with light='stored'"):
        decoded(pair)


def test_decoding_keeps_masks(levels):
    bad = levels > 200
    pair = decoded(Observed(levels, levels, bad, ~bad))
    assert pair.source_bad is bad
    assert_allclose(srgb(pair.source), levels / 255, atol=1e-6)
