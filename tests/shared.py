"""PSFs, images and names that tests of several folders use."""

import numba
import numpy as np
import pytest

JIT = not numba.config.DISABLE_JIT  # without it images must be small

# What SciPy, NumPy, OpenCV and others call the border rules.
ALIASES = [
    ("constant", "zero"),
    ("grid-constant", "zero"),
    ("fill", "zero"),
    ("BORDER_CONSTANT", "zero"),
    (0, "zero"),
    ("wrap", "circular"),
    ("grid-wrap", "circular"),
    ("periodic", "circular"),
    ("BORDER_WRAP", "circular"),
    (3, "circular"),
    ("edge", "replicate"),
    ("nearest", "replicate"),
    ("extend", "replicate"),
    ("BORDER_REPLICATE", "replicate"),
    (1, "replicate"),
    ("symm", "symmetric"),
    ("grid-mirror", "symmetric"),
    ("BORDER_REFLECT", "symmetric"),
    (2, "symmetric"),
    ("reflect101", "mirror"),
    ("reflect_101", "mirror"),
    ("BORDER_REFLECT101", "mirror"),
    ("BORDER_REFLECT_101", "mirror"),
    ("BORDER_DEFAULT", "mirror"),
    ("border_reflect_101", "mirror"),
    ("Symmetric", "symmetric"),
    (4, "mirror"),
]


def gaussian(size, sigma):
    line = np.exp(-(np.arange(-(size // 2), size // 2 + 1) ** 2) / (2 * sigma**2))
    psf = np.outer(line, line)
    return psf / psf.sum()


def disk(size):
    y, x = np.mgrid[-(size // 2) : size // 2 + 1, -(size // 2) : size // 2 + 1]
    psf = (x**2 + y**2 <= (size // 2) ** 2).astype(float)
    return psf / psf.sum()


def photo(name="camera"):
    data = pytest.importorskip("skimage.data")
    return getattr(data, name)().astype(float)


def waves(n):
    r, c = np.mgrid[:n, :n]
    return np.sin(r / 3) + np.cos(c / 4)


class Slices:
    """An image that is read by slices."""

    def __init__(self, array):
        self._array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, key):
        assert all(isinstance(part, slice) for part in key)
        return self._array[key]


class Dataset:
    """What HDF5 and Zarr offer: shape, dtype and slicing; it counts what is read."""

    def __init__(self, array):
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.reads = np.zeros(array.shape, int)
        self.largest = 0

    def __getitem__(self, key):
        assert isinstance(key, tuple)
        assert all(isinstance(part, slice) for part in key)
        self.reads[key] += 1
        self.largest = max(self.largest, self.array[key].size)
        return self.array[key].copy()

    def __array__(self, *args, **kwargs):
        msg = "read whole"
        raise AssertionError(msg)
