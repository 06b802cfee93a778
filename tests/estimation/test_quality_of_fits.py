"""The quality of a fit: of images that are given, and of those that were fitted while they live."""

import copy
import gc
import pickle

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from skimage import data

from fastkernel import estimate_kernel, normal_equations, psf
from fastkernel._images.remembered import WeakImages
from fastkernel.estimation.quality import Plane, facts_of, judge

GAUSSIAN = psf.gaussian(5, 1.0)
UNEVEN = np.arange(12.0).reshape(3, 4) / 66
CAMERA = data.camera()[100:180, 100:190].copy()


def filtered(image, kernel=GAUSSIAN):
    exact = ndimage.convolve(image.astype(float), kernel, mode="mirror")
    return np.rint(exact).clip(0, 255).astype(np.uint8)


def noisy(image, kernel, mode="valid", boundary="zero", seed=0):
    exact = naive.convolve(image, kernel, mode, boundary)
    return exact + np.random.default_rng(seed).normal(0, 2, exact.shape)


RESULT = filtered(CAMERA)


def facts_by_hand(source, residual, result):
    """The facts of a "valid" part of a "same" pair, whose residual is known."""
    (m, n), (rows, cols) = source.shape, residual.shape
    top, left = (m - rows + 1) // 2, (n - cols + 1) // 2
    centre = source[top : top + rows, left : left + cols]
    return facts_of([Plane(residual, centre, result)])


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (5, 1), (2, 2)])
def test_compares_where_the_fit_predicts(shape):
    kernel = np.random.default_rng(1).random(shape)
    source = CAMERA.astype(float)
    result = noisy(source, kernel)
    fit = estimate_kernel(source, result, shape)
    facts = fit.judge(source, result).facts
    residual = result - naive.convolve(source, fit.kernel)
    want = facts_by_hand(source, residual, result)
    for name in ("rms", "largest", "mean", "change", "contrast", "neighbours", "detail"):
        assert_allclose(getattr(facts, name), getattr(want, name), rtol=1e-9, atol=1e-12)
    assert facts.n_pixels == residual.size


@pytest.mark.parametrize("boundary", ["zero", "circular", "replicate", "symmetric", "mirror"])
def test_compares_what_a_border_rule_made(boundary):
    source = CAMERA.astype(float)
    result = noisy(source, UNEVEN, "same", boundary)
    fit = estimate_kernel(source, result, (3, 4), boundary=boundary)
    facts = fit.judge(source, result, boundary=boundary).facts
    residual = result - naive.convolve(source, fit.kernel, "same", boundary)
    assert_allclose(facts.rms, np.sqrt(np.mean(residual**2)), rtol=1e-9)
    assert_allclose(facts.change, (result - source).std(), rtol=1e-9)
    assert facts.n_pixels == source.size


def test_compares_a_full_result():
    source = CAMERA[:30, :40].astype(float)
    result = noisy(source, UNEVEN, "full")
    fit = estimate_kernel(source, result, (3, 4))
    residual = result - naive.convolve(source, fit.kernel, "full")
    facts = fit.judge(source, result).facts
    assert_allclose(facts.rms, np.sqrt(np.mean(residual**2)), rtol=1e-9)
    assert facts.n_pixels == result.size


def test_reads_many_rows_a_strip_at_a_time(rng):
    source = rng.random((600, 9))
    result = noisy(source, UNEVEN)
    fit = estimate_kernel(source, result, (3, 4))
    residual = result - naive.convolve(source, fit.kernel)
    facts = fit.judge(source, result).facts
    assert_allclose(facts.rms, np.sqrt(np.mean(residual**2)), rtol=1e-9)
    assert_allclose(facts.largest, np.abs(residual).max(), rtol=1e-9)


@pytest.mark.parametrize("background", ["constant", 2])
def test_takes_the_background_of_every_pair(background):
    images = [CAMERA.astype(float), CAMERA.T.astype(float)]
    results = [noisy(x, UNEVEN) + 30 * (i + 1) for i, x in enumerate(images)]
    fit = estimate_kernel(images, results, (3, 4), background=background)
    together = fit.judge(images, results).facts
    assert together.rms < 2.1
    assert together.n_pixels == sum(map(np.size, results))
    each = enumerate(zip(images, results, strict=True))
    apart = [fit.judge(x, y, pair=i).facts for i, (x, y) in each]
    squares = [part.n_pixels * part.rms**2 for part in apart]
    assert_allclose(together.n_pixels * together.rms**2, sum(squares), rtol=1e-9)
    with pytest.raises(ValueError, match="pair must say whose of 2 backgrounds is meant"):
        fit.judge(images[0], results[0])


