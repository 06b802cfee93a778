"""Which way to gather a pair's sums: a model of the time that each takes.

`python -m bench engines --constants` measures the constants. They are of one machine; what the
choice needs is their ratios, which vary less.
"""

import math
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from fastkernel._loops import lags
from fastkernel._typing import AnyArray, Shape

# Nanoseconds a pixel and nanoseconds a multiply-add, reading included.
_DIRECT = {"integer": (1.2, 0.013), "float": (2.5, 0.036)}

# Nanoseconds a pixel, and a multiply-add of spectra; nanoseconds a pixel that is transformed, by
# the length of the rows (smoothed: neighbours differ by less than their noise). Longer ones take
# no less time and more memory.
_FFT = (0.0, 0.061)
_TRANSFORM = {128: 4.4, 192: 4.2, 256: 4.1, 384: 4.0, 512: 4.1, 768: 4.0}

# Nanoseconds by which a fit that transforms takes longer than one that does not, whatever its
# pixels: of images of 40 by 40.
_FFT_BEGINS = 350_000

# Rows of a tile that transforms: those below it, which are transformed too, are a small part.
_FFT_ROWS = 192

ENGINES = ("integer", "float", "fft")


def is_narrow(source: AnyArray, result: AnyArray) -> bool:
    """Return whether both images hold integers of at most 8 bits."""
    return all(
        image.dtype.kind in "biu" and image.dtype.itemsize == 1 for image in (source, result)
    )


def _even(length: int, most: int) -> int:
    """Return the size of the fewest equal parts of ``length`` that hold at most ``most``."""
    return math.ceil(length / math.ceil(length / most))


Tiling: TypeAlias = tuple[int, Shape]


def fft_tilings(window_shape: Shape, kernel_shape: Shape) -> dict[int, Tiling]:
    """Return the tilings to choose from, by length: that of the transforms, and the tiles' shape.

    A transform of length ``n`` correlates ``n - 2 (q - 1)`` columns at all shifts; a tile has so
    many rows that the ``p - 1`` below it are a small part.
    """
    p, q = kernel_shape
    rows, cols = (n + k - 1 for n, k in zip(window_shape, kernel_shape, strict=True))
    height = _even(rows, max(_FFT_ROWS, 2 * p))
    lengths = [n for n in _TRANSFORM if n - 2 * (q - 1) >= n // 4]
    return {
        n: (n, (height, _even(cols, n - 2 * (q - 1))))
        for n in lengths or [1 << (4 * q - 1).bit_length()]
    }


@lru_cache(256)
def fft_tiling(window_shape: Shape, kernel_shape: Shape) -> Tiling:
    """Return the tiling that takes the least time."""
    tilings = fft_tilings(window_shape, kernel_shape).values()
    return min(tilings, key=lambda tiling: _fft_time(window_shape, kernel_shape, tiling))


def fft_terms(window_shape: Shape, kernel_shape: Shape, tiling: Tiling) -> tuple[float, ...]:
    """Return what the constants of `_FFT` and `_TRANSFORM` multiply."""
    length, (height, width) = tiling
    rows, cols = (n + k - 1 for n, k in zip(window_shape, kernel_shape, strict=True))
    # Every tile transforms its rows, and a third as many rows of surroundings as reach below it.
    down, across = math.ceil(rows / height), math.ceil(cols / width)
    transformed = across * length * down * (height + (kernel_shape[0] - 1) / 3)
    return rows * cols, across * length * rows * 4 * kernel_shape[0], transformed


def _fft_time(window_shape: Shape, kernel_shape: Shape, tiling: Tiling) -> float:
    """Return nanoseconds of one worker."""
    pixels, products, transformed = fft_terms(window_shape, kernel_shape, tiling)
    a_pixel, a_product = _FFT
    a_transform = _TRANSFORM.get(tiling[0], max(_TRANSFORM.values()))
    return pixels * a_pixel + products * a_product + transformed * a_transform


def choose_engine(
    source: AnyArray, result: AnyArray, window_shape: Shape, kernel_shape: Shape
) -> str:
    """Return the engine that takes the least time by the model: one of `ENGINES`."""
    direct = "integer" if is_narrow(source, result) else "float"
    return _faster(direct, window_shape, kernel_shape)


@lru_cache(256)
def _faster(direct: str, window_shape: Shape, kernel_shape: Shape) -> str:
    """Return ``direct`` or "fft"."""
    p, q = kernel_shape
    a_pixel, a_product = _DIRECT[direct]
    direct_time = math.prod(window_shape) * (a_pixel + a_product * (3 * p * q - p - q + 1))
    tiling = fft_tiling(window_shape, kernel_shape)
    fft_time = _FFT_BEGINS + _fft_time(window_shape, kernel_shape, tiling)
    return direct if direct_time <= fft_time else "fft"


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


def int16_tile_is_exact(tile_shape: Shape, largest_product: float) -> bool:
    """Return whether `lags.add_tiles` on int16 scratch cannot overflow its 32-bit lanes.

    A lane adds two products a row for every vector of the tile's width.

    Examples
    --------
    >>> int16_tile_is_exact((256, 512), 255 * 255)
    True
    """
    rows, cols = tile_shape
    vectors = -(-cols // lags.vector_lanes(np.int16))
    return 2 * rows * vectors * largest_product < 2**31


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
