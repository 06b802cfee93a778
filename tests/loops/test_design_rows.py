"""Loops over rows of the design matrix, against sums written out."""

import math

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastkernel._loops import design_rows, deviations, moments

SHAPES = [(1, 1), (3, 3), (2, 5), (4, 1)]
DEGREES = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])


def tile(rng, shape, size=(6, 9)):
    """A source, a result, lines of polynomials and, for every pixel, its row of all columns."""
    (p, q), (height, width) = shape, size
    x, y = rng.standard_normal((height + p - 1, width + q - 1)), rng.standard_normal(size)
    down, across = rng.standard_normal((2, height)), rng.standard_normal((2, width))
    # By shift: the taps of a convolution turned around.
    taps = naive.design_matrix(x, shape)[:, ::-1]
    beside = [np.outer(down[i], across[j]).ravel() for i, j in DEGREES]
    return x, y, down, across, np.column_stack([taps, *beside, y.ravel()])


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_chosen_pixels(shape, rng):
    x, y, down, across, want = tile(rng, shape)
    places = np.array([0, 3, 17, 53])
    roots = rng.random(4)
    columns = np.full((want.shape[1] + 2, 7), np.nan)
    design_rows.collect_chosen(x, y, places, roots, shape, down, across, DEGREES, columns)
    assert_allclose(columns[: want.shape[1], :4].T, roots[:, None] * want[places], rtol=1e-15)
    assert np.isnan(columns[:, 4:]).all()
    assert np.isnan(columns[want.shape[1] :]).all()


