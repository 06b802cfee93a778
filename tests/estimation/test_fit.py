import copy
import dataclasses
import math
import pickle
import weakref

import naive
import numpy as np
import pytest
from numpy.polynomial.legendre import legvander
from numpy.testing import assert_allclose, assert_array_equal
from skimage import data

from fastkernel import convolve, estimate_kernel, inverse_kernel
from fastkernel.estimation.quality import Verdict

MODES = ("valid", "same", "full")
IMAGE = data.camera()[60:84, 90:120].astype(float)
KERNEL = np.array([[0.0, 0.1, 0.0, 0.05], [0.2, 0.5, 0.1, 0.0], [0.0, 0.1, -0.1, 0.0]])


def rng():
    return np.random.default_rng(4)


def first_output(mode, taps, boundary=None):
    """Where a line's outputs of a mode begin among those of "full"."""
    inner = mode == "valid" or (mode == "same" and boundary is None)
    return taps - 1 if inner else (taps - 1) // 2 if mode == "same" else 0


def polynomials(places, length, degree):
    """Legendre polynomials at pixels counted from the first of ``length`` fitted ones."""
    return legvander(2 * np.asarray(places) / (length - 1) - 1, degree)


def dense_fit(image, result, kernel_shape, mode, boundary, degree):
    """Taps, coefficients by degree, and what both leave, by a dense solver of all columns."""
    virtual = naive.extended(
        image, kernel_shape, "valid" if mode == "same" and boundary is None else mode, boundary
    )
    used = naive.inside(result, kernel_shape) if mode == "same" and boundary is None else result
    x = naive.design_matrix(virtual, kernel_shape)
    rows, cols = (polynomials(np.arange(n), n, degree) for n in used.shape)
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    phi = np.stack([np.outer(rows[:, i], cols[:, j]).ravel() for i, j in powers], axis=1)
    design = np.hstack([x, phi])
    found, *_ = np.linalg.lstsq(design, used.ravel(), rcond=None)
    coefficients = np.zeros((degree + 1, degree + 1))
    coefficients[tuple(zip(*powers, strict=True))] = found[x.shape[1] :]
    left = (used.ravel() - design @ found).reshape(used.shape)
    return found[: x.shape[1]].reshape(kernel_shape), coefficients, left


@pytest.mark.parametrize("degree", [0, 1, 3])
@pytest.mark.parametrize(
    ("mode", "boundary"),
    [("valid", None), ("full", None), ("same", None), ("same", "zero"), ("same", "mirror")],
)
def test_a_background_is_part_of_prediction_and_residual(mode, boundary, degree):
    result = naive.convolve(IMAGE, KERNEL, mode, boundary or "zero")
    down, right = np.indices(result.shape)
    result = result + 20 + degree * (0.3 * down - 0.002 * down * right)
    result += rng().normal(0, 0.5, result.shape)
    kernel, coefficients, left = dense_fit(IMAGE, result, KERNEL.shape, mode, boundary, degree)
    fit = estimate_kernel(IMAGE, result, KERNEL.shape, boundary=boundary, background=degree)

    assert_allclose(fit.residual(IMAGE, result, boundary=boundary), left, rtol=0, atol=1e-8)
    assert fit.residual_rms == pytest.approx(np.sqrt(np.mean(left**2)), rel=1e-8)
    for wanted in MODES:
        rule = boundary or "zero"
        convolution = naive.filtered(IMAGE, kernel, wanted, rule)
        places = [
            np.arange(n) + first_output(wanted, taps, rule) - first_output(mode, taps, boundary)
            for n, taps in zip(convolution.shape, KERNEL.shape, strict=True)
        ]
        rows, cols = (
            polynomials(place, n, degree) for place, n in zip(places, left.shape, strict=True)
        )
        want = convolution + rows @ coefficients @ cols.T
        got = fit.predict(IMAGE, mode=wanted, boundary=rule)
        assert_allclose(got, want, rtol=0, atol=1e-7)
        plain = fit.predict(IMAGE, mode=wanted, boundary=rule, background=False)
        assert_allclose(plain, convolution, rtol=0, atol=1e-7)


