"""Pixels that stick out of what a fit leaves, and those that do not."""

import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from fastkernel._images.lazy import LazyImage
from fastkernel._images.pairs import Cleaned, Pair
from fastkernel._machine.run import Run
from fastkernel._typing import AnyArray, FloatArray
from fastkernel.estimation.equations.residual import Beside, leave_residual
from fastkernel.estimation.equations.sweeps import View, sweep


def clipped_share(sigma: float) -> float:
    """Return the deviation of a standard normal distribution that is clipped at ``sigma``."""
    density = math.exp(-sigma * sigma / 2) / math.sqrt(2 * math.pi)
    return math.sqrt(1 - 2 * sigma * density / math.erf(sigma / math.sqrt(2)))


def within(
    pairs: Sequence[Pair], taps: FloatArray, beside: Beside | None, bound: float, run: Run
) -> list[Pair]:
    r"""Return pairs without the pixels whose weighted residual is larger than a bound.

    Parameters
    ----------
    pairs : sequence of Pair
        Of images in memory.
    taps : (p, q) float64 array
        The kernel by shift, that is flipped both ways.
    beside : Beside or None
        The backgrounds.
    bound : float
        What :math:`\sqrt{w_t} |r_t|` may be, in result units.
    run : Run
        How.

    Returns
    -------
    list of Pair
        With ``used`` cleared where a pixel sticks out.
    """
    found = [pair._replace(used=np.zeros(pair.window.shape, np.bool_)) for pair in pairs]

    def act(view: View, _: bool | None) -> bool:
        top, left, height, width = view.tile
        leave_residual(view, beside)
        pair, used = pairs[view.number], found[view.number].used
        weights = view.scratch.array("weights", (height, width))
        pair.load_weights(top, left, weights)
        residual = view.y[:, :width]
        inside = weights * residual**2 <= bound * bound
        assert used is not None  # noqa: S101 (made above)
        used[top : top + height, left : left + width] = inside & (weights > 0)
        return True

    for _ in sweep(pairs, taps, act, run):
        pass
    return found


def between_ends(pair: Pair) -> Pair:
    """Return a pair without the result's pixels at the ends of its integers."""
    result = pair.result.image if isinstance(pair.result, Cleaned) else pair.result
    lazy = isinstance(pair.source, LazyImage) or not isinstance(result, np.ndarray)
    if lazy or result.dtype.kind not in "iu":
        return pair
    (top, left), (height, width) = pair.window.result_origin, pair.window.shape
    ends, pixels = np.iinfo(result.dtype), result[top : top + height, left : left + width]
    inside = pixels > ends.min
    inside &= pixels < ends.max
    if pair.used is not None:
        inside &= pair.used
    return pair._replace(used=inside)


def cleaned(pair: Pair) -> Pair:
    """Return a pair whose unused results come into no sum, not even to be subtracted again."""
    if pair.used is None:
        return pair
    (top, left), (height, width) = pair.window.result_origin, pair.window.shape
    bad = np.zeros(pair.result.shape, np.bool_)
    bad[top : top + height, left : left + width] = ~pair.used
    return pair._replace(result=cast(AnyArray, Cleaned(pair.result, bad)))


def moved_pixels(before: Sequence[Pair], after: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Return the pixels that one has and the other has not: those that went, those that came."""

    def only(some: Pair, others: Pair) -> Pair:
        own, theirs = (
            np.broadcast_to(True, pair.window.shape) if pair.used is None else pair.used
            for pair in (some, others)
        )
        return some._replace(used=own > theirs)

    both = list(zip(before, after, strict=True))
    return [only(old, new) for old, new in both], [only(new, old) for old, new in both]
