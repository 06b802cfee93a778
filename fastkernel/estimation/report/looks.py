"""A small picture of a residual and its spectrum, gathered while the residual is read."""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from fastkernel._typing import BoolArray, FloatArray, Shape
from fastkernel.estimation.quality import Plane

# Pixels along the longer side of the picture, at most, and along the sides of a spectrum's tiles.
_SIDE, _TILE = 200, 64

# Frequencies, in cycles a pixel, below which detail is coarse.
_COARSE = 1 / 8


class Look:
    """What residuals look like from afar.

    Parameters
    ----------
    shapes : sequence of (int, int)
        Rows and columns of the residual of every pair.
    pair : int
        Which of them is pictured; the spectrum is that of all.

    Attributes
    ----------
    pair, n_pairs : int
        Which is pictured, and of how many.
    factor : int
        Rows and columns of the residual that are averaged for a pixel of `picture`.
    """

    def __init__(self, shapes: Iterable[Shape], pair: int) -> None:
        shapes = list(shapes)
        self.pair, self.n_pairs = pair, len(shapes)
        self.factor = -(-max(shapes[pair]) // _SIDE)
        self._rows: list[FloatArray] = []
        self._weights: list[FloatArray] = []
        self._tile = min(_TILE, *(n for shape in shapes for n in shape))
        self._power, self._n_tiles = np.zeros((self._tile, self._tile)), 0

    def watch(self, planes: Iterable[tuple[int, Plane]]) -> Iterator[Plane]:
        """Yield planes as they come, having looked at them."""
        for index, plane in planes:
            if index == self.pair:
                self._add_rows(plane.residual, plane.used)
            self._add_tiles(plane.residual, plane.used)
            yield plane

    def _add_rows(self, residual: FloatArray, used: BoolArray | None) -> None:
        weights = np.ones(residual.shape) if used is None else used.astype(np.float64)
        held = residual if used is None else np.where(used, residual, 0.0)
        starts = range(0, residual.shape[1], self.factor)
        self._rows.append(np.add.reduceat(held, starts, axis=1))
        self._weights.append(np.add.reduceat(weights, starts, axis=1))

    def _add_tiles(self, residual: FloatArray, used: BoolArray | None) -> None:
        from scipy import fft

        n = self._tile
        held = residual if used is None else np.where(used, residual, 0.0)
        down, across = (length // n for length in held.shape)
        if down == 0 or n < 2:
            return
        tiles = held[: down * n, : across * n].reshape(down, n, across, n).swapaxes(1, 2)
        window = np.sin(np.pi * (np.arange(n) + 0.5) / n)
        spectra = fft.fft2(tiles * np.multiply.outer(window, window))
        self._power += np.sum(spectra.real**2 + spectra.imag**2, axis=(0, 1))
        self._n_tiles += down * across

    @property
    def picture(self) -> FloatArray:
        """The residual of one pair in result units, averaged; NaN where no pixel counts."""
        starts = range(0, sum(map(len, self._rows)), self.factor)
        total, weight = (
            np.add.reduceat(np.concatenate(parts), starts, axis=0)
            for parts in (self._rows, self._weights)
        )
        return np.where(weight > 0, total / np.maximum(weight, 1), np.nan)

    @property
    def spectrum(self) -> FloatArray | None:
        """Power over that of white noise of the same energy, frequency 0 in the middle.

        The mean over tiles of the periodograms, each under half a period of a sine [1]_. None
        where there is nothing left, or no tile.

        References
        ----------
        .. [1] P. D. Welch, "The use of fast Fourier transform for the estimation of power
           spectra", IEEE Trans. Audio Electroacoust. 15 (1967) 70-73,
           doi:10.1109/TAU.1967.1161901.
        """
        mean = float(self._power.mean())
        if self._n_tiles == 0 or not 0 < mean < math.inf:
            return None
        return np.asarray(np.fft.fftshift(self._power) / mean)

    @property
    def coarse(self) -> float:
        """Power of coarse detail over that of white noise of the same energy; NaN if unknown."""
        spectrum = self.spectrum
        if spectrum is None:
            return math.nan
        places = np.fft.fftshift(np.fft.fftfreq(self._tile))
        return float(spectrum[np.hypot(*np.meshgrid(places, places)) < _COARSE].mean())
