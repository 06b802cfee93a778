"""In which light results were made."""

import math

import numpy as np
import pytest

from fastkernel._images.pairs import as_pairs
from fastkernel._images.usable import Observed
from fastkernel._machine.run import Run
from fastkernel.estimation.unknowns.light import LightFound, find_light
from tests import naive
from tests.images.test_levels import srgb

BLUR = np.full((3, 3), 1 / 9)


def made_in_light(stored, white):
    """A result that was blurred in linear light, and rounded to stored levels."""
    light = np.interp(stored, white * srgb(np.linspace(0, 1, 20001)), np.linspace(0, 1, 20001))
    return white * srgb(naive.filtered(light, BLUR, "same", "replicate").clip(0, 1))


@pytest.fixture
def levels(rng):
    return rng.integers(5, 250, (60, 60)).astype(np.uint8)


def light(source, result, shape=(5, 5)):
    return find_light(as_pairs(source, result, None), shape, Run())


def test_linear_light_is_seen(levels):
    found = light(levels, np.rint(made_in_light(levels, 255)).astype(np.uint8))
    assert (found.light, found.sure) == ("srgb", True)
    assert found.linear_rms < 0.35
    assert found.ratio == found.stored_rms / found.linear_rms > 5


@pytest.mark.parametrize("gain", [1.0, 0.6])
@pytest.mark.parametrize("level", [0.0, 25.0])
def test_stored_levels_are_seen(levels, gain, level):
    result = gain * naive.filtered(levels, BLUR, "same", "replicate") + level
    found = light(levels, np.rint(result).clip(0, 255).astype(np.uint8))
    assert (found.light, found.sure) == ("stored", True)
    assert found.stored_rms < 0.35


def test_fractions_and_16_bits(levels):
    wide = levels.astype(np.uint16) * 257
    assert light(wide, np.rint(made_in_light(wide, 65535)).astype(np.uint16)).light == "srgb"
    assert light(levels / 255, made_in_light(levels, 255) / 255).light == "srgb"


def test_numbers_that_are_no_levels_are_taken_as_they_stand(levels):
    found = light(levels.astype(float), made_in_light(levels, 255))
    assert (found.light, math.isnan(found.stored_rms), found.sure) == ("stored", True, False)


def test_alike_keeps_the_plain_reading(levels):
    assert light(levels, levels).light == "stored"
    assert LightFound("stored", 1.0, 1.01).sure is False


def test_a_known_variance_is_that_of_levels(levels):
    pair = Observed(levels, levels, source_variance=np.ones(levels.shape))
    assert find_light([pair], (3, 3), Run()).light == "stored"
