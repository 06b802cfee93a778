"""Estimation of a kernel that varies over the image."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastkernel._images.checks import MAX_DEGREE, as_callback, as_count, as_shape, as_workers
from fastkernel._images.pairs import Fitted, Pair, held
from fastkernel._images.usable import PixelRules
from fastkernel._machine.run import Run
from fastkernel._typing import (
    Background,
    BoolArray,
    Border,
    NanPolicy,
    Pixels,
    Progress,
    Ridge,
    Saturation,
    Shape,
)
from fastkernel.estimation.equations.background import terms_of
from fastkernel.estimation.equations.clipping import cleaned, clipped_share, moved_pixels
from fastkernel.estimation.fields.correction import PairReader, Reader, corrected
from fastkernel.estimation.fields.field_equations import Asked, solve
from fastkernel.estimation.fields.field_sums import LEAST_TILE, FieldSums, field_sums
from fastkernel.estimation.fields.frame import Frame
from fastkernel.estimation.fields.kernel_field import KernelField
from fastkernel.estimation.fields.unknowns import Unknowns
from fastkernel.estimation.fields.varying import Varying
from fastkernel.estimation.fields.whole_sums import sums_are_whole, whole_sums
from fastkernel.estimation.methods.lstsq import Options
from fastkernel.estimation.methods.lstsq_noisy import with_ridge
from fastkernel.estimation.problem import problem_of

# How many taps all functions may have, whose products take 512 MiB.
_MOST = 8192

# How often pixels are clipped.
_MAX_CLIPS = 12


def estimate_kernel_field(
    source: ArrayLike,
    result: ArrayLike,
    kernel_shape: Shape | int,
    *,
    degree: int = 2,
    grid: Shape | int | None = None,
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
    grid : (int, int) or int, optional
        Cells down and across, in place of polynomials: a kernel in the middle of each, and between
        them bilinear interpolation.
    scale_degree : int, optional
        The same of the sum of the taps, the photometric scale; 0 keeps it constant.
    tile : int, optional
        Side, in pixels, of the tiles by whose equations the field is found where it is not found
        from all pixels at once, at least 8; less where there would be fewer than 8 along a side.
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
        As `estimate_kernel`; or if ``degree``, ``grid``, ``scale_degree`` or ``tile`` is out of its
        range, or all functions of position together have more than 8192 taps.

    See Also
    --------
    estimate_kernel : One kernel for the whole image.

    Notes
    -----
    Kernels that are sums of polynomials are those of [1]_. Where all pixels count alike, their
    equations are sums over pixels weighted by powers of position, found exactly, in one reading of
    the images.

    Otherwise (a ``grid``, masks, weights, ``source_variance``, ``sigma_clip``) they are sums over
    the equations of tiles, in each of which the polynomials have the value that they have at the
    tile's light, as in [2]_ every tile has a kernel of its own. How much that biases them is
    found from some tiles. Where the bias moves the prediction by more than 0.3 standard
    deviations of the noise, in the norm of the equations, passes over the pixels correct it, by
    conjugate gradients with the equations of tiles as their preconditioner. So no tap, at no
    place, is biased by more than 0.3 of its standard error, whatever ``tile`` is; images without
    noise give the exact fit to rounding.

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
    >>> field.kernel_at(100, 0)[1].round(6) + 0.0
    array([0., 1., 0.])
    >>> field.kernel_at(100, 197)[1].round(6) + 0.0
    array([0., 0., 1.])
    """
    rules = PixelRules(mask, source_mask, weights, saturation, nan_policy, source_variance)
    run, side = Run(as_workers(workers), as_callback(callback)), as_tile(tile)
    problem = problem_of(source, result, kernel_shape, boundary, background, None, rules)
    if len(problem.images) != 1:
        msg = (
            f"source and result must be one image each, got {len(problem.images)} of each: a "
            "field belongs to one frame"
        )
        raise ValueError(msg)
    options = Options(ridge=ridge, basis=basis, sigma_clip=sigma_clip)
    options.refuse_shape(problem.shape)
    pair = held(problem.pairs())[0]
    if pair.source_variance is not None and options.ridge == 0.0 and basis is None:
        options = with_ridge(options, [pair])
    rows, cols = pair.result.shape
    frame, scale = as_frame((rows, cols), degree, grid), as_degree_of(scale_degree, "scale_degree")
    asked = asked_of(problem.shape, problem.background, frame, scale, options, side)
    whole, sums = (pair, asked.kernel_shape, asked.frame, asked.background), None
    if options.sigma_clip is None and sums_are_whole(*whole):
        sums = whole_sums(*whole, run)
    field, sums = _fitted(pair, asked, run, sums)
    if options.sigma_clip is not None:
        field = _clipped(field, sums, pair, asked, options.sigma_clip, run.silent)
    return replace(field, scale_degree=scale, boundary=problem.boundary)


def as_tile(value: Any) -> int:
    """Return ``value`` as the side of tiles."""
    if (side := as_count(value, "tile")) < LEAST_TILE:
        msg = f"tile must be at least {LEAST_TILE} pixels, got {value}"
        raise ValueError(msg)
    return side


