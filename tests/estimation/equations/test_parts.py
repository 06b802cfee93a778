"""Parts of one image that share one background, against dense least squares of the whole."""

import pickle
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.polynomial.legendre import leggrid2d
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from fastkernel import (
    NormalEquations,
    SingularFitError,
    estimate_kernel,
    normal_equations,
    residual_equations,
)
from tests import naive

SHAPE = (3, 4)
KERNEL = np.arange(12.0).reshape(SHAPE) / 30 - 0.1
# Misaligned, some thinner than the kernel and than the polynomials' degree.
ROWS, COLS = (0, 11, 13, 14, 31), (0, 2, 19, 27)
PLACES = [
    (slice(top, bottom), slice(left, right))
    for top, bottom in pairwise(ROWS)
    for left, right in pairwise(COLS)
]
WHOLE = (ROWS[-1], COLS[-1])


def columns(degree):
    """The polynomials of the whole, one a column."""
    rows, cols = (np.linspace(-1, 1, n) for n in WHOLE)
    terms = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    out = []
    for term in terms:
        matrix = np.zeros((degree + 1, degree + 1))
        matrix[term] = 1
        out.append(leggrid2d(rows, cols, matrix).ravel())
    return np.array(out).T, terms


@pytest.fixture
def pair(rng):
    source = rng.normal(size=(WHOLE[0] + 2, WHOLE[1] + 3)) + 5
    result = naive.filtered(source, KERNEL, "valid", "zero") + 0.1 * rng.normal(size=WHOLE)
    return source, result + 3 + np.linspace(0, 4, WHOLE[1])


def parts_of(source, result, *, function=normal_equations, kernel=SHAPE, options=None, **same):
    """The equations of every part, with its part of the options."""
    p, q = SHAPE
    for rows, cols in PLACES:
        own = source[rows.start : rows.stop + p - 1, cols.start : cols.stop + q - 1]
        beside = {name: value[rows, cols] for name, value in (options or {}).items()}
        within = (rows.start, cols.start), WHOLE
        yield function(own, result[rows, cols], kernel, within=within, **beside, **same)


def dense(source, result, degree, weights=None):
    """Taps and coefficients by least squares over the rows of all pixels."""
    phi, terms = columns(degree)
    rows = np.hstack([naive.design_matrix(source, SHAPE), phi])
    roots = np.ones(rows.shape[0]) if weights is None else np.sqrt(weights.ravel())
    found, *_ = np.linalg.lstsq(rows * roots[:, None], result.ravel() * roots, rcond=None)
    matrix = np.zeros((degree + 1, degree + 1))
    matrix[tuple(np.transpose(terms))] = found[12:]
    return found[:12].reshape(SHAPE), matrix


@pytest.mark.parametrize("degree", [0, 1, 2, 4])
@pytest.mark.parametrize("given", ["", "mask", "weights", "mask weights", "most"])
def test_parts_share_one_background(pair, degree, given, rng):
    source, result = pair
    weights = np.ones(WHOLE)
    options = {}
    if "mask" in given:
        options["mask"] = rng.random(WHOLE) < 0.1
        options["mask"][PLACES[4]] = True
    if given == "most":
        options["mask"] = rng.random(WHOLE) < 0.6
    if "weights" in given:
        options["weights"] = weights = rng.random(WHOLE) + 0.5
    if "mask" in options:
        weights = np.where(options["mask"], 0, weights)
    equations = sum(parts_of(source, result, background=degree, options=options))
    fit = equations.solve()
    kernel, background = dense(source, result, degree, weights)
    assert_allclose(fit.kernel, kernel, atol=1e-11)
    assert_allclose(np.atleast_2d(fit.background), background, atol=1e-10)
    whole = normal_equations(source, result, SHAPE, background=degree, **options)
    less = equations.eliminate()
    scale = (np.abs(equations.gram).max(), np.abs(equations.moments).max())
    assert_allclose(less.gram, whole.gram, rtol=0, atol=2e-14 * scale[0])
    assert_allclose(less.moments, whole.moments, rtol=0, atol=2e-14 * scale[1])
    assert less.energy == pytest.approx(whole.energy, rel=1e-12)
    assert less.background_energy == pytest.approx(whole.background_energy, rel=1e-12)
    assert (less.n_pixels, less.background_terms) == (whole.n_pixels, whole.background_terms)
    assert less.total_weight == pytest.approx(whole.total_weight, rel=1e-14)
    want = whole.solve()
    assert_allclose(fit.standard_errors, want.standard_errors, rtol=1e-9)
    assert fit.residual_rms == pytest.approx(want.residual_rms, rel=1e-9)


