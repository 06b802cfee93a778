"""Arrays that are read by slices: every pixel once, never all at a time."""

import naive
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse
from shared import Dataset

from fastkernel import estimate_kernel, normal_equations
from fastkernel._images import blocks
from fastkernel._images.lazy import LazyImage, is_lazy, read


@pytest.mark.parametrize("rule", naive.PAD_MODES)
@pytest.mark.parametrize(
    ("origin", "shape"), [((0, 0), (5, 6)), ((-3, 2), (9, 4)), ((-8, -9), (20, 30))]
)
def test_read_is_the_endless_image(rule, origin, shape, rng):
    image = rng.integers(1, 100, (5, 6)).astype(np.int16)
    endless = np.pad(image, 40, naive.PAD_MODES[rule])
    data = Dataset(image)
    got = read(LazyImage(data), origin, shape, rule)
    assert_array_equal(got, endless[40 + origin[0] :, 40 + origin[1] :][: shape[0], : shape[1]])
    assert got.dtype == image.dtype
    assert data.reads.max() == 1


@pytest.mark.parametrize("which", ["both", "source", "result"])
@pytest.mark.parametrize(
    ("mode", "boundary"),
    [("valid", None), ("same", None), ("full", None)]
    + [("same", rule) for rule in naive.PAD_MODES],
)
def test_equations_are_those_of_the_arrays(which, mode, boundary, rng, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_SHAPE", (4, 10))
    image = rng.integers(0, 256, (37, 29)).astype(np.uint8)
    result = naive.convolve(image, np.ones((3, 4)), mode, boundary or "zero").astype(np.uint8)
    want = normal_equations(image, result, (3, 4), boundary=boundary)
    x = Dataset(image) if which != "result" else image
    y = Dataset(result) if which != "source" else result
    got = normal_equations(x, y, (3, 4), boundary=boundary)
    assert_array_equal(got.gram, want.gram)
    assert_array_equal(got.moments, want.moments)
    assert (got.energy, got.n_pixels) == (want.energy, want.n_pixels)


def test_pixels_are_read_once_and_block_by_block(rng, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_SHAPE", (16, 1000))
    x = Dataset(rng.integers(0, 256, (200, 90)).astype(np.uint8))
    y = Dataset(x.array[4:, 4:])
    steps = []
    fit = estimate_kernel(x, y, 5, callback=lambda *step: steps.append(step))
    assert x.reads.max() == y.reads.max() == 1
    assert x.reads.min() == y.reads.min() == 1
    assert x.largest <= 20 * 90
    assert fit.kernel[0, 0] == pytest.approx(1)
    assert steps == sorted(steps)
    assert steps[-1] == (196 * 86, 196 * 86)


def test_refined_fits_read_again(rng):
    image = rng.random((60, 50))
    fit = estimate_kernel(Dataset(image), Dataset(image[2:, 2:]), 3)
    assert fit.residual_rms < 1e-13


def test_a_bad_pixel_is_named(rng):
    image = rng.random((300, 20))
    image[270, 3] = np.nan
    with pytest.raises(ValueError, match=r"source must be finite, got nan at index \(270, 3\)"):
        estimate_kernel(Dataset(image), image, 3)


def test_what_counts_as_lazy():
    image = np.zeros((3, 3))
    assert is_lazy(Dataset(image))
    assert not is_lazy(Dataset(np.zeros((3, 3, 3))))
    for value in (image, image.tolist(), 3, memoryview(image), "text", sparse.csr_array(image)):
        assert not is_lazy(value)


def test_errors_are_those_of_arrays():
    with pytest.raises(TypeError, match="source must hold real numbers, got dtype complex128"):
        estimate_kernel(Dataset(np.zeros((4, 4), complex)), np.zeros((4, 4)), 3)
    with pytest.raises(ValueError, match="source must have at least one pixel"):
        estimate_kernel(Dataset(np.zeros((0, 4))), np.zeros((4, 4)), 3)


def test_predict_takes_them_too(rng):
    class Whole(Dataset):
        def __array__(self, *args, **kwargs):
            return self.array

    image = rng.random((20, 20))
    fit = estimate_kernel(image, image[2:, 2:], 3)
    assert_array_equal(fit.predict(Whole(image), mode="full"), fit.predict(image, mode="full"))
