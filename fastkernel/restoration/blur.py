"""The blur of an unknown image into a frame, and its adjoint, tile by tile."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np

from fastkernel._images.windows import Window, centre, window_of_mode
from fastkernel._loops.tile_copies import write_tile
from fastkernel._machine.tiles import Scratch, Tile, Tiles, run_jobs
from fastkernel._typing import AnyArray, Boundary, FloatArray, Shape
from fastkernel.convolution.convolution_cost import round_trip_pays
from fastkernel.convolution.convolution_engines import (
    TILE_SHAPE,
    Change,
    Correlation,
    Plane,
    RoundTrip,
    Take,
    rank_one_factors,
)
from fastkernel.convolution.convolve import convolve_adjoint
from fastkernel.convolution.request import as_taps


def each_tile(act: Callable[[Tile, Scratch], None], shape: Shape, workers: int) -> None:
    """Work on every tile of an image."""

    def work(tile: Tile, scratch: Scratch, stopped: Callable[[], bool]) -> None:  # noqa: ARG001
        act(tile, scratch)

    jobs = [partial(work, tile) for tile in Tiles(shape, TILE_SHAPE)]
    run_jobs(jobs, Scratch, workers)


def _write(found: AnyArray, tile: Tile, out: AnyArray) -> None:
    """Write the beginning of ``found`` into a tile of an image."""
    top, left, height, width = tile
    write_tile(found, (height, width), out, top, left)


class Blur:
    """The blur of an unknown image into a frame, and its adjoint.

    Parameters
    ----------
    psf : (p, q) float64 array
        Finite.
    shape : (int, int)
        The frame: rows and columns of the data.
    boundary : str
        A border rule, or "unknown": the image reaches beyond the frame as far as the PSF does.
    dtype : dtype
        Of every image: float32 or float64.
    workers : int
        Threads to use.

    Attributes
    ----------
    grid : (int, int)
        Rows and columns of the unknown image.
    frame : (slice, slice)
        Where the data's frame stands in it.
    in_one_go : bool
        Whether `round_trip` takes less time than `forward` and `backward`.
    """

    def __init__(
        self, psf: FloatArray, shape: Shape, boundary: str, dtype: np.dtype[Any], workers: int
    ) -> None:
        (p, q), (m, n) = psf.shape, shape
        i, j = centre((p, q))
        self._psf, self._shape, self._workers = psf, shape, workers
        self._rule: Boundary | None = None
        self._forward_taps = as_taps(psf, dtype, flipped=True)
        self._backward_taps = as_taps(psf, dtype, flipped=False)
        if boundary == "unknown":
            self.grid = m + p - 1, n + q - 1
            top, left = p - 1 - i, q - 1 - j
            self._forward = Window((0, 0), (0, 0), shape, "zero")
            self._backward = Window((1 - p, 1 - q), (0, 0), self.grid, "zero")
        else:
            rule = cast(Boundary, boundary)
            self.grid, (top, left) = shape, (0, 0)
            self._forward = window_of_mode("same", shape, (p, q), rule)
            self._backward = Window((-i, -j), (0, 0), shape, rule)
            self._rule = None if rule in ("zero", "circular") else rule
        self.frame = slice(top, top + m), slice(left, left + n)
        self._round_trip = RoundTrip(self._forward_taps, self.grid)
        self.in_one_go = boundary == "unknown" and round_trip_pays(
            self.grid,
            (p, q),
            dtype.itemsize,
            separable=rank_one_factors(self._forward_taps) is not None,
        )

    def round_trip(self, estimate: AnyArray, change: Change, take: Take) -> None:
        """Blur an estimate, change the outcome, apply the adjoint, and have every tile taken."""
        self._round_trip.run(estimate, change, take, self._workers)

    def forward(self, estimate: AnyArray, change: Change, out: AnyArray) -> None:
        """Blur an estimate, change every tile of the outcome, and write it."""

        def write(found: AnyArray, tile: Tile, scratch: Scratch) -> None:  # noqa: ARG001
            top, left, height, width = tile
            change(found, (height, width), (top, left), tile)
            _write(found, tile, out)

        work = Correlation([Plane(estimate)], self._forward_taps, self._forward, write)
        work.run("auto", self._workers)

    def backward(self, ratio: AnyArray, take: Take) -> None:
        """Apply the adjoint, and have every tile of the outcome taken."""
        if self._rule is None:
            work = Correlation([Plane(ratio)], self._backward_taps, self._backward, take)
            work.run("auto", self._workers)
            return
        whole = convolve_adjoint(ratio, self._psf, self._shape, "same", self._rule, self._workers)

        def act(tile: Tile, scratch: Scratch) -> None:
            top, left, height, width = tile
            found = scratch.array("found", (height, width), whole.dtype)
            np.copyto(found, whole[top : top + height, left : left + width])
            take(found, tile, scratch)

        each_tile(act, self.grid, self._workers)

    def sensitivity(self, weights: AnyArray) -> AnyArray:
        """Return the adjoint of the weights: how much the data see of every pixel."""
        out = np.empty(self.grid, weights.dtype)

        def write(found: AnyArray, tile: Tile, scratch: Scratch) -> None:  # noqa: ARG001
            _write(found, tile, out)

        self.backward(weights, write)
        return out


def trimmed(psf: FloatArray) -> FloatArray:
    """Return a PSF without the zeros around it, its centre tap still at the centre."""
    for axis in (0, 1):
        used = np.flatnonzero(psf.any(axis=1 - axis))
        spare = min(used[0], psf.shape[axis] - 1 - used[-1])
        psf = psf.take(np.arange(spare, psf.shape[axis] - spare), axis)
    return psf
