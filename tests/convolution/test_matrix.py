"""Both matrices equal their definitions entry by entry, for every mode and border rule."""

import itertools

import naive
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import ndimage
from scipy.sparse import coo_array, csr_array
from shared import JIT

from fastkernel._images import checks as _checks
from fastkernel.convolution import matrix as module
from fastkernel.convolution.matrix import convolution_matrix, design_matrix

SIDES = range(1, 7) if JIT else (1, 2, 4)
MODES = ("full", "same", "valid")
RULES = tuple(naive.PAD_MODES)


def extended(image, kernel_shape, mode, rule):
    """`naive.extended`, whose "full" knows no rule but zeros."""
    if mode == "full" and rule != "zero":
        pad = [(n - 1, n - 1) for n in kernel_shape]
        return np.pad(image, pad, naive.PAD_MODES[rule])
    return naive.extended(image, kernel_shape, mode, rule)


def numbered(image_shape, kernel_shape, mode, rule):
    """Which pixel, counted from 1, each tap of each output meets; 0 where there is none."""
    pixels = np.arange(1, np.prod(image_shape) + 1).reshape(image_shape)
    return naive.design_matrix(extended(pixels, kernel_shape, mode, rule), kernel_shape)


def definition(met, kernel, image_shape):
    """Dense matrix, and how many taps meet at each entry."""
    shape = len(met), np.prod(image_shape) + 1
    matrix, taps = np.zeros(shape), np.zeros(shape, int)
    rows = np.arange(len(met))[:, None]
    np.add.at(matrix, (rows, met), kernel.ravel())
    np.add.at(taps, (rows, met), 1)
    return matrix[:, 1:], taps[:, 1:]


def cases(mode, sides=SIDES):
    for m, n, p, q in itertools.product(sides, repeat=4):
        if mode != "valid" or (p <= m and q <= n):
            yield (m, n), (p, q)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("mode", MODES)
def test_every_small_shape(mode, rule, rng):
    for image_shape, kernel_shape in cases(mode):
        kernel = rng.integers(-9, 10, kernel_shape)
        image = rng.integers(-9, 10, image_shape).astype(float)
        met = numbered(image_shape, kernel_shape, mode, rule)
        want, taps = definition(met, kernel, image_shape)
        got = convolution_matrix(kernel, image_shape, mode, rule)
        assert got.shape == want.shape
        assert got.has_canonical_format
        assert_array_equal(np.diff(got.indptr), np.count_nonzero(taps, axis=1))
        rows, cols = np.nonzero(taps)
        assert_array_equal(got.indices, cols)
        assert_array_equal(got.data, want[rows, cols])
        x = design_matrix(image, kernel_shape, mode, rule)
        assert_array_equal(x, np.append(0.0, image)[met])
        assert_array_equal(got @ image.ravel(), x @ kernel.ravel())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("mode", MODES)
def test_both_are_the_convolution(mode, rule, rng):
    for m, n, p, q in [(6, 7, 3, 3), (7, 5, 4, 2), (5, 8, 1, 5), (3, 3, 3, 2), (2, 3, 7, 8)]:
        if mode == "valid" and p > m:
            continue
        image, kernel = rng.integers(-9, 10, (m, n)), rng.integers(-9, 10, (p, q))
        larger = extended(image, (p, q), mode, rule)
        want = naive.convolve(larger, kernel).ravel()
        assert_array_equal(convolution_matrix(kernel, (m, n), mode, rule) @ image.ravel(), want)
        assert_array_equal(design_matrix(image, (p, q), mode, rule) @ kernel.ravel(), want)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kernel_shape", [(3, 5), (5, 3), (9, 7)])
def test_same_is_that_of_scipy(kernel_shape, rule, rng):
    image, kernel = rng.integers(-9, 10, (6, 8)), rng.integers(-9, 10, kernel_shape)
    names = {"zero": "constant", "circular": "wrap", "replicate": "nearest", "symmetric": "reflect"}
    want = ndimage.convolve(image, kernel, mode=names.get(rule, rule)).ravel()
    matrix = convolution_matrix(kernel, image.shape, "same", rule)
    assert_array_equal(matrix @ image.ravel(), want)


@pytest.mark.jit
@pytest.mark.parametrize("rule", RULES)
def test_larger_shapes(rule, rng):
    for (m, n), (p, q) in [((40, 31), (7, 6)), ((3, 200), (5, 9)), ((200, 1), (4, 31))]:
        kernel = rng.integers(-9, 10, (p, q))
        image = rng.integers(-9, 10, (m, n))
        for mode in ("full", "same"):
            want = naive.convolve(extended(image, (p, q), mode, rule), kernel).ravel()
            got = convolution_matrix(kernel, (m, n), mode, rule)
            assert_array_equal(got @ image.ravel(), want)
            assert_array_equal(design_matrix(image, (p, q), mode, rule) @ kernel.ravel(), want)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["f4", "f8", "u1", "?", "f2", ">f8", ">f4", "g"])