@pytest.mark.parametrize("degree", [0, 2])
def test_sums_are_the_whole_images(pair, degree):
    source, result = pair
    sums = sum(parts_of(source, result, background=degree)).background
    x, (phi, _) = naive.design_matrix(source, SHAPE), columns(degree)
    for got, want in (
        (sums.products, x.T @ phi),
        (sums.gram, phi.T @ phi),
        (sums.moments, phi.T @ result.ravel()),
    ):
        assert_allclose(got, want, rtol=0, atol=1e-14 * np.abs(want).max())


def test_bytes_add_up_to_the_same_bits(rng):
    image = rng.integers(0, 256, (WHOLE[0] + 2, WHOLE[1] + 3)).astype(np.uint8)
    result = image[1:-1, 1:-2]
    sums = sum(parts_of(image, result, background=0))
    whole = normal_equations(image, result, SHAPE, background=0, within=((0, 0), WHOLE))
    for name in ("gram", "moments", "energy"):
        assert_array_equal(getattr(sums, name), getattr(whole, name))
        if name != "energy":
            got, want = (getattr(one.background, name) for one in (sums, whole))
            assert_array_equal(got, want)
    assert_array_equal(sums.background.products, whole.background.products)


def test_a_part_of_same_and_a_border(rng):
    """The window of a part of "same" begins beyond its rim, and a border rule fills it."""
    source = rng.random((20, 18))
    result = naive.filtered(source, np.ones((3, 3)) / 9, "same", "zero") + 4
    halves = [
        normal_equations(
            source[rows], result[rows], 3, background=1, within=((rows.start, 0), (18, 16))
        )
        for rows in (slice(0, 11), slice(9, 20))
    ]
    whole = estimate_kernel(source, result, 3, background=1)
    fit = sum(halves).solve()
    assert_allclose(fit.kernel, whole.kernel, atol=1e-11)
    assert_allclose(fit.background, whole.background, atol=1e-11)
    edges = normal_equations(
        source, result, 3, boundary="zero", background=1, within=((0, 0), (20, 18))
    )
    whole = estimate_kernel(source, result, 3, boundary="zero", background=1)
    assert_allclose(edges.solve().background, whole.background, atol=1e-12)


@pytest.mark.parametrize("degree", [0, 2])
def test_a_second_pass_corrects_kernel_and_background(rng, degree):
    source = ndimage.gaussian_filter(rng.random((WHOLE[0] + 2, WHOLE[1] + 3)), 4.0)
    phi, terms = columns(degree)
    level = (phi @ np.arange(1.0, len(terms) + 1)).reshape(WHOLE)
    result = naive.filtered(source, KERNEL, "valid", "zero") + level
    equations = sum(parts_of(source, result, background=degree))
    fit = equations.solve()
    assert fit.condition_number > 1e9
    better = fit
    for _ in range(3):
        left = sum(
            parts_of(
                source,
                result,
                function=residual_equations,
                kernel=better.kernel,
                background=better.background,
            )
        )
        better = equations.refine(better, left)
    before, after = (np.abs(one.kernel - KERNEL).max() for one in (fit, better))
    assert after < 1e-9
    assert after < before / 50
    matrix = np.zeros((degree + 1, degree + 1))
    matrix[tuple(np.transpose(terms))] = np.arange(1.0, len(terms) + 1)
    assert_allclose(np.atleast_2d(better.background), matrix, atol=1e-9)
    assert better.residual_rms < 1e-12


