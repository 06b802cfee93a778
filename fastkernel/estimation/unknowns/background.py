"""What stands beside a convolution: nothing, a level, or a polynomial."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastkernel._images.pairs import pair_of
from fastkernel._images.usable import Observed
from fastkernel._machine.run import Run
from fastkernel._typing import Boundary, Shape
from fastkernel.estimation.equations.background import BackgroundSums, terms_of
from fastkernel.estimation.equations.formed import Gathered, gathered
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.unknowns.clipping import without_clipped

# The degrees that are tried, None first, the highest last.
DEGREES: tuple[int | None, ...] = (None, 0, 1, 2)

# Share of the energy left that a background must explain: less is what clipping, compression and
# kernels that are cut short leave to it. More than chance, by Schwarz's criterion, it must anyway.
_LEAST_SHARE = 0.03


@dataclass(frozen=True, slots=True)
class BackgroundFound:
    """What stands beside a convolution.

    Attributes
    ----------
    degree : int or None
        Of the polynomial: 0 for a level, None for nothing.
    rms : tuple of float
        What is left with nothing, a level, a plane and a polynomial of degree 2, root mean square
        in result units.
    """

    degree: int | None
    rms: tuple[float, ...]

    @property
    def gain(self) -> float:
        """How many times as much is left without the background; 1 where there is none."""
        own = self.rms[DEGREES.index(self.degree)]
        if self.degree is None:
            return 1.0
        return self.rms[0] / own if own > 0 else math.inf


def find_background(
    images: Sequence[Observed], kernel_shape: Shape, boundary: Boundary | None, run: Run
) -> BackgroundFound:
    """Find what stands beside a convolution.

    Parameters
    ----------
    images : sequence of Observed
        Pairs with backgrounds of their own, whose shapes fit the kernel.
    kernel_shape : (int, int)
        Of the kernel.
    boundary : str or None
        What stands beyond the source's frame.
    run : Run
        How.

    Notes
    -----
    The pixels are read once: the sums with the polynomials of the highest degree hold those of
    all others. The smallest number of terms wins that none larger beats by Schwarz's criterion
    and by 3 % of the energy left.
    """
    parts = [without_clipped(pair) or pair for pair in images]
    pairs = [pair_of(part, kernel_shape, boundary) for part in parts]
    highest = min(2, *(min(pair.window.shape) - 1 for pair in pairs))
    sums = gathered(pairs, kernel_shape, highest, run.silent)
    lefts = [_left(sums, degree, kernel_shape) for degree in DEGREES[: highest + 2]]
    energies, hidden = np.array([left[0] for left in lefts]), lefts[0][1]
    chosen = 0
    for i in range(1, len(energies)):
        terms = len(pairs) * (_terms(DEGREES[i]) - _terms(DEGREES[chosen]))
        chance = math.log(sums.n_pixels) * terms / sums.n_pixels
        lost = energies[chosen] - energies[i]
        if lost > max(_LEAST_SHARE, chance) * energies[chosen] and lost > hidden:
            chosen = i
    rms = np.sqrt(energies / sums.total_weight)
    return BackgroundFound(DEGREES[chosen], tuple(float(value) for value in rms))


def _terms(degree: int | None) -> int:
    return 0 if degree is None else len(terms_of(degree)[0])


def _left(sums: Gathered, degree: int | None, kernel_shape: Shape) -> tuple[float, float]:
    """Return the energy left beside a background of some degree, and what rounding hides."""
    parts = [] if degree is None else [_lowered(part, degree) for part in sums.backgrounds]
    equations = sums._replace(backgrounds=parts).equations(kernel_shape)
    try:
        fit = equations.solve()
    except SingularFitError:
        # A level takes from a flat source all that it tells.
        return math.inf, equations.hidden_energy
    return fit.residual_rms**2 * equations.total_weight, equations.hidden_energy


def _lowered(sums: BackgroundSums, degree: int) -> BackgroundSums:
    """Return the sums of the polynomials up to a lower degree."""
    i, j = terms_of(sums.degree)
    kept = [n for n, (a, b) in enumerate(zip(i, j, strict=True)) if a + b <= degree]
    return BackgroundSums(
        degree, sums.products[:, kept], sums.gram[np.ix_(kept, kept)], sums.moments[kept]
    )