def test_a_constant_goes_with_any_source_and_a_polynomial_with_its_own():
    result = convolve(IMAGE, KERNEL, "valid") + 9
    level = estimate_kernel(IMAGE, result, KERNEL.shape, background="constant")
    other = data.coins()[:40, :33]
    want = naive.convolve(other, KERNEL) + 9
    assert_allclose(level.predict(other), want, atol=1e-8)
    assert_allclose(level.residual(other, want + 1), 1, atol=1e-8)
    slope = estimate_kernel(IMAGE, result, KERNEL.shape, background=1)
    for call in (slope.predict, lambda x: slope.residual(x, want)):
        with pytest.raises(ValueError, match=r"shape \(24, 30\) .*, got \(40, 33\); background=F"):
            call(other)
    plain = slope.residual(other, want, background=False)
    assert_allclose(plain, 9, atol=1e-8)


@pytest.mark.parametrize("background", ["constant", 2])
def test_several_pairs_have_a_background_each(background):
    images = [IMAGE, IMAGE.T, data.coins()[:26, :31].astype(float)]
    levels = [5.0, -3.0, 40.0]
    results = [convolve(x, KERNEL, "valid") + b for x, b in zip(images, levels, strict=True)]
    fit = estimate_kernel(images, results, KERNEL.shape, background=background)
    assert len(fit.background) == 3
    for i, (image, result) in enumerate(zip(images, results, strict=True)):
        assert_allclose(fit.predict(image, pair=i), result, atol=1e-7)
        assert_allclose(fit.residual(image, result, pair=np.int64(i)), 0, atol=1e-7)
    with pytest.raises(ValueError, match="pair must say whose of 3 backgrounds is meant, from 0 "):
        fit.predict(IMAGE)
    assert_allclose(fit.predict(IMAGE, background=False), results[0] - 5, atol=1e-7)
    for wrong in (3, -1, True, 1.0, "first"):
        with pytest.raises(ValueError, match="pair must be from 0 to 2, one of the fit's"):
            fit.predict(IMAGE, pair=wrong)


def test_channels_have_a_background_each():
    image = data.astronaut()[:30, :34].astype(float)
    levels = [1.0, 20.0, -7.0]
    result = np.stack(
        [convolve(image[..., c], KERNEL, "valid") + levels[c] for c in range(3)], axis=-1
    )
    fit = estimate_kernel(image, result, KERNEL.shape, background="constant", channel_axis=-1)
    for c in range(3):
        assert_allclose(fit.predict(image[..., c], pair=c), result[..., c], atol=1e-7)


def test_equations_do_not_tell_what_was_eliminated_from_them():
    result = convolve(IMAGE, KERNEL, "valid") + 9
    fit = estimate_kernel(IMAGE, result, KERNEL.shape, background="constant")
    again = fit.equations.solve(ridge=1e-6)
    for call in (again.predict, lambda x: again.residual(x, result)):
        with pytest.raises(ValueError, match="background must be False for this fit: it was elim"):
            call(IMAGE)
    assert_allclose(again.predict(IMAGE, background=False), result - 9, atol=1e-3)


@pytest.mark.parametrize("shape", [(3, 3), (4, 6), (1, 5)])
def test_where_the_centre_tap_is(shape):
    centre = (shape[0] - 1) // 2, (shape[1] - 1) // 2
    for i, j in np.ndindex(shape):
        down, right = i - centre[0], j - centre[1]
        moved = np.roll(IMAGE, (down, right), (0, 1))
        fit = estimate_kernel(IMAGE, moved, shape, boundary="circular")
        want = np.zeros(shape)
        want[i, j] = 1
        assert_allclose(fit.kernel, want, atol=1e-9)


ASKED = {
    "background": {"background": 1},
    "symmetric": {"symmetric": "even"},
    "lad": {"method": "lad"},
    "iterated": {"solver": "fista", "num_iter": 3},
}


@pytest.fixture(params=ASKED)
def fit(request):
    result = convolve(IMAGE, KERNEL, "valid") + rng().normal(0, 1, (22, 27))
    return estimate_kernel(IMAGE, result, KERNEL.shape, **ASKED[request.param])


def test_a_fit_travels(fit):
    told = copy.copy(fit)
    vars(told)["quality"] = Verdict("believe it", ("so",), True)
    for judged in (fit, told):
        for twin in (pickle.loads(pickle.dumps(judged)), copy.copy(judged), copy.deepcopy(judged)):
            assert_array_equal(twin.kernel, fit.kernel)
            assert_array_equal(twin.standard_errors, fit.standard_errors)
            assert_array_equal(twin.predict(IMAGE), fit.predict(IMAGE))
            assert repr(twin) == repr(judged)
            if fit.equations is not None:
                assert_array_equal(twin.equations.gram, fit.equations.gram)
                assert_array_equal(twin.equations.solve().kernel, fit.equations.solve().kernel)
    assert weakref.ref(fit)() is fit
    with pytest.raises(dataclasses.FrozenInstanceError):
        fit.kernel = KERNEL
    with pytest.raises(dataclasses.FrozenInstanceError):
        fit.quality = None


