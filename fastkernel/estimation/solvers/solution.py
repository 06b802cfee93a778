"""What solvers take and give: normal equations as arrays, and taps with what is to say of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from fastkernel._machine import lapack
from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.solvers.direct import Factor


class System(NamedTuple):
    """Normal equations as solvers see them: arrays and numbers.

    Attributes
    ----------
    gram : (p * q, p * q) float64 array
        In squared source units.
    moments : (p * q,) float64 array
        In source times result units.
    energy, hidden_energy : float
        Of the result, and what rounding hides of it, in squared result units.
    n_pixels : int
        Of the result.
    kernel_shape : (int, int)
        ``(p, q)``.
    background_terms : int
        Coefficients that were fitted beside the kernel.
    weight : float
        Sum of the weights of the pixels; NaN for their number.
    """

    gram: FloatArray
    moments: FloatArray
    energy: float
    hidden_energy: float
    n_pixels: int
    kernel_shape: Shape
    background_terms: int = 0
    weight: float = math.nan

    @property
    def total_weight(self) -> float:
        """Sum of the weights of the pixels."""
        return float(self.n_pixels) if math.isnan(self.weight) else self.weight

    def residual_energy(self, taps: FloatArray) -> float:
        """Return the squared residual of some taps, no less than rounding hides."""
        left = lapack.residual_energy(self.gram, self.moments, self.energy, taps.ravel())
        return max(left, self.hidden_energy)

    def energy_left(self, found: Solution) -> float:
        """Return the same of the taps that were found, which their solver may know."""
        if math.isnan(found.energy):
            return self.residual_energy(found.taps)
        return max(found.energy, self.hidden_energy)


class Solution(NamedTuple):
    """Taps, and what a solver has to say of them.

    Attributes
    ----------
    taps : (p, q) float64 array
        The kernel, in result units per source unit.
    solver : str
        Which found it.
    rank : int
        How many taps the images determine.
    condition_number : float
        Of what was solved; NaN where the solver knows none.
    factor : Factor or None
        What tells standard errors, and solves for corrections.
    num_iter, converged, history
        As in `KernelFit`.
    ridge : float
        The penalty that was used, in squared source units.
    energy : float
        Of the residual, by the equations that were solved; NaN where the solver knows none.
    """

    taps: FloatArray
    solver: str
    rank: int
    condition_number: float = math.nan
    factor: Factor | None = None
    num_iter: int = 0
    converged: bool = True
    history: Mapping[str, FloatArray] | None = None
    ridge: float = 0.0
    energy: float = math.nan


class Iterated(NamedTuple):
    """What iterations found, and how.

    Attributes
    ----------
    taps : (p, q) float64 array
        Where they ended.
    num_iter : int
        How many were taken.
    converged : bool
        Whether they met their tolerance.
    history : dict
        "objective" and "residual_rms", one number each at the start and after every iteration.
    """

    taps: FloatArray
    num_iter: int
    converged: bool
    history: dict[str, FloatArray]

    def solution(self, solver: str, condition_number: float, rank: int) -> Solution:
        """Return the taps as a solution, with what the solver knows of the system."""
        return Solution(
            taps=self.taps,
            solver=solver,
            condition_number=condition_number,
            rank=rank,
            num_iter=self.num_iter,
            converged=self.converged,
            history=self.history,
        )
