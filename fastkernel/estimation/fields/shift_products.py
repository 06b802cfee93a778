r"""Products of all pairs of shifts of an image, weighted by powers of the place of a pixel.

With :math:`v` and :math:`u` the places of a pixel down and across, :math:`h` from row to row,

.. math:: H_{ij}(a, b) = \sum_{t \in W} v_t^i\, u_t^j\, x_{t+a}\, x_{t+b}, \qquad
          H_{ij}(a+e, b+e) = \sum_{t \in W+e} (v_t - h)^i\, u_t^j\, x_{t+a}\, x_{t+b}

where ``e`` moves both shifts by a row: powers become sums of lower ones, the row that enters the
window is added, and the one that leaves it taken off. The same goes for columns. So all pairs
follow from those that begin at the first shift, sums over all pixels that `weighted_lags` finds,
and from the image's rim.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from fastkernel._images.borders import load
from fastkernel._images.pairs import Pair
from fastkernel._loops import weighted_lines
from fastkernel._machine.lapack import narrow_product
from fastkernel._machine.tiles import Scratch, run_jobs
from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.equations.background import terms_of
from fastkernel.estimation.fields.weighted_lags import Scale, WeightedLags

# A polynomial of the row, and one of the column, of which a function is the product.
Function: TypeAlias = tuple[FloatArray, FloatArray]


class Powers(NamedTuple):
    """Products of powers of row and column, up to a total degree.

    Attributes
    ----------
    down, across : (n,) int arrays
        The powers of each.
    """

    down: list[int]
    across: list[int]

    @classmethod
    def of(cls, degree: int) -> "Powers":
        """Return those up to a degree."""
        return cls(*terms_of(degree))

    def moved(self, axis: int, by: float) -> FloatArray:
        """Return the matrix that makes powers of places those of places so much less."""
        degrees = np.array(self)
        found = np.zeros((len(self.down),) * 2)
        for row, powers in enumerate(degrees.T):
            for col, others in enumerate(degrees.T):
                more = powers[axis] - others[axis]
                if more >= 0 and powers[1 - axis] == others[1 - axis]:
                    found[row, col] = math.comb(powers[axis], others[axis]) * (-by) ** int(more)
        return found

    def mixed(self, polynomials: list[Function]) -> FloatArray:
        """Return polynomials, each of the row times of the column, as sums of powers."""
        found = np.zeros((len(polynomials), len(self.down)))
        for number, (rows, cols) in enumerate(polynomials):
            for place, (i, j) in enumerate(zip(*self, strict=True)):
                if i < len(rows) and j < len(cols):
                    found[number, place] = rows[i] * cols[j]
        return found


class _Sides(NamedTuple):
    """What enters the window, and what leaves it, as the window moves along an axis by a pixel.

    Attributes
    ----------
    leaves, enters : float
        Where the lines stand after the move.
    """

    leaves: float
    enters: float

    @classmethod
    def of(cls, scale: Scale, length: int) -> "_Sides":
        """Return those of a window's axis."""
        return cls(scale.start - scale.step, scale.start + (length - 1) * scale.step)

    def change(self, powers: FloatArray, leaving: FloatArray, entering: FloatArray) -> FloatArray:
        """Return the change of sums, given those over a line for every power."""
        shape = (-1, *[1] * (leaving.ndim - 1))
        enters, leaves = (np.power(place, powers).reshape(shape) for place in self[::-1])
        return enters * entering - leaves * leaving


@dataclass(frozen=True, slots=True)
class _RimJob:
    """Products of the lines of a strip of the virtual source, by power of the place along them.

    Attributes
    ----------
    pair : Pair
    axis : int
        Of the lines: 0 for columns, 1 for rows.
    place : int
        Where the strip begins, in lines of the other axis.
    lines, own : int
        How many there are, and how many of the last are weighted.
    weights : (powers, length) float64 array
        By place along the window.
    lags : int
    """

    pair: Pair
    axis: int
    place: int
    lines: int
    own: int
    weights: FloatArray
    lags: int

    # Another thread has not heard what the calling one ignores.
    @np.errstate(over="ignore", invalid="ignore")
    def __call__(self, scratch: Scratch, _: Callable[[], bool]) -> FloatArray:
        """Return them by power, weighted line, lag and line."""
        powers, count = self.weights.shape
        shapes = weighted_lines.room_shapes(powers, self.own, self.lags, self.lines)
        room, sums = (scratch.array(f"lines {i}", shape) for i, shape in enumerate(shapes))
        _, lags, width = sums.shape
        sums.fill(0.0)
        pixels = scratch.array("lines", (count + lags, width))
        pixels.fill(0.0)
        found = pixels[: count + self.lags - 1, : self.lines]
        window = self.pair.window
        place = (0, self.place) if self.axis == 0 else (self.place, 0)
        strip = found if self.axis == 0 else np.empty(found.shape[::-1])
        load(self.pair.source, window.source_pixel(*place), window.boundary, strip)
        if self.axis == 1:
            found[:] = strip.T
        first = self.lines - self.own
        weighted_lines.add_weighted_line_products(pixels, self.weights, first, self.own, room, sums)
        kept = sums[: powers * self.own, : self.lags, : self.lines]
        return np.array(kept.reshape(powers, self.own, self.lags, self.lines))


