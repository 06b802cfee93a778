import numpy as np
import pytest
import varying
from numpy.testing import assert_allclose, assert_array_equal

from fastkernel._images.pairs import Pair
from fastkernel._images.windows import window_of_pair
from fastkernel._machine.run import Run
from fastkernel.estimation.fields import field_sums as module
from fastkernel.estimation.fields.field_sums import field_sums, tiles_of
from fastkernel.estimation.fields.frame import Frame

SHAPE = (3, 2)


@pytest.fixture(autouse=True)
def tiles_as_asked(monkeypatch):
    """However few they are."""
    monkeypatch.setattr(module, "_LEAST_TILES", 1)


class Steps:
    """Functions of position with whole numbers for values, constant in tiles of 16 pixels."""

    terms = 3

    def values(self, rows, cols):
        i, j = (np.asarray(places) // 16 for places in (rows, cols))
        return np.array([np.ones(np.shape(i)), i - 1.0, 2 * j - i])


def whole_pair(rng, uneven):
    source = rng.integers(-20, 20, (50, 65)).astype(np.float32)
    result = rng.integers(-20, 20, (48, 64)).astype(np.float64)
    pair = Pair(source, result, window_of_pair(source.shape, result.shape, SHAPE, None))
    if uneven == "masked":
        used = rng.random(result.shape) < np.linspace(1, 0.2, 64)
        used[16:32, :16] = False
        return pair._replace(used=used)
    if uneven == "weights":
        return pair._replace(weights=rng.integers(0, 2, result.shape) * 4.0)
    return pair


@pytest.mark.parametrize("uneven", ["even", "masked", "weights"])
@pytest.mark.parametrize("degree", [None, 0])
def test_whole_numbers_give_the_dense_sums_bit_for_bit(uneven, degree, rng):
    pair, frame = whole_pair(rng, uneven), Steps()
    sums = field_sums(pair, SHAPE, frame, 16, degree, Run(2))
    # By shift: the kernel is not flipped.
    rows = varying.rows_of(pair.source, np.ones((1, 48, 64)), SHAPE)[:, ::-1]
    columns = [rows] if degree is None else [rows, np.ones((48 * 64, 1))]
    rows = np.hstack([*columns, pair.result.reshape(-1, 1)])
    weights = np.zeros(pair.result.shape)
    pair.load_weights(0, 0, weights)
    values = frame.values(*np.indices(pair.result.shape)).reshape(3, -1)
    for number, (j, k) in enumerate(zip(*np.triu_indices(3), strict=True)):
        dense = rows.T @ ((weights.ravel() * values[j] * values[k])[:, None] * rows)
        assert_array_equal(np.triu(sums.mixed[number]), np.triu(dense))
    assert sums.n_pixels == pair.n_pixels
    assert sums.total_weight == weights.sum()


def test_pixels_come_and_go(rng):
    pair, frame = whole_pair(rng, "masked"), Steps()
    some = pair._replace(used=pair.used & (rng.random(pair.used.shape) < 0.9))
    gone = pair._replace(used=pair.used & ~some.used)
    every, less = (field_sums(part, SHAPE, frame, 16, 0, Run()) for part in (pair, some))
    moved = field_sums(gone, SHAPE, frame, 16, 0, Run(), every.places)
    found = every.changed(moved, -1)
    assert_array_equal(np.triu(found.mixed), np.triu(less.mixed))
    assert found[2:4] == less[2:4]
    assert_array_equal(np.triu(less.changed(moved, 1).mixed), np.triu(every.mixed))


def test_noise_is_that_of_the_diagonal(rng):
    pair, frame = whole_pair(rng, "masked"), Steps()
    pair = pair._replace(source_variance=rng.integers(0, 5, pair.source.shape))
    sums = field_sums(pair, SHAPE, frame, 16, None, Run())
    rows = varying.rows_of(pair.source_variance, np.ones((1, 48, 64)), SHAPE)[:, ::-1]
    values = frame.values(*np.indices(pair.result.shape)).reshape(3, -1) * pair.used.ravel()
    for number, (j, k) in enumerate(zip(*np.triu_indices(3), strict=True)):
        assert_array_equal(sums.noise[number], (values[j] * values[k]) @ rows)


def test_tiles_stand_at_their_light():
    result = np.full((64, 48), 100.0)
    result[40:43, 10:13] += 50.0
    result[20, 30] = 400.0
    source = np.pad(result, 1)
    pair = Pair(source, result, window_of_pair(source.shape, result.shape, (3, 3), None))
    used = np.ones(result.shape, bool)
    used[20, 30] = False
    frame = Frame(result.shape, 1)
    (place,) = field_sums(pair._replace(used=used), (3, 3), frame, 64, None, Run()).places
    assert_allclose(place, [41, 11], atol=1)
    used[:] = False
    used[:8] = True
    flat = pair._replace(used=used, result=np.full(result.shape, 7.0))
    (place,) = field_sums(flat, (3, 3), frame, 64, None, Run()).places
    assert_allclose(place, [31.5, 23.5])


def test_the_same_bits_for_any_workers_and_parts(monkeypatch, rng):
    pair, frame = whole_pair(rng, "even"), Steps()
    pair = pair._replace(source=rng.random(pair.source.shape))
    once = field_sums(pair, SHAPE, frame, 16, 0, Run(1))
    for workers in (2, 3):
        assert_array_equal(field_sums(pair, SHAPE, frame, 16, 0, Run(workers)).mixed, once.mixed)
    monkeypatch.setattr(module, "_MIXED", 0)
    again = field_sums(pair, SHAPE, frame, 16, 0, Run(1))
    assert_allclose(np.triu(again.mixed), np.triu(once.mixed), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "tile", "least", "most"),
    [
        ((700, 1300), 64, 50, 96),
        ((50, 130), 64, 6, 17),
        ((3, 20), 8, 1, 3),
        ((400, 90), 16, 11, 24),
    ],
)
def test_tiles_cover_the_window_once(shape, tile, least, most, monkeypatch):
    monkeypatch.setattr(module, "_LEAST_TILES", 8)
    seen = np.zeros(shape, int)
    for top, left, height, width in tiles_of(seen.shape, tile):
        seen[top : top + height, left : left + width] += 1
        assert least <= min(height, width) <= max(height, width) <= most
    assert (seen == 1).all()
