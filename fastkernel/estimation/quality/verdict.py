"""A verdict in plain words: whether to believe a kernel, why, and what would help."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from fastkernel._typing import FloatArray
from fastkernel.estimation.quality.facts import FLAT_SHARE, Facts

Belief = Literal["believe it", "believe it with care", "do not believe it"]

# Root mean square of what rounding to whole levels takes away.
ROUNDING_RMS = 12**-0.5

# A residual of at most this share of `ROUNDING_RMS` more is that of rounding.
_ROUNDED = 1.1

# The root mean square that uniform rounding has where places are not flat, 0.294, but for what
# right kernels fell short of it on photographs; and its standard error for a single pixel. Below
# it rounding is not even, for it follows the picture.
_EVEN, _EVEN_ERROR = 0.2895, 0.13

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
_SURE, _LOST = 0.01, 0.5

# Condition numbers at which rounding is to be seen, and at which nothing else is.
_HARDLY, _NOT = 1e10, 1e14

# Contrast of the result, as a share of what the filter changed, that is rounding.
_NO_CONTRAST = 1e-7

# Share of clipped pixels from which on they are mentioned.
_FEW = 0.001

# A float result's residual over its contrast that is taken for its own rounding.
_EXACT = 1e-5

# Mean of a residual over its root mean square from which on a level is missing, and the largest
# residual over it that noise does not reach.
_LEVEL, _OUTLIER = 0.1, 12.0

# Taps by which another size is to differ along each side.
_STEP = 4

_MORE_PIXELS = "more pixels: larger images, or more pairs that share the kernel"


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
    helps : tuple of str
        What would help, as far as the residual alone tells: nothing was tried. Arguments are
        those of `fastkernel.estimate_kernel`.
    facts : Facts or None
        The numbers behind it.
    """

    belief: Belief
    reasons: tuple[str, ...]
    explained: bool
    helps: tuple[str, ...] = ()
    facts: Facts | None = None

    def __str__(self) -> str:
        return f"{self.belief}: {'; '.join(self.reasons)}"


class _Doubt(NamedTuple):
    """A reason not to believe, whether it is enough by itself, and what would help."""

    reason: str
    fatal: bool = False
    helps: tuple[str, ...] = ()