def test_judges_channels_together():
    source = np.stack([CAMERA, CAMERA[::-1], CAMERA[:, ::-1]], axis=-1)
    result = np.stack([filtered(source[..., c]) for c in range(3)], axis=-1)
    fit = estimate_kernel(source, result, 5, channel_axis=-1)
    verdict = fit.judge(source, result, channel_axis=-1)
    assert verdict.belief == "believe it"
    assert verdict.facts.n_pixels == 3 * 76 * 86
    assert verdict == fit.quality


def test_says_what_the_verdict_says():
    fit = estimate_kernel(CAMERA, RESULT, 5)
    verdict = fit.judge(CAMERA, RESULT)
    again = judge(
        fit.kernel,
        fit.standard_errors,
        verdict.facts,
        residual_rms=fit.residual_rms,
        condition_number=fit.condition_number,
    )
    assert verdict == again
    assert verdict.belief == "believe it"
    wrong = estimate_kernel(CAMERA, ndimage.median_filter(CAMERA, 5), 5)
    verdict = wrong.judge(CAMERA, ndimage.median_filter(CAMERA, 5))
    assert verdict.belief == "do not believe it"
    lossy = wrong.judge(CAMERA, ndimage.median_filter(CAMERA, 5), lossy=True)
    assert "lossy compression leaves a residual of its own" in lossy.reasons


def test_predictions_end_where_levels_do():
    bright = np.minimum(CAMERA.astype(float) * 1.4, 255).astype(np.uint8)
    sharpener = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]) * 1.0
    result = filtered(bright, sharpener)
    fit = estimate_kernel(bright, result, 3, saturation=(None, None))
    predicted = naive.convolve(bright, fit.kernel).clip(0, 255)
    inner = result[1:-1, 1:-1]
    facts = fit.judge(bright, result).facts
    assert_allclose(facts.rms, np.sqrt(np.mean((inner - predicted) ** 2)), rtol=1e-9)
    assert_allclose(facts.clipped, np.mean((inner == 0) | (inner == 255)), rtol=1e-12)
    assert facts.clipped > 0.05
    # Floats have no ends, nor have images of two levels.
    facts = fit.judge(bright, result.astype(float)).facts
    assert facts.clipped == 0
    bits = (CAMERA > 128).astype(np.uint8)
    assert estimate_kernel(bits, bits, 3).judge(bits, bits).facts.clipped == 0


def test_pixels_that_do_not_count():
    result = RESULT.copy()
    used = np.ones(result.shape, bool)
    used[10:20, 30:50] = False
    result[~used] = 255
    fit = estimate_kernel(CAMERA, RESULT, 5)
    assert fit.judge(CAMERA, result).belief != "believe it"
    verdict = fit.judge(CAMERA, result, used=used)
    assert verdict.belief == "believe it"
    assert verdict.facts.n_pixels == 76 * 86 - 200
    # The mask may be that of the compared pixels, and there may be one for every pair.
    assert fit.judge(CAMERA, result, used=used[2:-2, 2:-2]) == verdict
    both = fit.judge([CAMERA, CAMERA], [RESULT, result], used=[None, used])
    assert both.facts.n_pixels == 2 * 76 * 86 - 200
    with pytest.raises(ValueError, match=r"used must hold a mask for each of 1 pairs, got 2"):
        fit.judge(CAMERA, result, used=[used, used])
    with pytest.raises(ValueError, match=r"mask of bool, True where .*, got int64 \(80, 90\)"):
        fit.judge(CAMERA, result, used=used.astype(int))
    with pytest.raises(ValueError, match=r"shape \(80, 90\) of result or \(76, 86\) of its"):
        fit.judge(CAMERA, result, used=used[:9])


def test_refuses_what_is_not_finite():
    source, result = CAMERA.astype(float), RESULT.astype(float)
    fit = estimate_kernel(source, result, 5)
    result[40, 41] = np.nan
    with pytest.raises(ValueError, match=r"result .*nan.*\(40, 41\)"):
        fit.judge(source, result)


