r"""Corrections that make the fit of tiles the fit of pixels, where the difference would be seen.

Tiles take the functions of position to be constant inside them. The equations of pixels,

.. math:: \sum_t w_t\, \phi_j(t)\, x_{t+a}\, r_t = 0, \qquad
          r_t = y_t - \sum_l \phi_l(t)\, (c_l * x)_t,

are never formed: passes over the pixels apply them, and conjugate gradients with the equations of
tiles as a preconditioner solve them in a few.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastkernel._images.borders import load
from fastkernel._images.pairs import Pair
from fastkernel._loops import lags, stencil
from fastkernel._machine import lapack
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import Scratch, Tile, Tiles, run_jobs, shares
from fastkernel._typing import AnyArray, FloatArray, Shape
from fastkernel.estimation.equations import gathering_engines as engines
from fastkernel.estimation.fields.field_equations import Asked, Solved
from fastkernel.estimation.fields.field_sums import background_lines, tile_edges
from fastkernel.estimation.methods.lstsq import rounding_shows

_EPS = float(np.finfo(np.float64).eps)

# The change of the prediction, in standard deviations of the noise, below which it is not worth a
# pass: no tap at any place is then biased by more than this part of its own standard error.
SEEN = 0.3

# Tiles that tell how much corrections would change.
_LOOKED_AT = 48

# Passes of conjugate gradients, and fresh starts with a residual that rounding has not reached.
_MAX_PASSES, _MAX_STARTS = 25, 3

# The change of the prediction, as a part of the result, that is rounding.
_ROUNDING = 1e-10


class _Passed(NamedTuple):
    """Sums over what a varying kernel leaves, by shift; the background's by degree."""

    moments: FloatArray
    beside: FloatArray
    energy: float


