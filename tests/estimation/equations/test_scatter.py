"""How scores scatter: against sums over all pairs of pixels, written out."""

import dense
import naive
import numpy as np
import pytest
from calls import pairs_of
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from scipy.linalg import solve_triangular, sqrtm
from skimage import data

from fastkernel import estimate_kernel
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import Scratch, Tiles
from fastkernel.estimation.equations import scatter
from fastkernel.estimation.equations.residual import Beside

SHAPE = (2, 3)
IMAGE = data.camera()[60:73, 90:105].astype(float)
# Correlations of neighbours, the same in opposite directions.
ALIKE = np.array([[0.1, 0.3, -0.05], [0.2, 1.0, 0.2], [-0.05, 0.3, 0.1]])


def observed(rng, mode="valid", boundary=None):
    """A pair with weights, some of them 0, and the noise of its source."""
    result = naive.convolve(IMAGE, rng.random(SHAPE), mode, boundary or "zero")
    result += 5 * rng.standard_normal(result.shape)
    weights = rng.uniform(0.2, 2, result.shape) * (rng.random(result.shape) > 0.1)
    return result, weights, rng.uniform(0, 3, IMAGE.shape)


def pair_of(result, boundary, weights, variance):
    pair = pairs_of(IMAGE, result, SHAPE, boundary)[0]
    (top, left), (height, width) = pair.window.result_origin, pair.window.shape
    inside = slice(top, top + height), slice(left, left + width)
    return pair._replace(
        weights=weights[inside], used=weights[inside] > 0, source_variance=variance
    )


def likeness_matrix(window, likeness):
    """What every pixel's residual has in common with every other's."""
    rows, cols = (part.ravel() for part in np.indices(window))
    reach, out = len(likeness) // 2, np.zeros((rows.size, rows.size))
    for i in range(rows.size):
        for j in range(rows.size):
            down, right = rows[i] - rows[j], cols[i] - cols[j]
            if max(abs(down), abs(right)) <= reach:
                out[i, j] = likeness[reach + down, reach + right]
    return out


MODES = [("valid", None), ("full", None), ("same", None), *(("same", b) for b in naive.PAD_MODES)]


def slopes(window):
    """A plane as lines and coefficients, and its columns as `terms_of` orders them."""
    lines = tuple(np.stack([np.ones(n), np.linspace(-1, 1, n)]) for n in window)
    columns = [np.outer(lines[0][i], lines[1][j]).ravel() for i, j in ((0, 0), (0, 1), (1, 0))]
    return lines, np.array([[3.0, -1.0], [2.0, 0.0]]), np.stack(columns, axis=1)


def nothing(window):
    lines = tuple(np.zeros((0, n)) for n in window)
    return lines, np.zeros((0, 0)), np.zeros((window[0] * window[1], 0))


@pytest.mark.parametrize("tile", [(64, 64), (4, 5)])
@pytest.mark.parametrize(("beside", "coefficients"), [(nothing, []), (slopes, [3.0, -1.0, 2.0])])
@pytest.mark.parametrize(("mode", "boundary"), MODES)
def test_sums_are_those_of_all_pairs_of_pixels(mode, boundary, beside, coefficients, tile, rng):
    result, weights, variance = observed(rng, mode, boundary)
    pair, kernel = pair_of(result, boundary, weights, variance), rng.random(SHAPE)
    lines, level, phi = beside(pair.window.shape)
    rows = dense.rows_of(IMAGE, result, SHAPE, boundary=boundary, weights=weights)
    residual = rows.y - rows.x @ kernel.ravel() - phi @ coefficients
    # By shift the taps stand in reverse.
    design = np.hstack([rows.x[:, ::-1], phi])
    noise = dense.rows_of(variance, result, SHAPE, boundary=boundary).x[:, ::-1]
    scores = (rows.w * residual)[:, None] * design
    scores[:, :6] += rows.w[:, None] * noise * kernel.ravel()[::-1]
    root = np.sqrt(rows.w)[:, None] * design
    spread = root.T @ likeness_matrix(pair.window.shape, ALIKE) @ root

    fitted = scatter.Fitted(kernel[::-1, ::-1].copy(), lines, level)
    tiles = list(Tiles(pair.window.shape, tile))
    found = scatter._ScatterJob(pair, fitted, tiles, ALIKE)(Scratch(), lambda: False)
    for got, want in zip(found, (root.T @ root, scores.T @ scores, spread), strict=True):
        assert_allclose(got, want, rtol=0, atol=1e-12 * np.abs(want).max())
    white = scatter._ScatterJob(pair, fitted, tiles, np.ones((1, 1)))(Scratch(), lambda: False)
    assert_allclose(white.scores, found.scores, rtol=1e-12)
    assert_array_equal(white.spread, white.rows)


def test_a_window_smaller_than_the_reach(rng):
    image, likeness = rng.random((3, 12)), rng.random((9, 9))
    likeness = likeness + likeness[::-1, ::-1]
    result = rng.random((2, 10))
    pair = pairs_of(image, result, SHAPE)[0]
    lines, level, _ = nothing((2, 10))
    fitted = scatter.Fitted(np.zeros(SHAPE), lines, level)
    job = scatter._ScatterJob(pair, fitted, [(0, 0, 2, 10)], likeness)
    x = naive.design_matrix(image, SHAPE)[:, ::-1]
    want = x.T @ likeness_matrix((2, 10), likeness) @ x
    assert_allclose(job(Scratch(), lambda: False).spread, want, rtol=1e-12)


def symmetric(rng, n=6):
    root = rng.standard_normal((n, 2 * n))
    return root @ root.T


