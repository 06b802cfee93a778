import warnings

import numpy as np
import pytest
from scipy import ndimage

import fastkernel
from fastkernel import psf

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")
cluster = pytest.importorskip("fastkernel.dask")

DISK = psf.disk(7)  # 15 x 15
PLAIN = {"acceleration": False, "noise": None}


@pytest.fixture(autouse=True)
def in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def photograph(rng, shape):
    """Edges and shades from 0 to 255."""
    rough = np.kron(rng.random((shape[0] // 20, shape[1] // 20)), np.ones((20, 20)))
    return 255 * ndimage.gaussian_filter(rough, 0.7)


@pytest.mark.jit
def test_seams_of_richardson_lucy(rng):
    image = pytest.importorskip("skimage.data").camera()[:400, :420]
    blurred = fastkernel.convolve(image, DISK, "same", "mirror")
    blurred = np.clip(np.rint(blurred + rng.normal(0, 0.3, image.shape)), 0, 255).astype(np.uint8)
    whole = fastkernel.richardson_lucy(blurred, DISK, 30, **PLAIN)
    found = cluster.richardson_lucy(da.from_array(blurred, chunks=128), DISK, 30).compute()
    # The root mean square of every row and column, seams among them.
    assert max(np.sqrt(((found - whole) ** 2).mean(axis=i)).max() for i in (0, 1)) <= 0.01
    near = cluster.richardson_lucy(da.from_array(blurred, chunks=128), DISK, 30, halo=(14, 14))
    assert abs(near.compute() - whole).max() > 0.1


@pytest.mark.jit
@pytest.mark.parametrize("rule", ["unknown", "circular", "mirror", "zero"])
def test_at_the_frame_what_is_said(rng, rule):
    image, small = photograph(rng, (80, 100)), psf.gaussian((5, 5), 1.0)
    model = "mirror" if rule == "unknown" else rule
    blurred = fastkernel.convolve(image, small, "same", model).astype(np.float32)
    weights = (rng.random(image.shape) > 0.02).astype(float)
    # The whole is not damped across its frame.
    options = {"boundary": rule, "damping": 0.0 if rule == "circular" else 0.01}
    whole = fastkernel.richardson_lucy(blurred, small, 8, weights=weights, **PLAIN, **options)
    found = cluster.richardson_lucy(
        da.from_array(blurred, chunks=(40, 50)),
        small,
        8,
        weights=da.from_array(weights, chunks=33),
        halo=(24, 24),
        **options,
    ).compute()
    assert found.dtype == np.float32
    assert abs(found - whole).max() <= 0.05


@pytest.mark.jit
def test_wiener_of_a_gaussian(rng):
    image, small = photograph(rng, (100, 120)), psf.gaussian((7, 7), 1.2)
    blurred = fastkernel.convolve(image, small, "same", "symmetric") + rng.normal(0, 1, image.shape)
    for rule in ("symmetric", "circular", "unknown"):
        whole = fastkernel.wiener(blurred, small, 0.01, boundary=rule)
        lazy = da.from_array(blurred, chunks=50)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = cluster.wiener(lazy, small, 0.01, boundary=rule).compute()
        # The border of another cell's frame is another; what remains of it fades.
        assert abs(found - whole)[15:-15, 15:-15].max() <= 0.1


def test_seams_that_cannot_be_bounded_are_told():
    image = da.zeros((200, 200), chunks=100)
    with pytest.warns(UserWarning, match=r"seams may show between cells: beyond the halo of \(60"):
        cluster.wiener(image, DISK, 1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cluster.wiener(image, DISK, 3.0)


@pytest.mark.jit
def test_restored_to_a_store(rng, tmp_path):
    zarr = pytest.importorskip("zarr")
    image, small = photograph(rng, (80, 100)), psf.gaussian((5, 5), 1.0)
    out = zarr.create_array(str(tmp_path / "out"), shape=(80, 100), dtype="u1", chunks=(40, 40))
    lazy = da.from_array(image, chunks=50)
    cluster.richardson_lucy(lazy, small, 5, out=out)
    whole = fastkernel.richardson_lucy(image, small, 5, **PLAIN)
    assert abs(out[:].astype(float) - whole.clip(0, 255)).max() <= 0.51


def test_refusals(rng):
    image, small = rng.random((60, 60)) + 1, psf.gaussian((5, 5), 1.0)
    with pytest.raises(ValueError, match="balance must be a number on a cluster"):
        cluster.wiener(da.from_array(image, chunks=20), small, "gcv")
    with pytest.raises(ValueError, match="psf must not be negative in Richardson-Lucy"):
        cluster.richardson_lucy(da.from_array(image, chunks=20), -small)
    image[41, 7] = -1
    lazy = da.from_array(image, chunks=20)
    message = r"image must be finite and not negative, got -1.0 at index \(41, 7\)"
    with pytest.raises(ValueError, match=message):
        cluster.richardson_lucy(lazy, small, 3).compute()
    image[41, 7] = np.nan
    for restore in (cluster.richardson_lucy, cluster.wiener):
        found = restore(da.from_array(image, chunks=20), small, 3)
        with pytest.raises(ValueError, match=r"image must be finite.*got nan at index \(41, 7\)"):
            found.compute()
    masked = da.ma.masked_greater(da.from_array(np.ones((40, 40)), chunks=20), 0.5)
    with pytest.raises(TypeError, match="image must not be masked"):
        cluster.wiener(masked, small, 1.0).compute()
