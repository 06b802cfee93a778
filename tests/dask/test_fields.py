import numpy as np
import pytest
import varying

import fastkernel
from fastkernel import SingularFitError
from fastkernel._images.pairs import held
from fastkernel._images.usable import PixelRules
from fastkernel._machine.run import Run
from fastkernel.estimation.fields.correction import PairReader
from fastkernel.estimation.fields.field_sums import field_sums
from fastkernel.estimation.fields.whole_sums import sums_are_whole, whole_sums
from fastkernel.estimation.problem import problem_of

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")
cluster = pytest.importorskip("fastkernel.dask")
fields = pytest.importorskip("fastkernel.dask.fields")

SHAPE, TILE = (3, 2), 8


@pytest.fixture(autouse=True)
def in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def chunked(image, chunks):
    return da.from_array(image, chunks=chunks)


def asked_of(frame_shape, degree, background=None, tile=TILE, shape=SHAPE):
    frame = fields.as_frame(frame_shape, degree, None)
    return fields.asked_of(shape, background, frame, 0, fields.Options(), tile)


def sums_of(source, result, asked, boundary=None, **rules):
    """The sums of one machine."""
    told = PixelRules(**rules)
    problem = problem_of(source, result, asked.kernel_shape, boundary, None, None, told)
    (pair,), shape, frame = held(problem.pairs()), asked.kernel_shape, asked.frame
    degree = asked.background
    if sums_are_whole(pair, shape, frame, degree):
        return whole_sums(pair, shape, frame, degree, Run())
    return field_sums(pair, shape, frame, asked.tile, degree, Run())


def reader_of(source, result, asked, boundary=None, batch=1, **rules):
    pair = fields.as_pair(source, result, asked.kernel_shape, boundary, PixelRules(**rules))
    return fields.ClusterReader(pair, asked, fields.as_way(pair, None, "auto", batch, 8, 1))


def assert_same_sums(found, whole):
    assert found.n_pixels == whole.n_pixels
    assert found.total_weight == pytest.approx(whole.total_weight, rel=1e-15)
    np.testing.assert_array_equal(found.places, whole.places)
    # Below the diagonal nothing is said.
    parts = np.triu(found.mixed), np.triu(whole.mixed)
    sizes = np.sqrt(np.diagonal(whole.mixed[0]))
    assert (abs(parts[0] - parts[1]) <= 1e-13 * np.outer(sizes, sizes)).all()


# As one, aligned with tiles, misaligned, smaller than them, uneven.
CHUNKS = [((70, 70), (70, 70)), (16, 16), (20, 13), (5, 3), (11, ((1, 29, 10), (7, 40, 3)))]


@pytest.mark.jit
@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
@pytest.mark.parametrize(("rule", "batch"), [("mirror", 1), ("zero", 3), ("circular", "auto")])
def test_sums_are_those_of_one_machine(chunks, rule, batch, rng):
    source, result = (rng.standard_normal((40, 50)) for _ in range(2))
    asked = asked_of(result.shape, 2, background=1)
    whole = sums_of(source, result, asked, rule)
    images = chunked(source, chunks[0]), chunked(result, chunks[1])
    assert_same_sums(reader_of(*images, asked, rule, batch).sums(), whole)


@pytest.mark.parametrize("mode", ["same", "valid", "full"])
def test_places_are_counted_in_the_result(mode, rng):
    sizes = {"same": (40, 50), "valid": (38, 49), "full": (42, 51)}
    source, result = rng.standard_normal((40, 50)), rng.standard_normal(sizes[mode])
    asked = asked_of(result.shape, 2)
    images = chunked(source, 12), chunked(result, 17)
    assert_same_sums(reader_of(*images, asked).sums(), sums_of(source, result, asked))


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_whole_numbers_give_the_same_bits(chunks, rng):
    source, result = (rng.integers(0, 256, (40, 50), dtype=np.uint8) for _ in range(2))
    asked = asked_of(result.shape, 0)
    images = chunked(source, chunks[0]), chunked(result, chunks[1])
    found, whole = reader_of(*images, asked).sums(), sums_of(source, result, asked)
    np.testing.assert_array_equal(np.triu(found.mixed), np.triu(whole.mixed))


