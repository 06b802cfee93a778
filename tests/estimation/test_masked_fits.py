"""Fits by masks and weights equal dense weighted least squares, whatever else is asked of them."""

import naive
import numpy as np
import pytest
import weighted
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize
from shared import Dataset

from fastkernel import SingularFitError, basis, estimate_kernel, normal_equations

# Against dense least squares.


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        *(((3, 3), kind) for kind in weighted.UNEVEN),
        *((shape, "all of it") for shape in ((2, 4), (1, 5), (4, 1))),
        *((shape, "few masked") for shape in ((4, 2), (1, 3))),
    ],
)
@pytest.mark.parametrize(("mode", "boundary"), weighted.MODES)
def test_equals_the_dense_fit(mode, boundary, shape, kind, rng):
    image, result = weighted.noisy_pair(rng, shape, mode, boundary)
    rules, weights = weighted.rules_of(kind, rng, result.shape, image.shape)
    if "source_mask" in rules:
        weights = weighted.without_reached(weights, rules["source_mask"], shape, mode, boundary)
    fit = estimate_kernel(image, result, shape, boundary=boundary, **rules)
    want = weighted.fit(image, result, shape, weights, mode=mode, boundary=boundary)
    weighted.close(fit.kernel, want)
    used = np.zeros(result.shape, bool)
    weighted.used_part(used, shape, mode, boundary)[...] = True
    used &= weights > 0
    assert_array_equal(fit.used, used)
    assert fit.n_pixels == used.sum()
    w = weighted.used_part(weights * used, shape, mode, boundary).ravel()
    left = weighted.used_part(result, shape, mode, boundary).ravel()
    left = left - weighted.rows_of(image, shape, mode, boundary) @ want.ravel()
    assert fit.residual_rms == pytest.approx(np.sqrt(w @ left**2 / w.sum()), rel=1e-9)


@pytest.mark.parametrize("kind", ["few masked", "all of it"])
@pytest.mark.parametrize(
    ("dtype", "layout"),
    [(c, "C") for c in ("u1", "i1", "u2", ">u2", "i4", "u8", "f4", ">f4", "f8", ">f8")]
    + [(c, layout) for c in ("u1", "f4") for layout in ("Fortran", "strided")],
)
def test_every_dtype_and_layout(dtype, layout, kind, rng):
    top = 100 if dtype == "i1" else 250
    image, result = (rng.integers(1, top, size).astype(dtype) for size in (weighted.SIZE, (14, 16)))
    rules, weights = weighted.rules_of(kind, rng, result.shape, image.shape)
    if "source_mask" in rules:
        weights = weighted.without_reached(weights, rules["source_mask"], (2, 3), "valid", None)
    want = weighted.fit(image, result, (2, 3), weights)

    def laid_out(array):
        if layout == "Fortran":
            return np.asfortranarray(array)
        if layout == "strided":
            wide = np.zeros((2 * array.shape[0], 3 * array.shape[1]), array.dtype)
            wide[1::2, ::3] = array
            return wide[1::2, ::3]
        return array

    rules = {name: laid_out(rule) for name, rule in rules.items()}
    if "weights" in rules:
        rules["weights"] = rules["weights"].astype(">f8")
    fit = estimate_kernel(laid_out(image), laid_out(result), (2, 3), **rules)
    weighted.close(fit.kernel, want)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float32, ">f4"])
