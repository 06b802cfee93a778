"""What kernels of nested supports leave of pixels that they were not fitted to.

The pixels are read once: every strip of rows has equations of its own, the equations of all other
strips are the total less these, and what is left of a strip follows from its own equations.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import linalg

from fastkernel._images.pairs import Pair
from fastkernel._machine import lapack
from fastkernel._machine.run import Run
from fastkernel._typing import AnyArray, FloatArray, Shape
from fastkernel.estimation.equations.formed import gathered
from fastkernel.estimation.equations.normal_equations import NormalEquations
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.solvers.direct import least_eigenvalue

# Strips of a pair, and the bytes that their Gram matrices may take together.
_MOST_STRIPS, _LEAST_STRIPS = 8, 4
_MOST_BYTES = 2**28

# Rows of a strip from which on a gradient is told from its detail.
_ROWS_OF_A_PLANE = 8

# What a smaller kernel may leave more: this share of the standard error of what the best leaves,
# and no more than this share of it. The usual whole standard error drops taps that noise of
# uneven size does show; none at all keeps what is luck.
_SHARE_OF_ERROR, _MOST_SHARE = 0.1, 0.003


class Box(NamedTuple):
    """Some taps of a larger kernel: ``rows`` by ``cols`` from ``(top, left)`` on."""

    top: int
    left: int
    rows: int
    cols: int

    @property
    def size(self) -> int:
        """Number of taps."""
        return self.rows * self.cols

    def taps(self, kernel_shape: Shape) -> AnyArray:
        """Return which taps of the larger kernel these are, in C order."""
        numbers = np.arange(math.prod(kernel_shape)).reshape(kernel_shape)
        rows = slice(self.top, self.top + self.rows)
        return numbers[rows, self.left : self.left + self.cols].ravel()


class Scores(NamedTuple):
    """What kernels of nested supports leave.

    Attributes
    ----------
    held_out : (supports, strips) float64 array
        Energy that is left of every strip by the kernel of all others; infinite where these do
        not determine it.
    fitted : (supports,) float64 array
        Energy that is left of all strips by their own kernel.
    weights : (strips,) float64 array
        Pixels of every strip, by their weights.
    hidden : float
        Energy that rounding of the sums hides.
    """

    held_out: FloatArray
    fitted: FloatArray
    weights: FloatArray
    hidden: float

    @property
    def rms(self) -> FloatArray:
        """Root mean square of what is left of pixels that were not fitted, one a support."""
        energy = np.maximum(self.held_out.sum(axis=1), self.hidden)
        return np.asarray(np.sqrt(energy / self.weights.sum()))

    @property
    def penalised(self) -> FloatArray:
        """Held-out energy of every support, plus what it exceeds the fitted one by.

        The excess is twice what noise adds to the energy by being fitted, whatever the noise is
        like (K. Takeuchi's criterion, without an estimate of its matrices). Counted once more it
        outweighs the luck of the best of many supports.
        """
        held = np.maximum(self.held_out.sum(axis=1), self.hidden)
        fitted = np.maximum(self.fitted, self.hidden)
        known = np.isfinite(held) & np.isfinite(fitted)
        excess = np.maximum(np.subtract(held, fitted, where=known, out=np.zeros(len(held))), 0.0)
        return np.where(known, held + excess, math.inf)

    def smallest(self, sizes: Sequence[int]) -> int:
        """Return which support is the smallest whose score is that of the best, but for noise.

        Parameters
        ----------
        sizes : sequence of int
            Taps of every support.

        Returns
        -------
        int
            Of equal sizes the one of the better score.
        """
        scores = self.penalised
        best = int(np.argmin(scores))
        slack = self.hidden
        if scores[best] > 2 * self.hidden:
            some = self.weights > 0
            means = self.held_out[best][some] / self.weights[some]
            error = float(means.std(ddof=1)) / math.sqrt(len(means)) / float(means.mean())
            slack += min(_SHARE_OF_ERROR * error, _MOST_SHARE) * float(scores[best])
        alike = np.flatnonzero(scores <= scores[best] + slack).tolist()
        return int(min(alike, key=lambda i: (sizes[i], scores[i])))


def strip_equations(
    pairs: Sequence[Pair], kernel_shape: Shape, run: Run, degree: int | None = None
) -> list[NormalEquations]:
    """Return the equations of strips of rows, each less a background of its own.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one; strips of the same number are summed.
    kernel_shape : (int, int)
        Of the largest kernel.
    run : Run
        How.
    degree : int, optional
        Of the backgrounds; by default that which the rows allow, up to a plane. A level beside
        the convolution would be taken for detail by kernels that are wide enough.
    """
    taps = math.prod(kernel_shape)
    count = max(_LEAST_STRIPS, min(_MOST_STRIPS, _MOST_BYTES // (8 * taps * taps)))
    rows = min(pair.window.shape[0] for pair in pairs)
    count = min(count, max(rows // 2, 1))
    if degree is None:
        degree = int(rows // count >= _ROWS_OF_A_PLANE)
    narrowest = min(rows // count, *(pair.window.shape[1] for pair in pairs))
    strips = list(zip(*(_strips(pair, count) for pair in pairs), strict=True))
    for lower in range(min(degree, narrowest - 1), 0, -1):
        try:
            return [_equations(parts, kernel_shape, lower, run) for parts in strips]
        except SingularFitError:
            continue  # masks leave too little of a strip for a slope
    return [_equations(parts, kernel_shape, 0, run) for parts in strips]


def _equations(
    parts: Sequence[Pair], kernel_shape: Shape, degree: int, run: Run
) -> NormalEquations:
    some = [part for part in parts if part.n_pixels]
    if not some:
        return NormalEquations.zero(kernel_shape)
    return gathered(some, kernel_shape, degree, run.silent).equations(kernel_shape)


def _strips(pair: Pair, count: int) -> list[Pair]:
    """Return a pair as strips of rows, of as many fitted pixels each as can be."""
    height = pair.window.shape[0]
    edges = [height * i // count for i in range(count + 1)]
    if pair.used is not None:
        so_far = np.concatenate([[0], np.cumsum(np.count_nonzero(pair.used, axis=1))])
        wanted = [so_far[-1] * i // count for i in range(1, count)]
        edges[1:-1] = np.searchsorted(so_far, wanted).tolist()
    return [_strip(pair, top, bottom) for top, bottom in pairwise(edges)]


def _strip(pair: Pair, top: int, bottom: int) -> Pair:
    """Return some rows of a pair."""
    window, rows = pair.window, slice(top, bottom)
    part = replace(
        window,
        source_origin=window.source_pixel(top, 0),
        result_origin=window.result_pixel(top, 0),
        shape=(bottom - top, window.shape[1]),
    )
    return pair._replace(
        window=part,
        used=None if pair.used is None else pair.used[rows],
        weights=None if pair.weights is None else pair.weights[rows],
    )


def nested_scores(strips: Sequence[NormalEquations], boxes: Sequence[Box]) -> Scores:
    """Return what kernels of nested supports leave.

    Parameters
    ----------
    strips : sequence of NormalEquations
        At least two, of one kernel shape.
    boxes : sequence of Box
        Inside that shape, each inside the next.

    Notes
    -----
    With the taps in the order in which the boxes take them in, the Cholesky factor of every box
    is a leading block of that of the last: all boxes together cost one factorisation a strip.
    """
    taps, ends = _in_order(boxes, strips[0].kernel_shape)
    grams = [part.gram[np.ix_(taps, taps)] for part in strips]
    moments = [part.moments[taps] for part in strips]
    gram, right = sum(grams), sum(moments)
    held = np.full((len(boxes), len(strips)), math.inf)
    for i, part in enumerate(strips):
        lower, white = _nested(gram - grams[i], right - moments[i])
        for j, n in enumerate(ends):
            if n <= len(white):
                kernel = linalg.solve_triangular(
                    lower[:n, :n], white[:n], lower=True, trans=1, check_finite=False
                )
                left = kernel @ (grams[i][:n, :n] @ kernel - 2 * moments[i][:n])
                held[j, i] = max(part.energy + float(left), 0.0)
    _, white = _nested(np.asarray(gram), np.asarray(right))
    explained = np.concatenate([[0.0], np.cumsum(white**2)])
    energy = sum(part.energy for part in strips)
    return Scores(
        held,
        np.array([energy - explained[n] if n < len(explained) else math.inf for n in ends]),
        np.array([part.total_weight for part in strips]),
        sum(part.hidden_energy for part in strips),
    )


def needed(strips: Sequence[NormalEquations]) -> Box:
    """Return the smallest box of taps that explains as much as all taps do.

    Its four sides are drawn in one after the other, twice: with fewer taps beside them more of
    those that are left stand out.
    """
    box = Box(0, 0, *strips[0].kernel_shape)
    for side in ("top", "bottom", "left", "right") * 2:
        boxes = _drawn_in(box, side)
        scores = nested_scores(strips, boxes)
        if not np.isfinite(scores.penalised).any():
            break
        box = boxes[scores.smallest([one.size for one in boxes])]
    return box


def _drawn_in(box: Box, side: str) -> list[Box]:
    """Return a box with one side drawn in, from a single line of taps to all."""
    top, left, rows, cols = box
    if side == "top":
        return [Box(top + rows - n, left, n, cols) for n in range(1, rows + 1)]
    if side == "bottom":
        return [Box(top, left, n, cols) for n in range(1, rows + 1)]
    if side == "left":
        return [Box(top, left + cols - n, rows, n) for n in range(1, cols + 1)]
    return [Box(top, left, rows, n) for n in range(1, cols + 1)]


def _in_order(boxes: Sequence[Box], kernel_shape: Shape) -> tuple[AnyArray, list[int]]:
    """Return taps in the order in which boxes take them in, and how many each holds."""
    first = np.full(kernel_shape, len(boxes))
    for i in range(len(boxes) - 1, -1, -1):
        top, left, rows, cols = boxes[i]
        first[top : top + rows, left : left + cols] = i
    order = np.argsort(first.ravel(), kind="stable")
    return order[: boxes[-1].size], [box.size for box in boxes]


def _nested(gram: FloatArray, moments: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return a factor and the whitened moments, as far as the leading taps are determined."""
    lower, info = lapack.cholesky(gram)
    n = len(gram) if info == 0 else info - 1
    least = least_eigenvalue(float(np.diag(gram).max()), len(gram))
    low = np.flatnonzero(np.diag(lower)[:n] ** 2 <= least)
    if low.size:
        n = int(low[0])
    return lower, lapack.solve_lower(lower[:n, :n], moments[:n, None])[:, 0]
