"""The rules that made borders, planted."""

import math

import numpy as np
import pytest

from fastkernel._images.pairs import as_pairs
from fastkernel._machine.run import Run
from fastkernel.estimation.unknowns.border import RULES, BorderFound, find_border
from tests import naive

EVEN_AND_ODD = [(5, 5), (4, 3), (1, 6)]


def border(source, result, shape, degree=None):
    return find_border(as_pairs(source, result, None), shape, degree, Run())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", EVEN_AND_ODD)
def test_names_the_rule(rule, shape, rng):
    source = rng.integers(0, 200, (40, 45)).astype(np.uint8)
    kernel = rng.random(shape)
    kernel /= kernel.sum()
    result = np.rint(naive.filtered(source, kernel, "same", rule)).astype(np.uint8)
    found = border(source, result, shape)
    assert rule in found.alike
    assert found.sure
    # What the rule leaves is what rounding does; the definition tells what another leaves.
    assert found.rim_rms[rule] < 0.4
    other = "zero" if rule != "zero" else "circular"
    predicted = naive.filtered(source, kernel, "same", other)
    rim = np.ones(source.shape, bool)
    naive.inside(rim, shape)[:] = False
    expected = math.sqrt(np.mean((result - predicted)[rim] ** 2))
    assert found.rim_rms[other] == pytest.approx(expected, rel=0.05)


def test_two_rules_are_one_for_three_taps(rng):
    source = rng.random((30, 30))
    result = naive.filtered(source, rng.random((3, 3)), "same", "symmetric")
    assert set(border(source, result, (3, 3)).alike) == {"replicate", "symmetric"}


def test_a_picture_cut_from_a_larger_one_has_no_rule(rng):
    large = rng.random((50, 50))
    kernel = rng.random((5, 5))
    result = naive.filtered(large, kernel, "same", "zero")[5:45, 5:45]
    found = border(large[5:45, 5:45], result, (5, 5))
    assert found.boundary is None
    assert found.alike == ()
    assert not found.sure
    assert min(found.rim_rms.values()) > 10 * found.inside_rms


@pytest.mark.parametrize("degree", [0, 1])
def test_with_a_background(degree, rng):
    source, kernel = rng.random((40, 41)), rng.random((5, 4))
    level = 2.0 + degree * np.linspace(0, 3, 41)
    result = naive.filtered(source, kernel, "same", "replicate") + level
    assert border(source, result, (5, 4), degree).boundary == "replicate"


def test_clipped_and_masked_pixels_have_no_say(rng):
    source = rng.integers(0, 256, (48, 48)).astype(np.uint8)
    kernel = np.array([[0, -0.4, 0], [-0.4, 2.6, -0.4], [0, -0.4, 0]])
    exact = naive.filtered(source, kernel, "same", "mirror")
    result = np.rint(exact).clip(0, 255).astype(np.uint8)
    assert border(source, result, (3, 3)).boundary == "mirror"
    mask = np.zeros(result.shape, bool)
    mask[:3, 10:20] = True
    hurt = np.ma.array(np.where(mask, 0, result).astype(np.uint8), mask=mask)
    found = border(source, hurt, (3, 3))
    assert (found.boundary, found.sure) == ("mirror", True)


def test_what_has_no_rim_has_no_rule(rng):
    source = rng.random((20, 20))
    assert border(source, source, (1, 1)) == BorderFound(None)
    assert border(source, source[1:-1, 1:-1], (3, 3)).boundary is None
