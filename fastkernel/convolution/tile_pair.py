"""Two tiles that are convolved together, by transforms: their arrays, and spectra of taps."""

from typing import Any, NamedTuple

import numpy as np

from fastkernel._loops import circular, passes
from fastkernel._machine.tiles import Scratch, aligned_zeros
from fastkernel._typing import AnyArray, Shape


class _Arrays(NamedTuple):
    """Two tiles side by side, their transposes, and a panel of columns."""

    pair: AnyArray
    between: AnyArray
    panel: AnyArray


class TilePair:
    """The circular correlation of two tiles at a time.

    Parameters
    ----------
    lengths : (int, int)
        Rows and columns of a tile, as `passes.is_length` allows.
    dtype : dtype
        float32 or float64.
    """

    def __init__(self, lengths: Shape, dtype: np.dtype[Any]) -> None:
        self._lengths, self._dtype = lengths, dtype
        self._passes = passes.passes(lengths[0], dtype), passes.passes(lengths[1], dtype)

    def arrays(self, scratch: Scratch) -> _Arrays:
        """Return what `correlate` works in."""
        (m, n), dtype, width = self._lengths, self._dtype, passes.lanes(self._dtype)
        # A vector more in a row, and rows between the parts of a panel: nothing competes for places
        # in the cache.
        return _Arrays(
            scratch.array("pair", (2, m, n + width), dtype),
            scratch.array("between", (2, n, m + width), dtype),
            scratch.array("panel", (2, max(m, n) + 4, width), dtype),
        )

    def spectrum(self, taps: AnyArray) -> AnyArray:
        """Return what `correlate` takes for taps."""
        (m, n), (p, q) = self._lengths, taps.shape
        arrays = self.arrays(Scratch())
        arrays.pair.fill(0)
        # A correlation is a convolution with the taps turned around the first one.
        turned = -np.arange(p)[:, None], (-np.arange(q)) % n
        arrays.pair[0][turned] = taps / self._dtype.type(m * n)
        out = aligned_zeros(2 * m * n, self._dtype).reshape(2, m * n)
        self.transform(arrays, out)
        return out

    def transform(self, arrays: _Arrays, out: AnyArray) -> None:
        """Overwrite ``out``, (2, rows * columns), with the spectrum of both tiles."""
        circular.transform_pair(*arrays, *self._passes, out)

    def product(self, of_pair: AnyArray, spectrum: AnyArray, arrays: _Arrays) -> None:
        """Overwrite both tiles with what `correlate` makes of those with another spectrum."""
        pair, *room = arrays
        circular.pair_of_product(of_pair, spectrum, *room, *self._passes, pair)

    def correlate(self, arrays: _Arrays, spectrum: AnyArray) -> None:
        """Correlate both tiles in place; what wraps around stands in the last rows and columns."""
        circular.convolve_pair(*arrays, *self._passes, spectrum)
