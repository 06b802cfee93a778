"""How many tasks there are, and what travels."""

import numpy as np
import pytest

pytestmark = pytest.mark.jit  # nothing here is a loop

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")
cluster = pytest.importorskip("fastkernel.dask")

KERNEL = np.ones((9, 9)) / 81


class Store:
    """An image that need not be there."""

    shape, dtype, chunks = (12800, 12800), np.dtype("u1"), (128, 128)

    def __getitem__(self, key):
        rows, cols = key
        return np.zeros((rows.stop - rows.start, cols.stop - cols.start), np.uint8)

    __setitem__ = None


def tasks(collection):
    (found,) = dask.optimize(collection)
    return len(dict(found.__dask_graph__()))


@pytest.fixture(scope="module")
def image():
    return da.zeros((12800, 12800), chunks=128, dtype=np.uint8)


def test_tasks_a_chunk(image):
    assert tasks(cluster.convolve(image, KERNEL, "same", "mirror")) <= 3 * 10_000 + 1
    assert tasks(cluster.normal_equations(image, image + 1, 9, batch=1)) <= 4.2 * 10_000


def test_work_before_is_one_task_a_chunk():
    """Two images, each made in four steps."""
    pair = [((da.full((640, 640), n, chunks=32) + 1) * 2).astype("f4") for n in (3, 4)]
    assert tasks(cluster.normal_equations(*pair, 3, batch=1)) <= 5.2 * 400


def test_tasks_a_chunk_of_stores():
    assert tasks(cluster.convolve(Store(), KERNEL, "same", "mirror")) <= 1.2 * 10_000
    assert tasks(cluster.normal_equations(Store(), Store(), 9, batch=1)) <= 1.2 * 10_000


def test_neighbours_are_given_rims(image):
    """Of a chunk of 128 x 128, others than its own cell need its 4 outermost rows and columns."""
    from dask._task_spec import GraphNode

    graph = dict(cluster.convolve(image, KERNEL, "same", "mirror").__dask_graph__())
    source = image.name
    whole = {
        key: [other for other in node.dependencies if other[0] == source]
        for key, node in graph.items()
        if isinstance(node, GraphNode) and key[0].startswith("convolve-") and "rims" not in key[0]
    }
    assert all(others == [(source, *key[1:])] for key, others in whole.items() if len(key) == 3)
    (rims,) = [graph[key] for key in graph if "rims" in key[0] and key[1:] == (5, 5)]
    pieces = rims({(source, 5, 5): np.zeros((128, 128), np.uint8)})
    assert sum(pixels.nbytes for _, _, pixels in pieces) == 4 * 4 * 128
