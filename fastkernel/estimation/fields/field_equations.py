"""Equations of a field, and their solution."""

import math
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
from scipy import linalg

from fastkernel._machine import lapack
from fastkernel._typing import FloatArray, Ridge, Shape
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.fields.field_sums import FieldSums
from fastkernel.estimation.fields.frame import Frame
from fastkernel.estimation.fields.unknowns import Unknowns
from fastkernel.estimation.solvers.direct import Factor, factorise, refuse_too_few
from fastkernel.estimation.solvers.penalties import Penalty, gcv_weight

_EPS = float(np.finfo(np.float64).eps)


class Asked(NamedTuple):
    """What is asked of a field.

    Attributes
    ----------
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    frame : Frame
        The functions of which taps are sums.
    unknowns : Unknowns
        What is solved for.
    ridge : Ridge
        The penalty, or how to choose it.
    background : int or None
        Degree of the background.
    tile : int
        Side of the tiles, in pixels.
    """

    kernel_shape: Shape
    frame: Frame
    unknowns: Unknowns
    ridge: Ridge
    background: int | None
    tile: int


class Solved(NamedTuple):
    """A solution of the equations of tiles.

    Attributes
    ----------
    unknowns : (n,) float64 array
        See `Unknowns`.
    factor : Factor
        Of the equations, with the penalty.
    beside_pixels : (n, n) float64 array or None
        What of the matrix is no sum over pixels: the penalty, less the source's noise.
    energy : float
        Of the residual, in squared result units, as far as the functions are constant in tiles.
    hidden : float
        What rounding may hide of it.
    ridge : float
        The penalty, in squared source units.
    """

    unknowns: FloatArray
    factor: Factor
    beside_pixels: FloatArray | None
    energy: float
    hidden: float
    ridge: float


class _System(NamedTuple):
    """The equations of all unknowns, without a penalty, and what the noise adds to them."""

    gram: FloatArray
    moments: FloatArray
    energy: float
    noise: FloatArray | None


def solve(sums: FieldSums, asked: Asked) -> Solved:
    """Solve the equations of all coefficients and of the background."""
    unknowns = asked.unknowns
    gram, moments, energy, noise = system = _system(sums, asked)
    n, size = unknowns.of_taps, len(moments)
    beside = None if noise is None else -noise
    weight = 0.0
    if asked.ridge == 0.0:
        refuse_too_few(sums.n_pixels, size)
    else:
        penalty = _penalty(asked)
        weight = _weight(system, penalty, sums, asked)
        beside = np.zeros((size, size)) if beside is None else beside
        beside[:n, :n] += weight * penalty
    matrix = gram if beside is None else gram + beside
    try:
        factor = _factorised(matrix, n)
    except SingularFitError as reason:
        less = "a lower degree" if asked.frame.grid is None else "fewer cells in the grid"
        msg = f"{reason}, or {less}"
        raise SingularFitError(msg) from reason
    found = factor.solve(moments)
    left = lapack.residual_energy(gram, moments, energy, found)
    hidden = 4 * _EPS * energy
    ridge = weight / sums.total_weight
    return Solved(found, factor, beside, max(left, hidden), hidden, ridge)


def _factorised(matrix: FloatArray, n: int) -> Factor:
    """Factorise equations whose background, after the first ``n``, has units of its own."""
    if n == len(matrix):
        return factorise(matrix)
    diagonal = np.diag(matrix)
    sizes = np.ones(len(matrix))
    typical, beside = float(np.mean(diagonal[:n])), diagonal[n:]
    if typical > 0:
        sizes[n:] = np.sqrt(np.where(beside > 0, beside / typical, 1.0))
    factor = factorise(matrix / sizes / sizes[:, None])
    return Factor(np.asfortranarray(sizes[:, None] * factor.lower), factor.condition_number)


def _system(sums: FieldSums, asked: Asked) -> _System:
    """Return the equations of all unknowns from sums by shift."""
    frame, unknowns, taps = asked.frame, asked.unknowns, math.prod(asked.kernel_shape)
    terms, n, size = frame.terms, unknowns.of_taps, unknowns.of_taps + unknowns.beside
    # The functions sum to 1 with these: products with one of them, and with none, follow.
    unit, cross = frame.unit, np.zeros((terms, taps + unknowns.beside + 1, unknowns.beside + 1))
    pairs = list(combinations_with_replacement(range(terms), 2))
    for (j, k), mixed in zip(pairs, sums.mixed, strict=True):
        beside = mixed[:, taps:].copy()
        beside[taps:] = _whole(beside[taps:])
        cross[j] += unit[k] * beside
        if j != k:
            cross[k] += unit[j] * beside
    plain, cross = np.tensordot(unit, cross[:, taps:], 1), cross[:, taps - 1 :: -1]
    gram, moments = np.zeros((size, size)), np.zeros(size)
    # By tap, not by shift.
    blocks = ((j, k, mixed[:taps, :taps]) for (j, k), mixed in zip(pairs, sums.mixed, strict=True))
    unknowns.fill_form(blocks, gram[:n, :n])
    gram[n:, :n] = unknowns.seen(np.moveaxis(cross[:, :, :-1], -1, 0))
    gram[:n, n:] = gram[n:, :n].T
    gram[n:, n:] = plain[:-1, :-1]
    moments[:n] = unknowns.seen(cross[:, :, -1])
    moments[n:] = plain[:-1, -1]
    noise = None
    if sums.noise.any():
        noise = np.zeros((size, size))
        blocks = ((j, k, np.diag(of)) for (j, k), of in zip(pairs, sums.noise, strict=True))
        unknowns.fill_form(blocks, noise[:n, :n])
    return _System(gram, moments, float(plain[-1, -1]), noise)


def _whole(upper: FloatArray) -> FloatArray:
    """Return a symmetric matrix of which the diagonal and what is above it are given."""
    found: FloatArray = np.triu(upper)
    return found + np.triu(found, 1).T


def _penalty(asked: Asked) -> FloatArray:
    """Return the matrix of the penalty: the mean over the frame of that on the kernel there."""
    unit = Penalty(1.0, isinstance(asked.ridge, tuple))
    matrix = np.asarray(unit.matrix(asked.kernel_shape).todense())
    products = asked.frame.products()
    pairs = combinations_with_replacement(range(asked.frame.terms), 2)
    blocks = ((j, k, products[j, k] * matrix[::-1, ::-1]) for j, k in pairs)
    return asked.unknowns.fill_form(blocks, np.zeros((asked.unknowns.of_taps,) * 2))


def _weight(system: _System, penalty: FloatArray, sums: FieldSums, asked: Asked) -> float:
    """Return the weight of the penalty, times the sum of the weights of the pixels."""
    value = asked.ridge[1] if isinstance(asked.ridge, tuple) else asked.ridge
    if value != "gcv":
        return float(value) * sums.total_weight
    n, energy = len(penalty), system.energy
    gram = system.gram if system.noise is None else system.gram - system.noise
    taps, moments = gram[:n, :n], system.moments[:n]
    if len(gram) > n:
        # The background is not penalised: it is taken for granted.
        lower = np.linalg.cholesky(gram[n:, n:])
        white = linalg.solve_triangular(lower, gram[n:, :n], lower=True)
        answer = linalg.solve_triangular(lower, system.moments[n:], lower=True)
        taps, moments = taps - white.T @ white, moments - answer @ white
        energy -= float(answer @ answer)
    hidden = 4 * _EPS * system.energy
    n_pixels = sums.n_pixels - (len(gram) - n)
    return gcv_weight(taps, moments, energy, n_pixels, hidden, penalty)
