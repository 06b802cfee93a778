"""Stores that tasks read and write themselves: Zarr, HDF5, and one that counts."""

import warnings

import numpy as np
import pytest

import fastkernel

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")
cluster = pytest.importorskip("fastkernel.dask")

KERNEL = np.outer([1, 2, 1], [1, 3, 2, 1, 1]) / 32


@pytest.fixture(autouse=True)
def in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


class Counting:
    """An image in chunks that counts how often a pixel of each is asked for."""

    def __init__(self, image, chunks):
        self.image, self.chunks = image, chunks
        self.shape, self.dtype, self.read = image.shape, image.dtype, np.zeros(image.shape, int)

    def __getitem__(self, key):
        self.read[key] += 1
        return self.image[key]

    def __reduce__(self):
        return Counting, (self.image, self.chunks)


@pytest.mark.parametrize("rule", ["zero", "circular", "symmetric", None])
def test_pixels_are_read_once_and_those_of_halos_again(rng, rule):
    images = [rng.integers(0, 256, (64, 72), dtype=np.uint8) for _ in range(2)]
    source, result = (Counting(image, (16, 16)) for image in images)
    found = cluster.normal_equations(source, result, (5, 3), boundary=rule, batch=1).compute()
    whole = fastkernel.normal_equations(*images, (5, 3), boundary=rule)
    assert np.array_equal(found.gram, whole.gram)
    rows, cols = (slice(2, -2), slice(1, -1)) if rule is None else (slice(None), slice(None))
    assert (result.read[rows, cols] == 1).all()
    # Two rows and one column on each side of a cell of 16 x 16; at the frame the border as well.
    inner = np.add.outer(np.arange(64) % 16, np.zeros(72)) // 1
    amid = (inner >= 2) & (inner < 14) & (np.arange(72) % 16 >= 1) & (np.arange(72) % 16 < 15)
    amid[:3] = amid[-3:] = False
    amid[:, :3] = amid[:, -3:] = False
    assert (source.read[amid] == 1).all()
    assert source.read.sum() <= 5 * 5 * 20 * 18


def zarr_array(path, image, chunks, **options):
    zarr = pytest.importorskip("zarr")
    store = zarr.create_array(
        str(path), shape=image.shape, dtype=image.dtype, chunks=chunks, **options
    )
    store[:] = image
    return store


def test_from_zarr_to_zarr(rng, tmp_path):
    image = rng.integers(0, 256, (90, 70), dtype=np.uint8)
    source = zarr_array(tmp_path / "source", image, (32, 20))
    exact = fastkernel.convolve(image, KERNEL, "same", "mirror")
    for dtype, chunks in (("uint8", (25, 30)), ("float64", (90, 9)), ("float32", (8, 70))):
        out = zarr_array(tmp_path / dtype, np.zeros(image.shape, dtype), chunks)
        assert cluster.convolve(source, KERNEL, "same", "mirror", out=out) is out
        expected = np.rint(exact) if dtype == "uint8" else exact
        assert np.array_equal(out[:], expected.astype(dtype))
    fit = cluster.estimate_kernel(source, out, (3, 5), boundary="mirror")
    assert abs(fit.kernel - KERNEL).max() < 1e-6
    lazy = cluster.convolve(source, KERNEL, "same", "mirror")
    assert lazy.chunks == ((32, 32, 26), (20, 20, 20, 10))
    assert np.array_equal(lazy.compute(), exact)
    again = zarr_array(tmp_path / "again", np.zeros(image.shape), (25, 30))
    written = cluster.convolve(source, KERNEL, "same", "mirror", out=again, compute=False)
    assert not again[:].any()
    written.compute()
    assert np.array_equal(again[:], exact)