def test_weights_of_every_dtype(dtype, rng):
    image, result = weighted.noisy_pair(rng, (3, 2))
    weights = rng.integers(0, 9, result.shape).astype(dtype)
    fit = estimate_kernel(image, result, (3, 2), weights=weights)
    weighted.close(fit.kernel, weighted.fit(image, result, (3, 2), weights))


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("kind", ["few masked", "all of it"])
@pytest.mark.parametrize(("mode", "boundary"), weighted.MODES)
def test_backgrounds(mode, boundary, kind, degree, rng):
    shape = (3, 2)
    image, result = weighted.noisy_pair(rng, shape, mode, boundary)
    rules, weights = weighted.rules_of(kind, rng, result.shape, image.shape)
    if "source_mask" in rules:
        weights = weighted.without_reached(weights, rules["source_mask"], shape, mode, boundary)
    result += weighted.powers(result.shape, degree).sum(axis=1).reshape(result.shape)
    fit = estimate_kernel(image, result, shape, boundary=boundary, background=degree, **rules)
    want = weighted.fit(image, result, shape, weights, mode=mode, boundary=boundary, degree=degree)
    weighted.close(fit.kernel, want)
    # What is left has no weighted sum with a column: the background is the best as well.
    left = fit.residual(image, result, boundary=boundary)
    w = weighted.used_part(weights, shape, mode, boundary)
    columns = weighted.powers(left.shape, degree)
    assert_allclose(columns.T @ (w * left).ravel(), 0, atol=1e-8 * np.sum(w * np.abs(left)))


@pytest.mark.parametrize("background", [None, 0, 2])
def test_several_pairs_with_masks_of_their_own(background, rng):
    shape, sizes = (3, 2), [(12, 14), (16, 9), (11, 11), (13, 12)]
    kernel = rng.standard_normal(shape)
    images, results, rows, weights = [], [], [], []
    for size in sizes:
        images.append(rng.random(size))
        result = naive.convolve(images[-1], kernel)
        results.append(result + 0.2 * rng.standard_normal(result.shape))
        rows.append(weighted.rows_of(images[-1], shape))
        weights.append(np.ones(result.shape))
    mask = [None, rng.random(results[1].shape) < 0.1, rng.random(results[2].shape) < 0.7, None]
    own = [None, None, None, rng.random(results[3].shape)]
    source_mask = [None, np.eye(16, 9) > 0, None, None]
    weights[1] *= ~mask[1] & ~weighted.reached(source_mask[1], shape).reshape(mask[1].shape)
    weights[2] *= ~mask[2]
    weights[3] *= own[3]
    fit = estimate_kernel(
        images,
        results,
        shape,
        mask=mask,
        source_mask=tuple(source_mask),
        weights=own,
        background=background,
    )
    columns = weighted.with_backgrounds(rows, [result.shape for result in results], background)
    y, w = (np.concatenate([part.ravel() for part in parts]) for parts in (results, weights))
    weighted.close(fit.kernel.ravel(), weighted.least_squares(columns, y, w)[:6])
    assert fit.n_pixels == np.count_nonzero(w)
    for used, part in zip(fit.used, weights, strict=True):
        assert_array_equal(used, part > 0)


@pytest.mark.parametrize("axis", [0, 2, -2])
@pytest.mark.parametrize("ndim", [2, 3])
def test_channels(ndim, axis, rng):
    shape, kernel = (2, 3), rng.standard_normal((2, 3))
    images = [rng.random((12, 14)) for _ in range(3)]
    results = [naive.convolve(image, kernel) for image in images]
    results = [result + 0.2 * rng.standard_normal(result.shape) for result in results]
    masks = [rng.random((11, 12)) < 0.15 for _ in range(3)]
    source_masks = [rng.random((12, 14)) < 0.01 for _ in range(3)]
    weights = [rng.random((11, 12)) for _ in range(3)]
    if ndim == 2:
        masks, source_masks, weights = ([part[0]] * 3 for part in (masks, source_masks, weights))
        rules = {"mask": masks[0], "source_mask": source_masks[0], "weights": weights[0]}
    else:
        both = ("mask", masks), ("source_mask", source_masks), ("weights", weights)
        rules = {name: np.stack(parts, axis) for name, parts in both}
    fit = estimate_kernel(
        np.stack(images, axis), np.stack(results, axis), shape, channel_axis=axis, **rules
    )
    w = np.concatenate(
        [
            (own * ~bad).ravel() * ~weighted.reached(source, shape)
            for own, bad, source in zip(weights, masks, source_masks, strict=True)
        ]
    )
    rows = np.vstack([weighted.rows_of(image, shape) for image in images])
    y = np.concatenate([result.ravel() for result in results])
    weighted.close(fit.kernel.ravel(), weighted.least_squares(rows, y, w))


