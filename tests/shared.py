"""PSFs, images and names that tests of several folders use."""

import numpy as np
import pytest

ALIASES = [
    ("constant", "zero"),
    ("fill", "zero"),
    ("wrap", "circular"),
    ("periodic", "circular"),
    ("edge", "replicate"),
    ("nearest", "replicate"),
    ("symm", "symmetric"),
    ("reflect101", "mirror"),
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