def test_bars_beside_a_background(pair):
    source, result = pair
    equations = sum(parts_of(source, result, background=1))
    fit = equations.solve()
    left = sum(
        parts_of(
            source,
            result,
            function=residual_equations,
            kernel=fit.kernel + 0.01,
            background=fit.background,
        )
    )
    moved = replace(fit, kernel=fit.kernel + 0.01)
    better = equations.refine(moved, left)
    kernel, background = dense(source, result, 1)
    assert_allclose(better.kernel, kernel, atol=1e-12)
    assert_allclose(better.background, background, atol=1e-11)
    assert better.residual_rms == pytest.approx(fit.residual_rms, rel=1e-10)
    assert_allclose(better.standard_errors, fit.standard_errors, rtol=1e-9)


def test_what_equations_offer_keeps_the_background(pair, tmp_path):
    source, result = pair
    parts = list(parts_of(source, result, background=1))
    equations = sum(parts)
    assert "background of degree 1 not eliminated" in repr(equations)
    assert sys.getsizeof(equations) - sys.getsizeof(equations.eliminate()) == 8 * (12 * 3 + 9 + 3)
    equations.save(tmp_path / "parts.npz")
    for copy in (
        NormalEquations.load(tmp_path / "parts.npz"),
        pickle.loads(pickle.dumps(equations)),
        NormalEquations.zero(SHAPE) + equations,
    ):
        assert_array_equal(copy.solve().background, equations.solve().background)
        assert (copy + parts[0]).n_pixels == equations.n_pixels + parts[0].n_pixels
    small = equations.crop((1, 2)).solve()
    phi = columns(1)[0]
    # The taps around the centre, and the pixels that they see.
    near = naive.design_matrix(source, SHAPE).reshape(-1, *SHAPE)[:, 1:2, 1:3].reshape(-1, 2)
    found, *_ = np.linalg.lstsq(np.hstack([near, phi]), result.ravel(), rcond=None)
    assert_allclose(small.kernel.ravel(), found[:2], atol=1e-12)
    assert_allclose(small.background[[0, 0, 1], [0, 1, 0]], found[2:], atol=1e-11)


def test_images_with_backgrounds_of_their_own(pair, rng):
    source, result = pair
    sums = [sum(parts_of(source, result + k, background=k)) for k in (0, 1)]
    with pytest.raises(ValueError, match=r"cannot join one of degree 0 over \(31, 27\) fitted"):
        sums[0] + sums[1]
    both = sums[0].eliminate() + sums[1].eliminate()
    want = normal_equations(source, result, SHAPE, background=0)
    want += normal_equations(source, result + 1, SHAPE, background=1)
    assert_allclose(both.solve().kernel, want.solve().kernel, atol=1e-12)
    assert both.background_terms == 4
    # What was eliminated joins with what will be.
    mixed = (sums[0] + sums[1].eliminate()).solve()
    assert_allclose(mixed.kernel, want.solve().kernel, atol=1e-12)


@pytest.mark.parametrize("background", [None, 0, 2])
@pytest.mark.parametrize("within", [None, ((4, 5), (30, 30))])
def test_a_part_without_pixels_is_zero(background, within, rng):
    image = rng.random((9, 8))
    bad = np.ones(image.shape, bool)
    options = {"background": background, "within": within}
    nan = np.full(image.shape, np.nan)
    for equations in (
        normal_equations(image, image, 3, mask=bad, **options),
        normal_equations(image, image, 3, source_mask=bad, **options),
        normal_equations(image, image, 3, weights=np.zeros(image.shape), **options),
        normal_equations(image, nan, 3, nan_policy="omit", **options),
        normal_equations(image, image, 3, saturation=(2.0, 3.0), **options),
    ):
        assert equations.n_pixels == equations.energy == equations.total_weight == 0
        assert not equations.gram.any()
        assert not equations.moments.any()
        assert equations.background_terms == 0
        assert (equations.background is None) == (background is None or within is None)
        with pytest.raises(SingularFitError):
            equations.solve()
    left = residual_equations(image, image, np.ones((3, 3)), mask=bad)
    assert left.n_pixels == left.energy == 0


