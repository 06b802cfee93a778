"""Some rows, corrected by all pixels, equal all rows; and when that is less work."""

import naive
import numpy as np
import pytest
import weighted
from numpy.testing import assert_allclose, assert_array_equal

from fastkernel import NormalEquations, estimate_kernel
from fastkernel._images.pairs import Pair
from fastkernel._images.windows import Window
from fastkernel.estimation.equations.uneven import left_out_wins
from fastkernel.estimation.methods import lstsq, lstsq_sampled


@pytest.fixture
def some_rows(monkeypatch):
    """Make fits begin with a tenth of the rows; count how they went on."""
    ends = []

    def corrected(*args, **options):
        found = lstsq_sampled.corrected(*args, **options)
        ends.append(found is not None)
        return found

    monkeypatch.setattr(lstsq, "share_of_rows", lambda *args: 0.1)
    monkeypatch.setattr(lstsq, "corrected", corrected)
    return ends


SAMPLED = [
    {},
    {"background": 0},
    {"background": 2},
    {"unit_sum": True},
    {"ridge": 0.05},
    {"ridge": ("smooth", 0.05)},
    {"symmetric": "even"},
    {"unit_sum": True, "background": 1, "ridge": 0.05},
]


@pytest.mark.parametrize("kind", ["few masked", "all of it"])
@pytest.mark.parametrize("asked", SAMPLED, ids=str)
def test_some_rows_and_corrections_equal_all_rows(asked, kind, rng, some_rows):
    shape = (3, 4)
    image, result = weighted.noisy_pair(rng, shape, size=(42, 46))
    rules, weights = weighted.rules_of(kind, rng, result.shape, image.shape)
    if "source_mask" in rules:
        weights = weighted.without_reached(weights, rules["source_mask"], shape, "valid", None)
    degree = asked.get("background")
    root = np.sqrt(weights).reshape(-1, 1)
    taps = weighted.rows_of(image, shape)
    columns = weighted.with_backgrounds([taps], [result.shape], degree)
    y = root[:, 0] * result.ravel()
    n = columns.shape[1]
    penalty = np.zeros((n, n))
    if "ridge" in asked:
        rows = (
            np.eye(12) if isinstance(asked["ridge"], float) else weighted.second_differences(shape)
        )
        penalty[:12, :12] = 0.05 * weights.sum() * rows.T @ rows
    constraint, value = np.zeros((0, n)), []
    if "unit_sum" in asked:
        constraint, value = (np.arange(n) < 12)[None] * 1.0, [1.0]
    if "symmetric" in asked:
        constraint = np.eye(12) - np.eye(12)[::-1]
        constraint, value = constraint[:6], np.zeros(6)
    want = weighted.constrained(root * columns, y, constraint, value, penalty)
    fit = estimate_kernel(image, result, shape, **asked, **rules)
    assert some_rows == [True]
    weighted.close(fit.kernel.ravel(), want[:12])
    left = result.ravel() - columns @ want
    rms = np.sqrt((weights.ravel() @ left**2) / weights.sum())
    assert fit.residual_rms == pytest.approx(rms, rel=1e-9)
    if degree is not None:
        beside = fit.predict(image) - fit.predict(image, background=False)
        atol = 1e-9 * np.abs(result).max()
        assert_allclose(beside.ravel(), columns[:, 12:] @ want[12:], rtol=0, atol=atol)
    assert fit.equations is None
    assert fit.n_pixels == np.count_nonzero(weights)
    assert_array_equal(fit.used, weights > 0)


