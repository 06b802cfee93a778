"""Sums over pixels that do not count alike: exact where they can be, the same on both ways."""

import hypothesis.extra.numpy as hnp
import naive
import numpy as np
import pytest
import weighted
from calls import run_of
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import eval_legendre

from fastkernel import NormalEquations, normal_equations
from fastkernel._images.pairs import Cleaned, Pair, unseen
from fastkernel.estimation.equations import chosen_rows, uneven
from fastkernel.estimation.equations.background import terms_of


def exact_sums(image, result, weights, kernel_shape, mode="valid", boundary=None):
    """Sums of int64: Gram matrix, moments, energy, number of pixels, total weight."""
    x = weighted.rows_of(image, kernel_shape, mode, boundary).astype(np.int64)
    y, w = (
        weighted.used_part(part, kernel_shape, mode, boundary).astype(np.int64).ravel()
        for part in (result, weights)
    )
    return x.T @ (w[:, None] * x), x.T @ (w * y), (w * y) @ y, np.count_nonzero(w), w.sum()


def assert_exactly(got, want):
    assert_array_equal(got.gram, want[0])
    assert_array_equal(got.moments, want[1])
    assert (got.energy, got.n_pixels, got.total_weight) == want[2:]


def bytes_pair(rng, shape, mode="valid", size=(13, 17), dtype=np.uint8):
    ends = np.iinfo(dtype)
    image = rng.integers(ends.min, ends.max + 1, size).astype(dtype)
    size = weighted.result_shape(size, shape, mode)
    return image, rng.integers(ends.min, ends.max + 1, size).astype(dtype)


# Exact sums.


@pytest.mark.parametrize(("mode", "boundary"), weighted.MODES)
@pytest.mark.parametrize(("shape", "share"), [((3, 3), 0.05), ((2, 4), 0.8)])
def test_bytes_are_summed_exactly(shape, share, mode, boundary, rng, small_tiles):
    """Few pixels left out, which are subtracted; and few that are left, which are added up."""
    image, result = bytes_pair(rng, shape, mode)
    mask, source_mask = rng.random(result.shape) < share, rng.random(image.shape) < 0.01
    reached = weighted.reached(source_mask, shape, mode, boundary)
    good = ~mask
    weighted.used_part(good, shape, mode, boundary)[...] &= ~reached.reshape(
        weighted.used_part(good, shape, mode, boundary).shape
    )
    want = exact_sums(image, result, good, shape, mode, boundary)
    for engine in ("integer", "float", "fft"):
        got = normal_equations(
            image,
            result,
            shape,
            boundary=boundary,
            mask=mask,
            source_mask=source_mask,
            engine=engine,
        )
        assert_exactly(got, want)


@pytest.mark.jit
@pytest.mark.parametrize("kind", ["scattered", "block", "most", "none"])
def test_bytes_are_summed_exactly_in_whole_tiles(kind, rng):
    image, result = bytes_pair(rng, (7, 6), size=(106, 330))
    mask = {
        "scattered": rng.random(result.shape) < 0.01,
        "block": np.add.outer(np.arange(100), np.arange(325)) < 150,
        "most": rng.random(result.shape) < 0.9,
        "none": np.zeros(result.shape, bool),
    }[kind]
    want = exact_sums(image, result, ~mask, (7, 6))
    for workers in (1, 2, 3):
        got = normal_equations(image, result, (7, 6), mask=mask, workers=workers)
        assert_exactly(got, want)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint16, np.int16])
@pytest.mark.parametrize("engine", ["auto", "float"])
def test_whole_weights_are_summed_exactly(dtype, engine, rng):
    image, result = bytes_pair(rng, (3, 4), dtype=dtype)
    weights = rng.integers(0, 4, result.shape) ** 2  # whose roots are whole
    got = normal_equations(image, result, (3, 4), weights=weights, engine=engine)
    assert_exactly(got, exact_sums(image, result, weights, (3, 4)))


@st.composite
def masked_pairs(draw):
    p, q, height, width = draw(st.tuples(*[st.integers(1, 5)] * 4))
    dtype = draw(st.sampled_from([np.int8, np.float64]))
    image = draw(hnp.arrays(dtype, (height + p - 1, width + q - 1), elements=st.integers(-9, 9)))
    result = draw(hnp.arrays(dtype, (height, width), elements=st.integers(-9, 9)))
    source_mask = draw(hnp.arrays(bool, image.shape, elements=st.just(False), fill=st.just(False)))
    for place in draw(st.lists(st.integers(0, image.size - 1), max_size=2)):
        source_mask.flat[place] = True
    return image, result, (p, q), draw(hnp.arrays(bool, result.shape)), source_mask


