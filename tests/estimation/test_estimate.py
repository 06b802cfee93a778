"""Kernels planted by us, by SciPy, by Pillow and by OpenCV come back."""

import cv2
import naive
import numba
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageFilter
from scipy import linalg, ndimage
from shared import waves
from skimage import data

from fastkernel import SingularFitError, estimate_kernel, normal_equations

EDGE = 96 if not numba.config.DISABLE_JIT else 40

RNG = np.random.default_rng(7)
ASYMMETRIC = np.array(
    [
        [0.00, 0.02, 0.05, 0.01, 0.00],
        [0.01, 0.06, 0.12, 0.08, 0.02],
        [0.03, 0.10, 0.18, 0.09, 0.01],
        [0.00, 0.05, 0.08, 0.03, 0.01],
        [0.00, 0.01, 0.02, 0.02, 0.00],
    ]
)


def photograph():
    return data.camera()[100 : 100 + EDGE, 180 : 180 + EDGE + 8]


def relative_error(kernel, truth):
    return float(np.abs(kernel - truth).max() / np.abs(truth).max())


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (2, 2), (4, 3), (5, 5), (6, 9)])
@pytest.mark.parametrize("mode", ["valid", "same", "full"])
def test_a_planted_kernel_comes_back(mode, shape, rng):
    image, kernel = photograph().astype(float), rng.standard_normal(shape)
    fit = estimate_kernel(image, naive.convolve(image, kernel, mode), shape)
    assert relative_error(fit.kernel, kernel) < 1e-9
    assert fit.kernel.dtype == np.float64
    assert fit.rank == kernel.size


@pytest.mark.parametrize("boundary", naive.PAD_MODES)
@pytest.mark.parametrize("shape", [(3, 3), (4, 6)])
def test_all_pixels_of_a_same_pair_under_its_border_rule(boundary, shape, rng):
    image, kernel = photograph().astype(float), rng.standard_normal(shape)
    result = naive.convolve(image, kernel, "same", boundary)
    fit = estimate_kernel(image, result, shape, boundary=boundary)
    assert relative_error(fit.kernel, kernel) < 1e-9
    assert fit.n_pixels == image.size
    wrong = estimate_kernel(image, result, shape, boundary="zero" if boundary != "zero" else "edge")
    assert relative_error(wrong.kernel, kernel) > 1e-4


@pytest.mark.parametrize("exponent", [0, 2, 4, 6, 8])
def test_error_stays_small_up_to_large_condition_numbers(exponent, rng):
    """A blurred source: the fewer high frequencies, the worse the condition."""
    noise = rng.standard_normal((EDGE, EDGE))
    smooth = ndimage.gaussian_filter(noise, 1.5)
    image = smooth / smooth.std() + 10.0 ** (-exponent / 2) * noise + 3
    kernel = rng.random((4, 5))
    fit = estimate_kernel(image, naive.convolve(image, kernel), (4, 5))
    assert fit.condition_number > 10.0 ** (exponent / 2)
    assert relative_error(fit.kernel, kernel) < 1e-9


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.uint16])
def test_the_answer_is_the_dense_one(dtype, rng):
    image = photograph().astype(dtype)
    result = np.round(naive.convolve(image, ASYMMETRIC)).astype(dtype)
    fit = estimate_kernel(image, result, (5, 5))
    dense = naive.least_squares(image, result, (5, 5))
    assert_allclose(fit.kernel, dense, atol=1e-11)
    x = naive.design_matrix(image.astype(float), (5, 5))
    residual = result.astype(float).ravel() - x @ dense.ravel()
    assert fit.residual_rms == pytest.approx(np.sqrt(np.mean(residual**2)), rel=1e-6)
    variance = residual @ residual / (len(x) - 25)
    errors = np.sqrt(variance * np.diag(np.linalg.inv(x.T @ x))).reshape(5, 5)
    assert_allclose(fit.standard_errors, errors, rtol=1e-6)
    condition = np.linalg.cond(x.T @ x, 1)
    assert condition / 10 < fit.condition_number <= condition * 1.01


def cv_border(rule):
    return {
        "zero": cv2.BORDER_CONSTANT,
        "replicate": cv2.BORDER_REPLICATE,
        "symmetric": cv2.BORDER_REFLECT,
        "mirror": cv2.BORDER_REFLECT_101,
    }[rule]


def scipy_mode(rule):
    return {
        "zero": "constant",
        "circular": "wrap",
        "replicate": "nearest",
        "symmetric": "reflect",
        "mirror": "mirror",
    }[rule]


def integer_taps():
    """Sum 100, so that Pillow's whole-number scale loses nothing."""
    return np.round(ASYMMETRIC * 100)


