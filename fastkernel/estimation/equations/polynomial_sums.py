"""Sums over the pixels of a pair with the polynomials of a background."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import legvander

from fastkernel._images.borders import load
from fastkernel._images.pairs import Pair, refuse_unusable
from fastkernel._images.windows import Within
from fastkernel._loops import moments
from fastkernel._machine.tiles import Scratch, Tile, Tiles, run_jobs, shares
from fastkernel._typing import AnyArray, Boundary, FloatArray, Shape
from fastkernel.estimation.equations import gathering_engines as engines
from fastkernel.estimation.equations.background import BackgroundSums, terms_of
from fastkernel.estimation.polynomial import lines_of, scaled

# Pixels below which threads cost more than they save.
THREADED_PIXELS = 1_000_000


@dataclass(frozen=True, slots=True)
class _Axis:
    """The polynomials along one axis, at every shift of a window over a virtual source.

    The pixels that the window covers at every shift, the core, need to be summed at one shift
    alone: a shifted polynomial is a sum of those that are not. The other pixels, ``k - 1`` at
    either end, are kept one by one.

    Attributes
    ----------
    weights : (degree + 1, n + k - 1) float64 array
        Legendre polynomials over the core, 0 elsewhere.
    places : (n + k - 1,) intp array
        Which feature a pixel beyond the core is, -1 in the core.
    mix : (features, k, degree + 1) float64 array
        What every feature, sums over the core first, adds to the sums at every shift.
    """

    weights: FloatArray
    places: AnyArray
    mix: FloatArray


def _axis(n: int, k: int, degree: int, start: int, whole: int) -> _Axis:
    """Return the polynomials of an axis of ``n`` outputs and ``k`` taps, a part of a whole's."""
    length, first, last = n + k - 1, k - 1, max(n, k - 1)
    place = np.arange(float(length))
    core = (place >= first) & (place < last)
    weights = np.where(core[:, None], legvander(scaled(start + place, whole), degree), 0.0).T
    nodes = np.linspace(-1.0, 1.0, degree + 1) if degree else np.zeros(1)
    shifts = 2.0 * np.arange(k) / max(whole - 1, 1)
    shifted = legvander(nodes[:, None] - shifts, degree)
    within = np.linalg.solve(
        legvander(nodes, degree), shifted.reshape(degree + 1, k * (degree + 1))
    ).reshape(degree + 1, k, degree + 1)
    rim = np.flatnonzero(~core)
    offset = place[rim, None] - np.arange(k)
    beyond = legvander(scaled(start + offset, whole), degree)
    beyond[(offset < 0) | (offset >= n)] = 0
    places = np.full(length, -1)
    places[rim] = degree + 1 + np.arange(rim.size)
    return _Axis(np.ascontiguousarray(weights), places, np.concatenate([within, beyond]))


def _add_features(
    pixels: FloatArray, top: int, left: int, axes: tuple[_Axis, _Axis], out: FloatArray
) -> None:
    """Add what a tile of the virtual source holds of every pair of features to ``out``."""
    (height, width), (rows, cols) = pixels.shape, axes
    n = len(rows.weights)
    beyond = np.flatnonzero(cols.places[left : left + width] >= 0)
    across = np.zeros((height, n))
    weights = np.ascontiguousarray(cols.weights[:, left : left + width])
    moments.add_row_sums(pixels, width, weights, across)
    features = np.concatenate([across, pixels[:, beyond]], axis=1)
    number = np.concatenate([np.arange(n), cols.places[left + beyond]])
    down = np.zeros((len(number), n))
    weights = np.ascontiguousarray(rows.weights[:, top : top + height])
    moments.add_row_sums(np.ascontiguousarray(features.T), height, weights, down)
    out[:n, number] += down.T
    beyond = np.flatnonzero(rows.places[top : top + height] >= 0)
    out[np.ix_(rows.places[top + beyond], number)] += features[beyond]


