"""Which pixels count, and how much: masks, weights, saturation, and what is not a number."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import numpy as np

from fastkernel._images.checks import as_channels, as_choice, as_number
from fastkernel._images.masks import unmasked
from fastkernel._typing import AnyArray, BoolArray, NanPolicy

NAN_POLICIES: tuple[NanPolicy, ...] = get_args(NanPolicy)

# Levels that a detector of fewer bits than its file has ends at.
_FEWER_BITS = tuple(2**bits - 1 for bits in (10, 12, 14))

# What helps where something that is said of pixels comes with a mask.
_JOINED = "join it with mask or source_mask, and pass a plain array"


@dataclass(frozen=True, slots=True)
class PixelRules:
    """What is said of the pixels of pairs, as it is given; see `estimate_kernel`.

    Attributes
    ----------
    mask, source_mask, weights : array_like, sequence of these, or None
        Of the result, of the source, of the result.
    saturation : "auto", (low, high) or None
        Where levels end.
    nan_policy : {"raise", "omit"}
        Whether what is not finite is masked.
    source_variance : float, array_like, sequence of these, or None
        Of the source's pixels.
    """

    mask: Any = None
    source_mask: Any = None
    weights: Any = None
    saturation: Any = None
    nan_policy: NanPolicy = "raise"
    source_variance: Any = None

    def __post_init__(self) -> None:
        as_choice(self.nan_policy, "nan_policy", NAN_POLICIES)
        if self.saturation is not None:
            object.__setattr__(self, "saturation", _as_saturation(self.saturation))

    def of(self, index: int, count: int) -> "PixelRules":
        """Return what is said of one of several pairs."""

        def part(value: Any, name: str) -> Any:
            several = isinstance(value, list | tuple)
            one_for_all = name == "source_variance" and not several and np.ndim(value) == 0
            if value is None or one_for_all:
                return value
            if not several or len(value) != count:
                msg = (
                    f"{name} must be a sequence of {count}, one for every pair, got "
                    f"{type(value).__name__}{_length(value)}; None stands for a pair without"
                )
                raise ValueError(msg)
            return value[index]

        parts = {name: part(getattr(self, name), name) for name in _ARRAYS}
        return PixelRules(saturation=self.saturation, nan_policy=self.nan_policy, **parts)


_ARRAYS = ("mask", "source_mask", "weights", "source_variance")


def _length(value: Any) -> str:
    return f" of {len(value)}" if hasattr(value, "__len__") and np.ndim(value) else ""


class Observed(NamedTuple):
    """A pair of images, and which of their pixels are bad.

    Attributes
    ----------
    source, result : (rows, cols) arrays
        Each an array or a `LazyImage`.
    source_bad, result_bad : bool arrays of their shapes, or None
        None where no pixel is bad.
    weights : real array of the result's shape, or None
        None where they are all 1.
    source_variance : real array of the source's shape, or None
        None where it is not known.
    which : str
        ``[i]`` in messages about one of several pairs.
    """

    source: AnyArray
    result: AnyArray
    source_bad: BoolArray | None = None
    result_bad: BoolArray | None = None
    weights: AnyArray | None = None
    source_variance: AnyArray | None = None
    which: str = ""


def _as_saturation(value: Any) -> Any:
    if isinstance(value, str) and value == "auto":
        return value
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        msg = (
            f"saturation must be None, 'auto' or (low, high), got {value!r}; None stands for an "
            "end that there is not"
        )
        raise TypeError(msg)
    low, high = (
        missing if end is None else as_number(end, "an end of saturation")
        for end, missing in zip(value, (-math.inf, math.inf), strict=True)
    )
    if not low < high:
        msg = f"saturation must be (low, high) with low < high, got {value!r}"
        raise ValueError(msg)
    return low, high


def _limits(saturation: Any, image: AnyArray, name: str) -> tuple[float, float]:
    """Return the levels at which pixels of an image are saturated."""
    if saturation != "auto":
        low, high = saturation
        return low, high
    if image.dtype.kind not in "iu":
        msg = (
            f"saturation='auto' needs a {name} of integers, whose range ends, got dtype "
            f"{image.dtype}; pass (low, high)"
        )
        raise ValueError(msg)
    ends = np.iinfo(image.dtype)
    most = int(image[:, :].max())
    return float(ends.min), float(most if most in _FEWER_BITS else ends.max)


def as_mask(value: Any, name: str, shape: tuple[int, ...]) -> BoolArray:
    """Return ``value`` as a mask, True where it is not zero."""
    mask = unmasked(value, name, _JOINED)
    if mask.dtype.kind not in "biu":
        msg = (
            f"{name} must be of bool, True where a pixel is bad (or of integer flags, 0 where it "
            f"is good), got dtype {mask.dtype}"
        )
        raise TypeError(msg)
    mask = _same_shape(mask, name, shape)
    return mask if mask.dtype.kind == "b" else mask != 0


def as_numbers(value: Any, name: str, shape: tuple[int, ...]) -> AnyArray:
    """Return ``value`` as real numbers, one a pixel, not yet checked for their range."""
    array = unmasked(value, name, _JOINED)
    if array.dtype.kind not in "biuf":
        msg = f"{name} must be real numbers, got dtype {array.dtype}"
        raise TypeError(msg)
    if array.ndim == 0 and name == "source_variance":
        return np.broadcast_to(array, shape)
    return _same_shape(array, name, shape)


def _same_shape(array: AnyArray, name: str, shape: tuple[int, ...]) -> AnyArray:
    if array.shape != shape:
        of = "source" if name.startswith("source") else "result"
        msg = f"{name} must have the shape {shape} of {of}, one number a pixel, got {array.shape}"
        raise ValueError(msg)
    return array


def observe(
    source: AnyArray,
    result: AnyArray,
    own: tuple[BoolArray | None, BoolArray | None],
    rules: PixelRules,
    channel_axis: int | None,
) -> list[Observed]:
    """Return a pair of images, or one a channel, with what is said of their pixels.

    Parameters
    ----------
    source, result : arrays
        Of two dimensions, or of three with ``channel_axis``.
    own : (bool array or None, bool array or None)
        Masks that the images carry.
    rules : PixelRules
        What is said of them beside.
    channel_axis : int or None
        Which axis holds channels. A mask without it is that of all channels.
    """

    def split(image: AnyArray | None, like: AnyArray) -> list[Any]:
        if channel_axis is None:
            return [image]
        count = like.shape[channel_axis]
        if image is None or image.ndim == 2:
            return [image] * count
        return list(as_channels(image, channel_axis))

    def given(name: str, like: AnyArray, cast: Callable[..., Any]) -> list[Any]:
        value = getattr(rules, name)
        if value is None:
            return split(None, like)
        shape = like.shape
        if channel_axis is not None and np.ndim(value) == 2:
            shape = tuple(np.delete(shape, channel_axis).tolist())
        return split(cast(value, name, shape), like)

    parts = zip(
        split(source, source),
        split(result, result),
        split(own[0], source),
        split(own[1], result),
        given("source_mask", source, as_mask),
        given("mask", result, as_mask),
        given("weights", result, as_numbers),
        given("source_variance", source, as_numbers),
        strict=True,
    )
    return [_observed(rules, *part) for part in parts]


def _observed(
    rules: PixelRules,
    source: AnyArray,
    result: AnyArray,
    source_own: BoolArray | None,
    result_own: BoolArray | None,
    source_mask: BoolArray | None,
    mask: BoolArray | None,
    weights: AnyArray | None,
    variance: AnyArray | None,
) -> Observed:
    source_bad, result_bad = _union(source_own, source_mask), _union(result_own, mask)
    if rules.saturation is not None:
        low, high = _limits(rules.saturation, result, "result")
        result_bad = _union(result_bad, (result[:, :] <= low) | (result[:, :] >= high))
        _, high = _limits(rules.saturation, source, "source")
        source_bad = _union(source_bad, source[:, :] >= high)
    if rules.nan_policy == "omit":
        source_bad = _union(source_bad, _not_finite(source))
        result_bad = _union(result_bad, _not_finite(result))
    if weights is not None:
        zero, weights = _checked_weights(weights, result_bad, rules.nan_policy)
        result_bad = _union(result_bad, zero)
    if variance is not None:
        _refuse_numbers("source_variance", variance, source_bad, "; mask such pixels")
    return Observed(source, result, source_bad, result_bad, weights, variance)


def _union(one: BoolArray | None, other: BoolArray | None) -> BoolArray | None:
    """Return where either is set; None where none is."""
    if other is None or not other.any():
        return one
    return other if one is None else one | other


def _not_finite(image: AnyArray) -> BoolArray | None:
    return ~np.isfinite(image[:, :]) if image.dtype.kind == "f" else None


def _checked_weights(
    weights: AnyArray, bad: BoolArray | None, nan_policy: NanPolicy
) -> tuple[BoolArray | None, AnyArray | None]:
    """Return where weights leave pixels out, and the weights unless all others are 1."""
    if nan_policy == "omit" and weights.dtype.kind == "f":
        bad = _union(bad, np.isnan(weights))
    least, largest = float(weights.min()), float(weights.max())
    if bad is None and 0 < least <= largest < math.inf:  # as most are
        return None, None if least == largest == 1 else weights
    _refuse_numbers("weights", weights, bad, "; 0 leaves a pixel out")
    good = weights > 0
    if bad is not None:
        good &= ~bad
    alike = weights.dtype.kind == "b" or bool((weights[good] == 1).all())
    return (None if good.all() else ~good), None if alike else weights


def _refuse_numbers(name: str, numbers: AnyArray, bad: BoolArray | None, advice: str) -> None:
    """Raise for the first number of a good pixel that is negative or not finite."""
    wrong = ~((numbers >= 0) & (numbers < math.inf))
    if bad is not None:
        wrong &= ~bad
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        msg = f"{name} must be finite and at least 0, got {numbers[place]} at index {place}{advice}"
        raise ValueError(msg)
