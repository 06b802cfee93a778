"""Weighted least squares as plain as can be: dense rows, and which of them a mask leaves out."""

import naive
import numpy as np


def rows_of(image, kernel_shape, mode="valid", boundary=None):
    """The design matrix of a pair; of "same" without a border rule that of the inside."""
    bare = mode == "valid" or (mode == "same" and boundary is None)
    image = np.asarray(image, float)
    larger = image if bare else naive.extended(image, kernel_shape, mode, boundary or "zero")
    return naive.design_matrix(larger, kernel_shape)


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