@pytest.mark.parametrize("kind", weighted.UNEVEN)
def test_what_is_read_by_slices(kind, rng):
    image, result = weighted.noisy_pair(rng, (3, 3))
    rules, _ = weighted.rules_of(kind, rng, result.shape, image.shape)
    want = estimate_kernel(image, result, 3, **rules)
    for x, y in (
        (Dataset(image), Dataset(result)),
        (image, Dataset(result)),
        (Dataset(image), result),
    ):
        got = estimate_kernel(x, y, 3, **rules)
        assert_array_equal(got.kernel, want.kernel)
        assert_array_equal(got.used, want.used)


# Constraints.


def dense_case(rng, kind, shape=(3, 3)):
    image, result = weighted.noisy_pair(rng, shape)
    rules, weights = weighted.rules_of(kind, rng, result.shape, image.shape)
    if "source_mask" in rules:
        weights = weighted.without_reached(weights, rules["source_mask"], shape, "valid", None)
    root = np.sqrt(weights).ravel()
    x, y = root[:, None] * weighted.rows_of(image, shape), root * result.ravel()
    return image, result, rules, weights, x, y


@pytest.mark.parametrize("kind", weighted.UNEVEN)
def test_nonnegative(kind, rng):
    image, result, rules, _, x, y = dense_case(rng, kind)
    fit = estimate_kernel(image, result, 3, nonnegative=True, **rules)
    want, _ = optimize.nnls(x, y)
    assert (want == 0).any()
    weighted.close(fit.kernel.ravel(), want)


@pytest.mark.parametrize("kind", weighted.UNEVEN)
def test_unit_sum(kind, rng):
    image, result, rules, weights, x, y = dense_case(rng, kind)
    want = weighted.constrained(x, y, np.ones((1, 9)), [1.0])
    weighted.close(estimate_kernel(image, result, 3, unit_sum=True, **rules).kernel.ravel(), want)
    penalty = 0.3 * weights.sum() * np.eye(9)
    want = weighted.constrained(x, y, np.ones((1, 9)), [1.0], penalty)
    fit = estimate_kernel(image, result, 3, unit_sum=True, ridge=0.3, **rules)
    weighted.close(fit.kernel.ravel(), want)


@pytest.mark.parametrize("kind", weighted.UNEVEN)
def test_nonnegative_of_unit_sum(kind, rng):
    image, result, rules, _, x, y = dense_case(rng, kind)
    fit = estimate_kernel(image, result, 3, unit_sum=True, nonnegative=True, **rules)
    taps = fit.kernel.ravel()
    assert taps.sum() == pytest.approx(1, rel=1e-12)
    assert (taps >= 0).all()
    # Karush, Kuhn and Tucker: one slope where a tap is free, none steeper where it is 0.
    slope = x.T @ (y - x @ taps)
    free, scale = taps > 0, np.abs(x.T @ y).max()
    assert not free.all()
    assert np.ptp(slope[free]) < 1e-9 * scale
    assert slope.max() < slope[free].mean() + 1e-9 * scale


@pytest.mark.parametrize("kind", weighted.UNEVEN)
@pytest.mark.parametrize("symmetric", ["even", "left_right"])
def test_symmetric(symmetric, kind, rng):
    image, result, rules, _, x, y = dense_case(rng, kind)
    turned = {"even": np.s_[::-1, ::-1], "left_right": np.s_[:, ::-1]}[symmetric]
    taps = np.arange(9).reshape(3, 3)
    pairs = {tuple(sorted(both)) for both in zip(taps.flat, taps[turned].flat, strict=True)}
    columns = np.array([np.isin(np.arange(9), pair) for pair in sorted(pairs)], float).T
    want = columns @ np.linalg.lstsq(x @ columns, y, rcond=None)[0]
    fit = estimate_kernel(image, result, 3, symmetric=symmetric, **rules)
    weighted.close(fit.kernel.ravel(), want)