@given(pair=masked_pairs())
def test_any_shape_and_mask(pair):
    image, result, shape, mask, source_mask = pair
    engine = "float" if image.dtype.kind == "f" else "auto"
    got = normal_equations(image, result, shape, mask=mask, source_mask=source_mask, engine=engine)
    good = ~mask & ~weighted.reached(source_mask, shape).reshape(mask.shape)
    assert_exactly(got, exact_sums(image, result, good, shape))


@given(pair=masked_pairs(), cut=st.floats(0, 1))
def test_equations_of_masked_parts_add_up(pair, cut):
    image, result, (p, q), mask, _ = pair
    engine = "float" if image.dtype.kind == "f" else "auto"
    row, total = int(cut * result.shape[0]), NormalEquations.zero((p, q))
    for top, bottom in ((0, row), (row, result.shape[0])):
        if bottom > top:
            part = image[top : bottom + p - 1], result[top:bottom], (p, q)
            total = total + normal_equations(*part, mask=mask[top:bottom], engine=engine)
    assert_exactly(total, exact_sums(image, result, ~mask, (p, q)))


# The two ways.


def test_the_rule_says_which_pixels_are_fewer(rng):
    """More than half fitted, all alike: the others are subtracted."""
    image, result = bytes_pair(rng, (1, 1), size=(4, 5))
    for left_out in range(1, 21):
        mask = np.arange(20).reshape(4, 5) < left_out
        pair = weighted.pair_with(image, result, (1, 1), mask=mask)
        assert uneven.left_out_wins(pair) == (left_out < 10)
        pair = weighted.pair_with(image, result, (1, 1), mask=mask, weights=np.full((4, 5), 2))
        assert not uneven.left_out_wins(pair)


@pytest.mark.parametrize("degree", [None, 0, 1, 2])
@pytest.mark.parametrize(("mode", "boundary"), weighted.MODES)
def test_both_ways_are_the_same_at_the_crossing(mode, boundary, degree, rng, monkeypatch):
    image, shape = rng.random((14, 16)) + 3, (3, 2)
    result = rng.random(weighted.result_shape(image.shape, shape, mode))
    for share in (0.4, 0.5, 0.6):
        mask, found = rng.random(result.shape) < share, []
        for side in (True, False):
            monkeypatch.setattr(uneven, "left_out_wins", lambda _, side=side: side)
            found.append(
                normal_equations(
                    image, result, shape, boundary=boundary, background=degree, mask=mask
                )
            )
        one, other = found
        scale = np.trace(one.gram) if degree is None else one.background_energy
        assert_allclose(one.gram, other.gram, rtol=0, atol=2e-13 * max(scale, np.trace(one.gram)))
        assert_allclose(one.moments, other.moments, rtol=0, atol=1e-12 * np.abs(one.moments).max())
        assert one.energy == pytest.approx(other.energy, rel=1e-11)
        assert one.background_energy == pytest.approx(other.background_energy, rel=1e-12)
        assert one.n_pixels == other.n_pixels == one.total_weight == other.total_weight


@pytest.mark.parametrize("degree", [None, 0, 2])
def test_bright_pixels_that_nothing_fitted_sees_leave_no_rounding(degree, rng):
    """A star in the source that only masked pixels see, and what masked pixels hold themselves."""
    image = rng.standard_normal((30, 34))
    result = naive.convolve(image, rng.random((3, 4))) + 0.1 * rng.standard_normal((28, 31))
    image[10:13, 10:15] = 1e12
    result[2, 3], result[20, 20] = 1e12, -1e13
    mask = np.zeros(result.shape, bool)
    mask[8:13, 7:15] = mask[2, 3] = mask[20, 20] = True
    x, y, good = weighted.rows_of(image, (3, 4)), result.ravel(), ~mask.ravel()
    columns = weighted.with_backgrounds([x], [result.shape], degree)[good]
    beside = columns[:, 12:]
    x, y = x[good], y[good]
    if degree is not None:  # what is left when the best background is taken off
        x, y = (part - beside @ np.linalg.lstsq(beside, part, rcond=None)[0] for part in (x, y))
    for engine in ("float", "fft"):
        got = normal_equations(image, result, (3, 4), mask=mask, background=degree, engine=engine)
        assert_allclose(got.gram, x.T @ x, rtol=0, atol=1e-12 * np.trace(x.T @ x))
        assert_allclose(got.moments, x.T @ y, rtol=0, atol=1e-12 * np.trace(x.T @ x))
        assert got.energy == pytest.approx(y @ y, rel=1e-12)