def test_dtypes(dtype, mode, rng):
    values = rng.integers(0, 2, (4, 5)).astype(dtype)
    wanted = np.float32 if np.dtype(dtype).type is np.float32 else np.float64
    got = convolution_matrix(values[:3, :2], (4, 5), mode, "mirror")
    assert got.dtype == wanted
    assert got.indices.dtype == got.indptr.dtype == np.int32
    want = convolution_matrix(values[:3, :2].astype(float), (4, 5), mode, "mirror")
    assert_array_equal(got.toarray(), want.toarray())
    x = design_matrix(values, (3, 2), mode, "mirror")
    assert x.dtype == wanted
    assert_array_equal(x, design_matrix(values.astype(float), (3, 2), mode, "mirror"))


def test_duplicates_are_summed_before_rounding():
    """Five taps on one pixel, in float32: each rounded on its own would be lost."""
    kernel = np.array([[2.0**24, 1, 1, 1, 1]], np.float32)
    for taps, shape in ((kernel, (3, 1)), (kernel.T, (1, 3))):
        got = convolution_matrix(taps, shape, "same", "replicate")
        assert_array_equal(got.data, np.float32(2**24 + 4))


def test_formats(rng):
    kernel = rng.integers(-9, 10, (3, 4))
    for mode, rule in itertools.product(MODES, RULES):
        csr, coo, dense = (
            convolution_matrix(kernel, (4, 5), mode, rule, format=name)
            for name in ("csr", "coo", "dense")
        )
        assert (type(csr), type(coo), type(dense)) == (csr_array, coo_array, np.ndarray)
        assert coo.has_canonical_format
        assert csr.has_sorted_indices
        assert_array_equal(csr.toarray(), dense)
        assert_array_equal(coo.toarray(), dense)
        fresh = csr_array((csr.data, csr.indices, csr.indptr), shape=csr.shape)
        assert fresh.has_canonical_format
        fresh.check_format(full_check=True)
        assert_array_equal((csr.T @ csr).toarray(), dense.T @ dense)


def test_zero_taps_keep_their_entries():
    got = convolution_matrix(np.zeros((2, 2)), (3, 3), "valid")
    assert got.nnz == 16
    assert got.count_nonzero() == 0


@pytest.mark.parametrize("workers", [1, 2, 3, None])
def test_workers_change_no_bit(workers, rng, monkeypatch):
    kernel, image = rng.standard_normal((3, 4)), rng.standard_normal((9, 8))
    kernel.flags.writeable = image.flags.writeable = False
    arguments = [(mode, rule) for mode in MODES for rule in RULES]
    matrices = [convolution_matrix(kernel, (9, 8), *a, workers=1) for a in arguments]
    designs = [design_matrix(image, (3, 4), *a, workers=1) for a in arguments]
    monkeypatch.setattr(module, "JOB_ENTRIES", 40)
    for a, matrix, design in zip(arguments, matrices, designs, strict=True):
        got = convolution_matrix(kernel, (9, 8), *a, workers=workers)
        for part in ("data", "indices", "indptr"):
            assert_array_equal(getattr(got, part), getattr(matrix, part))
        assert_array_equal(design_matrix(image, (3, 4), *a, workers=workers), design)


@pytest.mark.parametrize("values", [lambda x: x[::-1, ::-1], np.asfortranarray, np.ndarray.tolist])
def test_layouts(values, rng):
    image = rng.standard_normal((6, 5))
    given = values(image)
    same = np.asarray(given)
    assert_array_equal(design_matrix(given, 2), naive.design_matrix(same, (2, 2)))
    got = convolution_matrix(given, (7, 7), format="dense")
    assert_array_equal(got, convolution_matrix(same.copy(), (7, 7), format="dense"))


def test_pixels_are_copied_as_they_are():
    image = np.array([[np.nan, 1.0], [np.inf, -0.0]])
    assert_array_equal(design_matrix(image, (1, 1)), image.reshape(4, 1))


@pytest.mark.parametrize("size", [46_340, 46_341, 60_000, 10**5])
def test_indices_are_wide_where_they_must_be(size):
    """Counted, nothing allocated: the columns pass 2**31 from 46341 squared on."""
    axes = module._axes((1, 1), (size, size), "same", "zero")
    shape, entries, index = module._plan(axes, (size, size))
    assert (shape, entries) == ((size**2, size**2), size**2)
    assert index == (np.int32 if size**2 < 2**31 else np.int64)


def test_entries_are_counted_past_32_bits():
    axes = module._axes((9, 9), (8192, 8192), "valid", "zero")
    shape, entries, index = module._plan(axes, (8192, 8192))
    assert (shape, entries, index) == ((8184**2, 8192**2), 8184**2 * 81, np.int64)
    axes = module._axes((9, 9), (8192, 8192), "full", "zero")
    assert module._plan(axes, (8192, 8192))[1] == 8192**2 * 81


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("mode", MODES)
def test_wide_indices_hold_the_same_matrix(mode, rule, rng, monkeypatch):
    kernel = rng.integers(-9, 10, (3, 4))
    want = convolution_matrix(kernel, (4, 5), mode, rule)
    monkeypatch.setattr(module, "INT32_MAX", 3)
    got = convolution_matrix(kernel, (4, 5), mode, rule)
    assert got.indices.dtype == got.indptr.dtype == np.int64
    assert_array_equal(got.toarray(), want.toarray())