@pytest.mark.parametrize("kind", weighted.UNEVEN)
def test_basis(kind, rng):
    image, result, rules, _, x, y = dense_case(rng, kind, (5, 5))
    columns = basis.gaussian_polynomials((5, 5), [0.7, 1.5], [2, 0])
    want = columns @ np.linalg.lstsq(x @ columns, y, rcond=None)[0]
    fit = estimate_kernel(image, result, 5, basis=columns, **rules)
    weighted.close(fit.kernel.ravel(), want)


@pytest.mark.parametrize("kind", weighted.UNEVEN)
@pytest.mark.parametrize("smooth", [False, True])
def test_ridge(smooth, kind, rng):
    """The penalty counts as often as the weights do."""
    penalty = 0.3
    image, result, rules, weights, x, y = dense_case(rng, kind, (3, 4))
    rows = weighted.second_differences((3, 4)) if smooth else np.eye(12)
    rows = np.sqrt(penalty * weights.sum()) * rows
    both = np.vstack([x, rows]), np.concatenate([y, np.zeros(len(rows))])
    want = np.linalg.lstsq(*both, rcond=None)[0]
    ridge = ("smooth", penalty) if smooth else penalty
    fit = estimate_kernel(image, result, (3, 4), ridge=ridge, **rules)
    weighted.close(fit.kernel.ravel(), want)


@pytest.mark.parametrize("kind", weighted.UNEVEN)
@pytest.mark.parametrize("solver", ["minimum_norm", "gradient_descent", "fista"])
def test_other_solvers(solver, kind, rng):
    image, result, rules, weights, _, _ = dense_case(rng, kind)
    fit = estimate_kernel(image, result, 3, solver=solver, tol=None, **rules)
    want = weighted.fit(image, result, (3, 3), weights)
    weighted.close(fit.kernel, want, 1e-9 if solver == "minimum_norm" else 1e-5)
    assert fit.converged


# Error bars.


@pytest.mark.parametrize("kind", weighted.UNEVEN)
@pytest.mark.parametrize("degree", [None, 1])
def test_error_bars_of_weighted_least_squares(degree, kind, rng):
    image, result, rules, weights, x, y = dense_case(rng, kind)
    beside = np.zeros((len(x), 0))
    if degree is not None:
        beside = np.sqrt(weights).reshape(-1, 1) * weighted.powers(result.shape, degree)
    columns = np.hstack([x, beside])
    left = y - columns @ np.linalg.lstsq(columns, y, rcond=None)[0]
    n = np.count_nonzero(weights)
    inverse = np.linalg.inv(columns.T @ columns)[:9, :9]
    variance = left @ left / (n - columns.shape[1])
    fit = estimate_kernel(image, result, 3, background=degree, **rules)
    assert_allclose(
        fit.covariance, variance * inverse, rtol=0, atol=1e-8 * variance * inverse.max()
    )
    assert_allclose(fit.standard_errors.ravel(), np.sqrt(np.diag(variance * inverse)), rtol=1e-8)
    if "weights" in rules:
        known = estimate_kernel(image, result, 3, background=degree, absolute_sigma=True, **rules)
        assert_allclose(known.standard_errors.ravel(), np.sqrt(np.diag(inverse)), rtol=1e-8)


ASKED = [
    {},
    {"ridge": 0.2},
    {"ridge": "gcv"},
    {"ridge": ("smooth", 0.1)},
    {"ridge": ("smooth", "gcv")},
    {"unit_sum": True, "background": 1},
    {"nonnegative": True},
    {"sigma_clip": 2.5},
    {"errors": "robust"},
]


