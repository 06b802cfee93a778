"""Least squares by weights where single rows are too many: some of them, corrected by all pixels.

The equations of a share of the rows are near those of all, in every direction alike. What they
leave is found by reading all pixels, at two multiply-adds a tap, and solved for again.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastkernel._images.pairs import Pair
from fastkernel._machine.run import Run
from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.equations.background import coefficients_of, terms_of
from fastkernel.estimation.equations.formed import Gathered
from fastkernel.estimation.equations.residual import Beside, Residual, residual_sums
from fastkernel.estimation.equations.transformed_sweeps import transforms_win
from fastkernel.estimation.equations.uneven import left_out_wins
from fastkernel.estimation.solvers.direct import Factor
from fastkernel.estimation.solvers.penalties import Penalty
from fastkernel.estimation.solvers.solution import Solution

# Rows that are taken a column, and how often all pixels are then read where there is noise: the
# more rows, the nearer their equations are to those of all. So many rows are taken at the least.
_READINGS = {400: 11, 800: 9, 1500: 8, 3000: 7}
_LEAST_ROWS = 60_000
_MAX_READINGS = 30

# What a reading's multiply-add takes over that of products of rows, which stay in the cache.
_READING_COST = 1.5

# Condition number of the equations up to which the rounding of transforms is not seen in taps.
_TRANSFORMED = 1e6

# Share of the taps' size below which a correction is the last: it leaves a twentieth of itself.
_CORRECTED = 1e-9


def share_of_rows(pairs: Sequence[Pair], kernel_shape: Shape, degree: int | None) -> float:
    """Return which share of single rows to take; 1 where all of them are the least work.

    All rows cost ``n**2 / 2`` multiply-adds each, with ``n = p*q + terms + 1``; some cost as much
    each, and readings of all pixels, of which the fewer are needed the more rows there are.
    """
    if all(pair.even for pair in pairs):
        return 1.0
    taps = math.prod(kernel_shape)
    size = taps + (0 if degree is None else len(terms_of(degree)[0])) + 1
    rows = sum(
        pair.window.n_pixels - pair.n_pixels if left_out_wins(pair) else pair.n_pixels
        for pair in pairs
        if not pair.even
    )
    reading = _READING_COST * 2 * taps * sum(pair.window.n_pixels for pair in pairs)
    costs = {rows: rows * size**2 / 2}
    for each, readings in _READINGS.items():
        wanted = max(each * size, _LEAST_ROWS)
        costs.setdefault(wanted, wanted * size**2 / 2 + readings * reading)
    least = min(costs, key=lambda count: costs[count])
    return min(least / rows, 1.0) if rows else 1.0


class _State(NamedTuple):
    """A kernel and its backgrounds in one vector, and where they should go."""

    taps: FloatArray
    coefficients: list[FloatArray]

    def plus(self, other: "_State", share: float = 1.0) -> "_State":
        return _State(
            self.taps + share * other.taps,
            [a + share * b for a, b in zip(self.coefficients, other.coefficients, strict=True)],
        )

    def dot(self, other: "_State") -> float:
        both = zip(self.coefficients, other.coefficients, strict=True)
        return float(np.vdot(self.taps, other.taps)) + sum(float(np.vdot(a, b)) for a, b in both)


def corrected(
    pairs: Sequence[Pair],
    sums: Gathered,
    solution: Solution,
    factor: Factor,
    *,
    smooth: bool,
    run: Run,
) -> tuple[Solution, float, list[FloatArray]] | None:
    """Correct what equations of some rows say, until all pixels agree.

    Parameters
    ----------
    pairs : sequence of Pair
        Of images in memory.
    sums : Gathered
        Over some rows.
    solution : Solution
        Of their equations,
    factor : Factor
        and what solves them.
    smooth : bool
        Whether the penalty is on second differences.
    run : Run
        How.

    Returns
    -------
    solution, energy, coefficients
        The kernel, the energy that it leaves, and the backgrounds'; None where the corrections
        did not become small.

    Notes
    -----
    The preconditioned conjugate gradients of [1]_, in the form that keeps all directions: the
    residual is computed from the pixels at every step, and rounding does not add up.

    References
    ----------
    .. [1] H. Avron, P. Maymounkov, S. Toledo, "Blendenpik: Supercharging LAPACK's least-squares
       solver", SIAM J. Sci. Comput. 32 (2010) 1217-1236, doi:10.1137/090767911.
    """
    shape = solution.taps.shape
    transforms = transforms_win(pairs, (shape[0], shape[1]))
    transforms &= solution.condition_number < _TRANSFORMED
    penalty = Penalty(solution.ridge * sums.total_weight, smooth)
    start = [coefficients_of(part, solution.taps) for part in sums.backgrounds]
    state = _State(solution.taps.ravel(), start)
    directions: list[tuple[_State, _State, float]] = []

    def look(state: _State) -> tuple[Residual, _State]:
        taps = state.taps.reshape(shape)
        beside = Beside.of(pairs, sums.backgrounds, state.coefficients) if start else None
        flipped = np.ascontiguousarray(taps[::-1, ::-1])
        found = residual_sums(pairs, flipped, beside, run.silent, transforms=transforms)
        uphill = found.moments[::-1] - penalty(taps).ravel()
        return found, _State(uphill, found.beside)

    found, gradient = look(state)
    for _ in range(_MAX_READINGS):
        step = _preconditioned(sums, factor, gradient)
        for before, image, energy in directions:
            step = step.plus(before, -step.dot(image) / energy)
        size = float(np.abs(state.taps).max())
        if float(np.abs(step.taps).max()) <= _CORRECTED * size:
            taps = np.ascontiguousarray((state.taps + step.taps).reshape(shape))
            return solution._replace(taps=taps), found.energy, state.plus(step).coefficients
        moved = state.plus(step)
        found, after = look(moved)
        image = gradient.plus(after, -1.0)
        energy = step.dot(image)
        if not energy > 0:
            return None
        share = step.dot(gradient) / energy
        state, gradient = state.plus(step, share), gradient.plus(image, -share)
        directions.append((step, image, energy))
    return None


def _preconditioned(sums: Gathered, factor: Factor, gradient: _State) -> _State:
    """Return the step that the equations of some rows make of a gradient."""
    moments = gradient.taps
    for part, beside in zip(sums.backgrounds, gradient.coefficients, strict=True):
        moments = moments - part.products @ part.solve(beside)
    taps = factor.solve(moments)
    coefficients = [
        part.solve(beside - taps @ part.products)
        for part, beside in zip(sums.backgrounds, gradient.coefficients, strict=True)
    ]
    return _State(taps, coefficients)
