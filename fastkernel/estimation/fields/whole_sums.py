r"""What all pixels of a pair say of a kernel whose taps are polynomials of position, exactly.

With :math:`\phi_j` the polynomials, the equations are

.. math:: H_{jl}(a, b) = \sum_t \phi_j(t)\, \phi_l(t)\, x_{t+a}\, x_{t+b},

mixtures of `shift_products`. No tile is taken to have one kernel, so there is no bias to correct.
"""

import math
from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial, legendre, polynomial

from fastkernel._images.pairs import Pair, refuse_unusable
from fastkernel._machine.run import Run
from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.equations.background import terms_of
from fastkernel.estimation.equations.polynomial_sums import background_sums
from fastkernel.estimation.fields.field_sums import FieldSums
from fastkernel.estimation.fields.frame import Frame
from fastkernel.estimation.fields.shift_products import Function, Powers, ShiftProducts
from fastkernel.estimation.fields.weighted_lags import Scale, weighted_lags
from fastkernel.estimation.polynomial import scaled


def sums_are_whole(pair: Pair, kernel_shape: Shape, frame: Frame, background: int | None) -> bool:
    """Tell whether `whole_sums` is the way: for polynomials, of all pixels alike.

    What is constant is so in tiles, whose sums of whole numbers are exact. Where a kernel reaches
    far beyond the whole window, powers of places there would cancel digits.
    """
    polynomials = frame.grid is None and frame.degree > 0
    alike = pair.even and pair.source_variance is None
    least = frame.degree + (background or 0)
    wide = all(n >= max(k, least + 1) for n, k in zip(pair.within.shape, kernel_shape, strict=True))
    return polynomials and alike and wide


def whole_sums(
    pair: Pair,
    kernel_shape: Shape,
    frame: Frame,
    degree: int | None,
    run: Run,
    first: Shape | None = None,
) -> FieldSums:
    """Gather the equations of a field of polynomials over all pixels of a pair.

    Parameters
    ----------
    pair : Pair
        Of images in memory, all of whose pixels are used, with a weight of 1.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    frame : Frame
        The polynomials.
    degree : int or None
        Of the background, None for none.
    run : Run
        How. The answer is the same bit for bit.
    first : (int, int), optional
        Row and column of the frame at which the window begins; those of the result if None.

    Raises
    ------
    ValueError
        If a pixel is not finite.
    """
    scales = _scales(frame, first or pair.window.result_origin)
    lines = _legendre(frame.degree)
    functions = [(lines[i], lines[j]) for i, j in zip(*frame.numbers, strict=True)]
    taps, terms = math.prod(kernel_shape), frame.terms
    beside = 0 if degree is None else len(terms_of(degree)[0])
    mixtures = terms * (terms + 1) // 2
    mixed = np.zeros((mixtures, taps + beside + 1, taps + beside + 1))
    with np.errstate(over="ignore", invalid="ignore"):
        sums = weighted_lags(pair, kernel_shape, frame.degree, scales, run)
        products = ShiftProducts(pair, kernel_shape, scales, sums, run.workers)
        pairs = [_times(*both) for both in combinations_with_replacement(functions, 2)]
        products.mix(products.powers.mixed(pairs), mixed)
        powers = Powers.of(frame.degree)
        moments = np.stack([sums.moments[j][i].ravel() for i, j in zip(*powers, strict=True)])
        # What stands beside the products of shifts is asked for with every function once.
        mixed[:terms, :taps, -1] = powers.mixed(functions) @ moments
        mixed[0, -1, -1] = sums.energy
        if degree is not None:
            functions = _on_scale_of_background(functions, pair, scales)
            _add_background(pair, kernel_shape, functions, degree, run, mixed)
    refuse_unusable([pair], mixed, mixed[0, :, -1], sums.energy)
    return FieldSums(mixed, np.zeros((mixtures, taps)), pair.n_pixels, pair.total_weight, None)


def _scales(frame: Frame, first: Shape) -> tuple[Scale, Scale]:
    """Return the scales of a frame along the rows and columns of a window that begins there."""
    down, across = (
        Scale(float(scaled(np.array(float(start)), n)), 2 / max(n - 1, 1))
        for start, n in zip(first, frame.shape, strict=True)
    )
    return down, across


def _each(change: Callable[[FloatArray], Any], function: Function) -> Function:
    rows, cols = map(change, function)
    return rows, cols


def _times(one: Function, other: Function) -> Function:
    """Return the product of two functions, each a polynomial of the row times of the column."""
    rows, cols = (polynomial.polymul(*lines) for lines in zip(one, other, strict=True))
    return np.asarray(rows), np.asarray(cols)


def _add_background(
    pair: Pair,
    kernel_shape: Shape,
    functions: list[Function],
    degree: int,
    run: Run,
    mixed: FloatArray,
) -> None:
    """Write the products of a background with the shifts, itself and the result."""
    taps, most = math.prod(kernel_shape), degree + len(functions[-1][0]) - 1
    sums = background_sums(pair, kernel_shape, most, run.workers)
    powers, terms = Powers.of(most), list(zip(*terms_of(degree), strict=True))
    lines = _legendre(degree)
    for number, (i, j) in enumerate(terms):
        both = [_times(function, (lines[i], lines[j])) for function in functions]
        # By Legendre's polynomials, of which the sums are.
        weights = powers.mixed([_each(legendre.poly2leg, function) for function in both])
        mixed[: len(functions), :taps, taps + number] = weights @ sums.products[::-1].T
    chosen = [list(zip(*powers, strict=True)).index(term) for term in terms]
    mixed[0, taps:-1, taps:-1] = sums.gram[np.ix_(chosen, chosen)]
    mixed[0, taps:-1, -1] = sums.moments[chosen]


def _legendre(degree: int) -> list[FloatArray]:
    """Return Legendre's polynomials as coefficients of powers."""
    return [np.asarray(legendre.leg2poly(row)) for row in np.eye(degree + 1)]


def _on_scale_of_background(
    functions: list[Function], pair: Pair, scales: tuple[Scale, Scale]
) -> list[Function]:
    """Return functions of places on some scales as those of places on the background's."""
    lines = []
    for axis, (scale, first, n) in enumerate(zip(scales, *pair.within, strict=True)):
        # The pixel of the window that stands in the middle of the whole, and half of its length.
        middle, half = (n - 1) / 2 - first, max(n - 1, 1) / 2
        inner = Polynomial([scale.start + scale.step * middle, scale.step * half])
        lines.append([np.asarray(Polynomial(function[axis])(inner).coef) for function in functions])
    return list(zip(*lines, strict=True))
