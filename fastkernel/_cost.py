"""Which way to gather a pair's sums: a model of the time that each takes.

`python -m bench engines --constants` measures the constants. They are of one machine; what the
choice needs is their ratios, which vary less.
"""

import math
from functools import lru_cache

import numpy as np

from fastkernel._typing import AnyArray, Shape

# Nanoseconds a pixel and nanoseconds a multiply-add, reading included.
_DIRECT = {"integer": (0.8, 0.016), "float": (1.9, 0.040)}

# Nanoseconds a pixel, a multiply-add of spectra, and a pixel that is transformed: the longer the
# rows, the less of a tile stays in the second-level cache.
_FFT = (1.5, 0.035)
_TRANSFORM = {128: 2.8, 256: 2.4, 512: 3.0, 1024: 3.6, 2048: 4.2}
_FFT_ROWS = 128

ENGINES = ("integer", "float", "fft")


def is_narrow(source: AnyArray, result: AnyArray) -> bool:
    """Return whether both images hold integers of at most 8 bits."""
    return all(
        image.dtype.kind in "biu" and image.dtype.itemsize == 1 for image in (source, result)
    )


def fft_step(length: int, kernel_shape: Shape) -> int:
    """Return how many columns a transform of ``length`` correlates at all shifts."""
    return length - 2 * (kernel_shape[1] - 1)


def fft_rows(kernel_shape: Shape) -> int:
    """Return how many rows a tile has: enough that its surroundings below are a small part."""
    return max(_FFT_ROWS, 2 * kernel_shape[0])


@lru_cache(256)
def fft_length(kernel_shape: Shape) -> int:
    """Return the length of the transforms of rows that take the least time."""
    lengths = [n for n in _TRANSFORM if fft_step(n, kernel_shape) >= n // 4]
    if not lengths:
        return 1 << (4 * kernel_shape[1] - 1).bit_length()
    times = {n: _fft_time(n, kernel_shape) for n in lengths}
    return min(times, key=lambda n: times[n])


@lru_cache(256)
def _fft_time(length: int, kernel_shape: Shape) -> float:
    """Return nanoseconds a pixel."""
    a_pixel, a_product = _FFT
    a_transform = _TRANSFORM.get(length, max(_TRANSFORM.values()))
    elements = length / fft_step(length, kernel_shape)
    return a_pixel + elements * (a_transform + a_product * 4 * kernel_shape[0])


def choose_engine(source: AnyArray, result: AnyArray, kernel_shape: Shape) -> str:
    """Return the engine that takes the least time by the model: one of `ENGINES`."""
    p, q = kernel_shape
    direct = "integer" if is_narrow(source, result) else "float"
    a_pixel, a_product = _DIRECT[direct]
    direct_time = a_pixel + a_product * (3 * p * q - p - q + 1)
    return direct if direct_time <= _fft_time(fft_length(kernel_shape), kernel_shape) else "fft"


def fft_sums_are_exact(n_pixels: int, largest_product: int, length: int) -> bool:
    """Return whether rounding errors of tiled transforms stay below a quarter.

    The error of a correlation by transforms of ``n`` points is at most about ``eps * log2(n)``
    times the product of the norms of both factors [1]_; the constant 8 is on the safe side.

    References
    ----------
    .. [1] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., SIAM 2002,
       section 24.1.

    Examples
    --------
    >>> fft_sums_are_exact(4096 * 4096, 255 * 255, 256)
    True
    """
    eps = float(np.finfo(np.float64).eps)
    return 8 * eps * math.log2(length) * largest_product * n_pixels < 0.25


def largest_product(source: AnyArray, result: AnyArray) -> int:
    """Return a bound on the products of pixels that their integer dtypes allow."""
    limits = [
        1 if image.dtype.kind == "b" else max(abs(int(v)) for v in _range(image))
        for image in (source, result)
    ]
    return limits[0] * max(limits)


def _range(image: AnyArray) -> tuple[int, int]:
    info = np.iinfo(image.dtype)
    return info.min, info.max
