"""Images cropped so that their shapes fit a kernel: views, no copies."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from fastkernel._images.pairs import in_memory
from fastkernel._images.usable import Observed
from fastkernel._images.windows import Window, window_of_pair
from fastkernel._typing import AnyArray, Boundary, Shape


class Crop(NamedTuple):
    """A part of a source and of its result.

    Attributes
    ----------
    source, result : (slice, slice)
        Rows and columns that are left of each.
    """

    source: tuple[slice, slice]
    result: tuple[slice, slice]

    @property
    def origin(self) -> Shape:
        """Where the first pixel that is left of the result stood in it."""
        return self.result[0].start, self.result[1].start

    def then(self, other: "Crop") -> "Crop":
        """Return the part of the images that another crop leaves of this one."""
        return Crop(*(_within(*spans) for spans in zip(self, other, strict=True)))

    def window(self, kernel_shape: Shape, boundary: Boundary | None) -> Window:
        """Return which pixels of the whole images belong together, told by the parts' shapes.

        Raises
        ------
        ValueError
            As `window_of_pair`.
        """
        shapes = _shape(self.source), _shape(self.result)
        return self.whole(window_of_pair(*shapes, kernel_shape, boundary))

    def whole(self, window: Window) -> Window:
        """Return a window of the parts as one of the whole images."""
        return replace(
            window,
            source_origin=window.source_pixel(self.source[0].start, self.source[1].start),
            result_origin=window.result_pixel(*self.origin),
        )

    def of(self, images: Observed) -> Observed:
        """Return parts of two images, with what is known of their pixels."""

        def known(image: AnyArray | None, where: tuple[slice, slice]) -> AnyArray | None:
            return None if image is None else image[where]

        return Observed(
            in_memory(images.source)[self.source],
            in_memory(images.result)[self.result],
            known(images.source_bad, self.source),
            known(images.result_bad, self.result),
            known(images.weights, self.result),
            known(images.source_variance, self.source),
        )


def lost(source_shape: tuple[int, ...], result_shape: tuple[int, ...]) -> Shape:
    """Return how many rows and columns a result has fewer than its source.

    Raises
    ------
    ValueError
        If it has fewer along one axis and more along the other: no kernel leaves such a result.
    """
    (m, n), (rows, cols) = source_shape, result_shape
    if (m - rows) * (n - cols) < 0:
        msg = (
            f"result must be as large as source {(m, n)}, smaller ('valid') or larger ('full'), "
            f"along both axes, got {(rows, cols)}"
        )
        raise ValueError(msg)
    return m - rows, n - cols


def told_shape(images: Observed) -> Shape | None:
    """Return the kernel that the images' shapes tell; None where these are alike."""
    rows, cols = lost(images.source.shape, images.result.shape)
    return None if (rows, cols) == (0, 0) else (abs(rows) + 1, abs(cols) + 1)


def largest_shape(images: Sequence[Observed], most: int) -> Shape:
    """Return the largest kernel worth looking for.

    It has at most ``most`` rows and columns, is not past a third of any image's side, and not past
    what shapes tell, unless that would be a kernel of so many taps that a result of these shapes
    must have been cropped for another reason.
    """
    told = [shape for pair in images if (shape := told_shape(pair)) is not None]
    sides = [pair.result.shape for pair in images]
    return (
        _largest([side[0] for side in sides], [shape[0] for shape in told], most),
        _largest([side[1] for side in sides], [shape[1] for shape in told], most),
    )