@pytest.mark.parametrize(("mode", "boundary"), weighted.MODES)
@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (6, 5)])
def test_source_pixels_that_no_fitted_pixel_sees(shape, mode, boundary, rng):
    """A pixel is seen where its column of a dense matrix is not zero."""
    size = 7, 9
    result = np.zeros(weighted.result_shape(size, shape, mode))
    mask = rng.random(result.shape) < 0.7
    mask[: mask.shape[0] // 2] = True
    mask[-1, -1] = False
    pair = weighted.pair_with(np.zeros(size), result, shape, boundary, mask=mask)
    seen = np.zeros(size, bool)
    for place in np.ndindex(size):
        alone = np.zeros(size)
        alone[place] = 1
        met = weighted.reached(alone, shape, mode, boundary)
        seen[place] = (met & pair.used.ravel()).any()
    assert_array_equal(unseen(pair, shape), ~seen)


# Single rows.


@pytest.mark.parametrize("degree", [None, 0, 2])
@pytest.mark.parametrize("share", [0.2, 0.95])
def test_sums_over_rows(share, degree, rng, small_tiles, monkeypatch):
    """By places or whole lines, block by block, over several pairs."""
    monkeypatch.setattr(chosen_rows, "_COLUMNS", 7)
    shape, pairs, wanted = (2, 3), [], []
    for size in ((9, 11), (12, 8)):
        image, result = rng.random(size), rng.random((size[0] - 1, size[1] - 2))
        weights = rng.random(result.shape) * (rng.random(result.shape) < share)
        pairs.append(weighted.pair_with(image, result, shape, weights=weights))
        x = weighted.rows_of(image, shape)[:, ::-1]  # by shift
        r, c = (np.linspace(-1, 1, n) for n in result.shape)
        terms = [] if degree is None else zip(*terms_of(degree), strict=True)
        beside = [np.outer(eval_legendre(i, r), eval_legendre(j, c)).ravel() for i, j in terms]
        rows = np.column_stack([x, *beside, result.ravel()])
        wanted.append(rows.T @ (weights.reshape(-1, 1) * rows))
    for workers in (1, 2, 3):
        found = chosen_rows.rows_of(pairs, shape, degree, run_of(workers, None))
        for got, want in zip(found, wanted, strict=True):
            x, b = slice(6), slice(6, -1)
            assert_allclose(got.gram, want[x, x], rtol=1e-13)
            assert_array_equal(got.gram, got.gram.T)
            assert_allclose(got.moments, want[x, -1], rtol=1e-13)
            assert got.energy == pytest.approx(want[-1, -1], rel=1e-13)
            assert_allclose(got.products, want[x, b], rtol=1e-12, atol=1e-13)
            assert_allclose(got.background, want[b, b], rtol=1e-12, atol=1e-13)
            assert_allclose(got.answers, want[b, -1], rtol=1e-12, atol=1e-13)


def test_rows_that_a_mask_leaves_out(rng):
    image, result = rng.random((12, 14)), rng.random((10, 12))
    mask = rng.random(result.shape) < 0.3
    pair = weighted.pair_with(image, result, (3, 3), mask=mask)._replace(result=result)
    (got,) = chosen_rows.rows_of([pair], (3, 3), None, run_of(1, None), "left out")
    x, y = weighted.rows_of(image, (3, 3))[mask.ravel(), ::-1], result[mask]
    assert_allclose(got.gram, x.T @ x, rtol=1e-13)
    assert_allclose(got.moments, x.T @ y, rtol=1e-13)


@pytest.mark.parametrize("choice", ["fitted", "left out"])
def test_some_rows_stand_for_all(choice, rng):
    """A tenth of them, more of those that tell more: right to what chance leaves of their sums."""
    image = rng.random((100, 110))
    image[40:60, 50:70] *= 20
    result = naive.convolve(image, np.ones((3, 3))) + rng.standard_normal((98, 108))
    mask = rng.random(result.shape) < 0.4
    pair = weighted.pair_with(image, result, (3, 3), mask=mask)._replace(result=result)
    all_rows, some = (
        chosen_rows.rows_of([pair], (3, 3), 1, run_of(2, None), choice, share)[0]
        for share in (1.0, 0.1)
    )
    for got, want in zip(some, all_rows, strict=True):
        assert_allclose(got, want, rtol=0, atol=0.12 * np.abs(want).max())
        assert not np.array_equal(got, want)


# What equations keep, and how they are made.


@pytest.mark.parametrize("background", [None, 0, 2])
@pytest.mark.parametrize("kind", ["few masked", "most masked", "weights"])
def test_the_same_bits_for_any_workers(kind, background, rng, small_tiles):
    image, result = rng.random((26, 31)), rng.random((24, 28))
    rules = {
        "few masked": {"mask": rng.random(result.shape) < 0.1},
        "most masked": {"mask": rng.random(result.shape) < 0.7},
        "weights": {"weights": rng.random(result.shape)},
    }[kind]
    one, *more = (
        normal_equations(image, result, (3, 4), background=background, workers=n, **rules)
        for n in (1, 2, 3)
    )
    for other in more:
        assert one.gram.tobytes() == other.gram.tobytes()
        assert one.moments.tobytes() == other.moments.tobytes()
        assert one.energy == other.energy


def test_what_equations_keep_of_weights(rng, tmp_path):
    image, result = rng.random((20, 22)), rng.random((16, 18))
    weights = rng.random(result.shape) * (rng.random(result.shape) < 0.8)
    whole = normal_equations(image, result, 5, weights=weights, background=1)
    assert whole.total_weight == pytest.approx(weights.sum(), rel=1e-14)
    assert whole.n_pixels == np.count_nonzero(weights)
    whole.save(tmp_path / "equations.npz")
    loaded = NormalEquations.load(tmp_path / "equations.npz")
    cropped, twice = whole.crop(3), whole + whole
    assert loaded.total_weight == cropped.total_weight == whole.total_weight
    assert loaded.n_pixels == cropped.n_pixels == whole.n_pixels
    assert twice.total_weight == 2 * whole.total_weight
    assert loaded.solve().kernel.tobytes() == whole.solve().kernel.tobytes()
    smaller = normal_equations(image[1:-1, 1:-1], result, 3, weights=weights, background=1)
    assert_allclose(cropped.gram, smaller.gram, rtol=0, atol=1e-13 * np.trace(smaller.gram))
    ridge = [part.solve(ridge=0.1).kernel for part in (whole, twice)]
    assert_allclose(*ridge, rtol=1e-13)


@pytest.mark.parametrize("kind", [{}, {"background": 1}])
def test_progress_reaches_the_end(kind, rng):
    steps, images = [], [rng.random((20, 21)) for _ in range(3)]
    results = [rng.random((18, 19)) for _ in range(3)]
    mask = [rng.random((18, 19)) < 0.2, None, rng.random((18, 19)) < 0.7]
    normal_equations(
        images, results, 3, mask=mask, callback=lambda *step: steps.append(step), **kind
    )
    assert steps == sorted(steps)
    assert steps[-1] == (3 * 18 * 19,) * 2
    assert {total for _, total in steps} == {3 * 18 * 19}


def test_an_exception_of_the_callback_stops(rng):
    def stop(done, total):
        raise KeyboardInterrupt

    image, result = rng.random((20, 21)), rng.random((18, 19))
    for mask in (rng.random((18, 19)) < 0.2, rng.random((18, 19)) < 0.7):
        with pytest.raises(KeyboardInterrupt):
            normal_equations(image, result, 3, mask=mask, callback=stop)


@pytest.mark.parametrize("share", [0.1, 0.7])
@pytest.mark.parametrize("name", ["source", "result"])
def test_a_good_pixel_that_is_not_finite_is_named(name, share, rng):
    images = {"source": rng.random((20, 21)), "result": rng.random((18, 19))}
    mask = rng.random((18, 19)) < share
    mask[3:8, 4:9] = False
    images[name][6, 7] = np.inf
    message = rf"{name} must be finite, got inf at index \(6, 7\); nan_policy='omit' leaves"
    with pytest.raises(ValueError, match=message):
        normal_equations(images["source"], images["result"], 3, mask=mask)
    images[name][6, 7] = 1e200
    with pytest.raises(ValueError, match="products overflow float64"):
        normal_equations(images["source"], images["result"], 3, mask=mask)


def test_narrow_images_are_read_as_they_are(rng):
    """The exact sums of bytes need not be clean: what they hold is subtracted exactly."""
    image, result = bytes_pair(rng, (3, 3))
    mask, source_mask = result > 250, image > 250
    pair = weighted.pair_with(image, result, (3, 3), mask=mask, source_mask=source_mask)
    assert isinstance(pair.source, Cleaned)
    assert isinstance(pair.result, Cleaned)
    read = uneven._lightened(pair, (3, 3), exact=True)
    assert isinstance(read, Pair)
    assert read.source is image
    assert read.result is result