@pytest.mark.jit
def test_every_scheduler_finds_the_same_bits(rng):
    source, result, _ = pair_of(rng, degree=1, noise=0.1)
    images = chunked(source, 20), chunked(result, 13)
    found = []
    for scheduler in ("synchronous", "threads"):
        with dask.config.set(scheduler=scheduler, num_workers=2):
            found.append(cluster.estimate_kernel_field(*images, SHAPE, tile=16, batch=1))
    np.testing.assert_array_equal(found[0].coefficients, found[1].coefficients)
    np.testing.assert_array_equal(found[0].factor, found[1].factor)


def test_masks_weights_and_what_is_not_a_number(rng):
    source, result = (rng.standard_normal((40, 50)) for _ in range(2))
    rules = {
        "weights": rng.random(result.shape),
        "mask": rng.random(result.shape) < 0.1,
        "source_mask": rng.random(source.shape) < 0.02,
        "saturation": (None, 2.5),
        "nan_policy": "omit",
    }
    # Tiles, and a cell, of which nothing is fitted.
    rules["mask"][:17, :17] = True
    source[30, 4], result[37, 20] = np.nan, np.inf
    asked = asked_of(result.shape, 1, background=0)
    images = chunked(source, 13), chunked(result, 8)
    whole = sums_of(source, result, asked, "mirror", **rules)
    rules["mask"] = chunked(rules["mask"], 9)
    assert_same_sums(reader_of(*images, asked, "mirror", **rules).sums(), whole)


@pytest.mark.jit
def test_what_is_masked_inside_a_chunk_is_left_out(rng):
    source, result, _ = pair_of(rng, sides=(40, 50), degree=1, noise=1e-3)
    bad = np.zeros(result.shape, bool)
    bad[20:24, 17:19] = True
    given = np.ma.array(np.where(bad, 1e6, result), mask=bad)
    images = chunked(source, 16), da.from_array(given, chunks=16)
    field = cluster.estimate_kernel_field(*images, SHAPE, degree=1, tile=TILE, batch=1)
    one = fastkernel.estimate_kernel_field(source, result, SHAPE, degree=1, tile=TILE, mask=bad)
    assert field.n_pixels == one.n_pixels == result.size - 8
    off = np.abs(field.kernel_at(10, 20) - one.kernel_at(10, 20))
    assert (off < 0.3 * one.standard_errors_at(10, 20)).all()


def pair_of(rng, sides=(64, 72), degree=2, noise=0.0):
    source = rng.standard_normal(sides)
    shape = sides[0] - SHAPE[0] + 1, sides[1] - SHAPE[1] + 1
    phi = varying.polynomials(shape, degree)
    taps = rng.standard_normal((len(phi), *SHAPE))
    taps[1:] -= taps[1:].mean(axis=(1, 2), keepdims=True)
    result = varying.convolve(source, phi, taps)
    return source, result + noise * rng.standard_normal(shape), taps


@pytest.mark.jit
@pytest.mark.parametrize("chunks", [64, (13, 30), (32, 9)], ids=str)
def test_a_planted_field_comes_back(chunks, rng):
    source, result, taps = pair_of(rng)
    images = chunked(source, chunks), chunked(result, 31)
    field = cluster.estimate_kernel_field(*images, SHAPE, tile=TILE, batch=2)
    np.testing.assert_allclose(field.coefficients, taps, rtol=0, atol=1e-8)
    assert (field.used, field.n_pixels, field.boundary) == (None, result.size, None)
    np.testing.assert_allclose(field.predict(source), result, rtol=0, atol=1e-7)


