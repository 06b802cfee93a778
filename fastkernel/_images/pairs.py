"""Pairs of images that share one kernel, and which of their pixels belong together."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from fastkernel._images.checks import (
    as_channels,
    as_image,
    refuse_non_finite,
    refuse_overflow,
)
from fastkernel._images.lazy import LazyImage
from fastkernel._images.masks import refuse_masked
from fastkernel._images.windows import Window
from fastkernel._typing import AnyArray, FloatArray, Images, Shape


class Pair(NamedTuple):
    """A source, its result, and which of their pixels belong together."""

    source: AnyArray
    result: AnyArray
    window: Window


def as_pairs(
    source: Images, result: Images, channel_axis: int | None
) -> list[tuple[AnyArray, AnyArray]]:
    """Return the pairs of images that share one kernel."""
    several = _is_sequence(source)
    if several != _is_sequence(result):
        # What holds an array and is none does not look like an image.
        refuse_masked(source, "source")
        refuse_masked(result, "result")
        msg = (
            "source and result must both be images or both be sequences of images, "
            f"got {type(source).__name__} and {type(result).__name__}"
        )
        raise ValueError(msg)
    if not several:
        return list(_channels(source, result, "", channel_axis))
    sources, results = list(cast(Any, source)), list(cast(Any, result))
    if len(sources) != len(results):
        msg = (
            "source and result must hold the same number of images, "
            f"got {len(sources)} and {len(results)}"
        )
        raise ValueError(msg)
    return [
        pair
        for i, images in enumerate(zip(sources, results, strict=True))
        for pair in _channels(*images, f"[{i}]", channel_axis)
    ]


def _is_sequence(value: Any) -> bool:
    """Tell a list of images from an image written as a list of rows of numbers."""
    return isinstance(value, list | tuple) and len(value) > 0 and np.ndim(value[0]) >= 2


def _channels(
    source: Any, result: Any, index: str, channel_axis: int | None
) -> Iterator[tuple[AnyArray, AnyArray]]:
    ndim = 2 if channel_axis is None else 3
    x = as_image(source, f"source{index}", ndim, lazy=ndim == 2)
    y = as_image(result, f"result{index}", ndim, lazy=ndim == 2)
    if channel_axis is None:
        yield x, y
        return
    x, y = as_channels(x, channel_axis), as_channels(y, channel_axis)
    if len(x) != len(y):
        msg = (
            f"source{index} and result{index} must have the same number of channels, "
            f"got {len(x)} and {len(y)}"
        )
        raise ValueError(msg)
    yield from zip(x, y, strict=True)


def used_images(pairs: Sequence[Pair]) -> Iterator[tuple[str, AnyArray, Shape]]:
    """Yield what is read of pairs: its name in a message, its pixels, and where they begin."""
    for i, (source, result, window) in enumerate(pairs):
        (top, left), (height, width) = window.result_origin, window.shape
        index = f"[{i}]" if len(pairs) > 1 else ""
        yield f"source{index}", source, (0, 0)
        used = result[top : top + height, left : left + width]
        yield f"result{index}", used, window.result_origin


def in_memory(image: AnyArray) -> AnyArray:
    """Return an image as an array, read as a whole where it is read by slices."""
    return image[:, :] if isinstance(image, LazyImage) else image


def held(pairs: Sequence[Pair]) -> list[Pair]:
    """Return pairs whose images are in memory, for methods that read them again and again."""
    return [Pair(in_memory(pair.source), in_memory(pair.result), pair.window) for pair in pairs]


def refuse_unusable(
    pairs: Sequence[Pair], gram: FloatArray, moments: FloatArray, energy: float
) -> None:
    """Raise if sums show that a pixel is not finite, or that its products are not."""
    if np.isfinite(gram).all() and np.isfinite(moments).all() and math.isfinite(energy):
        return
    for i, (source, result, window) in enumerate(pairs):
        (top, left), (height, width) = window.result_origin, window.shape
        index = f"[{i}]" if len(pairs) > 1 else ""
        used = result[top : top + height, left : left + width]
        refuse_non_finite(f"source{index}", source)
        refuse_non_finite(f"result{index}", used, window.result_origin)
    refuse_overflow()
