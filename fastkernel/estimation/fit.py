"""The answer to a fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from os import PathLike
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike

from fastkernel._images.checks import as_boundary, as_image, as_workers
from fastkernel._images.crops import Crop, crop_of
from fastkernel._images.levels import encode, linear, linear_white
from fastkernel._images.pairs import Fitted
from fastkernel._images.windows import Window, window_of_mode
from fastkernel._machine.kept import kept_property
from fastkernel._typing import (
    AnyArray,
    BoolArray,
    Border,
    Boundary,
    FloatArray,
    Light,
    LstsqSolver,
    Mode,
    Progress,
    Ridge,
    Shape,
    Symmetry,
)
from fastkernel.convolution.convolve import convolved
from fastkernel.estimation.polynomial import polynomial_image
from fastkernel.estimation.shown import Shown
from fastkernel.estimation.solvers.direct import Factor
from fastkernel.estimation.solvers.solution import Solution


class _KeptEquations(Protocol):
    """The equations that a fit keeps: `NormalEquations`, as those see them who hold a fit."""

    @property
    def gram(self) -> FloatArray: ...
    @property
    def moments(self) -> FloatArray: ...
    @property
    def energy(self) -> float: ...
    @property
    def n_pixels(self) -> int: ...
    @property
    def kernel_shape(self) -> Shape: ...
    @property
    def background_terms(self) -> int: ...
    @property
    def total_weight(self) -> float: ...
    def __add__(self, other: Self) -> Self: ...
    def crop(self, kernel_shape: Shape | int) -> Self: ...
    def save(self, path: str | PathLike[str]) -> None: ...
    def solve(
        self,
        *,
        solver: LstsqSolver = "auto",
        ridge: Ridge = 0.0,
        nonnegative: bool = False,
        unit_sum: bool = False,
        symmetric: Symmetry | None = None,
        basis: ArrayLike | None = None,
        separable: bool = False,
        step: float | None = None,
        num_iter: int | None = None,
        tol: float | None = None,
        callback: Progress | None = None,
    ) -> KernelFit: ...


@dataclass(frozen=True, eq=False, repr=False)
class KernelFit(Shown):
    r"""A kernel, and how far to believe it.

    Attributes
    ----------
    kernel : (p, q) float64 array
        The taps of the convolution, in result units per source unit. The centre tap is
        ``kernel[(p - 1) // 2, (q - 1) // 2]``, the earlier of two middle ones where a side is
        even: in a "same" pair it multiplies the source pixel that stands where the result pixel
        stands. A tap ``a`` rows below and ``b`` columns right of it multiplies the source pixel
        ``a`` rows above and ``b`` columns left: a kernel that is 1 there shifts an image down and
        to the right.
    residual_rms : float
        Root mean square of result less prediction over the fitted pixels, by their weights, in
        result units.
        From the equations alone it cannot be seen below 3e-8 of the result's own, which is then
        what stands here; `estimate_kernel` reads the pixels again where that matters.
    condition_number : float
        Of the normal equations, estimated in the 1-norm: the square of the design matrix's. An
        error of 1 in 10**8 of the sums can become one of ``condition_number / 10**8``.
    rank : int
        Number of taps that the images determine: all of them, or the fit had been refused.
    n_pixels : int
        Number of result pixels that were fitted, channels counted apart.
    method, solver : str
        How the kernel was found.
    num_iter : int
        Iterations that were taken; 0 where the answer is direct.
    converged : bool
        Whether the iterations met their tolerance.
    history : mapping of str to float64 array, or None
        One number an iteration, from the start on, of what the method minimises or maximises.
    offset : (int, int)
        Rows and columns by which the result was moved down and to the right, given or found:
        ``result[r, c]`` goes with ``source[r - rows, c - cols]``.
    boundary : str or None
        What was taken to stand beyond the source's frame, given or found; None where nothing was,
        and for the solution of equations.
    light : {"stored", "srgb"}
        What was convolved: the levels as they stand, or the linear light that they encode. In
        linear light black is 0 and white is 1, in both images; ``residual_rms`` and the
        background are in it. Images go into `predict`, `residual` and `judge` as levels, and come
        out as levels, which end at black and white.
    found : Findings or None
        What was to be found, its attributes ``kernel_shape``, ``offset``, ``light``,
        ``background`` and ``boundary``, each with the numbers that it rests on, or None where it
        was given.
    background : float, array or None
        What was fitted beside the convolution, in result units. A constant is a float; of a
        polynomial of degree ``d`` these are the coefficients of :math:`P_i(\rho) P_j(\gamma)`,
        (d + 1, d + 1), with Legendre polynomials ``P`` and :math:`\rho` and :math:`\gamma` from
        -1 at the first to 1 at the last row and column of the fitted pixels. Several pairs or
        channels have one each, along a first axis, in the order in which they were given, the
        channels of an image one after the other. `predict` adds it, `residual` subtracts it. None
        where there is none, or where equations from which one was eliminated were solved.
    ridge : float
        The penalty on the taps, or on their second differences, in squared source units: what was
        asked for, or what was chosen.
    equations : NormalEquations or None
        What was solved; solve it again for another ridge or a smaller kernel. None where they
        were not formed: for a kernel of thousands of taps, and where pixels have so many weights
        that some of their rows were taken, and corrected by all pixels. (Standard errors then
        are those that these rows tell, right to some percent.)
    """

    kernel: FloatArray
    residual_rms: float
    condition_number: float
    rank: int
    n_pixels: int
    method: str
    solver: str
    equations: _KeptEquations | None
    _factor: Factor | None
    num_iter: int = 0
    converged: bool = True
    history: Mapping[str, FloatArray] | None = None
    offset: Shape = (0, 0)
    boundary: Boundary | None = None
    light: Light = "stored"
    found: Any = None
    background: float | FloatArray | None = None
    ridge: float = 0.0
    _fitted: tuple[Fitted, ...] = ()
    _shape_found: bool = False
    _scatter: FloatArray | None = None
    _variance: float = math.nan

    @property
    def used(self) -> BoolArray | tuple[BoolArray, ...] | None:
        """Which pixels of the result were fitted: bool array of its shape; one a pair of several.

        False where a border rule would be needed that was not given, where a mask or saturation
        left a pixel out, and where ``sigma_clip`` did. None where the method keeps no account.
        """
        masks = tuple(part.mask() for part in self._fitted)
        return masks[0] if len(masks) == 1 else masks or None

    @kept_property
    def standard_errors(self) -> FloatArray:
        """Standard error of every tap, (p, q) float64, in units of the kernel.

        The square roots of the diagonal of `covariance`. With ``errors="even"`` they cover noise
        and rounding that is independent from pixel to pixel and alike (with weights: of variances
        that are their inverses), not a kernel larger than the fitted one. NaN, not available,
        where the method knows none.
        """
        if self._factor is None or self._scatter is not None:
            return np.sqrt(np.diag(self.covariance)).reshape(self.kernel.shape)
        if math.isinf(self._variance):
            return np.full(self.kernel.shape, math.inf)
        return np.sqrt(self._variance * self._factor.inverse_diagonal()).reshape(self.kernel.shape)

    @kept_property
    def covariance(self) -> FloatArray:
        """Covariance of the taps, (p * q, p * q) float64, in C order, in squared kernel units.

        ``s**2 * inv(gram)``, with the residual variance ``s**2 = weighted energy of the residual
        / (n_pixels - n)``, where ``n`` counts the taps that constraints leave free and the
        coefficients of the background, and ``s = 1`` for ``absolute_sigma=True``; infinite where
        no pixel is left to judge by. With ``errors="robust"`` the sandwich
        ``inv(gram) @ scatter @ inv(gram)`` [1]_, [2]_, whose scatter is that of the residual times
        the source, at the same pixel and at neighbours whose residuals are alike; and so with
        ``source_variance``, where the shift of the taps by the penalty beside it is part of their
        error. NaN, not available, where the method knows none.

        References
        ----------
        .. [1] H. White, "A heteroskedasticity-consistent covariance matrix estimator and a direct
           test for heteroskedasticity", Econometrica 48 (1980) 817-838.
        .. [2] T. G. Conley, "GMM estimation with cross sectional dependence", J. Econometrics 92
           (1999) 1-45.
        """
        taps = self.kernel.size
        if self._factor is None:
            return np.full((taps, taps), math.nan)
        inverse = self._factor.solve(np.eye(taps))
        if math.isinf(self._variance):
            return np.full((taps, taps), math.inf)
        if self._scatter is None:
            return self._variance * inverse
        return np.asarray(inverse @ self._scatter @ inverse)

    def predict(
        self,
        source: ArrayLike,
        *,
        mode: Mode = "valid",
        boundary: Border = "zero",
        background: bool = True,
        pair: int | None = None,
        workers: int | None = None,
    ) -> FloatArray:
        """Convolve an image with the kernel, and add the background that was fitted beside it.

        The answer stands in the frame of ``source``: where ``offset`` is not (0, 0), the result
        that was fitted is this, moved.

        Parameters
        ----------
        source : (m, n) array_like of real numbers
            The image, in source units.
        mode : {"valid", "same", "full"}, optional
            Which pixels to return: those that need none beyond the frame, as many as the source
            has, or all that the source reaches. The first needs no guess of the border.
        boundary : str, optional
            What stands beyond the frame, but for ``mode="valid"``: "zero", "circular",
            "replicate", "symmetric" (edge pixel repeated) or "mirror" (not repeated). "zero" is
            also the default of `convolve`.
        background : bool, optional
            Whether to add the background, as the result has it; a fit without one adds nothing. A
            constant is added to every pixel. A polynomial is that of the fitted pixels, so
            ``source`` must have the shape of the source that was fitted; pixels that were not
            fitted, such as the rim of "same" after a fit of "valid", extrapolate it.
        pair : int, optional
            Whose background, where several pairs or channels have one each; see `background`.
            None where there is one.
        workers : int, optional
            Threads to use, every usable core when None.

        Returns
        -------
        float64 array
            (m - p + 1, n - q + 1), (m, n) or (m + p - 1, n + q - 1), in result units.

        Raises
        ------
        TypeError, ValueError
            If ``source`` is not an image of real numbers, ``mode`` or ``boundary`` is unknown,
            the kernel is larger than the source and ``mode`` is "valid", or the background is to
            be added and not known for this source.

        Examples
        --------
        >>> import numpy as np
        >>> from fastkernel import estimate_kernel
        >>> image = np.random.default_rng(0).standard_normal((40, 40))
        >>> result = image[1:-1, 1:-1] + image[2:, 1:-1] + 7
        >>> fit = estimate_kernel(image, result, (3, 3), background="constant")
        >>> np.allclose(fit.predict(image), result)
        True
        >>> np.allclose(fit.predict(image, background=False), result - 7)
        True
        """
        image = as_image(source, "source")
        if mode not in ("valid", "same", "full"):
            msg = f"mode must be 'valid', 'same' or 'full', got {mode!r}"
            raise ValueError(msg)
        window = window_of_mode(mode, _shape(image), _shape(self.kernel), as_boundary(boundary))
        if min(window.shape) < 1:
            msg = (
                f"source must be at least as large as the kernel {self.kernel.shape} for "
                f"mode='valid', got {image.shape}; use mode='same' or 'full'"
            )
            raise ValueError(msg)
        beside = self._beside(_shape(image), window, pair) if background else None
        return self._predicted(image, window, beside, as_workers(workers))

    def residual(
        self,
        source: ArrayLike,
        result: ArrayLike,
        *,
        boundary: Border | None = None,
        background: bool = True,
        pair: int | None = None,
        workers: int | None = None,
    ) -> FloatArray:
        """Return what the kernel, and the background beside it, leave unexplained.

        Parameters
        ----------
        source : (m, n) array_like of real numbers
            Source image.
        result : array_like of real numbers
            Result image; its shape says which pixels are compared, as in `estimate_kernel`.
        boundary : str, optional
            Border rule of a result of the source's shape; None leaves out what a rule touches.
        background : bool, optional
            Whether to subtract the fitted background; as in `predict`.
        pair : int, optional
            Whose background; as in `predict`.
        workers : int, optional
            Threads to use, every usable core when None.

        Returns
        -------
        float64 array
            Result less prediction over the compared pixels, in result units.

        Raises
        ------
        TypeError, ValueError
            As `estimate_kernel`, for the images and ``boundary``; as `predict`, for the
            background.
        """
        x, y = as_image(source, "source"), as_image(result, "result")
        rule = None if boundary is None else as_boundary(boundary)
        window = self._crop(_shape(x), _shape(y)).window(_shape(self.kernel), rule)
        beside = self._beside(_shape(x), window, pair) if background else None
        white = linear_white(y, "result") if self.light == "srgb" else None
        left = self._predicted(x, window, beside, as_workers(workers), white)
        (top, first), (height, width) = window.result_origin, window.shape
        return np.subtract(y[top : top + height, first : first + width], left, out=left)

    def _predicted(
        self,
        source: AnyArray,
        window: Window,
        beside: float | FloatArray | None,
        workers: int,
        white: float | None = None,
    ) -> FloatArray:
        """Return what stands in a window of a source's result, of its white level or another."""
        if self.light == "srgb":
            source, own = linear(source, "source")
            white = white or own
        out = convolved(source, self.kernel, window, workers)
        if beside is not None:
            np.add(out, beside, out=out)
        return out if white is None else encode(out, white)

    def _crop(self, source_shape: Shape, result_shape: Shape) -> Crop:
        """Return which parts of images go together as the fitted ones do."""
        shape = _shape(self.kernel) if self._shape_found else None
        return crop_of(source_shape, result_shape, self.offset, shape)

    def _beside(
        self, source_shape: Shape, window: Window, pair: int | None
    ) -> float | FloatArray | None:
        """Return the background over a window of a source, None where there is none."""
        if self.background is None:
            if self.equations is not None and self.equations.background_terms:
                msg = (
                    "background must be False for this fit: it was eliminated from the equations, "
                    "and their solution does not tell it; estimate_kernel does"
                )
                raise ValueError(msg)
            return None
        found = np.asarray(self.background)
        # Those of several pairs stand along an axis of their own.
        several = found if found.ndim in (1, 3) else found[None]
        index = _index(pair, len(several))
        if several.ndim == 1:
            return float(several[index])
        if not self._fitted:
            msg = (
                "background must be False for this fit of a polynomial one: its equations are of "
                "parts, and do not tell which source they make up"
            )
            raise ValueError(msg)
        shape, _, fitted, *_ = self._fitted[index]
        if source_shape != shape:
            msg = (
                f"source must have the shape {shape} of the source that was fitted, over which the "
                f"polynomial background is known, got {source_shape}; background=False leaves it "
                "out"
            )
            raise ValueError(msg)
        (top, left), (row, col) = window.source_origin, fitted.source_origin
        return polynomial_image(several[index], fitted.shape, (top - row, left - col), window.shape)


def _index(pair: int | None, count: int) -> int:
    """Return which of ``count`` backgrounds is asked for."""
    if pair is None and count == 1:
        return 0
    if pair is None:
        msg = (
            f"pair must say whose of {count} backgrounds is meant, from 0 to {count - 1}, got "
            "None; background=False leaves it out"
        )
        raise ValueError(msg)
    if not isinstance(pair, Integral) or isinstance(pair, bool) or not 0 <= pair < count:
        msg = f"pair must be from 0 to {count - 1}, one of the fit's backgrounds, got {pair!r}"
        raise ValueError(msg)
    return int(pair)


def _shape(image: AnyArray) -> Shape:
    rows, cols = image.shape
    return rows, cols


def fit_of(
    solution: Solution,
    residual_energy: float,
    n_pixels: int,
    *,
    method: str,
    equations: _KeptEquations | None = None,
    background: float | FloatArray | None = None,
    fitted: Sequence[Fitted] = (),
    scatter: FloatArray | None = None,
    absolute: bool = False,
    total_weight: float | None = None,
    background_terms: int = 0,
) -> KernelFit:
    """Return the answer that taps make: the one place where a `KernelFit` is made.

    Parameters
    ----------
    solution : Solution
        The taps, and what their solver has to say of them.
    residual_energy : float
        Sum of the squares that they leave over the fitted pixels, in squared result units; what
        rounding makes negative is 0.
    n_pixels : int
        Number of fitted pixels.
    method : str
        How the kernel was found.
    equations, background : optional
        As in `KernelFit`.
    fitted : sequence of Fitted, optional
        The pixels of every pair.
    scatter : (p * q, p * q) float64 array, optional
        What a robust covariance rests on.
    absolute : bool, optional
        Whether the weights are inverse variances.
    total_weight : float, optional
        Sum of the weights of the fitted pixels; that of the equations, or their number.
    background_terms : int, optional
        Coefficients beside the kernel, where there are no equations that tell.
    """
    if total_weight is None:
        total_weight = n_pixels if equations is None else equations.total_weight
    if equations is not None:
        background_terms = equations.background_terms
    free = 0 if solution.factor is None else len(solution.factor.lower)
    left = n_pixels - free - background_terms
    variance = math.inf if left <= 0 else 1.0 if absolute else max(residual_energy, 0.0) / left
    return KernelFit(
        kernel=solution.taps,
        residual_rms=math.sqrt(max(residual_energy, 0.0) / total_weight),
        condition_number=solution.condition_number,
        rank=solution.rank,
        n_pixels=n_pixels,
        method=method,
        solver=solution.solver,
        equations=equations,
        _factor=solution.factor,
        num_iter=solution.num_iter,
        converged=solution.converged,
        history=solution.history,
        background=background,
        ridge=solution.ridge,
        _fitted=tuple(fitted),
        _scatter=None if scatter is None else scatter * (n_pixels / max(left, 1)),
        _variance=variance,
    )
