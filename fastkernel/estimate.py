"""Estimation of the kernel that turned one image into another."""

import math
from dataclasses import replace

import numpy as np

from fastkernel._checks import as_kernel_shape, as_penalty, as_workers
from fastkernel._typing import Images, Progress, Shape
from fastkernel.engines import Pair
from fastkernel.fit import KernelFit
from fastkernel.gather import gather_residual
from fastkernel.large import fit_large
from fastkernel.normal import NormalEquations, as_engine, equations_of, matched_pairs
from fastkernel.solvers import Factor, refuse_too_few

_EPS = float(np.finfo(np.float64).eps)

# Share of the taps' size that rounding may reach before the pixels are read again.
_ROUNDING_ALLOWED = 1e-11
_MAX_REFINEMENTS = 3

# Taps beyond which the equations are not formed: they would take 128 MiB, and a minute soon.
_FORMED = 4096


def estimate_kernel(
    source: Images,
    result: Images,
    kernel_shape: Shape,
    *,
    method: str = "lstsq",
    boundary: str | None = None,
    ridge: float = 0.0,
    channel_axis: int | None = None,
    engine: str = "auto",
    workers: int | None = None,
    callback: Progress | None = None,
) -> KernelFit:
    r"""Estimate the convolution kernel that turns one image into another.

    Minimises :math:`\|k * x - y\|^2 + \lambda n \|k\|^2` over kernels of the given shape, where
    ``n`` counts the pixels of the result that are used.

    Parameters
    ----------
    source : (m, n) array_like of real numbers, or a sequence of them
        Source image, in any unit.
    result : array_like of real numbers, or a sequence of them
        Result image, in any unit, of shape (m, n) ("same"), (m - p + 1, n - q + 1) ("valid") or
        (m + p - 1, n + q - 1) ("full", zeros beyond the source's frame). A sequence holds as
        many as ``source``; all share the kernel.
    kernel_shape : (int, int) or int
        Rows ``p`` and columns ``q`` of the kernel, in pixels. In "same" the centre tap is
        ``((p - 1) // 2, (q - 1) // 2)``.
    method : {"lstsq"}, optional
        Least squares over the pixels.
    boundary : str, optional
        What the result's maker took to stand beyond the source's frame in a "same" pair: "zero",
        "circular", "replicate", "symmetric" (edge pixel repeated) or "mirror" (not repeated).
        None uses only the pixels that no rule can touch.
    ridge : float, optional
        Penalty :math:`\lambda \ge 0`, in squared source units. 0 is plain least squares.
    channel_axis : int, optional
        The axis of 3-dimensional images that holds channels, which share the kernel.
    engine : {"auto", "integer", "float", "fft"}, optional
        How to sum: by int16 loops (images of at most 8 bits), by float64 loops, by
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
        If an image is complex, masked or not of numbers.
    ValueError
        If the shapes do not fit together, the kernel is larger than the image, a pixel that is
        used is not finite, or another argument is out of its range.

    See Also
    --------
    normal_equations : The part that reads pixels, reusable for many fits.

    Notes
    -----
    The pixels are read once; solving costs :math:`O((pq)^3)` whatever their number [1]_. Beyond
    4096 taps (and unless a side of the kernel is 1 or 2) the equations are not formed: conjugate
    gradients apply them by transforms, without standard errors, and ``engine`` has no say; a
    dataset that is read by slices is then held in memory. Where
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
    if method != "lstsq":
        msg = f"method must be 'lstsq', got {method!r}"
        raise ValueError(msg)
    shape, penalty, threads = (
        as_kernel_shape(kernel_shape),
        as_penalty(ridge, "ridge"),
        as_workers(workers),
    )
    pairs = matched_pairs(source, result, shape, boundary, channel_axis)
    if penalty == 0:
        refuse_too_few(sum(pair.window.n_pixels for pair in pairs), math.prod(shape))
    chosen = as_engine(engine, pairs)
    # Where a side is 1 or 2 the equations are no larger than what replaces them.
    if math.prod(shape) > _FORMED and min(shape) > 2:
        return fit_large(pairs, shape, penalty, threads, callback)
    equations = equations_of(pairs, shape, threads, callback, chosen)
    fit = equations.solve(ridge=penalty)
    if fit._factor is None or not _rounding_shows(fit, equations, pairs):
        return fit
    return _refine(fit, equations, fit._factor, pairs, penalty, threads)


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
    ridge: float,
    workers: int,
) -> KernelFit:
    """Correct the taps by the residual of the pixels until the corrections stop shrinking."""
    kernel, penalty, last = fit.kernel, ridge * fit.n_pixels, math.inf
    for _ in range(_MAX_REFINEMENTS):
        flipped = np.ascontiguousarray(kernel[::-1, ::-1])
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
