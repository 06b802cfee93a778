"""The size of kernels, planted."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastkernel import SingularFitError, convolve, estimate_kernel, psf, select_kernel_shape
from fastkernel._images.pairs import as_pairs
from fastkernel._machine.run import Run
from fastkernel.estimation.unknowns import held_out, kernel_shape
from tests import naive
from tests.shared import Dataset, photo

JIT, NOISES = pytest.mark.jit, ("noisy", "exact")

KERNELS = {
    (1, 1): np.array([[2.0]]),
    (3, 3): np.array([[-1.0, -2, -1], [-2, 20, -2], [-1, -2, -1]]) / 8,
    (5, 5): psf.gaussian(5, 1.1),
    (3, 6): np.outer([0.2, 0.5, 0.3], [1, 2, 3, 1, 2, 1]) / 10,
    (1, 7): np.full((1, 7), 1 / 7),
    (4, 2): np.array([[1.0, 3], [0, 2], [2, 1], [1, 2]]) / 12,
}


@pytest.fixture(scope="module")
def picture():
    return photo()[100:164, 150:218]


@pytest.mark.parametrize("shape", KERNELS, ids=str)
@pytest.mark.parametrize("noise", ["rounded", *(pytest.param(n, marks=JIT) for n in NOISES)])
def test_finds_the_size(shape, noise, picture, rng):
    result = naive.convolve(picture, KERNELS[shape], "same", "mirror")
    if noise == "rounded":
        result = np.rint(result)
    elif noise == "noisy":
        result += 0.5 * rng.standard_normal(result.shape)
    selection = select_kernel_shape(picture, result, 7)
    assert selection.shape == shape
    assert selection.at_limit == (7 in shape)
    assert selection.gain > 1


@pytest.mark.jit
@pytest.mark.parametrize(
    ("name", "mode"), [("camera", "same"), ("moon", "valid"), ("coins", "same")]
)
def test_is_right_on_photographs(name, mode, rng):
    image = photo(name)[:200, :240]
    for size in (3, 8, 13):
        for kernel in (psf.box(size), psf.gaussian(size, size / 5), rng.random((size, size))):
            result = np.rint(convolve(image, kernel / kernel.sum(), mode, "mirror"))
            selection = select_kernel_shape(image, result, 13)
            # Or the smallest that explains to the rounding, as of a Gaussian's faint rim.
            rms = selection.curve[selection.shape]
            small = max(selection.shape) <= size and rms < 1.01 * math.sqrt(1 / 12)
            assert selection.shape == kernel.shape or small


@pytest.mark.parametrize(
    ("mode", "largest"),
    [
        ("valid", (4, 7)),
        *(pytest.param("valid", k, marks=JIT) for k in ((5, 9), (7, 9))),
        *(pytest.param("full", k, marks=JIT) for k in ((4, 7), (5, 9), (7, 9))),
    ],
)
def test_a_kernel_smaller_than_the_shapes_tell(mode, largest, picture):
    kernel = np.pad(KERNELS[3, 6], ((1, 1), (2, 1)))
    result = naive.convolve(picture, kernel, mode)
    assert select_kernel_shape(picture, result, largest).shape == (3, 6)


@pytest.mark.parametrize("boundary", ["circular", pytest.param("replicate", marks=JIT)])
def test_border_rules_let_every_pixel_count(boundary, picture):
    result = naive.convolve(picture, KERNELS[3, 3], "same", boundary)
    selection = select_kernel_shape(picture, result, 5, boundary=boundary)
    assert (selection.shape, selection.n_pixels) == ((3, 3), picture.size)
    assert select_kernel_shape(picture, result, 5).n_pixels == 60 * 64


def test_masks_and_weights_have_their_say(picture, rng):
    result = naive.convolve(picture, KERNELS[3, 3], "same", "mirror")
    bad = rng.random(result.shape) < 0.02
    hurt = np.where(bad, np.nan, result)
    assert select_kernel_shape(picture, hurt, 5, mask=bad).shape == (3, 3)
    assert select_kernel_shape(picture, hurt, 5, nan_policy="omit").shape == (3, 3)
    assert select_kernel_shape(picture, np.ma.array(hurt, mask=bad), 5).shape == (3, 3)
    weights = np.where(np.arange(64)[:, None] < 30, 1.0, 0.0) * rng.uniform(1, 2, result.shape)
    lost = np.where(weights > 0, result, 0.0)
    assert select_kernel_shape(picture, lost, 5, weights=weights).shape == (3, 3)


def test_clipped_pixels_are_left_out(picture):
    exact = naive.convolve(picture, np.pad(KERNELS[3, 3], 0), "same", "mirror")
    clipped = np.rint(exact).clip(0, 255).astype(np.uint8)
    selection = select_kernel_shape(picture, clipped, 7)
    assert selection.shape == (3, 3)
    inside = naive.inside(clipped, (7, 7))
    assert selection.left_out == pytest.approx(np.isin(inside, (0, 255)).mean())
    assert "left_out=" in repr(selection)
    assert "may be clipped" in selection._repr_html_()


@pytest.mark.jit
def test_channels_and_sequences_share_it(picture, rng):
    source = np.stack([picture, picture[::-1], picture[:, ::-1]], axis=-1)
    result = np.stack(
        [naive.convolve(source[..., i], KERNELS[4, 2], "same", "mirror") for i in range(3)], axis=-1
    )
    noisy = result + 2 * rng.standard_normal(result.shape)
    assert select_kernel_shape(source, noisy, 5, channel_axis=-1).shape == (4, 2)
    lists = [list(np.moveaxis(images, -1, 0)) for images in (source, noisy)]
    assert select_kernel_shape(*lists, 5).shape == (4, 2)


def test_the_limit_is_told(picture):
    result = naive.convolve(picture, psf.box(7), "same", "mirror")
    selection = select_kernel_shape(picture, result, 5)
    assert selection.shape == selection.largest == (5, 5)
    assert selection.at_limit
    assert "at_limit=True" in repr(selection)
    assert "largest tried" in selection._repr_html_()
    assert select_kernel_shape(picture, picture, (1, 3)).at_limit is False


def test_the_curve_is_what_is_left_of_strips_held_out(picture, rng):
    result = naive.convolve(picture, KERNELS[5, 5]) + rng.standard_normal((60, 64))
    selection = select_kernel_shape(picture, result, 5)
    # Each shape by dense least squares over the same pixels, all strips but one at a time.
    for shape in ((3, 3), (5, 5)):
        taps = np.arange(25).reshape(5, 5)
        cut = (5 - shape[0]) // 2
        columns = naive.design_matrix(picture, (5, 5))[
            :, taps[cut : 5 - cut, cut : 5 - cut].ravel()
        ]
        energy, pixels = 0.0, np.column_stack([columns, result.ravel()])
        strips = [slice(60 * i // 8 * 64, 60 * (i + 1) // 8 * 64) for i in range(8)]
        for part in strips:
            pixels[part] -= pixels[part].mean(axis=0)
        for part in strips:
            others = np.delete(pixels, part, axis=0)
            kernel = np.linalg.lstsq(others[:, :-1], others[:, -1])[0]
            energy += np.sum((pixels[part, -1] - pixels[part, :-1] @ kernel) ** 2)
        assert selection.curve[shape] == pytest.approx(math.sqrt(energy / result.size), rel=1e-9)


@pytest.mark.jit
def test_images_that_are_read_by_slices(picture):
    result = np.rint(naive.convolve(picture, KERNELS[3, 3], "same", "mirror"))
    images = Dataset(result)
    found = select_kernel_shape(picture, images, 5)
    assert found.curve == select_kernel_shape(picture, result, 5).curve
    # Once for the kernel and what stands beside it, whatever the number of strips.
    assert images.reads.max() == 1
    assert images.largest < result.size / 4


@pytest.mark.jit
def test_the_answer_does_not_depend_on_workers(picture):
    result = np.rint(naive.convolve(picture, KERNELS[3, 6], "same", "mirror"))
    one, two = (select_kernel_shape(picture, result, 7, workers=n) for n in (1, 2))
    assert_array_equal(list(one.curve.values()), list(two.curve.values()))


def test_looks(picture):
    result = naive.convolve(picture, KERNELS[3, 3], "same", "mirror")
    selection = select_kernel_shape(picture, np.rint(result), 5)
    text = repr(selection)
    assert text.startswith("KernelShapeSelection(shape=(3, 3), largest=(5, 5), gain=")
    assert (
        selection.gain
        == min(rms for shape, rms in selection.curve.items() if shape != (3, 3) and max(shape) <= 3)
        / selection.curve[3, 3]
    )
    pytest.importorskip("matplotlib")
    assert "<img" in selection._repr_html_()
    both = selection.plot().axes[0].lines[0]
    assert_allclose(both.get_ydata(), [selection.curve[i, i] for i in range(1, 6)])


def test_without_matplotlib_the_table_is_left(picture, monkeypatch):
    selection = select_kernel_shape(picture, picture, 3)

    def missing(*_):
        raise ImportError

    monkeypatch.setattr(kernel_shape, "new_figure", missing)
    assert "<img" not in selection._repr_html_()
    assert "1x1" in selection._repr_html_()


def test_large_kernels_take_fewer_strips(picture, monkeypatch):
    monkeypatch.setattr(held_out, "_MOST_BYTES", 8 * 25 * 25 * 5)
    pairs = as_pairs(picture, picture, None)
    assert kernel_shape.selected(pairs, (5, 5), None, Run()).shape == (1, 1)


def test_refusals(picture):
    with pytest.raises(ValueError, match=r"at most 2048 taps, got \(50, 50\)"):
        select_kernel_shape(picture, picture, 50)
    with pytest.raises(ValueError, match="more than two pixels for every tap"):
        select_kernel_shape(picture[:12, :12], picture[:12, :12], 9)
    with pytest.raises(ValueError, match="along both axes"):
        select_kernel_shape(picture, np.zeros((50, 100)), 5)
    with pytest.raises(SingularFitError, match="the source is flat"):
        select_kernel_shape(np.ones((40, 40)), picture[:40, :40], 3)


@pytest.mark.jit
@pytest.mark.parametrize("mode", ["same", "valid"])
def test_estimates_find_it(mode, picture):
    kernel = KERNELS[3, 3]
    result = naive.convolve(picture, kernel, mode)
    assert_allclose(estimate_kernel(picture, result, "auto").kernel, kernel, rtol=0, atol=1e-9)
