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
from typing import NamedTuple, TypeAlias

import numpy as np

from fastkernel._images.borders import load
from fastkernel._images.pairs import Pair
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


def _rim(pair: Pair, place: Shape, shape: Shape) -> FloatArray:
    """Return part of the virtual source."""
    pixels = np.empty(shape)
    load(pair.source, pair.window.source_pixel(*place), pair.window.boundary, pixels)
    return pixels


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

    Attributes
    ----------
    powers : Powers
        The weights.
    """

    def __init__(
        self, pair: Pair, kernel_shape: Shape, scales: tuple[Scale, Scale], sums: WeightedLags
    ) -> None:
        self._pair, self._shape, self._scales, self._sums = pair, kernel_shape, scales, sums
        self._degree = len(sums.ahead) - 1
        self.powers = Powers.of(self._degree)
        self._down, self._across = map(np.array, self.powers)
        self._sides = [
            _Sides.of(scale, n) for scale, n in zip(scales, pair.window.shape, strict=True)
        ]

    def _columns(self, place: int, shape: Shape) -> FloatArray:
        """Return the products of columns, by power of the row, lag and pair of columns.

        Those of the last ``shape[0]`` columns of a strip that begins at ``place``, with those of
        all its ``shape[1]``: (powers, p, shape[0], shape[1]).
        """
        (own, all_), (p, _), height = shape, self._shape, self._pair.window.shape[0]
        strip = _rim(self._pair, (0, place), (height + p - 1, all_))
        weights = self._scales[0].powers(self._degree, 0, height)
        heavy = weights[:, None] * strip[:height, all_ - own :].T
        found = [heavy.reshape(-1, height) @ strip[lag : lag + height] for lag in range(p)]
        return np.moveaxis(np.reshape(found, (p, len(weights), own, all_)), 0, 1)

    def first_row(self) -> FloatArray:
        """Return the products of the shifts of the first row with all, (powers, q, p, q)."""
        (p, q), width = self._shape, self._pair.window.shape[1]
        before = max(width - q + 1, 0)
        wide = width + q - 1 - before
        left, right = self._columns(0, (q - 1, q - 1)), self._columns(before, (q - 1, wide))
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

    def _rows(self, place: int) -> FloatArray:
        """Return the products of ``p - 1`` rows, by power of the column, rows and columns.

        Returns
        -------
        (powers, p - 1, p - 1, q, q) float64 array
        """
        (p, q), width, scale = self._shape, self._pair.window.shape[1], self._scales[1]
        strip = _rim(self._pair, (place, 0), (p - 1, width + q - 1))
        powers = Powers([0] * (self._degree + 1), list(range(self._degree + 1)))
        heavy = scale.powers(self._degree, 0, width)[:, None] * strip[:, :width]
        out = np.empty((self._degree + 1, p - 1, p - 1, q, q))
        for k in range(q):
            found = heavy.reshape(-1, width) @ strip[:, k : k + width].T
            out[..., 0, k] = found.reshape(-1, p - 1, p - 1)
            out[..., k, 0] = out[..., 0, k].swapaxes(1, 2)
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
        (p, q), height = self._shape, self._pair.window.shape[0]
        row = self.first_row()
        if p > 1:
            leaving, entering = self._rows(0), self._rows(height)
            moved = self.powers.moved(0, self._scales[0].step)
        for a in range(p):
            found = np.tensordot(weights, row.reshape(len(row), -1), 1)
            out[:, a * q : (a + 1) * q, a * q : p * q] = found.reshape(len(weights), q, -1)
            if a == p - 1:
                break
            row = np.tensordot(moved, np.ascontiguousarray(row[:, :, :-1]), 1)
            # By the columns of the first shift, rows and columns of the other.
            strips = [part[self._across, a, a:].swapaxes(1, 2) for part in (leaving, entering)]
            row += self._sides[0].change(self._down, *strips)
