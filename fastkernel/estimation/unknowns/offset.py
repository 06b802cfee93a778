"""How far a result was moved against its source, in whole pixels."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastkernel._images.crops import fitted_to, moved
from fastkernel._images.pairs import Pair, pair_of
from fastkernel._images.usable import Observed
from fastkernel._images.windows import centre
from fastkernel._machine import lapack
from fastkernel._machine.run import Run
from fastkernel._typing import Shape
from fastkernel.estimation.equations.formed import gathered
from fastkernel.estimation.equations.normal_equations import NormalEquations
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.unknowns.correlation import Place, correlated
from fastkernel.estimation.unknowns.held_out import Box, needed, strip_equations

# How far a peak must stand out to be looked at, and to be sure: of 200 pairs of photographs no
# wrong one passed 1.25, and nineteen right ones of twenty passed 2.2.
_LOOK, _SURE = 1.3, 1.6

# Share of the residual that must go for a result to be taken as moved.
_LESS = 0.98

# Pixels around the place that a correlation tells where a kernel of known size is looked for. Of
# one with more taps than it needs several places leave as much: no more than this share, nor than
# so many times the noise of a pixel for every row and column.
_AROUND, _ALIKE, _ALIKE_LINES = 3, 0.001, 2
# Rows and columns beyond those of the largest kernel in which one of unknown size is looked for.
_ROOM = 2
_MOST_TURNS = 6

# How far the centroid of the taps must lie beside the middle of an even side to choose a tap.
_BESIDE = 0.25

# A kernel around the images' own centre is preferred to one that was moved if it has at most so
# many times the taps: one-sided kernels are more common than pictures that were moved by a pixel.
_PREFERRED = 2.0


@dataclass(frozen=True, slots=True)
class OffsetFound:
    """How far a result was moved.

    Attributes
    ----------
    offset : (int, int)
        Rows down and columns to the right, in pixels: ``result[r, c]`` goes with
        ``source[r - rows, c - cols]``. (0, 0) where nothing tells that it was moved.
    peak : float
        By what factor the place stands out of the next best one.
    matches : bool
        Whether there is a place at all where source and result go together.
    """

    offset: Shape
    peak: float
    matches: bool

    @property
    def sure(self) -> bool:
        """Whether no other place comes near."""
        return self.matches and self.peak >= _SURE


def find_offset(
    images: Sequence[Observed], kernel_shape: Shape | None, largest: Shape, run: Run
) -> OffsetFound:
    """Find how far results were moved, up to a quarter of the frame.

    Parameters
    ----------
    images : sequence of Observed
        Pairs that were moved alike.
    kernel_shape : (int, int) or None
        Of the kernel; None if it is not known.
    largest : (int, int)
        The largest kernel that will be looked for, where it is not known.
    run : Run
        How.

    Notes
    -----
    A correlation of the images tells the place but for some pixels, of a wide kernel. Least
    squares around it tell the rest: by what a kernel of known size leaves, or by the taps that
    one of unknown size needs.
    """
    place = correlated(images)
    if not place.peak >= _LOOK:
        return OffsetFound((0, 0), place.peak, matches=False)
    nearest = max(map(abs, place.middle))
    if nearest < 0.5 or (kernel_shape is None and nearest <= 1):
        return OffsetFound((0, 0), place.peak, matches=True)
    shape = kernel_shape or largest
    try:
        if kernel_shape is None:
            found, needless = _by_taps(images, place, largest, run)
        else:
            found, needless = _by_residual(images, place, kernel_shape, run), False
        if found != (0, 0) and not needless:
            there, here = (_left(images, offset, shape, run) for offset in (found, (0, 0)))
            if not there < _LESS * here:
                return OffsetFound((0, 0), place.peak, matches=place.peak >= _SURE)
    except (SingularFitError, ValueError):
        return OffsetFound((0, 0), place.peak, matches=False)
    return OffsetFound(found, place.peak, matches=True)


def _pairs(images: Sequence[Observed], offset: Shape, kernel_shape: Shape) -> list[Pair]:
    """Return what is left in common of results that were moved, as a kernel's pairs."""
    return [
        pair_of(fitted_to(moved(pair, offset), kernel_shape), kernel_shape, None) for pair in images
    ]


def _equations(
    images: Sequence[Observed], offset: Shape, kernel_shape: Shape, run: Run
) -> NormalEquations:
    pairs = _pairs(images, offset, kernel_shape)
    return gathered(pairs, kernel_shape, 0, run.silent).equations(kernel_shape)


