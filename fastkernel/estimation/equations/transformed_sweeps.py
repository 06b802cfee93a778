"""Sweeps for kernels of so many taps that transforms of tiles take less time than taps do."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastkernel._images.borders import load
from fastkernel._images.pairs import Pair
from fastkernel._machine.fft import borrowed_tile_transforms
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import Scratch, Tile, Tiles, shares
from fastkernel._typing import FloatArray, Shape
from fastkernel.convolution.convolution_cost import engine_times, fft_lengths
from fastkernel.estimation.equations import gathering_engines as engines
from fastkernel.estimation.equations.sweeps import View, each_pair, place_in

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _TransformJob(Generic[T]):
    """Some tiles of a pair, convolved and correlated by transforms.

    The products of spectra add up over the tiles, and are transformed back once.

    Attributes
    ----------
    number : int
        Of the pair,
    pair : Pair
        and what is read,
    origin : (int, int)
        and where that begins in the pair's window.
    shape : (int, int)
        Of the kernel.
    spectrum : complex128 array
        Of the kernel by shift, conjugate and scaled for a transform back.
    lengths : (int, int)
        Shape of the transforms.
    tiles : sequence of tiles
        Parts of the window.
    act : callable
        See `sweeps.sweep`.
    """

    number: int
    pair: Pair
    origin: Shape
    shape: Shape
    spectrum: NDArray[np.complex128]
    lengths: Shape
    tiles: Sequence[Tile]
    act: Callable[[View, T | None], T]

    def __call__(
        self, scratch: Scratch, stopped: Callable[[], bool]
    ) -> tuple[int, FloatArray, T | None]:
        (source, result, window, *_), (p, q) = self.pair, self.shape
        total, found = np.zeros(self.spectrum.shape, np.complex128), None
        with borrowed_tile_transforms(self.lengths, np.dtype(np.float64)) as plan:
            for tile in self.tiles:
                if stopped():
                    break
                top, left, height, width = tile
                rows, cols = height + p - 1, width + q - 1
                plan.tile[rows:] = 0
                plan.tile[:rows, cols:] = 0
                x = plan.tile[:rows, :cols]
                load(source, window.source_pixel(top, left), window.boundary, x)
                plan.forward()
                spectrum = scratch.array("spectrum", self.spectrum.shape, np.complex128)
                np.copyto(spectrum, plan.spectrum)
                np.multiply(spectrum, self.spectrum, out=plan.spectrum)
                plan.inverse()
                convolved = scratch.array("convolved", (height, width))
                y = scratch.array("y", (height, width))
                np.copyto(convolved, plan.tile[:height, :width])
                load(result, window.result_pixel(top, left), window.boundary, y)
                place = top + self.origin[0], left + self.origin[1], height, width
                view = View(self.number, place, x, y, convolved, scratch, stopped)
                found = self.act(view, found)
                plan.tile[height:] = 0
                plan.tile[:height, width:] = 0
                plan.tile[:height, :width] = y
                plan.forward()
                np.conjugate(plan.spectrum, out=plan.spectrum)
                plan.spectrum *= spectrum
                total += plan.spectrum
            plan.spectrum[:] = total
            plan.inverse()
            moments = plan.tile[:p, :q] / math.prod(self.lengths)
        return self.number, moments, found


def sweep_by_transforms(
    pairs: Sequence[Pair], taps: FloatArray, act: Callable[[View, T | None], T], run: Run
) -> Iterator[tuple[int, FloatArray, T]]:
    """Do what `sweeps.sweep` does, but for rounding, which is that of the largest values of a tile.

    Parameters, what is yielded and the action are those of `sweeps.sweep`; ``view.x`` does not
    hold the source.
    """
    (p, q), float64 = taps.shape, np.dtype(np.float64)

    def make_jobs(number: int, pair: Pair) -> list[_TransformJob[T]]:
        lengths = fft_lengths(pair.window.shape, (p, q), 8)
        with borrowed_tile_transforms(lengths, float64) as plan:
            plan.tile[:] = 0
            plan.tile[:p, :q] = taps
            plan.forward()
            spectrum = plan.spectrum.conj() / math.prod(lengths)
        tiles = Tiles(pair.window.shape, (lengths[0] - p + 1, lengths[1] - q + 1))
        origin = place_in(pairs[number], pair)
        return [
            _TransformJob(number, pair, origin, (p, q), spectrum, lengths, part, act)
            for part in shares(tiles, engines.MAX_JOBS)
        ]

    for _, pieces in each_pair(pairs, (p, q), make_jobs, run):
        for _, (number, moments, last) in pieces:
            if last is not None:
                yield number, moments, last


def transforms_win(pairs: Sequence[Pair], kernel_shape: Shape) -> bool:
    """Tell whether two transforms there and one back take less time than two direct passes.

    FFTW takes 1.6 times as long for a tile as a pair of tiles takes for its half.
    """
    times = [engine_times(pair.window.shape, kernel_shape, 8) for pair in pairs]
    return 2 * sum(t["direct"] for t in times) > 1.5 * 1.6 * sum(t["fft"] for t in times)