def test_memory_is_counted_before_it_is_taken(monkeypatch):
    def never(*arguments):
        raise AssertionError

    monkeypatch.setattr(_checks, "usable_memory", lambda: 2.0**30)
    monkeypatch.setattr(module, "_filled", never)
    entries = 4096**2 * 49
    shape = (4102, 4102)
    for name, more in (("csr", 0), ("coo", 4 * entries), ("dense", 4102**2 * 4096**2 * 8)):
        needed = entries * 12 + (4096**2 + 1) * 4 + more
        with pytest.raises(
            MemoryError, match=rf"matrix would take {needed} bytes .* convolution_operator needs"
        ):
            convolution_matrix(np.ones((7, 7)), shape, "valid", format=name)
    with pytest.raises(MemoryError, match=r"design matrix would take \d+ bytes .* \(1\.0 GiB\)"):
        design_matrix(np.zeros((2000, 2000), np.uint8), (7, 7))
    with pytest.raises(MemoryError, match=r"border's index map would take .* convolve needs none"):
        convolution_matrix(np.ones((1, 100_000)), (1, 10))


KERNEL = np.ones((3, 3))
NAN = np.array([[1.0, np.nan]])
MASKED = np.ma.array(KERNEL, mask=np.eye(3))

MATRIX_CASES = {
    "complex kernel": ({"kernel": KERNEL * 1j}, TypeError, r"kernel must hold real numbers, got"),
    "object kernel": ({"kernel": KERNEL.astype(object)}, TypeError, r"kernel must hold real"),
    "masked kernel": ({"kernel": MASKED}, TypeError, r"kernel must not be masked, got a mask"),
    "a line": ({"kernel": [1, 2]}, ValueError, r"kernel must have 2 dimensions, .* shape \(2,\)"),
    "NaN": ({"kernel": NAN}, ValueError, r"kernel must be finite, got nan at index \(0, 1\)"),
    "one size": (
        {"image_shape": 8},
        ValueError,
        r"image_shape must be two positive integers \(rows, cols\), got 8",
    ),
    "no rows": ({"image_shape": (0, 4)}, ValueError, r"image_shape must be .* got \(0, 4\)"),
    "fractions": ({"image_shape": (2.0, 4)}, ValueError, r"image_shape must .* got \(2\.0, 4\)"),
    "mode": (
        {"mode": "whole"},
        ValueError,
        r"mode must be one of 'full', 'same', 'valid', got 'whole'",
    ),
    "boundary": ({"boundary": "reflect"}, ValueError, r"say 'symmetric' .* or 'mirror'"),
    "format": (
        {"format": "csc"},
        ValueError,
        r"format must be one of 'csr', 'coo', 'dense', got 'csc'",
    ),
    "workers": ({"workers": 0}, ValueError, r"workers must be a positive integer"),
    "larger kernel": (
        {"mode": "valid", "image_shape": (2, 9)},
        ValueError,
        r"kernel must fit inside the image for mode='valid': got \(3, 3\) for image \(2, 9\); "
        r"use at most \(2, 9\), or mode='same' or 'full'",
    ),
}


@pytest.mark.parametrize("case", MATRIX_CASES)
def test_refusals_of_the_convolution_matrix(case):
    changes, error, message = MATRIX_CASES[case]
    with pytest.raises(error, match=message):
        convolution_matrix(**{"kernel": KERNEL, "image_shape": (8, 9), **changes})


DESIGN_CASES = {
    "complex image": ({"image": KERNEL * 1j}, TypeError, r"image must hold real numbers"),
    "empty image": ({"image": np.ones((0, 3))}, ValueError, r"image must have at least one pixel"),
    "shape": ({"kernel_shape": (2, 0)}, ValueError, r"kernel_shape must be two positive integers"),
    "mode": ({"mode": None}, ValueError, r"mode must be one of .*, got None"),
    "boundary": ({"boundary": "no"}, ValueError, r"boundary must be one of zero, .* got 'no'"),
    "workers": ({"workers": 1.5}, ValueError, r"workers must be a positive integer"),
    "larger kernel": (
        {"kernel_shape": (2, 4)},
        ValueError,
        r"kernel_shape must fit inside the image for mode='valid': got \(2, 4\) for image \(3, 3\)",
    ),
}


@pytest.mark.parametrize("case", DESIGN_CASES)
def test_refusals_of_the_design_matrix(case):
    changes, error, message = DESIGN_CASES[case]
    with pytest.raises(error, match=message):
        design_matrix(**{"image": KERNEL, "kernel_shape": (2, 2), **changes})