def test_one_factor_alone_is_left_as_it_is(rng):
    gram, other = symmetric(rng), symmetric(rng)
    assert_allclose(scatter._combined(gram, gram, other, gram), other, rtol=1e-9)
    assert_allclose(scatter._combined(gram, gram, 3 * gram, other), 3 * other, rtol=1e-9)
    # Rows of a part of the pixels stand for those of all.
    assert_allclose(scatter._combined(gram, gram / 7, other / 7, gram / 7), other, rtol=1e-9)


def test_noise_is_left_in_every_direction(rng):
    gram, towards = symmetric(rng), rng.standard_normal(6)
    spread = gram - 2 * np.outer(gram @ towards, gram @ towards) / (towards @ gram @ towards)
    assert np.linalg.eigvalsh(spread)[0] < 0
    found = scatter._combined(gram, gram, gram, spread)
    least = towards @ found @ towards / (towards @ gram @ towards)
    assert least == pytest.approx(0.02)
    assert np.linalg.eigvalsh(found)[0] > 0


def test_scatter_is_the_product_of_both_factors(monkeypatch, rng):
    """The covariance of a fit, from dense matrices and a likeness that is given."""
    monkeypatch.setattr(scatter, "_likeness", lambda *_: ALIKE)
    result, weights, _ = observed(rng)
    rows = dense.rows_of(IMAGE, result, SHAPE, weights=weights)
    want = dense.fit(rows)
    root = np.sqrt(rows.w)[:, None] * rows.x
    gram, scores = root.T @ root, (rows.w * want.residual)[:, None] * rows.x
    lower = np.linalg.cholesky(gram)

    def whitened(matrix):
        return solve_triangular(lower, solve_triangular(lower, matrix, lower=True).T, lower=True)

    window = (IMAGE.shape[0] - 1, IMAGE.shape[1] - 2)
    spread = sqrtm(whitened(root.T @ likeness_matrix(window, ALIKE) @ root))
    middle = lower @ spread @ whitened(scores.T @ scores) @ spread @ lower.T
    scale = (rows.w > 0).sum() / want.left
    fit = estimate_kernel(IMAGE, result, SHAPE, weights=weights, errors="robust")
    covariance = want.inverse @ middle @ want.inverse * scale
    assert_allclose(fit.covariance, covariance, rtol=0, atol=1e-9 * covariance.max())


def residual_likeness(residual, used, reach):
    """The mean product of residuals at every lag, over those of one pixel."""
    height, width = residual.shape
    out = np.zeros((2 * reach + 1, 2 * reach + 1))
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            products = [
                residual[r, c] * residual[r + down, c + right]
                for r in range(max(0, -down), min(height, height - down))
                for c in range(max(0, -right), min(width, width - right))
                if used[r, c] and used[r + down, c + right]
            ]
            out[reach + down, reach + right] = np.mean(products)
    return out / out[reach, reach]


def likeness_of(pairs, kernel, workers=1):
    flipped = kernel[::-1, ::-1].copy()
    fitted = [scatter._fitted(i, flipped, None, pairs) for i in range(len(pairs))]
    return scatter._likeness(pairs, kernel.shape, fitted, Run(workers))


@pytest.mark.parametrize("weighed", [False, True])
def test_likeness_is_the_mean_product_of_neighbours(weighed, rng):
    kernel, image = rng.random(SHAPE), rng.random((42, 44))
    noise = ndimage.uniform_filter(rng.standard_normal((41, 42)), 3)
    weights = np.ones(noise.shape)
    if weighed:
        weights = rng.uniform(0.5, 2, noise.shape) * (rng.random(noise.shape) > 0.2)
    roots = np.sqrt(weights)
    result = naive.convolve(image, kernel) + noise / np.where(roots > 0, roots, 1)
    pair = pairs_of(image, result, SHAPE)[0]
    if weighed:
        pair = pair._replace(weights=weights, used=weights > 0)
    found = likeness_of([pair], kernel)
    reach = len(found) // 2
    assert reach >= 2
    assert_allclose(found, residual_likeness(noise, weights > 0, reach), rtol=0, atol=1e-12)


def test_white_noise_is_like_no_other(rng):
    kernel, image = rng.random(SHAPE), rng.random((42, 44))
    result = naive.convolve(image, kernel) + rng.standard_normal((41, 42))
    assert_array_equal(likeness_of(pairs_of(image, result, SHAPE), kernel), [[1]])
    exact = naive.convolve(np.round(9 * image), np.ones(SHAPE))
    pair = pairs_of(np.round(9 * image), exact, SHAPE)
    assert_array_equal(likeness_of(pair, np.ones(SHAPE)), [[1]])


def test_the_background_has_its_share_of_the_residual(rng):
    kernel, image = rng.random(SHAPE), rng.random((42, 44))
    lines, level, phi = slopes((41, 42))
    plane = (phi @ [3.0, -1.0, 2.0]).reshape(41, 42)
    result = naive.convolve(image, kernel) + plane + rng.standard_normal((41, 42))
    pairs = pairs_of(image, result, SHAPE)
    fitted = scatter._fitted(0, kernel[::-1, ::-1].copy(), Beside([lines], [level]), pairs)
    assert_array_equal(scatter._likeness(pairs, SHAPE, [fitted], Run(1)), [[1]])
    assert len(likeness_of(pairs, kernel)) > 1


@pytest.mark.parametrize(("pixels", "count"), [(0, 16), (64 * 64 * 20, 20), (1e12, 35)])
def test_tiles_are_spread_over_the_window(pixels, count, rng):
    image = np.zeros((300, 400))
    pair = pairs_of(image, image, (1, 1))[0]
    tiles = scatter._spread_tiles(pair, pixels)
    assert len(tiles) == len(set(tiles)) == count
    assert {tile[0] for tile in tiles} == {0, 64, 128, 192, 256}
