"""What the equations of a field are solved for: coefficients of taps, of their sum, of the sky."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from fastkernel._loops.reflections import reflect
from fastkernel._machine.lapack import narrow_product
from fastkernel._typing import FloatArray
from fastkernel.estimation.fields.frame import Frame

# Columns whose sums are below this share of their lengths have none.
_NO_SUM = 1e-12


class Unknowns(NamedTuple):
    """The numbers that are solved for, as coordinates of the taps of every function of position.

    The taps of every function are a sum of orthonormal columns, of which the first alone has a
    sum: those of the others are unknown for every function, that of the first is restricted to
    what the scale may be. The coefficients of the background come last.

    Attributes
    ----------
    turn : (p * q, b) float64 array
        The columns, by tap.
    scales : (s, terms) float64 array
        Rows of coefficients that span the scales to choose from.
    beside : int
        Coefficients of the background.
    """

    turn: FloatArray
    scales: FloatArray
    beside: int

    @classmethod
    def of(
        cls, taps: int, basis: FloatArray | None, frame: Frame, scale_degree: int, beside: int
    ) -> "Unknowns":
        """Return the unknowns of kernels of so many taps, or of an orthonormal basis."""
        whole = np.eye(taps) if basis is None else basis
        sums = whole.sum(axis=0)
        if not np.abs(sums).max() > _NO_SUM:
            still = np.column_stack([np.zeros(taps), whole])
            return cls(still, np.zeros((0, frame.terms)), beside)
        # What is orthogonal to the sums of the columns has none: a reflection makes the first axis
        # theirs.
        mirror = sums / np.linalg.norm(sums)
        mirror[0] += math.copysign(1.0, mirror[0])
        mirror /= np.linalg.norm(mirror)
        along = mirror if basis is None else basis @ mirror
        return cls(whole - 2 * np.outer(along, mirror), frame.polynomials(scale_degree), beside)

    @property
    def of_taps(self) -> int:
        """How many of them belong to the taps."""
        scales, terms = self.scales.shape
        return int(terms * (self.turn.shape[1] - 1) + scales)

    @property
    def _mirror(self) -> FloatArray | None:
        """The unit vector along which ``turn`` reflects, None if it is no reflection."""
        if self.turn.shape[0] != self.turn.shape[1]:
            return None
        across = np.eye(len(self.turn))[0] - self.turn[:, 0]
        length = math.sqrt(across @ across)
        if not length > 0:
            return None
        across /= length
        mirrored = np.eye(len(self.turn)) - 2 * np.outer(across, across)
        return across if np.abs(mirrored - self.turn).max() <= _NO_SUM else None

    def values(self, unknowns: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the taps of every function, (terms, p * q), and the background's coefficients."""
        (scales, terms), n = self.scales.shape, self.of_taps
        still = unknowns[: n - scales].reshape(terms, self.turn.shape[1] - 1)
        turned = np.column_stack([unknowns[n - scales : n] @ self.scales, still])
        return narrow_product(turned, self.turn.T), unknowns[n:]

    def seen(self, taps: FloatArray) -> FloatArray:
        """Return the transpose of `values` at (..., terms, p * q) taps, (..., of_taps)."""
        # One product of matrices, not one for every kernel.
        turned = narrow_product(taps.reshape(-1, taps.shape[-1]), self.turn)
        turned = turned.reshape(*taps.shape[:-1], self.turn.shape[1])
        n = self.of_taps - len(self.scales)
        still = turned[..., 1:].reshape(*taps.shape[:-2], n)
        return np.concatenate([still, turned[..., 0] @ self.scales.T], axis=-1)

    def fill_form(
        self, blocks: Iterable[tuple[int, int, FloatArray]], found: FloatArray
    ) -> FloatArray:
        """Write a symmetric form of taps as one of unknowns into zeros, and return these.

        Parameters
        ----------
        blocks : iterable of (int, int, (p * q, p * q) float64 array)
            For every pair of functions once, the second no earlier: which they are, and the form of
            their taps by shift, symmetric; only the diagonal and what is above it is read.
        found : (of_taps, of_taps) float64 array
        """
        (scales, _), b = self.scales.shape, self.turn.shape[1] - 1
        scale = slice(self.of_taps - scales, None)
        mirror, along, room = self._mirror, np.empty(b + 1), np.empty((b + 1, b + 1))
        by_shift = None if mirror is None else mirror[::-1].copy()
        for j, k, block in blocks:
            upper = np.ascontiguousarray(block)
            if by_shift is None:
                whole = np.triu(upper) + np.triu(upper, 1).T
                turned = self.turn.T @ whole[::-1, ::-1] @ self.turn
                turned = (turned + turned.T) / 2
            else:
                # A reflection takes a product with a vector in place of two with a matrix.
                reflect(upper, by_shift, along, room)
                turned = room[::-1, ::-1]
            one, other = (slice(b * number, b * (number + 1)) for number in (j, k))
            both = np.outer(self.scales[:, j], self.scales[:, k])
            found[one, other] = turned[1:, 1:]
            found[scale, other] += np.outer(self.scales[:, j], turned[0, 1:])
            if j != k:
                both = both + both.T
                found[other, one] = turned[1:, 1:]
                found[scale, one] += np.outer(self.scales[:, k], turned[0, 1:])
            found[scale, scale] += turned[0, 0] * both
        found[: scale.start, scale] = found[scale, : scale.start].T
        return found

    def at(self, values: FloatArray) -> FloatArray:
        """Return the taps at a place as columns of a matrix, by the functions there."""
        still = self.turn[:, None, 1:] * values[:, None]
        scale = self.turn[:, :1] * (self.scales @ values)
        return np.concatenate(
            [still.reshape(len(self.turn), self.of_taps - len(self.scales)), scale], axis=1
        )
