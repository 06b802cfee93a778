import naive
import numpy as np
import pytest
from scipy import ndimage

import fastkernel
from fastkernel import SingularFitError

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")
cluster = pytest.importorskip("fastkernel.dask")

KERNEL = np.outer([1, 2, 1], [1, 3, 2, 1, 1]) / 32


@pytest.fixture(autouse=True)
def in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def chunked(*images, chunks=25):
    return [da.from_array(image, chunks=chunks) for image in images]


def test_a_planted_kernel_comes_back(rng):
    source = rng.integers(0, 256, (60, 70), dtype=np.uint8)
    result = naive.convolve(source, KERNEL, "same", "circular")
    fit = cluster.estimate_kernel(*chunked(source, result), (3, 5), boundary="circular")
    assert abs(fit.kernel - KERNEL).max() < 1e-12
    assert fit.boundary == "circular"
    assert (fit.method, fit.n_pixels) == ("lstsq", result.size)
    one = fastkernel.estimate_kernel(source, result, (3, 5), boundary="circular")
    np.testing.assert_allclose(fit.standard_errors, one.standard_errors, rtol=1e-3)


def smooth(rng, shape=(90, 80)):
    """A source that hardly tells some taps apart, and its blur: the condition is about 1e11."""
    source = ndimage.gaussian_filter(rng.random(shape), 3.0)
    return source, naive.convolve(source, KERNEL, "same", "mirror")


def test_a_second_pass_corrects_what_rounding_did(rng):
    source, result = smooth(rng)
    images = chunked(source, result)
    fit = cluster.estimate_kernel(*images, (3, 5), boundary="mirror")
    once = cluster.normal_equations(*images, (3, 5), boundary="mirror").compute().solve()
    assert fit.condition_number > 1e11
    assert abs(fit.kernel - KERNEL).max() < 1e-12
    assert abs(once.kernel - KERNEL).max() > 1e-9


def test_a_second_pass_beside_a_background(rng):
    source, result = smooth(rng)
    sky = 3 + np.linspace(-1, 1, result.shape[0])[:, None] + np.zeros(result.shape)
    options = {"boundary": "mirror", "background": 1}
    fit = cluster.estimate_kernel(*chunked(source, result + sky), (3, 5), **options)
    assert abs(fit.kernel - KERNEL).max() < 1e-8
    np.testing.assert_allclose(fit.background, [[3, 0], [1, 0]], rtol=0, atol=1e-8)
    np.testing.assert_allclose(
        fit.predict(source, mode="same", boundary="mirror"), result + sky, rtol=1e-9
    )


def test_a_second_pass_with_masks(rng):
    source, result = smooth(rng)
    bad = rng.random(result.shape) < 0.02
    mask, source_mask = bad, np.roll(bad, 7)
    result, source = np.where(mask, 9.0, result), np.where(source_mask, np.nan, source)
    options = {"boundary": "mirror", "mask": mask, "source_mask": source_mask}
    fit = cluster.estimate_kernel(*chunked(source, result), (3, 5), **options)
    assert fit.n_pixels < result.size - bad.sum()
    assert abs(fit.kernel - KERNEL).max() < 1e-12


def test_what_is_asked_of_the_kernel_reaches_the_solver(rng):
    source = rng.integers(0, 256, (60, 70), dtype=np.uint8)
    result = ndimage.convolve(source, KERNEL, mode="mirror")
    for options in (
        {"nonnegative": True, "unit_sum": True},
        {"symmetric": "up_down"},
        {"ridge": 2.0},
        {"solver": "fista", "num_iter": 20},
        {"separable": True},
        {"basis": np.eye(15)[:, :7]},
    ):
        one = fastkernel.normal_equations(source, result, (3, 5)).solve(**options)
        fit = cluster.estimate_kernel(*chunked(source, result), (3, 5), **options)
        np.testing.assert_allclose(fit.kernel, one.kernel, rtol=0, atol=1e-9)
        assert fit.solver == one.solver


def test_what_was_clipped_is_left_out(rng):
    source = rng.integers(0, 256, (60, 70), dtype=np.uint8)
    result = naive.convolve(source, 1.4 * KERNEL, "same", "mirror")
    clipped = np.clip(np.rint(result), 0, 255).astype(np.uint8)
    clipped[:6] = 255
    fit = cluster.estimate_kernel(*chunked(source, clipped), (3, 5), boundary="mirror")
    one = fastkernel.estimate_kernel(source, clipped, (3, 5), boundary="mirror")
    assert fit.n_pixels == one.n_pixels < clipped.size
    np.testing.assert_allclose(fit.kernel, one.kernel, rtol=0, atol=1e-10)
    every = {"saturation": (None, None)}
    fit = cluster.estimate_kernel(*chunked(source, clipped), (3, 5), boundary="mirror", **every)
    assert fit.n_pixels == clipped.size


def test_a_flat_source_determines_nothing():
    flat = da.ones((40, 40), chunks=20)
    with pytest.raises(SingularFitError):
        cluster.estimate_kernel(flat, flat, 3)


def test_plain_functions_hand_dask_arrays_over(rng):
    source = rng.integers(0, 256, (60, 70), dtype=np.uint8)
    result = naive.convolve(source, KERNEL, "same", "mirror")
    images = chunked(source, result)
    fit = fastkernel.estimate_kernel(*images, (3, 5), boundary="mirror", nonnegative=True)
    assert abs(fit.kernel - KERNEL).max() < 1e-9
    # What is small may stay at home.
    fit = fastkernel.estimate_kernel(images[0], result, (3, 5), boundary="mirror")
    assert abs(fit.kernel - KERNEL).max() < 1e-12
    for name in ("convolve", "correlate"):
        found = getattr(fastkernel, name)(images[0], KERNEL, "same", "mirror")
        assert isinstance(found, da.Array)
        whole = getattr(fastkernel, name)(source, KERNEL, "same", "mirror")
        assert np.array_equal(found.compute(), whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lad"}, "method='lad' is not for Dask arrays; leave it out, or crop"),
        ({"sigma_clip": 3.0}, "sigma_clip=3.0 is not for Dask arrays"),
        ({"errors": "robust"}, "errors='robust' is not for Dask arrays"),
        ({"source_variance": 1.0}, "source_variance=1.0 is not for Dask arrays"),
        ({"callback": print}, "callback is not for Dask arrays, whose progress Dask shows"),
        ({"kernel_shape": "auto"}, "kernel_shape must be two positive integers"),
        ({"boundary": "auto"}, "boundary must be one of"),
        ({"background": "auto"}, "background must be None, 'constant' or a polynomial degree"),
        ({"kernel_shape": (65, 65)}, "kernel_shape must have at most 4096 taps on a cluster"),
    ],
    ids=str,
)
def test_what_needs_the_pixels_at_hand_is_refused(options, message):
    image = da.zeros((80, 80), chunks=40)
    with pytest.raises(ValueError, match=message):
        fastkernel.estimate_kernel(image, image, **{"kernel_shape": 3, **options})
