"""Methods other than least squares, by masks and weights: their definitions over dense rows."""

import naive
import numpy as np
import pytest
import weighted
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linprog

from fastkernel import SingularFitError, estimate_kernel
from fastkernel.estimation.equations import sweeps, transformed_sweeps
from fastkernel.estimation.methods import lad, lad_points, richardson_lucy

METHODS = ["lad", "richardson_lucy"]


def positive_pair(rng, shape, mode="valid", boundary=None, size=weighted.SIZE):
    image = rng.random(size) * 3 + 0.5
    result = naive.convolve(image, rng.random(shape), mode, boundary or "zero")
    return image, result * (1 + 0.3 * rng.random(result.shape))


def case(rng, kind, shape, mode="valid", boundary=None):
    """A pair, what is said of it, and its dense rows, result and weights."""
    image, result = positive_pair(rng, shape, mode, boundary)
    rules, weights = weighted.rules_of(kind, rng, result.shape, image.shape)
    if "source_mask" in rules:
        bad = rules["source_mask"]
        weights = weighted.without_reached(weights, bad, shape, mode, boundary)
    rows = weighted.rows_of(image, shape, mode, boundary)
    y, w = (weighted.used_part(part, shape, mode, boundary).ravel() for part in (result, weights))
    return image, result, rules, (rows, y, w)


CASES = [
    *((shape, kind, "valid", None) for shape in ((3, 3), (2, 4)) for kind in weighted.UNEVEN),
    *(((3, 2), "all of it", mode, boundary) for mode, boundary in weighted.MODES[1:]),
]


# Least absolute deviations.


def program(x, y, w):
    """The least weighted sum of u + v with X k + u - v = y, and its taps."""
    x, y, w = x[w > 0], y[w > 0], w[w > 0]
    n, taps = x.shape
    found = linprog(
        np.concatenate([np.zeros(taps), w, w]) / w.max(),
        A_eq=np.hstack([x, np.eye(n), -np.eye(n)]),
        b_eq=y,
        bounds=[(None, None)] * taps + [(0, None)] * (2 * n),
        method="highs",
    )
    assert found.status == 0
    return found.x[:taps], found.fun * w.max()


@pytest.fixture
def small_programs(monkeypatch):
    monkeypatch.setattr(lad, "_NEAR", 60)
    monkeypatch.setattr(lad, "_NEAR_A_TAP", 4)


@pytest.mark.parametrize("solver", ["linear_programming", "reweighted"])
@pytest.mark.parametrize(("shape", "kind", "mode", "boundary"), CASES)
def test_lad_equals_the_program(shape, kind, mode, boundary, solver, rng, small_programs):
    image, result, rules, (x, y, w) = case(rng, kind, shape, mode, boundary)
    fit = estimate_kernel(
        image, result, shape, method="lad", boundary=boundary, solver=solver, **rules
    )
    taps, least = program(x, y, w)
    left = np.where(w > 0, y - x @ fit.kernel.ravel(), 0)
    assert w @ np.abs(left) == pytest.approx(least, rel=1e-9)
    assert_allclose(fit.kernel.ravel(), taps, rtol=0, atol=1e-6)
    assert fit.converged
    assert fit.n_pixels == np.count_nonzero(w)
    # Weights count up to a factor: their root mean square is 1.
    scale = np.sqrt(np.mean(w[w > 0] ** 2))
    assert fit.history["objective"][-1] == pytest.approx(least / scale, rel=1e-9)


@pytest.mark.parametrize("solver", ["linear_programming", "reweighted"])
def test_lad_of_several_pairs(solver, rng, small_programs):
    images, results = zip(*(positive_pair(rng, (3, 3)) for _ in range(3)), strict=True)
    mask, own = rng.random(results[0].shape) < 0.2, rng.random(results[1].shape)
    weights = [~mask * 1.0, own, np.ones(results[2].shape)]
    fit = estimate_kernel(
        list(images),
        list(results),
        3,
        method="lad",
        solver=solver,
        mask=[mask, None, None],
        weights=[None, own, None],
    )
    x = np.vstack([weighted.rows_of(image, (3, 3)) for image in images])
    y, w = (np.concatenate([part.ravel() for part in parts]) for parts in (results, weights))
    taps, _ = program(x, y, w)
    assert_allclose(fit.kernel.ravel(), taps, rtol=0, atol=1e-6)


@pytest.mark.parametrize("share", [0.3, 0.8])
@pytest.mark.parametrize("points", [30, 60])
def test_lad_chooses_good_points(points, share, rng):
    """Its program is that over the points; none of them is bad, whatever their gradient."""
    image, result = positive_pair(rng, (2, 2), size=(30, 34))
    mask = rng.random(result.shape) < share
    spoiled = np.where(mask, np.nan, result)
    pair = weighted.pair_with(image, spoiled, (2, 2), mask=mask)
    places = lad_points.choose_points([pair], (2, 2), points)
    assert len(places) == len({tuple(place) for place in places}) == points
    assert not mask[places[:, 1], places[:, 2]].any()
    chosen = np.zeros(result.shape, bool)
    chosen[places[:, 1], places[:, 2]] = True
    fit = estimate_kernel(image, spoiled, 2, method="lad", points=points, mask=mask)
    taps, _ = program(weighted.rows_of(image, (2, 2)), result.ravel(), chosen.ravel() * 1.0)
    assert_allclose(fit.kernel.ravel(), taps, rtol=0, atol=1e-6)
    assert fit.n_pixels == points


