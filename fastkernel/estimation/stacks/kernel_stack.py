"""The answer to a stack of fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastkernel._typing import BoolArray, FloatArray
from fastkernel.estimation.display.figures import text_and_figure
from fastkernel.estimation.display.stacks import plot_stack

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class KernelStack:
    """A kernel for every pair of a stack, and how far to believe it.

    Attributes
    ----------
    kernels : (n, p, q) float64 array
        Taps, in result units per source unit; NaN where a pair was refused.
    standard_errors : (n, p, q) float64 array
        Of the taps, as those of `KernelFit`; NaN where they are not known.
    residual_rms : (n,) float64 array
        Root mean square of result less prediction, in result units.
    condition_numbers : (n,) float64 array
        Of the normal equations, in the 1-norm.
    background : (n,) or (n, d + 1, d + 1) float64 array, or None
        As that of `KernelFit`, one a pair.
    n_pixels : int
        Result pixels of a pair that were fitted.
    reasons : tuple of str
        Why a pair was refused; empty where it was not.
    """

    kernels: FloatArray
    standard_errors: FloatArray
    residual_rms: FloatArray
    condition_numbers: FloatArray
    background: FloatArray | None
    n_pixels: int
    reasons: tuple[str, ...]

    @property
    def refused(self) -> BoolArray:
        """Which pairs have no kernel, (n,) bool."""
        return np.array([bool(reason) for reason in self.reasons])

    def __len__(self) -> int:
        return len(self.kernels)

    def __iter__(self) -> Iterator[FloatArray]:
        return iter(self.kernels)

    def plot(self, most: int = 64) -> Figure:
        """Draw a contact sheet of the kernels, on one scale.

        Parameters
        ----------
        most : int, optional
            How many to draw at the most, spread evenly over the stack.

        Returns
        -------
        matplotlib Figure
            The kernels by number; crosses stand for pairs that were refused.

        Raises
        ------
        ImportError
            If matplotlib is not installed (the extra "plot").
        """
        return plot_stack(self.kernels, most)

    def __repr__(self) -> str:
        n, p, q = self.kernels.shape
        lines = [f"KernelStack of {n} kernels {p}×{q}, {self.n_pixels} pixels each"]
        good = ~self.refused
        if good.any():
            rms, taps = np.median(self.residual_rms[good]), self.kernels[good].sum(axis=(1, 2))
            lines.append(f"residual: {rms:.4g} rms (median); taps sum to {np.median(taps):.6g}")
        if not good.all():
            count = int((~good).sum())
            first = int(np.flatnonzero(~good)[0])
            lines.append(f"refused: {count}, the first of them {first}: {self.reasons[first]}")
        return "\n  ".join(lines)

    def _repr_html_(self) -> str:
        return text_and_figure(repr(self), self.plot)
