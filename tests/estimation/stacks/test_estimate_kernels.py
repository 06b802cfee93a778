import warnings

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastkernel import SingularFitError, estimate_kernel, estimate_kernels
from fastkernel.estimation.stacks import estimate_kernels as stacks


def pairs(rng, n=6, shape=(14, 17), kernel=(3, 4), noise=0.0):
    sources = rng.random((n, *shape))
    kernels = rng.standard_normal((n, *kernel))
    results = np.array([naive.convolve(*both) for both in zip(sources, kernels, strict=True)])
    return sources, results + noise * rng.standard_normal(results.shape), kernels


@pytest.mark.parametrize("kernel", [(1, 1), (1, 4), (3, 1), (3, 3), (4, 3), (5, 2)])
def test_finds_every_kernel(kernel, rng):
    sources, results, kernels = pairs(rng, kernel=kernel)
    stack = estimate_kernels(sources, results, kernel)
    assert_allclose(stack.kernels, kernels, rtol=0, atol=1e-12)
    assert not stack.refused.any()
    assert stack.n_pixels == results[0].size
    assert len(stack) == len(list(stack)) == 6


@pytest.mark.parametrize("degree", [None, 0, 2])
def test_equals_dense_least_squares(degree, rng):
    sources, results, _ = pairs(rng, noise=0.1)
    stack = estimate_kernels(sources, results, (3, 4), background=degree)
    rows, cols = (np.linspace(-1, 1, n) for n in results.shape[1:])
    for i, (source, result) in enumerate(zip(sources, results, strict=True)):
        x = naive.design_matrix(source, (3, 4))
        if degree is not None:
            powers = [(a, b) for a in range(degree + 1) for b in range(degree + 1 - a)]
            x = np.column_stack([x, *(np.outer(rows**a, cols**b).ravel() for a, b in powers)])
        found, left, _, _ = np.linalg.lstsq(x, result.ravel(), rcond=None)
        inverse = np.linalg.inv(x.T @ x)
        variance = left[0] / (result.size - x.shape[1])
        assert_allclose(stack.kernels[i].ravel(), found[:12], rtol=0, atol=1e-12)
        assert_allclose(stack.residual_rms[i], np.sqrt(left[0] / result.size), rtol=1e-9)
        bars = np.sqrt(variance * np.diag(inverse)[:12])
        assert_allclose(stack.standard_errors[i].ravel(), bars, rtol=1e-9)
    if degree == 0:
        assert stack.background.shape == (6,)
    elif degree == 2:
        assert stack.background.shape == (6, 3, 3)


@pytest.mark.parametrize(
    "asked",
    [
        {"nonnegative": True},
        {"unit_sum": True, "background": "constant"},
        {"nonnegative": True, "unit_sum": True},
        {"ridge": 0.1},
        {"ridge": "gcv"},
        {"ridge": ("smooth", 0.1), "background": 1},
    ],
    ids=str,
)
def test_agrees_with_single_fits(asked, rng):
    sources, results, _ = pairs(rng, noise=0.1)
    stack = estimate_kernels(sources, results, (3, 4), **asked)
    for i, pair in enumerate(zip(sources, results, strict=True)):
        fit = estimate_kernel(*pair, (3, 4), **asked)
        assert_allclose(stack.kernels[i], fit.kernel, rtol=0, atol=1e-10)
        assert_allclose(stack.standard_errors[i], fit.standard_errors, rtol=1e-8)
        assert_allclose(stack.residual_rms[i], fit.residual_rms, rtol=1e-8)
        if fit.background is not None:
            assert_allclose(stack.background[i], fit.background, rtol=0, atol=1e-10)


@pytest.mark.parametrize("boundary", ["zero", "circular", "replicate", "symmetric", "mirror"])
def test_takes_border_rules(boundary, rng):
    sources = rng.random((3, 9, 11))
    kernel = rng.random((3, 2))
    results = np.array([naive.convolve(x, kernel, "same", boundary) for x in sources])
    stack = estimate_kernels(sources, results, (3, 2), boundary=boundary)
    assert_allclose(stack.kernels, np.array([kernel] * 3), rtol=0, atol=1e-12)
    assert stack.n_pixels == 99


def test_takes_stamps_of_one_image(rng):
    source, kernel = rng.random((60, 70)), rng.random((3, 5))
    result = naive.convolve(source, kernel, "same")
    centres = np.array([[10, 12], [30, 33], [1, 30], [50, 60], [53, 63], [54, 63], [53, 64]])
    stack = estimate_kernels(source, result, (3, 5), centres=centres, stamp_shape=(10, 9))
    # The first fitted row is 1, the last 58; the columns 2 to 67. A stamp's middle is its fifth.
    assert_array_equal(stack.refused, [False, False, True, False, False, True, True])
    assert "reaches beyond" in stack.reasons[2]
    assert_allclose(stack.kernels[~stack.refused], np.array([kernel] * 4), rtol=0, atol=1e-11)
    for i in np.flatnonzero(~stack.refused):
        top, left = centres[i] - (4, 4)
        part = source[top - 1 : top + 11, left - 2 : left + 11]
        own = estimate_kernel(part, result[top : top + 10, left : left + 9], (3, 5))
        assert_allclose(stack.kernels[i], own.kernel, rtol=0, atol=1e-11)


