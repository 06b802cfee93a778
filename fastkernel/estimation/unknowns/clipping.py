"""Pixels at the ends of the levels of a result, where it may have been clipped."""

import numpy as np

from fastkernel._images.pairs import in_memory
from fastkernel._images.usable import Observed
from fastkernel._typing import BoolArray

# Share of the pixels that must stand at an end to be noticed, and that must be left.
_FEW, _LEFT = 0.0005, 0.3
# Pixels of one and the same fraction that are no chance.
_SEVERAL = 3


def clipped_pixels(images: Observed) -> BoolArray | None:
    """Return where a result stands at an end of its levels; None where that says nothing.

    The ends are the lowest and the highest level, where whole numbers of at most 16 bits stand at
    those of their dtype; of other numbers, where several pixels stand at them. What the source
    holds there is exact, if the result was made from it, so its own ends do not count.

    Parameters
    ----------
    images : Observed
        A pair.

    Returns
    -------
    bool array of the result's shape, or None
        None where hardly any pixel stands at an end, or hardly any between.
    """
    result = in_memory(images.result)
    if result.dtype.kind in "iu":
        if result.dtype.itemsize > 2:
            return None
        ends: list[float] = [np.iinfo(result.dtype).min, np.iinfo(result.dtype).max]
    else:
        ends = [end for end in (result.min(), result.max()) if np.sum(result == end) >= _SEVERAL]
    found = np.isin(result, ends)
    share = np.count_nonzero(found) / found.size
    return found if _FEW <= share <= 1 - _LEFT else None


def without_clipped(images: Observed) -> Observed | None:
    """Return a pair without the pixels that may be clipped; None where there are none."""
    found = clipped_pixels(images)
    if found is None:
        return None
    bad = found if images.result_bad is None else found | images.result_bad
    return images._replace(result_bad=bad)
