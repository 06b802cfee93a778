"""Small pairs of which nothing more is asked take a shorter way to the same answer."""

import dataclasses
import gc
import os
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from skimage import data

from fastkernel import SingularFitError, estimate_kernel, normal_equations
from fastkernel.estimation.equations.plain_pairs import plain_sums
from fastkernel.estimation.methods.lstsq import fit_plain

DTYPES = (np.uint8, np.uint16, np.float32, np.float64)
MODES = ("valid", "same", "full")


def pair(dtype=np.uint8, mode="valid", kernel_shape=(3, 4), size=(30, 34), seed=0):
    rng = np.random.default_rng(seed)
    kernel = rng.random(kernel_shape)
    kernel /= kernel.sum()
    image = data.camera()[50 : 50 + size[0], 100 : 100 + size[1]].astype(dtype)
    result = naive.convolve(image, kernel, mode, "zero")
    if np.dtype(dtype).kind == "u":
        result = np.rint(result)
    return np.ascontiguousarray(image), result.astype(dtype), kernel


def general(source, result, kernel_shape):
    """The longer way: whoever listens is not plain."""
    return estimate_kernel(source, result, kernel_shape, callback=lambda done, total: None)


def dense(source, result, kernel_shape, mode):
    used = naive.inside(result, kernel_shape) if mode == "same" else result
    virtual = naive.extended(source, kernel_shape, "valid" if mode == "same" else mode)
    x = naive.design_matrix(virtual.astype(float), kernel_shape)
    return x, used.astype(float).ravel()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel_shape", [(3, 4), (1, 1), (5, 2)])
def test_taps_are_those_of_the_definition(dtype, mode, kernel_shape):
    source, result, _ = pair(dtype, mode, kernel_shape)
    fit = fit_plain(source, result, kernel_shape)
    x, y = dense(source, result, kernel_shape, mode)
    taps, *_ = np.linalg.lstsq(x, y, rcond=None)
    assert_allclose(fit.kernel.ravel(), taps, rtol=0, atol=1e-10)
    left = y - x @ taps
    assert_allclose(fit.residual_rms**2, (left @ left) / len(y), rtol=1e-5, atol=1e-10)
    assert_allclose(fit.condition_number, np.linalg.cond(x.T @ x, 1), rtol=1e-8)
    covariance = np.linalg.inv(x.T @ x) * (fit.residual_rms**2 * len(y) / (len(y) - taps.size))
    assert_allclose(fit.covariance, covariance, rtol=1e-6, atol=1e-24)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("source_dtype", DTYPES)
@pytest.mark.parametrize("result_dtype", DTYPES)
def test_the_same_bits_as_by_the_longer_way(source_dtype, result_dtype, mode):
    source, result, _ = pair(mode=mode)
    source, result = source.astype(source_dtype), result.astype(result_dtype)
    short, long = estimate_kernel(source, result, (3, 4)), general(source, result, (3, 4))
    assert fit_plain(source, result, (3, 4)) is not None
    assert_array_equal(short.kernel, long.kernel)
    assert_array_equal(short.standard_errors, long.standard_errors)
    assert_array_equal(short.used, long.used)
    assert_array_equal(short.equations.gram, long.equations.gram)
    assert_array_equal(short.equations.moments, long.equations.moments)
    for name in ("residual_rms", "condition_number", "n_pixels", "rank", "solver", "method"):
        assert getattr(short, name) == getattr(long, name), name
    assert short.judge(source, result) == long.judge(source, result)


