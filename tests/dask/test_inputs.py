"""What is refused, and by which words."""

import numpy as np
import pytest

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")
cluster = pytest.importorskip("fastkernel.dask")


@pytest.fixture(autouse=True)
def in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


IMAGE = da.ones((40, 40), chunks=20)


def unknown():
    image = da.from_array(np.arange(1600.0).reshape(40, 40), chunks=20)
    return image[image[:, 0] > 100]


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (unknown(), ValueError, "source has chunks of unknown sizes; call compute_chunk_sizes"),
        (da.ones((4, 4, 4)), ValueError, r"source must have 2 dimensions, .*got shape \(4, 4, 4\)"),
        (da.ones((4, 4), dtype=complex), TypeError, "source must hold real numbers"),
        (da.ones((0, 4)), ValueError, "source must have at least one pixel"),
        ("image.tif", TypeError, "source must be a Dask array, a DataArray, a store"),
        pytest.param(
            lambda: "image.tif", TypeError, r"source\(\) must be a Dask array", id="opens no image"
        ),
        (None, TypeError, "source must be a Dask array"),
    ],
    ids=str,
)
def test_images(image, error, message):
    with pytest.raises(error, match=message):
        cluster.normal_equations(image, IMAGE, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be a positive integer"),
        ({"batch": "all"}, "batch must be a positive integer"),
        ({"split_every": 1}, "split_every must be at least 2, got 1"),
        ({"workers": 0}, "workers must be a positive integer"),
        ({"mask": np.zeros((40, 41), bool)}, r"mask must have the shape \(40, 40\) of result"),
        ({"source_mask": np.zeros((3, 3), bool)}, r"source_mask must have the shape \(40, 40\)"),
        ({"saturation": "auto"}, r"saturation='auto' looks for the largest .*pass \(low, high\)"),
        ({"boundary": "reflect"}, "boundary='reflect' repeats the edge pixel in SciPy"),
        ({"engine": "integer"}, "engine='integer' needs images of at most 8 bits"),
        ({"nan_policy": "drop"}, "nan_policy must be one of"),
        ({"background": 9}, "background must be None, 'constant'"),
    ],
    ids=str,
)
def test_options(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        cluster.normal_equations(IMAGE, IMAGE, 3, **options)


def test_shapes():
    with pytest.raises(ValueError, match="result must have one of three shapes for source"):
        cluster.normal_equations(IMAGE, da.ones((39, 39)), 3)
    with pytest.raises(ValueError, match="kernel must fit inside the image for mode='valid'"):
        cluster.convolve(IMAGE, np.ones((41, 1)), "valid")
    with pytest.raises(ValueError, match="kernel must be of rank one for method='separable'"):
        cluster.convolve(IMAGE, np.eye(3), method="separable")


@pytest.mark.parametrize("rule", ["mirror", None])
def test_what_is_not_finite_is_told_by_its_index_in_the_whole(rng, rule):
    for name, index in (("source", (31, 8)), ("result", (12, 33)), ("source", (0, 0))):
        images = {"source": rng.random((40, 40)), "result": rng.random((40, 40))}
        if index == (0, 0) and rule is None:
            continue
        images[name][index] = np.nan
        lazy = [da.from_array(image, chunks=11) for image in images.values()]
        message = rf"{name} must be finite, got nan at index \({index[0]}, {index[1]}\); nan_policy"
        with pytest.raises(ValueError, match=message):
            cluster.normal_equations(*lazy, 5, boundary=rule, batch=1).compute()


def test_wrong_weights_are_told_by_their_index_in_the_whole(rng):
    weights = np.ones((40, 40))
    weights[25, 31] = -1
    found = cluster.normal_equations(IMAGE, IMAGE, 3, weights=weights, batch=1)
    with pytest.raises(
        ValueError, match=r"weights must be finite and at least 0, got -1.0 at index \(25, 31\)"
    ):
        found.compute()