def test_some_rows_of_several_pairs_by_transforms(rng, some_rows, monkeypatch):
    monkeypatch.setattr(lstsq_sampled, "transforms_win", lambda *args: True)
    shape, images = (3, 3), [rng.random((45, 50)) for _ in range(3)]
    kernel = rng.random(shape)
    results = [naive.convolve(image, kernel) for image in images]
    results = [result + 0.1 * rng.standard_normal(result.shape) for result in results]
    mask = [None, rng.random(results[1].shape) < 0.2, None]
    own = [None, None, rng.random(results[2].shape)]
    fit = estimate_kernel(images, results, shape, mask=mask, weights=own, background=1)
    weights = [np.ones(results[0].shape), ~mask[1] * 1.0, own[2]]
    rows = [weighted.rows_of(image, shape) for image in images]
    columns = weighted.with_backgrounds(rows, [result.shape for result in results], 1)
    y, w = (np.concatenate([part.ravel() for part in parts]) for parts in (results, weights))
    weighted.close(fit.kernel.ravel(), weighted.least_squares(columns, y, w)[:9])
    assert some_rows == [True]


@pytest.mark.jit
def test_the_same_bits_for_any_workers(rng, some_rows, small_tiles):
    image, result = weighted.noisy_pair(rng, (3, 3), size=(24, 26))
    weights = rng.random(result.shape) + 0.1
    one, *more = (
        estimate_kernel(image, result, 3, weights=weights, background=1, workers=n)
        for n in (1, 2, 3)
    )
    assert all(some_rows)
    for other in more:
        assert one.kernel.tobytes() == other.kernel.tobytes()
        assert one.standard_errors.tobytes() == other.standard_errors.tobytes()


@pytest.mark.parametrize("kind", ["few masked", "weights"])
def test_what_cannot_be_corrected_is_summed_over_all_rows(kind, rng, some_rows, monkeypatch):
    image, result = weighted.noisy_pair(rng, (3, 3), size=(40, 44))
    rules, weights = weighted.rules_of(kind, rng, result.shape, image.shape)
    want = weighted.fit(image, result, (3, 3), weights)
    monkeypatch.setattr(lstsq, "corrected", lambda *args, **options: None)
    fit = estimate_kernel(image, result, 3, **rules)
    weighted.close(fit.kernel, want)
    assert isinstance(fit.equations, NormalEquations)


def test_too_few_readings_are_no_answer(rng, some_rows, monkeypatch):
    monkeypatch.setattr(lstsq_sampled, "_MAX_READINGS", 2)
    image, result = weighted.noisy_pair(rng, (3, 3), size=(40, 44))
    weights = rng.random(result.shape)
    fit = estimate_kernel(image, result, 3, weights=weights)
    assert some_rows == [False]
    weighted.close(fit.kernel, weighted.fit(image, result, (3, 3), weights))


def test_some_rows_that_are_singular_are_no_refusal(rng, some_rows, monkeypatch):
    """Three rows tell no 12 taps apart; all of them do."""
    monkeypatch.setattr(lstsq, "share_of_rows", lambda *args: 0.001)
    image, result = weighted.noisy_pair(rng, (3, 4), size=(50, 54))
    weights = rng.random(result.shape) + 0.5
    fit = estimate_kernel(image, result, (3, 4), weights=weights)
    weighted.close(fit.kernel, weighted.fit(image, result, (3, 4), weights))
    for asked in ({"background": 2}, {"background": 2, "unit_sum": True}):
        fit = estimate_kernel(image, result, (3, 4), weights=weights, **asked)
        assert isinstance(fit.equations, NormalEquations)


def test_bright_rows_that_are_left_out_are_no_refusal(rng, some_rows):
    """Their sums, found by some of them, are more than what is left of all sums."""
    image = rng.random((60, 64))
    image[20:40, 20:40] *= 1e4
    result = naive.convolve(image, rng.random((3, 4))) + 0.1 * rng.standard_normal((58, 61))
    mask = np.zeros(result.shape, bool)
    mask[18:40, 17:40] = True
    mask[19:22, 18:21] = False
    weighted.close(
        estimate_kernel(image, result, (3, 4), mask=mask).kernel,
        weighted.fit(image, result, (3, 4), ~mask),
    )


