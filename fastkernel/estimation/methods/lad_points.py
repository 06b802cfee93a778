"""Points whose absolute deviations are summed: chosen ones in memory, or all pixels of images."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastkernel._images.borders import OUTSIDE, load, source_index
from fastkernel._images.pairs import Pair
from fastkernel._images.windows import centre
from fastkernel._loops import design_rows as row_loops
from fastkernel._loops import deviations
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import split
from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.equations.sweeps import View, sweep

T = TypeVar("T")

# Columns of a block of design rows: no power of two, at which they would compete for the cache.
_BLOCK = 520

# Jobs of a sweep: every one holds sums of the size of a Gram matrix.
_MAX_JOBS = 16


class Measured(NamedTuple):
    """The smoothed deviation at some taps.

    Attributes
    ----------
    total, smooth, energy : float
        See `deviations.clip_residual`.
    inside : int
        Residuals less than ``delta``.
    pull : (p*q,) float64 array
        By shift: sums of the clipped residual times the source; ``-pull`` is the gradient.
    gram : (p*q, p*q) float64 array
        Weighted Gram matrix, by shift.
    """

    total: float
    smooth: float
    energy: float
    inside: int
    pull: FloatArray
    gram: FloatArray


class Near(NamedTuple):
    """The points whose residuals are least, and the others with their signs.

    Attributes
    ----------
    rows : (n, p*q) float64 array
        Of the design matrix, by shift.
    residual : (n,) float64 array
        Theirs.
    pull : (p*q,) float64 array
        Sum of the rows of all other points, each times the sign of its residual.
    total : float
        Sum of the absolute residuals of all points.
    """

    rows: FloatArray
    residual: FloatArray
    pull: FloatArray
    total: float


class Data(Protocol):
    """Points whose deviation is minimised; taps are flat, by shift."""

    @property
    def n_points(self) -> int:
        """How many there are."""

    def measure(self, taps: FloatArray, delta: float, outside: bool = False) -> Measured:
        """Return the deviation smoothed within ``delta``.

        The matrix has the weights of Newton's method, 1 within ``delta`` and 0 outside, or
        ``delta / |residual|`` there: those of iteratively reweighted least squares.
        """

    def nearest(self, taps: FloatArray, n: int) -> Near:
        """Return the ``n`` points of least residual."""


def _symmetric(upper: FloatArray, taps: int) -> FloatArray:
    """Return a matrix from the upper triangle that `row_loops.add_products` fills."""
    found = np.triu(upper[:taps, :taps])
    return np.asarray(found + np.triu(found, 1).T)


def _padded(taps: int) -> int:
    """Return the rows of the scratch of `row_loops.add_products`."""
    return -(-taps // row_loops.BLOCK) * row_loops.BLOCK


@dataclass(frozen=True, slots=True)
class Points:
    """Chosen points, their rows of the design matrix in memory."""

    rows: FloatArray
    answers: FloatArray

    @property
    def n_points(self) -> int:
        """How many there are."""
        return len(self.answers)

    def measure(self, taps: FloatArray, delta: float, outside: bool = False) -> Measured:
        """See `Data`."""
        residual = np.empty((1, self.n_points))
        clipped = self.answers[None].copy()
        sums = deviations.clip_residual(clipped, (self.rows @ taps)[None], delta, residual)
        size = np.abs(residual[0])
        used = size < delta
        weights = np.ones(self.n_points)
        if outside:
            weights[~used] = np.sqrt(delta / size[~used])
            used[:] = True
        n = _padded(len(taps))
        upper = np.zeros((n, n))
        places = np.flatnonzero(used)
        for start, stop in split(len(places), _BLOCK):
            columns, part = np.zeros((n, _BLOCK)), places[start:stop]
            columns[: len(taps), : len(part)] = (weights[part, None] * self.rows[part]).T
            row_loops.add_products(columns, len(part), upper)
        total, smooth, energy, inside = sums
        pull, gram = clipped[0] @ self.rows, _symmetric(upper, len(taps))
        return Measured(total, smooth, energy, inside, pull, gram)

    def nearest(self, taps: FloatArray, n: int) -> Near:
        """See `Data`."""
        residual = self.answers - self.rows @ taps
        size = np.abs(residual)
        total = float(size.sum())
        if n >= self.n_points:
            return Near(self.rows, residual, np.zeros(len(taps)), total)
        order = np.argpartition(size, n)
        near, far = order[:n], order[n:]
        return Near(self.rows[near], residual[near], np.sign(residual[far]) @ self.rows[far], total)


_Candidates = tuple[FloatArray, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class AllPixels:
    """All pixels of pairs, read tile by tile."""

    pairs: Sequence[Pair]
    kernel_shape: Shape
    run: Run

    @property
    def n_points(self) -> int:
        """How many there are."""
        return sum(pair.n_pixels for pair in self.pairs)

    def measure(self, taps: FloatArray, delta: float, outside: bool = False) -> Measured:
        """See `Data`."""
        n = _padded(len(taps))

        def act(
            view: View, found: tuple[FloatArray, FloatArray] | None
        ) -> tuple[FloatArray, FloatArray]:
            sums, upper = found or (np.zeros(4), np.zeros((n, n)))
            shape = view.convolved.shape
            residual = view.scratch.array("residual", shape)
            weights, out = self._weigh(view)
            total, smooth, energy, inside = deviations.clip_residual(
                view.y, view.convolved, delta, residual
            )
            sums += total, smooth - out * delta / 2, energy, inside - out
            view.y[:, : shape[1]] *= weights
            rows = view.scratch.array("rows", (n, _BLOCK))
            rows[len(taps) :] = 0
            place = 0
            while place < residual.size and not view.stopped():
                place, count = deviations.collect_rows(
                    view.x, residual, weights, self.kernel_shape, delta, outside, place, rows
                )
                row_loops.add_products(rows, count, upper)
            return sums, upper

        pull, sums, upper = np.zeros(self.kernel_shape), np.zeros(4), np.zeros((n, n))
        for _, moments, (part, products) in self._sweep(taps, act):
            pull += moments
            sums += part
            upper += products
        total, smooth, energy, inside = sums.tolist()
        gram = _symmetric(upper, len(taps))
        return Measured(total, smooth, energy, int(inside), pull.ravel(), gram)

    def nearest(self, taps: FloatArray, n: int) -> Near:
        """See `Data`."""

        def least(parts: Sequence[_Candidates]) -> _Candidates:
            residual = np.concatenate([part[0] for part in parts])
            places = np.concatenate([part[1] for part in parts])
            if len(residual) <= n:
                return residual, places
            order = np.argpartition(np.abs(residual), n - 1)[:n]
            return residual[order], places[order]

        def act(view: View, found: tuple[float, _Candidates] | None) -> tuple[float, _Candidates]:
            top, left, _, width = view.tile
            total, before = found or (0.0, (np.zeros(0), np.zeros((0, 3), np.int64)))
            weights, _ = self._weigh(view)
            part = view.y[:, :width]
            part -= view.convolved
            residual = part.ravel()
            size = np.abs(residual)
            # What is farther than all candidates so far need not be looked at.
            worst = np.abs(before[0]).max() if len(before[0]) == n else math.inf
            place = np.flatnonzero((size < worst) & (weights.ravel() > 0))
            row, col = np.divmod(place, width)
            places = np.column_stack([np.full(len(place), view.number), row + top, col + left])
            np.sign(part, out=part)
            part *= weights
            return total + float(size.sum()), least([before, (residual[place], places)])

        pull, total, parts = np.zeros(self.kernel_shape), 0.0, []
        for _, moments, (part, candidates) in self._sweep(taps, act):
            pull += moments
            total += part
            parts.append(candidates)
        residual, places = least(parts)
        rows = design_rows(self.pairs, self.kernel_shape, places)
        rows *= weights_at(self.pairs, places)[:, None]
        return Near(rows, residual, pull.ravel() - np.sign(residual) @ rows, total)

    def _weigh(self, view: View) -> tuple[FloatArray, int]:
        """Multiply result and convolution by the weights; return these, and how many are 0."""
        (top, left, height, width), pair = view.tile, self.pairs[view.number]
        weights = view.scratch.array("weights", (height, width))
        if pair.even:
            weights.fill(1.0)
            return weights, 0
        pair.load_weights(top, left, weights)
        view.y[:, :width] *= weights
        view.convolved[...] *= weights
        return weights, weights.size - int(np.count_nonzero(weights))

    def _sweep(
        self, taps: FloatArray, act: Callable[[View, T | None], T]
    ) -> Iterator[tuple[int, FloatArray, T]]:
        shaped = taps.reshape(self.kernel_shape)
        return sweep(self.pairs, shaped, act, self.run, _MAX_JOBS)


def design_rows(
    pairs: Sequence[Pair], kernel_shape: Shape, places: NDArray[np.int64]
) -> FloatArray:
    """Return rows of the design matrix, by shift.

    Parameters
    ----------
    pairs : sequence of Pair
        Of images in memory.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    places : (n, 3) int64 array
        Number of the pair, row and column in its window.

    Returns
    -------
    (n, p * q) float64 array
        In source units.
    """
    p, q = kernel_shape
    out = np.empty((len(places), p, q))
    for number, (source, _, window, *_) in enumerate(pairs):
        chosen = places[:, 0] == number
        maps = [
            source_index(start, start + n + k - 1, length, window.boundary)
            for start, n, k, length in zip(
                window.source_origin, window.shape, kernel_shape, source.shape, strict=True
            )
        ]
        row = maps[0][places[chosen, 1, None] + np.arange(p)][:, :, None]
        col = maps[1][places[chosen, 2, None] + np.arange(q)][:, None, :]
        out[chosen] = np.where((row == OUTSIDE) | (col == OUTSIDE), 0, source[row, col])
    return out.reshape(len(places), p * q)


def answers_at(pairs: Sequence[Pair], places: NDArray[np.int64]) -> FloatArray:
    """Return the result's pixels at places as `design_rows` takes them, (n,) float64."""
    out = np.empty(len(places))
    for number, (_, result, window, *_) in enumerate(pairs):
        chosen = places[:, 0] == number
        top, left = window.result_origin
        out[chosen] = result[places[chosen, 1] + top, places[chosen, 2] + left]
    return out


