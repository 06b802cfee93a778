"""What a weighted fit is worth, as dense algebra: every pixel has its row, written out."""

from typing import NamedTuple

import numpy as np
import weighted
from scipy.linalg import block_diag


class Rows(NamedTuple):
    """What every pixel of a window says: taps, background, result, weight."""

    x: np.ndarray
    phi: np.ndarray
    y: np.ndarray
    w: np.ndarray


def rows_of(source, result, shape, *, boundary=None, degree=None, weights=None, mask=None):
    """The rows of one pair; a weight of 0 for pixels that a mask leaves out."""
    mode = next(
        mode
        for mode in ("same", "valid", "full")
        if weighted.result_shape(source.shape, shape, mode) == result.shape
    )
    w = np.ones(result.shape) if weights is None else np.array(weights, float)
    if mask is not None:
        w[mask] = 0
    y, w = (weighted.used_part(part, shape, mode, boundary) for part in (result, w))
    phi = np.zeros((y.size, 0)) if degree is None else weighted.powers(y.shape, degree)
    x = weighted.rows_of(source, shape, mode, boundary)
    return Rows(x, phi, np.asarray(y, float).ravel(), w.ravel())


def joined(parts):
    """The rows of several pairs, each with a background of its own."""
    x, y, w = (np.concatenate([getattr(part, name) for part in parts]) for name in "xyw")
    return Rows(x, block_diag(*[part.phi for part in parts]), y, w)


class Fit(NamedTuple):
    """Taps, what they leave, the inverse matrix of the taps, and how many pixels judge them.

    ``pull`` is how the taps follow the results, one row a tap, but for the weights.
    """

    taps: np.ndarray
    residual: np.ndarray
    inverse: np.ndarray
    left: int
    pull: np.ndarray

    def variance(self, w):
        return w @ self.residual**2 / self.left


def fit(rows, columns=None, start=None, penalty=None):
    """The taps ``start + columns @ c`` that are best beside the background.

    ``penalty`` is a matrix of the taps.
    """
    taps = rows.x.shape[1]
    columns = np.eye(taps) if columns is None else columns
    start = np.zeros(taps) if start is None else start
    both, n = np.hstack([rows.x @ columns, rows.phi]), columns.shape[1]
    inner = both.T @ (rows.w[:, None] * both)
    if penalty is not None:
        inner[:n, :n] += columns.T @ penalty @ columns
    inverse = np.linalg.inv(inner)
    found = np.linalg.solve(inner, both.T @ (rows.w * (rows.y - rows.x @ start)))
    kernel = start + columns @ found[:n]
    return Fit(
        kernel,
        rows.y - rows.x @ kernel - rows.phi @ found[n:],
        columns @ inverse[:n, :n] @ columns.T,
        int((rows.w > 0).sum()) - both.shape[1],
        columns @ inverse[:n] @ both.T,
    )


def sandwich(rows, found):
    """The covariance of White, with the factor n / (n - unknowns) of HC1."""
    scores = found.pull * (rows.w * found.residual)
    return scores @ scores.T * ((rows.w > 0).sum() / found.left)


def second_differences(shape):
    """The matrix of the squared second differences along rows and columns, zeros beyond."""
    p, q = shape
    units = np.zeros((p * q, p + 4, q + 4))
    units[:, 2:-2, 2:-2] = np.eye(p * q).reshape(-1, p, q)
    lines = [np.diff(units, 2, axis).reshape(p * q, -1) for axis in (1, 2)]
    return sum(line @ line.T for line in lines)
