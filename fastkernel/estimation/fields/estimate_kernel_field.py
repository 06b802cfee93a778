"""Estimation of a kernel that varies over the image."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg

from fastkernel._images.checks import (
    as_callback,
    as_count,
    as_number,
    as_penalty,
    as_workers,
)
from fastkernel._images.pairs import Pair, held
from fastkernel._images.usable import PixelRules
from fastkernel._machine.run import Run
from fastkernel._typing import (
    Background,
    Border,
    FloatArray,
    NanPolicy,
    Pixels,
    Progress,
    Ridge,
    Saturation,
    Shape,
)
from fastkernel.estimation.equations.background import terms_of
from fastkernel.estimation.equations.clipping import clipped_share
from fastkernel.estimation.fields.field_sums import FieldSums, Frame, field_sums
from fastkernel.estimation.fields.kernel_field import KernelField
from fastkernel.estimation.problem import problem_of
from fastkernel.estimation.solvers.bases import orthonormal_basis
from fastkernel.estimation.solvers.direct import Factor, factorise, refuse_too_few
from fastkernel.estimation.solvers.options import as_ridge
from fastkernel.estimation.solvers.penalties import Penalty, gcv_weight

_EPS = float(np.finfo(np.float64).eps)

# What the taps of a polynomial may be: side of the tiles, and most of their degree.
_LEAST_TILE, MAX_DEGREE = 8, 4

_MAX_CLIPS = 12

# The penalty on second differences that goes with a noisy source, in units of its variance.
_SMOOTH_SHARE = 0.05


class _Asked(NamedTuple):
    """What is asked of the coefficients."""

    frame: Frame
    scale_degree: int
    basis: FloatArray | None
    ridge: Ridge


def _bases(shape: Shape, asked: _Asked) -> list[FloatArray]:
    """Return what the taps of every polynomial may be, by tap: columns that are orthonormal."""
    taps = math.prod(shape)
    whole = np.eye(taps) if asked.basis is None else asked.basis
    # Columns of sum 0: what is orthogonal to the sums of the columns.
    sums = whole.sum(axis=0)
    level = np.linalg.qr(sums[:, None], mode="complete")[0][:, 1:]
    still = whole @ level
    degrees = np.sum(terms_of(asked.frame.degree), axis=0)
    return [whole if degree <= asked.scale_degree else still for degree in degrees]


class _Solved(NamedTuple):
    """Coefficients, and what to say of them."""

    coefficients: FloatArray
    background: FloatArray
    energy: float
    factor: Factor
    columns: FloatArray
    ridge: float


def _solve(sums: FieldSums, shape: Shape, asked: _Asked) -> _Solved:
    """Solve the equations of all coefficients and of the background."""
    terms, taps = asked.frame.terms, math.prod(shape)
    bases = _bases(shape, asked)
    sizes = [basis.shape[1] for basis in bases]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    beside = int(sums.mixed.shape[1]) - taps - 1
    n = int(starts[-1] + beside)
    gram, moments = np.zeros((n, n)), np.zeros(n)
    # By tap, not by shift.
    order = np.concatenate([np.arange(taps)[::-1], np.arange(taps, taps + beside + 1)])
    first, second = np.triu_indices(terms)
    for j, k, mixed, noise in zip(first, second, sums.mixed, sums.noise, strict=True):
        whole = (mixed + np.triu(mixed, 1).T)[np.ix_(order, order)]
        block = whole[:taps, :taps] - np.diag(noise[::-1])
        rows, cols = slice(starts[j], starts[j + 1]), slice(starts[k], starts[k + 1])
        gram[rows, cols] = bases[j].T @ block @ bases[k]
        gram[cols, rows] = gram[rows, cols].T
        if j == 0:
            gram[cols, starts[-1] :] = bases[k].T @ whole[:taps, taps:-1]
            gram[starts[-1] :, cols] = gram[cols, starts[-1] :].T
            moments[cols] = bases[k].T @ whole[:taps, -1]
            if k == 0:
                gram[starts[-1] :, starts[-1] :] = whole[taps:-1, taps:-1]
                moments[starts[-1] :] = whole[taps:-1, -1]
    energy = float(sums.mixed[0, -1, -1])
    penalty = _penalty(shape, bases, asked, n)
    weight = _weight(gram, moments, energy, sums, penalty, asked)
    matrix = gram + weight * penalty if weight else gram
    if not weight:
        refuse_too_few(sums.n_pixels, n)
    factor = factorise(matrix)
    found = factor.solve(moments)
    left = energy + float(found @ (gram @ found - 2 * moments))
    columns = np.zeros((terms * taps, n))
    for j, basis in enumerate(bases):
        columns[j * taps : (j + 1) * taps, starts[j] : starts[j + 1]] = basis
    coefficients = (columns @ found).reshape(terms, *shape)
    noise = np.einsum("mta,mta->", *_noise_terms(sums, coefficients))
    energy = max(left + float(noise), 4 * _EPS * energy)
    ridge = weight / sums.total_weight
    return _Solved(coefficients, found[starts[-1] :], energy, factor, columns, ridge)


def _noise_terms(sums: FieldSums, coefficients: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return what the source's noise takes from the residual, as two factors."""
    terms = len(coefficients)
    flat = coefficients.reshape(terms, -1)[:, ::-1]
    first, second = np.triu_indices(terms)
    twice = np.where(first == second, 1.0, 2.0)[:, None]
    return (twice * sums.noise)[:, None], (flat[first] * flat[second])[:, None]


