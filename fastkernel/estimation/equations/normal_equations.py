"""Normal equations of a kernel fit: a value that adds, crops, keeps and solves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastkernel._images.checks import as_callback, as_kernel_shape
from fastkernel._typing import FloatArray, LstsqSolver, Progress, Ridge, Shape, Symmetry
from fastkernel.estimation.archive import read_archive, write_archive
from fastkernel.estimation.equations.background import (
    BackgroundSums,
    as_background,
    as_coefficients,
    background_of,
    eliminated,
    joined,
    told,
)
from fastkernel.estimation.equations.stored import checked_fields, fields_of_background
from fastkernel.estimation.fit import KernelFit, fit_of
from fastkernel.estimation.solvers.direct import Factor
from fastkernel.estimation.solvers.options import SolverOptions
from fastkernel.estimation.solvers.solution import Solution, System
from fastkernel.estimation.solvers.solve import solve

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class NormalEquations:
    """All that a least-squares fit of a kernel needs to know about its pixels.

    Tiles, images and machines join with ``+``. The size depends on the kernel, never on how many
    pixels were read.

    Attributes
    ----------
    gram : (p * q, p * q) float64 array
        ``X.T @ X`` in squared source units, taps in C order of the kernel.
    moments : (p * q,) float64 array
        ``X.T @ y`` in source times result units.
    energy : float
        ``y @ y`` in squared result units.
    n_pixels : int
        Rows of ``X``: result pixels.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    background_terms : int
        Coefficients of backgrounds that were eliminated from the rest, all pairs together.
    background_energy : float
        What these took from ``energy``, in squared result units.
    total_weight : float
        Sum of the weights of the rows; ``n_pixels``, where they have none, for NaN.
    background : BackgroundSums or None
        Sums with the background that all parts of one image share, which is not in
        ``background_terms``: it is eliminated from the sum of the parts. See `eliminate`.
    """

    gram: FloatArray
    moments: FloatArray
    energy: float
    n_pixels: int
    kernel_shape: Shape
    background_terms: int = 0
    background_energy: float = 0.0
    total_weight: float = math.nan
    background: BackgroundSums | None = None

    def __post_init__(self) -> None:
        if math.isnan(self.total_weight):
            object.__setattr__(self, "total_weight", float(self.n_pixels))

    def __repr__(self) -> str:
        # A Gram matrix would fill the screen.
        backgrounds = f", background_terms={self.background_terms}" * (self.background_terms > 0)
        if self.background is not None:
            backgrounds += f", background of degree {self.background.degree} not eliminated"
        return (
            f"{type(self).__name__}(kernel_shape={self.kernel_shape}, n_pixels={self.n_pixels}"
            f"{backgrounds}, energy={self.energy:.6g})"
        )

    @classmethod
    def zero(cls, kernel_shape: Shape | int) -> Self:
        """Return the equations of no pixels, which change nothing when added."""
        shape = as_kernel_shape(kernel_shape)
        taps = math.prod(shape)
        return cls(np.zeros((taps, taps)), np.zeros(taps), 0.0, 0, shape)

    def __add__(self, other: Self) -> Self:
        if not isinstance(other, NormalEquations):
            return NotImplemented
        if other.kernel_shape != self.kernel_shape:
            msg = (
                f"cannot join the equations of kernels {self.kernel_shape} and "
                f"{other.kernel_shape}; crop the larger to the smaller"
            )
            raise ValueError(msg)
        return type(self)(
            self.gram + other.gram,
            self.moments + other.moments,
            self.energy + other.energy,
            self.n_pixels + other.n_pixels,
            self.kernel_shape,
            self.background_terms + other.background_terms,
            self.background_energy + other.background_energy,
            self.total_weight + other.total_weight,
            joined(self.background, other.background),
        )

    def __radd__(self, other: int, /) -> Self:
        # `sum` begins with 0.
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __sizeof__(self) -> int:
        # Schedulers that spill to disk ask for it.
        arrays = [self.gram, self.moments]
        if (beside := self.background) is not None:
            arrays += [beside.products, beside.gram, beside.moments]
        return object.__sizeof__(self) + sum(array.nbytes for array in arrays)

    def eliminate(self) -> Self:
        """Return the equations of the kernel beside the best background of a whole image.

        Sums over parts, by ``normal_equations(..., background=, within=)``, keep the background
        apart, so that all parts of the image share one; `solve` and `refine` eliminate it
        themselves. Eliminated, they join with those of other images, whose background is another.

        Returns
        -------
        NormalEquations
            Without ``background``; themselves if they have none, or no pixels.

        Raises
        ------
        SingularFitError
            If the pixels do not determine the background.
        """
        if self.background is None:
            return self
        alone = replace(self, background=None)
        return alone.less([self.background]) if self.n_pixels else alone

    def less(self, backgrounds: Sequence[BackgroundSums]) -> Self:
        """Return the equations beside the best backgrounds, one a pair."""
        if not backgrounds:
            return self
        gram, moments, energy = eliminated(self.gram, self.moments, self.energy, backgrounds)
        return replace(
            self,
            gram=gram,
            moments=moments,
            energy=energy,
            background_terms=self.background_terms + sum(sums.terms for sums in backgrounds),
            background_energy=self.background_energy + (self.energy - energy),
        )

    def refine(self, fit: KernelFit, residual: Self) -> KernelFit:
        """Correct a kernel by the sums over what it leaves, of a second pass over the pixels.

        Parameters
        ----------
        fit : KernelFit
            What `solve` found of these equations, by "cholesky" and without ``ridge``.
        residual : NormalEquations
            By `residual_equations`, of the same pixels and ``fit.kernel``.

        Returns
        -------
        KernelFit
            The same with ``kernel``, ``residual_rms`` and error bars corrected: a kernel whose
            error was ``condition_number`` times the rounding has the square root of it. So is
            ``background``, where `residual_equations` was given that of ``fit``.

        Raises
        ------
        ValueError
            If ``residual`` is of other pixels, of another kernel's shape or has another
            background, one was eliminated already, or ``fit`` was found with a penalty, by
            iterations or with taps that must not be negative.

        Examples
        --------
        See `residual_equations`.
        """
        factor, sums, given = self._factor_of(fit, residual), self.background, fit.background
        whole, moments, energy = self.eliminate(), residual.moments, residual.energy
        more, left, background = np.zeros(0), residual.background, None
        if sums is not None and left is not None:
            more = sums.solve(left.moments)
            moments = moments - sums.products @ more
            energy -= float(left.moments @ more)
        step = factor.solve(moments)
        energy += float(step @ (whole.gram @ step) - 2 * (step @ moments))
        if sums is not None and given is not None:
            coefficients = as_coefficients(given) + more - sums.solve(step @ sums.products)
            background = as_background(sums, coefficients)
        found = Solution(
            taps=fit.kernel + step.reshape(self.kernel_shape),
            solver=fit.solver,
            rank=fit.rank,
            condition_number=fit.condition_number,
            factor=factor,
        )
        return fit_of(
            found,
            energy,
            self.n_pixels,
            method="lstsq",
            equations=whole,
            background=background,
        )

    def _factor_of(self, fit: KernelFit, residual: Self) -> Factor:
        """Return the factor by which a fit was solved, or raise if it cannot be refined."""
        if residual.kernel_shape != self.kernel_shape or residual.n_pixels != self.n_pixels:
            msg = (
                f"residual must be of the {self.n_pixels} pixels and the kernel_shape "
                f"{self.kernel_shape} of these equations, got {residual.n_pixels} and "
                f"{residual.kernel_shape}"
            )
            raise ValueError(msg)
        if self.background_terms:
            msg = (
                "equations must be without a background to be refined: it was eliminated, and "
                "their solution does not tell it; estimate_kernel refines such fits itself, and "
                "parts that are given within= keep it"
            )
            raise ValueError(msg)
        joined(self.background, residual.background)
        if (self.background is None) != (residual.background is None):
            msg = (
                "residual must be beside the background of these equations, if they have one: "
                f"got {told(residual.background)} and {told(self.background)}; pass "
                "background=fit.background and within= to residual_equations"
            )
            raise ValueError(msg)
        factor, known = fit._factor, (self.background is None) == (fit.background is None)
        if factor is None or fit.ridge or fit.kernel.shape != self.kernel_shape or not known:
            msg = (
                "fit must be the direct solution of these equations without a ridge, got "
                f"solver={fit.solver!r} and ridge={fit.ridge:g}"
            )
            raise ValueError(msg)
        return factor

    def crop(self, kernel_shape: Shape | int) -> Self:
        """Return the equations of a smaller kernel over the same pixels.

        Parameters
        ----------
        kernel_shape : (int, int)
            No larger than this one's. The centre tap stays the centre tap.

        Returns
        -------
        NormalEquations
            A copy of the taps around the centre.

        Raises
        ------
        ValueError
            If ``kernel_shape`` is not two positive integers or does not fit inside.

        Examples
        --------
        >>> from fastkernel import NormalEquations
        >>> NormalEquations.zero((5, 7)).crop((3, 3)).gram.shape
        (9, 9)
        """
        shape = as_kernel_shape(kernel_shape)
        taps, background = centred_taps(self.kernel_shape, shape).ravel(), self.background
        if background is not None:
            background = replace(background, products=background.products[taps])
        return replace(
            self,
            gram=self.gram[np.ix_(taps, taps)],
            moments=self.moments[taps],
            kernel_shape=shape,
            background=background,
        )

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
    ) -> KernelFit:
        r"""Find the kernel that minimises the squared residual.

        Minimises :math:`\|X k - y\|^2 + \lambda n \|k\|^2`, where ``n`` counts the pixels.

        Parameters
        ----------
        solver : {"auto", "minimum_norm", "gradient_descent", "fista"}, optional
            "auto" is direct, exact and mostly the fastest: Cholesky factorisation, an active set if
            ``nonnegative``, alternating least squares if ``separable``. "minimum_norm" is for a
            source that does not tell all taps apart: the shortest of the best kernels, by an
            eigendecomposition, with its ``rank``. "gradient_descent" is the plain iteration from
            zero, "fista" the accelerated one; both are projected where there are constraints.
        ridge : float, "gcv", ("smooth", float) or ("smooth", "gcv"), optional
            Penalty :math:`\lambda \ge 0`, in squared source units. 0 is plain least squares, which
            has no bias.
            "gcv" chooses it by generalised cross-validation of the fit without ``nonnegative``,
            ``unit_sum`` and ``separable``. "smooth" puts it on the second differences of the
            taps along rows and columns, zeros beyond the kernel, instead of on the taps.
        nonnegative : bool, optional
            Whether no tap may be below 0. By default they may, as those of sharpeners are.
        unit_sum : bool, optional
            Whether the taps must have the sum 1; by default brightness may change. Both together
            make the simplex.
        symmetric : str, optional
            What the kernel equals itself under; None asks for nothing. Turns: "even", half a turn,
            ``k[i, j] == k[p - 1 - i, q - 1 - j]``; "rotation", a quarter turn, and so any,
            ``k[i, j] == k[j, p - 1 - i]`` with ``p == q``. Mirrors: "left_right",
            ``k[i, j] == k[i, q - 1 - j]``; "up_down", ``k[i, j] == k[p - 1 - i, j]``; "mirror",
            both; "square", both and the diagonal ``k[i, j] == k[j, i]``, with ``p == q``.
        basis : (p * q, b) array_like of real numbers, optional
            Kernels of which the answer is a sum; None leaves every tap free. One a column, taps in
            C order, of any scale, such as `fastkernel.basis.gaussian_polynomials`.
            ``kernel.ravel() == basis @ c``, where ``numpy.linalg.lstsq(basis, kernel.ravel())``
            returns ``c``. All else is said of the taps: ridges, the shortest kernel, standard
            errors. It goes with ``unit_sum`` and every solver, but not with ``nonnegative``,
            ``symmetric`` and ``separable``. ``rank`` counts columns.
        separable : bool, optional
            Whether the kernel is a column times a row, as few are. The best is sought from several
            starts, each improved until the kernel changes by less than ``tol`` of its length; it
            may still be a local minimum.
        step : float, optional
            Of a descent, in inverse squared source units. None for the inverse of the Gram's
            largest eigenvalue, which is safe.
        num_iter : int, optional
            Most iterations; None for 5000, which ends those that hardly converge.
        tol : float, optional
            A descent ends where the gradient (with constraints, the gradient mapping) is this
            part of the moments, both as lengths. None for 1e-8, the root of rounding, or for 0
            where ``num_iter`` is given: then all of them are taken.
        callback : callable, optional
            Called as ``callback(done, total)`` with the iterations of solvers that take any; an
            exception stops the work.

        Returns
        -------
        KernelFit
            With ``residual_rms`` seen down to 3e-8 of the result's root mean square, ``ridge``
            the penalty that was used, and a ``history`` of "objective" (half the squared residual
            and half the penalty) and "residual_rms" where there are iterations; with the
            ``background`` that is best beside the kernel, where it was not eliminated before.

        Raises
        ------
        SingularFitError
            If there are fewer pixels than taps, or the source does not tell the taps apart. A
            penalty, constraints or "minimum_norm" may still determine a kernel. A descent takes
            any source but zeros: from zero it goes to the shortest of the best kernels, and an
            infinite ``condition_number`` and a ``rank`` below the number of taps say so.
        TypeError, ValueError
            If an argument is out of its range, two do not go together, ``step`` is larger than is
            stable, ``symmetric`` asks for a quarter turn or "square" of a kernel that is not
            square, or ``basis`` has not one row a tap, or columns that are sums of others.

        Notes
        -----
        Rounding reaches the taps at about ``condition_number * 1e-16`` of their size; with
        constraints it is that of the equations that they leave. Standard errors are known for
        "cholesky" alone, symmetric, of unit sum or of a basis included.

        Examples
        --------
        >>> import numpy as np
        >>> image = np.random.default_rng(0).standard_normal((40, 40))
        >>> from fastkernel import normal_equations
        >>> equations = normal_equations(image, (image[2:] + image[:-2]) / 2, (3, 1))
        >>> fit = equations.solve(nonnegative=True, unit_sum=True)
        >>> fit.kernel.ravel().round(6) + 0.0
        array([0.5, 0. , 0.5])
        """
        options = SolverOptions(
            solver=solver,
            ridge=ridge,
            nonnegative=nonnegative,
            unit_sum=unit_sum,
            symmetric=symmetric,
            basis=basis,
            separable=separable,
            step=step,
            num_iter=num_iter,
            tol=tol,
        )
        whole, beside = self.eliminate(), self.background
        system = whole.system
        found = solve(system, options, as_callback(callback))
        return fit_of(
            found,
            system.energy_left(found),
            self.n_pixels,
            method="lstsq",
            equations=whole,
            background=None if beside is None else background_of(beside, found.taps),
        )

    @property
    def system(self) -> System:
        """The arrays and numbers that solvers see, less the best background."""
        alone = self.eliminate()
        return System(
            gram=alone.gram,
            moments=alone.moments,
            energy=alone.energy,
            hidden_energy=alone.hidden_energy,
            n_pixels=alone.n_pixels,
            kernel_shape=alone.kernel_shape,
            background_terms=alone.background_terms,
            weight=alone.total_weight,
        )

    @property
    def hidden_energy(self) -> float:
        """Residual energy below which rounding of the sums hides it, in squared result units."""
        return 4 * _EPS * (self.energy + self.background_energy)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the equations to an .npz file, without pickle.

        Parameters
        ----------
        path : str or path-like
            The file; an existing one is replaced.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        write_archive(path, fields_of_background(fields.pop("background")) | fields)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read equations that `save` wrote.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        NormalEquations
            Equal to what was saved, bit for bit.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it does not hold normal equations.
        """
        return read_archive(path, "normal equations", lambda found: cls(**checked_fields(found)))


def centred_taps(kernel_shape: Shape, smaller: Shape) -> NDArray[np.intp]:
    """Return which taps of a kernel, in C order, make a smaller one around the centre tap."""
    (rows, cols), (p, q) = kernel_shape, smaller
    if p > rows or q > cols:
        msg = f"kernel_shape must fit inside {kernel_shape}, got {smaller}"
        raise ValueError(msg)
    top, left = (rows - 1) // 2 - (p - 1) // 2, (cols - 1) // 2 - (q - 1) // 2
    return np.arange(rows * cols).reshape(rows, cols)[top : top + p, left : left + q]
