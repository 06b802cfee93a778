"""Kernels and their error bars as columns of text."""

import math
from collections.abc import Iterable

import numpy as np

from fastkernel._typing import FloatArray

# Digits after the first one of the largest tap. Files hold the full precision.
_FEWEST_DIGITS, _MOST_DIGITS = 2, 6


def kernel_table(
    kernel: FloatArray, errors: FloatArray, columns: int, sign: str = "±"
) -> list[str]:
    """Lay out a kernel in as much detail as fits.

    Parameters
    ----------
    kernel, errors : (p, q) float64 arrays
        Taps and their standard errors, NaN where these are not known.
    columns : int
        Characters that fit on a line.
    sign : str, optional
        Stands before an error bar.

    Returns
    -------
    list of str
        A heading, and below it each tap above its error bar; or the taps alone; or the taps on a
        scale from 0 to 9; or, where not even that fits, the largest tap.
    """
    largest = np.abs(kernel).max()
    exponent = 0 if largest == 0 or 1e-3 <= largest < 1e4 else math.floor(math.log10(largest))
    unit = f" in units of 1e{exponent:+03d}" if exponent else ""
    taps, bars = kernel / 10.0**exponent, errors / 10.0**exponent
    fewest, digits = _decimals(taps, bars)

    spread = "standard errors not known"
    if not np.isnan(errors).any():
        values = [[f"{tap:z.{digits}f}" for tap in row] for row in taps]
        errs = [[f"{sign}{bar:.{digits}f}" for bar in row] for row in bars]
        table = align(line for pair in zip(values, errs, strict=True) for line in pair)
        if len(table[0]) <= columns:
            return [f"taps{unit}, each above its standard error", *table]
        spread = f"standard errors {sign}{errors.min():.2g} to {sign}{errors.max():.2g}"

    for fewer in range(digits, fewest - 1, -1):
        table = align([f"{tap:z.{fewer}f}" for tap in row] for row in taps)
        if len(table[0]) <= columns:
            return [f"taps{unit}, {spread}", *table]

    row, col = np.unravel_index(np.abs(kernel).argmax(), kernel.shape)
    peak = f"{kernel[row, col]:.4g} at [{row}, {col}]"
    ninths = np.rint(9 * kernel / (largest or 1)).astype(int)
    table = align(([f"{tap or '.'}" for tap in row] for row in ninths), gap=1)
    if len(table[0]) <= columns:
        return [f"taps in ninths of the largest, {peak}; {spread}", *table]
    return [f"too wide to show; the largest tap is {peak}; {spread}"]


def align(rows: Iterable[list[str]], gap: int = 2) -> list[str]:
    """Join cells to lines, all as wide as the widest cell."""
    rows = list(rows)
    width = gap + max(len(cell) for row in rows for cell in row)
    return ["".join(cell.rjust(width) for cell in row) for row in rows]


def _decimals(taps: FloatArray, bars: FloatArray) -> tuple[int, int]:
    """Return the fewest decimals worth showing, and those that show two digits of the errors."""
    largest, error = np.abs(taps).max(), bars.max()
    first = math.floor(math.log10(largest)) if largest > 0 else 0
    fewest, most = (max(0, digits - first) for digits in (_FEWEST_DIGITS, _MOST_DIGITS))
    wanted = 1 - math.floor(math.log10(error)) if 0 < error < math.inf else most
    return fewest, min(max(wanted, fewest), most)
