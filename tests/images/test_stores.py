"""Stores of chunks: each is decoded once, but where a halo needs it again."""

from itertools import pairwise

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from stores import Store

from fastkernel import estimate_kernel, normal_equations, residual_equations
from fastkernel._images import blocks
from fastkernel._images.blocks import Strip
from fastkernel._images.lazy import LazyImage, chunks_of

# What is read and written, which is the same whatever computes.
pytestmark = pytest.mark.jit

CHUNKS = [(256, 200), (64, 900), (7, 5), (1000, 900), (300, 1), (5000, 5000)]
BORDERS = [None, *naive.PAD_MODES]


def lookups(size, chunk, edges, before, more, rule):
    """How many strips of a line of places need pixels of every chunk."""
    reach = before + more
    if rule is None or rule == "zero":
        place = np.pad(np.arange(size), reach, constant_values=-1)
    else:
        place = np.pad(np.arange(size), reach, naive.PAD_MODES[rule])
    count = np.zeros(-(-size // chunk), int)
    for start, stop in pairwise(edges):
        needed = place[reach + start - before : reach + stop - before + more]
        count[np.unique(needed[needed >= 0] // chunk)] += 1
    return count


@pytest.mark.jit
@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("boundary", BORDERS)
def test_every_chunk_is_decoded_once(chunks, boundary, rng):
    image = rng.integers(0, 256, (1000, 900)).astype(np.uint8)
    result = np.roll(image, (1, 2), (0, 1))
    source, target = Store(image, chunks), Store(result, chunks)
    got = normal_equations(source, target, (5, 4), boundary=boundary, workers=2)
    assert target.decodes.max() == 1
    # One end of the image continues the other, in rows that are no longer held.
    again = 1 + (boundary == "circular" and chunks[0] < 1000)
    assert source.decodes.max() <= again
    assert source.decodes[1:-1].max(initial=0) <= 1
    want = normal_equations(image, result, (5, 4), boundary=boundary)
    assert_array_equal(got.gram, want.gram)
    assert_array_equal(got.moments, want.moments)
    assert (got.energy, got.n_pixels) == (want.energy, want.n_pixels)


@pytest.mark.parametrize("boundary", BORDERS)
@pytest.mark.parametrize("chunks", [(20, 17), (64, 9), (7, 5)])
def test_only_halos_of_strips_are_decoded_again(chunks, boundary, rng, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_SHAPE", (16, 1))
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 16 * 40)
    image = rng.integers(0, 256, (93, 110)).astype(np.uint8)
    result = rng.integers(0, 256, (93, 110)).astype(np.uint8)
    source, target = Store(image, chunks), Store(result, chunks)
    shape, left = (3, 8), 4  # columns that are needed before a pixel's own
    got = normal_equations(source, target, shape, boundary=boundary, workers=2)
    want = normal_equations(image, result, shape, boundary=boundary)
    for name in ("gram", "moments", "energy"):
        assert_array_equal(getattr(got, name), getattr(want, name))
    # Strips end where chunks of the result do.
    step = blocks.block_shape(chunks, 1, 2 * shape[0])[1]
    before, first, width = (left, 0, 110) if boundary else (0, left, 110 - 7)
    edges = [0, *range(step - first, width, step), width]
    across = lookups(110, chunks[1], edges, before, 7, boundary)
    assert (source.decodes[2:-2] <= across).all()
    assert target.decodes.max() == 1
    ends = 1 + (boundary == "circular")
    assert (source.decodes <= ends * across).all()
    assert source.decodes.max() <= ends * (2 + -(-7 // chunks[1]))


def test_chunks_of_two_images_need_not_agree(rng, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_SHAPE", (16, 8192))
    image = rng.integers(0, 256, (203, 180)).astype(np.uint8)
    result = rng.integers(0, 256, (199, 176)).astype(np.uint8)
    source, target = Store(image, (60, 50)), Store(result, (33, 41))
    got = normal_equations(source, target, 5)
    assert_array_equal(got.gram, normal_equations(image, result, 5).gram)
    for store in (source, target):
        assert store.decodes.max() == store.decodes.min() == 1


@pytest.mark.parametrize("background", [None, 0, 2])
def test_a_background_takes_no_second_pass(background, rng, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_SHAPE", (16, 8192))
    image = rng.random((130, 90))
    result = naive.filtered(image, np.ones((3, 3)) / 9, "same", "mirror") + 5
    source, target = Store(image, (20, 30)), Store(result, (20, 30))
    steps = []
    got = normal_equations(
        source,
        target,
        3,
        boundary="mirror",
        background=background,
        callback=lambda *step: steps.append(step),
    )
    assert source.decodes.max() == target.decodes.max() == 1
    want = normal_equations(image, result, 3, boundary="mirror", background=background)
    assert_allclose(got.gram, want.gram, rtol=0, atol=1e-13 * np.abs(want.gram).max())
    assert_allclose(got.moments, want.moments, rtol=0, atol=1e-12 * np.abs(want.moments).max())
    assert steps == sorted(steps)
    assert steps[-1] == (130 * 90, 130 * 90)


@pytest.mark.parametrize("background", [None, 2.0, [[2.0, 1.0], [3.0, 0.0]]])
def test_a_residual_pass_decodes_once(background, rng, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_SHAPE", (16, 8192))
    image, result = rng.random((2, 90, 75))
    kernel = rng.random((3, 4))
    options = {} if background is None else {"background": background, "within": ((5, 6), (99, 99))}
    source, target = Store(image, (20, 30)), Store(result, (20, 30))
    got = residual_equations(source, target, kernel, **options)
    assert source.decodes.max() == target.decodes.max() == 1
    want = residual_equations(image, result, kernel, **options)
    assert_allclose(got.moments, want.moments, rtol=1e-12)
    assert got.energy == pytest.approx(want.energy, rel=1e-13)
    if background is not None:
        assert_allclose(got.background.moments, want.background.moments, rtol=1e-11, atol=1e-11)


@pytest.mark.jit
def test_estimate_kernel_decodes_once(rng):
    kernel = rng.random((5, 4))
    image = rng.integers(0, 256, (1000, 900)).astype(np.uint8)
    result = naive.filtered(image, kernel / kernel.sum(), "same", "zero").round().astype(np.uint8)
    source, target = Store(image, (256, 200)), Store(result, (256, 200))
    fit = estimate_kernel(source, target, (5, 4), boundary="zero", workers=1)
    assert source.decodes.max() == target.decodes.max() == 1
    assert_allclose(fit.kernel, kernel / kernel.sum(), atol=1e-4)
    two = estimate_kernel(source, target, (5, 4), boundary="zero", workers=2)
    assert_array_equal(fit.kernel, two.kernel)


def test_memory_is_bounded_by_blocks(rng, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_SHAPE", (16, 1))
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 20 * 60)
    image = rng.integers(0, 256, (400, 200)).astype(np.uint8)
    source, target = Store(image, (20, 10)), Store(image, (20, 10))
    normal_equations(source, target, 3)
    assert target.largest <= 20 * 60
    # A halo reads on to the end of a chunk.
    assert source.largest <= 40 * 62


def test_a_strip_is_the_endless_image(rng):
    image = rng.integers(1, 100, (30, 12)).astype(np.int16)
    for rule in naive.PAD_MODES:
        endless = np.pad(image, 40, naive.PAD_MODES[rule])
        strip = Strip(LazyImage(Store(image, (7, 5))), -6, 25, rule)
        for start, stop in ((-9, -4), (-4, 8), (8, 9), (9, 31), (31, 44)):
            got = strip.rows(start, stop, 5)
            assert_array_equal(got, endless[40 + start : 40 + stop, 34:59])
            assert got.dtype == image.dtype


def test_shapes_of_blocks():
    for chunks, itemsize, least, shape in (
        ((1, 1), 8, 1, (256, 8192)),
        ((1, 1), 8, 300, (300, 8192)),
        ((1024, 1024), 1, 1, (1024, 32 * 1024)),
        ((100, 1000), 4, 1, (300, 27_000)),
        ((4096, 4096), 8, 1, (4096, 8192)),
        ((1, 5000), 2, 1, (256, 65_000)),
        ((100_000, 1), 8, 1, (100_000, 41)),
    ):
        assert blocks.block_shape(chunks, itemsize, least) == shape


def test_what_chunks_are_told():
    array = np.zeros((30, 20))
    assert chunks_of(Store(array, (7, 5))) == (7, 5)
    assert chunks_of(Store(array, (70, 50))) == (30, 20)
    for chunks in (None, (0, 0), ((10, 20), (20,)), "auto", 5, (3, 4, 5)):
        assert chunks_of(Store(array, chunks, grid=(30, 20))) == (1, 1)


@pytest.mark.parametrize("boundary", BORDERS)
@pytest.mark.parametrize(("name", "place"), [("source", (275, 60)), ("result", (270, 72))])
def test_a_bad_pixel_is_named_in_the_whole_image(boundary, name, place, rng, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_SHAPE", (16, 1))
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 16 * 40)
    images = dict(zip(("source", "result"), rng.random((2, 280, 75)), strict=True))
    images[name][place] = images[name][place[0] + 3, 2] = np.nan
    stores = [Store(part, (20, 10)) for part in images.values()]
    match = rf"{name} must be finite, got nan at index \({place[0]}, {place[1]}\)"
    for background in (None, 1):
        with pytest.raises(ValueError, match=match):
            normal_equations(*stores, 3, boundary=boundary, background=background)
    with pytest.raises(ValueError, match=match):
        residual_equations(*stores, np.ones((3, 3)), boundary=boundary)
    assert max(store.largest for store in stores) <= 256 * 75