def test_lad_takes_no_more_points_than_are_fitted(rng):
    image, result = positive_pair(rng, (2, 2))
    mask = rng.random(result.shape) < 0.5
    n = int(np.count_nonzero(~mask))
    assert estimate_kernel(image, result, 2, method="lad", mask=mask, points=n).n_pixels == n
    with pytest.raises(ValueError, match=rf"at most the number of fitted pixels, {n}, got {n + 1}"):
        estimate_kernel(image, result, 2, method="lad", mask=mask, points=n + 1)


def test_lad_of_a_spoiled_result_is_that_of_its_good_part(rng):
    """Masked where it is known to be wrong, unmoved by a few that are not known."""
    image = rng.random((30, 34))
    kernel = rng.random((3, 3))
    result = naive.convolve(image, kernel)
    mask, wrong = rng.random(result.shape) < 0.5, rng.random(result.shape) < 0.1
    result[mask] = 1e9
    result[wrong] = -5
    fit = estimate_kernel(image, result, 3, method="lad", mask=mask)
    assert_allclose(fit.kernel, kernel, rtol=0, atol=1e-9)


# Richardson-Lucy.


def plainly(x, y, w, num_iter):
    """The published iteration by weights, and the likelihoods on its way."""
    x, y, w = x[w > 0], y[w > 0], w[w > 0]
    seen = w @ x
    k = np.full(x.shape[1], (w @ y) / seen.sum())
    likelihoods = []
    for _ in range(num_iter + 1):
        m = x @ k
        likelihoods.append(float(w @ (y * np.log(m) - m)))
        last, k = k, k * (x.T @ (w * y / m)) / seen
    return last, likelihoods


@pytest.fixture(params=["direct", "transforms"])
def engine(request, monkeypatch):
    by_transforms = request.param == "transforms"
    monkeypatch.setattr(richardson_lucy, "transforms_win", lambda *args: by_transforms)


PLAIN = {"method": "richardson_lucy", "num_iter": 20, "tol": 0.0, "acceleration": False}


@pytest.mark.parametrize(("shape", "kind", "mode", "boundary"), CASES)
def test_richardson_lucy_equals_the_formula(shape, kind, mode, boundary, engine, rng):
    image, result, rules, (x, y, w) = case(rng, kind, shape, mode, boundary)
    fit = estimate_kernel(image, result, shape, boundary=boundary, **PLAIN, **rules)
    kernel, likelihoods = plainly(x, y, w, 20)
    assert_allclose(fit.kernel.ravel(), kernel, rtol=1e-9)
    scale = np.abs(w @ y)
    assert_allclose(fit.history["log_likelihood"], likelihoods, rtol=0, atol=1e-10 * scale)
    left = np.where(w > 0, y - x @ kernel, 0)
    assert fit.residual_rms == pytest.approx(np.sqrt(w @ left**2 / w.sum()), rel=1e-8)
    assert fit.n_pixels == np.count_nonzero(w)


def test_richardson_lucy_of_several_pairs(engine, rng):
    images, results = zip(*(positive_pair(rng, (3, 3)) for _ in range(3)), strict=True)
    mask, own = rng.random(results[0].shape) < 0.2, rng.random(results[1].shape)
    weights = [~mask * 1.0, own, np.ones(results[2].shape)]
    asked = {"mask": [mask, None, None], "weights": [None, own, None]}
    fit = estimate_kernel(list(images), list(results), 3, **PLAIN, **asked)
    x = np.vstack([weighted.rows_of(image, (3, 3)) for image in images])
    y, w = (np.concatenate([part.ravel() for part in parts]) for parts in (results, weights))
    assert_allclose(fit.kernel.ravel(), plainly(x, y, w, 20)[0], rtol=1e-9)


def test_richardson_lucy_where_the_result_is_dark(engine, rng):
    """Zeros, and dark parts of the source beside a masked one."""
    image, kernel = rng.random((20, 22)), rng.random((3, 3))
    image[:8, :9] = 0
    result = naive.convolve(image, kernel)
    result[result < 0.3] = 0
    mask = rng.random(result.shape) < 0.2
    fit = estimate_kernel(image, result, 3, mask=mask, **PLAIN)
    x, good = weighted.rows_of(image, (3, 3)), ~mask.ravel()
    lit = good & (x.sum(axis=1) > 0)  # rows that no tap reaches say nothing
    assert_allclose(fit.kernel.ravel(), plainly(x, result.ravel(), lit * 1.0, 20)[0], rtol=1e-8)