@pytest.mark.jit
@pytest.mark.parametrize(
    ("options", "noise"),
    [
        # Noise that hides what tiles leave out, and noise that does not.
        ({"degree": 1}, 0.5),
        ({"degree": 1}, 1e-3),
        ({"grid": 2}, 1e-3),
        ({"scale_degree": 1, "background": 1}, 1e-3),
        ({"ridge": 0.1}, 0.5),
        ({"ridge": ("smooth", "gcv")}, 1e-3),
        ({"basis": np.eye(6)[:, :4]}, 0.5),
    ],
    ids=str,
)
def test_fields_are_those_of_one_machine(options, noise, rng):
    source, result, _ = pair_of(rng, noise=noise)
    one = fastkernel.estimate_kernel_field(source, result, SHAPE, tile=16, **options)
    images = chunked(source, 40), chunked(result, 23)
    field = cluster.estimate_kernel_field(*images, SHAPE, tile=16, batch=2, **options)
    # The minimum of the cross-validation is flat: rounding moves it. The energy that little noise
    # leaves is a difference of sums.
    off = (2e-8, 1e-2) if "gcv" in str(options) else (1e-11, 1e-8)
    np.testing.assert_allclose(field.coefficients, one.coefficients, rtol=0, atol=off[0])
    for name in ("residual_rms", "noise_variance", "ridge", "condition_number"):
        np.testing.assert_allclose(getattr(field, name), getattr(one, name), rtol=off[1])
    if field.background is not None:
        np.testing.assert_allclose(field.background, one.background, rtol=0, atol=off[0])
    assert (field.scale_degree, field.grid) == (one.scale_degree, one.grid)
    errors = [found.standard_errors_at(20, 50) for found in (field, one)]
    np.testing.assert_allclose(*errors, rtol=off[1])


def test_passes_are_those_of_one_machine(rng):
    source, result, _ = pair_of(rng, sides=(40, 50), noise=1.0)
    weights, mask = rng.random(result.shape), rng.random(result.shape) < 0.1
    asked = asked_of(result.shape, 2, background=1)
    rules = {"weights": weights, "mask": mask}
    pair = problem_of(source, result, SHAPE, None, None, None, PixelRules(**rules)).pairs()[0]
    one = PairReader(pair, asked, Run())
    reader = reader_of(chunked(source, 13), chunked(result, 11), asked, **rules)
    unknowns = rng.standard_normal(asked.unknowns.of_taps + asked.unknowns.beside)
    for alone in (False, True):
        scores, energy = reader.left(unknowns, alone=alone)
        whole, of_whole = one.left(unknowns, alone=alone)
        np.testing.assert_allclose(scores, whole, rtol=0, atol=1e-13 * abs(whole).max())
        assert energy == pytest.approx(of_whole, rel=1e-13)
    tiles = fields.tile_edges(pair.window.shape, TILE)
    some = [
        (tiles[0][i], tiles[1][j], tiles[0][i + 1] - tiles[0][i], tiles[1][j + 1] - tiles[1][j])
        for i, j in ((0, 0), (4, 1), (2, 7), (1, 3))
    ]
    places = np.array([[3.0, 4], [20, 8], [12, 44], [6, 20]])
    courses = [found.courses(unknowns, some, places) for found in (reader, one)]
    np.testing.assert_allclose(*courses, rtol=0, atol=1e-13 * abs(courses[1]).max())


class Counting:
    """An image in chunks that counts how often a pixel is asked for."""

    def __init__(self, image, chunks):
        self.image, self.chunks = image, chunks
        self.shape, self.dtype, self.read = image.shape, image.dtype, np.zeros(image.shape, int)

    def __getitem__(self, key):
        self.read[key] += 1
        return self.image[key]

    def __reduce__(self):
        return Counting, (self.image, self.chunks)


@pytest.mark.jit
@pytest.mark.parametrize("grid", [None, 2])
def test_stores_are_read_once_and_some_tiles_again(grid, rng):
    source, result, _ = pair_of(rng, sides=(130, 129), degree=0, noise=1.0)
    stores = Counting(source, (32, 32)), Counting(result, (32, 32))
    asked = {"tile": TILE, "grid": grid}
    field = cluster.estimate_kernel_field(*stores, SHAPE, batch=1, **asked)
    read = stores[1].read
    assert (read.min(), read.max()) == (1, 1 if grid is None else 2)
    assert np.count_nonzero(read == 2) == (0 if grid is None else 48 * 8 * 8)
    one = fastkernel.estimate_kernel_field(source, result, SHAPE, **asked)
    np.testing.assert_allclose(field.coefficients, one.coefficients, rtol=0, atol=1e-11)