@pytest.mark.parametrize("method", ["lstsq", "matrix", "fft"])
def test_an_inverse_travels(method):
    fit = inverse_kernel(np.array([[0.1, 0.8, 0.1]]), (1, 7), method=method)
    for twin in (pickle.loads(pickle.dumps(fit)), copy.copy(fit), copy.deepcopy(fit)):
        assert_array_equal(twin.kernel, fit.kernel)
        assert repr(twin) == repr(fit)
        if method == "matrix":
            assert_array_equal(twin.operator @ np.ones(7), fit.operator @ np.ones(7))
    assert weakref.ref(fit)() is fit
    with pytest.raises(dataclasses.FrozenInstanceError):
        fit.delay = (0, 0)


def test_the_text_of_a_fit_is_short_and_says_what_matters(fit):
    text = repr(fit)
    lines = text.splitlines()
    assert lines[0] == "KernelFit"
    assert len(lines) <= 14
    assert max(map(len, lines)) <= 100
    assert "array" not in text
    p, q = fit.kernel.shape
    assert f"{p}×{q}, taps sum to {fit.kernel.sum():.6g}" in text
    assert f"{fit.method}, {fit.solver}, {'converged' if fit.converged else 'not conv'}" in text
    assert f"{fit.residual_rms:.4g} rms over {fit.n_pixels} pixels" in text
    assert f"condition number: {fit.condition_number:.2g}" in text
    assert (fit.background is None) == ("background" not in text)
    table = np.array([line.split() for line in lines[-p:]], float)
    assert_allclose(table, fit.kernel, rtol=0, atol=0.6e-3 * np.abs(fit.kernel).max())


def test_the_text_of_a_large_kernel_has_no_table_and_reads_no_error_bars():
    image = rng().random((60, 60))
    fit = estimate_kernel(image, image[5:-5, 5:-5], (11, 11))
    assert len(repr(fit).splitlines()) <= 6
    assert "standard_errors" not in vars(fit)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e4, 1e12])
def test_tables_keep_the_digits_of_any_unit(scale):
    fit = estimate_kernel(IMAGE, convolve(IMAGE, KERNEL * scale, "valid"), KERNEL.shape)
    cells = [line.split() for line in repr(fit).splitlines()[-3:]]
    assert_allclose(np.array(cells, float), KERNEL * scale, rtol=1e-3, atol=1e-9 * scale)
    # What is nothing but rounding is a plain zero, of no sign.
    assert cells[0][0] == cells[2][3] == "0"


@pytest.mark.parametrize(
    ("background", "count", "words"),
    [
        ("constant", 1, "background: 9"),
        ("constant", 2, "background: 9 to 9.5 in 2 pairs"),
        (1, 1, "background: 9, polynomial of degree 1"),
        (2, 2, "background: 9 to 9.5 in 2 pairs, polynomial of degree 2"),
    ],
)
def test_a_background_in_words(background, count, words):
    images = [IMAGE, IMAGE.T][:count]
    results = [convolve(x, KERNEL, "valid") + 9 + i / 2 for i, x in enumerate(images)]
    fit = estimate_kernel(images, results, KERNEL.shape, background=background)
    assert words in repr(fit).splitlines()[-5]


def test_a_verdict_stands_first():
    fit = estimate_kernel(IMAGE, convolve(IMAGE, KERNEL, "valid"), KERNEL.shape)
    assert "verdict" not in repr(fit)
    vars(fit)["quality"] = Verdict("do not believe it", ("a < b",), False)
    assert repr(fit).splitlines()[1] == "  verdict: do not believe it: a < b"
    assert fit._repr_html_().startswith("<p><strong>do not believe it: a &lt; b</strong></p>")


def test_the_text_of_an_inverse():
    fit = inverse_kernel([[0, 1, 0], [1, 1, 1], [0, 1, 0]], (5, 4), solver="fista", num_iter=3)
    lines = repr(fit).splitlines()
    assert lines[:3] == ["InverseFit", "  inverse: 5×4", "  method: lstsq, fista, not converged"]
    assert len(lines) <= 16
    table = np.array([line.split() for line in lines[-5:]], float)
    assert_allclose(table, fit.kernel, rtol=0, atol=0.6e-3 * np.abs(fit.kernel).max())
    assert math.isclose(float(lines[4].split()[-1]), fit.max_deviation, rel_tol=0.01)
