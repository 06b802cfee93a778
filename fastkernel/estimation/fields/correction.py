"""Corrections that make the fit of tiles that of pixels, where the difference can be seen."""

import math
from collections.abc import Sequence

import numpy as np

from fastkernel._images.pairs import Pair
from fastkernel._images.windows import Window
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import split
from fastkernel._typing import FloatArray
from fastkernel.convolution.convolve import convolved
from fastkernel.estimation.equations.background import terms_of
from fastkernel.estimation.equations.sweeps import View, sweep
from fastkernel.estimation.fields.field_sums import Frame, tiles_of
from fastkernel.estimation.polynomial import values_of

# Rows that are read at a time, and tiles that tell whether corrections can be seen.
_STRIP_ROWS, _LOOKED_AT = 256, 24

# Share of the residual that the polynomials' course inside a tile may make up.
_SEEN = 0.05


def part_of(window: Window, top: int, left: int, height: int, width: int) -> Window:
    """Return the window of a part of another's outputs."""
    source, result = window.source_pixel(top, left), window.result_pixel(top, left)
    return Window(source, result, (height, width), window.boundary)


def tiles_show(
    pair: Pair, coefficients: FloatArray, frame: Frame, tile: int, residual_rms: float, run: Run
) -> bool:
    """Tell whether what tiles leave out, the polynomials' course in them, is seen in the residual."""
    tiles = tiles_of(pair.window.shape, tile)
    chosen = tiles[:: max(1, len(tiles) // _LOOKED_AT)]
    total = pixels = 0.0
    for top, left, height, width in chosen:
        window = part_of(pair.window, top, left, height, width)
        row, col = window.result_origin
        rows, cols = np.arange(height)[:, None] + row, np.arange(width) + col
        values = frame.values(rows, cols)
        course = values - values.mean(axis=(1, 2), keepdims=True)
        off = np.zeros((height, width))
        for value, taps in zip(course, coefficients, strict=True):
            off += value * convolved(pair.source, taps, window, 1)
        total += float(np.sum(off**2))
        pixels += height * width
    return math.sqrt(total / pixels) > _SEEN * residual_rms


def varying_residual(
    pair: Pair,
    coefficients: FloatArray,
    background: FloatArray | None,
    frame: Frame,
    run: Run,
) -> tuple[FloatArray, FloatArray, float]:
    r"""Return what a varying kernel leaves, as sums over pixels.

    Parameters
    ----------
    pair : Pair
        Of images in memory.
    coefficients : (terms, p, q) float64 array
        Of the taps.
    background : (d + 1, d + 1) float64 array or None
        By degree.
    frame : Frame
        The polynomials of the taps.
    run : Run
        How. The answer is the same bit for bit.

    Returns
    -------
    moments : (terms, p * q) float64 array
        By tap: :math:`\sum_t w_t r_t \phi_j(t) x_{t+a}`.
    beside : (background terms,) float64 array
        The residual times the background's polynomials.
    energy : float
        Of the residual, by the weights.
    """
    terms, p, q = coefficients.shape
    height, width = pair.window.shape
    degree = -1 if background is None else len(background) - 1
    names = terms_of(degree) if degree >= 0 else ([], [])
    down, across = (values_of(n, max(degree, 0)).T for n in pair.window.shape)
    moments, beside, energy = np.zeros((terms, p, q)), np.zeros(len(names[0])), 0.0
    for top, bottom in split(height, _STRIP_ROWS):
        window = part_of(pair.window, top, 0, bottom - top, width)
        row, col = window.result_origin
        values = frame.values(np.arange(bottom - top)[:, None] + row, np.arange(width) + col)
        inside = slice(row, row + bottom - top), slice(col, col + width)
        left = np.array(pair.result[inside], np.float64)
        for value, taps in zip(values, coefficients, strict=True):
            left -= value * convolved(pair.source, taps, window, run.workers)
        if background is not None:
            left -= down[:, top:bottom].T @ (background @ across)
        weights = np.empty(left.shape)
        pair.load_weights(top, 0, weights)
        weights *= left
        energy += float(np.sum(weights * left))
        for k, (i, j) in enumerate(zip(*names, strict=True)):
            beside[k] += down[i, top:bottom] @ (weights @ across[j])
        own = Window(window.source_origin, (0, 0), window.shape, window.boundary)
        parts = [Pair(pair.source, value * weights, own) for value in values]
        moments += _correlations(parts, (p, q), run)
    return moments[:, ::-1, ::-1].reshape(terms, -1), beside, energy


def _correlations(pairs: Sequence[Pair], shape: tuple[int, int], run: Run) -> FloatArray:
    """Return the correlations of results with their sources, by shift, one a pair."""

    def act(_: View, __: bool | None) -> bool:
        return True

    out = np.zeros((len(pairs), *shape))
    for number, moments, _ in sweep(pairs, np.zeros(shape), act, run):
        out[number] += moments
    return out
