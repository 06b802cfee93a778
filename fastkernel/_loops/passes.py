"""Which passes a transform of some length takes, and the factors that stand between them.

Plain Python: what it makes are tables that the loops of `circular` are given.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import DTypeLike

from fastkernel._loops._processor import VECTOR_BYTES

# The shortest transform: two passes, and whole vectors.
SHORTEST = 16


def lanes(dtype: DTypeLike) -> int:
    """Return how many pixels of ``dtype`` a vector holds."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


def is_length(n: int, dtype: DTypeLike) -> bool:
    """Return whether tiles can have ``n`` rows or columns.

    Examples
    --------
    >>> [n for n in range(200) if is_length(n, "f4") and n >= 64]
    [64, 96, 128, 192]
    """
    rest = n // 3 if n % 3 == 0 else n
    return rest >= SHORTEST and rest & (rest - 1) == 0 and n % lanes(dtype) == 0


@lru_cache(64)
def radices(n: int) -> tuple[int, ...]:
    """Return the radix of each pass of a transform of ``n`` points: 6, 8 or 4, the last not 6.

    Examples
    --------
    >>> radices(96), radices(256)
    ((4, 6, 4), (4, 8, 8))
    """
    threefold = n % 3 == 0
    exponent = (n & -n).bit_length() - 1 - threefold
    fours = -exponent % 3  # the fewest that leave a power of 8
    found = [4] * fours + [8] * ((exponent - 2 * fours) // 3)
    # Six is not the first: points a power of two apart compete for places in the cache.
    return (*found[:-1][:1], *[6] * threefold, *found[:-1][1:], found[-1])


@lru_cache(64)
def passes(n: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return the radices of a transform's passes, and the factors that stand between them.

    Parameters
    ----------
    n : int
        Points, see `is_length`.
    dtype : dtype
        float32 or float64.

    Returns
    -------
    (k,) int64 array
        Radices.
    (count,) array of dtype
        For every pass but the last, of radix ``r`` on blocks of ``N`` points, cosine and sine of
        ``-2 * pi * j * q / N`` for ``0 <= j < N / r`` and, inside, ``1 <= q < r``.
    """
    tables, size = [], n
    for radix in radices(n)[:-1]:
        turns = np.multiply.outer(np.arange(size // radix), np.arange(1, radix)) * (-2 / size)
        tables.append(np.stack([np.cos(np.pi * turns), np.sin(np.pi * turns)], axis=-1).ravel())
        size //= radix
    found = np.array(radices(n)), np.concatenate(tables).astype(dtype)
    for array in found:
        array.flags.writeable = False
    return found
