"""Convolution of large images, tile by tile."""

from collections.abc import Callable
from functools import partial

import numpy as np

from fastkernel import _tiles
from fastkernel._borders import load
from fastkernel._loops import stencil
from fastkernel._typing import AnyArray, FloatArray
from fastkernel._windows import Window

TILE_SHAPE = (128, 256)


def residual_image(
    source: AnyArray, kernel: FloatArray, window: Window, result: AnyArray | None, workers: int
) -> FloatArray:
    """Return what the convolution of ``source`` leaves of ``result`` over a window.

    Parameters
    ----------
    source : (m, n) array
        Any real dtype and layout; computed with in float64.
    kernel : (p, q) float64 array
        The kernel; it is flipped here.
    window : Window
        The output pixels, and what they are made of.
    result : array, optional
        Zeros where None, which returns the convolution negated.
    workers : int
        Threads to use.

    Returns
    -------
    (height, width) float64 array
        Result less convolution, ``window.shape``.
    """
    taps = np.ascontiguousarray(kernel[::-1, ::-1])
    p, q = taps.shape
    out = np.empty(window.shape)
    tiles = _tiles.Tiles(window.shape, TILE_SHAPE)

    def work(
        tile: tuple[int, int, int, int],
        scratch: AnyArray,
        stopped: Callable[[], bool],  # noqa: ARG001
    ) -> None:
        top, left, height, width = tile
        x = scratch[: (height + p - 1) * (width + q - 1)].reshape(height + p - 1, width + q - 1)
        load(source, window.source_pixel(top, left), window.boundary, x)
        y = np.zeros((height, width))
        if result is not None:
            load(result, window.result_pixel(top, left), window.boundary, y)
        stencil.subtract_correlation(x, taps, (height, width), y)
        out[top : top + height, left : left + width] = y

    size = (TILE_SHAPE[0] + p - 1) * (TILE_SHAPE[1] + q - 1)
    _tiles.run([partial(work, tile) for tile in tiles], lambda: np.empty(size), workers)
    return out
