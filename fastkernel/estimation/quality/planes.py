"""Results beside what a kernel predicts of them, some rows at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from fastkernel._images.borders import load
from fastkernel._images.checks import as_boundary
from fastkernel._images.crops import Crop
from fastkernel._images.levels import decode, encode, linear_white
from fastkernel._images.pairs import Pair, as_pairs, pair_of
from fastkernel._images.windows import Window, centre
from fastkernel._machine.tiles import split
from fastkernel._typing import AnyArray, BoolArray, Border, FloatArray, Images, Light, Shape
from fastkernel.convolution.convolve import convolved
from fastkernel.estimation.quality.facts import Plane, strip_rows


class _Predicting(Protocol):
    """A fit, as far as it predicts: `KernelFit`."""

    @property
    def kernel(self) -> FloatArray: ...
    @property
    def light(self) -> Light: ...
    def _beside(
        self, source_shape: Shape, window: Window, pair: int | None
    ) -> float | FloatArray | None: ...


def pairs_to_compare(
    source: Images,
    result: Images,
    kernel_shape: Shape,
    boundary: Border | None,
    channel_axis: int | None,
    used: Any,
    crop_of: Callable[[Shape, Shape], Crop],
) -> list[Pair]:
    """Return images as pairs, which of their pixels are compared included.

    ``crop_of`` tells from the shapes of a source and a result which parts of them go together.

    Raises
    ------
    TypeError, ValueError
        As `estimate_kernel`, for the images and ``boundary``; or if ``used`` is no mask of the
        result's shape, or of that of its compared pixels, for every pair.
    """
    rule = None if boundary is None else as_boundary(boundary)
    pairs = []
    for images in as_pairs(source, result, channel_axis):
        (m, n), (rows, cols) = images.source.shape, images.result.shape
        window = crop_of((m, n), (rows, cols)).window(kernel_shape, rule)
        pairs.append(pair_of(images, kernel_shape, rule, window))
    if used is None:
        return pairs
    masks = list(used) if isinstance(used, list | tuple) else [used]
    if len(masks) != len(pairs):
        msg = f"used must hold a mask for each of {len(pairs)} pairs, got {len(masks)}"
        raise ValueError(msg)
    return [with_mask(pair, mask) for pair, mask in zip(pairs, masks, strict=True)]


def with_mask(pair: Pair, mask: Any) -> Pair:
    """Return a pair of which only those pixels are compared where a mask is True."""
    if mask is None:
        return pair
    found: BoolArray = np.asarray(mask)
    window = pair.window
    if found.dtype != np.bool_ or found.shape not in (window.shape, pair.result.shape):
        msg = (
            f"used must be a mask of bool, True where a pixel was fitted, of the shape "
            f"{pair.result.shape} of result or {window.shape} of its compared pixels, got "
            f"{found.dtype} {found.shape}"
        )
        raise ValueError(msg)
    if found.shape != window.shape:
        (top, left), (rows, cols) = window.result_origin, window.shape
        found = found[top : top + rows, left : left + cols]
    return pair._replace(used=found if pair.used is None else found & pair.used)


def limits_of(pairs: Sequence[Pair]) -> tuple[float, float] | None:
    """Return the levels that whole numbers of at most 16 bits end at; None where results differ.

    Images of 0 and 1 alone have no levels in between at which they could end.
    """
    found = set()
    for pair in pairs:
        dtype = pair.result.dtype
        if dtype.kind not in "iu" or dtype.itemsize > 2:
            return None
        if isinstance(pair.result, np.ndarray) and _has_two_levels(pair.result):
            return None
        found.add((float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)))
    return found.pop() if len(found) == 1 else None


def _has_two_levels(image: AnyArray) -> bool:
    return bool(image.min() >= 0 and image.max() <= 1)


def planes_of(
    fit: _Predicting,
    pairs: Sequence[Pair],
    *,
    pair: int | None = None,
    limits: tuple[float, float] | None = None,
    workers: int,
) -> Iterator[tuple[int, Plane]]:
    """Yield what a fit leaves of pairs, some rows at a time, from the first to the last.

    Parameters
    ----------
    fit : KernelFit
        What predicts.
    pairs : sequence of Pair
        Of windows for its kernel.
    pair : int, optional
        Whose background it is, where a single pair is given and the fit has several; else the
        pairs are those of the fit.
    limits : (float, float), optional
        Levels that the result cannot pass, to which predictions are clipped.
    workers : int
        Threads to use.

    Yields
    ------
    index : int
        Of the pair.
    plane : Plane
        The next rows of its window, or what is left of them.
    """
    p, q = fit.kernel.shape
    # The centre tap, counted in a flipped kernel from its other side.
    i, j = p - 1 - centre((p, q))[0], q - 1 - centre((p, q))[1]
    for index, (source, result, window, used, *_) in enumerate(pairs):
        whose = index if len(pairs) > 1 else pair
        height, width = window.shape
        source_shape = source.shape[0], source.shape[1]
        whites = None
        if fit.light == "srgb":
            whites = linear_white(source, "source"), linear_white(result, "result")
        for top, bottom in split(height, strip_rows(width)):
            rows = bottom - top
            part = replace(
                window,
                source_origin=window.source_pixel(top, 0),
                result_origin=window.result_pixel(top, 0),
                shape=(rows, width),
            )
            around = np.empty((rows + p - 1, width + q - 1))
            load(source, part.source_origin, window.boundary, around)
            plain = Window((0, 0), (0, 0), part.shape, "zero")
            seen_through = around if whites is None else decode(around, whites[0])
            predicted = convolved(seen_through, fit.kernel, plain, workers)
            beside = fit._beside(source_shape, part, whose)
            if beside is not None:
                predicted += beside
            if whites is not None:
                predicted = encode(predicted, whites[1])
                around *= whites[1] / whites[0]
            if limits is not None:
                np.clip(predicted, *limits, out=predicted)
            (first, left) = part.result_origin
            seen = np.asarray(result[first : first + rows, left : left + width])
            residual = np.subtract(seen, predicted, out=predicted)
            mask = None if used is None else used[top:bottom]
            yield index, Plane(residual, around[i : i + rows, j : j + width], seen, mask)
