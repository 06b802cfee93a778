"""Estimation of the kernel that turned one image into another."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastkernel._images.checks import as_choice, as_kernel_shape, as_pairs, as_workers
from fastkernel._typing import Images, Progress, Shape
from fastkernel.estimation.equations.background import (
    BackgroundSums,
    as_degree,
    background_of,
    background_sums_of,
    coefficients_of,
)
from fastkernel.estimation.equations.background import gather_residual as gather_residual_beside
from fastkernel.estimation.equations.gathering import gather_residual
from fastkernel.estimation.equations.gathering_engines import Pair
from fastkernel.estimation.equations.normal_equations import (
    NormalEquations,
    as_engine,
    equations_of,
    matched_pairs,
)
from fastkernel.estimation.equations.sweeps import held, in_memory
from fastkernel.estimation.equations.unformed import fit_large
from fastkernel.estimation.fit import KernelFit
from fastkernel.estimation.solvers.direct import Factor
from fastkernel.estimation.solvers.options import Options, Ridge
from fastkernel.estimation.solvers.solve import solve_equations

_EPS = float(np.finfo(np.float64).eps)

# Share of the taps' size that rounding may reach before the pixels are read again.
_ROUNDING_ALLOWED = 1e-11
_MAX_REFINEMENTS = 3

# Taps beyond which the equations are not formed: they would take 128 MiB, and a minute soon.
_FORMED = 4096

# The arguments that belong to some methods only.
_TAKES = {
    "lstsq": (
        "solver",
        "boundary",
        "background",
        "nonnegative",
        "unit_sum",
        "symmetric",
        "separable",
        "ridge",
        "step",
        "num_iter",
        "tol",
        "engine",
    ),
    "fft": ("epsilon", "taper", "normalize", "cutoff"),
    "lad": ("solver", "boundary", "points", "num_iter", "tol"),
    "richardson_lucy": ("boundary", "nonnegative", "num_iter", "tol", "acceleration"),
}

# What each has where nobody gave it.
_DEFAULTS: dict[str, Any] = {
    "solver": "auto",
    "nonnegative": False,
    "unit_sum": False,
    "separable": False,
    "ridge": 0.0,
    "acceleration": True,
    "engine": "auto",
}


def estimate_kernel(
    source: Images,
    result: Images,
    kernel_shape: Shape | int | None,
    *,
    method: str = "lstsq",
    solver: str = "auto",
    boundary: str | None = None,
    background: str | int | None = None,
    nonnegative: bool = False,
    unit_sum: bool = False,
    symmetric: str | None = None,
    separable: bool = False,
    ridge: Ridge = 0.0,
    step: float | None = None,
    num_iter: int | None = None,
    tol: float | None = None,
    acceleration: bool = True,
    points: int | None = None,
    epsilon: float | None = None,
    taper: float | None = None,
    normalize: str | None = None,
    cutoff: float | None = None,
    channel_axis: int | None = None,
    engine: str = "auto",
    workers: int | None = None,
    callback: Progress | None = None,
) -> KernelFit:
    r"""Estimate the convolution kernel that turns one image into another.

    Minimises :math:`\|k * x - y\|^2 + \lambda n \|k\|^2` over kernels of the given shape, where
    ``n`` counts the pixels of the result that are used; other methods by name.

    Parameters
    ----------
    source : (m, n) array_like of real numbers, or a sequence of them
        Source image, in any unit.
    result : array_like of real numbers, or a sequence of them
        Result image, in any unit, of shape (m, n) ("same"), (m - p + 1, n - q + 1) ("valid") or
        (m + p - 1, n + q - 1) ("full", zeros beyond the source's frame). A sequence holds as
        many as ``source``; all share the kernel.
    kernel_shape : (int, int), int or None
        Rows ``p`` and columns ``q`` of the kernel, in pixels. In "same" the centre tap is
        ``((p - 1) // 2, (q - 1) // 2)``. None, for "fft", keeps a kernel of the image's size.
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
        None uses only the pixels that no rule can touch.
    background : {"constant"} or int, optional
        What the result has beside the convolution, for "lstsq": a constant, or a polynomial of
        this total degree, 0 to 4. Every pair, or channel, has its own.
    nonnegative : bool, optional
        Whether no tap may be below 0.
    unit_sum : bool, optional
        Whether the taps must have the sum 1.
    symmetric : {"even", "rotation"}, optional
        Whether the kernel equals itself turned by half a turn, or by a quarter.
    separable : bool, optional
        Whether the kernel is a column times a row.
    ridge : float, "gcv" or ("smooth", float), optional
        Penalty :math:`\lambda \ge 0`, in squared source units; chosen by generalised
        cross-validation; or on second differences of the taps. 0 is plain least squares.
    step : float, optional
        Of a descent, in inverse squared source units; the largest safe one when None.
    num_iter : int, optional
        Most iterations, of what iterates.
    tol : float, optional
        Where iterations end; see `NormalEquations.solve` for descents. "lad": share of the total
        deviation by which it may miss the least. "richardson_lucy": relative change of the taps.
    acceleration : bool, optional
        Whether "richardson_lucy" extrapolates its steps.
    points : int, optional
        How many pixels the linear program of "lad" takes, those that tell the taps apart best.
    epsilon : float, optional
        The guard of "fft", in squared source units times pixels; 0 divides as it stands, None
        takes it from the noise.
    taper : float, optional
        Fraction of the image, 0 to 0.5, over which "fft" fades each side to the mean.
    normalize : {"max", "sum"}, optional
        Whether "fft" divides the taps by the largest or by their sum.
    cutoff : float, optional
        Fraction of the largest tap below which taps of "fft" become 0.
    channel_axis : int, optional
        The axis of 3-dimensional images that holds channels, which share the kernel.
    engine : {"auto", "integer", "float", "fft"}, optional
        How "lstsq" sums: by int16 loops (images of at most 8 bits), by float64 loops, by
        transforms of rows, or whichever a model of their cost finds fastest.
    workers : int, optional
        Threads to use, every usable core when None. The answer is the same bit for bit.
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
        If an image is complex, masked or not of numbers, or an argument is of a wrong type.
    ValueError
        If the shapes do not fit together, the kernel is larger than the image, a pixel that is
        used is not finite, an argument does not go with the method or with another, or is out of
        its range.

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

    References
    ----------
    .. [1] C. Alard and R. H. Lupton, "A method for optimal image subtraction", Astrophys. J.
       503 (1998) 325, doi:10.1086/305984.
    .. [2] Å. Björck, "Stability analysis of the method of seminormal equations for linear least
       squares problems", Linear Algebra Appl. 88/89 (1987) 31-48.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.signal import convolve2d
    >>> image = np.random.default_rng(0).standard_normal((40, 40))
    >>> blur = np.array([[0.0, 0.1, 0.0], [0.2, 0.4, 0.2], [0.0, 0.0, 0.1]])
    >>> fit = estimate_kernel(image, convolve2d(image, blur, mode="valid"), (3, 3))
    >>> np.allclose(fit.kernel, blur)
    True
    """
    asked = {
        "solver": solver,
        "boundary": boundary,
        "background": background,
        "nonnegative": nonnegative,
        "unit_sum": unit_sum,
        "symmetric": symmetric,
        "separable": separable,
        "ridge": ridge,
        "step": step,
        "num_iter": num_iter,
        "tol": tol,
        "acceleration": acceleration,
        "points": points,
        "epsilon": epsilon,
        "taper": taper,
        "normalize": normalize,
        "cutoff": cutoff,
        "engine": engine,
    }
    chosen = _arguments_of(as_choice(method, "method", tuple(_TAKES)), asked)
    threads = as_workers(workers)
    # Imported where they are used: least squares need not wait for them.
    if method == "fft":
        from fastkernel.estimation.methods.fft import fit_spectral

        images = [(in_memory(x), in_memory(y)) for x, y in as_pairs(source, result, channel_axis)]
        return fit_spectral(images, kernel_shape, **chosen, workers=threads, callback=callback)
    shape = as_kernel_shape(kernel_shape)
    pairs = matched_pairs(source, result, shape, chosen.pop("boundary"), channel_axis)
    if method == "lad":
        from fastkernel.estimation.methods.lad import fit_lad

        return fit_lad(pairs, shape, **chosen, workers=threads, callback=callback)
    if method == "richardson_lucy":
        from fastkernel.estimation.methods.richardson_lucy import fit_richardson_lucy

        del chosen["nonnegative"]
        return fit_richardson_lucy(pairs, shape, **chosen, workers=threads, callback=callback)
    summed = as_engine(chosen.pop("engine"), pairs)
    degree = chosen.pop("background")
    options = Options(**chosen)
    return _least_squares(pairs, shape, degree, options, summed, threads, callback)


def _arguments_of(method: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that a method takes, or say which it does not."""
    for name, value in asked.items():
        given = value is not None and value != _DEFAULTS.get(name)
        if given and name not in _TAKES[method]:
            methods = " or ".join(repr(other) for other, names in _TAKES.items() if name in names)
            msg = f"{name} goes with method={methods}, got method={method!r}; leave it out"
            raise ValueError(msg)
    return {name: asked[name] for name in _TAKES[method]}


def _least_squares(
    pairs: list[Pair],
    shape: Shape,
    background: str | int | None,
    options: Options,
    engine: str,
    workers: int,
    progress: Progress | None,
) -> KernelFit:
    """Gather, solve, and correct what rounding did."""
    degree = None if background is None else as_degree(background)
    options.refuse_shape(shape)
    # Where a side is 1 or 2 the equations are no larger than what replaces them.
    if math.prod(shape) > _FORMED and min(shape) > 2:
        if degree is not None:
            msg = (
                f"background goes with kernels of at most {_FORMED} taps, got kernel_shape "
                f"{shape}; subtract it from result, or use a smaller kernel_shape"
            )
            raise ValueError(msg)
        return fit_large(pairs, shape, 0.0, workers, progress, options)
    sums = None if degree is None else background_sums_of(pairs, shape, degree, workers)
    equations = equations_of(pairs, shape, workers, progress, engine, sums)
    fit = solve_equations(equations, options, progress)
    factor = None if options.smooth else fit._factor
    if factor is not None and _rounding_shows(fit, equations, pairs):
        fit = _refine(fit, equations, factor, pairs, sums, workers)
    if sums is None:
        return fit
    found = [background_of(part, fit.kernel) for part in sums]
    return replace(fit, background=found[0] if len(found) == 1 else np.array(found))


def _rounding_shows(fit: KernelFit, equations: NormalEquations, pairs: list[Pair]) -> bool:
    """Tell whether the data are fine enough to see the rounding of the equations."""
    if any(pair.result.dtype.kind != "f" for pair in pairs):
        return False
    resolution = max(float(np.finfo(pair.result.dtype).eps) for pair in pairs)
    residual_hidden = fit.residual_rms**2 * fit.n_pixels <= 1.01 * equations.hidden_energy
    return fit.condition_number * _EPS > max(resolution, _ROUNDING_ALLOWED) or (
        residual_hidden and resolution <= _EPS
    )


def _refine(
    fit: KernelFit,
    equations: NormalEquations,
    factor: Factor,
    pairs: list[Pair],
    backgrounds: Sequence[BackgroundSums] | None,
    workers: int,
) -> KernelFit:
    """Correct the taps by the residual of the pixels until the corrections stop shrinking."""
    kernel, penalty, last = fit.kernel, fit.ridge * fit.n_pixels, math.inf
    coefficients = [coefficients_of(sums, kernel) for sums in backgrounds or ()]
    if backgrounds:
        pairs = held(pairs)
    for _ in range(_MAX_REFINEMENTS):
        flipped = np.ascontiguousarray(kernel[::-1, ::-1])
        if backgrounds:
            moments, energy, coefficients = gather_residual_beside(
                pairs, flipped, backgrounds, coefficients, workers
            )
        else:
            moments, energy = gather_residual(pairs, flipped, workers)
        rhs = moments[::-1] - penalty * kernel.ravel()
        step = factor.solve(rhs)
        size = float(np.abs(step).max())
        if not size < last / 2:
            break
        kernel, last = kernel + step.reshape(kernel.shape), size
        residual_energy = energy + float(
            step @ (equations.gram @ step) - 2 * (step @ moments[::-1])
        )
        if size <= 4 * _EPS * float(np.abs(kernel).max()):
            break
    return replace(
        fit, kernel=kernel, residual_rms=math.sqrt(max(residual_energy, 0.0) / fit.n_pixels)
    )
