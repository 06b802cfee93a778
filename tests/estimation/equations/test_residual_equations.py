"""Second passes over the pixels, against dense least squares."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from fastkernel import NormalEquations, estimate_kernel, normal_equations, residual_equations
from tests import naive

KERNEL = np.array([[0.1, 0.3, 0.0], [-0.2, 0.9, 0.1]])


@pytest.fixture
def pair(rng):
    source = rng.normal(size=(40, 37))
    result = naive.filtered(source, KERNEL, "same", "mirror") + 0.1 * rng.normal(size=(40, 37))
    return source, result


@pytest.mark.parametrize("boundary", [None, "mirror", "circular"])
@pytest.mark.parametrize("given", [{}, {"mask"}, {"weights"}, {"mask", "weights"}])
def test_sums_over_a_residual(pair, boundary, given, rng):
    source, result = pair
    options = {"mask": rng.random(result.shape) < 0.1, "weights": rng.random(result.shape) + 0.5}
    options = {name: options[name] for name in given}
    guess = KERNEL + 0.01
    found = residual_equations(source, result, guess, boundary=boundary, **options)
    whole = normal_equations(source, result, (2, 3), boundary=boundary, **options)
    scale = np.abs(whole.moments).max()
    moments = whole.moments - whole.gram @ guess.ravel()
    assert_allclose(found.moments, moments, atol=1e-12 * scale)
    left = whole.energy - 2 * guess.ravel() @ whole.moments
    left += guess.ravel() @ whole.gram @ guess.ravel()
    assert found.energy == pytest.approx(left, rel=1e-11)
    assert (found.n_pixels, found.kernel_shape) == (whole.n_pixels, (2, 3))
    assert found.total_weight == pytest.approx(whole.total_weight)
    assert_array_equal(found.gram, 0)


@pytest.mark.parametrize("given", ["source_mask", "saturation", "nan_policy"])
def test_pixels_are_left_out_as_in_the_first_pass(pair, given, rng):
    source, result = pair
    options = {
        "source_mask": rng.random(source.shape) < 0.02,
        "saturation": (-2.0, 2.0),
        "nan_policy": "omit",
    }
    if given == "nan_policy":
        result = np.where(rng.random(result.shape) < 0.1, np.nan, result)
    options = {given: options[given]}
    whole = normal_equations(source, result, (2, 3), **options)
    found = residual_equations(source, result, KERNEL, **options)
    moments = whole.moments - whole.gram @ KERNEL.ravel()
    assert_allclose(found.moments, moments, atol=1e-12 * np.abs(whole.moments).max())
    assert found.n_pixels == whole.n_pixels < 1365


def test_what_hardly_differs_is_told_apart_in_parts(rng):
    """The condition number is 1e12 and more: what equations alone leave is seen."""
    source = ndimage.gaussian_filter(rng.random((120, 110)), 2.0)
    kernel = rng.random((5, 5))
    result = naive.convolve(source, kernel)
    parts = [(source[:64], result[:60]), (source[60:], result[60:])]
    equations = sum(normal_equations(*part, 5) for part in parts)
    fit = equations.solve()
    assert fit.condition_number > 1e10
    better = fit
    for _ in range(2):
        left = sum(residual_equations(*part, better.kernel) for part in parts)
        better = equations.refine(better, left)
    before, after = (np.abs(one.kernel - kernel).max() for one in (fit, better))
    assert after < 1e-8
    assert after < before / 100
    assert better.residual_rms < 1e-12
    assert better.condition_number == fit.condition_number
    assert better.equations is equations


def test_bars_are_those_of_the_residual(pair):
    source, result = pair
    equations = normal_equations(source, result, (2, 3))
    fit = equations.solve()
    better = equations.refine(fit, residual_equations(source, result, fit.kernel))
    rows = naive.design_matrix(source, (2, 3))
    target = naive.inside(result, (2, 3)).ravel()
    taps, *_ = np.linalg.lstsq(rows, target, rcond=None)
    assert_allclose(better.kernel.ravel(), taps, atol=1e-14)
    spread = np.sum((target - rows @ taps) ** 2) / (len(target) - 6)
    bars = np.sqrt(spread * np.diag(np.linalg.inv(rows.T @ rows)))
    assert_allclose(better.standard_errors.ravel(), bars, rtol=1e-10)


def test_constraints_are_kept(pair):
    source, result = pair
    equations = normal_equations(source, result, (2, 3))
    fit = equations.solve(unit_sum=True)
    better = equations.refine(fit, residual_equations(source, result, fit.kernel))
    assert better.kernel.sum() == pytest.approx(1, abs=1e-13)
    assert_allclose(better.kernel, fit.kernel, atol=1e-12)


def test_refusals(pair):
    source, result = pair
    equations = normal_equations(source, result, (2, 3))
    fit, left = equations.solve(), residual_equations(source, result, KERNEL)
    with pytest.raises(ValueError, match=r"residual must be of the 1365 pixels"):
        equations.refine(fit, NormalEquations.zero((2, 3)))
    for options in ({"ridge": 0.1}, {"nonnegative": True}, {"solver": "fista"}):
        with pytest.raises(ValueError, match="fit must be the direct solution of these equations"):
            equations.refine(equations.solve(**options), left)
    beside = normal_equations(source, result, (2, 3), background=0)
    with pytest.raises(ValueError, match="equations must be without a background"):
        beside.refine(beside.solve(), left)
    with pytest.raises(ValueError, match=r"kernel must be finite, got nan at index \(0, 0\)"):
        residual_equations(source, result, np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="source must be finite"):
        residual_equations(np.full((9, 9), np.inf), np.ones((9, 9)), KERNEL)


def test_a_size_that_counts_arrays():
    assert sys.getsizeof(NormalEquations.zero(31)) > 8 * 31**4


@pytest.mark.parametrize("width", range(20, 60, 3))
def test_a_bad_image_spoils_no_later_one(width, rng, monkeypatch):
    """The thread keeps its scratch, and vectors reach beyond the pixels that a tile loads."""
    monkeypatch.undo()  # the NaN here is the image's own
    bad = np.full((40, width), np.nan)
    for call in (
        lambda: estimate_kernel(bad, bad, 3),
        lambda: residual_equations(bad, bad, np.ones((3, 3))),
    ):
        with pytest.raises(ValueError, match="must be finite"):
            call()
    source, taps = rng.normal(size=(30, width - 7)), rng.normal(size=(3, 3))
    result = naive.filtered(source, taps, "same", "mirror")
    assert_allclose(estimate_kernel(source, result, 3).kernel, taps, atol=1e-12)
    assert residual_equations(source, result, taps).energy < 1e-20