@pytest.mark.jit
@pytest.mark.parametrize("acceleration", [False, True])
def test_richardson_lucy_rises(acceleration, rng):
    image, result, rules, (x, y, w) = case(rng, "all of it", (3, 3))
    fit = estimate_kernel(
        image,
        result,
        3,
        method="richardson_lucy",
        num_iter=3000,
        tol=1e-9,
        acceleration=acceleration,
        **rules,
    )
    assert (fit.kernel >= 0).all()
    # At the maximum no tap has a slope to climb, and those that are free have none.
    x, y, w = x[w > 0], y[w > 0], w[w > 0]
    slope = (x.T @ (w * y / (x @ fit.kernel.ravel()))) / (w @ x) - 1
    assert slope.max() < 1e-4
    assert np.abs(slope * fit.kernel.ravel()).max() < 1e-5


def test_richardson_lucy_looks_at_good_pixels_alone(rng):
    image, result = positive_pair(rng, (3, 3))
    mask, source_mask = np.zeros(result.shape, bool), np.zeros(image.shape, bool)
    mask[4, 5], source_mask[9, 9] = True, True
    rules = {"mask": mask, "source_mask": source_mask}
    want = estimate_kernel(image, result, 3, **PLAIN, **rules)
    image[9, 9], result[4, 5] = -3, -np.inf
    got = estimate_kernel(image, result, 3, **PLAIN, **rules)
    assert_array_equal(got.kernel, want.kernel)
    with pytest.raises(ValueError, match=r"result must be finite, got -inf at index \(4, 5\)"):
        estimate_kernel(image, result, 3, **PLAIN, source_mask=source_mask)
    with pytest.raises(ValueError, match=r"source must not be negative .* got -3\.0 at .* \(9, 9"):
        estimate_kernel(image, result, 3, **PLAIN, mask=mask)
    # What is left of the source is flat, whatever stands where it is bad.
    flat = np.ones(image.shape)
    flat[9, 9] = 77
    with pytest.raises(SingularFitError, match="the source is flat"):
        estimate_kernel(flat, np.abs(result[:, :]), 3, **PLAIN, **rules)


# Both.


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", weighted.UNEVEN)
def test_the_same_bits_whatever_is_bad_and_whoever_works(
    kind, method, rng, small_tiles, monkeypatch
):
    monkeypatch.setattr(sweeps, "THREADED_WORK", 0)
    monkeypatch.setattr(transformed_sweeps, "fft_lengths", lambda *args: (8, 10))
    image, result, rules, (_, _, w) = case(rng, kind, (2, 3))
    mask = (w == 0).reshape(result.shape)
    options = {"num_iter": 4} if method == "richardson_lucy" else {"solver": "reweighted"}
    found = set()
    for workers, filling in zip((1, 2, 3), (0, np.nan, 1e30), strict=True):
        x, y = image.copy(), np.where(mask, filling, result)
        x[rules.get("source_mask", np.zeros(image.shape, bool))] = filling
        fit = estimate_kernel(
            x, y, (2, 3), method=method, workers=workers, **options, **{**rules, "mask": mask}
        )
        found.add(fit.kernel.tobytes())
    assert len(found) == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_factor_of_the_weights_changes_nothing(method, rng):
    image, result, rules, _ = case(rng, "weights", (3, 3))
    one, other = (
        estimate_kernel(image, result, 3, method=method, weights=factor * rules["weights"])
        for factor in (1, 1e5)
    )
    assert_allclose(other.kernel, one.kernel, rtol=0, atol=1e-9)
    assert other.residual_rms == pytest.approx(one.residual_rms, rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_levels_and_numbers_that_are_none(method, rng):
    image = rng.integers(10, 200, weighted.SIZE).astype(np.uint8)
    result = rng.integers(10, 200, (13, 16)).astype(np.uint8)
    result[rng.random(result.shape) < 0.1], image[7, 7] = 255, 255
    mask, source_mask = result == 255, image == 255
    want = estimate_kernel(image, result, 3, method=method, mask=mask, source_mask=source_mask)
    got = estimate_kernel(image, result, 3, method=method, saturation="auto")
    assert_array_equal(got.kernel, want.kernel)
    got = estimate_kernel(
        np.where(source_mask, np.nan, image),
        np.where(mask, np.inf, result),
        3,
        method=method,
        nan_policy="omit",
    )
    assert_allclose(got.kernel, want.kernel, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mask", np.zeros((9, 9), bool)),
        ("source_mask", np.zeros((9, 9), bool)),
        ("weights", np.ones((9, 9))),
        ("saturation", "auto"),
        ("nan_policy", "omit"),
    ],
)
def test_division_of_spectra_leaves_no_pixel_out(name, value, rng):
    image = rng.random((9, 9))
    takers = "method='lstsq' or 'lad' or 'richardson_lucy'"
    message = rf"{name} goes with {takers}, got method='fft'; leave it out"
    with pytest.raises(ValueError, match=message):
        estimate_kernel(image, image, 3, method="fft", **{name: value})


@pytest.mark.parametrize("name", ["source_variance", "sigma_clip"])
@pytest.mark.parametrize("method", METHODS)
def test_what_goes_with_least_squares_alone(method, name, rng):
    image = rng.random((9, 9))
    with pytest.raises(ValueError, match=rf"{name} goes with method='lstsq', got method='{method}"):
        estimate_kernel(image, image, 3, method=method, **{name: 3.0})