def _largest(sides: Sequence[int], told: Sequence[int], most: int) -> int:
    if told and min(told) <= 2 * most + 1:
        most = min(told)
    return max(1, min(most, (min(sides) + 1) // 3))


def fit_crop(
    source_shape: tuple[int, ...], result_shape: tuple[int, ...], kernel_shape: Shape
) -> Crop:
    """Return the parts of a "valid" or "full" pair that are one of a kernel of some shape.

    The kernel's centre tap stays where it was: that of the kernel that the shapes tell. A "same"
    pair is left whole. A "full" one whose kernel would be larger than the shapes tell becomes a
    "same" one, for which zeros beyond the frame are known.
    """
    missing = lost(source_shape, result_shape)
    sides = list(zip(source_shape, result_shape, kernel_shape, strict=True))
    if missing == (0, 0):
        spans = [(slice(0, m), slice(0, n)) for m, n, _ in sides]
    elif min(missing) < 0 and any(m + k - 1 > n for m, n, k in sides):
        spans = [_centred(m, n, 1) for m, n, _ in sides]
    else:
        spans = [_centred(*side) for side in sides]
    (rows, below), (cols, right) = spans
    return Crop((rows, cols), (below, right))


def _centred(m: int, n: int, k: int) -> tuple[slice, slice]:
    """Return the pixels of a line of the source and of the result that a kernel's size goes with.

    A result's pixel ``t`` stands on the source's pixel ``t + (m - n + 1) // 2``.
    """
    ahead = (m - n + 1) // 2
    if n > m:
        first = -ahead - (k - 1) // 2
        return slice(0, m), slice(first, first + m + k - 1)
    first = max(k // 2, ahead)
    last = min(m - (k - 1) // 2, ahead + n)
    return slice(first - k // 2, last + (k - 1) // 2), slice(first - ahead, last - ahead)


def move_crop(source_shape: tuple[int, ...], result_shape: tuple[int, ...], offset: Shape) -> Crop:
    """Return what a source and a result that was moved have in common.

    Their shapes differ by as much as they did; those of a "full" pair no longer do: what its
    result has beyond the source's frame is not in common.

    Parameters
    ----------
    source_shape, result_shape : (int, int)
        Of the images.
    offset : (int, int)
        By how many rows and columns the result was moved down and to the right.

    Raises
    ------
    ValueError
        If nothing is left in common.
    """
    if offset != (0, 0) and min(lost(source_shape, result_shape)) < 0:
        inside = fit_crop(source_shape, result_shape, (1, 1))
        source, (rows, cols) = move_crop(source_shape, source_shape, offset)
        top, left = inside.origin
        return Crop(source, (_later(rows, top), _later(cols, left)))
    spans = []
    for move, m, n in zip(offset, source_shape, result_shape, strict=True):
        if abs(move) >= min(m, n):
            msg = (
                f"offset must be smaller than the images, got {offset} for source "
                f"{tuple(source_shape)} and result {tuple(result_shape)}"
            )
            raise ValueError(msg)
        ahead, behind = max(move, 0), max(-move, 0)
        spans.append((slice(behind, m - ahead), slice(ahead, n - behind)))
    (rows, below), (cols, right) = spans
    return Crop((rows, cols), (below, right))


def _later(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def _within(outer: tuple[slice, slice], inner: tuple[slice, slice]) -> tuple[slice, slice]:
    rows, cols = (_later(part, whole.start) for whole, part in zip(outer, inner, strict=True))
    return rows, cols


def _shape(spans: tuple[slice, slice]) -> Shape:
    rows, cols = (span.stop - span.start for span in spans)
    return rows, cols


def crop_of(
    source_shape: tuple[int, ...],
    result_shape: tuple[int, ...],
    offset: Shape,
    kernel_shape: Shape | None,
) -> Crop:
    """Return how a pair is cropped that was moved, and then to the shape of a kernel if any."""
    crop = move_crop(source_shape, result_shape, offset)
    if kernel_shape is None:
        return crop
    return crop.then(fit_crop(_shape(crop.source), _shape(crop.result), kernel_shape))


def fitted_to(images: Observed, kernel_shape: Shape) -> Observed:
    """Return images cropped as `fit_crop` tells; a "same" pair as it is, read or not."""
    if images.source.shape == images.result.shape:
        return images
    return fit_crop(images.source.shape, images.result.shape, kernel_shape).of(images)


def moved(images: Observed, offset: Shape) -> Observed:
    """Return images cropped as `move_crop` tells; as they are where they were not moved."""
    if offset == (0, 0):
        return images
    return move_crop(images.source.shape, images.result.shape, offset).of(images)


def middle_of(images: Observed, side: int) -> Observed:
    """Return the middle of two images of one shape, of at most so many rows and columns."""
    starts = [(max(n - side, 0) // 2, min(n, side)) for n in images.source.shape]
    rows, cols = (slice(start, start + count) for start, count in starts)
    return Crop((rows, cols), (rows, cols)).of(images)
