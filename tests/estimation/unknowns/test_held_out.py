"""What is left of pixels that were not fitted, against dense least squares strip by strip."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fastkernel._machine.run import Run
from fastkernel.estimation.unknowns.held_out import (
    Box,
    Scores,
    needed,
    nested_scores,
    strip_equations,
)
from tests import naive
from tests.calls import pairs_of

RNG = np.random.default_rng(3)


def strips_of(source, result, kernel_shape, degree=None):
    return strip_equations(pairs_of(source, result, kernel_shape), kernel_shape, Run(), degree)


def dense_strips(source, result, kernel_shape, count, degree):
    """Rows of the design matrix and of the result, strip by strip, less polynomials."""
    x = naive.design_matrix(source, kernel_shape)
    y = naive.inside(result, kernel_shape) if result.shape == source.shape else result
    height, width = y.shape
    row, col = np.divmod(np.arange(y.size), width)
    terms = [np.ones(y.size), row, col][: 1 + 2 * degree]
    edges = [height * i // count for i in range(count + 1)]
    for top, bottom in pairwise(edges):
        part = (row >= top) & (row < bottom)
        beside = np.stack([term[part] for term in terms], axis=1)
        both = np.column_stack([x, y.ravel()])[part]
        both = both - beside @ np.linalg.lstsq(beside, both, rcond=None)[0]
        yield both[:, :-1], both[:, -1]


@pytest.mark.parametrize("degree", [0, 1])
def test_scores_are_those_of_dense_fits(degree):
    source = RNG.normal(size=(70, 31))
    result = naive.convolve(source, RNG.normal(size=(3, 2)), "same") + RNG.normal(size=(70, 31))
    shape, boxes = (3, 4), [Box(1, 1, 1, 1), Box(0, 1, 2, 2), Box(0, 1, 3, 3), Box(0, 0, 3, 4)]
    strips = strips_of(source, result, shape, degree)
    parts = list(dense_strips(source, result, shape, len(strips), degree))
    found = nested_scores(strips, boxes)
    for j, (top, left, rows, cols) in enumerate(boxes):
        taps = np.arange(12).reshape(shape)[top : top + rows, left : left + cols].ravel()
        every = [(x[:, taps], y) for x, y in parts]
        for i, (x, y) in enumerate(every):
            others = every[:i] + every[i + 1 :]
            columns = np.concatenate([part for part, _ in others])
            kernel = np.linalg.lstsq(columns, np.concatenate([part for _, part in others]))[0]
            assert_allclose(found.held_out[j, i], np.sum((y - x @ kernel) ** 2), rtol=1e-9)
        x, y = (np.concatenate(part) for part in zip(*every, strict=True))
        left_over = y - x @ np.linalg.lstsq(x, y)[0]
        assert_allclose(found.fitted[j], left_over @ left_over, rtol=1e-9)
    assert_allclose(found.rms, np.sqrt(found.held_out.sum(axis=1) / found.weights.sum()))


def test_strips_add_up_to_all_pixels():
    source, result = RNG.normal(size=(2, 40, 23))
    strips = strips_of(source, result, (3, 3))
    assert len(strips) == 8
    assert sum(part.n_pixels for part in strips) == 38 * 21
    assert len(strips_of(source[:9], result[:9], (3, 3))) == 3
    large = strip_equations(pairs_of(source, result, (1, 1)), (1, 1), Run())
    assert sum(part.n_pixels for part in large) == source.size


def test_a_level_and_a_slope_of_every_strip_are_allowed_for():
    source = RNG.normal(size=(80, 30))
    result = naive.convolve(source, np.full((1, 3), 0.5), "same")
    slope = 5 + 0.3 * np.arange(80)[:, None] - 0.2 * np.arange(30)
    found = nested_scores(strips_of(source, result + slope, (1, 3)), [Box(0, 0, 1, 3)])
    assert found.rms[0] < 1e-6


def test_what_is_not_determined_has_no_score():
    source = np.repeat(RNG.normal(size=(50, 15)), 2, axis=1)[:, :29]
    source = np.cumsum(np.ones((50, 1)), axis=0) % 7 + 0 * source  # alike along rows
    found = nested_scores(strips_of(source, source, (1, 3), 0), [Box(0, 1, 1, 1), Box(0, 0, 1, 3)])
    assert np.isfinite(found.penalised).tolist() == [True, False]
    assert found.smallest([1, 3]) == 0


def scores(held, fitted, hidden=0.0):
    return Scores(np.array(held), np.array(fitted), np.ones(len(held[0])), hidden)


def test_the_smallest_of_alike_wins():
    # What the largest gains is what it gains by being fitted.
    found = scores([[9.0, 11.0], [4.0, 6.0], [4.0, 6.0]], [19.0, 9.0, 5.0])
    assert found.penalised.tolist() == [21.0, 11.0, 15.0]
    assert found.smallest([1, 9, 25]) == 1
    # Within a tenth of the standard error, at most 0.3 %.
    near = scores([[4.0, 6.01], [4.0, 6.0]], [10.01, 10.0])
    assert near.smallest([1, 9]) == 0
    far = scores([[4.0, 6.05], [4.0, 6.0]], [10.05, 10.0])
    assert far.smallest([1, 9]) == 1
    even = scores([[5.01, 5.0], [5.0, 5.0]], [10.01, 10.0])
    assert even.smallest([1, 9]) == 1


def test_what_rounding_hides_is_no_gain():
    found = scores([[1e-9, 1e-9], [1e-12, 1e-12]], [1e-9, 1e-12], hidden=1e-8)
    assert found.smallest([1, 9]) == 0


@pytest.mark.parametrize("box", [Box(1, 0, 2, 3), Box(2, 2, 1, 1), Box(0, 1, 5, 2)])
def test_the_taps_that_are_needed(box):
    source = RNG.normal(size=(60, 60))
    kernel = np.zeros((5, 5))
    top, left, rows, cols = box
    kernel[top : top + rows, left : left + cols] = RNG.uniform(0.5, 1, (rows, cols))
    result = naive.convolve(source, kernel) + 0.1 * RNG.normal(size=(56, 56))
    assert needed(strips_of(source, result, (5, 5))) == box