def _penalty(shape: Shape, bases: Sequence[FloatArray], asked: _Asked, n: int) -> FloatArray:
    """Return the matrix of the penalty: the mean over the frame of that on the kernel there."""
    out = np.zeros((n, n))
    matrix = np.asarray(Penalty(1.0, isinstance(asked.ridge, tuple)).matrix(shape).todense())
    start = 0
    for i, j, basis in zip(*terms_of(asked.frame.degree), bases, strict=True):
        part = slice(start, start + basis.shape[1])
        # The mean square of a product of Legendre polynomials.
        out[part, part] = basis.T @ matrix @ basis / ((2 * i + 1) * (2 * j + 1))
        start += basis.shape[1]
    return out


def _weight(
    gram: FloatArray,
    moments: FloatArray,
    energy: float,
    sums: FieldSums,
    penalty: FloatArray,
    asked: _Asked,
) -> float:
    """Return the weight of the penalty, times the sum of the weights of the pixels."""
    value = asked.ridge[1] if isinstance(asked.ridge, tuple) else asked.ridge
    if value != "gcv":
        return float(value) * sums.total_weight
    # The background is not penalised: it is taken for granted, and the rest is made white.
    inside = np.flatnonzero(np.diag(penalty) > 0)
    beside = np.flatnonzero(np.diag(penalty) == 0)
    less, right = gram[np.ix_(inside, inside)], moments[inside]
    if beside.size:
        lower = np.linalg.cholesky(gram[np.ix_(beside, beside)])
        white = linalg.solve_triangular(lower, gram[np.ix_(beside, inside)], lower=True)
        answer = linalg.solve_triangular(lower, moments[beside], lower=True)
        less, right = less - white.T @ white, right - white.T @ answer
        energy -= float(answer @ answer)
    root = np.linalg.cholesky(penalty[np.ix_(inside, inside)])
    half = linalg.solve_triangular(root, less, lower=True)
    both = linalg.solve_triangular(root, half.T, lower=True)
    moved = linalg.solve_triangular(root, right, lower=True)
    hidden = 4 * _EPS * float(sums.mixed[0, -1, -1])
    return gcv_weight((both + both.T) / 2, moved, energy, sums.n_pixels - beside.size, hidden)


