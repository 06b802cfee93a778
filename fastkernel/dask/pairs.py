"""A pair of images on a cluster: what of both every cell reads, and what is wrong with it."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from dask.base import optimize

from fastkernel._images.checks import as_boundary, as_count, as_kernel_shape
from fastkernel._images.pairs import OMIT
from fastkernel._images.usable import PixelRules
from fastkernel._images.windows import Window, window_of_pair
from fastkernel._typing import AnyArray, BoolArray, Boundary, Shape
from fastkernel.dask.cells import (
    PART_BYTES,
    Cells,
    Edges,
    Rect,
    cut,
    merged,
    nearest,
    sides,
    within,
)
from fastkernel.dask.inputs import Image, as_image, as_like
from fastkernel.dask.reading import Part, Reading, View

# The part of the pixels' bytes that sums over them are at most, with batch="auto".
_SHARE = 1 / 16


@dataclass(frozen=True)
class ClusterPair:
    """A source and a result on a cluster, and what is said of their pixels.

    Attributes
    ----------
    images : dict of Image
        "source", "result", and those that there are of "weights", "mask" and "source_mask".
    rules : dict
        ``saturation`` and ``nan_policy``.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    boundary : str or None
        What stood beyond the source's frame, where that is known.
    window : Window
        Which pixels belong together.
    """

    images: dict[str, Image]
    rules: dict[str, Any]
    kernel_shape: Shape
    boundary: Boundary | None
    window: Window

    @property
    def source(self) -> Image:
        """The source."""
        return self.images["source"]

    @property
    def result(self) -> Image:
        """The result."""
        return self.images["result"]

    def readings(self) -> list[tuple[Reading, Image]]:
        """Return how every image is read."""
        return [(self._reading(name, image), image) for name, image in self.images.items()]

    def _reading(self, name: str, image: Image) -> Reading:
        what = name, image.shape, image.dtype, image.store
        if not name.startswith("source"):
            return Reading(*what, self.window.result_origin)
        margin = self.kernel_shape[0] - 1, self.kernel_shape[1] - 1
        return Reading(*what, self.window.source_origin, margin, self.window.boundary)

    def cells(self, batch: Any, sums_bytes: int, whole: Edges | None = None) -> Cells:
        """Return cells of so many chunks of the result, or the fewest that suit their sums.

        Parameters
        ----------
        batch : int or "auto"
            How many chunks.
        sums_bytes : int
            Of what a cell comes to.
        whole : pair of lists of int, optional
            Edges of what no cell and no part of one may cut; those of chunks if None.
        """
        (top, left), (height, width) = self.window.result_origin, self.window.shape
        rows, cols = self.result.edges
        edges = within(rows, top, height), within(cols, left, width)
        bytes_a_pixel = self.source.dtype.itemsize + self.result.dtype.itemsize
        if batch == "auto":
            least = sides(edges, sums_bytes / (_SHARE * bytes_a_pixel))
            bounds = merged(edges[0], least[0]), merged(edges[1], least[1])
        else:
            across = min(math.isqrt(batch), len(edges[1]) - 1)
            bounds = _every(edges[0], batch // across), _every(edges[1], across)
        if whole is not None:
            bounds = nearest(whole[0], bounds[0]), nearest(whole[1], bounds[1])
        return cut(whole or edges, bounds, sides(edges, PART_BYTES / bytes_a_pixel))


def _every(line: list[int], count: int) -> list[int]:
    """Return the edges between so many chunks each."""
    return [*line[:-1:count], line[-1]]


def as_pair(
    source: Any, result: Any, kernel_shape: Any, boundary: Any, rules: PixelRules
) -> ClusterPair:
    """Return the arguments that say what is fitted, checked one by one."""
    shape = as_kernel_shape(kernel_shape)
    rule = None if boundary is None else as_boundary(boundary)
    images = {"source": as_image(source, "source"), "result": as_image(result, "result")}
    window = window_of_pair(images["source"].shape, images["result"].shape, shape, rule)
    for name, of in (("weights", "result"), ("mask", "result"), ("source_mask", "source")):
        value = getattr(rules, name)
        if value is not None:
            images[name] = as_like(value, name, images[of])
    if rules.saturation == "auto":
        msg = (
            "saturation='auto' looks for the largest pixel, which takes a pass of its own on a "
            "cluster; pass (low, high)"
        )
        raise ValueError(msg)
    # Chains of work on the same chunk become one task, which `Delayed` does not do.
    arrays = {name: image.array for name, image in images.items() if image.array is not None}
    for name, array in zip(arrays, optimize(*arrays.values()), strict=True):
        images[name] = replace(images[name], array=array)
    ends = None
    if rules.saturation is not None:
        ends = tuple(end if math.isfinite(end) else None for end in rules.saturation)
    told = {"saturation": ends, "nan_policy": rules.nan_policy}
    return ClusterPair(images, told, shape, rule, window)


def as_batch(value: Any) -> Any:
    """Return a number of chunks, or "auto"."""
    return value if isinstance(value, str) and value == "auto" else as_count(value, "batch")


class Pixels:
    """What a task reads of a part of a pair.

    Parameters
    ----------
    views : list of View
        The images.
    rect : (int, int, int, int)
        The part.
    """

    def __init__(self, views: list[View], rect: Rect) -> None:
        self._parts = {view.reading.name: view.read(rect) for view in views}

    def __getitem__(self, name: str) -> Part:
        return self._parts[name]

    def without(self, bad: BoolArray) -> Pixels:
        """Return the same less some pixels of the result."""
        other = copy(self)
        part = self._parts["result"]
        own = bad if part.bad is None else bad | part.bad
        other._parts = {**self._parts, "result": part._replace(bad=own)}
        return other

    def options(self) -> dict[str, Any]:
        """Return what is said of the pixels, by the arguments that take it."""
        weights = self._parts.get("weights")
        masks = {
            "mask": _union(self._parts["result"].bad, self._parts.get("mask")),
            "source_mask": _union(self._parts["source"].bad, self._parts.get("source_mask")),
        }
        return {"weights": None if weights is None else weights.pixels, **masks}

    def refuse_unusable(self) -> None:
        """Raise for a pixel or a weight that is not finite, by its index in the whole image."""
        options = self.options()
        bad = {"source": options["source_mask"], "result": options["mask"]}
        bad["weights"] = bad["result"]
        for name, part in self._parts.items():
            if part.pixels.dtype.kind != "f":
                continue
            wrong = ~np.isfinite(part.pixels)
            if name == "weights":
                wrong |= part.pixels < 0
            if bad.get(name) is not None:
                wrong &= bad[name] == 0
            if wrong.any():
                row, col = np.argwhere(wrong)[0]
                _refuse_pixel(name, part.pixels[row, col], part.place(row, col))


def _refuse_pixel(name: str, pixel: Any, index: Shape) -> None:
    rule, advice = "finite", OMIT
    if name == "weights":
        rule, advice = "finite and at least 0", "0 leaves a pixel out"
    msg = f"{name} must be {rule}, got {pixel} at index {index}; {advice}"
    raise ValueError(msg)


def _union(own: AnyArray | None, given: Part | None) -> AnyArray | None:
    """Return the mask of an image and the one that is given beside it as one."""
    if given is None:
        return own
    mask = given.pixels
    return mask if own is None else own | (mask != 0)