@pytest.mark.parametrize("factor", [1e-6, 3.0])
@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_a_factor_of_the_weights_changes_nothing(asked, factor, rng):
    image, result = weighted.noisy_pair(rng, (3, 3))
    weights = 10 ** rng.uniform(-1, 1, result.shape)
    one, other = (
        estimate_kernel(image, result, 3, weights=scale * weights, **asked)
        for scale in (1.0, factor)
    )
    weighted.close(other.kernel, one.kernel, 1e-7 if "gcv" in str(asked) else 1e-10)
    if not asked.get("nonnegative"):
        assert_allclose(other.standard_errors, one.standard_errors, rtol=1e-6)
    assert other.residual_rms == pytest.approx(one.residual_rms, rel=1e-9)
    assert other.ridge == pytest.approx(one.ridge, rel=1e-5)
    assert_array_equal(other.used, one.used)


# Bad pixels have no say.

FILLINGS = {
    "u1": (0, 255, 77),
    "i1": (-128, 127),
    "u2": (0, 65535, 1000),
    ">i2": (-32768, 32767),
    "i4": (0, 2**31 - 1, -(2**31)),
    "f4": (0, np.nan, np.inf, -np.inf, 1e30, -1e30),
    "f8": (0, np.nan, np.inf, -np.inf, 1e30, -1e300),
}


@pytest.mark.parametrize(
    ("share", "background", "engine"),
    [
        (0.05, None, "auto"),
        (0.05, None, "fft"),
        (0.05, 0, "fft"),
        (0.05, 1, "auto"),
        (0.6, 1, "auto"),
    ],
)
@pytest.mark.parametrize("dtype", FILLINGS)
def test_what_stands_in_bad_pixels_has_no_say(dtype, share, background, engine, rng):
    image, result = (
        rng.integers(40, 90, weighted.SIZE).astype(dtype),
        rng.integers(40, 90, weighted.SIZE),
    )
    result = result.astype(dtype)
    mask, source_mask = rng.random(weighted.SIZE) < share, rng.random(weighted.SIZE) < 0.02
    for weights in (None, rng.random(weighted.SIZE)):
        found = set()
        for filling in FILLINGS[dtype]:
            x, y = image.copy(), result.copy()
            x[source_mask], y[mask] = filling, filling
            fit = estimate_kernel(
                x,
                y,
                (2, 3),
                boundary="mirror",
                background=background,
                mask=mask,
                source_mask=source_mask,
                weights=weights,
                engine=engine,
            )
            found.add(fit.kernel.tobytes() + fit.standard_errors.tobytes())
        assert len(found) == 1


def test_inputs_are_left_alone(rng):
    image, result = weighted.noisy_pair(rng, (3, 3))
    rules, _ = weighted.rules_of("all of it", rng, result.shape, image.shape)
    arrays = [image, result, *rules.values()]
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    for options in ({}, {"background": 2}, {"sigma_clip": 3.0}, {"ridge": "gcv"}):
        estimate_kernel(image, result, 3, **rules, **options)
    for array, copy in zip(arrays, before, strict=True):
        assert_array_equal(array, copy)


# The same said in other words.