def uneven_pair(n, left_out=None):
    """A pair of n x n pixels that takes no memory: by weights, or with some pixels left out."""
    pixels, window = np.broadcast_to(1.0, (n, n)), Window((0, 0), (0, 0), (n, n), "zero")
    if left_out is None:
        return Pair(pixels, pixels, window, None, pixels)
    used = np.ones((n, n), bool)
    used.flat[:left_out] = False
    return Pair(pixels, pixels, window, used)


@pytest.mark.parametrize("shape", [(3, 3), (9, 9), (15, 15)])
def test_all_rows_are_taken_where_that_is_the_least_work(shape):
    """Multiply-adds of all rows against those of some and of some readings of all pixels."""
    taps = shape[0] * shape[1]
    shares = []
    for n in range(50, 3000, 50):
        share = lstsq_sampled.share_of_rows([uneven_pair(n)], shape, None)
        assert 0 < share <= 1
        shares.append(share)
        if share < 1:
            rows = share * n * n
            assert rows > 399 * (taps + 1)
            assert rows * (taps + 1) ** 2 / 2 + 10 * 2 * taps * n * n < n * n * (taps + 1) ** 2
    assert shares[0] == 1
    below = [share < 1 for share in shares]
    assert below == sorted(below)
    if taps == 225:  # large images are worth more rows, and fewer readings
        assert (
            shares[-1] * 2950**2
            > 1400 * (taps + 1)
            > 801 * (taps + 1)
            > min(
                share * n * n
                for n, share in zip(range(50, 3000, 50), shares, strict=True)
                if share < 1
            )
        )
    assert (shares[-1] < 1) == (taps > 9)  # few taps are multiplied faster than they are read
    # More columns beside them want more rows.
    share, wider = (
        lstsq_sampled.share_of_rows([uneven_pair(3000)], (15, 15), degree) for degree in (None, 2)
    )
    assert wider > share


@pytest.mark.jit
def test_beyond_the_crossing(rng):
    """Where the rule itself takes some rows: the equations of all, summed in parts."""
    shape, background = (11, 11), 1
    image, result = weighted.noisy_pair(rng, shape, size=(530, 470))
    weights = rng.random(result.shape) + 0.1
    pair = weighted.pair_with(image, result, shape, weights=weights)
    assert lstsq_sampled.share_of_rows([pair], shape, background) < 0.5
    beside = weighted.powers(result.shape, background)
    n = 121 + beside.shape[1]
    gram, moments = np.zeros((n, n)), np.zeros(n)
    for top in range(0, 520, 40):
        rows = weighted.rows_of(image[top : top + 50], shape)
        part = np.s_[top * 460 : (top + 40) * 460]
        x, w = np.hstack([rows, beside[part]]), weights.ravel()[part]
        gram += x.T @ (w[:, None] * x)
        moments += x.T @ (w * result.ravel()[part])
    fit = estimate_kernel(image, result, shape, weights=weights, background=background)
    assert fit.equations is None
    weighted.close(fit.kernel.ravel(), np.linalg.solve(gram, moments)[:121])
    # Error bars rest on the equations of some rows: near those of all.
    left = fit.residual(image, result)
    variance = np.sum(weights * left**2) / (result.size - n)
    bars = np.sqrt(variance * np.diag(np.linalg.inv(gram))[:121])
    assert_allclose(fit.standard_errors.ravel(), bars, rtol=0.1)


def test_rows_that_are_subtracted_are_counted_by_what_is_left_out():
    few, more, most = (uneven_pair(1000, count) for count in (5000, 400_000, 600_000))
    assert [left_out_wins(pair) for pair in (few, more, most)] == [True, True, False]
    shares = [lstsq_sampled.share_of_rows([pair], (15, 15), None) for pair in (few, more, most)]
    assert shares[0] == 1
    assert shares[1] == pytest.approx(shares[2])  # 400 000 left out, 400 000 fitted
    even = uneven_pair(1000)._replace(weights=None)
    assert lstsq_sampled.share_of_rows([even], (15, 15), None) == 1
    assert lstsq_sampled.share_of_rows([even, few], (15, 15), None) == 1
