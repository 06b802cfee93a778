"""What stands beside convolutions, planted."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fastkernel._images.pairs import as_pairs
from fastkernel._machine.run import Run
from fastkernel.estimation.unknowns.background import find_background
from tests import naive

ROWS, COLS = (np.linspace(-1, 1, n) for n in (58, 61))
BESIDE = {
    None: 0.0,
    0: 12.0,
    1: 12 + 5 * ROWS[:, None] - 3 * COLS,
    2: 12 + 4 * ROWS[:, None] ** 2 - 5 * ROWS[:, None] * COLS,
}


@pytest.fixture
def source(rng):
    return rng.integers(0, 200, (60, 63)).astype(np.uint8)


def background(source, result):
    return find_background(as_pairs(source, result, None), (3, 3), None, Run())


@pytest.mark.parametrize("degree", BESIDE)
@pytest.mark.parametrize("noise", [0, 3.0])
@pytest.mark.parametrize("gain", [1.0, 0.6])
def test_finds_the_degree(source, degree, noise, gain, rng):
    exact = gain * naive.convolve(source, np.full((3, 3), 1 / 9)) + BESIDE[degree]
    found = background(source, np.rint(exact + noise * rng.normal(size=exact.shape)))
    assert found.degree == degree
    assert (found.gain > 1) == (degree is not None)


def test_residuals_are_those_of_dense_fits(source, rng):
    result = rng.normal(size=(58, 61))
    found = background(source, result)
    x = naive.design_matrix(source, (3, 3))
    terms = [[], [(0, 0)], [(0, 0), (1, 0), (0, 1)]]
    terms += [[*terms[2], (2, 0), (1, 1), (0, 2)]]
    for rms, powers in zip(found.rms, terms, strict=True):
        beside = [(ROWS[:, None] ** i * COLS**j).ravel() for i, j in powers]
        columns = np.column_stack([x, *beside])
        left = result.ravel() - columns @ np.linalg.lstsq(columns, result.ravel())[0]
        assert_allclose(rms, math.sqrt(np.mean(left**2)), rtol=1e-9)


def test_what_was_cut_to_whole_levels_has_half_a_level_less(source):
    exact = naive.convolve(source, np.full((3, 3), 1 / 9))
    assert background(source, np.floor(exact)).degree == 0


def test_clipping_is_no_background(rng):
    source = rng.integers(0, 256, (60, 60)).astype(np.uint8)
    sharp = np.array([[0, -0.5, 0], [-0.5, 3, -0.5], [0, -0.5, 0]])
    result = np.rint(naive.convolve(source, sharp)).clip(0, 255).astype(np.uint8)
    assert background(source, result).degree is None


def test_pairs_have_backgrounds_of_their_own(source):
    exact = naive.convolve(source, np.full((3, 3), 1 / 9))
    images = as_pairs([source, source], [exact + 5, exact - 9], None)
    assert find_background(images, (3, 3), None, Run()).degree == 0


def test_narrow_windows_tell_less(source):
    result = naive.convolve(source[:4], np.full((3, 3), 1 / 9)) + 4
    assert len(background(source[:4], result).rms) == 3


def test_a_flat_source_tells_no_level(rng):
    flat = np.full((20, 20), 7.0)
    found = find_background(as_pairs(flat, flat + 1, None), (1, 1), None, Run())
    assert found.degree is None
    assert found.rms[1:] == (math.inf,) * 3
