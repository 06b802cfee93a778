"""Estimation of the kernel that turned one image into another."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from dataclasses import fields, replace
from functools import cache
from operator import is_, itemgetter
from typing import Any

from numpy.typing import ArrayLike

from fastkernel._images.checks import as_callback, as_choice, as_flag, as_workers
from fastkernel._images.lazy import handed_over, is_dask
from fastkernel._images.pairs import as_pairs
from fastkernel._images.usable import PixelRules
from fastkernel._machine.run import Run
from fastkernel._typing import (
    BackgroundOrAuto,
    BorderOrAuto,
    Engine,
    Errors,
    Images,
    KernelShape,
    LightOrAuto,
    Method,
    NanPolicy,
    Norm,
    Offset,
    Pixels,
    Progress,
    Ridge,
    Saturation,
    Solver,
    Symmetry,
)
from fastkernel.estimation.fit import KernelFit
from fastkernel.estimation.methods import METHODS, method_of
from fastkernel.estimation.problem import Problem
from fastkernel.estimation.unknowns.asked import Asked, as_asked, unless_auto

# The arguments that every method takes.
_OF_ALL = frozenset(
    (
        "source",
        "result",
        "kernel_shape",
        "offset",
        "light",
        "method",
        "channel_axis",
        "workers",
        "callback",
    )
)


def estimate_kernel(
    source: Images,
    result: Images,
    kernel_shape: KernelShape | None,
    *,
    method: Method = "lstsq",
    solver: Solver = "auto",
    boundary: BorderOrAuto | None = None,
    background: BackgroundOrAuto | None = None,
    nonnegative: bool = False,
    unit_sum: bool = False,
    symmetric: Symmetry | None = None,
    separable: bool = False,
    ridge: Ridge = 0.0,
    basis: ArrayLike | None = None,
    offset: Offset | None = None,
    light: LightOrAuto = "stored",
    weights: Pixels | None = None,
    mask: Pixels | None = None,
    source_mask: Pixels | None = None,
    saturation: Saturation | None = None,
    nan_policy: NanPolicy = "raise",
    source_variance: Pixels | None = None,
    sigma_clip: float | None = None,
    errors: Errors = "even",
    absolute_sigma: bool = False,
    step: float | None = None,
    num_iter: int | None = None,
    tol: float | None = None,
    acceleration: bool = True,
    points: int | None = None,
    epsilon: float | None = None,
    taper: float | None = None,
    normalize: Norm | None = None,
    cutoff: float | None = None,
    channel_axis: int | None = None,
    engine: Engine = "auto",
    workers: int | None = None,
    callback: Progress | None = None,
) -> KernelFit:
    r"""Estimate the convolution kernel that turns one image into another.

    Minimises :math:`\|k * x - y\|^2 + \lambda n \|k\|^2` over kernels of the given shape, where
    ``n`` counts the pixels of the result that are used; other methods by name.

    Parameters
    ----------
    source : (m, n) array_like of real numbers, or a sequence of them
        Source image, in any unit. A Dask array, here or as ``result``, is fitted where it is, by
        `fastkernel.dask.estimate_kernel`.
    result : array_like of real numbers, or a sequence of them
        Result image, in any unit, of shape (m, n) ("same"), (m - p + 1, n - q + 1) ("valid") or
        (m + p - 1, n + q - 1) ("full", zeros beyond the source's frame). A sequence holds as
        many as ``source``; all share the kernel.
    kernel_shape : (int, int), int, "auto" or None
        Rows ``p`` and columns ``q`` of the kernel, in pixels. In "same" the centre tap is
        ``((p - 1) // 2, (q - 1) // 2)``, also where a side is even: see Notes. "auto" is the
        smallest up to 15 by 15 that explains the result, by `select_kernel_shape`. None, for
        "fft", keeps a kernel of the image's size, (m, n), its origin by the same rule.
    method : {"lstsq", "fft", "lad", "richardson_lucy"}, optional
        Least squares over the pixels: exact, and the best where noise is even. Division of
        spectra: the whole-image recipe, guarded; images are taken as periodic. Least total
        absolute deviation: where a part of the pixels is wrong. Richardson-Lucy: a kernel that is
        not negative, from counts.
    solver : str, optional
        For "lstsq": "auto" (direct), "minimum_norm", "gradient_descent" or "fista"; see
        `NormalEquations.solve`. For "lad": "auto", "linear_programming" or "reweighted".
    boundary : str, optional
        What the result's maker took to stand beyond the source's frame in a "same" pair: "zero",
        "circular", "replicate", "symmetric" (edge pixel repeated) or "mirror" (not repeated).
        None uses only the pixels that no rule can touch; "auto" takes the rule that explains the
        rim, if one does.
    background : {"constant", "auto"} or int, optional
        What the result has beside the convolution, for "lstsq": a constant, or a polynomial of
        this total degree, 0 to 4; None for nothing, as filters add none. Every pair, or channel,
        has its own. "auto": none, a constant or a polynomial up to degree 2, as far as it explains
        more than noise.
    nonnegative : bool, optional
        Whether no tap may be below 0. By default they may, as those of sharpeners are.
    unit_sum : bool, optional
        Whether the taps must have the sum 1. By default brightness may change.
    symmetric : str, optional
        What the kernel equals itself under: "even" (half a turn), "rotation" (a quarter turn),
        "left_right" and "up_down" (a mirror), "mirror" (both) or "square" (all of these). None
        asks for nothing.
    separable : bool, optional
        Whether the kernel is a column times a row, as few are.
    ridge : float, "gcv", ("smooth", float) or ("smooth", "gcv"), optional
        Penalty :math:`\lambda \ge 0`, in squared source units; chosen by generalised
        cross-validation; or on second differences of the taps. 0 is plain least squares, which
        has no bias.
    basis : (p * q, b) array_like of real numbers, optional
        Columns, taps in C order, of which the kernel is a sum: see `basis.gaussian_polynomials`.
        None leaves every tap free.
    offset : (int, int) or "auto", optional
        Rows and columns by which the result was moved down and to the right against the source,
        beyond what the kernel does; None for not at all. What both have in common is fitted,
        without a border. "auto" finds it, up to a quarter of the frame; a move by a pixel or two
        stays with a kernel that can hold it.
    light : {"stored", "srgb", "auto"}, optional
        Whether levels were convolved as they are stored, or the linear light that they encode as
        sRGB (GIMP since 2.10, cameras): images of uint8, uint16, or floats from 0 to 1. "auto"
        takes what leaves less. "stored" is the default, since an array need not be sRGB.
    weights : (rows, cols) array_like of real numbers, optional
        What every pixel of ``result`` counts, of its shape: inverse variances, up to a factor; all
        alike when None. 0 leaves a pixel out. "lad" weighs the deviations themselves. Of a sequence
        of images a sequence; with ``channel_axis`` those of all channels, or of each. So are masks
        and variances given.
    mask : (rows, cols) array_like of bool, optional
        Of ``result``'s shape: True where a pixel is bad, and left out. Whatever stands there has
        no say. Masks that the images carry (np.ma, astropy) are used as well.
    source_mask : (m, n) array_like of bool, optional
        Of ``source``'s shape: leaves out every pixel of the result that the kernel makes of a
        bad one.
    saturation : "auto" or (low, high), optional
        Leaves out what a range of levels cut off: result pixels at or below ``low`` or at or
        above ``high``, and what the kernel makes of source pixels at or above ``high``; None for
        an end that there is not. "auto" takes the ends of the images' integers, or 2**b - 1 where
        that is the largest pixel (b = 10, 12, 14). None: "lstsq" leaves out an integer result's
        pixels at the ends of its range where that takes a third off the residual, which is where
        they were cut off; ``(None, None)`` for never.
    nan_policy : {"raise", "omit"}, optional
        Whether what is not finite is an error, so that none is overlooked, or masked.
    source_variance : float or (m, n) array_like, optional
        Variance of the source's noise, in squared source units, for "lstsq"; None takes the
        source for exact. Noise in the source makes taps too small; what it adds to the equations
        is taken off. Bare that would be wild, so without ``ridge`` and ``basis`` it comes with
        ``ridge=("smooth", 0.05 * mean)``, halved up to 7 times where that makes the expected error
        of the taps less.
    sigma_clip : float, optional
        Leaves out pixels whose residual is more than so many standard deviations, and fits again,
        until nothing changes; at least 1.5. None leaves none out. `KernelFit.used` says what was
        kept. A wild pixel of the source draws the kernel after it and does not stick out: mask it.
    errors : {"even", "robust"}, optional
        What error bars of "lstsq" rest on: noise that is alike in all pixels (by their weights)
        and independent; or the residual as it is, uneven and alike in neighbours, for which the
        pixels are read once more.
    absolute_sigma : bool, optional
        Whether ``weights`` are inverse variances as they stand, from which alone error bars
        follow; otherwise, as in SciPy's ``curve_fit``, the residual gives their scale, since most
        weights are known up to a factor. Not with ``errors="robust"`` or ``source_variance``.
    step : float, optional
        Of a descent, in inverse squared source units; the largest safe one when None.
    num_iter : int, optional
        Most iterations, of what iterates. None for 5000 of a descent, 200 problems of "lad" and
        500 of "richardson_lucy": most end before, by ``tol``.
    tol : float, optional
        Where iterations end; see `NormalEquations.solve` for descents. "lad": share of the total
        deviation by which it may miss the least, 1e-12 when None. "richardson_lucy": relative
        change of the taps, 1e-6 when None.
    acceleration : bool, optional
        Whether "richardson_lucy" extrapolates its steps, which saves most of them.
    points : int, optional
        How many pixels the linear program of "lad" takes, those that tell the taps apart best.
        None for 5000, or 20 a tap if that is more; all of them where it reweights.
    epsilon : float, optional
        The guard of "fft", in squared source units times pixels; 0 divides as it stands, None
        takes it from the noise.
    taper : float, optional
        Fraction of the image, 0 to 0.5, over which "fft" fades each side to the mean. None is 0,
        since fading changes the images.
    normalize : {"max", "sum"}, optional
        Whether "fft" divides the taps by the largest or by their sum. None keeps their scale.
    cutoff : float, optional
        Fraction of the largest tap below which taps of "fft" become 0. None keeps them all.
    channel_axis : int, optional
        The axis of 3-dimensional images that holds channels, which share the kernel. None for
        images of two dimensions: which axis is meant is never guessed.
    engine : {"auto", "integer", "float", "fft"}, optional
        How "lstsq" sums: by int16 loops (images of at most 8 bits), by float64 loops, by
        transforms of rows, or whichever a model of their cost finds fastest.
    workers : int, optional
        Threads to use. None, here and everywhere: as many as the environment variable
        ``FASTKERNEL_NUM_THREADS`` says, which is read once, or every usable core. The answer is
        the same bit for bit.
    callback : callable, optional
        Called as ``callback(done, total)`` in the calling thread; an exception stops the work.

    Returns
    -------
    KernelFit
        ``kernel``, (p, q) float64 in result units per source unit, with its standard errors,
        residual and condition number.

    Raises
    ------
    SingularFitError
        If the images do not determine the kernel: too few pixels, or a source that is flat or
        lacks frequencies. The message says what would help.
    TypeError
        If an image is complex or not of numbers, or an argument is of a wrong type.
    ValueError
        If the shapes do not fit together, the kernel is larger than the image, a pixel that is
        used is not finite, an image is masked and the method cannot leave pixels out, an argument
        does not go with the method or with another, or is out of its range.

    See Also
    --------
    normal_equations : The part that reads pixels, reusable for many fits.

    Notes
    -----
    The pixels are read once; solving costs :math:`O((pq)^3)` whatever their number [1]_. Beyond
    4096 taps (and unless a side of the kernel is 1 or 2) the equations are not formed: conjugate
    gradients, or a descent, apply them by transforms, without standard errors, and ``engine`` has
    no say; a dataset that is read by slices is then held in memory. Where
    the result is float64 (or float32, to its own precision) and rounding of the normal equations
    could be seen in the taps or hides the residual, the pixels are read again: the residual,
    computed pixel by pixel, corrects the taps by the same factor [2]_, which takes their error
    from ``condition_number`` to about its square root times the rounding.

    Beside the images, of m by n pixels that all count, up to about ``16 * (p*q)**2 + 48 * (p + q) *
    (m + n)`` bytes are held, and for every worker 3 MiB and 6 KiB a tap.

    Kernels of an even side have their centre tap where `scipy.signal` has it in "same". That of
    scipy.ndimage, MATLAB, OpenCV and scikit-image is ``p // 2``, one tap later: for these put
    ``np.pad(kernel, ((1 - p % 2, 0), (1 - q % 2, 0)))``, whose sides are odd.

    References
    ----------
    .. [1] C. Alard and R. H. Lupton, "A method for optimal image subtraction", Astrophys. J.
       503 (1998) 325, doi:10.1086/305984.
    .. [2] Å. Björck, "Stability analysis of the method of seminormal equations for linear least
       squares problems", Linear Algebra Appl. 88/89 (1987) 31-48.

    Examples
    --------
    >>> import numpy as np
    >>> from fastkernel import estimate_kernel
    >>> from scipy.signal import convolve2d
    >>> image = np.random.default_rng(0).standard_normal((40, 40))
    >>> blur = np.array([[0.0, 0.1, 0.0], [0.2, 0.4, 0.2], [0.0, 0.0, 0.1]])
    >>> fit = estimate_kernel(image, convolve2d(image, blur, mode="valid"), (3, 3))
    >>> np.allclose(fit.kernel, blur)
    True
    """
    asked = locals()
    left_out, defaults = _left_out()
    if all(map(is_, left_out(asked), defaults)) and as_workers(workers):
        at_once: KernelFit | None = method_of("lstsq").fit_plain(source, result, kernel_shape)
        if at_once is not None:
            return at_once
    if is_dask(source) or is_dask(result):
        on_cluster: KernelFit = handed_over("estimate").estimate_given(asked, _defaults())
        return on_cluster
    for name in _flags():
        as_flag(asked[name], name)
    chosen = method_of(as_choice(method, "method", METHODS))
    options = _options_of(method, asked)
    rules = PixelRules(mask, source_mask, weights, saturation, nan_policy, source_variance)
    run = Run(as_workers(workers), as_callback(callback))
    known = as_asked(kernel_shape, boundary, background, offset, light)
    parts = known.kernel_shape, known.boundary, known.background
    shape, rule, degree = map(unless_auto, parts)
    images = as_pairs(source, result, channel_axis, rules)
    problem = Problem(images, shape, rule, degree, may_be_clipped=saturation is None)
    if not known.plain:
        return _fit_after(problem, known, lambda found: chosen.fit(found, options, run), run)
    fit: KernelFit = chosen.fit(problem, options, run)
    return fit if problem.boundary is None else replace(fit, boundary=problem.boundary)


def _fit_after(
    problem: Problem, known: Asked, fit: Callable[[Problem], KernelFit], run: Run
) -> KernelFit:
    """Find what is not known, fit what is left, and say in terms of the whole images what it is."""
    # Most fits know all of this, and need not wait for what finds it.
    from fastkernel.estimation.unknowns.finding import resolve

    found = resolve(problem, known, run.silent)
    return found.of_whole(fit(found.problem), problem)


@cache
def _options_taken_by(method: str) -> tuple[str, ...]:
    """Return the arguments that a method's options hold."""
    return tuple(field.name for field in fields(method_of(method).Options))


@cache
def _refused_by(method: str) -> tuple[str, ...]:
    """Return the arguments that a method does not take."""
    taken = {*_OF_ALL, *method_of(method).Options.of_problem, *_options_taken_by(method)}
    return tuple(name for name in _defaults() if name not in taken)


@cache
def _defaults() -> dict[str, Any]:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(estimate_kernel).parameters.items()
    }


@cache
def _left_out() -> tuple[Callable[[dict[str, Any]], tuple[Any, ...]], tuple[Any, ...]]:
    """Return what picks the arguments that a plain fit does not say, and their defaults."""
    said = "source", "result", "kernel_shape", "workers"
    defaults = {name: value for name, value in _defaults().items() if name not in said}
    return itemgetter(*defaults), tuple(defaults.values())


@cache
def _flags() -> tuple[str, ...]:
    return tuple(name for name, default in _defaults().items() if isinstance(default, bool))


@cache
def _plain_options(method: str) -> Any:
    """Return the options of a method of which nothing is asked."""
    return method_of(method).Options(
        **{name: _defaults()[name] for name in _options_taken_by(method)}
    )


def _is_given(value: Any, default: Any) -> bool:
    """Tell whether an argument is not its default; arrays never are."""
    if value is None or value is default:
        return False
    return not (isinstance(value, Hashable) and value == default)


def _options_of(method: str, asked: dict[str, Any]) -> Any:
    """Return what is asked of a method, or say which of it the method does not take."""
    defaults = _defaults()
    for name in _refused_by(method):
        if _is_given(asked[name], defaults[name]):
            takers = " or ".join(repr(other) for other in METHODS if name not in _refused_by(other))
            msg = f"{name} goes with method={takers}, got method={method!r}; leave it out"
            raise ValueError(msg)
    taken = _options_taken_by(method)
    if all(asked[name] is defaults[name] for name in taken):
        return _plain_options(method)
    return method_of(method).Options(**{name: asked[name] for name in taken})