def estimate_kernel_field(
    source: ArrayLike,
    result: ArrayLike,
    kernel_shape: Shape | int,
    *,
    degree: int = 2,
    scale_degree: int = 0,
    tile: int = 64,
    boundary: Border | None = None,
    background: Background | None = None,
    ridge: Ridge = 0.0,
    basis: ArrayLike | None = None,
    weights: Pixels | None = None,
    mask: Pixels | None = None,
    source_mask: Pixels | None = None,
    saturation: Saturation | None = None,
    nan_policy: NanPolicy = "raise",
    source_variance: Pixels | None = None,
    sigma_clip: float | None = None,
    workers: int | None = None,
    callback: Progress | None = None,
) -> KernelField:
    r"""Estimate the kernel that turns one image into another where it varies over the image.

    Parameters
    ----------
    source, result : array_like of real numbers
        Two images, as in `estimate_kernel`.
    kernel_shape : (int, int) or int
        Rows ``p`` and columns ``q`` of the kernel, in pixels.
    degree : int, optional
        Total degree of the polynomials of position that the taps are, 0 to 4. 2 follows the
        optics of most cameras and telescopes; more is noise unless the images are rich.
    scale_degree : int, optional
        The same of the sum of the taps, the photometric scale; 0 keeps it constant.
    tile : int, optional
        Side, in pixels, of the tiles inside which the polynomials count as constant, at least 8.
    boundary, background, weights, mask, source_mask, saturation, nan_policy : optional
        As in `estimate_kernel`; ``saturation=None`` leaves nothing out.
    ridge : float, "gcv", ("smooth", float) or ("smooth", "gcv"), optional
        As in `estimate_kernel`, on the mean over the frame of the squared taps, or of their second
        differences.
    basis : (p * q, b) array_like, optional
        Columns of which the kernel is a sum everywhere; see `basis.gaussian_polynomials`.
    source_variance : float or array_like, optional
        As in `estimate_kernel`, with the same smooth penalty by default.
    sigma_clip : float, optional
        As in `estimate_kernel`.
    workers : int, optional
        Threads to use, every usable core when None. The answer is the same bit for bit.
    callback : callable, optional
        Called as ``callback(done, total)`` in the calling thread; an exception stops the work.

    Returns
    -------
    KernelField
        The kernel of every place, with its standard errors, and a prediction of the result.

    Raises
    ------
    SingularFitError
        If the images do not determine the coefficients.
    TypeError, ValueError
        As `estimate_kernel`; or if ``degree``, ``scale_degree`` or ``tile`` is out of its range.

    See Also
    --------
    estimate_kernel : One kernel for the whole image.

    Notes
    -----
    Spatially varying kernels as sums of polynomials are those of [1]_. The equations of the
    coefficients are sums over the equations of tiles [2]_, in each of which the polynomials have
    the value that they have at the tile's light: 0.2 % of a point spread function off the exact
    varying fit for tiles of 64 pixels on simulated star fields.

    References
    ----------
    .. [1] C. Alard, "Image subtraction using a space-varying kernel", Astron. Astrophys. Suppl.
       144 (2000) 363-370, doi:10.1051/aas:2000214.
    .. [2] D. M. Bramich, "A new algorithm for difference image analysis", Mon. Not. R. Astron.
       Soc. 386 (2008) L77-L81, doi:10.1111/j.1745-3933.2008.00464.x.

    Examples
    --------
    >>> import numpy as np
    >>> from fastkernel import estimate_kernel_field
    >>> rng = np.random.default_rng(0)
    >>> source = rng.standard_normal((200, 200))
    >>> slope = np.linspace(0, 1, 198)
    >>> result = (1 - slope) * source[1:-1, 1:-1] + slope * source[1:-1, :-2]
    >>> field = estimate_kernel_field(source, result, 3, degree=1, tile=16)
    >>> field.kernel_at(100, 0)[1].round(2), field.kernel_at(100, 197)[1].round(2)
    (array([0., 1., 0.]), array([0., 0., 1.]))
    """
    run = Run(as_workers(workers), as_callback(callback))
    frame_degree = _as_count(degree, "degree", MAX_DEGREE)
    scale = min(_as_count(scale_degree, "scale_degree", MAX_DEGREE), frame_degree)
    side = as_count(tile, "tile")
    if side < _LEAST_TILE:
        msg = f"tile must be at least {_LEAST_TILE} pixels, got {tile}"
        raise ValueError(msg)
    rules = PixelRules(mask, source_mask, weights, saturation, nan_policy, source_variance)
    problem = problem_of(source, result, kernel_shape, boundary, background, None, rules)
    if len(problem.images) != 1:
        msg = f"source and result must be one image each for a field, got {len(problem.images)}"
        raise ValueError(msg)
    shape, penalty = problem.shape, as_ridge(ridge)
    pair = held(problem.pairs())[0]
    if pair.source_variance is not None and penalty == 0.0 and basis is None:
        penalty = "smooth", _SMOOTH_SHARE * float(np.mean(pair.source_variance[:, :]))
    columns = None if basis is None else orthonormal_basis(basis)
    if columns is not None and len(columns) != math.prod(shape):
        msg = (
            f"basis must have a row for each of the {math.prod(shape)} taps of kernel_shape "
            f"{shape}, got {len(columns)} rows"
        )
        raise ValueError(msg)
    rows, cols = pair.result.shape
    asked = _Asked(Frame((rows, cols), frame_degree), scale, columns, penalty)
    field = _fitted(pair, shape, asked, side, problem.background, run)
    if sigma_clip is not None:
        sigma = as_number(sigma_clip, "sigma_clip")
        field = _clipped(field, pair, asked, side, problem.background, sigma, run)
    return replace(field, boundary=problem.boundary)


