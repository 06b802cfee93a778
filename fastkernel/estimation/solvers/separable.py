"""Kernels that are a column times a row, from the equations of all of their taps."""

import math
from collections.abc import Callable

import numpy as np
from scipy import linalg

from fastkernel._typing import FloatArray, Progress, Shape
from fastkernel.estimation.solvers.constraints import minimise
from fastkernel.estimation.solvers.options import SolverOptions
from fastkernel.estimation.solvers.solution import Iterated

# Singular vectors to start from, as long as their singular values are not this much smaller than
# the first: the nearest product of an unconstrained kernel need not lead to the best one.
_STARTS = 3
_SHARE = 0.05


def alternate(
    gram: FloatArray,
    moments: FloatArray,
    kernel_shape: Shape,
    start: FloatArray,
    options: SolverOptions,
    measure: Callable[[FloatArray], tuple[float, float]],
    progress: Progress | None = None,
) -> Iterated:
    r"""Find the best column times row by alternating least squares.

    Parameters
    ----------
    gram : (p * q, p * q) float64 array
        Of all taps, with the penalty, in squared source units.
    moments : (p * q,) float64 array
        In source times result units.
    kernel_shape : (int, int)
        ``(p, q)``.
    start : (p, q) float64 array
        An unconstrained kernel, whose leading singular vectors are the starts.
    options : SolverOptions
        ``nonnegative`` and ``unit_sum`` hold for column and row alike; ``iterations`` and
        ``tolerance`` are those of the relative change of the kernel.
    measure : callable
        Objective and residual as functions of (p * q,) taps.
    progress : callable, optional
        Called as ``progress(done, total)`` after every iteration.

    Returns
    -------
    Iterated
        The best of the starts' ends. Each is a minimum in column and row apart; that none is
        better is not proved.

    Raises
    ------
    SingularFitError
        If the source does not determine the column given a row, or the row given a column.

    Notes
    -----
    For a row ``v`` the column solves the equations of the Gram ``(I ⊗ v)ᵀ H (I ⊗ v)`` exactly,
    and in turn. Cost of an iteration: ``4 * (p * q)**2`` multiply-adds.
    """
    vectors = linalg.svd(start, full_matrices=False)
    strong = vectors[1] >= _SHARE * vectors[1][0]
    rows = vectors[2][:_STARTS][strong[:_STARTS]]
    columns = vectors[0].T[: len(rows)]
    total = len(rows) * options.iterations
    tensor, matrix = gram.reshape(*kernel_shape, *kernel_shape), moments.reshape(kernel_shape)
    ends: list[Iterated] = []
    for column, row in zip(columns, rows, strict=True):

        def report(done: int, before: int = len(ends) * options.iterations) -> None:
            if progress is not None:
                progress(before + done, total)

        ends.append(_from(tensor, matrix, column, row, options, measure, report))
    if progress is not None:
        progress(total, total)
    return min(ends, key=lambda end: end.history["objective"][-1])


def _from(
    tensor: FloatArray,
    moments: FloatArray,
    column: FloatArray,
    row: FloatArray,
    options: SolverOptions,
    measure: Callable[[FloatArray], tuple[float, float]],
    report: Callable[[int], None],
) -> Iterated:
    """Alternate from one column and row."""
    column, row = _allowed(column, options), _allowed(row, options)
    kernel = np.multiply.outer(column, row)
    history, change = [measure(kernel.ravel())], math.inf
    for iteration in range(options.iterations):
        before = kernel
        half = tensor @ row
        column = _best(np.einsum("ijk,j->ik", half, row), moments @ row, options)
        if column.any():
            column = _scaled(column, options)
            half = np.tensordot(column, tensor, 1)
            row = _best(np.einsum("jkl,k->jl", half, column), column @ moments, options)
        kernel = np.multiply.outer(column, row)
        history.append(measure(kernel.ravel()))
        report(iteration + 1)
        if not kernel.any():
            change = 0.0
            break
        change = float(linalg.norm(kernel - before) / linalg.norm(kernel))
        if change <= options.tolerance:
            break
        row = _scaled(row, options)
    names = "objective", "residual_rms"
    lines = dict(zip(names, np.array(history).T.copy(), strict=True))
    return Iterated(kernel, len(history) - 1, options.reached(change), lines)


def _best(matrix: FloatArray, moments: FloatArray, options: SolverOptions) -> FloatArray:
    """Return the best line, the other one given."""
    normal = np.ones(len(moments)) if options.unit_sum else None
    return minimise(matrix, moments, nonnegative=options.nonnegative, normal=normal).taps


def _scaled(line: FloatArray, options: SolverOptions) -> FloatArray:
    """Return a line of length 1, unless its sum is to be 1: the other one holds the scale."""
    return line if options.unit_sum else np.asarray(line / linalg.norm(line))


def _allowed(line: FloatArray, options: SolverOptions) -> FloatArray:
    """Return a line that keeps the constraints, near one that need not."""
    if options.nonnegative:
        line = np.abs(line)
    if not options.unit_sum:
        return line
    total = float(line.sum())
    # A sum near 0 would be scaled to a sum of huge terms.
    return line / total if abs(total) > 0.1 else line + (1 - total) / len(line)
