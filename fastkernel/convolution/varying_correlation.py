"""Correlation with taps that vary: kernels that are blended by functions of the row and the column.

A tile is read, and transformed, once for all kernels, and added up while it stands in the cache.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fastkernel._images.borders import load
from fastkernel._images.windows import Window
from fastkernel._loops import stencil, tile_copies
from fastkernel._machine.tiles import Scratch, Scratches, Tile, Tiles, run_jobs, shares, split
from fastkernel._typing import AnyArray, FloatArray, Shape
from fastkernel.convolution.convolution_cost import engine_times, fft_lengths
from fastkernel.convolution.convolution_engines import MAX_JOBS
from fastkernel.convolution.tile_pair import TilePair

# A tile with its surroundings, what one kernel makes of it, and their sum, in half of a
# second-level cache of 512 kB.
_TILE_SHAPE = (48, 256)

_FLOAT64 = np.dtype(np.float64)

# Adds what the kernels make of some tiles; tells whether all is finite.
_Work = Callable[[Sequence[Tile], Scratch], bool]


@dataclass(frozen=True)
class VaryingCorrelation:
    r"""A sum of correlations of an image, each times a function of the row and one of the column.

    .. math:: o_t = \sum_k v_k(t_0)\, u_k(t_1) \sum_s w_{ks}\, x_{t+s}

    Attributes
    ----------
    image : (m, n) array
        Any real dtype and layout.
    taps : (terms, p, q) float64 array
        Finite.
    down, across : (terms, height) and (terms, width) float64 arrays
        The functions.
    window : Window
        The outputs, and what they are made of.
    """

    image: AnyArray
    taps: FloatArray
    down: FloatArray
    across: FloatArray
    window: Window

    def add_to(self, out: FloatArray, engine: str, workers: int) -> bool:
        """Add the sum to the result.

        Parameters
        ----------
        out : float64 array
            The result, C order; the window alone is touched.
        engine : {"auto", "direct", "fft"}
            How; by the model of cost for "auto".
        workers : int
            Threads to use. The outcome is the same bit for bit.

        Returns
        -------
        bool
            False where transforms met a number that is not finite, which spoils its tile.
        """
        terms, p, q = self.taps.shape
        times = engine_times(self.window.shape, (p, q), _FLOAT64.itemsize)
        if engine == "auto":
            # One transform there, and one back for every kernel.
            engine = "fft" if times["fft"] * (terms + 1) / 2 < times["direct"] * terms else "direct"
        tile_shape, work = self._fft(out) if engine == "fft" else self._direct(out)

        def job(some: Sequence[Tile], scratch: Scratch, stopped: Callable[[], bool]) -> bool:
            fine = True
            with np.errstate(over="ignore", invalid="ignore"):
                for first, last in split(len(some), 2):
                    if stopped():
                        break
                    fine &= work(some[first:last], scratch)
            return fine

        parts = shares(Tiles(self.window.shape, tile_shape), MAX_JOBS, 2)
        jobs = [partial(job, part) for part in parts]
        return all(run_jobs(jobs, Scratches().lend, workers))

    def _load(self, tile: Tile, out: FloatArray) -> None:
        top, left, *_ = tile
        load(self.image, self.window.source_pixel(top, left), self.window.boundary, out)

    def _add(self, number: int, found: FloatArray, tile: Tile, out: FloatArray) -> bool:
        """Add what a kernel made of a tile."""
        top, left, height, width = tile
        down = self.down[number, top : top + height]
        across = self.across[number, left : left + width]
        first, start = self.window.result_origin
        return bool(tile_copies.add_tile(found, down, across, out, first + top, start + left))

    def _direct(self, out: FloatArray) -> tuple[Shape, _Work]:
        _, p, q = self.taps.shape

        def work(tiles: Sequence[Tile], scratch: Scratch) -> bool:
            for tile in tiles:
                height, width = tile[2:]
                shape = height + p - 1, stencil.row_length(width + q - 1, _FLOAT64)
                x = scratch.rows("x", shape, width + q - 1, _FLOAT64)
                self._load(tile, x[:, : width + q - 1])
                found = scratch.array("found", (height, width), _FLOAT64)
                for number, taps in enumerate(self.taps):
                    stencil.correlate_tile(x, (0, 0), taps, (height, width), found, 0, 0)
                    self._add(number, found, tile, out)
            return True

        return _TILE_SHAPE, work

    def _fft(self, out: FloatArray) -> tuple[Shape, _Work]:
        _, p, q = self.taps.shape
        m, n = lengths = fft_lengths(self.window.shape, (p, q), _FLOAT64.itemsize)
        pair = TilePair(lengths, _FLOAT64)
        spectra = [pair.spectrum(taps) for taps in self.taps]

        def work(tiles: Sequence[Tile], scratch: Scratch) -> bool:
            arrays, fine = pair.arrays(scratch), True
            arrays.pair.fill(0)
            for part, tile in zip(arrays.pair, tiles, strict=False):
                self._load(tile, part[: tile[2] + p - 1, : tile[3] + q - 1])
            of_pair = scratch.array("of pair", (2, math.prod(lengths)), _FLOAT64)
            pair.transform(arrays, of_pair)
            for number, spectrum in enumerate(spectra):
                pair.product(of_pair, spectrum, arrays)
                for found, tile in zip(arrays.pair, tiles, strict=False):
                    fine &= self._add(number, found, tile, out)
            return fine

        return (m - p + 1, n - q + 1), work
