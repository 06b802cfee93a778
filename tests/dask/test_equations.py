import itertools

import naive
import numpy as np
import pytest

import fastkernel
from fastkernel._images.windows import window_of_mode

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")
cluster = pytest.importorskip("fastkernel.dask")

RULES = ["zero", "circular", "replicate", "symmetric", "mirror", None]
FIELDS = ("gram", "moments", "energy", "n_pixels", "total_weight")


@pytest.fixture(autouse=True)
def in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def pair(rng, mode, kernel_shape, dtype=np.uint8, shape=(23, 29)):
    """A source, and a result of the shape of ``mode``; what it holds does not matter."""
    window = window_of_mode(mode, shape, kernel_shape, "zero")
    if np.dtype(dtype).kind == "f":
        return [rng.standard_normal(s).astype(dtype) for s in (shape, window.shape)]
    return [rng.integers(0, 256, s, dtype=dtype) for s in (shape, window.shape)]


def chunked(image, chunks):
    return da.from_array(image, chunks=chunks)


def same(found, whole):
    return all(np.array_equal(getattr(found, name), getattr(whole, name)) for name in FIELDS)


CASES = [
    (kernel_shape, mode, rule, chunks)
    for kernel_shape in [(1, 1), (3, 3), (2, 5), (7, 4), (9, 9)]
    for mode, rule in [("full", None), ("valid", None), *(("same", rule) for rule in RULES)]
    # As one, aligned, misaligned, smaller than the kernel, uneven.
    for chunks in [(29, 29), (8, 8), (8, 11), (3, 4), ((2, 20, 1), (1, 5, 23))]
]


@pytest.mark.jit
@pytest.mark.parametrize(("kernel_shape", "mode", "rule", "chunks"), CASES, ids=str)
def test_bytes_are_the_same_bits_however_they_are_chunked(rng, kernel_shape, mode, rule, chunks):
    source, result = pair(rng, mode, kernel_shape)
    whole = fastkernel.normal_equations(source, result, kernel_shape, boundary=rule)
    of_source = chunks if mode == "valid" or isinstance(chunks[0], int) else (9, 10)
    if isinstance(chunks[0], tuple):
        of_source, of_result = chunks, (6, 7)
    else:
        of_source, of_result = chunks[0], chunks[1]
    images = chunked(source, of_source), chunked(result, of_result)
    for batch in ("auto", 1, 5):
        found = cluster.normal_equations(*images, kernel_shape, boundary=rule, batch=batch)
        assert same(found.compute(), whole)


def test_they_are_those_of_the_rows_of_a_dense_matrix(rng):
    source, result = pair(rng, "same", (2, 3), shape=(9, 11))
    images = chunked(source, 4), chunked(result, 5)
    found = cluster.normal_equations(*images, (2, 3), boundary="symmetric", batch=1).compute()
    rows = naive.design_matrix(naive.extended(source, (2, 3), "same", "symmetric"), (2, 3))
    rows = rows.astype(float)
    assert np.array_equal(found.gram, rows.T @ rows)
    assert np.array_equal(found.moments, rows.T @ result.ravel().astype(float))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16])
def test_other_numbers_are_nearly_the_same(rng, dtype):
    source, result = pair(rng, "same", (3, 4), dtype)
    whole = fastkernel.normal_equations(source, result, (3, 4), boundary="mirror")
    images = chunked(source, 7), chunked(result, 6)
    found = cluster.normal_equations(*images, (3, 4), boundary="mirror", batch=1).compute()
    assert abs(found.gram - whole.gram).max() <= 1e-15 * abs(whole.gram).max()
    length = np.sqrt(whole.energy * whole.gram.max())
    assert abs(found.moments - whole.moments).max() <= 1e-15 * length


@pytest.mark.jit
@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_every_scheduler_finds_the_same_bits(rng, scheduler):
    source, result = pair(rng, "same", (3, 3), np.float64)
    equations = cluster.normal_equations(chunked(source, 5), chunked(result, 4), 3, batch=1)
    found = equations.compute(scheduler=scheduler, num_workers=2)
    assert same(found, equations.compute())


