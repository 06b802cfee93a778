"""Pixels whose squares are no numbers of float64, and whose unit therefore matters."""

import math
from collections.abc import Sequence

import numpy as np

from fastkernel._images.pairs import Pair, used_images

# Between these, sums of products, and the squares of these, are numbers of float64.
_LEAST, _MOST = 2.0**-200, 2.0**200

# Of narrower floats every one is in between.
_WIDE = 8


def refuse_extremes(pairs: Sequence[Pair], method: str) -> None:
    """Raise for images in memory of which the largest pixel is out of range.

    Raises
    ------
    ValueError
        That names the image, and what it holds; an image of zeros alone passes.
    """
    for name, image, _ in used_images(pairs):
        if image.dtype.kind != "f" or image.dtype.itemsize < _WIDE:
            continue
        largest = max(-float(np.min(image[:, :])), float(np.max(image[:, :])))
        # What is not finite is another's to name.
        if 0 < largest < math.inf and not _LEAST <= largest <= _MOST:
            msg = (
                f"{name} must have a largest pixel from {_LEAST:.0e} to {_MOST:.0e} for "
                f"method={method!r}, got {largest:.1e}: its squares are no numbers of float64; "
                "give the pixels another unit, in which they are near 1"
            )
            raise ValueError(msg)