def test_quality_is_that_of_the_images_that_were_fitted():
    source, result = CAMERA.copy(), RESULT.copy()
    fit = estimate_kernel(source, result, 5)
    assert "quality" not in vars(fit)
    assert "verdict" not in repr(fit)
    assert fit.quality == fit.judge(source, result)
    assert repr(fit).splitlines()[1].startswith("  verdict: believe it: nothing but rounding")
    assert "<strong>believe it: nothing" in fit._repr_html_()
    assert fit.quality is fit.quality


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "lstsq"},
        {"method": "lad", "solver": "reweighted"},
        {"method": "richardson_lucy", "num_iter": 3},
    ],
    ids=lambda asked: asked["method"],
)
def test_methods_that_read_all_pixels_have_a_quality(asked):
    fit = estimate_kernel(CAMERA, RESULT, 5, **asked)
    assert fit.quality == fit.judge(CAMERA, RESULT)
    assert fit.quality.facts.n_pixels == 76 * 86


def test_quality_of_a_border_rule():
    source = CAMERA.astype(float)
    result = noisy(source, UNEVEN, "same", "circular")
    fit = estimate_kernel(source, result, (3, 4), boundary="circular")
    assert fit.quality == fit.judge(source, result, boundary="circular")


@pytest.mark.parametrize("gone", ["source", "result"])
def test_a_fit_keeps_no_image_alive(gone):
    images = {"source": CAMERA.copy(), "result": RESULT.copy()}
    fit = estimate_kernel(*images.values(), 5)
    del images[gone]
    gc.collect()
    assert fit.quality is None
    assert fit.judge(CAMERA, RESULT).belief == "believe it"


def test_views_live_as_long_as_what_they_are_of():
    source, result = np.pad(CAMERA, 10), RESULT
    fit = estimate_kernel(source[10:-10, 10:-10], np.pad(RESULT, 3)[3:-3, 3:-3], 5)
    assert fit.quality is None  # the padded result had no name
    fit = estimate_kernel(source[10:-10, 10:-10], result[:], 5)
    assert fit.quality == fit.judge(CAMERA, RESULT)


@pytest.mark.parametrize(
    "part", [np.s_[3:9, 4:20:2], np.s_[::-1, ::-1], np.s_[:, 5:6], np.s_[:1]], ids=str
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_view_is_remembered_wherever_it_lies(part, order):
    owner = np.array(np.arange(600.0).reshape(20, 30), order=order)
    images = WeakImages(owner[part], owner.T)
    source, result = images.recalled()
    assert_array_equal(source, owner[part])
    assert_array_equal(result, owner.T)
    del owner, source, result
    gc.collect()
    assert images.recalled() is None


def test_overwritten_images_are_not_judged():
    source, result = CAMERA.copy(), RESULT.copy()
    fit = estimate_kernel(source, result, 5)
    result[:] = filtered(source, psf.gaussian(5, 2.0))  # the next frame, in the same memory
    assert fit.quality is None


def test_copies_remember_nothing_but_what_was_said():
    fit = estimate_kernel(CAMERA, RESULT, 5)
    for twin in (pickle.loads(pickle.dumps(fit)), copy.deepcopy(fit)):
        assert twin.quality is None
    verdict = fit.quality
    for twin in (pickle.loads(pickle.dumps(fit)), copy.deepcopy(fit), copy.copy(fit)):
        assert twin.quality == verdict
    assert len(pickle.dumps(fit)) < 40_000


def test_equations_have_no_quality():
    assert normal_equations(CAMERA, RESULT, 5).solve().quality is None


def test_images_read_by_slices_are_not_remembered():
    class Dataset:
        shape, dtype, ndim = CAMERA.shape, CAMERA.dtype, 2

        def __getitem__(self, key):
            return CAMERA[key]

    fit = estimate_kernel(Dataset(), RESULT, 5)
    assert fit.quality is None
    assert fit.judge(Dataset(), RESULT).belief == "believe it"


def test_quality_leaves_masked_pixels_out():
    result = np.ma.array(RESULT.copy(), mask=False)
    result.data[10:20, 30:50] = 255
    result[10:20, 30:50] = np.ma.masked
    fit = estimate_kernel(CAMERA, result, 5)
    assert fit.quality.facts.rms < 0.3
    assert fit.quality.facts.n_pixels == fit.n_pixels == 76 * 86 - 200
    # Of those that were fitted, where images have their shapes.
    assert fit.judge(CAMERA, result.data) == fit.quality


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("asked", [{}, {"background": 0}, {"background": "auto"}])
def test_a_flat_result_says_nothing(level, asked):
    source = data.camera()[:90, :80]
    result = np.full_like(source, level)
    fit = estimate_kernel(source, result, 3, **asked)
    assert fit.quality.belief == "do not believe it"
    assert fit.quality.reasons[0] == (
        "the result is the same everywhere, which says nothing of a kernel"
    )
