"""How far to believe a kernel: what its residual tells, and a verdict in plain words.

A right kernel leaves what made the result imperfect, and that has no shape of its own: rounding,
at most half a level in every pixel, or noise that knows nothing of the picture. A wrong one leaves
what follows the picture: neighbours that resemble each other, and more where there is detail.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import rankdata

from fastkernel._machine.tiles import split
from fastkernel._typing import AnyArray, FloatArray

Belief = Literal["believe it", "believe it with care", "do not believe it"]

# Root mean square of what rounding to whole levels takes away.
ROUNDING_RMS = 12**-0.5

# A residual of at most this share of `ROUNDING_RMS` more is that of rounding.
_ROUNDED = 1.1

# Magnitude below which a place is taken for flat, where rounding has nothing to take away, and the
# root mean square that uniform rounding has beyond it, 0.294, but for what right kernels fell
# short of it on photographs; and its standard error for a single pixel. Below it rounding is not
# even, for it follows the picture.
_FLAT, _EVEN, _EVEN_ERROR = 0.02, 0.2895, 0.13
# The same, as a share of the level: taps whose sum is not quite known leave so much.
_FLAT_SHARE = 2e-6

# Levels that rounding leaves in a pixel at the most, and as much again for the taps' own errors.
# On photographs right kernels left up to 0.56, wrong ones from 0.60 on.
_MOST_ROUNDING = 0.57

# What noise may show of a shape: correlation of neighbours, in units of one over the root of the
# pixels beside a floor, and rank correlation with the detail of the source.
_WHITE, _WHITE_UNITS = 0.04, 5.0
_FOLLOWS, _FOLLOWS_ROUNDED = 0.5, 0.25

# Share of what the filter changed that may be left with a shape: filters that are no convolution
# leave 0.28 to 0.9 of it.
_UNEXPLAINED = 0.25

# Error bars over the largest tap: for full belief, to be mentioned, to be fatal.
_SURE, _VAGUE, _LOST = 0.01, 0.1, 0.5

# Share of clipped pixels from which on they are mentioned.
_FEW = 0.001

# A float result's residual over its contrast that is taken for its own rounding.
_EXACT = 1e-5

_SIDE = 8
_STRIP_ROWS = 256
_LAGS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))


class Plane(NamedTuple):
    """Pixels that were compared: one channel, or a part of one.

    Attributes
    ----------
    residual : (rows, cols) float64 array
        Result less prediction, in result units.
    source, result : (rows, cols) arrays
        The source under the kernel's centre tap, and the result.
    """

    residual: FloatArray
    source: AnyArray
    result: AnyArray


@dataclass(frozen=True, slots=True)
class Facts:
    """What a residual tells, in result units where it has any.

    Attributes
    ----------
    n_pixels : int
        Compared pixels.
    rms : float
        Root mean square; of a robust fit, from the median of the magnitudes.
    largest : float
        Largest magnitude, clipped pixels left out.
    change : float
        Root mean square of result less source, about its mean: what the filter did.
    contrast : float
        Standard deviation of the result.
    neighbours : float
        Largest correlation of the residual with itself one or two pixels away.
    detail : float
        Rank correlation of its energy with that of the source's gradient, over tiles of 8x8.
    whole_levels : bool
        Whether the result holds whole numbers.
    rounding, n_rounded : float and int
        Root mean square of the residuals beyond 0.02, and how many these are.
    clipped : float
        Share of the pixels at either end of the levels that the result can hold.
    """

    n_pixels: int
    rms: float
    largest: float
    change: float
    contrast: float
    neighbours: float
    detail: float
    whole_levels: bool
    rounding: float
    n_rounded: int
    clipped: float = 0.0

    @property
    def unexplained(self) -> float:
        """Residual over change; 0 where there is neither."""
        return self.rms / self.change if self.change > 0 else float(self.rms > 0)

    @property
    def misfit(self) -> float:
        """Residual over contrast; 0 where there is neither."""
        return self.rms / self.contrast if self.contrast > 0 else float(self.rms > 0)


def facts_of(
    planes: Iterable[Plane], *, limits: tuple[float, float] | None = None, robust: bool = False
) -> Facts:
    """Return what a residual tells.

    Parameters
    ----------
    planes : iterable of Plane
        Read one after the other, some rows at a time.
    limits : (float, float), optional
        The lowest and the highest level that the result can hold: pixels there may be clipped.
    robust : bool, optional
        Whether a minority of pixels may be wrong: they then count for little.

    Returns
    -------
    Facts
        Over all planes.

    Notes
    -----
    A pass over the pixels, some twenty operations each.
    """
    sums = _Sums(limits)
    for plane in planes:
        bound = math.inf
        if robust:
            sums.scales.append(_robust_scale(plane.residual))
            bound = 3 * sums.scales[-1]
        for top, bottom in split(plane.residual.shape[0], _STRIP_ROWS):
            sums.add(Plane(*(part[top:bottom] for part in plane)), bound)
    return sums.facts()


def _robust_scale(residual: FloatArray) -> float:
    """Return the standard deviation of the normal distribution of the same median magnitude."""
    return 1.4826 * float(np.median(np.abs(residual)))


class _Sums:
    """What strips add up to."""

    def __init__(self, limits: tuple[float, float] | None) -> None:
        self._limits = limits
        self.scales: list[float] = []
        self._n = self._clipped = 0
        self._whole, self._largest = True, 0.0
        self._n_rounded, self._rounded = 0, 0.0
        # Of the residual, the result and what the filter changed: sums, and sums of squares.
        self._first, self._second = np.zeros(3), np.zeros(3)
        self._products, self._counts = np.zeros(len(_LAGS)), np.zeros(len(_LAGS))
        self._energies: list[FloatArray] = []
        self._gradients: list[FloatArray] = []

    def add(self, strip: Plane, bound: float) -> None:
        """Add a strip, its residual held to a bound."""
        residual, source, result = (np.asarray(part, np.float64) for part in strip)
        inside = np.ones(result.shape, np.bool_)
        if self._limits is not None:
            inside = (result > self._limits[0]) & (result < self._limits[1])
        self._n += residual.size
        self._clipped += residual.size - int(inside.sum())
        self._whole &= bool((result == np.rint(result)).all())
        held = residual.clip(-bound, bound)
        beyond = held[np.abs(held) > np.maximum(_FLAT, _FLAT_SHARE * np.abs(result))]
        self._n_rounded += beyond.size
        self._rounded += float(np.vdot(beyond, beyond))
        self._largest = max(self._largest, float(np.abs(held[inside]).max(initial=0)))
        for i, values in enumerate((held, result, result - source)):
            self._first[i] += values.sum()
            self._second[i] += np.vdot(values, values)
        rows, cols = held.shape
        for i, (down, right) in enumerate(_LAGS):
            if rows > down and cols > right:
                a, b = held[: rows - down, : cols - right], held[down:, right:]
                self._products[i] += np.sum(a * b)
                self._counts[i] += a.size
        if min(source.shape) >= 2 * _SIDE:
            across, up = np.gradient(source)
            self._energies.append(_tile_means(held**2))
            self._gradients.append(_tile_means(np.asarray(across**2 + up**2)))

    def facts(self) -> Facts:
        """Return the facts of all that was added."""
        n = max(self._n, 1)
        means, squares = self._first / n, self._second / n
        variances = np.maximum(squares - means**2, 0.0)
        neighbours = 0.0
        if squares[0] > 0:
            lagged = self._products / np.maximum(self._counts, 1)
            neighbours = float(np.abs(lagged / squares[0]).max())
        rms = math.sqrt(squares[0])
        if self.scales:
            rms = math.sqrt(float(np.mean(np.square(self.scales))))
        return Facts(
            n_pixels=self._n,
            rms=rms,
            largest=self._largest,
            change=math.sqrt(variances[2]),
            contrast=math.sqrt(variances[1]),
            neighbours=neighbours,
            detail=_rank_correlation(self._energies, self._gradients),
            whole_levels=self._whole,
            rounding=math.sqrt(self._rounded / max(self._n_rounded, 1)),
            n_rounded=self._n_rounded,
            clipped=self._clipped / n,
        )


def _tile_means(values: FloatArray) -> FloatArray:
    rows, cols = (n // _SIDE for n in values.shape)
    tiles = values[: rows * _SIDE, : cols * _SIDE].reshape(rows, _SIDE, cols, _SIDE)
    return np.asarray(tiles.mean(axis=(1, 3)).ravel())


def _rank_correlation(one: Sequence[FloatArray], other: Sequence[FloatArray]) -> float:
    """Return Spearman's correlation; 0 where there is nothing to compare."""
    if not one:
        return 0.0
    ranks = [rankdata(np.concatenate(parts)) for parts in (one, other)]
    ranks = [rank - rank.mean() for rank in ranks]
    sizes = math.sqrt(float(np.vdot(ranks[0], ranks[0]) * np.vdot(ranks[1], ranks[1])))
    return float(np.vdot(*ranks)) / sizes if sizes > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to believe a kernel, and why.

    Attributes
    ----------
    belief : {"believe it", "believe it with care", "do not believe it"}
        The verdict.
    reasons : tuple of str
        What it rests on, the weightiest first.
    explained : bool
        Whether the residual is what rounding or noise leaves, so that no other kernel, size or
        method could explain more.
    """

    belief: Belief
    reasons: tuple[str, ...]
    explained: bool

    def __str__(self) -> str:
        return f"{self.belief}: {'; '.join(self.reasons)}"


def judge(
    kernel: FloatArray,
    errors: FloatArray,
    facts: Facts,
    *,
    residual_rms: float | None = None,
    condition_number: float = math.nan,
    converged: bool = True,
    lossy: bool = False,
) -> Verdict:
    """Say whether to believe a kernel.

    Parameters
    ----------
    kernel, errors : (p, q) float64 arrays
        Taps and their standard errors, NaN where these are not known.
    facts : Facts
        Of the residual that the kernel leaves.
    residual_rms : float, optional
        What the error bars rest on, where that is not ``facts.rms``.
    condition_number : float, optional
        Of the normal equations.
    converged : bool, optional
        Whether iterations met their tolerance.
    lossy : bool, optional
        Whether an image was compressed with losses.

    Returns
    -------
    Verdict
        Full belief needs a residual without a shape, error bars of at most 1 % of the largest
        tap, and iterations that ended.
    """
    bar = _bar(kernel, errors, facts, facts.rms if residual_rms is None else residual_rms)
    fatal: list[str] = []
    doubts: list[str] = []
    leaves = _explained(facts)
    if leaves is None:
        (fatal if _is_fatal(facts) else doubts).append(_shape_of(facts))
        if lossy:
            doubts.append("lossy compression leaves a residual of its own")
        if facts.clipped > _FEW:
            doubts.append(
                f"{facts.clipped:.1%} of the result is black or white, where it may be clipped"
            )
        if not _is_rounding(facts) and _reaches_the_rim(kernel, errors):
            p, q = kernel.shape
            doubts.append(
                f"its outermost taps are not zero, so it may be larger than {p}x{q}: "
                f"try --size {p + 4}x{q + 4}"
            )
    if not converged:
        doubts.append("the iterations did not converge")
    if condition_number > 1e10:
        (fatal if condition_number > 1e14 else doubts).append(
            f"the source hardly determines it (condition number {condition_number:.0e})"
        )
    if bar > _SURE:
        (fatal if bar > _LOST else doubts).append(
            f"error bars reach {_percent(bar)} of the largest tap"
        )
    elif math.isnan(bar):
        doubts.append("this method knows no error bars")
    elif leaves is not None and not fatal and not doubts:
        sure = f"{leaves}, and error bars are at most {100 * bar:.1g}% of the largest tap"
        return Verdict("believe it", (sure,), True)
    if fatal:
        return Verdict("do not believe it", (*fatal, *doubts), leaves is not None)
    if leaves is not None:
        doubts.append(leaves)
    return Verdict("believe it with care", tuple(doubts), leaves is not None)


def _bar(kernel: FloatArray, errors: FloatArray, facts: Facts, rms: float) -> float:
    """Return the largest error bar over the largest tap, no less than what rounding gives."""
    bar = float(errors.max()) / (float(np.abs(kernel).max()) or 1.0)
    if facts.whole_levels and 0 < rms < ROUNDING_RMS:
        bar *= ROUNDING_RMS / rms
    return bar


def _is_white(facts: Facts) -> bool:
    return facts.neighbours <= max(_WHITE, _WHITE_UNITS / math.sqrt(facts.n_pixels))


def _is_rounding(facts: Facts) -> bool:
    """Tell whether a residual is no larger than that of rounding."""
    return facts.whole_levels and facts.rms <= _ROUNDED * ROUNDING_RMS


def _is_a_rounding(facts: Facts) -> bool:
    """Tell whether no pixel misses by more than rounding and a right kernel's errors leave."""
    return facts.largest <= _MOST_ROUNDING + _FLAT_SHARE * facts.contrast


