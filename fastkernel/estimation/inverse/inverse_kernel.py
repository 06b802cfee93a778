"""Inverse kernels: what a convolution is to be convolved with, to be undone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator

from fastkernel._images.checks import (
    as_boundary,
    as_callback,
    as_choice,
    as_count,
    as_image,
    as_penalty,
    as_shape,
    as_workers,
    refuse_non_finite,
)
from fastkernel._typing import (
    Border,
    Boundary,
    FloatArray,
    InverseMethod,
    InverseSolver,
    Progress,
    Shape,
)
from fastkernel.estimation.display import (
    answer_html,
    answer_text,
    iterations_fact,
    plot_inverse,
)
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.inverse.inverse_methods import (
    DESCENTS,
    Limits,
    Problem,
    best_delay,
    by_division,
    by_least_squares,
    by_matrix,
    smallest_gain,
)
from fastkernel.estimation.solvers.options import as_step

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS: tuple[InverseMethod, ...] = get_args(InverseMethod)
SOLVERS: tuple[InverseSolver, ...] = get_args(InverseSolver)

# Taps all below it are taken for zero: their inverse need not be finite.
_LEAST = 1e-300


@dataclass(frozen=True, eq=False, repr=False)
class InverseFit:
    """An inverse kernel, and how far to believe it.

    Attributes
    ----------
    kernel : (p, q) float64 array
        The inverse ``g`` of a kernel ``f``, in units of 1 over those of ``f``.
    delay : (int, int)
        Row and column at which the full convolution ``f * g`` peaks: an image of M by N pixels
        that was convolved by ``f`` in "full" mode comes back, convolved by ``g`` in "full" mode,
        in the M rows from ``delay[0]`` and the N columns from ``delay[1]`` on.
    max_deviation : float
        The largest ``|f * g - delta|`` of the full convolution, whatever the method.
    residual : float
        Its 2-norm; 1 is that of ``g = 0``.
    noise_gain : float
        The 2-norm of ``g``: by how much it multiplies the standard deviation of white noise.
    smallest_gain : float
        The least magnitude of the transform of ``f`` over all frequencies, in its units. 0 where
        it is no more than rounding: such a kernel has no exact inverse of any size.
    smallest_frequency : (float, float)
        Where that is, in cycles a pixel down the rows (-0.5 to 0.5) and across the columns
        (0 to 0.5).
    method, solver : str
        How the inverse was found.
    deviation : (m + p - 1, n + q - 1) float64 array
        ``f * g - delta``, the full convolution less its single 1.
    num_iter : int
        Iterations that were taken; 0 where the answer is direct.
    converged : bool
        Whether the iterations met their tolerance, or the usual one where that is 0.
    history : mapping of str to float64 array, or None
        ``"objective"``: the half squared residual, with the ridge's share, from the start on.
    operator : LinearOperator or None
        For ``method="matrix"`` the whole pseudo-inverse, (p * q, p * q), which takes a filtered
        image of the inverse's shape, raveled, back.
    """

    kernel: FloatArray
    delay: Shape
    max_deviation: float
    residual: float
    noise_gain: float
    smallest_gain: float
    smallest_frequency: tuple[float, float]
    method: str
    solver: str
    deviation: FloatArray
    num_iter: int = 0
    converged: bool = True
    history: Mapping[str, FloatArray] | None = None
    operator: LinearOperator | None = None

    def plot(self) -> Figure:
        """Draw the inverse beside the deviation of its convolution from a single 1.

        Returns
        -------
        matplotlib.figure.Figure
            Belongs to no window: a notebook shows it where it is the value of a cell; elsewhere
            call its ``savefig``. Where taps of very different size matter its colours are
            logarithmic, which a line above them says.

        Raises
        ------
        ImportError
            If matplotlib is missing, which the extra ``fastkernel[plot]`` installs.
        """
        return plot_inverse(self)

    def _facts(self) -> dict[str, str]:
        frequency = "({:.3f}, {:.3f})".format(*self.smallest_frequency)
        exact = "" if self.smallest_gain else ": no inverse is exact"
        end = "converged" if self.converged else "not converged"
        facts = {
            "inverse": "{}×{}".format(*self.kernel.shape),
            "method": f"{self.method}, {self.solver}, {end}",
            "delay": "{} rows, {} columns".format(*self.delay),
            "largest deviation": f"{self.max_deviation:.3g}",
            "residual": f"{self.residual:.3g}",
            "noise gain": f"{self.noise_gain:.3g}",
            "smallest gain": f"{self.smallest_gain:.3g} at frequency {frequency}{exact}",
        }
        return facts | iterations_fact(self.num_iter, self.converged)

    def __repr__(self) -> str:
        return answer_text("InverseFit", self._facts(), self.kernel)

    def _repr_html_(self) -> str:
        return answer_html(self._facts(), self.kernel, plot_inverse, self)


def inverse_kernel(
    kernel: ArrayLike,
    shape: Shape | int,
    *,
    method: InverseMethod = "lstsq",
    solver: InverseSolver = "auto",
    ridge: float = 0.0,
    delay: Shape | None = None,
    step: float | None = None,
    num_iter: int | None = None,
    tol: float | None = None,
    boundary: Border = "zero",
    workers: int | None = None,
    callback: Progress | None = None,
) -> InverseFit:
    r"""Find the kernel whose convolution with another is nearest to a single 1 among zeros.

    Minimises :math:`\tfrac12 \|f * g - \delta\|^2 + \tfrac12 \lambda \|g\|^2` over the kernels
    ``g`` of a shape, in "full" mode.

    Parameters
    ----------
    kernel : (m, n) array_like of real numbers
        The kernel ``f``, in any unit.
    shape : (int, int) or int
        Rows ``p`` and columns ``q`` of the inverse, in pixels; one integer stands for both. May
        be smaller than the kernel's.
    method : {"lstsq", "matrix", "fft"}, optional
        Least squares, than which no kernel of that shape leaves less; a row of the pseudo-inverse
        of the filtering matrix; or division of transforms. See the notes.
    solver : {"auto", "cholesky", "conjugate_gradients", "gradient_descent", "fista"}, optional
        For ``method="lstsq"``. "auto" factorises the normal equations of up to 1024 taps, where
        rounding allows, and iterates by conjugate gradients otherwise.
    ridge : float, optional
        Penalty :math:`\lambda \ge 0` on large taps, in squared units of the kernel. It trades
        ``residual`` for ``noise_gain``; 0 leaves the least residual.
    delay : (int, int), optional
        Row and column of the 1 in the full convolution, whose shape is (m + p - 1, n + q - 1).
        None looks for the best; see the notes.
    step : float, optional
        Of "gradient_descent" and "fista", in 1 over squared units of the kernel. None is the
        inverse of the largest eigenvalue, which is safe.
    num_iter : int, optional
        Most iterations; None for 1000 of conjugate gradients and 5000 of a descent.
    tol : float, optional
        Stop where the gradient, for conjugate gradients in the norm of the preconditioner, has
        shrunk by this factor. None for 1e-8, or, in a descent of which ``num_iter`` is given, for
        0: then all of them are taken.
    boundary : str, optional
        For ``method="matrix"``, what the filtering took to stand beyond the frame: "zero",
        "circular", "replicate", "symmetric" (edge pixel repeated) or "mirror" (not repeated).
        The default is that of `convolution_matrix`.
    workers : int, optional
        Threads to use, every usable core when None. The answer is the same bit for bit.
    callback : callable, optional
        Called as ``callback(done, total)`` after every iteration of the answer, and in the end
        with ``done == total``; an exception stops the work.

    Returns
    -------
    InverseFit
        The inverse, where its convolution with the kernel peaks, how far that is from exact, and
        how much noise it makes of noise.

    Raises
    ------
    SingularFitError
        If ``method="fft"``, ``ridge=0`` and the transform of the kernel is zero somewhere; or if
        ``solver="cholesky"`` and the normal equations are singular to rounding.
    TypeError
        If ``kernel`` is complex, masked or not of numbers, or ``ridge``, ``step`` or ``tol`` not
        a number.
    ValueError
        If a tap is not finite, or all are zero; ``step`` is larger than what descends; an option
        is given that the method or solver does not take; the matrix would be larger than 1024
        pixels; or another argument is out of its range.

    See Also
    --------
    convolution_matrix : The matrix of the filtering.

    Notes
    -----
    *lstsq.* No non-zero kernel convolves another to zero, so the minimiser is unique for every
    kernel, with ``ridge=0`` and zeros of the transform included; but the problem can be singular
    to rounding, as for a wide Gaussian. Iterations then stop at ``num_iter`` with ``converged``
    false, at an answer as good as its ``residual`` says. The normal equations are block-Toeplitz:
    conjugate gradients (CGLS) apply the convolution and its adjoint, with the inverse of the
    nearest circulant matrix (of the next size that transforms are fast at, cropped) as a
    preconditioner [1]_ [2]_. Gradient descent is plain, from zero,
    ``g -= step * correlate(f * g - delta, f)``; FISTA restarts its momentum when that points
    uphill [3]_. The direct answer is corrected by its own residual.

    *matrix.* ``K = convolution_matrix(kernel, shape, "same", boundary)`` filters images of the
    inverse's shape, and its pseudo-inverse (`InverseFit.operator`) undoes that, the border
    included, better than any convolution can: its rows, one for each pixel, are not shifts of one
    kernel. ``kernel`` is the row of the central pixel (or of the one that ``delay`` asks for),
    turned so that a convolution applies it. Rows near the border know where the border is, that
    one hardly does. Singular values below ``p * q`` roundings count as zero; with a ridge,
    ``s`` becomes ``s / (s**2 + ridge)``. With ``boundary="circular"`` rows are shifts of one
    kernel, found by transforms at any size.

    *fft.* ``conj(F) / (abs(F)**2 + ridge)`` on a grid of twice the full convolution's size,
    cropped: the infinite inverse, cut off. ``max_deviation`` is that of the full convolution, so
    it shows what the crop and the grid's wrapping around cost.

    *delay.* The squared residual of a position is 1 less its element on the diagonal of the
    projector onto all ``f * g`` (with a ridge, the minimum of what is minimised, likewise). The
    whole diagonal is computed for inverses of up to 1024 taps, if positions times taps are at
    most 2**22: the answer is then the best position, the one nearest to the middle among equals.
    Beyond, short runs of conjugate gradients compare three: the middle, and those whose crop of
    a regularised periodic inverse keeps the most energy, for two ridges. On 40 random kernels of
    2 to 5 taps a side and inverses of 20, their residual was 0.3 % above the best in the median
    and 15 % at worst. With "fft" it is the crop of most energy; with "matrix" the central pixel.

    *Zeros.* The plus ``[[0, 1, 0], [1, 1, 1], [0, 1, 0]]`` has the transform
    :math:`1 + 2\cos u + 2\cos v`, which vanishes on a curve. What lies there no filter brings
    back, so no inverse of any size is exact, and division of transforms fails. The least-squares
    inverse exists at every size, but its residual falls only like one over the square root of
    the side (0.27 for 21 by 21, 0.13 for 101, 0.07 for 301), while ``noise_gain`` grows. The
    filtering *matrix* of an image of a given size, whose frequencies may miss the curve, can be
    invertible all the same. Zeros are no rarity: a kernel without symmetry has a complex
    transform, two equations in two unknowns, and mostly vanishes at single points.

    References
    ----------
    .. [1] T. F. Chan, "An optimal circulant preconditioner for Toeplitz systems", SIAM J. Sci.
       Stat. Comput. 9 (1988) 766-771.
    .. [2] Å. Björck, "Numerical Methods for Least Squares Problems", SIAM 1996, section 7.4.
    .. [3] B. O'Donoghue and E. Candès, "Adaptive restart for accelerated gradient schemes",
       Found. Comput. Math. 15 (2015) 715-732.

    Examples
    --------
    >>> import numpy as np
    >>> from fastkernel import convolve, inverse_kernel
    >>> blur = np.array([[0, 0.1, 0], [0.1, 0.6, 0.1], [0, 0.1, 0]])
    >>> fit = inverse_kernel(blur, (21, 21))
    >>> fit.delay, fit.max_deviation < 1e-5
    ((11, 11), True)
    >>> image = np.random.default_rng(0).random((30, 40))
    >>> back = convolve(convolve(image, blur), fit.kernel)[11 : 11 + 30, 11 : 11 + 40]
    >>> bool(np.abs(back - image).max() < 1e-4)
    True

    The plus has no exact inverse, and the fit says so:

    >>> plus = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    >>> fit = inverse_kernel(plus, (21, 21))
    >>> fit.smallest_gain, round(fit.residual, 2)
    (0.0, 0.27)
    """
    given = as_image(kernel, "kernel")
    refuse_non_finite("kernel", given)
    p, q = as_shape(shape, "shape", one_for_both=True)
    method = as_choice(method, "method", METHODS)
    solver = as_choice(solver, "solver", SOLVERS)
    ridge, rule, threads = as_penalty(ridge, "ridge"), as_boundary(boundary), as_workers(workers)
    _refuse_misplaced(method, solver, rule, step, num_iter, tol)
    limits = Limits(
        None if num_iter is None else as_count(num_iter, "num_iter"),
        None if tol is None else as_penalty(tol, "tol"),
        as_callback(callback),
    )
    taps = np.ascontiguousarray(given, np.float64)
    largest = float(np.abs(taps).max())
    if largest < _LEAST:
        msg = f"kernel must not vanish, nothing undoes that; its largest magnitude is {largest}"
        raise ValueError(msg)
    # A power of two rounds nothing, and spares squares of tiny or huge taps.
    scale = 2.0 ** (math.frexp(largest)[1] - 1)
    problem = Problem(taps / scale, (p, q), ridge / scale / scale, threads)
    if delay is not None:
        delay = _as_delay(delay, problem.outputs)
    if step is not None:
        step = as_step(step) * scale * scale
    gain, frequency = smallest_gain(problem.kernel)
    operator = None
    try:
        if method == "matrix":
            found, delay, operator = by_matrix(problem, delay, rule, scale)
        elif method == "fft":
            if gain == 0 and ridge == 0:
                raise SingularFitError
            found, delay = by_division(problem, delay)
        else:
            delay = best_delay(problem) if delay is None else delay
            found = by_least_squares(problem, delay, solver, step, limits, scale)
    except SingularFitError:
        msg = (
            f"the kernel cannot be inverted: its transform falls to {gain * scale:.1e} at the "
            f"frequency ({frequency[0]:.4f}, {frequency[1]:.4f}). What helps: ridge= to leave "
            f"such frequencies out, of about {1e-4 * (np.abs(taps).sum()) ** 2:.1e} here, or "
            "method='lstsq' with solver='conjugate_gradients'"
        )
        raise SingularFitError(msg) from None
    if callback is not None and found.history is None:
        callback(1, 1)
    left = problem.residual(found.taps, delay)
    return InverseFit(
        kernel=found.taps / scale,
        delay=delay,
        max_deviation=float(np.abs(left).max()),
        residual=float(np.linalg.norm(left)),
        noise_gain=float(np.linalg.norm(found.taps)) / scale,
        smallest_gain=gain * scale,
        smallest_frequency=frequency,
        method=method,
        solver=found.solver,
        deviation=left,
        num_iter=found.num_iter,
        converged=found.converged,
        history=found.history,
        operator=operator,
    )


def _refuse_misplaced(
    method: str,
    solver: str,
    rule: Boundary,
    step: float | None,
    num_iter: int | None,
    tol: float | None,
) -> None:
    """Raise for an option that the method or the solver does not take."""
    if method != "lstsq" and solver != "auto":
        msg = f"solver must be 'auto' for method={method!r}, which is direct; got {solver!r}"
        raise ValueError(msg)
    if method != "matrix" and rule != "zero":
        msg = (
            f"boundary must be 'zero' for method={method!r}, a full convolution; got {rule!r}; "
            "method='matrix' knows border rules"
        )
        raise ValueError(msg)
    if step is not None and solver not in DESCENTS:
        msg = f"step must be None for solver={solver!r}; 'gradient_descent' and 'fista' take one"
        raise ValueError(msg)
    direct = method != "lstsq" or solver == "cholesky"
    for name, value in (("num_iter", num_iter), ("tol", tol)):
        if direct and value is not None:
            msg = f"{name} must be None where nothing is iterated, got {value!r}"
            raise ValueError(msg)


def _as_delay(value: Any, outputs: Shape) -> Shape:
    """Return ``value`` as a position in the full convolution."""
    try:
        row, col = value
    except (TypeError, ValueError):
        row = col = None
    if not all(isinstance(i, Integral) and not isinstance(i, bool) for i in (row, col)) or not (
        0 <= row < outputs[0] and 0 <= col < outputs[1]
    ):
        msg = (
            f"delay must be two integers (row, col) inside the full convolution {outputs}, "
            f"got {value!r}"
        )
        raise ValueError(msg)
    return int(row), int(col)