class ShiftProducts:
    """The weighted products of pairs of shifts, row by row of the first.

    Parameters
    ----------
    pair : Pair
        Of images in memory, all of whose pixels are used, with a weight of 1.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    scales : pair of Scale
        Of the window's rows and of its columns.
    sums : WeightedLags
        Of the pair.
    workers : int
        Threads to use.

    Attributes
    ----------
    powers : Powers
        The weights.
    """

    def __init__(
        self,
        pair: Pair,
        kernel_shape: Shape,
        scales: tuple[Scale, Scale],
        sums: WeightedLags,
        workers: int,
    ) -> None:
        self._shape, self._scales, self._sums = kernel_shape, scales, sums
        self._window = pair.window.shape
        degree = len(sums.ahead) - 1
        self.powers = Powers.of(degree)
        self._down, self._across = map(np.array, self.powers)
        self._sides = [_Sides.of(scale, n) for scale, n in zip(scales, self._window, strict=True)]
        (p, q), (height, width) = kernel_shape, self._window
        down, across = (
            scale.powers(degree, 0, n) for scale, n in zip(scales, self._window, strict=True)
        )
        # Right of the window, pixels meet some inside it too.
        before = max(width - q + 1, 0)
        wide = width + q - 1 - before
        jobs = [
            _RimJob(pair, 0, 0, q - 1, q - 1, down, p),
            _RimJob(pair, 0, before, wide, q - 1, down, p),
            _RimJob(pair, 1, 0, p - 1, p - 1, across, q),
            _RimJob(pair, 1, height, p - 1, p - 1, across, q),
        ]
        found = run_jobs(jobs, Scratch, workers)
        self._columns = [part.swapaxes(1, 2) for part in found[:2]]
        self._strips, self._pair = found[2:], pair

    def first_row(self) -> FloatArray:
        """Return the products of the shifts of the first row with all, (powers, q, p, q)."""
        (p, q), width = self._shape, self._window[1]
        before, (left, right) = max(width - q + 1, 0), self._columns
        out = np.zeros((len(self._down), q, p, q))
        ahead = np.stack([self._sums.ahead[j][i] for i, j in zip(*self.powers, strict=True)])
        out[:, 0] = ahead[:, :, q - 1 :]
        step = self._scales[1].step
        places = self._scales[1].powers(1, width, q - 1)[1]
        for k in range(1, q):
            # The first shift moved to the right: pixels of the window, and those right of it.
            total = self.powers.moved(1, k * step) @ ahead[:, :, q - 1 - k]
            for c in range(max(0, k - width), k):
                weight = (places[c] - k * step) ** self._across
                total += weight[:, None] * right[self._down, :, c, width + c - k - before]
            out[:, k, :, 0] = total
        moved = self.powers.moved(1, step)
        entering, leaving = right[self._down, ..., width - before :], left[self._down]
        change = self._sides[1].change(self._across, leaving, entering)
        for a in range(1, q):
            held = np.ascontiguousarray(out[:, a - 1, :, :-1])
            out[:, a, :, 1:] = np.tensordot(moved, held, 1) + change[:, :, a - 1]
        return out

    def _rows(self, place: int, products: FloatArray) -> FloatArray:
        """Return the products of ``p - 1`` rows, by power of the column, rows and columns.

        Parameters
        ----------
        place : int
            The first of the rows.
        products : (powers, p - 1, q, p - 1) float64 array
            Of pixels of the window, with those some columns ahead.

        Returns
        -------
        (powers, p - 1, p - 1, q, q) float64 array
        """
        (p, q), width, scale = self._shape, self._window[1], self._scales[1]
        degree, strip = len(products) - 1, np.empty((p - 1, width + q - 1))
        window = self._pair.window
        load(self._pair.source, window.source_pixel(place, 0), window.boundary, strip)
        powers = Powers([0] * (degree + 1), list(range(degree + 1)))
        out = np.empty((degree + 1, p - 1, p - 1, q, q))
        out[..., 0, :] = products.swapaxes(2, 3)
        out[..., :, 0] = products.transpose(0, 3, 1, 2)
        moved = powers.moved(1, scale.step)
        pixels = [strip[:, start : start + q - 1] for start in (0, width)]
        leaving, entering = (np.einsum("ia,jb->ijab", part, part)[None] for part in pixels)
        change = self._sides[1].change(np.array(powers.across), leaving, entering)
        for a in range(1, q):
            held = np.ascontiguousarray(out[..., a - 1, :-1])
            out[..., a, 1:] = np.tensordot(moved, held, 1) + change[..., a - 1, :]
        return out

    def mix(self, weights: FloatArray, out: FloatArray) -> None:
        """Write mixtures of the products, on the diagonal and above it.

        Parameters
        ----------
        weights : (n, powers) float64 array
            One mixture a row.
        out : (n, >= p * q, >= p * q) float64 array
            By shift.
        """
        (p, q), height = self._shape, self._window[0]
        row = self.first_row()
        if p > 1:
            leaving, entering = map(self._rows, (0, height), self._strips)
            moved = self.powers.moved(0, self._scales[0].step)
        for a in range(p):
            found = narrow_product(weights, row.reshape(len(row), -1))
            out[:, a * q : (a + 1) * q, a * q : p * q] = found.reshape(len(weights), q, -1)
            if a == p - 1:
                break
            held = np.ascontiguousarray(row[:, :, :-1])
            row = narrow_product(moved, held.reshape(len(held), -1)).reshape(held.shape)
            # By the columns of the first shift, rows and columns of the other.
            strips = [part[self._across, a, a:].swapaxes(1, 2) for part in (leaving, entering)]
            row += self._sides[0].change(self._down, *strips)
