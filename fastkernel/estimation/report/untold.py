"""What a source tells least of: patterns of taps that change its convolution least."""

import math
from typing import NamedTuple

import numpy as np

from fastkernel._machine import lapack
from fastkernel._typing import FloatArray

# Times a pattern's side along which its transform is read.
_FINE = 8

# Cycles a tap from which on neighbours are opposite, and below which, in periods of the kernel's
# side, a pattern does not vary.
_ALTERNATES, _STANDS = 0.4, 0.5


class Pattern(NamedTuple):
    """A pattern of taps.

    Attributes
    ----------
    taps : (p, q) float64 array
        Of unit energy, its largest tap positive.
    share : float
        Energy that the source holds of it, over that of the pattern it holds most of.
    error : float
        Standard error that it lends to the tap where it is largest, over the kernel's largest
        tap; NaN where error bars are not known.
    words : str
        What it looks like.
    """

    taps: FloatArray
    share: float
    error: float
    words: str


def least_told(
    gram: FloatArray, covariance: FloatArray, kernel: FloatArray, count: int
) -> list[Pattern]:
    """Return the patterns of taps that the source tells least of, the least first.

    Parameters
    ----------
    gram : (p * q, p * q) float64 array
        Of the equations, in squared source units.
    covariance : (p * q, p * q) float64 array
        Of the taps, NaN where it is not known.
    kernel : (p, q) float64 array
        The taps.
    count : int
        How many patterns, at most.

    Returns
    -------
    list of Pattern
        Eigenvectors of the Gram matrix, from the least eigenvalue on.
    """
    values, vectors = lapack.eigenvectors(gram)
    most = float(values[-1])
    largest = float(np.abs(kernel).max()) or 1.0
    found = []
    for value, vector in zip(values[:count], vectors.T, strict=False):
        peak = vector[np.abs(vector).argmax()]
        taps = np.asarray(vector * np.sign(peak)).reshape(kernel.shape)
        variance = float(vector @ covariance @ vector)
        error = math.sqrt(max(variance, 0.0)) * abs(float(peak)) / largest
        share = max(float(value), 0.0) / most if most > 0 else 0.0
        found.append(Pattern(taps, share, error, words_for(taps)))
    return found


def words_for(taps: FloatArray) -> str:
    """Say what a pattern of taps looks like.

    Examples
    --------
    >>> words_for(np.array([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0], [1.0, -1.0, 1.0]]))
    'a chequerboard: every tap against its neighbours'
    >>> words_for(np.array([[1.0, -1.0, 1.0, -1.0]]))
    'columns of taps in turn up and down'
    >>> words_for(np.ones((3, 3)))
    'all taps alike: their sum'
    """
    shape = [n * _FINE for n in taps.shape]
    power = np.abs(np.fft.fft2(taps, shape))
    row, col = np.unravel_index(int(power.argmax()), power.shape)
    down, across = (min(i, n - i) / n for i, n in zip((int(row), int(col)), shape, strict=True))
    stands = [f * n <= _STANDS for f, n in zip((down, across), taps.shape, strict=True)]
    if all(stands):
        return "all taps alike: their sum"
    if min(down, across) >= _ALTERNATES:
        return "a chequerboard: every tap against its neighbours"
    if any(stands):
        name, frequency = ("columns", across) if stands[0] else ("rows", down)
        if frequency >= _ALTERNATES:
            return f"{name} of taps in turn up and down"
        return f"waves of {1 / frequency:.1f} taps from {name[:-1]} to {name[:-1]}"
    return f"slanting waves of {1 / math.hypot(down, across):.1f} taps"