def _as_count(value: Any, name: str, most: int) -> int:
    number = as_penalty(value, name)
    if number != int(number) or number > most:
        msg = f"{name} must be an integer from 0 to {most}, got {value!r}"
        raise ValueError(msg)
    return int(number)


def _fitted(
    pair: Pair, shape: Shape, asked: _Asked, tile: int, degree: int | None, run: Run
) -> KernelField:
    """Gather and solve."""
    sums = field_sums(pair, shape, asked.frame, tile, degree, run)
    found = _solve(sums, shape, asked)
    background = None
    if degree is not None:
        background = np.zeros((degree + 1, degree + 1))
        background[terms_of(degree)] = found.background
    left = sums.n_pixels - len(found.factor.lower)
    # Of these the inverse of the equations alone does not tell the covariance.
    told = found.ridge == 0 and pair.source_variance is None
    (rows, cols), (m, n) = asked.frame.shape, pair.source.shape
    used = np.zeros((rows, cols), np.bool_)
    (top, first), (height, width) = pair.window.result_origin, pair.window.shape
    used[top : top + height, first : first + width] = True if pair.used is None else pair.used
    return KernelField(
        coefficients=found.coefficients,
        degree=asked.frame.degree,
        scale_degree=asked.scale_degree,
        shape=(rows, cols),
        source_shape=(m, n),
        residual_rms=math.sqrt(found.energy / sums.total_weight),
        condition_number=found.factor.condition_number,
        n_pixels=sums.n_pixels,
        background=background,
        used=used,
        factor=found.factor.lower,
        columns=found.columns,
        variance_scale=found.energy / left if told and left > 0 else math.nan,
        ridge=found.ridge,
    )


def _clipped(
    field: KernelField,
    pair: Pair,
    asked: _Asked,
    tile: int,
    degree: int | None,
    sigma: float,
    run: Run,
) -> KernelField:
    """Leave out what sticks out of the fit, and fit again, until nothing changes."""
    (top, left), (height, width) = pair.window.result_origin, pair.window.shape
    inside = slice(top, top + height), slice(left, left + width)
    first = np.ones(pair.window.shape, np.bool_) if pair.used is None else pair.used
    now = first
    for _ in range(_MAX_CLIPS):
        predicted = field.predict(pair.source[:, :], workers=run.workers)[inside]
        off = np.abs(np.subtract(pair.result[inside], predicted, out=predicted), out=predicted)
        if pair.weights is not None:
            off *= np.sqrt(pair.weights)
        freedom = max(field.n_pixels - field.columns.shape[1], 1)
        total = pair._replace(used=now).total_weight
        spread = field.residual_rms * math.sqrt(total / freedom)
        kept = first & (off <= sigma * spread / clipped_share(sigma))
        if np.array_equal(kept, now):
            break
        now = kept
        part = pair._replace(used=now)
        field = _fitted(part, field.kernel_shape, asked, tile, degree, run.silent)
    return field