def _explained(facts: Facts) -> str | None:
    """Return what a residual without a shape is; None for one that has one."""
    if not facts.whole_levels and facts.misfit <= _EXACT:
        return "nothing but rounding is left unexplained"
    if _is_rounding(facts):
        even = _EVEN - 3 * _EVEN_ERROR / math.sqrt(max(facts.n_rounded, 1))
        if _is_a_rounding(facts) and facts.rounding >= even:
            return "nothing but rounding is left unexplained"
        return None
    if _is_white(facts) and facts.detail <= _FOLLOWS:
        return "what is left unexplained is noise, which knows nothing of the picture"
    return None


def _is_fatal(facts: Facts) -> bool:
    """Tell whether a residual with a shape is more than a blemish."""
    if _is_rounding(facts):
        follows = not _is_a_rounding(facts) and facts.detail > _FOLLOWS_ROUNDED
        # Where pixels are clipped, those beside them may miss by as much.
        return follows and (facts.clipped <= _FEW or facts.unexplained > _UNEXPLAINED)
    return facts.unexplained > _UNEXPLAINED


def _shape_of(facts: Facts) -> str:
    """Return in words what a residual that has a shape looks like."""
    if _is_rounding(facts):
        if _is_a_rounding(facts):
            return (
                "rounding is not even, so it hides part of what the filter did: the source has too "
                "few levels, or the same detail again and again"
            )
        return (
            f"rounding follows the picture: some pixels miss by {facts.largest:.2f} levels, where "
            "a right kernel leaves at most 0.5"
        )
    return (
        f"it leaves {_share(facts.unexplained)} of what the filter changed unexplained, and that "
        "follows the picture"
    )


def _share(part: float) -> str:
    if part >= 1:
        return "all"
    return f"{part:.0%}" if part >= 0.1 else f"{part:.1%}"


def _percent(part: float) -> str:
    return f"{part:.0%}" if part >= 0.095 else f"{part:.1%}"


def _reaches_the_rim(kernel: FloatArray, errors: FloatArray) -> bool:
    rim = np.ones(kernel.shape, np.bool_)
    rim[1:-1, 1:-1] = False
    weight = np.abs(kernel[rim]).sum()
    noise = 2 * np.nan_to_num(errors[rim]).sum()
    return bool(weight > 0.01 * np.abs(kernel).sum() and weight > noise)
