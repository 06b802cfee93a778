"""Which way to convolve an image: a model of the time that each takes.

The constants are of one machine; what the choice needs is their ratios, which vary less.
`python -m bench convolve` shows every engine beside the chosen one.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from fastkernel._typing import Shape

ENGINES = ("direct", "separable", "fft")

# Bytes of a pixel in float32 and float64: nanoseconds a pixel, and a multiply-add, of one worker.
_DIRECT = {4: (0.8, 0.0135), 8: (1.6, 0.027)}
_SEPARABLE = {4: (1.1, 0.022), 8: (2.3, 0.055)}

# The same: nanoseconds a point of a tile that is transformed there and back; a tile, and a call.
_FFT = {4: 5.5, 8: 8.5}
_FFT_TILE, _FFT_CALL = 25_000, 100_000

# Bytes from which on a tile takes more time: with its spectrum and the kernel's it leaves a 2 MB
# second-level cache, at first by a part.
_SLOWER = {640 << 10: 1.15, 3 << 20: 2.0}

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
    slower = max((by for size, by in _SLOWER.items() if points * itemsize > size), default=1.0)
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
def engine_times(window_shape: Shape, kernel_shape: Shape, itemsize: int) -> Mapping[str, float]:
    """Return nanoseconds of one worker by engine.

    Parameters
    ----------
    window_shape, kernel_shape : (int, int)
        Outputs and taps.
    itemsize : {4, 8}
        Bytes of a pixel.

    Returns
    -------
    mapping
        Keys are `ENGINES`.
    """
    pixels = math.prod(window_shape)
    (a_pixel, a_tap), (a_line, a_line_tap) = _DIRECT[itemsize], _SEPARABLE[itemsize]
    lengths = fft_lengths(window_shape, kernel_shape, itemsize)
    times = {
        "direct": pixels * (a_pixel + a_tap * math.prod(kernel_shape)),
        "separable": pixels * (a_line + a_line_tap * sum(kernel_shape)),
        "fft": _FFT_CALL + _tiles_time(window_shape, kernel_shape, itemsize, lengths),
    }
    return MappingProxyType(times)
