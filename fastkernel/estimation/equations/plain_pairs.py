"""Sums over small pairs of which only the kernel's shape is asked.

Such a fit is done in a tenth of a millisecond. It would take twice as long to find anew what
follows from shapes and dtypes alone, so pairs of one kind share that.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastkernel._images.pairs import Pair, pair_of
from fastkernel._images.usable import Observed
from fastkernel._images.windows import Window
from fastkernel._loops._reading import KINDS
from fastkernel._machine.tiles import own_scratch
from fastkernel._typing import Shape
from fastkernel.estimation.equations.formed import Gathered
from fastkernel.estimation.equations.gathering import Sums
from fastkernel.estimation.equations.gathering_cost import choose_engine
from fastkernel.estimation.equations.gathering_engines import InPlace, WholeJob, tile_jobs
from fastkernel.estimation.equations.row_jobs import standing_image
from fastkernel.estimation.solvers.small import FEW

# Pixels of an image beyond which it is more than a tile.
_MOST_PIXELS = 1 << 20

# Energies of which nothing under- or overflows on the way to the kernel.
_LEAST, _MOST = 2.0**-900, 2.0**900


class _Kind(NamedTuple):
    """What pairs of some shapes and dtypes have in common."""

    window: Window
    n_pixels: int
    job: WholeJob
    in_place: InPlace
    whole: bool


def plain_sums(source: Any, result: Any, kernel_shape: Any) -> tuple[Pair, Gathered] | None:
    """Return a small pair with its sums, if there is nothing to be said of either.

    Parameters
    ----------
    source, result, kernel_shape
        As in `estimate_kernel`, not checked.

    Returns
    -------
    (Pair, Gathered) or None
        The same, bit for bit, as `formed.gathered` finds. None for all else: images that are no
        plain arrays, or larger than a tile, or with a pixel that is not finite, kernels of more
        than `small.FEW` taps, and arguments that are wrong.
    """
    if type(source) is not np.ndarray or type(result) is not np.ndarray:
        return None
    shape = (kernel_shape, kernel_shape) if type(kernel_shape) is int else kernel_shape
    if type(shape) is not tuple or list(map(type, shape)) != [int, int]:
        return None
    kind = _kind_of(source.shape, source.dtype, result.shape, result.dtype, shape)
    if kind is None:
        return None
    x, y = standing_image(source), standing_image(result)
    if x is None or y is None:
        return None
    # Pixels that are not finite show in the sums.
    with np.errstate(over="ignore", invalid="ignore"):
        found = kind.job.found(own_scratch(), kind.in_place.of_another(x, y, kind.window))
    gram, energy = found.gram, found.energy
    if gram is None or not (kind.whole or _LEAST < energy < _MOST > gram.trace() > _LEAST):
        return None
    sums = Sums(gram, found.moments.ravel(), energy)
    pair = Pair(source, result, kind.window)
    return pair, Gathered(sums, [], kind.n_pixels, float(kind.n_pixels), energy)


@lru_cache(64)
def _kind_of(
    source_shape: tuple[int, ...],
    source_dtype: np.dtype[Any],
    result_shape: tuple[int, ...],
    result_dtype: np.dtype[Any],
    kernel_shape: Shape,
) -> _Kind | None:
    """Return what pairs have in common; None if they are to be taken one by one."""
    p, q = kernel_shape
    small = len(source_shape) == len(result_shape) == 2 and min(p, q) > 0 and p * q <= FEW
    if not small or np.prod(source_shape, dtype=float) > _MOST_PIXELS:
        return None
    if source_dtype not in KINDS or result_dtype not in KINDS:
        return None
    source, result = np.empty(source_shape, source_dtype), np.empty(result_shape, result_dtype)
    try:
        pair = pair_of(Observed(source, result), kernel_shape, None)
    except ValueError:
        return None
    window = pair.window
    engine = choose_engine(source, result, window.shape, kernel_shape)
    job, *_ = tile_jobs(pair, kernel_shape, engine)
    if not isinstance(job, WholeJob) or job.in_place is None or window.n_pixels < p * q:
        return None
    # What stands for all such pairs keeps no pixels.
    nothing, no_bytes = np.empty((0, 0)), (np.empty(0, np.uint8), 0, 0)
    in_place = job.in_place.of_another(no_bytes, no_bytes, window)
    alike = replace(job, pair=pair._replace(source=nothing, result=nothing), in_place=None)
    whole = source_dtype.kind == result_dtype.kind == "u"
    return _Kind(window, window.n_pixels, alike, in_place, whole)
