"""Weighted least squares as plain as can be: dense rows, and which of them a mask leaves out."""

import naive
import numpy as np
from numpy.testing import assert_allclose

from fastkernel._images.pairs import as_pairs, pair_of
from fastkernel._images.usable import PixelRules

MODES = [("valid", None), ("full", None), ("same", None), *(("same", b) for b in naive.PAD_MODES)]
UNEVEN = ["few masked", "most masked", "weights", "all of it"]
SIZE = (15, 18)


def rows_of(image, kernel_shape, mode="valid", boundary=None):
    """The design matrix of a pair; of "same" without a border rule that of the inside."""
    bare = mode == "valid" or (mode == "same" and boundary is None)
    image = np.asarray(image, float)
    larger = image if bare else naive.extended(image, kernel_shape, mode, boundary or "zero")
    windows = np.lib.stride_tricks.sliding_window_view(larger, kernel_shape)
    return windows[:, :, ::-1, ::-1].reshape(-1, kernel_shape[0] * kernel_shape[1])


def used_part(result, kernel_shape, mode="valid", boundary=None):
    """The pixels of a result that belong to the rows of `rows_of`."""
    return naive.inside(result, kernel_shape) if (mode, boundary) == ("same", None) else result


def reached(bad, kernel_shape, mode="valid", boundary=None):
    """One flag a row: whether a tap meets a bad pixel, repeated ones included."""
    return rows_of(bad, kernel_shape, mode, boundary).any(axis=1)


def result_shape(image_shape, kernel_shape, mode):
    (m, n), (p, q) = image_shape, kernel_shape
    return {"same": (m, n), "valid": (m - p + 1, n - q + 1), "full": (m + p - 1, n + q - 1)}[mode]


def powers(shape, degree):
    """Columns of the monomials up to a total degree over a window, row by row."""
    r, c = (np.linspace(-1, 1, n) for n in shape)
    terms = [(i, d - i) for d in range(degree + 1) for i in range(d + 1)]
    return np.array([np.outer(r**i, c**j).ravel() for i, j in terms]).T


def with_backgrounds(rows, shapes, degree):
    """Stacked rows of several pairs, beside columns of a background for each."""
    if degree is None:
        return np.vstack(rows)
    columns = [powers(shape, degree) for shape in shapes]
    terms = columns[0].shape[1]
    out = np.zeros((sum(map(len, rows)), rows[0].shape[1] + terms * len(rows)))
    start = 0
    for number, (part, own) in enumerate(zip(rows, columns, strict=True)):
        stop, first = start + len(part), part.shape[1] + number * terms
        out[start:stop, : part.shape[1]] = part
        out[start:stop, first : first + terms] = own
        start = stop
    return out


def least_squares(rows, result, weights):
    """Taps, then what stands beside them, by a solver that never squares the condition number."""
    root = np.sqrt(np.asarray(weights, float).ravel())
    good = root > 0  # what stands in the others may be NaN
    scale = np.abs(rows[good]).max(axis=0)
    x, y = rows[good] / scale, np.asarray(result, float).ravel()[good]
    return np.linalg.lstsq(root[good, None] * x, root[good] * y, rcond=None)[0] / scale


def fit(image, result, kernel_shape, weights, *, mode="valid", boundary=None, degree=None):
    """The kernel of one pair; ``weights`` of the result's shape, 0 for what is left out."""
    rows = rows_of(image, kernel_shape, mode, boundary)
    y = used_part(np.asarray(result, float), kernel_shape, mode, boundary)
    w = used_part(np.asarray(weights, float), kernel_shape, mode, boundary)
    columns = with_backgrounds([rows], [y.shape], degree)
    found = least_squares(columns, y, w)
    return found[: rows.shape[1]].reshape(kernel_shape)


def close(got, want, tolerance=1e-9):
    assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())


def noisy_pair(rng, shape, mode="valid", boundary=None, size=SIZE):
    image = rng.random(size) * 3 + 1
    kernel = rng.standard_normal(shape)
    result = naive.convolve(image, kernel, mode, boundary or "zero")
    return image, result + 0.3 * rng.standard_normal(result.shape)


def rules_of(kind, rng, shape, source_shape):
    """Arguments, and whether each result pixel is good or what it weighs, but for source masks."""
    if kind == "few masked":
        mask = rng.random(shape) < 0.08
        return {"mask": mask}, ~mask * 1.0
    if kind == "most masked":
        mask = rng.random(shape) < 0.6
        return {"mask": mask}, ~mask * 1.0
    weights = 10 ** rng.uniform(-2, 2, shape)
    if kind == "weights":
        return {"weights": weights}, weights
    mask, source_mask = rng.random(shape) < 0.1, rng.random(source_shape) < 0.01
    weights[rng.random(shape) < 0.1] = 0
    rules = {"mask": mask, "weights": weights, "source_mask": source_mask}
    return rules, weights * ~mask


def without_reached(weights, source_mask, kernel_shape, mode, boundary):
    """Weights, 0 where the kernel reaches a bad pixel of the source."""
    out = weights.copy()
    part = used_part(out, kernel_shape, mode, boundary)
    part *= ~reached(source_mask, kernel_shape, mode, boundary).reshape(part.shape)
    return out


def constrained(x, y, matrix, values, penalty=0.0):
    """Least squares with ``matrix @ k == values`` by the equations of Lagrange."""
    n, m = x.shape[1], len(matrix)
    system = np.block([[x.T @ x + penalty, matrix.T], [matrix, np.zeros((m, m))]])
    return np.linalg.solve(system, np.concatenate([x.T @ y, values]))[:n]


def second_differences(shape):
    """One row a second difference of taps along rows and columns, zeros beyond the kernel."""
    rows = []
    for axis, length in enumerate(shape):
        for start in range(-2, length):
            for line in range(shape[1 - axis]):
                row = np.zeros(shape)
                for place, factor in zip(range(start, start + 3), (1, -2, 1), strict=True):
                    if 0 <= place < length:
                        row[(place, line) if axis == 0 else (line, place)] = factor
                rows.append(row.ravel())
    return np.array(rows)


def pair_with(source, result, kernel_shape, boundary=None, **rules):
    """A pair as fits read it, and what is said of its pixels."""
    (images,) = as_pairs(source, result, None, PixelRules(**rules))
    return pair_of(images, kernel_shape, boundary)