def test_refuses_one_by_one(rng):
    sources, results, kernels = pairs(rng)
    sources[1] = 3.0
    sources[2, 4, 5] = np.nan
    results[3, 2, 2] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stack = estimate_kernels(sources, results, (3, 4))
    assert_array_equal(stack.refused, [False, True, True, True, False, False])
    assert stack.reasons[1] == stacks.SINGULAR
    assert stack.reasons[2] == stack.reasons[3] == stacks.NOT_FINITE
    assert np.isnan(stack.kernels[1:4]).all()
    assert np.isnan(stack.residual_rms[1:4]).all()
    good = ~stack.refused
    assert_allclose(stack.kernels[good], kernels[good], rtol=0, atol=1e-12)
    text = repr(stack)
    assert "refused: 3, the first of them 1" in text
    assert "<pre>" in stack._repr_html_()


def test_refuses_one_by_one_with_constraints(rng):
    sources, results, _ = pairs(rng)
    sources[1] = 3.0
    sources[2, 4, 5] = np.nan
    stack = estimate_kernels(sources, results, (3, 4), nonnegative=True)
    assert_array_equal(stack.refused, [False, True, True, False, False, False])


def test_the_same_bits_for_any_workers_and_parts(monkeypatch, rng):
    sources, results, _ = pairs(rng, n=40, noise=0.1)
    stack = estimate_kernels(sources, results, (3, 4), workers=1)
    monkeypatch.setattr(stacks, "_HELD", 4000)
    for workers in (1, 2, 3):
        again = estimate_kernels(sources, results, (3, 4), workers=workers)
        assert_array_equal(again.kernels, stack.kernels)
        assert_array_equal(again.standard_errors, stack.standard_errors)


def test_whole_numbers_give_exact_sums(rng):
    sources = rng.integers(0, 256, (4, 12, 12), dtype=np.uint8)
    results = rng.integers(0, 256, (4, 10, 10), dtype=np.uint8)
    stack = estimate_kernels(sources, results, 3)
    for i in range(4):
        fit = estimate_kernel(sources[i], results[i], 3, saturation=(None, None))
        assert_allclose(stack.kernels[i], fit.kernel, rtol=0, atol=1e-13)


def test_reports_and_can_be_stopped(monkeypatch, rng):
    monkeypatch.setattr(stacks, "_HELD", 4000)
    sources, results, _ = pairs(rng, n=40)
    calls = []
    estimate_kernels(sources, results, (3, 4), callback=lambda *call: calls.append(call))
    assert calls[-1][0] == calls[-1][1] > 1

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        estimate_kernels(sources, results, (3, 4), callback=stop)


def test_plots(rng):
    pytest.importorskip("matplotlib")
    sources, results, _ = pairs(rng, n=10)
    sources[3] = 0
    stack = estimate_kernels(sources, results, (3, 4))
    assert len(stack.plot().axes) == 10
    assert [panel.get_title() for panel in stack.plot(3).axes] == ["0", "4", "9"]
    assert "<img" in stack._repr_html_()


IMAGES = np.random.default_rng(0).random((3, 12, 12))
REFUSED = {
    "numbers": ({"results": IMAGES[:2]}, ValueError, "as many, got 3 and 2"),
    "shapes": ({"results": IMAGES[:, :7]}, ValueError, "one of three shapes"),
    "two dimensions": ({"sources": IMAGES[0]}, ValueError, "3 dimensions, .*centres="),
    "ragged": ({"sources": [IMAGES[0], IMAGES[0][:5]]}, ValueError, "of one shape|inhomogeneous"),
    "complex": ({"sources": IMAGES * 1j}, TypeError, "real numbers, got dtype complex128"),
    "masked": ({"sources": np.ma.masked_less(IMAGES, 0.5)}, TypeError, "must not be masked"),
    "centres alone": ({"centres": [[1, 2]]}, ValueError, "go together"),
    "a stamp alone": ({"stamp_shape": 5}, ValueError, "go together"),
    "places between": (
        {"sources": IMAGES[0], "results": IMAGES[0], "centres": [[1.5, 2]], "stamp_shape": 5},
        ValueError,
        r"\(n, 2\) integers.*float64",
    ),
    "a large kernel": ({"kernel_shape": 13}, ValueError, "must fit inside"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_message(case):
    changed, error, message = REFUSED[case]
    asked = {"sources": IMAGES, "results": IMAGES, "kernel_shape": 3} | changed
    with pytest.raises(error, match=message):
        estimate_kernels(**asked)


def test_refuses_too_few_pixels():
    with pytest.raises(SingularFitError, match="16 pixels for 81 taps"):
        estimate_kernels(IMAGES, IMAGES, 9)