def test_shards_are_written_whole(rng, tmp_path):
    image = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    source = zarr_array(tmp_path / "source", image, (16, 16))
    out = zarr_array(tmp_path / "out", np.zeros((64, 64)), (8, 8), shards=(32, 32))
    delayed = cluster.convolve(source, KERNEL, "same", out=out, compute=False)
    cells = [key for key in delayed.dask if isinstance(key, tuple) and "sum" not in key[0]]
    assert len(cells) == 4
    delayed.compute()
    assert np.array_equal(out[:], fastkernel.convolve(image, KERNEL, "same"))


def test_a_callable_opens_what_does_not_pickle(rng, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "images.h5"
    image = rng.integers(0, 256, (60, 50), dtype=np.uint8)
    with h5py.File(path, "w") as file:
        file.create_dataset("source", data=image, chunks=(16, 16))
        file["result"] = fastkernel.convolve(image, KERNEL, "same", "symmetric")

    def source():
        return h5py.File(path)["source"]

    def result():
        return h5py.File(path)["result"]

    fit = cluster.estimate_kernel(source, result, (3, 5), boundary="symmetric")
    assert abs(fit.kernel - KERNEL).max() < 1e-12
    found = cluster.convolve(source, KERNEL, "same", "symmetric")
    assert found.chunks == ((16, 16, 16, 12), (16, 16, 16, 2))
    assert np.array_equal(found.compute(), result()[:])
    message = r"source does not pickle and cannot reach a worker .*pass a callable .*lambda: h5py"
    with h5py.File(path) as file, pytest.raises(TypeError, match=message):
        cluster.normal_equations(file["source"], file["result"], 3)


def test_images_of_several_kinds(rng, tmp_path):
    xarray = pytest.importorskip("xarray")
    image = rng.integers(0, 256, (60, 50), dtype=np.uint8)
    blurred = rng.integers(0, 256, (60, 50), dtype=np.uint8)
    whole = fastkernel.normal_equations(image, blurred, 3, boundary="zero")
    np.save(tmp_path / "image.npy", image)

    def mapped():
        return np.load(tmp_path / "image.npy", mmap_mode="r")

    kinds = [
        image,
        np.asfortranarray(image),
        da.from_array(image, chunks=13),
        xarray.DataArray(image),
        xarray.DataArray(da.from_array(image, chunks=13)),
        zarr_array(tmp_path / "zarr", image, (20, 20)),
        mapped,
    ]
    for kind in kinds:
        found = cluster.normal_equations(
            kind, da.from_array(blurred, chunks=20), 3, boundary="zero"
        )
        assert np.array_equal(found.compute().gram, whole.gram)


def test_a_target_must_hold_what_comes(rng, tmp_path):
    image = da.ones((20, 20), chunks=10)
    out = zarr_array(tmp_path / "out", np.zeros((20, 21)), (10, 10))
    with pytest.raises(ValueError, match=r"out must have shape \(20, 20\), got \(20, 21\)"):
        cluster.convolve(image, KERNEL, "same", out=out)
    out = zarr_array(tmp_path / "long", np.zeros((20, 20), np.int64), (10, 10))
    with pytest.raises(TypeError, match="out must be of floats or of integers up to 32 bits"):
        cluster.convolve(image, KERNEL, "same", out=out)
    with pytest.raises(TypeError, match="out must be a store that takes slices"):
        cluster.convolve(image, KERNEL, "same", out=3)
    with pytest.raises(TypeError, match=r"out must be a store that takes slices.*got ndarray"):
        cluster.convolve(image, KERNEL, "same", out=np.zeros((20, 20)))
    out = zarr_array(tmp_path / "short", np.zeros((20, 20), np.uint8), (10, 10))
    with pytest.raises(ValueError, match="out must be of floats for an output that is not finite"):
        cluster.convolve(image * np.nan, KERNEL, "same", out=out)


def test_nothing_warns(tmp_path):
    """A check of the tests: warnings of Zarr would be errors here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zarr_array(tmp_path / "z", np.zeros((4, 4)), (2, 2))