def judge(
    kernel: FloatArray,
    errors: FloatArray,
    facts: Facts,
    *,
    residual_rms: float | None = None,
    condition_number: float = math.nan,
    converged: bool = True,
    lossy: bool = False,
    left_out: float = 0.0,
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
    left_out : float, optional
        Share of the pixels that were not fitted: masked, or cut off by the range of levels.

    Returns
    -------
    Verdict
        Full belief needs a residual without a shape, error bars of at most 1 % of the largest
        tap, and iterations that ended.
    """
    bar = _bar(kernel, errors, facts, facts.rms if residual_rms is None else residual_rms)
    leaves = _explained(facts)
    doubts = list(_doubts_of_shape(kernel, errors, facts, lossy)) if leaves is None else []
    if facts.n_pixels <= kernel.size:
        reason = f"{facts.n_pixels} pixels tell nothing of {kernel.size} taps"
        doubts.insert(0, _Doubt(reason, True, (_MORE_PIXELS,)))
    if not facts.contrast > _NO_CONTRAST * facts.change:
        reason = "the result is the same everywhere, which says nothing of a kernel"
        doubts.insert(0, _Doubt(reason, True, ("a result that shows the picture",)))
    doubts += _doubts_of_fit(kernel, errors, bar, condition_number, converged)
    fatal = [doubt.reason for doubt in doubts if doubt.fatal]
    reasons = fatal + [doubt.reason for doubt in doubts if not doubt.fatal]
    helps = tuple(dict.fromkeys(text for doubt in doubts for text in doubt.helps))
    belief: Belief = "do not believe it" if fatal else "believe it with care"
    if leaves is not None and not doubts:
        belief = "believe it"
        reasons = [f"{leaves}, and error bars are at most {100 * bar:.1g}% of the largest tap"]
    elif leaves is not None and not fatal:
        reasons.append(leaves)
    if left_out > 0:
        reasons.append(
            f"{max(left_out, 0.001):.1%} of the pixels were left out, masked or cut off by the "
            "range of levels (lad bears these)"
        )
    return Verdict(belief, tuple(reasons), leaves is not None, helps, facts)


def _doubts_of_shape(
    kernel: FloatArray, errors: FloatArray, facts: Facts, lossy: bool
) -> Iterator[_Doubt]:
    """Yield what is to say of a residual that has a shape."""
    yield _Doubt(_shape_of(facts), _is_fatal(facts), _helps_of_shape(facts))
    if lossy:
        helps = ("files that were not compressed with losses",)
        yield _Doubt("lossy compression leaves a residual of its own", helps=helps)
    if facts.clipped > _FEW:
        share = f"{facts.clipped:.1%} of the result is black or white, where it may be clipped"
        yield _Doubt(
            share,
            helps=(
                'saturation="auto", which leaves clipped pixels out',
                'method="lad", which clipped pixels cannot pull away',
            ),
        )
    if not _is_rounding(facts) and _reaches_the_rim(kernel, errors):
        p, q = kernel.shape
        yield _Doubt(
            f"its outermost taps are not zero, so it may be larger than {p}x{q}",
            helps=(f"try kernel_shape=({p + _STEP}, {q + _STEP})",),
        )


def _helps_of_shape(facts: Facts) -> tuple[str, ...]:
    """Return what the size and the place of a residual with a shape suggest."""
    if _is_rounding(facts):
        return ("images of more levels (16 bits, or floats), or a source with more contrast",)
    helps = []
    if abs(facts.mean) > _LEVEL * facts.rms:
        helps.append(f'background="constant": the residual has a mean of {facts.mean:.3g}')
    if facts.largest > _OUTLIER * facts.rms and facts.clipped <= _FEW:
        helps.append('method="lad", which few wrong pixels cannot pull away')
    return tuple(helps)


def _doubts_of_fit(
    kernel: FloatArray, errors: FloatArray, bar: float, condition_number: float, converged: bool
) -> Iterator[_Doubt]:
    """Yield what is to say of the taps, whatever they leave."""
    if not converged:
        yield _Doubt("the iterations did not converge", helps=("more iterations",))
    if condition_number > _HARDLY:
        yield _Doubt(
            f"the source hardly determines it (condition number {condition_number:.0e})",
            condition_number > _NOT,
            ("a source with more detail, or a smaller kernel",),
        )
    if bar > _SURE:
        helps: tuple[str, ...] = (_MORE_PIXELS,)
        if min(kernel.shape) > _STEP and not _reaches_the_rim(kernel, errors):
            p, q = kernel.shape
            smaller = f"try kernel_shape=({p - _STEP}, {q - _STEP}): the outermost taps are noise"
            helps = (smaller, *helps)
        yield _Doubt(f"error bars reach {_percent(bar)} of the largest tap", bar > _LOST, helps)
    elif math.isnan(bar):
        helps = ('method="lstsq", which knows them',)
        yield _Doubt("this method knows no error bars", helps=helps)


def _bar(kernel: FloatArray, errors: FloatArray, facts: Facts, rms: float) -> float:
    """Return the largest error bar over the largest tap, no less than what rounding gives."""
    bar = float(errors.max()) / (float(np.abs(kernel).max()) or 1.0)
    if facts.whole_levels and 0 < rms < ROUNDING_RMS:
        bar *= ROUNDING_RMS / rms
    return bar


def _is_white(facts: Facts) -> bool:
    return facts.neighbours <= max(_WHITE, _WHITE_UNITS / math.sqrt(max(facts.n_pixels, 1)))


def _is_rounding(facts: Facts) -> bool:
    """Tell whether a residual is no larger than that of rounding."""
    return facts.whole_levels and facts.rms <= _ROUNDED * ROUNDING_RMS


def _is_a_rounding(facts: Facts) -> bool:
    """Tell whether no pixel misses by more than rounding and a right kernel's errors leave."""
    return facts.largest <= _MOST_ROUNDING + FLAT_SHARE * facts.contrast


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