@dataclass(frozen=True, slots=True)
class _PassJob:
    """What a varying kernel leaves of some tiles.

    Attributes
    ----------
    pair : Pair
        Of images in memory.
    tiles : sequence of tiles
        Parts of its window.
    taps : (terms, p, q) float64 array
        Those of every function of position, by shift.
    numbers : pair of lists of int
        Which functions of the row and of the column every term is the product of.
    lines : pair of (functions, n) float64 arrays
        The functions along the window's rows and columns.
    back : pair of (functions, n) float64 arrays
        Those by which what is left is summed.
    sky : pair of (degree + 1, n) float64 arrays
        The background's polynomials along them.
    background : (degree + 1, degree + 1) float64 array
        Its coefficients.
    alone : bool
        Whether the result is taken to be zero.
    """

    pair: Pair
    tiles: Sequence[Tile]
    taps: FloatArray
    numbers: tuple[list[int], list[int]]
    lines: tuple[FloatArray, FloatArray]
    back: tuple[FloatArray, FloatArray]
    sky: tuple[FloatArray, FloatArray]
    background: FloatArray
    alone: bool = False

    def __call__(self, scratch: Scratch, stopped: Callable[[], bool]) -> _Passed:
        (source, _, window, *_), (_, p, q) = self.pair, self.taps.shape
        dtype = np.dtype(np.float64)
        lanes, sums = (
            lags.vector_lanes(dtype),
            scratch.array("sums", lags.sums_shape((p, q), dtype)),
        )
        out = np.zeros((len(self.taps), lags.KINDS, p, q))
        beside, energy = np.zeros(self.background.shape), 0.0
        for tile in self.tiles:
            if stopped():
                break
            top, left, height, width = tile
            cols = width + q - 1
            x = scratch.rows("x", (height + p - 1, stencil.row_length(cols, dtype)), cols)
            load(source, window.source_pixel(top, left), window.boundary, x[:, :cols])
            rest = scratch.array("rest", (height, width))
            other = scratch.rows("other", (height, -(-width // lanes) * lanes + lanes), width)
            self._leave(x, self._parts(self.lines, tile), (top, left), scratch, rest)
            weights = scratch.array("weights", (height, width))
            self.pair.load_weights(top, left, weights)
            weights *= rest
            energy += float(np.vdot(weights, rest))
            down, across = (
                line[:, start : start + n]
                for line, start, n in zip(self.sky, (top, left), (height, width), strict=True)
            )
            beside += down @ weights @ across.T
            for number, rows, columns in self._parts(self.back, tile):
                np.multiply(weights, columns, out=other[:, :width])
                other[:, :width] *= rows[:, None]
                what = x[None], other[None], (height, width), False
                lags.add_tiles(*what, sums, out[number][None])
        return _Passed(out[:, 0], beside, energy)

    def _parts(
        self, lines: tuple[FloatArray, FloatArray], tile: Tile
    ) -> list[tuple[int, FloatArray, FloatArray]]:
        """Return the terms that are not zero in a tile, with their functions there."""
        (top, left, height, width), (down, across) = tile, lines
        found = []
        for number, (i, j) in enumerate(zip(*self.numbers, strict=True)):
            rows, columns = down[i, top : top + height], across[j, left : left + width]
            if rows.any() and columns.any():
                found.append((number, rows, columns))
        return found

    def _leave(
        self,
        x: FloatArray,
        parts: list[tuple[int, FloatArray, FloatArray]],
        place: tuple[int, int],
        scratch: Scratch,
        rest: FloatArray,
    ) -> None:
        """Write what the kernel and the background leave of a tile into ``rest``."""
        (height, width), window = rest.shape, self.pair.window
        if self.alone:
            rest.fill(0.0)
        else:
            load(self.pair.result, window.result_pixel(*place), window.boundary, rest)
        made = scratch.array("made", (height, width))
        for number, rows, columns in parts:
            stencil.correlate_tile(x, (0, 0), self.taps[number], (height, width), made, 0, 0)
            np.multiply(made, columns, out=made)
            np.multiply(made, rows[:, None], out=made)
            rest -= made
        down, across = (
            line[:, start : start + n]
            for line, start, n in zip(self.sky, place, (height, width), strict=True)
        )
        if self.background.any():
            rest -= down.T @ (self.background @ across)


class Reader(Protocol):
    """What reads the pixels of a pair again, in terms of what is solved for."""

    @property
    def pair(self) -> Any:
        """The images, one machine's or a cluster's."""

    asked: Asked
    window_shape: Shape

    def left(self, unknowns: FloatArray, *, alone: bool) -> tuple[FloatArray, float]:
        """Return the scores of what coefficients leave, and its energy."""

    def courses(
        self, unknowns: FloatArray, tiles: Sequence[Tile], places: FloatArray
    ) -> FloatArray:
        """Return what the course of the functions inside tiles takes off the scores of each."""


class PairReader:
    """Passes over the pixels of a pair in memory, or of a part of one.

    Parameters
    ----------
    pair : Pair
        Of images in memory. In a part of a whole all is counted in the whole.
    asked : Asked
        What is fitted.
    run : Run
        How. The answer is the same bit for bit.
    first : (int, int), optional
        Row and column of the frame at which the window begins; those of the result if None.
    """

    def __init__(self, pair: Pair, asked: Asked, run: Run, first: Shape | None = None) -> None:
        self.pair, self.asked, self.run = pair, asked, run
        self.window_shape = pair.window.shape
        (top, left), (height, width) = first or pair.window.result_origin, pair.window.shape
        frame = asked.frame
        self.lines = frame.line(0, np.arange(height) + top), frame.line(1, np.arange(width) + left)
        self.sky, self.degrees = background_lines(pair, asked.background)

    def _job(
        self,
        unknowns: FloatArray,
        tiles: Sequence[Tile],
        lines: tuple[FloatArray, FloatArray],
        back: tuple[FloatArray, FloatArray],
        *,
        alone: bool = False,
    ) -> _PassJob:
        """Return the work of a pass."""
        taps, beside = self.asked.unknowns.values(unknowns)
        background = np.zeros((len(self.sky[0]), len(self.sky[1])))
        background[self.degrees[:, 0], self.degrees[:, 1]] = beside
        return _PassJob(
            self.pair,
            tiles,
            np.ascontiguousarray(taps[:, ::-1].reshape(-1, *self.asked.kernel_shape)),
            self.asked.frame.numbers,
            lines,
            back,
            self.sky,
            background,
            alone,
        )

    def _constant(self, place: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return lines of functions that have the values of a place everywhere."""
        down, across = (
            np.repeat(self.asked.frame.line(axis, place[axis])[:, None], line.shape[1], axis=1)
            for axis, line in enumerate(self.lines)
        )
        return down, across

    def _scores(self, moments: FloatArray, beside: AnyArray) -> FloatArray:
        """Return sums of a pass by what is solved for."""
        by_tap = moments[:, ::-1, ::-1].reshape(len(moments), -1)
        sky = beside[self.degrees[:, 0], self.degrees[:, 1]]
        return np.concatenate([self.asked.unknowns.seen(by_tap), sky])

    def left(self, unknowns: FloatArray, *, alone: bool) -> tuple[FloatArray, float]:
        """Return the scores of what coefficients leave, and its energy; ``alone`` of no result."""
        shape = self.window_shape
        tiles = Tiles(shape, engines.direct_tile_shape("float", shape[1]))
        jobs = [
            self._job(unknowns, part, self.lines, self.lines, alone=alone)
            for part in shares(tiles, engines.MAX_JOBS)
        ]
        parts = list(run_jobs(jobs, Scratch, self.run.workers))
        moments, beside, energies = zip(*parts, strict=True)
        return self._scores(sum(moments), sum(beside)), float(sum(energies))

    def courses(
        self, unknowns: FloatArray, tiles: Sequence[Tile], places: FloatArray
    ) -> FloatArray:
        """Return what the course of the functions inside tiles takes off the scores of each.

        Parameters
        ----------
        unknowns : (n,) float64 array
            See `Unknowns`.
        tiles : sequence of tiles
            Parts of the window.
        places : (tiles, 2) float64 array
            Where they were taken to stand.

        Returns
        -------
        (tiles, n) float64 array
        """
        jobs = []
        for tile, place in zip(tiles, places, strict=True):
            flat = self._constant(place)
            jobs += [
                self._job(unknowns, [tile], lines, flat, alone=True) for lines in (self.lines, flat)
            ]
        parts = list(run_jobs(jobs, Scratch, self.run.workers))
        scores = np.array([self._scores(part.moments, part.beside) for part in parts])
        return np.asarray(scores[::2] - scores[1::2])


class _Passes(NamedTuple):
    """Passes over pixels, and the solution that they correct."""

    reader: Reader
    found: Solved

    def __call__(self, unknowns: FloatArray, *, alone: bool = False) -> tuple[FloatArray, float]:
        """Return the scores of what coefficients leave, and its energy.

        The scores are less what belongs to the penalty; ``alone`` those of no result at all.
        """
        scores, energy = self.reader.left(unknowns, alone=alone)
        if self.found.beside_pixels is not None:
            scores = scores - self.found.beside_pixels @ unknowns
        return scores, energy


def bias_of_tiles(passes: _Passes, places: FloatArray) -> float:
    """Estimate the squared change of the prediction by what tiles leave out, by the weights.

    Were the solution the truth, without noise, tiles would be off it by what the course of the
    functions inside them adds to the scores. That is found for some tiles of all; the square of
    the sum over all follows from pairs of them, and is not taken to be less than if tiles knew
    nothing of each other.
    """
    reader, found = passes
    rows, cols = tile_edges(reader.window_shape, reader.asked.tile)
    known = np.flatnonzero(np.isfinite(places[:, 0]))
    some = min(_LOOKED_AT, len(known))
    chosen = np.random.default_rng(0).choice(known, some, replace=False)
    tiles = []
    for number in chosen.tolist():
        i, j = divmod(number, len(cols) - 1)
        tiles.append((rows[i], cols[j], rows[i + 1] - rows[i], cols[j + 1] - cols[j]))
    courses = reader.courses(found.unknowns, tiles, places[chosen])
    off = lapack.solve_lower(found.factor.lower, courses.T)
    each, together = float(np.sum(off**2)), float(np.sum(off.sum(axis=1) ** 2))
    if some == len(known):
        return together
    more = len(known) / some
    both = (together - each) * more * (len(known) - 1) / (some - 1)
    return more * each + max(both, 0.0)


def corrected(
    reader: Reader, found: Solved, places: FloatArray | None, n_pixels: int
) -> tuple[FloatArray, float]:
    """Return the solution of the equations of pixels, and the energy that it leaves.

    Parameters
    ----------
    reader : Reader
        Of the pair's pixels.
    found : Solved
        The solution of the equations of tiles, their factor the preconditioner.
    places : (tiles, 2) float64 array or None
        Where tiles were taken to stand; None where the equations are those of pixels already, which
        rounding alone can hide something of.
    n_pixels : int
        Pixels that are fitted.

    Notes
    -----
    Where the noise would hide what tiles leave out, the solution is theirs: with the bias ``d`` of
    the coefficients, the matrix ``A`` and the variance ``s**2`` of the residual, no sum of
    coefficients is off by more than ``sqrt(d @ A @ d) / s`` of its standard errors.
    """
    freedom = max(n_pixels - len(found.unknowns), 1)
    passes = _Passes(reader, found)
    if places is None:
        exact = found.factor.condition_number, found.energy, found.hidden
        seen = rounding_shows(*exact, [reader.pair.result.dtype])
    else:
        seen = bias_of_tiles(passes, places) > SEEN**2 * found.energy / freedom
    if not seen:
        return found.unknowns, found.energy
    unknowns, rounding = found.unknowns, _ROUNDING**2 * found.hidden / (4 * _EPS)
    for start in range(_MAX_STARTS + 1):
        scores, energy = passes(unknowns)
        ahead = found.factor.solve(scores)
        bound = max(SEEN**2 * energy / freedom, rounding)
        if start == _MAX_STARTS or float(scores @ ahead) <= bound:
            break
        unknowns = unknowns + _step(passes, scores, ahead, energy, freedom, rounding)
    return unknowns, max(energy, found.hidden * _EPS)


def _step(
    passes: _Passes,
    scores: FloatArray,
    ahead: FloatArray,
    energy: float,
    freedom: int,
    rounding: float,
) -> FloatArray:
    """Return the change of the unknowns that removes their scores, by conjugate gradients."""
    total, direction = np.zeros(len(scores)), ahead
    size = float(scores @ ahead)
    for _ in range(_MAX_PASSES):
        # Scores of a direction without a result are those of its prediction, turned round.
        image = -passes(direction, alone=True)[0]
        curvature = float(direction @ image)
        if not curvature > 0:
            break
        length = size / curvature
        total, scores, energy = (
            total + length * direction,
            scores - length * image,
            energy - length * size,
        )
        ahead = passes.found.factor.solve(scores)
        size, last = float(scores @ ahead), size
        # Half of what may be seen: the preconditioner is not quite the matrix.
        if size <= max(SEEN**2 * energy / freedom / 4, rounding):
            break
        direction = ahead + size / last * direction
    return total