def pillow_kernel(image):
    # Pillow correlates from the bottom row up: the taps of the convolution, mirrored left to right.
    taps = integer_taps()
    drawn = Image.fromarray(image).filter(ImageFilter.Kernel((5, 5), taps.ravel().tolist(), 100))
    return np.asarray(drawn), taps[:, ::-1] / 100


def pillow_box(image):
    drawn = Image.fromarray(image).filter(ImageFilter.BoxBlur(2))
    return np.asarray(drawn), np.full((5, 5), 1 / 25)


def opencv(rule):
    def blur(image):
        # filter2D correlates: the taps of the convolution, flipped both ways.
        drawn = cv2.filter2D(image, -1, ASYMMETRIC[::-1, ::-1].copy(), borderType=cv_border(rule))
        return drawn, ASYMMETRIC

    return blur


def scipy(rule):
    def blur(image):
        # ndimage.convolve flips as a convolution does; on integers it truncates, so round here.
        drawn = ndimage.convolve(image.astype(float), ASYMMETRIC, mode=scipy_mode(rule))
        return np.round(drawn).astype(np.uint8), ASYMMETRIC

    return blur


PROGRAMS = {
    "pillow kernel": pillow_kernel,
    "pillow box": pillow_box,
    **{f"opencv {rule}": opencv(rule) for rule in ("zero", "replicate", "symmetric", "mirror")},
    **{f"scipy {rule}": scipy(rule) for rule in naive.PAD_MODES},
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_kernels_of_other_programs_come_back(program):
    """Every tap within 1.5 times the error of a dense fit of the same interior pixels."""
    image = photograph()
    result, truth = PROGRAMS[program](image)
    assert result.dtype == np.uint8
    fit = estimate_kernel(image, result, (5, 5))
    dense = naive.least_squares(image, naive.inside(result, (5, 5)), (5, 5))
    allowed = 1.5 * np.abs(dense - truth) + 1e-12
    assert (np.abs(fit.kernel - truth) <= allowed).all()
    assert np.abs(fit.kernel - truth).max() < 0.02
    assert fit.residual_rms < 0.6


@pytest.mark.parametrize("program", [name for name in PROGRAMS if " " in name])
def test_border_rules_of_other_programs_are_ours(program):
    """With the right rule all pixels fit as well as the inner ones do."""
    kind, rule = program.split()
    if kind == "pillow":
        rule = "replicate"
        if program == "pillow kernel":  # it copies the pixels it cannot reach
            return
    image = photograph()
    result, _ = PROGRAMS[program](image)
    every = estimate_kernel(image, result, (5, 5), boundary=rule)
    inner = estimate_kernel(image, result, (5, 5))
    assert every.n_pixels == image.size
    assert every.residual_rms < 1.1 * inner.residual_rms


def test_colour_channels_share_the_kernel():
    image = data.astronaut()[100 : 100 + EDGE, 150 : 150 + EDGE]
    result = np.stack(
        [np.round(naive.convolve(image[..., i], ASYMMETRIC)) for i in range(3)], axis=-1
    ).astype(np.uint8)
    fit = estimate_kernel(image, result, 5, channel_axis=-1)
    alone = estimate_kernel(image[..., 0], result[..., 0], 5)
    assert fit.n_pixels == 3 * alone.n_pixels
    assert relative_error(fit.kernel, ASYMMETRIC) < 0.03
    assert fit.standard_errors.max() < alone.standard_errors.max()


def test_standard_errors_cover_the_truth(rng):
    image = photograph().astype(float)
    clean = naive.convolve(image, ASYMMETRIC)
    z = []
    for _ in range(40):
        fit = estimate_kernel(image, clean + rng.normal(0, 2, clean.shape), (5, 5))
        z.append((fit.kernel - ASYMMETRIC) / fit.standard_errors)
    assert 0.9 < np.std(z) < 1.1
    assert fit.residual_rms == pytest.approx(2, rel=0.05)


def test_no_errors_where_no_pixel_is_left():
    image = np.random.default_rng(1).random((4, 4))
    fit = estimate_kernel(image, image[1:3, 1:3] ** 2, (3, 3), ridge=1e-3)
    assert np.isinf(fit.standard_errors).all()


def test_a_hidden_residual_is_looked_at_again(rng):
    """From the equations alone a residual of 1e-10 drowns in rounding; pixels show it."""
    image = rng.random((EDGE, EDGE)) + 1
    clean = naive.convolve(image, ASYMMETRIC)
    noise = rng.normal(0, 1e-10, clean.shape)
    fit = estimate_kernel(image, clean + noise, (5, 5))
    assert fit.residual_rms == pytest.approx(1e-10, rel=0.05)
    assert fit.equations.solve().residual_rms > 1e-9


@pytest.mark.parametrize("ridge", [0.0, 1e-3, 1.0])
def test_ridge_is_the_penalty_it_says(ridge, rng):
    image, result = rng.random((20, 20)), rng.random((17, 18))
    x = naive.design_matrix(image, (4, 3))
    want = linalg.solve(x.T @ x + ridge * len(x) * np.eye(12), x.T @ result.ravel())
    fit = estimate_kernel(image, result, (4, 3), ridge=ridge)
    assert_allclose(fit.kernel.ravel(), want, rtol=1e-9)


def test_ridge_is_kept_when_pixels_are_read_again(rng):
    image = rng.random((30, 30))
    image = ndimage.gaussian_filter(image, 2.0)
    result = naive.convolve(image, ASYMMETRIC)
    x = naive.design_matrix(image, (5, 5))
    stacked = np.vstack([x, np.sqrt(1e-9 * len(x)) * np.eye(25)])
    want, *_ = np.linalg.lstsq(stacked, np.append(result.ravel(), np.zeros(25)), rcond=None)
    fit = estimate_kernel(image, result, (5, 5), ridge=1e-9)
    assert_allclose(fit.kernel.ravel(), want, rtol=1e-6)


def test_predict_and_residual(rng, small_tiles):
    image, kernel = rng.random((13, 17)), rng.random((4, 3))
    result = naive.convolve(image, kernel) + rng.normal(0, 0.01, (10, 15))
    fit = estimate_kernel(image, result, (4, 3))
    for mode in ("valid", "full"):
        assert_allclose(fit.predict(image, mode=mode), naive.convolve(image, fit.kernel, mode))
    for rule in naive.PAD_MODES:
        want = naive.convolve(image, fit.kernel, "same", rule)
        assert_allclose(fit.predict(image, mode="same", boundary=rule), want)
        left = fit.residual(image, want + 1, boundary=rule)
        assert_allclose(left, np.ones(image.shape))
    left = fit.residual(image, result, workers=3)
    assert_allclose(left, result - naive.convolve(image, fit.kernel), atol=1e-12)
    assert fit.residual_rms == pytest.approx(np.sqrt(np.mean(left**2)))
    inner = fit.residual(image, np.pad(result, ((2, 1), (1, 1))))
    assert_allclose(inner, left)


def test_equations_of_a_fit_solve_again(rng):
    image, result = rng.random((20, 20)), rng.random((16, 16))
    fit = estimate_kernel(image, result, (5, 5))
    again = fit.equations.crop((3, 3)).solve()
    assert_allclose(again.kernel, estimate_kernel(image[1:-1, 1:-1], result, (3, 3)).kernel)
    assert_array_equal(fit.equations.gram, normal_equations(image, result, (5, 5)).gram)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((20, 20), 7, np.uint8), "the source is flat"),
        (np.full((20, 20), 0.1), "the source is flat"),
        (np.zeros((20, 20)), "the source is flat"),
        (waves(40), r"the source tells only 4 of its 25 taps apart"),
        (np.outer(np.arange(20.0), np.ones(20)), r"the source tells only 2 of its 25 taps apart"),
    ],
)
def test_a_source_that_does_not_determine_the_kernel_is_refused(image, message):
    with pytest.raises(SingularFitError, match=message) as caught:
        estimate_kernel(image, image, (5, 5))
    for help_ in ("more detail", "smaller kernel_shape", "ridge="):
        assert help_ in str(caught.value)


def test_too_few_pixels_are_refused(rng):
    image = rng.random((8, 8))
    with pytest.raises(SingularFitError, match="16 pixels for 25 taps"):
        estimate_kernel(image, image[:4, :4], (5, 5))
    with pytest.raises(SingularFitError, match="16 pixels for 25 taps"):
        normal_equations(image, image[:4, :4], (5, 5)).solve()


@pytest.mark.jit
@pytest.mark.parametrize("boundary", ["circular", "mirror"])
def test_finds_what_is_left_open(boundary, rng):
    source = rng.integers(10, 200, (90, 84)).astype(np.uint8)
    kernel = np.outer([0.25, 0.5, 0.25], [0.1, 0.2, 0.4, 0.2, 0.1])
    result = np.rint(0.8 * naive.filtered(source, kernel, "same", boundary) + 20)
    fit = estimate_kernel(source, result, "auto", boundary="auto", background="auto")
    assert fit.n_pixels == source.size
    assert fit.background == pytest.approx(20, abs=0.1)
    assert_allclose(fit.kernel, 0.8 * kernel, atol=1e-3)
