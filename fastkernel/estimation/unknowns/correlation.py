"""Where a source and a result go together, told by a correlation of the whole images."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import fft

from fastkernel._images.crops import fitted_to, middle_of, moved
from fastkernel._images.pairs import in_memory
from fastkernel._images.usable import Observed
from fastkernel._typing import AnyArray, BoolArray, FloatArray, Shape

# The longest side of images that are correlated; longer ones are averaged in blocks.
_SIDE = 1024

# The guard of the quotient of spectra, in mean powers of the source: less lets noise through,
# more lets the picture's own likeness to itself.
_GUARD = 0.1

# Pixels around a peak that belong to it: kernels of 31 pixels, and what tapers smear. Of its height
# so much is no part of it.
_PEAK, _BASE = 16, 0.1


class Place(NamedTuple):
    """Where two images go together.

    Attributes
    ----------
    offset : (int, int)
        Rows down and columns to the right by which the result was moved, in pixels.
    middle : (float, float)
        The same, of the centroid of the peak.
    peak : float
        By what factor it stands out of the best place that is none of it; 0 if there is no other,
        or nothing to correlate.
    """

    offset: Shape
    middle: tuple[float, float]
    peak: float


def correlated(images: Sequence[Observed]) -> Place:
    """Return where results go together with their sources, up to a quarter of the frame.

    Parameters
    ----------
    images : sequence of Observed
        Pairs that were moved alike. Their shapes may differ by those of a kernel.

    Notes
    -----
    The quotient of the spectra, guarded where the source has little power, is a picture of the
    kernel where it was moved to: unlike a correlation it does not show the source's likeness to
    itself, and unlike a phase correlation it does not take all frequencies for equally good.
    """
    alike = [fitted_to(pair, (1, 1)) for pair in images]
    factor = max(-(-max(pair.source.shape) // _SIDE) for pair in alike)
    place = _place(alike, factor, None)
    if factor == 1 or place.peak == 0:
        return place
    row, col = (i * factor for i in place.offset)
    parts = [middle_of(moved(pair, (row, col)), _SIDE) for pair in alike]
    near = _place(parts, 1, 2 * factor)
    (down, right), (below, beside), _ = near
    return Place((row + down, col + right), (row + below, col + beside), place.peak)


def _place(images: Sequence[Observed], factor: int, most: int | None) -> Place:
    """Return where averages of images over blocks go together."""
    pairs = [
        (
            _averaged(pair.source, pair.source_bad, factor),
            _averaged(pair.result, pair.result_bad, factor),
        )
        for pair in images
    ]
    quarters = [
        min(n // 4 for n in sides) for sides in zip(*(x.shape for x, _ in pairs), strict=True)
    ]
    reach = quarters[0], quarters[1]
    if most is not None:
        reach = min(most, reach[0]), min(most, reach[1])
    quotients = np.zeros((2 * reach[0] + 1, 2 * reach[1] + 1))
    for x, y in pairs:
        quotients += _quotient(x, y, reach)
    return _peak(quotients, reach)


def _averaged(image: AnyArray, bad: BoolArray | None, factor: int) -> FloatArray:
    """Return means of blocks, less the mean of all, faded out at the frame."""
    pixels = np.asarray(in_memory(image), np.float64)
    if bad is not None:
        pixels = np.where(bad, pixels[~bad].mean() if not bad.all() else 0.0, pixels)
    rows, cols = (n // factor for n in pixels.shape)
    blocks = pixels[: rows * factor, : cols * factor].reshape(rows, factor, cols, factor)
    means = blocks.mean(axis=(1, 3))
    fade = np.multiply.outer(*(np.hanning(n + 2)[1:-1] for n in means.shape))
    return np.asarray((means - means.mean()) * fade)


def _quotient(x: FloatArray, y: FloatArray, reach: Shape) -> FloatArray:
    """Return the squares of the guarded quotient of spectra at shifts within reach."""
    grid = [fft.next_fast_len(n + k + 1, real=True) for n, k in zip(x.shape, reach, strict=True)]
    before, after = fft.rfft2(x, grid), fft.rfft2(y, grid)
    power = np.abs(before) ** 2
    guard = _GUARD * power.mean()
    if not guard > 0:
        return np.zeros((2 * reach[0] + 1, 2 * reach[1] + 1))
    quotient = fft.irfft2(after * before.conj() / (power + guard), grid)
    rows, cols = (np.arange(-k - 1, k + 2) for k in reach)
    squares = quotient[np.ix_(rows, cols)] ** 2
    for _ in range(2):  # means of three rows, then of three columns
        squares = (squares[:-2] + squares[1:-1] + squares[2:]).T / 3
    return np.asarray(squares)


def _peak(squares: FloatArray, reach: Shape) -> Place:
    """Return the largest of all shifts, and how far it stands out of those that are not near."""
    row, col = (int(i) for i in np.unravel_index(squares.argmax(), squares.shape))
    down, right = (min(_PEAK, 2 * k // 3) for k in reach)
    top, left = max(row - down, 0), max(col - right, 0)
    near = np.s_[top : row + down + 1, left : col + right + 1]
    far = squares.copy()
    far[near] = 0
    highest, second = float(squares[row, col]), float(far.max())
    if not second > 0:
        return Place((0, 0), (0.0, 0.0), 0.0)
    weight = np.maximum(squares[near] - max(second, _BASE * highest), 0.0)
    middle = float(row), float(col)
    if weight.any():
        below, beside = np.indices(weight.shape)
        total = float(weight.sum())
        middle = (
            top + float((weight * below).sum()) / total,
            left + float((weight * beside).sum()) / total,
        )
    offset = row - reach[0], col - reach[1]
    return Place(offset, (middle[0] - reach[0], middle[1] - reach[1]), math.sqrt(highest / second))
