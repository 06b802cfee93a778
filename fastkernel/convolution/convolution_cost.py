"""Which way to convolve an image: a model of the time that each takes.

The constants are of one machine; what the choice needs is their ratios, which vary less.
`python -m bench convolve` shows every engine beside the chosen one.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from fastkernel._loops import passes
from fastkernel._typing import Shape

ENGINES = ("direct", "separable", "fft")

# Bytes of a pixel in float32 and float64: nanoseconds a pixel, and a multiply-add, of one worker.
_DIRECT = {4: (0.35, 0.0192), 8: (0.8, 0.0365)}
_SEPARABLE = {4: (0.5, 0.036), 8: (1.0, 0.08)}

# The same: nanoseconds a point of two tiles that are convolved together; a pair, and a call.
_FFT = {4: 2.1, 8: 4.0}
_FFT_PAIR, _FFT_CALL = 30_000, 60_000

# The same: nanoseconds a pixel that is read into such a tile, and written.
_MOVED = {4: 1.3, 8: 2.0}

# The same: nanoseconds a pixel of an image that is written and read again.
_STORED = {4: 1.6, 8: 2.0}

# Bytes from which on a tile takes more time: two of them, their transposes and the kernel's
# spectrum take six times as many, and leave the caches one by one.
_SLOWER = {192 << 10: 1.08, 640 << 10: 1.15, 1 << 20: 1.3, 2 << 20: 1.5, 4 << 20: 1.75}

# Points from which on a panel leaves the first-level cache.
_LONG, _SLOWER_LONG = 512, 1.15


def _lengths(window: int, taps: int, itemsize: int) -> list[int]:
    """Return the lengths of tiles to choose from, along one axis."""
    enough, n = window + taps - 1, passes.SHORTEST
    lengths: list[int] = []
    while not lengths or lengths[-1] < min(enough, 2 * max(taps, 512)):
        lengths += [k for k in (n, 3 * n // 2) if k >= taps and passes.is_length(k, f"f{itemsize}")]
        n *= 2
    return lengths


def _tiles_time(window_shape: Shape, kernel_shape: Shape, itemsize: int, lengths: Shape) -> float:
    """Return nanoseconds of one worker for the tiles of transforms of ``lengths``."""
    points = math.prod(lengths)
    slower = max((by for size, by in _SLOWER.items() if points * itemsize > size), default=1.0)
    slower *= math.prod(_SLOWER_LONG for n in lengths if n >= _LONG)
    tiles = math.prod(
        -(-window // (n - taps + 1))
        for window, n, taps in zip(window_shape, lengths, kernel_shape, strict=True)
    )
    return (tiles + 1) // 2 * (_FFT_PAIR + points * _FFT[itemsize] * slower)


@lru_cache(256)
def fft_lengths(window_shape: Shape, kernel_shape: Shape, itemsize: int) -> Shape:
    """Return the shape of the transformed tiles that takes the least time.

    Examples
    --------
    >>> fft_lengths((300, 300), (31, 31), 4)
    (192, 384)
    """
    rows, cols = (
        _lengths(*sides, itemsize) for sides in zip(window_shape, kernel_shape, strict=True)
    )
    return min(
        ((n0, n1) for n0 in rows for n1 in cols),
        key=lambda n: _tiles_time(window_shape, kernel_shape, itemsize, n),
    )


def round_trip_pays(
    image_shape: Shape, kernel_shape: Shape, itemsize: int, *, separable: bool
) -> bool:
    """Tell whether a correlation and its adjoint take less time tile by tile, by transforms.

    What is found in between then needs no memory, but tiles overlap twice as far.
    """
    twice = 2 * kernel_shape[0] - 1, 2 * kernel_shape[1] - 1
    lengths = fft_lengths(image_shape, twice, itemsize)
    pixels, times = math.prod(image_shape), engine_times(image_shape, kernel_shape, itemsize)
    together = 2 * _tiles_time(image_shape, twice, itemsize, lengths) + pixels * _MOVED[itemsize]
    apart = 2 * min(time for name, time in times.items() if separable or name != "separable")
    return together < apart + pixels * _STORED[itemsize]


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
        "fft": _FFT_CALL
        + _tiles_time(window_shape, kernel_shape, itemsize, lengths)
        + pixels * _MOVED[itemsize],
    }
    return MappingProxyType(times)
