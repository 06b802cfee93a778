import numpy as np
import pytest

import fastkernel

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")
cluster = pytest.importorskip("fastkernel.dask")

RULES = ["zero", "circular", "replicate", "symmetric", "mirror"]


@pytest.fixture(autouse=True)
def in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def images(rng):
    yield rng.integers(0, 256, (23, 29), dtype=np.uint8)
    yield rng.standard_normal((24, 21)).astype(np.float32)


CHUNKS = [(29, 29), (8, 8), (3, 4)]


@pytest.mark.jit
@pytest.mark.parametrize("function", ["convolve", "correlate"])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("method", ["direct", "separable", "fft"])
def test_chunks_make_no_difference(rng, function, mode, method):
    kernels = [np.outer(rng.random(4), rng.random(7))]
    if method != "separable":
        kernels += [rng.standard_normal((3, 3)), rng.standard_normal((1, 1))]
        kernels += [rng.standard_normal((19, 18))]
    for image in images(rng):
        for kernel in kernels:
            for rule in RULES if mode == "same" else ["zero", "mirror"]:
                call = kernel, mode, rule
                whole = getattr(fastkernel, function)(image, *call, method=method)
                for chunks in CHUNKS:
                    lazy = da.from_array(image, chunks=chunks)
                    found = getattr(cluster, function)(lazy, *call, method=method)
                    assert (found.shape, found.dtype) == (whole.shape, whole.dtype)
                    pixels = found.compute()
                    bound = 6e-7 if whole.dtype == np.float32 else 2e-15
                    if method == "fft":
                        assert (
                            abs(pixels - whole).max()
                            <= bound * abs(kernel).sum() * abs(image).max()
                        )
                    else:
                        assert np.array_equal(pixels, whole)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_chunks_follow_those_of_the_image(rng, mode):
    image = da.from_array(rng.random((20, 18)), chunks=((5, 1, 14), (2, 16)))
    kernel = rng.random((4, 3))
    found = cluster.convolve(image, kernel, mode)
    expected = {
        "same": ((5, 1, 14), (2, 16)),
        "full": ((5 + 1, 1, 14 + 2), (2 + 1, 16 + 1)),
        "valid": ((5 - 2, 1, 14 - 1), (2 - 1, 16 - 1)),
    }
    assert found.chunks == expected[mode]
    assert np.array_equal(found.compute(), fastkernel.convolve(image.compute(), kernel, mode))


def test_dtypes_and_fill_values(rng):
    for image in images(rng):
        lazy, kernel = da.from_array(image, chunks=9), rng.random((3, 5))
        for options in ({"dtype": "float32"}, {"dtype": "float64"}, {"fill_value": 2.75}):
            whole = fastkernel.convolve(image, kernel, **options)
            found = cluster.convolve(lazy, kernel, **options)
            assert found.dtype == whole.dtype
            assert np.array_equal(found.compute(), whole)


def test_what_is_not_finite_spoils_what_the_kernel_reaches(rng):
    image, kernel = rng.random((40, 44)), rng.random((9, 8))
    image[11, 20], image[30, 3] = np.nan, np.inf
    lazy = da.from_array(image, chunks=16)
    whole = fastkernel.convolve(image, kernel, "same")
    found = cluster.convolve(lazy, kernel, "same").compute()
    assert np.array_equal(np.isnan(found), np.isnan(whole))
    assert np.array_equal(np.isinf(found), np.isinf(whole))
    with pytest.raises(ValueError, match=r"image must be finite in float64, got nan .*\(11, 20\)"):
        cluster.convolve(lazy, kernel, "same", method="fft").compute()


def test_by_transforms_where_they_were_chosen(rng, monkeypatch):
    """Where "auto" finds transforms faster for the whole, what is not finite still stays near."""
    from fastkernel.convolution.convolution_engines import Correlation

    def chosen(self, engine, times=None):
        return "fft" if engine == "auto" else engine

    monkeypatch.setattr(Correlation, "chosen", chosen)
    image, kernel = rng.random((40, 44)), rng.random((9, 8))
    image[11, 20] = np.nan
    found = cluster.convolve(da.from_array(image, chunks=16), kernel, "same").compute()
    whole = fastkernel.convolve(image, kernel, "same", method="direct")
    assert np.array_equal(np.isnan(found), np.isnan(whole))
    np.testing.assert_allclose(found, whole, rtol=1e-13)


def test_a_mask_is_not_lost(rng):
    image = np.ma.array(rng.random((20, 20)), mask=False)
    image[7, 13] = np.ma.masked
    found = cluster.convolve(da.from_array(image, chunks=10), np.ones((3, 3)), "same")
    with pytest.raises(TypeError, match=r"image must not be masked, got a mask .*\(7, 13\)"):
        found.compute()


def test_data_arrays_keep_their_coordinates(rng):
    xarray = pytest.importorskip("xarray")
    pixels, kernel = rng.random((12, 15)), rng.random((4, 3))
    image = xarray.DataArray(
        da.from_array(pixels, chunks=5),
        dims=("y", "x"),
        coords={"y": np.arange(12) * 0.5, "x": np.arange(15) + 100, "time": 7},
        name="light",
        attrs={"unit": "count"},
    )
    for function in (cluster.convolve, cluster.correlate):
        here = getattr(fastkernel, function.__name__)
        found = function(image, kernel, "same", "mirror")
        assert isinstance(found, xarray.DataArray)
        assert found.chunks == image.chunks
        assert (found.name, found.attrs) == ("light", {"unit": "count"})
        assert found.coords.equals(image.coords)
        assert np.array_equal(found, here(pixels, kernel, "same", "mirror"))
        inner, same = function(image, kernel, "valid"), here(pixels, kernel, "same")
        assert inner.shape == (9, 13)
        # The same pixels stand at the same coordinates.
        at = found.copy(data=same).sel(y=inner.y, x=inner.x)
        np.testing.assert_allclose(at, inner, rtol=1e-13)
        full = function(image, kernel, "full")
        assert set(full.coords) == {"time"}
        assert np.array_equal(full, here(pixels, kernel, "full"))
