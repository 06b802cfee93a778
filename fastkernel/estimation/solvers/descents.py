"""Gradient descent and its accelerated form, on a matrix that need only be applied."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
from scipy import fft, linalg

from fastkernel._loops import descent
from fastkernel._machine.fft import borrowed_tile_transforms
from fastkernel._typing import FloatArray, Progress, Shape
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.solvers.bases import tap_groups
from fastkernel.estimation.solvers.options import SolverOptions
from fastkernel.estimation.solvers.penalties import Penalty
from fastkernel.estimation.solvers.solution import Iterated

Matrix: TypeAlias = Callable[[FloatArray], FloatArray]
# From the point ahead, its image and the last taps to new taps, which are written: see `take_step`.
_Step: TypeAlias = Callable[[FloatArray, FloatArray, FloatArray, FloatArray], tuple[float, float]]

_EPS = float(np.finfo(np.float64).eps)

# Taps from which a matrix that depends on the lag alone is quicker applied by transforms.
TRANSFORMED = 256

# Relative error of the largest eigenvalue, and the products it may take.
_EIGENVALUE_TOL, _MAX_PRODUCTS = 1e-6, 200
# A multiple of the first objective that no stable descent comes near.
_DIVERGED = 1e6
_REPORT_EVERY = 16


@contextmanager
def applied(gram: FloatArray, kernel_shape: Shape) -> Iterator[Matrix]:
    """Lend the product with a Gram matrix as a function of (p, q) taps.

    Where its entries depend on the lag alone, as those of a source with a border of zeros do, it
    is applied by transforms, otherwise by BLAS, which reads half of it. Cost: with ``n = p * q``
    some ``n * log(n)`` operations, or ``n**2``.
    """
    p, q = kernel_shape
    if p * q < TRANSFORMED or not _is_toeplitz(gram.reshape(p, q, p, q)):
        # By columns, as BLAS wants it: a symmetric matrix is its own transpose.
        yield lambda taps: linalg.blas.dsymv(1.0, gram.T, taps.ravel()).reshape(kernel_shape)
        return
    grid = _grid(p), _grid(q)
    lags = np.zeros(grid)
    # A column of the matrix for each corner tap: lags of equal sign, and of opposite sign.
    tensor = gram.reshape(p, q, p, q)
    lags[:p, :q] = tensor[:, :, 0, 0]
    lags[:p, grid[1] - q + 1 :] = tensor[:, :-1, 0, -1]
    lags[grid[0] - p + 1 :, :q] = tensor[:-1, :, -1, 0]
    lags[grid[0] - p + 1 :, grid[1] - q + 1 :] = tensor[:-1, :-1, -1, -1]
    with borrowed_tile_transforms(grid, np.dtype(np.float64)) as plan:
        # The spectrum of a symmetric filter is real; an inverse transform multiplies by the size.
        symbol = fft.rfft2(lags).real / lags.size

        def apply(taps: FloatArray) -> FloatArray:
            plan.tile[:] = 0
            plan.tile[:p, :q] = taps
            plan.forward()
            descent.scale_spectrum(symbol, plan.spectrum)
            plan.inverse()
            return np.array(plan.tile[:p, :q])

        yield apply


def _grid(k: int) -> int:
    """Return a length that holds all lags of ``k`` taps: multiples of 16 transform quickest."""
    return 16 * int(fft.next_fast_len(-(-(2 * k - 1) // 16), real=True))


def _is_toeplitz(tensor: FloatArray) -> bool:
    return np.array_equal(tensor[1:, :, 1:], tensor[:-1, :, :-1]) and np.array_equal(
        tensor[:, 1:, :, 1:], tensor[:, :-1, :, :-1]
    )


def largest_eigenvalue(matrix: Matrix, kernel_shape: Shape) -> float:
    """Return a bound on the largest eigenvalue from above, within a millionth where it converges.

    Parameters
    ----------
    matrix : callable
        The product with (p, q) taps.
    kernel_shape : (int, int)
        ``(p, q)``.

    Returns
    -------
    float
        The largest Ritz value of a Lanczos recurrence from random taps, the same every time,
        plus its residual.

    References
    ----------
    .. [1] B. N. Parlett, "The Symmetric Eigenvalue Problem", SIAM 1998, chapter 13.
    """
    size = math.prod(kernel_shape)
    vector = np.random.default_rng(0).standard_normal(kernel_shape) + 1.0
    vector /= linalg.norm(vector)
    before, bound = np.zeros(kernel_shape), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(size, _MAX_PRODUCTS)):
        image = matrix(vector)
        diagonal.append(float(np.vdot(vector, image)))
        image = image - diagonal[-1] * vector - (beside[-1] if beside else 0.0) * before
        left = float(linalg.norm(image))
        values, vectors = linalg.eigh_tridiagonal(
            diagonal, beside, select="i", select_range=(len(diagonal) - 1, len(diagonal) - 1)
        )
        residual = left * abs(float(vectors[-1, 0]))
        bound = float(values[0]) + residual
        if not residual > _EIGENVALUE_TOL * bound:
            break
        beside.append(left)
        before, vector = vector, image / left
    return bound


def safe_step(largest: float, options: SolverOptions) -> float:
    """Return the length of the step, or refuse the one that was asked for.

    Gradient descent is stable below ``2 / largest``; with momentum, ``1 / largest`` is proved.

    Raises
    ------
    SingularFitError
        If the source is zero everywhere.
    ValueError
        If ``step`` is too large.
    """
    if not largest > 0:
        msg = (
            "the images do not determine the kernel: the source is zero everywhere. "
            "What helps: a source with more detail"
        )
        raise SingularFitError(msg)
    most = (2 if options.solver == "gradient_descent" else 1) / largest
    if options.step is None:
        return 1 / largest
    # The bound is from above by up to a millionth, and others round their own.
    if options.step > most * (1 + 2 * _EIGENVALUE_TOL):
        msg = (
            f"step must be at most {most:.6g}, the largest stable step of "
            f"solver={options.solver!r} for these images and this ridge, got {options.step:.6g}; "
            "None takes a safe one"
        )
        raise ValueError(msg)
    return options.step


def _steps(
    kernel_shape: Shape, target: FloatArray, step: float, options: SolverOptions
) -> tuple[FloatArray, _Step]:
    """Return the taps nearest to zero that keep the constraints, and how to step from any."""
    if options.basis is not None:
        nearest = _onto(options.basis, options.unit_sum)

        def within(
            ahead: FloatArray, image: FloatArray, before: FloatArray, taps: FloatArray
        ) -> tuple[float, float]:
            taps[:] = nearest(ahead - step * (image - target))
            change = ahead - taps
            return float(change @ change), float(change @ (taps - before))

        return nearest(np.zeros(target.size)), within
    groups = tap_groups(kernel_shape, options.symmetric)
    totals = np.zeros((2, int(groups.max()) + 1))
    if options.symmetric is None:
        groups = groups[:0]
    kept = options.nonnegative, options.unit_sum

    def projected(
        ahead: FloatArray, image: FloatArray, before: FloatArray, taps: FloatArray
    ) -> tuple[float, float]:
        found: tuple[float, float] = descent.take_step(
            ahead, image, before, target, step, groups, totals, *kept, taps
        )
        return found

    return np.full(target.size, 1 / target.size if options.unit_sum else 0.0), projected


def _onto(basis: FloatArray, unit_sum: bool) -> Matrix:
    """Return the projection onto the kernels of a basis, or onto those of sum 1."""
    sums = basis.sum(axis=0)
    squared = float(sums @ sums)

    def nearest(taps: FloatArray) -> FloatArray:
        coordinates = basis.T @ taps
        if unit_sum:
            coordinates += (1 - sums @ coordinates) / squared * sums
        return np.asarray(basis @ coordinates)

    return nearest


def descend(
    matrix: Matrix,
    moments: FloatArray,
    energy: float,
    hidden: float,
    total_weight: float,
    penalty: Penalty,
    options: SolverOptions,
    progress: Progress | None = None,
) -> Iterated:
    r"""Go down from zero, or the point nearest to it that keeps the constraints.

    Parameters
    ----------
    matrix : callable
        The product of the Gram matrix ``H`` with (p, q) taps.
    moments : (p, q) float64 array
        The right-hand side ``r``, in source times result units.
    energy : float
        Of the result, in squared result units.
    hidden : float
        Residual energy below which rounding hides it, in squared result units.
    total_weight : float
        Sum of the weights of the pixels of the result.
    penalty : Penalty
        Added to the objective; 0 for none.
    options : SolverOptions
        Its ``solver`` descends.
    progress : callable, optional
        Called as ``progress(done, total)`` every few steps; an exception stops the work.

    Returns
    -------
    Iterated
        With ``num_iter + 1`` numbers in each history.

    Raises
    ------
    SingularFitError
        If the source is zero everywhere.
    ValueError
        If ``step`` is too large, or the objective grew beyond all bounds.

    Notes
    -----
    "gradient_descent" is the plain iteration, projected where there are constraints,

    .. math:: k \leftarrow P\bigl(k - s\,(H k - r)\bigr), \qquad
              f(k) = \tfrac12 \|X k - y\|^2
                   = \tfrac12 (k^T H k - 2 r^T k + y^T y) .

    "fista" takes the same step from a point further on [1]_, ``y = k + b (k - k') + c (k - y')``
    with the momentum ``b`` of the change of the taps and, unless there are signs to keep, the
    relaxation ``c`` of the optimized gradient method [2]_, which halves the bound on the
    objective. Both are dropped where they lead uphill [3]_.

    Iterations end where the gradient mapping ``|y - P(y - s (H y - r))| / s``, without
    constraints the gradient, is ``tol`` times the length of ``r``. The last form of the objective
    cancels where the residual is small: its error is about 1e-16 times the energy of the result,
    and no less than what rounding hides is shown.

    References
    ----------
    .. [1] A. Beck and M. Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear
       inverse problems", SIAM J. Imaging Sci. 2 (2009) 183-202.
    .. [2] D. Kim and J. A. Fessler, "Optimized first-order methods for smooth convex
       minimization", Math. Program. 159 (2016) 81-107.
    .. [3] B. O'Donoghue and E. Candès, "Adaptive restart for accelerated gradient schemes",
       Found. Comput. Math. 15 (2015) 715-732.
    """
    kernel_shape = moments.shape[0], moments.shape[1]

    def penalised(taps: FloatArray) -> FloatArray:
        return matrix(taps) + penalty(taps) if penalty.weight else matrix(taps)

    step = safe_step(largest_eigenvalue(penalised, kernel_shape), options)
    size, target = float(linalg.norm(moments)), moments.ravel()
    taps, take_step = _steps(kernel_shape, target, step, options)
    image = penalised(taps.reshape(kernel_shape)).ravel()
    ahead, image_ahead = taps.copy(), image.copy()
    objectives, residuals = [], []

    def record() -> None:
        pushed = taps @ penalty(taps.reshape(kernel_shape)).ravel() if penalty.weight else 0.0
        residual = max(float(energy + taps @ (image - 2 * target) - pushed), hidden)
        objectives.append((residual + pushed) / 2)
        residuals.append(math.sqrt(residual / total_weight))

    record()
    momentum, relaxation, age, measure = 0.0, 0.0, 1.0, math.inf
    for iteration in range(options.iterations):
        before, image_before, taps = taps, image, np.empty(moments.size)
        squared_change, turn = take_step(ahead, image_ahead, before, taps)
        image = penalised(taps.reshape(kernel_shape)).ravel()
        record()
        if not objectives[-1] <= _DIVERGED * max(objectives[0], energy / 2):
            msg = (
                f"step {step:.6g} made the descent diverge after {iteration + 1} iterations; "
                f"pass a smaller one, such as step={step / 2:.6g}"
            )
            raise ValueError(msg)
        measure = math.sqrt(squared_change) / step
        if measure <= options.tolerance * size:
            break
        if options.solver == "fista":
            if turn > 0:
                momentum, relaxation, age = 0.0, 0.0, 1.0
            else:
                age, last = (1 + math.sqrt(1 + 4 * age**2)) / 2, age
                momentum = (last - 1) / age
                relaxation = 0.0 if options.nonnegative else last / age
        descent.look_ahead(taps, before, momentum, relaxation, ahead)
        descent.look_ahead(image, image_before, momentum, relaxation, image_ahead)
        if progress is not None and iteration % _REPORT_EVERY == 0:
            progress(iteration + 1, options.iterations)
    if progress is not None:
        progress(options.iterations, options.iterations)
    return Iterated(
        taps.reshape(kernel_shape),
        len(objectives) - 1,
        options.reached(measure / size if size else 0.0),
        {"objective": np.array(objectives), "residual_rms": np.array(residuals)},
    )
