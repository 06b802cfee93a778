"""Sums over small pairs of which only the kernel's shape is asked.

Such a fit is done in a tenth of a millisecond. It would take twice as long to find anew what
follows from shapes and dtypes alone, so pairs of one kind share that.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from fastkernel._images.pairs import Pair, pair_of
from fastkernel._images.usable import Observed
from fastkernel._loops._reading import KINDS
from fastkernel._machine.tiles import own_scratch
from fastkernel._typing import Shape
from fastkernel.estimation.equations.formed import Gathered
from fastkernel.estimation.equations.gathering import Sums
from fastkernel.estimation.equations.gathering_cost import choose_engine
from fastkernel.estimation.equations.gathering_engines import WholeJob, tile_jobs
from fastkernel.estimation.equations.row_jobs import standing_image
from fastkernel.estimation.solvers.small import FEW

# Pixels of an image beyond which it is more than a tile.
_MOST_PIXELS = 1 << 20

# Energies of which nothing under- or overflows on the way to the kernel.
_LEAST, _MOST = 2.0**-900, 2.0**900


def plain_sums(source: Any, result: Any, kernel_shape: Any) -> tuple[Pair, Gathered, Shape] | None:
    """Return a small pair with its sums and the kernel's shape, if there is nothing to be said.

    Parameters
    ----------
    source, result, kernel_shape
        As in `estimate_kernel`, not checked.

    Returns
    -------
    (Pair, Gathered, (int, int)) or None
        The same, bit for bit, as `formed.gathered` finds. None for all else: images that are no
        plain arrays, or larger than a tile, or with a pixel that is not finite, kernels of more
        than `small.FEW` taps, and arguments that are wrong.
    """
    if type(source) is not np.ndarray or type(result) is not np.ndarray:
        return None
    shape = (kernel_shape, kernel_shape) if type(kernel_shape) is int else kernel_shape
    if type(shape) is not tuple or list(map(type, shape)) != [int, int]:
        return None
    job = _job_of(source.shape, source.dtype, result.shape, result.dtype, shape)
    if job is None or job.in_place is None:
        return None
    x, y = standing_image(source), standing_image(result)
    if x is None or y is None:
        return None
    pair = Pair(source, result, job.pair.window)
    # Pixels that are not finite show in the sums.
    with np.errstate(over="ignore", invalid="ignore"):
        found = job.found(own_scratch(), job.in_place.of_another(x, y, pair.window))
    gram, energy, n_pixels = found.gram, found.energy, pair.window.n_pixels
    whole = source.dtype.kind == result.dtype.kind == "u"
    if gram is None or not (whole or _LEAST < energy < _MOST > gram.trace() > _LEAST):
        return None
    sums = Sums(gram, found.moments.ravel(), energy)
    return pair, Gathered(sums, [], n_pixels, float(n_pixels), energy), shape


@lru_cache(64)
def _job_of(
    source_shape: tuple[int, ...],
    source_dtype: np.dtype[Any],
    result_shape: tuple[int, ...],
    result_dtype: np.dtype[Any],
    kernel_shape: Shape,
) -> WholeJob | None:
    """Return what all such pairs share, which holds no pixels; None for those taken one by one."""
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
    engine = choose_engine(source, result, pair.window.shape, kernel_shape)
    job, *_ = tile_jobs(pair, kernel_shape, engine)
    if not isinstance(job, WholeJob) or job.in_place is None or pair.window.n_pixels < p * q:
        return None
    nothing, no_bytes = np.empty((0, 0)), (np.empty(0, np.uint8), 0, 0)
    return replace(
        job,
        pair=pair._replace(source=nothing, result=nothing),
        in_place=job.in_place.of_another(no_bytes, no_bytes, pair.window),
    )
