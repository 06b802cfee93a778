"""Equations of pairs whose pixels do not count alike: by all pixels less some, or by some alone."""

from fastkernel._images.pairs import Pair
from fastkernel._machine.run import Run
from fastkernel._typing import Shape
from fastkernel.estimation.equations.background import BackgroundSums, background_sums
from fastkernel.estimation.equations.chosen_rows import rows_of
from fastkernel.estimation.equations.gathering import Sums, gather


def left_out_wins(pair: Pair) -> bool:
    """Tell whether a pair's sums are those of all pixels less those that a mask leaves out.

    They are where fewer pixels are left out than fitted, and those fitted all have the weight 1.
    """
    return pair.weights is None and 2 * pair.n_pixels > pair.window.n_pixels


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
    # What is summed and subtracted again need not be clean.
    pair = pair.uncleaned
    whole = pair._replace(used=None)
    sums = gather([whole], kernel_shape, run, engine)
    rows = rows_of([pair], kernel_shape, degree, run.silent, "left out", share)[0]
    less = Sums(sums.gram - rows.gram, sums.moments - rows.moments, sums.energy - rows.energy)
    if degree is None:
        return less, None
    every = background_sums(whole, kernel_shape, degree, run.workers)
    return less, every.plus(rows.background_sums(degree), -1)
