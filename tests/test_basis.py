"""Bases against the formulas that define them, and what astronomers do with them."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.signal import fftconvolve

from fastkernel import basis, estimate_kernel, normal_equations


def definition(shape, sigmas, degrees):
    """One column after the other, tap by tap, by the formula."""
    p, q = shape
    columns = []
    for sigma, degree in zip(sigmas, degrees, strict=True):
        for a in range(degree + 1):
            for b in range(degree - a + 1):
                column = []
                for i in range(p):
                    for j in range(q):
                        u, v = i - (p - 1) // 2, j - (q - 1) // 2
                        bell = math.exp(-(u * u + v * v) / (2 * sigma**2))
                        column.append(float(u) ** a * float(v) ** b * bell)
                columns.append(np.array(column) / (math.hypot(*column) or 1.0))
    return np.array(columns).T


@pytest.mark.parametrize(
    ("shape", "sigmas", "degrees"),
    [
        ((9, 9), (0.7, 1.5, 3.0), (6, 4, 2)),
        ((8, 11), (2.0,), (3,)),
        ((4, 4), (5.0, 0.8), (0, 1)),
    ],
)
def test_gaussian_polynomials_are_the_formula(shape, sigmas, degrees):
    got = basis.gaussian_polynomials(shape, sigmas, degrees)
    assert_allclose(got, definition(shape, sigmas, degrees), rtol=1e-12, atol=1e-15)
    assert got.dtype == np.float64
    assert got.flags.c_contiguous
    assert got.shape == (math.prod(shape), sum((d + 1) * (d + 2) // 2 for d in degrees))


def test_one_integer_stands_for_both_sides():
    one, two = (basis.gaussian_polynomials(n, [1.0], [2]) for n in (7, (7, 7)))
    assert (one == two).all()


@pytest.mark.parametrize("shape", [(1, 9), (3, 8), (2, 2), (1, 1)])
def test_powers_that_few_taps_cannot_tell_apart_are_left_out_without_loss(shape):
    got = basis.gaussian_polynomials(shape, [1.3], [5])
    both = np.hstack([got, definition(shape, [1.3], [5])])
    assert got.shape[1] == np.linalg.matrix_rank(got) == np.linalg.matrix_rank(both)


@pytest.mark.parametrize("sigma", [1e-300, 1e-3, 0.2, 1e6, 1e300])
def test_any_width_gives_numbers(sigma):
    got = basis.gaussian_polynomials((7, 40), [sigma], [6])
    assert_allclose(np.linalg.norm(got, axis=0), 1, rtol=1e-13)


def test_high_powers_give_numbers():
    got = basis.gaussian_polynomials((1, 801), [1e-3], [300])
    assert_allclose(np.linalg.norm(got, axis=0), 1, rtol=1e-12)


REFUSED = {
    "shape": (((0, 3), [1.0], [1]), ValueError, "kernel_shape must be two positive integers"),
    "sigma": ((5, [0.0], [1]), ValueError, "sigmas must be greater than 0, got 0.0"),
    "sigma kind": ((5, ["1"], [1]), TypeError, "sigmas must be a number, got '1'"),
    "one sigma": ((5, 1.5, [1]), TypeError, "sigmas must be a sequence of widths, .* got 1.5"),
    "none": ((5, [], []), TypeError, r"sigmas must be a sequence .*, got \[\]"),
    "text": ((5, [1.0], "2"), TypeError, "degrees must be a sequence of integers, .* got '2'"),
    "degree": ((5, [1.0], [-1]), ValueError, "degrees must be integers of at least 0, got -1"),
    "degree kind": ((5, [1.0], [2.0]), ValueError, "integers of at least 0, got 2.0"),
    "flag": ((5, [1.0], [True]), ValueError, "integers of at least 0, got True"),
    "lengths": ((5, [1.0, 2.0], [1]), ValueError, "equally many, one degree .* got 2 and 1"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals(arguments, error, message):
    with pytest.raises(error, match=message):
        basis.gaussian_polynomials(*arguments)


def star_field(rng, size, width):
    """Stars of a Gaussian PSF on a dark sky."""
    y, x = np.mgrid[:size, :size]
    stars = zip(rng.uniform(0, size, 40), rng.uniform(0, size, 40), strict=True)
    return sum(
        rng.uniform(100, 3000) * np.exp(-((y - r) ** 2 + (x - c) ** 2) / (2 * width**2))
        for r, c in stars
    )


def test_a_basis_beats_free_taps_on_a_noisy_star_field(rng):
    """The kernel that blurs one seeing to another, off centre, from images with noise."""
    source = star_field(rng, 70, 1.2)
    u, v = np.mgrid[-7:8, -7:8]
    truth = np.exp(-((u - 0.2) ** 2 + (v + 0.1) ** 2) / (2 * 1.3**2))
    truth /= truth.sum()
    clean = fftconvolve(source, truth, mode="valid")
    result = clean + 5 * rng.standard_normal(clean.shape)
    columns = basis.gaussian_polynomials(15, [0.9, 1.5], [2, 4])
    equations = normal_equations(source, result, 15)
    few, free = equations.solve(basis=columns, unit_sum=True), equations.solve(unit_sum=True)
    error_few, error_free = (np.abs(fit.kernel - truth).max() for fit in (few, free))
    assert error_few < 0.05 * truth.max() < error_free
    assert_allclose(few.kernel.sum(), 1, rtol=1e-12)
    assert np.median(few.standard_errors) < 0.2 * np.median(free.standard_errors)


def test_estimates_take_a_basis(rng):
    image = rng.standard_normal((40, 45))
    columns = basis.gaussian_polynomials((5, 6), [1.0, 1.7], [2, 1])
    truth = (columns @ rng.standard_normal(columns.shape[1])).reshape(5, 6)
    result = fftconvolve(image, truth, mode="valid") + 3.0
    fit = estimate_kernel(image, result, (5, 6), basis=columns, background="constant")
    assert_allclose(fit.kernel, truth, atol=1e-12)
    assert_allclose(fit.background, 3.0, rtol=1e-12)
    coefficients = np.linalg.lstsq(columns, fit.kernel.ravel(), rcond=None)[0]
    assert_allclose(columns @ coefficients, fit.kernel.ravel(), atol=1e-12)