def test_only_chunks_of_the_tiles_that_are_looked_at_are_computed(rng):
    source, result, _ = pair_of(rng, sides=(66, 65))
    asked = asked_of(result.shape, 1)
    computed = []

    def heard(block, block_info):
        computed.append(block_info[0]["chunk-location"])
        return block

    arrays = chunked(source, 16), chunked(result, 16).map_blocks(heard, dtype=float, meta=result)
    reader = reader_of(*arrays, asked)
    courses = reader.courses(
        np.ones(asked.unknowns.of_taps), [(32, 16, 8, 8)], np.array([[35.0, 20]])
    )
    assert courses.shape == (1, asked.unknowns.of_taps)
    assert computed == [(2, 1)]


@pytest.mark.jit
def test_zarr(rng, tmp_path):
    zarr = pytest.importorskip("zarr")
    source, result, taps = pair_of(rng, degree=1)
    stores = []
    for name, image in (("source", source), ("result", result)):
        store = zarr.create_array(
            str(tmp_path / name), shape=image.shape, dtype=image.dtype, chunks=(20, 25)
        )
        store[:] = image
        stores.append(store)
    field = cluster.estimate_kernel_field(*stores, SHAPE, degree=1, tile=TILE)
    np.testing.assert_allclose(field.coefficients, taps, rtol=0, atol=1e-8)


def test_a_field_without_used_pixels_is_written_and_read(rng, tmp_path):
    source, result, _ = pair_of(rng, degree=1)
    images = chunked(source, 30), chunked(result, 30)
    field = cluster.estimate_kernel_field(*images, SHAPE, degree=1, tile=TILE)
    field.save(tmp_path / "field.npz")
    again = fastkernel.KernelField.load(tmp_path / "field.npz")
    assert again.used is None
    np.testing.assert_array_equal(again.coefficients, field.coefficients)
    assert repr(again) == repr(field)


@pytest.mark.parametrize("name", ["source", "result", "weights"])
def test_what_is_not_finite_is_named_by_its_index_in_the_whole(name, rng):
    source, result, _ = pair_of(rng, sides=(40, 50))
    images = {"source": source, "result": result, "weights": np.ones(result.shape)}
    images[name][31, 22] = np.nan
    given = {key: chunked(image, 16) for key, image in images.items()}
    with pytest.raises(ValueError, match=rf"{name} must be finite.* got nan at index \(31, 22\)"):
        cluster.estimate_kernel_field(kernel_shape=SHAPE, tile=TILE, batch=1, **given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sigma_clip": 3.0},
            "sigma_clip=3.0 is not for images on a cluster; leave it out, or crop",
        ),
        ({"source_variance": 1.0}, "source_variance=1.0 is not for .*estimate_kernel_field there"),
        ({"tile": 7}, "tile must be at least 8 pixels, got 7"),
        ({"degree": 5}, "degree must be an integer from 0 to 4, got 5"),
        ({"scale_degree": -1}, "scale_degree must be an integer from 0 to 4, got -1"),
        ({"grid": 0}, "grid must be"),
        ({"degree": 4, "kernel_shape": 25}, "makes 625 taps for each of 15 functions"),
        ({"saturation": "auto"}, "saturation='auto' looks for the largest pixel"),
        ({"batch": 0}, "batch must be"),
        ({"split_every": 1}, "split_every must be at least 2, got 1"),
        ({"basis": np.ones((4, 1))}, "basis must"),
    ],
    ids=str,
)
def test_bad_arguments_say_what_to_do(options, message):
    image = da.zeros((80, 80), chunks=40)
    with pytest.raises(ValueError, match=message):
        cluster.estimate_kernel_field(image, image, **{"kernel_shape": 3, **options})


def test_a_flat_source_determines_nothing():
    flat = da.ones((40, 40), chunks=20)
    with pytest.raises(SingularFitError, match="or a lower degree"):
        cluster.estimate_kernel_field(flat, flat, 3)