def test_masks_weights_and_what_is_not_a_number(rng):
    source, result = pair(rng, "same", (3, 3), np.float64)
    options = {
        "weights": rng.integers(0, 4, result.shape).astype(float),
        "mask": rng.random(result.shape) < 0.1,
        "source_mask": rng.random(source.shape) < 0.02,
        "saturation": (None, 2.0),
    }
    source[3, 4], result[7, 20] = np.nan, np.inf
    options["boundary"], options["nan_policy"] = "circular", "omit"
    whole = fastkernel.normal_equations(source, result, 3, **options)
    images = chunked(source, 7), chunked(result, 6)
    options["mask"] = chunked(options["mask"], 9)
    found = cluster.normal_equations(*images, 3, batch=1, **options).compute()
    assert (found.n_pixels, found.total_weight) == (whole.n_pixels, whole.total_weight)
    np.testing.assert_allclose(found.gram, whole.gram, rtol=0, atol=1e-14 * whole.gram.max())
    np.testing.assert_allclose(found.moments, whole.moments, rtol=0, atol=1e-13 * whole.gram.max())


def test_masks_of_chunks_are_used(rng):
    source, result = pair(rng, "same", (3, 3))
    hidden = rng.random(source.shape) < 0.03
    masked = da.ma.masked_array(chunked(source, 8), mask=chunked(hidden, 8))
    whole = fastkernel.normal_equations(
        np.ma.array(source, mask=hidden), result, 3, boundary="mirror"
    )
    found = cluster.normal_equations(masked, chunked(result, 8), 3, boundary="mirror", batch=1)
    assert same(found.compute(), whole)
    found = cluster.normal_equations(chunked(result, 8), masked, 3, boundary="mirror", batch=1)
    whole = fastkernel.normal_equations(
        result, np.ma.array(source, mask=hidden), 3, boundary="mirror"
    )
    assert same(found.compute(), whole)


def test_a_cell_without_a_good_pixel_adds_nothing(rng):
    source, result = pair(rng, "same", (3, 3))
    mask = np.zeros(result.shape, bool)
    mask[:12, :12] = True
    whole = fastkernel.normal_equations(source, result, 3, mask=mask)
    images = chunked(source, 6), chunked(result, 6)
    assert same(cluster.normal_equations(*images, 3, mask=mask, batch=1).compute(), whole)


@pytest.mark.parametrize("degree", [0, 2])
def test_parts_share_one_background(rng, degree):
    source, result = pair(rng, "same", (3, 3), np.float64)
    result += 5 + np.linspace(0, 1, result.shape[0])[:, None] ** 2
    images = chunked(source, 9), chunked(result, 8)
    for rule in (None, "replicate"):
        whole = fastkernel.normal_equations(source, result, 3, boundary=rule, background=degree)
        found = cluster.normal_equations(*images, 3, boundary=rule, background=degree, batch=1)
        found = found.compute().eliminate()
        assert found.background_terms == whole.background_terms
        assert np.allclose(found.gram, whole.gram, rtol=1e-12, atol=1e-12 * whole.gram.max())
        assert np.allclose(found.moments, whole.moments, rtol=1e-10, atol=1e-11 * whole.gram.max())


def test_the_engine_is_chosen_for_the_whole_image(rng):
    """The cells of an image by the one that the whole asks for, however small they are."""
    from fastkernel.dask import equations

    rules = fastkernel.dask.pairs.PixelRules()
    for side, engine in ((4000, "fft"), (40, "integer")):
        image = da.zeros((side, side), chunks=side // 8, dtype=np.uint8)
        kept = equations.as_pair(image, image, 33, "zero", rules)
        assert equations.as_way(kept, None, "auto", 1, 8, 1).engine == engine


def test_batches_are_as_large_as_their_equations_ask_for():
    from fastkernel.dask import equations

    image = da.zeros((4096, 4096), chunks=64, dtype=np.uint8)
    rules = fastkernel.dask.pairs.PixelRules()
    kept = equations.as_pair(image, image, 9, "zero", rules)
    cells = kept.cells("auto", 8 * 81 * 81)
    pixels = min(a * b for a, b in itertools.product(*cells.chunks))
    assert 2 * pixels >= 16 * 8 * 81 * 81 > pixels
    cells = kept.cells(7, 8 * 81 * 81)
    assert max(a * b for a, b in itertools.product(*cells.chunks)) <= 7 * 64 * 64
    assert max(map(sum, cells.chunks)) == 4096
