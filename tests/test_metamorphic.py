"""What must not change, or must change alike, where a problem is written another way."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import fastkernel
from fastkernel import circshift, convolve, estimate_kernel, inverse_filter, wiener

pytestmark = pytest.mark.jit

sizes, powers = st.integers(1, 4), st.integers(-30, 30)
seeds = st.integers(0, 2**32 - 1)
rules = st.sampled_from(["zero", "circular", "replicate", "symmetric", "mirror"])


def whole(shape, least=-9):
    return hnp.arrays(np.float64, shape, elements=st.integers(least, 9).map(float))


@st.composite
def kernels(draw, odd=False):
    p, q = draw(st.tuples(sizes, sizes))
    return draw(whole((p | 1, q | 1) if odd else (p, q)))


@st.composite
def pairs(draw, odd=True):
    """A source in which no shift is a sum of the others, a kernel, a border rule and a result."""
    kernel, rng = draw(kernels(odd=odd)), np.random.default_rng(draw(seeds))
    rows, cols = (draw(st.integers(2 * k + 8, 2 * k + 14)) for k in kernel.shape)
    source = rng.integers(-99, 100, (rows, cols)).astype(float)
    rule = draw(rules)
    result = convolve(source, kernel, "same", rule) + rng.integers(-9, 10, (rows, cols))
    return source, kernel, rule, result


def kernel_of(source, result, shape, rule, **options):
    return estimate_kernel(source, result, shape, boundary=rule, **options).kernel


@given(pair=pairs(), power=powers)
def test_the_result_in_other_units(pair, power):
    source, kernel, rule, result = pair
    found = kernel_of(source, result, kernel.shape, rule)
    scaled = kernel_of(source, result * 2.0**power, kernel.shape, rule)
    assert_array_equal(scaled, found * 2.0**power)


@given(pair=pairs(), power=powers)
def test_the_source_in_other_units(pair, power):
    source, kernel, rule, result = pair
    found = kernel_of(source, result, kernel.shape, rule)
    scaled = kernel_of(source * 2.0**power, result, kernel.shape, rule)
    assert_array_equal(scaled, found / 2.0**power)


@given(pair=pairs())
def test_rows_for_columns(pair):
    source, kernel, rule, result = pair
    found = kernel_of(source, result, kernel.shape, rule)
    turned = kernel_of(source.T, result.T, kernel.T.shape, rule)
    assert_allclose(turned.T, found, rtol=0, atol=1e-9)


@given(pair=pairs(), axis=st.sampled_from([0, 1, (0, 1)]))
def test_mirrored_images(pair, axis):
    source, kernel, rule, result = pair
    found = kernel_of(source, result, kernel.shape, rule)
    mirrored = kernel_of(np.flip(source, axis), np.flip(result, axis), kernel.shape, rule)
    assert_allclose(np.flip(mirrored, axis), found, rtol=0, atol=1e-9)


@given(pair=pairs(), factor=st.integers(-9, 9), seed=seeds)
def test_sums_of_results(pair, factor, seed):
    source, kernel, rule, result = pair
    other = np.random.default_rng(seed).integers(-99, 100, result.shape).astype(float)
    one, two = (kernel_of(source, y, kernel.shape, rule) for y in (result, other))
    both = kernel_of(source, result + factor * other, kernel.shape, rule)
    assert_allclose(both, one + factor * two, rtol=0, atol=1e-8)


@given(pair=pairs())
def test_what_is_left_is_across_the_shifts(pair):
    """Normal equations say that no kernel tells anything of the residual."""
    source, kernel, rule, result = pair
    fit = estimate_kernel(source, result, kernel.shape, boundary=rule)
    left = result - convolve(source, fit.kernel, "same", rule)
    again = kernel_of(source, left, kernel.shape, rule)
    assert_allclose(again, 0, rtol=0, atol=1e-9)


@given(pair=pairs(), other=seeds)
def test_pairs_in_another_order(pair, other):
    source, kernel, rule, result = pair
    rng = np.random.default_rng(other)
    more = [rng.integers(-99, 100, source.shape).astype(float) for _ in range(2)]
    one = kernel_of([source, more[0]], [result, more[1]], kernel.shape, rule)
    two = kernel_of([more[0], source], [more[1], result], kernel.shape, rule)
    assert_allclose(two, one, rtol=0, atol=1e-9)


@given(pair=pairs(), level=st.integers(-99, 99))
def test_a_level_beside_a_background(pair, level):
    source, kernel, rule, result = pair
    one, two = (
        estimate_kernel(source, y, kernel.shape, boundary=rule, background=0)
        for y in (result, result + level)
    )
    assert_allclose(two.kernel, one.kernel, rtol=0, atol=1e-8)
    off = two.background - one.background
    assert_allclose(np.ravel(off)[0], level, rtol=0, atol=1e-6)


@given(pair=pairs(), seed=seeds)
def test_masked_pixels_have_no_say(pair, seed):
    source, kernel, rule, result = pair
    rng = np.random.default_rng(seed)
    mask = rng.random(result.shape) < 0.1
    changed = np.where(mask, rng.integers(-999, 999, result.shape), result)
    one, two = (kernel_of(source, y, kernel.shape, rule, mask=mask) for y in (result, changed))
    assert_allclose(two, one, rtol=0, atol=1e-8)


@given(kernel=kernels(), at=st.tuples(st.integers(0, 5), st.integers(0, 6)))
def test_an_impulse_shows_the_kernel(kernel, at):
    image = np.zeros((6, 7))
    image[at] = 1
    (p, q), (row, col) = kernel.shape, at
    found = convolve(image, kernel)
    assert_array_equal(found[row : row + p, col : col + q], kernel)
    assert np.count_nonzero(found) == np.count_nonzero(kernel)


@given(image=whole((7, 8)), kernel=kernels(), by=st.tuples(st.integers(-9, 9), st.integers(-9, 9)))
def test_moved_images_where_they_wrap_around(image, kernel, by):
    assume(all(k <= n for k, n in zip(kernel.shape, image.shape, strict=True)))
    moved = convolve(circshift(image, by), kernel, "same", "circular")
    assert_array_equal(moved, circshift(convolve(image, kernel, "same", "circular"), by))


@given(image=whole((6, 9)), kernel=kernels(odd=True), rule=rules)
def test_a_convolution_of_columns_for_rows(image, kernel, rule):
    turned = convolve(image.T, kernel.T, "same", rule)
    assert_array_equal(turned.T, convolve(image, kernel, "same", rule))


@given(seed=seeds, share=st.floats(0, 0.24))
def test_a_division_undoes_a_blur(seed, share):
    image = np.random.default_rng(seed).normal(size=(9, 12))
    psf = np.array([[0, share / 2, 0], [share / 2, 1 - 2 * share, share / 2], [0, share / 2, 0]])
    blurred = convolve(image, psf, "same", "circular")
    assert_allclose(inverse_filter(blurred, psf, 0), image, rtol=0, atol=1e-11)


@given(seed=seeds, power=powers)
def test_a_restoration_in_other_units(seed, power):
    image, psf = np.random.default_rng(seed).random((10, 12)), np.full((3, 3), 1 / 9)
    found = wiener(image, psf, 0.01)
    assert_array_equal(wiener(image * 2.0**power, psf, 0.01), found * 2.0**power)
    found = fastkernel.richardson_lucy(image, psf, 3, noise=None)
    scaled = fastkernel.richardson_lucy(image * 2.0**power, psf, 3, noise=None)
    assert_array_equal(scaled, found * 2.0**power)
