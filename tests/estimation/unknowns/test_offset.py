"""How far results were moved, planted."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fastkernel import psf
from fastkernel._images.pairs import as_pairs
from fastkernel._machine.run import Run
from fastkernel.estimation.unknowns import correlation
from fastkernel.estimation.unknowns.correlation import correlated
from fastkernel.estimation.unknowns.offset import find_offset
from tests import naive

UNEVEN = np.array([[0.1, 0.2, 0.0], [0.3, 0.1, 0.0], [0.1, 0.1, 0.1]])
SHARP = np.array([[0, -0.5, 0], [-0.5, 3, -0.5], [0, -0.5, 0]])


@pytest.fixture
def picture(rng):
    """What has detail of every size, as photographs do, larger than the frame."""
    noise = np.fft.rfft2(rng.normal(size=(160, 160)))
    down, right = np.fft.fftfreq(160)[:, None], np.fft.rfftfreq(160)
    image = np.fft.irfft2(noise / np.hypot(down, right).clip(1 / 160), (160, 160))
    return 128 + 40 * image / image.std()


def moved_pair(picture, kernel, offset, side=72):
    """A source, and a result whose content is the source's, moved down and to the right."""
    after = naive.filtered(picture, kernel, "same", "mirror")
    (row, col), at = offset, 44
    source = picture[at : at + side, at : at + side]
    return source, after[at - row : at - row + side, at - col : at - col + side]


def found(source, result, shape=None, largest=(7, 7)):
    return find_offset(as_pairs(source, result, None), shape, largest, Run())


@pytest.mark.parametrize("offset", [(9, -6), (-18, 18), (0, 12)])
@pytest.mark.parametrize("kernel", [UNEVEN, SHARP, -SHARP, psf.gaussian(7, 1.5)], ids=str)
def test_offsets_of_every_direction(picture, kernel, offset):
    source, result = moved_pair(picture, kernel, offset)
    place = found(source, np.rint(0.7 * result + 30), kernel.shape)
    assert place.offset == offset
    assert place.sure


@pytest.mark.parametrize("offset", [(9, -6), pytest.param((-18, 18), marks=pytest.mark.jit)])
@pytest.mark.parametrize(
    "kernel",
    [SHARP, *(pytest.param(k, marks=pytest.mark.jit) for k in (UNEVEN, psf.gaussian(5, 1.2)))],
    ids=str,
)
def test_offsets_of_kernels_of_unknown_size(picture, kernel, offset):
    source, result = moved_pair(picture, kernel, offset)
    assert found(source, np.rint(0.7 * result + 30)).offset == offset


def test_noise_is_survived(picture, rng):
    source, result = moved_pair(picture, psf.box(7), (-7, 15))
    place = found(source, result + 3 * rng.normal(size=result.shape), (7, 7))
    assert place.offset == (-7, 15)


@pytest.mark.parametrize("shape", [(3, 3), (5, 5), None])
@pytest.mark.parametrize("kernel", [UNEVEN, SHARP, psf.gaussian(3, 0.7)], ids=str)
def test_what_was_not_moved_stays(picture, kernel, shape):
    place = found(*moved_pair(picture, kernel, (0, 0)), shape)
    assert (place.offset, place.matches) == ((0, 0), True)


@pytest.mark.jit
def test_a_small_move_is_the_kernels_where_its_size_is_free(picture):
    source, result = moved_pair(picture, psf.gaussian(5, 1.0), (1, 0))
    assert found(source, result, None).offset == (0, 0)
    assert found(source, result, (5, 5)).offset == (1, 0)
    # With room for it in the kernel nothing has to be moved.
    assert found(source, result, (7, 7)).offset == (0, 0)


@pytest.mark.jit
def test_a_kernel_on_one_side_is_none_that_was_moved(picture):
    kernel = np.zeros((7, 7))
    kernel[:, 3:] = psf.box((7, 4))
    assert found(*moved_pair(picture, kernel, (0, 0)), None).offset == (0, 0)


def test_strangers_do_not_match(rng):
    source, result = rng.normal(size=(2, 64, 64))
    place = found(source, result, (3, 3))
    assert (place.offset, place.matches, place.sure) == ((0, 0), False, False)
    assert found(np.ones((40, 40)), result[:40, :40], (3, 3)).matches is False


def test_valid_pairs_and_masks(picture, rng):
    source, result = moved_pair(picture, UNEVEN, (8, -5))
    result = np.array(result[1:-1, 1:-1])
    bad = rng.random(result.shape) < 0.02
    result[bad] = 1e9
    images = as_pairs(source, np.ma.array(result, mask=bad), None)
    assert find_offset(images, (3, 3), (7, 7), Run()).offset == (8, -5)


@pytest.mark.jit
def test_channels_are_moved_alike(picture):
    pairs = [moved_pair(np.roll(picture, 30 * i, 0), UNEVEN, (5, 11)) for i in range(3)]
    source, result = (np.stack(part, axis=-1) for part in zip(*pairs, strict=True))
    assert find_offset(as_pairs(source, result, -1), None, (7, 7), Run()).offset == (5, 11)


def test_large_images_are_averaged_first(picture, monkeypatch):
    source, result = moved_pair(picture, psf.gaussian(3, 0.7), (13, -9))
    monkeypatch.setattr(correlation, "_SIDE", 36)
    place = correlated(as_pairs(source, result, None))
    assert place.offset == (13, -9)
    assert_allclose(place.middle, (13, -9), atol=0.5)