@pytest.mark.parametrize("room", [4, 9, 25, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_all_pixels_block_by_block(shape, room, rng):
    x, y, down, across, want = tile(rng, shape)
    roots = rng.random(y.shape) * (rng.random(y.shape) > 0.3)
    columns, blocks, place = np.full((want.shape[1], room), np.nan), [], 0
    while place < y.size:
        after, count = design_rows.collect_all(
            x, y, roots, shape, down, across, DEGREES, place, columns
        )
        assert count == after - place == min(room, y.size - place)
        blocks.append(columns[:, :count].copy())
        place = after
    assert_allclose(np.hstack(blocks).T, roots.reshape(-1, 1) * want, rtol=1e-15)


def test_no_background_has_no_columns(rng):
    x, y, _, _, want = tile(rng, (2, 3))
    want = np.column_stack([want[:, :6], want[:, -1]])
    none, lines = np.zeros((0, 2), np.intp), (np.zeros((0, 6)), np.zeros((0, 9)))
    columns = np.zeros((7, y.size))
    design_rows.collect_all(x, y, np.ones(y.shape), (2, 3), *lines, none, 0, columns)
    assert_array_equal(columns, want.T)
    columns[:] = 0
    places = np.arange(y.size)
    design_rows.collect_chosen(x, y, places, np.ones(y.size), (2, 3), *lines, none, columns)
    assert_array_equal(columns, want.T)


@pytest.mark.parametrize("count", [1, 5, 16])
@pytest.mark.parametrize("n", [4, 8, 12, 48, 52, 100])
def test_products_of_rows(n, count, rng):
    """One panel, a panel and a part of one, and more; whole numbers keep sums exact."""
    rows = rng.integers(-9, 10, (n, 16)).astype(float)
    before = rng.integers(-9, 10, (n, n)).astype(float)
    out = before.copy()
    design_rows.add_products(rows, count, out)
    used = rows[:, :count]
    assert_array_equal(np.triu(out), np.triu(before + used @ used.T))
    # Below the diagonal only blocks are touched.
    block = np.arange(n) // design_rows.BLOCK
    below = block[:, None] > block
    assert_array_equal(out[below], before[below])


@pytest.mark.parametrize("shape", SHAPES)
def test_spread_clears_what_a_bad_pixel_reaches(shape, rng):
    (p, q), size = shape, (7, 8)
    bad = rng.random((size[0] + p - 1, size[1] + q - 1)) < 0.04
    before = rng.random(size) < 0.8
    used = before.astype(np.uint8)
    lines = np.empty((size[0], size[1] + q - 1), np.uint8)
    design_rows.spread(bad.astype(np.uint8), shape, lines, used)
    want = before.copy()
    for r, c in np.ndindex(size):
        for i, j in np.ndindex(shape):
            if bad[r + i, c + j]:
                want[r, c] = False
    assert_array_equal(used, want)


def test_thinned_rows_stand_for_all(rng):
    """A weight is left as it is, enlarged by the share of its kind, or 0."""
    shape, level, share = (3, 2), 0.5, 0.2
    x = rng.random((62, 81))
    x[20:30, 30:40] += 30  # a star, of which more is taken
    weights = rng.random((60, 80)) + 0.5
    weights[5, :40] = 0
    windows = np.lib.stride_tricks.sliding_window_view(x, shape)
    energy = ((windows - level) ** 2).sum(axis=(2, 3))
    scale = math.prod(shape) * float(np.mean((x - level) ** 2)) * float(weights.mean())
    chance = np.minimum(1, share / 2 * (1 + weights * energy / scale))
    got = weights.copy()
    design_rows.thin_out(x, shape, (0, 0), level, scale, share, np.empty(81), got)
    kept = got > 0
    assert_allclose(got[kept], (weights / chance)[kept], rtol=1e-12)
    assert not got[5, :40].any()
    assert kept[chance == 1].all()
    count = (weights > 0).sum() * share / 2
    assert count < kept.sum() < 3 * count
    assert got.sum() == pytest.approx(weights.sum(), rel=0.05)
    assert (got * energy).sum() == pytest.approx((weights * energy).sum(), rel=0.05)
    # A tile's place in the window tells which pixels are taken, not the tile.
    part = weights[10:30, 20:50].copy()
    design_rows.thin_out(
        x[10:32, 20:51].copy(), shape, (10, 20), level, scale, share, np.empty(31), part
    )
    assert_array_equal(part > 0, kept[10:30, 20:50])


def test_thinning_a_flat_source(rng):
    """Without a scale every row is as good as the next."""
    weights = np.ones((40, 50))
    design_rows.thin_out(np.ones((42, 52)), (3, 3), (0, 0), 1.0, 0.0, 0.5, np.empty(52), weights)
    assert_array_equal(np.unique(weights), [0, 4])
    assert weights.mean() == pytest.approx(1, rel=0.02)


def test_weigh(rng):
    y, weights = rng.standard_normal((5, 9)), rng.random((5, 7))
    weights[2, 3] = 0
    before = y.copy()
    energy = moments.weigh(y, weights)
    assert energy == pytest.approx(np.sum(weights * before[:, :7] ** 2), rel=1e-14)
    assert_array_equal(y[:, :7], weights * before[:, :7])
    assert_array_equal(y[:, 7:], before[:, 7:])


@pytest.mark.parametrize("outside", [False, True])
def test_weighted_rows_near_zero(outside, rng):
    """Weights of 0 leave a pixel out however small its residual, others multiply its row."""
    shape, delta = (2, 3), 0.4
    x, y, _, _, want = tile(rng, shape)
    weights = rng.random(y.shape) + 0.5
    weights[1, ::2] = 0
    residual = weights * y
    size = np.abs(residual)
    factor = np.where(size < delta, 1.0, np.sqrt(delta / np.maximum(size, delta)) * outside)
    factor = (factor * weights).ravel()
    chosen = np.flatnonzero(factor)
    rows, blocks, place = np.empty((6, 5)), [], 0
    while place < y.size:
        place, count = deviations.collect_rows(
            x, residual, weights, shape, delta, outside, place, rows
        )
        blocks.append(rows[:, :count].copy())
    assert_allclose(np.hstack(blocks).T, factor[chosen, None] * want[chosen, :6], rtol=1e-14)
