"""What equations are made of and solved by: sums at rims, reflections, Cholesky factors."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import linalg

from fastkernel._loops import weighted_lines
from fastkernel._loops.equations import factorise_upper, room_shape, solve_shifts
from fastkernel._loops.reflections import reflect
from fastkernel._machine.tiles import aligned_zeros


def zeros(shape):
    return aligned_zeros(math.prod(shape), np.dtype(float)).reshape(shape)


@pytest.mark.parametrize(
    ("count", "own", "all_", "lags", "powers"),
    [(1, 1, 1, 1, 1), (40, 3, 7, 5, 3), (129, 4, 4, 2, 5), (300, 6, 17, 4, 2)],
)
def test_weighted_products_of_lines(count, own, all_, lags, powers, rng):
    room, sums = map(zeros, weighted_lines.room_shapes(powers, own, lags, all_))
    room[:] = np.nan
    lines = np.zeros((count + sums.shape[1], sums.shape[2]))
    lines[: count + lags - 1, :all_] = rng.normal(size=(count + lags - 1, all_))
    weights, first = rng.normal(size=(powers, count)), all_ - own
    for _ in range(2):
        weighted_lines.add_weighted_line_products(lines, weights, first, own, room, sums)
    found = sums[: powers * own, :lags, :all_].reshape(powers, own, lags, all_)
    for lag in range(lags):
        near, far = lines[:count, first:all_], lines[lag : lag + count, :all_]
        want = 2 * np.einsum("it,ta,tb->iab", weights, near, far)
        assert_allclose(found[:, :, lag], want, rtol=0, atol=1e-12 * count)


def test_a_pixel_that_is_not_finite_shows_in_the_products():
    room, sums = map(zeros, weighted_lines.room_shapes(1, 2, 1, 2))
    lines = np.zeros((9 + sums.shape[1], sums.shape[2]))
    lines[4, 1] = np.nan
    weighted_lines.add_weighted_line_products(lines, np.ones((1, 9)), 0, 2, room, sums)
    assert np.isnan(sums[:2, 0, :2]).tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize("n", [1, 2, 9, 40])
def test_reflects_from_both_sides(n, rng):
    matrix, mirror = rng.normal(size=(n, n)), rng.normal(size=n)
    matrix, mirror = matrix + matrix.T, mirror / np.linalg.norm(mirror)
    upper = np.triu(matrix) + np.tril(np.full((n, n), np.nan), -1)
    out = np.full((n, n), np.nan)
    reflect(upper, mirror, np.empty(n), out)
    turn = np.eye(n) - 2 * np.outer(mirror, mirror)
    assert_allclose(out, turn @ matrix @ turn, rtol=0, atol=1e-13 * n)
    assert np.array_equal(out, out.T)


@pytest.mark.parametrize("n", [1, 3, 4, 5, 16, 31, 33, 64, 67, 130])
def test_cholesky_factor(n, rng):
    columns = rng.normal(size=(n, n + 5))
    matrix = columns @ columns.T
    room = zeros(room_shape(n))
    assert factorise_upper(np.triu(matrix), room) == 0
    found = room.reshape(-1)[: n * n].reshape(n, n)
    assert_allclose(found, linalg.cholesky(matrix), rtol=0, atol=1e-12 * np.sqrt(n))
    assert not np.tril(found, -1).any()


@pytest.mark.parametrize("place", [0, 5, 34, 69])
@pytest.mark.parametrize("value", [-1.0, 0.0, np.nan])
def test_cholesky_tells_the_pivot_that_is_not_positive(value, place):
    matrix = np.eye(70)
    matrix[place, place] = value
    assert factorise_upper(matrix, zeros(room_shape(70))) == place + 1


def shifts(matrix, moments, energy):
    """Solve by shift, in arrays full of what is no number."""
    n = len(moments)
    gram, found, upper, room, taps = (
        np.full(shape, np.nan) for shape in ((n, n), n, (n, n), (n + 1, n), n)
    )
    numbers = solve_shifts(matrix, moments, energy, gram, found, upper, room, taps)
    return gram, found, upper, taps, *numbers


@pytest.mark.parametrize("n", [1, 2, 3, 9, 16, 25, 49, 121])
def test_equations_by_shift(n, rng):
    columns, y = rng.normal(size=(n + 30, n)) * np.linspace(0.1, 3, n), rng.normal(size=n + 30)
    matrix, moments = columns.T @ columns, columns.T @ y
    gram, turned, upper, taps, reciprocal, left = shifts(matrix, moments, y @ y)
    assert np.array_equal(gram, matrix[::-1, ::-1])
    assert np.array_equal(turned, moments[::-1])
    assert_allclose(upper, linalg.cholesky(gram), rtol=0, atol=1e-12 * n)
    expected, (energy,), *_ = np.linalg.lstsq(columns[:, ::-1], y)
    assert_allclose(taps, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert_allclose(left, energy, rtol=1e-10)
    assert_allclose(1 / reciprocal, np.linalg.cond(gram, 1), rtol=1e-9)


@pytest.mark.parametrize("value", [-1.0, 0.0, np.nan])
def test_equations_by_shift_that_have_no_factor(value):
    matrix = np.eye(7)
    matrix[2, 2] = value
    *_, reciprocal, left = shifts(matrix, np.ones(7), 5.0)
    assert (reciprocal, left) == (0.0, 5.0)
