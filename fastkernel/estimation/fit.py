"""The answer to a fit."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Literal, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike

from fastkernel._images.checks import as_boundary, as_image, as_workers
from fastkernel._images.windows import window_of_mode, window_of_pair
from fastkernel._typing import FloatArray, Progress, Shape
from fastkernel.convolution.convolve import convolved
from fastkernel.estimation.display import fact_table, iterations_fact, plot_fit
from fastkernel.estimation.solvers.direct import Factor
from fastkernel.estimation.solvers.options import Ridge
from fastkernel.estimation.solvers.solution import Solution

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    def __add__(self, other: Self) -> Self: ...
    def crop(self, kernel_shape: Shape) -> Self: ...
    def save(self, path: str | PathLike[str]) -> None: ...
    def solve(
        self,
        *,
        solver: str = "auto",
        ridge: Ridge = 0.0,
        nonnegative: bool = False,
        unit_sum: bool = False,
        symmetric: str | None = None,
        separable: bool = False,
        step: float | None = None,
        num_iter: int | None = None,
        tol: float | None = None,
        callback: Progress | None = None,
    ) -> "KernelFit": ...


@dataclass(frozen=True, eq=False)
class KernelFit:
    """A kernel, and how far to believe it.

    Attributes
    ----------
    kernel : (p, q) float64 array
        The taps of the convolution, in result units per source unit.
    residual_rms : float
        Root mean square of result less prediction over the fitted pixels, in result units.
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
    background : float, array or None
        What was fitted beside the convolution, in result units: a constant, or the coefficients
        of a polynomial.
    ridge : float
        The penalty on the taps, or on their second differences, in squared source units: what was
        asked for, or what was chosen.
    equations : NormalEquations or None
        What was solved; solve it again for another ridge or a smaller kernel. None for a kernel
        of so many taps that they were not formed.
    """

    kernel: FloatArray
    residual_rms: float
    condition_number: float
    rank: int
    n_pixels: int
    method: str
    solver: str
    equations: _KeptEquations | None
    _factor: Factor | None = field(repr=False)
    num_iter: int = 0
    converged: bool = True
    history: Mapping[str, FloatArray] | None = field(default=None, repr=False)
    background: float | FloatArray | None = None
    ridge: float = 0.0

    @cached_property
    def standard_errors(self) -> FloatArray:
        """Standard error of every tap, (p, q) float64, in units of the kernel.

        The square roots of the diagonal of ``s**2 * inv(gram)``, with the residual variance
        ``s**2 = energy of the residual / (n_pixels - n)``, where ``n`` counts the taps that
        constraints leave free and the coefficients of the background; infinite where no pixel is
        left to judge by. They cover noise and rounding that is independent from pixel to pixel, not
        a kernel larger than the fitted one. NaN, not available, where the method knows none.
        """
        if self._factor is None:
            return np.full(self.kernel.shape, math.nan)
        left = self.n_pixels - len(self._factor.lower)
        if self.equations is not None:
            left -= self.equations.background_terms
        if left <= 0:
            return np.full(self.kernel.shape, math.inf)
        variance = self.residual_rms**2 * self.n_pixels / left
        return np.sqrt(variance * self._factor.inverse_diagonal()).reshape(self.kernel.shape)

    def predict(
        self,
        source: ArrayLike,
        *,
        mode: Literal["valid", "same", "full"] = "valid",
        boundary: str = "zero",
        workers: int | None = None,
    ) -> FloatArray:
        """Convolve an image with the kernel; a fitted background is not added.

        Parameters
        ----------
        source : (m, n) array_like of real numbers
            The image, in source units.
        mode : {"valid", "same", "full"}, optional
            Which pixels to return: those that need none beyond the frame, as many as the source
            has, or all that the source reaches.
        boundary : str, optional
            What stands beyond the frame, but for ``mode="valid"``: "zero", "circular",
            "replicate", "symmetric" (edge pixel repeated) or "mirror" (not repeated).
        workers : int, optional
            Threads to use, every usable core when None.

        Returns
        -------
        float64 array
            (m - p + 1, n - q + 1), (m, n) or (m + p - 1, n + q - 1), in result units.

        Raises
        ------
        TypeError, ValueError
            If ``source`` is not an image of real numbers, ``mode`` or ``boundary`` is unknown, or
            the kernel is larger than the source and ``mode`` is "valid".

        Examples
        --------
        >>> import numpy as np
        >>> from fastkernel import estimate_kernel
        >>> image = np.random.default_rng(0).standard_normal((40, 40))
        >>> fit = estimate_kernel(image, image[1:-1, 1:-1] + image[2:, 1:-1], (3, 3))
        >>> np.allclose(fit.predict(image), image[1:-1, 1:-1] + image[2:, 1:-1])
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
        return convolved(image, self.kernel, window, as_workers(workers))

    def residual(
        self,
        source: ArrayLike,
        result: ArrayLike,
        *,
        boundary: str | None = None,
        workers: int | None = None,
    ) -> FloatArray:
        """Return what the kernel leaves unexplained.

        Parameters
        ----------
        source : (m, n) array_like of real numbers
            Source image.
        result : array_like of real numbers
            Result image; its shape says which pixels are compared, as in `estimate_kernel`.
        boundary : str, optional
            Border rule of a result of the source's shape; None leaves out what a rule touches.
        workers : int, optional
            Threads to use, every usable core when None.

        Returns
        -------
        float64 array
            Result less prediction over the compared pixels, in result units.

        Raises
        ------
        TypeError, ValueError
            As `estimate_kernel`, for the images and ``boundary``.
        """
        x, y = as_image(source, "source"), as_image(result, "result")
        rule = None if boundary is None else as_boundary(boundary)
        window = window_of_pair(x, y, _shape(self.kernel), rule)
        left = convolved(x, self.kernel, window, as_workers(workers))
        (top, first), (height, width) = window.result_origin, window.shape
        return np.subtract(y[top : top + height, first : first + width], left, out=left)

    def plot(self) -> "Figure":
        """Draw the kernel beside its standard errors, or beside the history of the iterations.

        Returns
        -------
        matplotlib.figure.Figure
            Belongs to no window: show it in a notebook, or call its ``savefig``.

        Raises
        ------
        ImportError
            If matplotlib is missing, which the extra ``fastkernel[plot]`` installs.
        """
        return plot_fit(self)

    def _repr_html_(self) -> str:
        facts: dict[str, object] = {
            "kernel": "{}×{}, taps sum to {:.6g}".format(*self.kernel.shape, self.kernel.sum()),
            "method": f"{self.method}, {self.solver}",
            "residual": f"{self.residual_rms:.4g} rms over {self.n_pixels} pixels",
            "condition number": f"{self.condition_number:.2g}",
        }
        facts |= iterations_fact(self.num_iter, self.converged)
        if self.background is not None:
            facts["background"] = f"{np.array2string(np.asarray(self.background), precision=4)}"
        return fact_table(facts)


def _shape(image: FloatArray) -> Shape:
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
    """
    return KernelFit(
        kernel=solution.taps,
        residual_rms=math.sqrt(max(residual_energy, 0.0) / n_pixels),
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
    )