def as_frame(shape: Shape, degree: Any, grid: Any) -> Frame:
    """Return the functions of position over a result of a shape."""
    cells = None if grid is None else as_shape(grid, "grid", one_for_both=True)
    return Frame(shape, as_degree_of(degree, "degree"), cells)


def as_degree_of(value: Any, name: str) -> int:
    """Return ``value`` as a degree of polynomials of position."""
    if isinstance(value, bool | str) or value not in range(MAX_DEGREE + 1):
        msg = f"{name} must be an integer from 0 to {MAX_DEGREE}, got {value!r}"
        raise ValueError(msg)
    return int(value)


def asked_of(
    shape: Shape, background: int | None, frame: Frame, scale: int, options: Options, tile: int
) -> Asked:
    """Return what is fitted, or say that it is too much."""
    taps = math.prod(shape)
    if frame.terms * taps > _MOST:
        msg = (
            f"kernel_shape {shape} makes {taps} taps for each of {frame.terms} functions "
            f"of position, more than {_MOST} in all; use a smaller kernel_shape, a lower degree or "
            "fewer cells in the grid"
        )
        raise ValueError(msg)
    beside = 0 if background is None else len(terms_of(background)[0])
    unknowns = Unknowns.of(taps, options.basis, frame, scale, beside)
    return Asked(shape, frame, unknowns, options.ridge, background, tile)


def _fitted(
    pair: Pair, asked: Asked, run: Run, sums: FieldSums | None = None
) -> tuple[KernelField, FieldSums]:
    """Gather what is not gathered yet, solve and correct."""
    if sums is None:
        sums = field_sums(pair, *_place(asked), run)
    (m, n), fitted = pair.source.shape, Fitted.of(pair)
    field = solved_field(sums, PairReader(pair, asked, run.silent), (m, n))
    if pair.source_variance is not None:
        field = replace(field, noise_variance=math.nan)
    return replace(field, used=fitted.mask()), sums


def solved_field(sums: FieldSums, reader: Reader, source_shape: Shape) -> KernelField:
    """Solve what is gathered, and correct it; which pixels are used is not said."""
    asked = reader.asked
    found = solve(sums, asked)
    unknowns, energy = corrected(reader, found, sums.places, sums.n_pixels)
    taps, beside = asked.unknowns.values(unknowns)
    background = None
    if asked.background is not None:
        background = np.zeros((asked.background + 1, asked.background + 1))
        background[terms_of(asked.background)] = beside
    left = sums.n_pixels - len(unknowns)
    return KernelField(
        coefficients=taps.reshape(-1, *asked.kernel_shape),
        degree=asked.frame.degree,
        grid=asked.frame.grid,
        scale_degree=0,
        shape=asked.frame.shape,
        source_shape=source_shape,
        fitted_shape=asked.kernel_shape,
        residual_rms=math.sqrt(energy / sums.total_weight),
        condition_number=found.factor.condition_number,
        n_pixels=sums.n_pixels,
        background=background,
        used=None,
        boundary=None,
        ridge=found.ridge,
        factor=found.factor.lower,
        turn=asked.unknowns.turn,
        scales=asked.unknowns.scales,
        noise_variance=energy / left if left > 0 else math.nan,
    )


def _place(asked: Asked) -> tuple[Shape, Frame, int, int | None]:
    """Return what tiles are summed for."""
    return asked.kernel_shape, asked.frame, asked.tile, asked.background


def _clipped(
    field: KernelField, sums: FieldSums, pair: Pair, asked: Asked, sigma: float, run: Run
) -> KernelField:
    """Leave out what sticks out of the fit, and fit again, until nothing changes."""
    now = pair
    for _ in range(_MAX_CLIPS):
        after = pair._replace(used=_within(field, pair, now, asked, sigma, run))
        changed = False
        for sign, moved in zip((-1, 1), moved_pixels([now], [after]), strict=True):
            if moved[0].n_pixels:
                sums = sums.changed(field_sums(moved[0], *_place(asked), run, sums.places), sign)
                changed = True
        if not changed:
            break
        now = after
        field, _ = _fitted(now, asked, run, sums)
    if now is pair:
        return field
    # What was clipped is subtracted from nothing, and has no say in where tiles stand.
    return _fitted(cleaned(now), asked, run)[0]


def _within(
    field: KernelField, pair: Pair, now: Pair, asked: Asked, sigma: float, run: Run
) -> BoolArray:
    """Return which pixels of a pair do not stick out of a fit of some of them."""
    (top, left), (height, width) = pair.window.result_origin, pair.window.shape
    inside = slice(top, top + height), slice(left, left + width)
    made = np.zeros(pair.result.shape)
    varying = Varying(field.coefficients, asked.frame, pair.window, field.background)
    varying.convolve(pair.source[:, :], None, made, run.workers)
    off = np.subtract(pair.result[inside], made[inside], out=made[inside])
    np.square(off, out=off)
    if pair.weights is not None:
        off *= pair.weights
    freedom = max(field.n_pixels - len(field.factor), 1)
    spread = field.residual_rms**2 * now.total_weight / freedom
    used: BoolArray = off <= (sigma / clipped_share(sigma)) ** 2 * spread
    if pair.used is not None:
        used &= pair.used
    return used
