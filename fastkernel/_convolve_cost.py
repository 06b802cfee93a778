"""Which way to convolve an image: a model of the time that each takes.

`python -m bench convolve --constants` measures the constants. They are of one machine; what the
choice needs is their ratios, which vary less.
"""

import math
from functools import lru_cache

from fastkernel._typing import Shape

ENGINES = ("direct", "separable", "fft")

# Bytes of a pixel in float32 and float64: nanoseconds a pixel, and a multiply-add, of one worker.
_DIRECT = {4: (0.8, 0.0135), 8: (1.6, 0.027)}
_SEPARABLE = {4: (1.0, 0.03), 8: (2.0, 0.06)}

# The same: nanoseconds a point of a tile that is transformed there and back; a tile, and a call.
_FFT = {4: 5.5, 8: 8.5}
_FFT_TILE, _FFT_CALL = 25_000, 100_000

# A tile of more bytes than this leaves the second-level cache, which takes up to twice the time.
_CACHED = 2 << 20

# Lengths that FFTW transforms well; the last is doubled for larger kernels.
_LENGTHS = (8, 16, 32, 64, 96, 128, 192, 256, 320, 384, 512, 640, 768, 1024)


def _lengths(window: int, taps: int) -> list[int]:
    """Return the lengths of tiles to choose from, along one axis."""
    lengths = list(_LENGTHS)
    while lengths[-1] < 2 * taps:
        lengths.append(2 * lengths[-1])
    enough = next((n for n in lengths if n >= window + taps - 1), lengths[-1])
    return [n for n in lengths if taps <= n <= enough]


def _tiles_time(window_shape: Shape, kernel_shape: Shape, itemsize: int, lengths: Shape) -> float:
    """Return nanoseconds of one worker for the tiles of transforms of ``lengths``."""
    points = math.prod(lengths)
    slower = min(2.0, 1 + 0.3 * max(0.0, math.log2(points * itemsize / _CACHED)))
    tiles = math.prod(
        -(-window // (n - taps + 1))
        for window, n, taps in zip(window_shape, lengths, kernel_shape, strict=True)
    )
    return tiles * (_FFT_TILE + points * _FFT[itemsize] * slower)


@lru_cache(256)
def fft_lengths(window_shape: Shape, kernel_shape: Shape, itemsize: int) -> Shape:
    """Return the shape of the transformed tiles that takes the least time.

    Examples
    --------
    >>> fft_lengths((300, 300), (31, 31), 4)
    (384, 384)
    """
    rows, cols = map(_lengths, window_shape, kernel_shape)
    return min(
        ((n0, n1) for n0 in rows for n1 in cols),
        key=lambda n: _tiles_time(window_shape, kernel_shape, itemsize, n),
    )


@lru_cache(256)
def engine_times(window_shape: Shape, kernel_shape: Shape, itemsize: int) -> dict[str, float]:
    """Return nanoseconds of one worker by engine.

    Parameters
    ----------
    window_shape, kernel_shape : (int, int)
        Outputs and taps.
    itemsize : {4, 8}
        Bytes of a pixel.

    Returns
    -------
    dict
        Keys are `ENGINES`.
    """
    pixels = math.prod(window_shape)
    (a_pixel, a_tap), (a_line, a_line_tap) = _DIRECT[itemsize], _SEPARABLE[itemsize]
    lengths = fft_lengths(window_shape, kernel_shape, itemsize)
    return {
        "direct": pixels * (a_pixel + a_tap * math.prod(kernel_shape)),
        "separable": pixels * (a_line + a_line_tap * sum(kernel_shape)),
        "fft": _FFT_CALL + _tiles_time(window_shape, kernel_shape, itemsize, lengths),
    }