def test_a_bad_pixel_is_named_in_the_whole(pair):
    source, result = pair
    within = (20, 19), WHOLE
    part = source[20:, 19:].copy(), result[20:, 19:].copy()
    kernel = np.ones(SHAPE)
    for i, name in enumerate(("source", "result")):
        bad = [image.copy() for image in part]
        bad[i][3, 2] = np.inf
        match = rf"{name} must be finite, got inf at index \(23, 21\)"
        for background in (None, 1):
            with pytest.raises(ValueError, match=match):
                normal_equations(*bad, SHAPE, background=background, within=within)
        with pytest.raises(ValueError, match=match):
            residual_equations(*bad, kernel, background=2.0, within=within)


def test_refusals(pair):
    source, result = pair
    for within in (3, (3, 4), ((0, 0), (30, 0)), ((-1, 0), (30, 30)), ((0, 0), (30, 30), 1)):
        with pytest.raises(ValueError, match=r"within must be \(\(top|part of within must be two"):
            normal_equations(source, result, SHAPE, within=within)
    with pytest.raises(ValueError, match=r"within must hold all \(31, 27\) fitted pixels"):
        normal_equations(source, result, SHAPE, within=((1, 0), WHOLE))
    with pytest.raises(ValueError, match="within must be None for 2 pairs"):
        normal_equations([source] * 2, [result] * 2, SHAPE, within=((0, 0), WHOLE))
    with pytest.raises(ValueError, match="background of degree 2 needs at least 3 rows"):
        normal_equations(
            source[:4], result[:2], SHAPE, background=2, within=((0, 0), (2, WHOLE[1]))
        )
    with pytest.raises(ValueError, match="background needs within="):
        residual_equations(source, result, KERNEL, background=1.0)
    for background in ("level", np.zeros(3), np.zeros((2, 3)), 1j):
        with pytest.raises(ValueError, match="background must be a number or a square matrix"):
            residual_equations(
                source, result, KERNEL, background=background, within=((0, 0), WHOLE)
            )
    equations = sum(parts_of(source, result, background=1))
    fit = equations.solve()
    plain = residual_equations(source, result, fit.kernel)
    with pytest.raises(ValueError, match="residual must be beside the background of these"):
        equations.refine(fit, plain)
    with pytest.raises(ValueError, match="background must be False for this fit of a polynomial"):
        fit.predict(source)
    assert fit.predict(source, background=False).shape == WHOLE
    level = residual_equations(
        source, result, fit.kernel, background=fit.background, within=((0, 0), WHOLE)
    )
    with pytest.raises(ValueError, match="fit must be the direct solution"):
        equations.refine(normal_equations(source, result, SHAPE).solve(), level)


def test_a_damaged_file(pair, tmp_path):
    equations = sum(parts_of(*pair, background=1))
    path = tmp_path / "parts.npz"
    equations.save(path)
    with np.load(path) as file:
        fields = dict(file)
    for name, value, told in (
        ("moments", np.zeros(5), "arrays of a background of degree 1"),
        ("gram", np.full((3, 3), np.nan), "sums of the background are not finite"),
        ("degree", np.array(7), "from 0 to 4"),
    ):
        np.savez(path, **(fields | {f"background_of_parts_{name}": value}))
        with pytest.raises(ValueError, match=told):
            NormalEquations.load(path)