@pytest.mark.parametrize("rim", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_a_larger_image_are_read_where_they_stand(dtype, rim):
    whole = data.camera()[:60, :70].astype(dtype)
    source, result = whole[5:40, 7:50], whole[5 + rim : 40 - rim, 7 + rim : 50 - rim]
    fit = fit_plain(source, result, 3)
    assert_allclose(fit.kernel, np.eye(9)[4].reshape(3, 3), atol=1e-9)
    assert_array_equal(fit.kernel, general(source, result, 3).kernel)
    # Of the same shapes, and with rows elsewhere.
    copies = np.ascontiguousarray(source), result.copy()
    assert_array_equal(fit.kernel, fit_plain(source, copies[1], 3).kernel)
    assert_array_equal(fit.kernel, fit_plain(*copies, 3).kernel)


def test_levels_that_were_cut_off_are_left_out():
    rng = np.random.default_rng(3)
    source = rng.integers(0, 256, (60, 60)).astype(np.uint8)
    kernel = np.array([[0.0, 0.1, 0.0], [0.0, 1.2, 0.1], [0.0, 0.1, 0.0]])
    result = np.clip(np.rint(naive.convolve(source, kernel)), 0, 255).astype(np.uint8)
    fit = estimate_kernel(source, result, 3)
    assert_allclose(fit.kernel, kernel, atol=0.01)
    assert not fit.used.all()
    assert_array_equal(fit.kernel, general(source, result, 3).kernel)


def test_rounding_is_corrected_by_the_pixels():
    smooth = np.outer(*[np.hanning(64) + 0.1] * 2) + 1e-5 * np.random.default_rng(0).random(
        (64, 64)
    )
    kernel = np.array([[0.0, 0.1, 0.0], [0.2, 0.4, 0.2], [0.0, 0.1, 0.0]])
    result = naive.convolve(smooth, kernel)
    fit = fit_plain(smooth, result, 3)
    assert fit.condition_number > 1e10
    assert_allclose(fit.kernel, kernel, atol=1e-7)
    assert_array_equal(fit.kernel, general(smooth, result, 3).kernel)


NOT_PLAIN = {
    "a list": lambda x, y: (x.tolist(), y, 3),
    "a matrix of NumPy's": lambda x, y: (x.view(np.ma.MaskedArray), y, 3),
    "bool": lambda x, y: (x > 100, y, 3),
    "signed": lambda x, y: (x.astype(np.int16), y, 3),
    "another byte order": lambda x, y: (x.astype(">f8"), y, 3),
    "columns first": lambda x, y: (np.asfortranarray(x), y, 3),
    "every other row and column": lambda x, y: (
        np.repeat(np.repeat(x, 2, 0), 2, 1)[::2, ::2],
        y,
        3,
    ),
    "a kernel of floats": lambda x, y: (x, y, (3.0, 3.0)),
    "a kernel that is true": lambda x, y: (x, y, True),
    "three sides": lambda x, y: (x, y, (3, 3, 3)),
    "many taps": lambda x, y: (x, x, 11),
    "no rows": lambda x, y: (x, y, (0, 3)),
    "a kernel larger than the image": lambda x, y: (x, y, 99),
    "shapes that do not fit": lambda x, y: (x, y[1:], 3),
    "no image": lambda x, y: (x[0], y, 3),
    "more than a tile": lambda x, y: (np.zeros((1500, 1500)), np.zeros((1498, 1498)), 3),
    "more taps than pixels": lambda x, y: (x[:5, :5], y[:1, :1], 5),
    "not finite": lambda x, y: (np.where(x == x[3, 4], np.nan, x), y, 3),
    "infinite": lambda x, y: (x, np.where(y == y[0, 0], np.inf, y), 3),
    "squares beyond float64": lambda x, y: (x * 1e170, y * 1e170, 3),
    "squares below float64": lambda x, y: (x * 1e-170, y * 1e-170, 3),
    "flat": lambda x, y: (np.ones_like(x), np.ones_like(y), 3),
}


@pytest.mark.parametrize("case", NOT_PLAIN)
def test_what_is_not_plain_is_left_to_the_longer_way(case):
    source, result, _ = pair(np.float64, kernel_shape=(3, 3))
    arguments = NOT_PLAIN[case](source, result)
    assert fit_plain(*arguments) is None

    def answer(estimate):
        try:
            return estimate(*arguments).kernel.tolist()
        except (ValueError, TypeError, SingularFitError) as reason:
            return type(reason), str(reason)

    assert answer(estimate_kernel) == answer(general)


@pytest.mark.parametrize("workers", [0, -1, 1.5, "two"])
def test_workers_are_looked_at(workers):
    source, result, _ = pair()
    with pytest.raises(ValueError, match="workers must be a positive integer"):
        estimate_kernel(source, result, (3, 4), workers=workers)


def test_threads_of_the_environment_are_looked_at():
    script = (
        "import numpy, fastkernel; x = numpy.random.default_rng(0).random((20, 20)); "
        "fastkernel.estimate_kernel(x, x, 3)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"FASTKERNEL_NUM_THREADS": "two"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "FASTKERNEL_NUM_THREADS must be a positive integer, got 'two'" in done.stderr


def test_nothing_is_changed_and_no_pixel_kept():
    source, result, _ = pair(kernel_shape=(3, 3))
    before = source.copy(), result.copy()
    fit = estimate_kernel(source, result, 3)
    assert source.flags.writeable
    assert result.flags.writeable
    assert_array_equal(source, before[0])
    assert_array_equal(result, before[1])
    held = weakref.ref(source)
    del source
    gc.collect()
    assert held() is None
    assert fit.kernel.shape == (3, 3)


def test_answers_do_not_share_memory():
    first = pair(seed=1)
    fit = estimate_kernel(*first[:2], (3, 4))
    kept = fit.kernel.copy(), fit.equations.gram.copy(), fit.covariance.copy()
    estimate_kernel(*pair(seed=2)[:2], (3, 4))
    assert_array_equal(fit.kernel, kept[0])
    assert_array_equal(fit.equations.gram, kept[1])
    assert_array_equal(dataclasses.replace(fit).covariance, kept[2])


def test_threads_do_not_meet():
    pairs = [pair(seed=seed)[:2] for seed in range(6)] * 5
    alone = [estimate_kernel(*images, (3, 4)).kernel for images in pairs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda images: estimate_kernel(*images, (3, 4)).kernel, pairs))
    assert_array_equal(alone, together)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_are_those_of_normal_equations(dtype):
    source, result, _ = pair(dtype)
    _, sums, shape = plain_sums(source, result, (3, 4))
    assert shape == (3, 4)
    expected = normal_equations(source, result, (3, 4))
    found = sums.equations((3, 4))
    assert_array_equal(found.gram, expected.gram)
    assert_array_equal(found.moments, expected.moments)
    assert found.energy == expected.energy