@dataclass(frozen=True, slots=True)
class _FeatureJob:
    """Some tiles of a virtual image.

    Attributes
    ----------
    image, origin, boundary
        What is read, where it begins in ``image`` and what stands beyond.
    tiles : sequence of tiles
        Parts of what is read.
    axes : (_Axis, _Axis)
        Rows and columns.
    """

    image: AnyArray
    origin: Shape
    boundary: Boundary
    tiles: Sequence[Tile]
    axes: tuple[_Axis, _Axis]

    def __call__(self, scratch: Scratch, stopped: Callable[[], bool]) -> FloatArray:
        out = np.zeros((len(self.axes[0].mix), len(self.axes[1].mix)))
        for top, left, height, width in self.tiles:
            if stopped():
                break
            pixels = scratch.array("pixels", (height, width))
            load(self.image, (self.origin[0] + top, self.origin[1] + left), self.boundary, pixels)
            _add_features(pixels, top, left, self.axes, out)
        return out


def _polynomial_sums(
    image: AnyArray,
    origin: Shape,
    window_shape: Shape,
    kernel_shape: Shape,
    boundary: Boundary,
    degree: int,
    within: Within,
    workers: int,
) -> FloatArray:
    """Return the sums over a window at every shift, (p, q, degree + 1, degree + 1)."""
    (p, q), n = kernel_shape, degree + 1
    rows, cols = (
        _axis(n, k, degree, start, whole)
        for n, k, start, whole in zip(window_shape, kernel_shape, *within, strict=True)
    )
    total = np.zeros((len(rows.mix), len(cols.mix)))
    shape = window_shape[0] + p - 1, window_shape[1] + q - 1
    tiles = Tiles(shape, engines.direct_tile_shape("float", shape[1]))
    jobs = [
        _FeatureJob(image, origin, boundary, part, (rows, cols))
        for part in shares(tiles, engines.MAX_JOBS)
    ]
    for found in run_jobs(jobs, Scratch, workers if math.prod(shape) > THREADED_PIXELS else 1):
        total += found
    with np.errstate(over="ignore", invalid="ignore"):
        down = rows.mix.reshape(len(rows.mix), -1).T @ total
        both = down @ cols.mix.reshape(len(cols.mix), -1)
    return both.reshape(p, n, q, n).transpose(0, 2, 1, 3)


def background_sums(
    pair: Pair, kernel_shape: Shape, degree: int, workers: int = 1, whole: Pair | None = None
) -> BackgroundSums:
    """Gather the sums of a pair with the polynomials of a background.

    Parameters
    ----------
    pair : Pair
        Source, result, and which of their pixels belong together; in memory.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    degree : int
        Total degree, from 0 (a constant) to 4.
    workers : int, optional
        Threads to use. The answer is the same bit for bit.
    whole : Pair, optional
        The pair of which this is a block, for messages.

    Returns
    -------
    BackgroundSums
        A constant's of integer images are exact while they are below 2**53.

    Raises
    ------
    ValueError
        If the window has fewer rows or columns than ``degree + 1``, or a pixel that is used is
        not finite.

    Notes
    -----
    Both images are read once, at ``degree + 1`` multiply-adds a pixel, whatever the kernel.
    """
    source, result, window, *_ = pair
    within = pair.within
    if min(within.shape) <= degree:
        msg = (
            f"background of degree {degree} needs at least {degree + 1} rows and columns of "
            f"fitted pixels, got {within.shape}; lower the degree"
        )
        raise ValueError(msg)
    i, j = terms_of(degree)
    products, answer = (
        _polynomial_sums(
            image, origin, window.shape, shape, window.boundary, degree, within, workers
        )
        for image, origin, shape in (
            (source, window.source_origin, kernel_shape),
            (result, window.result_origin, (1, 1)),
        )
    )
    # A shift by (u, v) belongs to the tap that a convolution flips onto it.
    by_tap = products[::-1, ::-1, i, j].reshape(-1, len(i)).copy()
    phi_rows, phi_cols = lines_of(within, window.shape, degree)
    gram = (phi_rows.T @ phi_rows)[np.ix_(i, i)] * (phi_cols.T @ phi_cols)[np.ix_(j, j)]
    found = answer[0, 0, i, j]
    refuse_unusable([whole or pair], by_tap, found, 0.0)
    return BackgroundSums(degree, by_tap, gram, found)