def test_levels_and_numbers_that_are_none_are_masks(rng):
    image = rng.integers(10, 200, weighted.SIZE).astype(np.uint8)
    result = rng.integers(10, 200, (13, 16)).astype(np.uint8)
    result[rng.random(result.shape) < 0.1], result[3, 4], image[7, 7] = 255, 0, 255
    mask, source_mask = (result == 255) | (result == 0), image == 255
    want = estimate_kernel(image, result, 3, mask=mask, source_mask=source_mask)
    got = estimate_kernel(image, result, 3, saturation="auto")
    assert_array_equal(got.kernel, want.kernel)
    x, y = image.astype(float), result.astype(float)
    want = estimate_kernel(x, y, 3, mask=mask, source_mask=source_mask)
    for other in (
        estimate_kernel(x, y, 3, saturation=(0, 255)),
        estimate_kernel(
            np.where(source_mask, np.nan, x), np.where(mask, np.inf, y), 3, nan_policy="omit"
        ),
        estimate_kernel(np.ma.array(x, mask=source_mask), np.ma.array(y, mask=mask), 3),
        estimate_kernel(x, y, 3, weights=~mask * 1.0, source_mask=source_mask),
        normal_equations(x, y, 3, mask=mask, source_mask=source_mask).solve(),
    ):
        weighted.close(other.kernel, want.kernel, 1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_clipped_levels_are_found_beside_a_mask(masked, rng):
    """An integer result that was cut off at its ends is fitted by what lies between."""
    image = np.rint(np.clip(rng.normal(128, 45, (40, 44)), 0, 255)).astype(np.uint8)
    kernel = np.full((3, 3), -0.2)
    kernel[1, 1] = 2.6
    whole = naive.convolve(image, kernel)
    result = np.rint(whole).clip(0, 255).astype(np.uint8)
    assert 0.1 < np.mean((whole < 0) | (whole > 255)) < 0.5
    mask = np.zeros(result.shape, bool)
    if masked:
        mask[4:9, 5:20] = True
    good = (result > 0) & (result < 255) & ~mask
    fit = estimate_kernel(image, result, 3, mask=mask)
    assert_array_equal(fit.used, good)
    weighted.close(fit.kernel, weighted.fit(image, result, (3, 3), good))
    assert np.abs(fit.kernel - kernel).max() < 0.01
    never = estimate_kernel(image, result, 3, mask=mask, saturation=(None, None))
    assert_array_equal(never.used, ~mask)
    assert np.abs(never.kernel - kernel).max() > 0.1


def test_kernels_of_which_no_equations_are_formed_take_no_mask(rng):
    image = rng.random((70, 70))
    result = rng.random((6, 6))
    mask = result < 0.1
    for rules in ({"mask": mask}, {"weights": result}, {"saturation": (None, 0.9)}):
        with pytest.raises(ValueError, match=r"mask, weights and saturation goes? with kernels of"):
            estimate_kernel(image, result, 65, **rules)
    with pytest.raises(ValueError, match=r"source_variance goes with kernels of at most 4096 taps"):
        estimate_kernel(image, result, 65, source_variance=1.0)


def test_fewer_fitted_pixels_than_taps(rng):
    image, result = weighted.noisy_pair(rng, (3, 3))
    mask = np.ones(result.shape, bool)
    mask[3, 2:10] = False
    with pytest.raises(SingularFitError, match="8 pixels for 9 taps"):
        estimate_kernel(image, result, 3, mask=mask)
    with pytest.raises(SingularFitError, match="8 pixels for 9 taps"):
        normal_equations(image, result, 3, mask=mask).solve()


# Which pixels were fitted.


@pytest.mark.parametrize("mode", ["valid", "same", "full"])
@pytest.mark.parametrize("method", ["lstsq", "lad", "richardson_lucy"])
def test_used(method, mode, rng):
    image = rng.random((12, 13))
    result = naive.convolve(image, np.full((3, 2), 0.2), mode)
    mask = rng.random(result.shape) < 0.1
    for boundary in (None, "mirror") if mode == "same" else (None,):
        want = np.zeros(result.shape, bool)
        weighted.used_part(want, (3, 2), mode, boundary)[...] = True
        for bad in (None, mask):
            fit = estimate_kernel(image, result, (3, 2), boundary=boundary, mask=bad, method=method)
            assert fit.used.dtype == bool
            assert_array_equal(fit.used, want if bad is None else want & ~bad)
            assert fit.n_pixels == fit.used.sum()
