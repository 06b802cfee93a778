"""Kernels that vary over the image as plain as can be: dense rows, every function of position."""

import naive
import numpy as np
import weighted
from numpy.polynomial.legendre import Legendre


def polynomials(shape, degree):
    """Products of Legendre polynomials over an image, (terms, rows, cols)."""
    rows, cols = (np.linspace(-1, 1, n) for n in shape)
    unit = [Legendre.basis(i) for i in range(degree + 1)]
    pairs = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    return np.array([np.outer(unit[i](rows), unit[j](cols)) for i, j in pairs])


def hats(shape, grid):
    """One in the middle of a cell, linear to the middles of its neighbours, (cells, rows, cols)."""
    lines = []
    for n, cells in zip(shape, grid, strict=True):
        middles = (np.arange(cells) + 0.5) * n / cells - 0.5
        lines.append([np.interp(np.arange(n), middles, unit) for unit in np.eye(cells)])
    return np.array([np.outer(row, col) for row in lines[0] for col in lines[1]])


def functions(shape, degree=2, grid=None):
    """The functions of position over an image."""
    return polynomials(shape, degree) if grid is None else hats(shape, grid)


def convolve(source, phi, coefficients, mode="valid", boundary="zero"):
    """Each function times the convolution with its taps."""
    made = [naive.convolve(source, taps, mode, boundary) for taps in coefficients]
    return sum(f * y for f, y in zip(phi, made, strict=True))


def rows_of(source, phi, kernel_shape, mode="valid", boundary=None):
    """The design matrix: a block of columns a function, in each a column a tap."""
    plain = weighted.rows_of(source, kernel_shape, mode, boundary)
    return np.hstack([f.reshape(-1, 1) * plain for f in phi])


def constant_sum(terms, taps):
    """Columns that span coefficients whose taps sum to 0 for all functions but the first."""
    still = np.linalg.svd(np.ones((1, taps)))[2][1:].T
    blocks = [np.eye(taps)] + [still] * (terms - 1)
    out = np.zeros((terms * taps, sum(block.shape[1] for block in blocks)))
    col = 0
    for j, block in enumerate(blocks):
        out[j * taps : (j + 1) * taps, col : col + block.shape[1]] = block
        col += block.shape[1]
    return out


def frozen(phi, tiles, places, at):
    """The functions with the value all over a tile that they have where it stands."""
    out = np.array(phi)
    for (top, left, height, width), place in zip(tiles, places, strict=True):
        inside = slice(top, top + height), slice(left, left + width)
        out[(slice(None), *inside)] = at(*place)[:, None, None]
    return out
