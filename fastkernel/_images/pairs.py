"""Pairs of images that share one kernel, and which of their pixels belong together."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self, cast

import numpy as np

from fastkernel._images.borders import load, source_index
from fastkernel._images.checks import (
    as_channels,
    as_image,
    refuse_non_finite,
    refuse_overflow,
)
from fastkernel._images.lazy import LazyImage, LazyPart
from fastkernel._images.masks import parted, refuse_masked
from fastkernel._images.remembered import WeakImages
from fastkernel._images.usable import Observed, PixelRules, observe
from fastkernel._images.windows import Window, Within, window_of_pair
from fastkernel._loops import design_rows
from fastkernel._machine.tiles import split
from fastkernel._typing import AnyArray, BoolArray, Boundary, FloatArray, Images, Shape

# What helps where a pixel is not finite.
OMIT = "nan_policy='omit' leaves such pixels out"

# Rows of a window that are looked at at a time.
_STRIP_ROWS = 256


class Cleaned:
    """An image whose bad pixels read as zeros: whatever stands there has no part in a sum.

    Parameters
    ----------
    image : (m, n) array
        In memory.
    bad : (m, n) bool array
        Where.
    """

    def __init__(self, image: AnyArray, bad: BoolArray) -> None:
        self.image, self.bad = image, bad
        self.shape, self.dtype, self.ndim, self.size = image.shape, image.dtype, 2, image.size

    def __getitem__(self, key: Any) -> AnyArray:
        part = np.array(self.image[key])
        part[self.bad[key]] = 0
        return part

    @classmethod
    def of(cls, image: Any, bad: BoolArray) -> AnyArray:
        """Return an image some more of whose pixels read as zeros; itself if none do."""
        if bad.any():
            bad = bad | image.bad if isinstance(image, cls) else bad
            image = cls(getattr(image, "image", image), bad)
        return cast(AnyArray, image)

    def good(self) -> AnyArray:
        """Return the pixels that are not bad, one after the other."""
        return np.asarray(self.image[~self.bad])


class Pair(NamedTuple):
    """A source, its result, which of their pixels belong together, and what these are worth.

    Attributes
    ----------
    source, result : arrays
        Each an array, a `LazyImage` or a `Cleaned` one; in memory unless the pair is even.
    window : Window
        Which pixels belong together.
    used : bool array of the window's shape, or None
        Which of them are fitted; None for all.
    weights : real array of the window's shape, or None
        Their weights where they are used; None for 1.
    source_variance : real array of the source's shape, or None
        Of the source's noise.
    which : str
        ``[i]`` in messages about one of several pairs.
    part_of : Within or None
        Where the window stands in that of a whole image; None where it is the whole.
    """

    source: AnyArray
    result: AnyArray
    window: Window
    used: BoolArray | None = None
    weights: AnyArray | None = None
    source_variance: AnyArray | None = None
    which: str = ""
    part_of: Within | None = None

    @property
    def within(self) -> Within:
        """Where the window stands in that over which backgrounds are known."""
        return self.part_of or Within((0, 0), self.window.shape)

    @property
    def even(self) -> bool:
        """Whether every pixel counts as the next."""
        return self.used is None and self.weights is None

    @property
    def lazy(self) -> bool:
        """Whether an image is read by slices."""
        return isinstance(self.source, LazyImage) or isinstance(self.result, LazyImage)

    @property
    def n_pixels(self) -> int:
        """How many pixels are fitted."""
        return self.window.n_pixels if self.used is None else int(np.count_nonzero(self.used))

    @property
    def total_weight(self) -> float:
        """Sum of the weights of the pixels that are fitted."""
        if self.weights is None:
            return float(self.n_pixels)
        part = True if self.used is None else self.used
        return float(np.sum(self.weights, dtype=np.float64, where=part))

    def load_weights(self, top: int, left: int, out: FloatArray) -> None:
        """Fill ``out`` with the weights of a tile, 0 where a pixel is not fitted."""
        tile = slice(top, top + out.shape[0]), slice(left, left + out.shape[1])
        if self.weights is not None:
            np.copyto(out, self.weights[tile], casting="unsafe")
            if self.used is not None:
                np.copyto(out, 0.0, where=~self.used[tile])
        elif self.used is not None:
            np.copyto(out, self.used[tile])
        else:
            out.fill(1.0)


class Fitted(NamedTuple):
    """Which pixels of a pair were fitted.

    Attributes
    ----------
    source_shape, result_shape : (int, int)
        Of the images.
    window : Window
        Which pixels belong together.
    used : bool array of the window's shape, or None
        Which of them were fitted; None for all.
    images : WeakImages
        The images, while they live.
    """

    source_shape: Shape
    result_shape: Shape
    window: Window
    used: BoolArray | None
    images: WeakImages = WeakImages()

    @classmethod
    def of(cls, pair: Pair) -> Self:
        """Return what is kept of a pair, whose images are not kept alive."""
        (m, n), (rows, cols) = pair.source.shape, pair.result.shape
        images = WeakImages(pair.source, pair.result)
        return cls((m, n), (rows, cols), pair.window, pair.used, images)

    def of_whole(self, source: AnyArray, result: AnyArray, window: Window) -> Self:
        """Return the same pixels as those of images of which the fitted ones are parts."""
        (m, n), (rows, cols) = source.shape, result.shape
        images = WeakImages(source, result)
        return self._replace(
            source_shape=(m, n), result_shape=(rows, cols), window=window, images=images
        )

    def mask(self) -> BoolArray:
        """Return which pixels of the result were fitted."""
        out = np.zeros(self.result_shape, np.bool_)
        (top, left), (height, width) = self.window.result_origin, self.window.shape
        out[top : top + height, left : left + width] = True if self.used is None else self.used
        return out


def pair_of(
    images: Observed,
    kernel_shape: Shape,
    boundary: Boundary | None,
    window: Window | None = None,
) -> Pair:
    """Return images with the window that their shapes tell, and which pixels of it are fitted.

    A window that is known is taken as it is.

    Raises
    ------
    ValueError
        If the shapes do not fit together, or the kernel does not fit inside.
    """
    source, result = images.source, images.result
    window = window or window_of_pair(source.shape, result.shape, kernel_shape, boundary)
    if all(part is None for part in images[2:-1]):
        return Pair(source, result, window, which=images.which)
    source, result = in_memory(source), in_memory(result)
    (top, left), (height, width) = window.result_origin, window.shape
    inside = slice(top, top + height), slice(left, left + width)
    weights = None if images.weights is None else images.weights[inside]
    used, variance = None, images.source_variance
    if images.result_bad is not None:
        result = cast(AnyArray, Cleaned(result, images.result_bad))
        used = ~images.result_bad[inside]
    if images.source_bad is not None:
        source = cast(AnyArray, Cleaned(source, images.source_bad))
        if variance is not None:
            variance = cast(AnyArray, Cleaned(variance, images.source_bad))
        used = np.ones(window.shape, np.bool_) if used is None else used
        spread(images.source_bad, window.source_origin, window.boundary, kernel_shape, used)
    if used is not None and used.all():
        used = None
    return Pair(source, result, window, used, weights, variance, images.which)


def spread(
    bad: BoolArray, origin: Shape, boundary: Boundary, kernel_shape: Shape, used: BoolArray
) -> None:
    """Clear the pixels of a window that a kernel makes of bad ones, a strip of rows at a time."""
    (p, q), (height, width) = kernel_shape, used.shape
    cols = width + q - 1
    for top, bottom in split(height, _STRIP_ROWS):
        around = np.empty((bottom - top + p - 1, cols), np.uint8)
        lines = np.empty((bottom - top, cols), np.uint8)
        load(bad, (origin[0] + top, origin[1]), boundary, around)
        design_rows.spread(around, kernel_shape, lines, used[top:bottom].view(np.uint8))


def unseen(pair: Pair, kernel_shape: Shape) -> BoolArray:
    """Return which pixels of the source come into no pixel that is fitted, some of which are not.

    Parameters
    ----------
    pair : Pair
        Of images in memory.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.

    Returns
    -------
    (m, n) bool array
        Of the source's shape.
    """
    (p, q), (height, width), window = kernel_shape, pair.window.shape, pair.window
    out = np.ones((height + p - 1, width + q - 1), np.bool_)
    spread(cast(BoolArray, pair.used), (1 - p, 1 - q), "zero", kernel_shape, out)
    # What a border rule repeats is seen where any of its places is.
    axes = zip((out, out.T), window.source_origin, pair.source.shape, strict=True)
    for lines, start, length in axes:
        places = source_index(start, start + len(lines), length, window.boundary) - start
        beyond = (places != np.arange(len(lines))) & (places >= -start)
        for line in np.flatnonzero(beyond):
            lines[places[line]] &= lines[line]
    top, left = window.source_origin
    return out[-top : pair.source.shape[0] - top, -left : pair.source.shape[1] - left]


def as_pairs(
    source: Images, result: Images, channel_axis: int | None, rules: PixelRules | None = None
) -> list[Observed]:
    """Return the pairs of images that share one kernel."""
    rules = rules or PixelRules()
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
        return _numbered(_channels(source, result, "", channel_axis, rules))
    sources, results = list(cast(Any, source)), list(cast(Any, result))
    if len(sources) != len(results):
        msg = (
            "source and result must hold the same number of images, "
            f"got {len(sources)} and {len(results)}"
        )
        raise ValueError(msg)
    return _numbered(
        [
            pair
            for i, images in enumerate(zip(sources, results, strict=True))
            for pair in _channels(*images, f"[{i}]", channel_axis, rules.of(i, len(sources)))
        ]
    )


def _numbered(pairs: list[Observed]) -> list[Observed]:
    if len(pairs) == 1:
        return pairs
    return [pair._replace(which=f"[{i}]") for i, pair in enumerate(pairs)]


def _is_sequence(value: Any) -> bool:
    """Tell a list of images from an image written as a list of rows of numbers."""
    if not isinstance(value, list | tuple) or not value:
        return False
    return np.ndim(parted(value[0])[0]) >= 2


def _channels(
    source: Any, result: Any, index: str, channel_axis: int | None, rules: PixelRules
) -> list[Observed]:
    ndim = 2 if channel_axis is None else 3
    (source, source_own), (result, result_own) = parted(source), parted(result)
    x = as_image(source, f"source{index}", ndim, lazy=ndim == 2)
    y = as_image(result, f"result{index}", ndim, lazy=ndim == 2)
    if channel_axis is not None:
        counts = [len(as_channels(image, channel_axis)) for image in (x, y)]
        if counts[0] != counts[1]:
            msg = (
                f"source{index} and result{index} must have the same number of channels, "
                f"got {counts[0]} and {counts[1]}"
            )
            raise ValueError(msg)
    return observe(x, y, (source_own, result_own), rules, channel_axis)


def refuse_uneven(images: Sequence[Observed], method: str) -> None:
    """Raise for a method that cannot leave a pixel out."""
    for name in ("source", "result"):
        bad = [getattr(pair, f"{name}_bad") for pair in images]
        count = sum(int(np.count_nonzero(part)) for part in bad if part is not None)
        if count:
            msg = (
                f"{name} must not be masked for method={method!r}, which cannot leave a pixel "
                f"out, got a mask that is set at {count} pixels; use method='lstsq' or 'lad', or "
                "crop to pixels that are good"
            )
            raise ValueError(msg)


def used_images(pairs: Sequence[Pair]) -> Iterator[tuple[str, AnyArray, Shape]]:
    """Yield what is read of pairs: its name in a message, its pixels, and where they begin."""
    for pair in pairs:
        (top, left), (height, width) = pair.window.result_origin, pair.window.shape
        first, place = (0, 0), pair.window.result_origin
        if pair.part_of is not None:
            # Counted from the first pixel of the whole's window.
            place, (row, col) = pair.part_of.origin, pair.window.source_origin
            first = place[0] - row, place[1] - col
        yield f"source{pair.which}", pair.source, first
        yield f"result{pair.which}", window_of(pair.result, (top, left), (height, width)), place


def window_of(image: AnyArray, origin: Shape, shape: Shape) -> AnyArray:
    """Return a part of an image, which is not read yet where the image is read by slices."""
    if isinstance(image, LazyImage):
        return cast(AnyArray, LazyPart(image, origin, shape))
    return image[origin[0] : origin[0] + shape[0], origin[1] : origin[1] + shape[1]]


def in_memory(image: AnyArray) -> AnyArray:
    """Return an image as an array, read as a whole where it is read by slices."""
    return image[:, :] if isinstance(image, LazyImage) else image


def held(pairs: Sequence[Pair]) -> list[Pair]:
    """Return pairs whose images are in memory, for methods that read them again and again."""
    return [
        pair._replace(source=in_memory(pair.source), result=in_memory(pair.result))
        for pair in pairs
    ]


def refuse_unusable(
    pairs: Sequence[Pair], gram: FloatArray, moments: FloatArray, energy: float
) -> None:
    """Raise if sums show that a pixel is not finite, or that its products are not."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(gram.sum()) + float(moments.sum()) + energy
    if math.isfinite(total):
        return  # as nearly always: no sum is finite if a part of it is not
    if np.isfinite(gram).all() and np.isfinite(moments).all() and math.isfinite(energy):
        return
    for name, image, origin in used_images(pairs):
        refuse_non_finite(name, image, origin, OMIT)
    refuse_overflow()
