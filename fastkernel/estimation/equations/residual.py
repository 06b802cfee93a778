"""What a kernel leaves unexplained, computed pixel by pixel: its moments and its energy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastkernel._images.checks import as_image, as_workers, refuse_non_finite
from fastkernel._images.pairs import Pair, refuse_unusable
from fastkernel._images.usable import PixelRules
from fastkernel._loops import lags, moments
from fastkernel._machine.run import Run
from fastkernel._typing import (
    Border,
    FloatArray,
    Images,
    NanPolicy,
    Pixels,
    Saturation,
    Shape,
)
from fastkernel.estimation.equations.background import BackgroundSums, terms_of
from fastkernel.estimation.equations.normal_equations import NormalEquations
from fastkernel.estimation.equations.sweeps import View, sweep
from fastkernel.estimation.equations.transformed_sweeps import sweep_by_transforms
from fastkernel.estimation.polynomial import lines_of
from fastkernel.estimation.problem import problem_of


class Beside(NamedTuple):
    """Backgrounds beside a kernel.

    Attributes
    ----------
    lines : list of (rows, cols)
        The polynomials along the axes of every pair's window, (degree + 1, n) each.
    coefficients : list of (degree + 1, degree + 1) float64 arrays
        Every pair's, by degree.
    """

    lines: list[tuple[FloatArray, FloatArray]]
    coefficients: list[FloatArray]

    @classmethod
    def of(
        cls,
        pairs: Sequence[Pair],
        backgrounds: Sequence[BackgroundSums],
        coefficients: Sequence[FloatArray],
    ) -> Beside:
        """Return backgrounds by their coefficients, one a term."""
        matrices = []
        for sums, found in zip(backgrounds, coefficients, strict=True):
            matrix = np.zeros((sums.degree + 1, sums.degree + 1))
            matrix[terms_of(sums.degree)] = found
            matrices.append(matrix)
        return cls.by_degree(pairs, matrices)

    @classmethod
    def by_degree(cls, pairs: Sequence[Pair], coefficients: list[FloatArray]) -> Beside:
        """Return backgrounds by their coefficients, by degree."""
        lines = []
        for pair, matrix in zip(pairs, coefficients, strict=True):
            both = lines_of(pair.within, pair.window.shape, len(matrix) - 1)
            rows, cols = (line.T.copy() for line in both)
            lines.append((rows, cols))
        return cls(lines, coefficients)


def leave_residual(view: View, beside: Beside | None) -> tuple[FloatArray, FloatArray]:
    """Subtract from ``view.y`` what a kernel and its background explain.

    Returns
    -------
    rows, cols : (degree + 1, n) float64 arrays
        The polynomials of the tile's rows and columns; of degree -1 without a background.
    """
    (top, left, height, width), number = view.tile, view.number
    left_over = view.y[:, :width]
    left_over -= view.convolved
    if beside is None:
        return np.zeros((0, height)), np.zeros((0, width))
    rows, cols = beside.lines[number]
    rows, cols = rows[:, top : top + height].copy(), cols[:, left : left + width].copy()
    for row, across in zip(rows, beside.coefficients[number] @ cols, strict=True):
        left_over -= row[:, None] * across
    return rows, cols


def _weigh(pair: Pair, view: View) -> float:
    """Return the energy of the residual in ``view.y`` by its weights, which it is multiplied by."""
    height, width = view.convolved.shape
    if pair.even:
        return float(lags.energy(view.y, (height, width)))
    weights = view.scratch.array("weights", (height, width))
    pair.load_weights(view.tile[0], view.tile[1], weights)
    return float(moments.weigh(view.y, weights))


class Residual(NamedTuple):
    """Sums over what a kernel and its backgrounds leave unexplained, by the weights of the pixels.

    Attributes
    ----------
    moments : (p*q,) float64 array
        By shift: of the residual times the shifted source.
    energy : float
        Of the squared residual.
    beside : list of (terms,) float64 arrays
        Of the residual times the background's polynomials, one a pair; empty without backgrounds.
    """

    moments: FloatArray
    energy: float
    beside: list[FloatArray]


def residual_sums(
    pairs: Sequence[Pair],
    taps: FloatArray,
    beside: Beside | None,
    run: Run,
    *,
    transforms: bool = False,
) -> Residual:
    """Return the sums over a residual, computed pixel by pixel.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one, of finite pixels.
    taps : (p, q) float64 array
        The kernel by shift, that is flipped both ways.
    beside : Beside or None
        The backgrounds.
    run : Run
        How. The answer is the same bit for bit.
    transforms : bool, optional
        Whether to read tiles by transforms: for many taps, where their rounding does not matter.
    """

    def act(view: View, found: tuple[FloatArray, float] | None) -> tuple[FloatArray, float]:
        height, width = view.convolved.shape
        rows, cols = leave_residual(view, beside)
        n = len(rows)
        total, energy = found or (np.zeros((n, n)), 0.0)
        energy += _weigh(pairs[view.number], view)
        if n:
            sums, down = np.zeros((height, n)), np.zeros((n, n))
            moments.add_row_sums(view.y, width, cols, sums)
            moments.add_row_sums(np.ascontiguousarray(sums.T), height, rows, down)
            total += down.T
        return total, energy

    right, energy = np.zeros(taps.shape), 0.0
    left = [] if beside is None else [np.zeros(part.shape) for part in beside.coefficients]
    each = sweep_by_transforms if transforms else sweep
    for number, found, (sums, part) in each(pairs, taps, act, run):
        right += found
        energy += part
        if left:
            left[number] += sums
    return Residual(right.ravel(), energy, [part[terms_of(len(part) - 1)] for part in left])


def residual_moments_beside(
    pairs: Sequence[Pair],
    taps: FloatArray,
    backgrounds: Sequence[BackgroundSums],
    coefficients: Sequence[FloatArray],
    run: Run,
) -> tuple[FloatArray, float, list[FloatArray]]:
    """Return what a kernel and backgrounds leave unexplained.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one, of finite pixels.
    taps : (p, q) float64 array
        The kernel by shift, that is flipped both ways.
    backgrounds : sequence of BackgroundSums
        One a pair.
    coefficients : sequence of (terms,) float64 array
        One a pair, near those that are best beside the kernel.
    run : Run
        How. The answer is the same bit for bit.

    Returns
    -------
    moments : (p*q,) float64 array
        By shift: the right-hand side, for the equations that `eliminate` makes, of a correction
        to the kernel.
    energy : float
        Of the residual beside the best backgrounds.
    coefficients : list of (terms,) float64 array
        These backgrounds'.
    """
    found = residual_sums(pairs, taps, Beside.of(pairs, backgrounds, coefficients), run)
    moments_by_tap, energy = found.moments[::-1], found.energy
    corrected = []
    for sums, before, unexplained in zip(backgrounds, coefficients, found.beside, strict=True):
        step = sums.solve(unexplained)
        moments_by_tap = moments_by_tap - sums.products @ step
        energy -= float(unexplained @ step)
        corrected.append(before + step)
    return moments_by_tap[::-1], max(energy, 0.0), corrected


def residual_equations(
    source: Images,
    result: Images,
    kernel: ArrayLike,
    *,
    boundary: Border | None = None,
    weights: Pixels | None = None,
    mask: Pixels | None = None,
    source_mask: Pixels | None = None,
    saturation: Saturation | None = None,
    nan_policy: NanPolicy = "raise",
    background: ArrayLike | None = None,
    within: tuple[Shape, Shape] | None = None,
    workers: int | None = None,
) -> NormalEquations:
    r"""Gather what a kernel leaves unexplained, for a second pass over the pixels.

    Where the source hardly tells some taps apart, rounding of the sums over its pixels reaches the
    kernel. Sums over the residual, which is small, correct it: they add up over tiles, images and
    machines as `NormalEquations` do, and `NormalEquations.refine` takes their sum.

    Parameters
    ----------
    source, result : array_like of real numbers, or a sequence of them
        As in `normal_equations`.
    kernel : (p, q) array_like of real numbers
        The kernel of the first pass, in result units per source unit.
    boundary, weights, mask, source_mask, saturation, nan_policy, within, workers : optional
        As in `normal_equations`, of the first pass.
    background : float or (n, n) array_like of real numbers, optional
        What stands beside the kernel over all parts of a whole image, `KernelFit.background` of
        the first pass; needs ``within``.

    Returns
    -------
    NormalEquations
        ``moments`` of the source and the residual, and the residual's ``energy``; their ``gram``
        is zero, since that of the first pass holds.

    Raises
    ------
    TypeError, ValueError
        As `normal_equations`; or if ``kernel`` is no kernel of finite numbers, ``background`` no
        number and no square matrix of them, or given without ``within``.

    References
    ----------
    Å. Björck, "Stability analysis of the method of seminormal equations for linear least squares
    problems", Linear Algebra Appl. 88/89 (1987) 31-48.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import ndimage
    >>> from fastkernel import normal_equations, residual_equations
    >>> source = ndimage.gaussian_filter(np.random.default_rng(0).random((80, 90)), 2.5)
    >>> blur = np.outer([1, 2, 1], [1, 3, 2, 1, 1]) / 32
    >>> result = ndimage.convolve(source, blur)
    >>> equations = normal_equations(source, result, (3, 5))
    >>> fit = equations.solve()
    >>> left = residual_equations(source, result, fit.kernel)
    >>> better = equations.refine(fit, left)
    >>> bool(abs(better.kernel - blur).max() < abs(fit.kernel - blur).max() / 10)
    True
    """
    taps = np.asarray(as_image(kernel, "kernel"), np.float64)
    refuse_non_finite("kernel", taps)
    coefficients = None if background is None else _as_coefficients(background, within)
    shape, run = (taps.shape[0], taps.shape[1]), Run(as_workers(workers), None)
    rules = PixelRules(mask, source_mask, weights, saturation, nan_policy)
    degree = None if coefficients is None else len(coefficients) - 1
    problem = problem_of(source, result, shape, boundary, degree, None, rules, within)
    pairs = problem.pairs()
    beside = None if coefficients is None else Beside.by_degree(pairs, [coefficients])
    with np.errstate(over="ignore", invalid="ignore"):
        found = residual_sums(pairs, np.ascontiguousarray(taps[::-1, ::-1]), beside, run)
    refuse_unusable(pairs, found.moments, found.moments, found.energy)
    size = len(found.moments)
    return NormalEquations(
        np.zeros((size, size)),
        found.moments[::-1].copy(),
        found.energy,
        sum(pair.n_pixels for pair in pairs),
        shape,
        total_weight=sum(pair.total_weight for pair in pairs),
        background=_unexplained(found, size, degree, pairs[0]),
    )


def _as_coefficients(background: ArrayLike, within: object) -> FloatArray:
    """Return what stands beside a kernel as a matrix by degree."""
    if within is None:
        msg = "background needs within=, the place of this part in the image that it is of"
        raise ValueError(msg)
    found = np.asarray(background)
    if found.dtype.kind not in "biuf" or found.ndim not in (0, 2) or len(set(found.shape)) > 1:
        msg = (
            "background must be a number or a square matrix of them, as KernelFit.background is, "
            f"got dtype {found.dtype} and shape {found.shape}"
        )
        raise ValueError(msg)
    found = np.atleast_2d(found).astype(np.float64)
    refuse_non_finite("background", found)
    return found


def _unexplained(
    found: Residual, size: int, degree: int | None, part: Pair
) -> BackgroundSums | None:
    """Return the sums of a part's residual with the background's polynomials, if there is one."""
    if degree is None or part.part_of is None:
        return None
    (moments,) = found.beside
    products, gram = np.zeros((size, len(moments))), np.zeros((len(moments), len(moments)))
    return BackgroundSums(degree, products, gram, moments, part.part_of.shape)
