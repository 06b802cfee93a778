"""Estimation of a kernel for every pair of a stack."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastkernel._images.checks import (
    as_boundary,
    as_callback,
    as_degree,
    as_kernel_shape,
    as_workers,
)
from fastkernel._loops import lags, rims, small_systems
from fastkernel._machine.tiles import Scratch, run_jobs, split
from fastkernel._typing import Background, Border, FloatArray, Progress, Ridge, Shape
from fastkernel.estimation.equations.background import terms_of
from fastkernel.estimation.equations.gathering_cost import (
    int16_tile_is_exact,
    is_narrow,
    largest_product,
)
from fastkernel.estimation.equations.gathering_engines import (
    SCRATCH_DTYPES,
    rim_scratch,
)
from fastkernel.estimation.equations.row_jobs import row_length
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.polynomial import values_of
from fastkernel.estimation.solvers.direct import refuse_too_few
from fastkernel.estimation.solvers.options import SolverOptions
from fastkernel.estimation.solvers.solution import System
from fastkernel.estimation.solvers.solve import solve
from fastkernel.estimation.stacks.kernel_stack import KernelStack
from fastkernel.estimation.stacks.stamps import BEYOND, Stamps, as_stamps

_EPS = float(np.finfo(np.float64).eps)

# Bytes of the images and of the equations that a job holds at a time.
_HELD = 2 << 20

NOT_FINITE = "a pixel is not finite"
SINGULAR = "the images do not determine the kernel"
EXTREME = "what follows from the sums of its squares is no number of float64"


class _Part(NamedTuple):
    """What some pairs answer."""

    answers: FloatArray
    errors: FloatArray
    residual: FloatArray
    condition: FloatArray
    reasons: list[str]


@dataclass(frozen=True, slots=True)
class _StackJob:
    """Some pairs, one after the other."""

    stamps: Stamps
    kernel_shape: Shape
    features: FloatArray
    options: SolverOptions
    engine: str
    first: int
    count: int

    def __call__(self, scratch: Scratch, _: Callable[[], bool]) -> _Part:
        # Pixels that are not finite show in the sums.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return self._found(scratch)

    def _found(self, scratch: Scratch) -> _Part:
        (p, q), (height, width), n = self.kernel_shape, self.stamps.window_shape, self.count
        taps, m, dtype = p * q, p * q + len(self.features), SCRATCH_DTYPES[self.engine]
        lines, cols = row_length(width, q - 1, dtype), width + q - 1
        x = scratch.rows("x", (n, height + p - 1, lines), cols, dtype)
        y = scratch.rows("y", (n, height, row_length(width, 0, dtype)), width, dtype)
        there = self.stamps.read(self.first, x[:, :, :cols], y[:, :, :width])
        sums = lags.sums_shape((p, q), dtype), lags.sums_dtype(dtype)
        base = np.zeros((n, lags.KINDS, p, q))
        lags.add_tiles(x, y, (height, width), True, scratch.array("sums", *sums), base)
        grams = scratch.array("grams", (n, m + 1, m + 1))
        rim = rim_scratch(scratch, (p, q), (height, width))
        rims.slide_products(x, (p, q), (height, width), base, rim, False, grams)
        grams[:, :taps, m] = base[:, 0].reshape(n, taps)
        small_systems.gather_answers(x, self.features, y, (p, q), grams)
        # A kernel flips what shifts do not.
        part = self._solved(grams, scratch)
        energies = grams[:, m, m]
        finite = np.isfinite(energies) & np.isfinite(grams[:, :taps, m]).all(axis=1)
        finite &= np.isfinite(np.einsum("nii->ni", grams[:, :taps, :taps])).all(axis=1)
        known = part.condition < 1 / (m * _EPS)
        checks = ((there, BEYOND), (finite, NOT_FINITE), (known, SINGULAR))
        reasons = part.reasons
        for i in np.flatnonzero(~(there & finite & known)).tolist():
            reasons[i] = next(reason for good, reason in checks if not good[i])
        return part._replace(reasons=reasons)

    def _solved(self, grams: FloatArray, scratch: Scratch) -> _Part:
        (p, q), (height, width), n = self.kernel_shape, self.stamps.window_shape, self.count
        taps, terms, pixels = p * q, len(self.features), height * width
        m = taps + terms
        penalty, options = self.options.penalty, self.options
        ridge = 0.0 if penalty is None or options.smooth else penalty * pixels
        answers, errors, numbers = np.zeros((n, m)), np.zeros((n, taps)), np.zeros((n, 3))
        work = scratch.array("work", small_systems.work_shape(m))
        small_systems.solve_stack(grams, taps, ridge, work, answers, errors, numbers)
        residual = np.maximum(numbers[:, 0], 4 * _EPS * numbers[:, 2])
        left = pixels - m
        spread = residual / left if left > 0 else np.full(n, np.inf)
        part = _Part(
            answers,
            np.sqrt(np.maximum(spread[:, None] * errors, 0)),
            np.sqrt(residual / pixels),
            numbers[:, 1],
            [""] * n,
        )
        if options.nonnegative or options.unit_sum or options.smooth or penalty is None:
            self._constrain(grams, part)
        return part

    def _constrain(self, grams: FloatArray, part: _Part) -> None:
        """Solve one by one what more is asked of."""
        (p, q), (height, width) = self.kernel_shape, self.stamps.window_shape
        taps, pixels = p * q, height * width
        for i in range(self.count):
            upper = np.triu(grams[i])
            whole = upper + np.triu(upper, 1).T
            regular = part.condition[i] < 1 / (len(whole) * _EPS)
            if not np.isfinite(whole).all() or not (regular or self.options.ridge):
                continue
            x, b, y = slice(0, taps), slice(taps, -1), -1
            mix = np.linalg.solve(whole[b, b], whole[b]) if whole[b, b].size else whole[b]
            less = whole - whole[:, b] @ mix
            system = System(
                # By tap: solvers and their constraints see kernels, not shifts.
                gram=np.ascontiguousarray(less[x, x][::-1, ::-1]),
                moments=less[x, y][::-1].copy(),
                energy=float(less[y, y]),
                hidden_energy=4 * _EPS * float(whole[y, y]),
                n_pixels=pixels,
                kernel_shape=(p, q),
                background_terms=len(self.features),
            )
            try:
                found = solve(system, self.options)
            except ValueError as reason:
                part.reasons[i] = SINGULAR if isinstance(reason, SingularFitError) else EXTREME
                continue
            energy = system.energy_left(found)
            by_shift = found.taps[::-1, ::-1].ravel()
            part.answers[i, x] = by_shift
            part.answers[i, taps:] = mix[:, y] - mix[:, x] @ by_shift
            part.residual[i] = math.sqrt(energy / pixels)
            part.condition[i] = min(found.condition_number, 0.5 / (len(whole) * _EPS))
            part.errors[i] = np.nan
            if found.factor is not None:
                left = pixels - len(found.factor.lower) - len(self.features)
                variance = energy / left if left > 0 else math.inf
                diagonal = found.factor.inverse_diagonal()[::-1]
                part.errors[i] = np.sqrt(variance * diagonal)


def estimate_kernels(
    sources: ArrayLike,
    results: ArrayLike,
    kernel_shape: Shape | int,
    *,
    centres: ArrayLike | None = None,
    stamp_shape: Shape | int | None = None,
    boundary: Border | None = None,
    background: Background | None = None,
    nonnegative: bool = False,
    unit_sum: bool = False,
    ridge: Ridge = 0.0,
    workers: int | None = None,
    callback: Progress | None = None,
) -> KernelStack:
    r"""Estimate a kernel for every pair of a stack of small images.

    Parameters
    ----------
    sources, results : (n, rows, cols) array_like of real numbers
        Pairs of images, in any unit; what the shapes of the results say, see `estimate_kernel`.
        With ``centres`` one image each, of which the stamps are parts.
    kernel_shape : (int, int) or int
        Rows ``p`` and columns ``q`` of the kernels, in pixels.
    centres : (n, 2) array_like of int, optional
        Row and column, in ``results``, of the middle pixel (the earlier of two) of every stamp.
        None for stacks of pairs as they stand.
    stamp_shape : (int, int) or int, optional
        Rows and columns of the result pixels that a stamp fits; what the kernel needs around them
        is taken from ``sources``. It goes with ``centres``.
    boundary, background, nonnegative, unit_sum, ridge : optional
        As in `estimate_kernel`, for every pair.
    workers : int, optional
        Threads to use, every usable core when None. The answer is the same bit for bit.
    callback : callable, optional
        Called as ``callback(done, total)`` in the calling thread; an exception stops the work.

    Returns
    -------
    KernelStack
        A pair that does not determine its kernel (without the help of constraints), or has a
        pixel that is not finite, or a stamp that reaches beyond the images, is refused by itself,
        and says why.

    Raises
    ------
    SingularFitError
        If a pair has fewer pixels than a kernel has taps.
    TypeError, ValueError
        If the shapes do not fit together, or an argument is out of its range.

    See Also
    --------
    estimate_kernel : One pair, of any size, with everything else that may be asked.

    Notes
    -----
    The products of a pair's pixels at all shifts follow from those of one window for every
    displacement, as in `normal_equations`: ``3pq - p - q + 1`` multiply-adds a pixel.

    Examples
    --------
    >>> import numpy as np
    >>> from fastkernel import estimate_kernels
    >>> rng = np.random.default_rng(0)
    >>> sources = rng.random((100, 32, 32))
    >>> shifts = rng.integers(0, 3, 100)
    >>> results = np.array([x[i : i + 30, 1:31] for x, i in zip(sources, shifts)])
    >>> stack = estimate_kernels(sources, results, 3)
    >>> bool((stack.kernels[:, :, 1].argmax(axis=1) == 2 - shifts).all())
    True
    """
    shape, threads = as_kernel_shape(kernel_shape), as_workers(workers)
    options = SolverOptions(ridge=ridge, nonnegative=nonnegative, unit_sum=unit_sum)
    degree = None if background is None else as_degree(background)
    rule = None if boundary is None else as_boundary(boundary)
    stamps = as_stamps(sources, results, shape, rule, centres, stamp_shape)
    features = _features(stamps.window_shape, degree)
    n_pixels = math.prod(stamps.window_shape)
    if options.ridge == 0.0:
        refuse_too_few(n_pixels - len(features), math.prod(shape))
    held = 8 * (2 * n_pixels + (math.prod(shape) + len(features) + 1) ** 2)
    engine = _engine(stamps)
    jobs = [
        _StackJob(stamps, shape, features, options, engine, first, last - first)
        for first, last in split(stamps.count, max(1, min(256, _HELD // held)))
    ]
    parts = run_jobs(jobs, Scratch, threads, as_callback(callback))
    return _joined(parts, shape, degree, n_pixels)


def _engine(stamps: Stamps) -> str:
    """Return how the pixels of stamps are summed."""
    largest = largest_product(*stamps.images) if is_narrow(*stamps.images) else math.inf
    return "integer" if int16_tile_is_exact(stamps.window_shape, largest) else "float"


def _features(window_shape: Shape, degree: int | None) -> FloatArray:
    """Return the polynomials of a background over a window, (terms, rows, cols)."""
    if degree is None:
        return np.zeros((0, *window_shape))
    rows, cols = (values_of(n, degree).T for n in window_shape)
    return np.array([np.outer(rows[i], cols[j]) for i, j in zip(*terms_of(degree), strict=True)])


def _joined(parts: list[_Part], shape: Shape, degree: int | None, n_pixels: int) -> KernelStack:
    answers, errors, residual, condition = (
        np.concatenate([np.asarray(part[i]) for part in parts]) for i in range(4)
    )
    reasons = tuple(reason for part in parts for reason in part.reasons)
    refused, taps = np.array([bool(reason) for reason in reasons]), math.prod(shape)
    for values in (answers, errors, residual, condition):
        values[refused] = np.nan
    background: Any = None
    if degree == 0:
        background = answers[:, taps]
    elif degree is not None:
        background = np.zeros((len(answers), degree + 1, degree + 1))
        i, j = terms_of(degree)
        background[:, i, j] = answers[:, taps:]
    kernels, bars = (
        np.ascontiguousarray(values[:, :taps].reshape(-1, *shape)[:, ::-1, ::-1])
        for values in (answers, errors)
    )
    return KernelStack(kernels, bars, residual, condition, background, n_pixels, reasons)