def weights_at(pairs: Sequence[Pair], places: NDArray[np.int64]) -> FloatArray:
    """Return the weights of pixels at places as `design_rows` takes them, (n,) float64."""
    out = np.ones(len(places))
    for number, pair in enumerate(pairs):
        if pair.weights is not None:
            chosen = places[:, 0] == number
            out[chosen] = pair.weights[places[chosen, 1], places[chosen, 2]]
    return out


def choose_points(pairs: Sequence[Pair], kernel_shape: Shape, n: int) -> NDArray[np.int64]:
    """Return the points that tell the taps apart: the steepest of every cell of a grid.

    Where the source is flat under the kernel a pixel sees the sum of the taps alone. The steepest
    pixels of all would crowd along one edge, which tells taps apart across it and not along it.
    Cells that are spread evenly take one point each of those that are fitted, where the gradient
    of the source under the centre tap has the most energy; the flattest cells, as far as there
    are too many, none.

    Parameters
    ----------
    pairs : sequence of Pair
        Of images in memory.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    n : int
        Points to choose, no more than there are.

    Returns
    -------
    (n, 3) int64 array
        Number of the pair, row and column in its window, in that order.
    """
    pixels = sum(pair.n_pixels for pair in pairs)
    side = max(1, math.isqrt(pixels // n))
    energies, places = [], []
    for number, pair in enumerate(pairs):
        height, width = pair.window.shape
        # Whole rows of cells at a time.
        for top, bottom in split(height, side * max(1, 64 // side)):
            energy = _gradient_energy(pair, kernel_shape, top, bottom)
            if pair.used is not None:
                energy[~pair.used[top:bottom]] = -1.0
            rows, cols = -(-(bottom - top) // side), -(-width // side)
            padded = np.full((rows * side, cols * side), -1.0)
            padded[: bottom - top, :width] = energy
            cells = padded.reshape(rows, side, cols, side).swapaxes(1, 2).reshape(rows, cols, -1)
            steepest = cells.argmax(axis=2)
            row, col = np.divmod(steepest, side)
            row += np.arange(rows)[:, None] * side + top
            col += np.arange(cols) * side
            energies.append(cells.max(axis=2).ravel())
            places.append(np.column_stack([np.full(row.size, number), row.ravel(), col.ravel()]))
    found = np.concatenate(places)
    # A stable order, so that equals are chosen alike everywhere.
    energy = np.concatenate(energies)
    chosen = np.sort(np.argsort(-energy, kind="stable")[:n])
    return found[chosen[energy[chosen] >= 0]]


def _gradient_energy(pair: Pair, kernel_shape: Shape, top: int, bottom: int) -> FloatArray:
    """Return the squared gradient of the source under the centre tap, for rows of the window."""
    window, (i, j) = pair.window, centre(kernel_shape)
    p, q = kernel_shape
    around = np.empty((bottom - top + 2, window.shape[1] + 2))
    origin = window.source_pixel(top + p - 1 - i - 1, q - 1 - j - 1)
    load(pair.source, origin, "replicate" if window.boundary == "zero" else window.boundary, around)
    down = around[2:, 1:-1] - around[:-2, 1:-1]
    across = around[1:-1, 2:] - around[1:-1, :-2]
    return np.asarray(down**2 + across**2)
