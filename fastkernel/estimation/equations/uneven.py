"""Equations of pairs whose pixels do not count alike: by all pixels less some, or by some alone."""

from typing import cast

import numpy as np

from fastkernel._images.pairs import Cleaned, Pair, unseen
from fastkernel._machine.run import Run
from fastkernel._typing import BoolArray, Shape
from fastkernel.estimation.equations.background import BackgroundSums
from fastkernel.estimation.equations.chosen_rows import rows_of
from fastkernel.estimation.equations.gathering import Sums, gather
from fastkernel.estimation.equations.gathering_cost import is_narrow
from fastkernel.estimation.equations.polynomial_sums import background_sums


def left_out_wins(pair: Pair) -> bool:
    """Tell whether a pair's sums are those of all pixels less those that a mask leaves out.

    They are where fewer pixels are left out than fitted, and those fitted all have the weight 1.
    """
    return pair.weights is None and 2 * pair.n_pixels > pair.window.n_pixels


def _lightened(pair: Pair, kernel_shape: Shape, exact: bool) -> Pair:
    """Return a pair without what would be summed only to be subtracted again.

    Bytes that are summed without rounding are read as they are. What is left of other images are
    the source's pixels that fitted pixels see as well, so that no sum is more than ``p * q``
    times what stays of it, and its rounding not either.
    """
    if exact and is_narrow(pair.source, pair.result):
        source, result = (getattr(image, "image", image) for image in (pair.source, pair.result))
        return pair._replace(source=source, result=result)
    (top, left), (height, width) = pair.window.result_origin, pair.window.shape
    bad = np.ones(pair.result.shape, np.bool_)
    bad[top : top + height, left : left + width] = ~cast(BoolArray, pair.used)
    return pair._replace(
        source=Cleaned.of(pair.source, unseen(pair, kernel_shape)),
        result=Cleaned.of(pair.result, bad),
    )


def uneven_sums(
    pair: Pair,
    kernel_shape: Shape,
    degree: int | None,
    run: Run,
    engine: str,
    share: float = 1.0,
) -> tuple[Sums, BackgroundSums | None]:
    """Return the sums of a pair by its weights, with those of its background.

    Parameters
    ----------
    pair : Pair
        Of images in memory.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    degree : int or None
        Of the background, None for none.
    run : Run
        How.
    engine : str
        How to sum over all pixels.
    share : float, optional
        Of single rows that are taken; see `rows_of`.

    Returns
    -------
    Sums
        Exact for images of at most 8 bits where weights are 1 or 0.
    BackgroundSums or None
        Of the background.
    """
    if not left_out_wins(pair):
        rows = rows_of([pair], kernel_shape, degree, run, share=share)[0]
        background = None if degree is None else rows.background_sums(degree)
        return Sums(rows.gram, rows.moments, rows.energy), background
    # Polynomials that vary are no whole numbers.
    pair = _lightened(pair, kernel_shape, exact=not degree)
    whole = pair._replace(used=None)
    sums = gather([whole], kernel_shape, run, engine)
    rows = rows_of([pair], kernel_shape, degree, run.silent, "left out", share)[0]
    less = Sums(sums.gram - rows.gram, sums.moments - rows.moments, sums.energy - rows.energy)
    if degree is None:
        return less, None
    every = background_sums(whole, kernel_shape, degree, run.workers)
    return less, every.plus(rows.background_sums(degree), -1)
