"""Functions of position, of which every tap of a kernel that varies is a sum."""

from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial.legendre import legvander

from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.equations.background import terms_of
from fastkernel.estimation.polynomial import scaled, values_of

# Singular values of the scale's functions below this share of the largest are rounding.
_ROUNDING = 1e-10


class Frame(NamedTuple):
    r"""The functions, products of one of the row and one of the column.

    Polynomials are :math:`P_i(\rho) P_j(\gamma)` of Legendre's with ``i + j`` up to the degree,
    where :math:`\rho` and :math:`\gamma` go from -1 at the first to 1 at the last row and column.
    Of a grid every cell has a function: 1 in its middle, falling linearly to 0 in the middles of
    its neighbours.

    Attributes
    ----------
    shape : (int, int)
        Of the result, in whose rows and columns places are counted.
    degree : int
        Of the polynomials.
    grid : (int, int) or None
        Cells down and across, in place of polynomials.
    """

    shape: Shape
    degree: int
    grid: Shape | None = None

    @property
    def numbers(self) -> tuple[list[int], list[int]]:
        """Which functions of the row and of the column every term is the product of."""
        if self.grid is None:
            return terms_of(self.degree)
        down, across = np.indices(self.grid).reshape(2, -1).tolist()
        return down, across

    @property
    def terms(self) -> int:
        """How many functions there are."""
        return len(self.numbers[0])

    @property
    def unit(self) -> FloatArray:
        """The coefficients of the function that is 1 everywhere."""
        return np.ones(self.terms) if self.grid else np.eye(self.terms)[0]

    def line(self, axis: int, places: Any) -> FloatArray:
        """Return the functions of the row (0) or of the column (1), (functions, ...)."""
        where, length = np.asarray(places, np.float64), self.shape[axis]
        if self.grid is None:
            values = np.asarray(legvander(scaled(where, length), self.degree), np.float64)
            return np.moveaxis(values.reshape(*where.shape, -1), -1, 0)
        cells = self.grid[axis]
        cell = np.clip((where + 0.5) / length * cells - 0.5, 0, cells - 1)
        middles = np.arange(cells).reshape(-1, *[1] * where.ndim)
        return np.asarray(np.maximum(1 - np.abs(cell - middles), 0))

    def values(self, rows: Any, cols: Any) -> FloatArray:
        """Return the functions at places, (terms, ...)."""
        i, j = self.numbers
        down, across = np.broadcast_arrays(rows, cols)
        return np.asarray(self.line(0, down)[i] * self.line(1, across)[j])

    def products(self) -> FloatArray:
        """Return the means over all pixels of products of two functions, (terms, terms)."""
        means = []
        for axis, number in enumerate(self.numbers):
            line = self.line(axis, np.arange(self.shape[axis]))
            means.append((line @ line.T / line.shape[1])[np.ix_(number, number)])
        return np.asarray(means[0] * means[1])

    def polynomials(self, degree: int) -> FloatArray:
        """Return rows of coefficients that span the polynomials of a degree, (rows, terms).

        Those of the functions where they are polynomials; through the middles of a grid's cells.
        """
        if self.grid is None:
            chosen = np.sum(self.numbers, axis=0) <= degree
            return np.asarray(np.eye(self.terms)[chosen])
        lines = [
            values_of(cells, degree)[number].T
            for cells, number in zip(self.grid, self.numbers, strict=True)
        ]
        i, j = terms_of(degree)
        _, sizes, rows = np.linalg.svd(lines[0][i] * lines[1][j], full_matrices=False)
        return np.asarray(rows[sizes > _ROUNDING * sizes[0]])

    def cuts(self, axis: int) -> list[int]:
        """Return rows or columns at which functions become or stop being 0, with both ends."""
        length = self.shape[axis]
        if self.grid is None:
            return [0, length]
        cells = self.grid[axis]
        middles = (np.arange(cells) + 0.5) / cells * length - 0.5
        inside = np.ceil(middles[1:-1]).astype(int).tolist()
        return sorted({0, *inside, length})
