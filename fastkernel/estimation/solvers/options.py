"""What may be asked of a solver, checked in one place."""

import math
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from fastkernel._images.checks import as_choice, as_count, as_flag, as_penalty
from fastkernel._typing import LstsqSolver, Ridge, Shape, Symmetry
from fastkernel.estimation.solvers.bases import orthonormal_basis

SOLVERS: tuple[LstsqSolver, ...] = get_args(LstsqSolver)
DESCENTS = ("gradient_descent", "fista")
SYMMETRIES: tuple[Symmetry, ...] = get_args(Symmetry)

# Of these a quarter turn or a diagonal mirror maps the kernel onto itself.
_OF_SQUARES = ("rotation", "square")
# Share of a kernel's length below which its sum is rounding.
_NO_SUM = 1e-8

_TOL = 1e-8
_NUM_ITER = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverOptions:
    """How to solve normal equations, and what the kernel must be.

    Attributes
    ----------
    solver : {"auto", "minimum_norm", "gradient_descent", "fista"}
        The direct solver that the constraints ask for, the least kernel among the best, or a
        descent.
    ridge : float, "gcv", ("smooth", float) or ("smooth", "gcv")
        Penalty on the squared taps, in squared source units; "gcv" chooses it; "smooth" puts it
        on second differences of the taps.
    nonnegative, unit_sum : bool
        Whether no tap is below 0, and whether 1 is their sum.
    symmetric : {"even", "rotation", "left_right", "up_down", "mirror", "square"} or None
        Turns and mirrors under which the kernel equals itself.
    basis : (p * q, b) float64 array or None
        Kernels of which it is a sum; any columns are taken, orthonormal ones kept.
    separable : bool
        Whether it is a column times a row.
    step : float or None
        Of a descent, in inverse squared source units; None for the largest safe one.
    num_iter : int or None
        Most iterations; None for 5000.
    tol : float or None
        Where iterations end; None for 1e-8, or for 0 where ``num_iter`` is given.

    Raises
    ------
    TypeError, ValueError
        If one is out of its range, or two do not go together; the message says what does.
    """

    solver: str = "auto"
    ridge: Ridge = 0.0
    nonnegative: bool = False
    unit_sum: bool = False
    symmetric: str | None = None
    basis: Any = None
    separable: bool = False
    step: float | None = None
    num_iter: int | None = None
    tol: float | None = None

    def __post_init__(self) -> None:
        as_choice(self.solver, "solver", SOLVERS)
        object.__setattr__(self, "ridge", as_ridge(self.ridge))
        for name in ("nonnegative", "unit_sum", "separable"):
            object.__setattr__(self, name, as_flag(getattr(self, name), name))
        if self.symmetric is not None:
            as_choice(self.symmetric, "symmetric", SYMMETRIES)
        if self.basis is not None:
            object.__setattr__(self, "basis", orthonormal_basis(self.basis))
        if self.step is not None:
            object.__setattr__(self, "step", as_step(self.step))
        if self.num_iter is not None:
            object.__setattr__(self, "num_iter", as_count(self.num_iter, "num_iter"))
        if self.tol is not None:
            object.__setattr__(self, "tol", as_penalty(self.tol, "tol"))
        self._refuse_combinations()

    def _refuse_combinations(self) -> None:
        self._refuse_beside_basis()
        if self.separable and (self.solver != "auto" or self.symmetric is not None):
            msg = (
                "separable=True has a solver of its own: it goes with solver='auto' and "
                "symmetric=None, and with nonnegative, unit_sum and ridge; got "
                f"solver={self.solver!r}, symmetric={self.symmetric!r}"
            )
            raise ValueError(msg)
        if self.solver == "minimum_norm" and (
            self.nonnegative or self.unit_sum or self.ridge != 0.0
        ):
            msg = (
                "solver='minimum_norm' goes with symmetric and basis alone: nonnegative, unit_sum "
                "and ridge choose among the best kernels themselves; use solver='auto' for them"
            )
            raise ValueError(msg)
        if self.step is not None and not self.descends:
            msg = (
                "step goes with solver='gradient_descent' and 'fista', "
                f"got solver={self.solver!r}, which takes none"
            )
            raise ValueError(msg)
        iterates = self.descends or self.separable
        if not iterates and (self.num_iter is not None or self.tol is not None):
            msg = (
                "num_iter and tol go with solver='gradient_descent' and 'fista' and with "
                f"separable=True, got solver={self.solver!r}, which does not iterate"
            )
            raise ValueError(msg)

    def _refuse_beside_basis(self) -> None:
        if self.basis is None:
            return
        others = [name for name in ("nonnegative", "symmetric", "separable") if getattr(self, name)]
        if others:
            msg = (
                f"basis goes with unit_sum, ridge and every solver, got {' and '.join(others)} "
                "beside it; leave one out (sums of symmetric columns are symmetric)"
            )
            raise ValueError(msg)
        sums = self.basis.sum(axis=0)
        if self.unit_sum and not np.abs(sums).max() > _NO_SUM:
            msg = (
                "unit_sum=True needs a basis some column of which has a sum other than 0; add one, "
                "such as a Gaussian"
            )
            raise ValueError(msg)

    def refuse_shape(self, kernel_shape: Shape) -> None:
        """Raise for a kernel that cannot be what is asked of it."""
        p, q = kernel_shape
        if self.symmetric in _OF_SQUARES and p != q:
            msg = (
                f"symmetric={self.symmetric!r} needs a square kernel, which a quarter turn maps "
                f"onto itself, got kernel_shape {kernel_shape}; use 'even' or 'mirror', or a "
                "square one"
            )
            raise ValueError(msg)
        if self.basis is not None and len(self.basis) != p * q:
            msg = (
                f"basis must have one row a tap, {p * q} of kernel_shape {kernel_shape} in C "
                f"order, got shape {self.basis.shape}"
            )
            raise ValueError(msg)

    @property
    def descends(self) -> bool:
        """Whether the solver is a descent."""
        return self.solver in DESCENTS

    @property
    def smooth(self) -> bool:
        """Whether the penalty is on second differences."""
        return isinstance(self.ridge, tuple)

    @property
    def penalty(self) -> float | None:
        """The penalty, in squared source units; None where it is yet to be chosen."""
        penalty = self.ridge[1] if isinstance(self.ridge, tuple) else self.ridge
        return None if isinstance(penalty, str) else penalty

    @property
    def iterations(self) -> int:
        """Most iterations to take."""
        return _NUM_ITER if self.num_iter is None else self.num_iter

    @property
    def tolerance(self) -> float:
        """Where to stop; 0 for nowhere."""
        if self.tol is not None:
            return self.tol
        return _TOL if self.num_iter is None else 0.0

    def reached(self, measure: float) -> bool:
        """Tell whether iterations that stopped have met their tolerance, or the usual one."""
        return measure <= (self.tolerance or _TOL)


def as_ridge(value: Any) -> Ridge:
    """Return ``value`` as a penalty, or as the way to choose one."""
    smooth = isinstance(value, tuple | list) and len(value) == 2 and value[0] == "smooth"
    penalty = value[1] if smooth else value
    if isinstance(penalty, str) and penalty == "gcv":
        return ("smooth", "gcv") if smooth else "gcv"
    if isinstance(penalty, str | tuple | list):
        msg = (
            f"ridge must be a number, 'gcv', ('smooth', number) or ('smooth', 'gcv'), got {value!r}"
        )
        raise TypeError(msg)
    if smooth:
        return "smooth", as_penalty(penalty, "the penalty of ridge=('smooth', penalty)")
    return as_penalty(penalty, "ridge")


def as_step(value: Any) -> float:
    """Return ``value`` as a finite number above 0."""
    step = as_penalty(value, "step")
    if not (step > 0 and math.isfinite(1 / step)):
        msg = f"step must be above 0, got {value!r}"
        raise ValueError(msg)
    return step