def _left(images: Sequence[Observed], offset: Shape, shape: Shape, run: Run) -> float:
    """Return the root mean square that a kernel leaves of results that were moved."""
    return _equations(images, offset, shape, run).solve().residual_rms


def _by_residual(images: Sequence[Observed], place: Place, shape: Shape, run: Run) -> Shape:
    """Return where a kernel of some shape leaves least; of alike places the least moved."""
    row, col = place.offset
    wide = shape[0] + 2 * _AROUND, shape[1] + 2 * _AROUND
    steps = np.array(list(itertools.product(range(-_AROUND, _AROUND + 1), repeat=2)))
    for _ in range(_MOST_TURNS):
        equations = _equations(images, (row, col), wide, run)
        energies = np.array(
            [_energy(equations, Box(_AROUND + i, _AROUND + j, *shape)) for i, j in steps.tolist()]
        )
        share = min(_ALIKE, _ALIKE_LINES * sum(shape) / equations.n_pixels)
        alike = energies <= (1 + share) * energies.min() + equations.hidden_energy
        places = steps[alike] + (row, col)
        sizes = np.abs(places).sum(axis=1)
        if sizes.min() > 0:
            sizes = np.abs(places - places.mean(axis=0)).sum(axis=1)
        before, (row, col) = (row, col), (int(i) for i in places[sizes.argmin()])
        if max(abs(row - before[0]), abs(col - before[1])) < _AROUND:
            break
    return row, col


def _energy(equations: NormalEquations, box: Box) -> float:
    """Return what the taps of a box leave."""
    taps = box.taps(equations.kernel_shape)
    lower, info = lapack.cholesky(equations.gram[np.ix_(taps, taps)])
    if info:
        return math.inf
    white = lapack.solve_lower(lower, equations.moments[taps, None])
    return equations.energy - float(np.vdot(white, white))


def _by_taps(
    images: Sequence[Observed], place: Place, largest: Shape, run: Run
) -> tuple[Shape, bool]:
    """Return the centre of the taps that a kernel needs, or (0, 0) if it may well stand there.

    And whether the largest kernel could stand there: it then leaves as little.
    """
    row, col = (round(i) for i in place.middle)
    for _ in range(_MOST_TURNS):
        wide = _window(images, (row, col), largest)
        strips = strip_equations(_pairs(images, (row, col), wide), wide, run)
        box = needed(strips)
        (up, left), (i, j) = centre(wide), _centre_of(strips, box)
        top, first = row + box.top - up, col + box.left - left
        row, col = row + i - up, col + j - left
        inside = box.top > 0 and box.left > 0
        if inside and box.top + box.rows < wide[0] and box.left + box.cols < wide[1]:
            break
    around = _size_around(top, box.rows), _size_around(first, box.cols)
    fits = all(n <= most for n, most in zip(around, largest, strict=True))
    if fits and math.prod(around) <= _PREFERRED * box.size:
        return (0, 0), fits
    return (row, col), fits


def _window(images: Sequence[Observed], offset: Shape, largest: Shape) -> Shape:
    """Return the window in which a kernel is looked for, with room around the largest."""
    rows, cols = (
        max(1, min(k + _ROOM, (min(sides) - abs(i)) // 3))
        for k, i, sides in zip(
            largest, offset, zip(*(pair.result.shape for pair in images), strict=True), strict=True
        )
    )
    return rows, cols


def _centre_of(strips: Sequence[NormalEquations], box: Box) -> Shape:
    """Return the tap at the centre of a box.

    Beside the middle of an even side it is that which is nearer to the centroid of the squared
    taps: an odd kernel may have lost a side to noise. That of an even one is the earlier.
    """
    taps = box.taps(strips[0].kernel_shape)
    gram, moments = (sum(part) for part in zip(*((s.gram, s.moments) for s in strips), strict=True))
    kernel = np.linalg.solve(gram[np.ix_(taps, taps)], moments[taps]).reshape(box.rows, box.cols)
    found = []
    for axis, (start, size) in enumerate(((box.top, box.rows), (box.left, box.cols))):
        weight = np.square(kernel).sum(axis=1 - axis)
        centroid = float(weight @ np.arange(size)) / float(weight.sum())
        beyond = size % 2 == 0 and centroid > (size - 1) / 2 + _BESIDE
        found.append(start + (size - 1) // 2 + int(beyond))
    return found[0], found[1]


def _size_around(first: int, size: int) -> int:
    """Return the size of a kernel whose centre tap is 0 and that has taps from ``first`` on."""
    last = first + size - 1
    return max(1 - 2 * first, 2 * last, 1)
