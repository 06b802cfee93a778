"""Stamps: where the small images of a stack come from, some of them at a time."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fastkernel._images.borders import load
from fastkernel._images.checks import as_image, as_shape, as_stack
from fastkernel._images.windows import Window, window_of_pair
from fastkernel._typing import AnyArray, BoolArray, Boundary, Shape

BEYOND = "the stamp reaches beyond the images"


class Stamps(Protocol):
    """Small pairs of one shape."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def window_shape(self) -> Shape:
        """Result pixels of each."""

    @property
    def images(self) -> tuple[AnyArray, AnyArray]:
        """Where the sources and the results stand."""

    def read(self, first: int, x: AnyArray, y: AnyArray) -> BoolArray:
        """Fill (n, ...) sources and results from pair ``first`` on; return which there are."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Pairs along the first axis of two arrays."""

    sources: AnyArray
    results: AnyArray
    window: Window

    @property
    def count(self) -> int:
        """How many pairs there are."""
        return len(self.sources)

    @property
    def window_shape(self) -> Shape:
        """Result pixels of each."""
        return self.window.shape

    @property
    def images(self) -> tuple[AnyArray, AnyArray]:
        """See `Stamps`."""
        return self.sources, self.results

    def read(self, first: int, x: AnyArray, y: AnyArray) -> BoolArray:
        """See `Stamps`."""
        (top, left), (height, width) = self.window.result_origin, self.window.shape
        part = slice(first, first + len(x))
        y[...] = self.results[part, top : top + height, left : left + width]
        if self.window.source_origin == (0, 0) and x.shape[1:] == self.sources.shape[1:]:
            x[...] = self.sources[part]
        else:
            for image, out in zip(self.sources[part], x, strict=True):
                load(image, self.window.source_origin, self.window.boundary, out)
        return np.ones(len(x), np.bool_)


@dataclass(frozen=True, slots=True)
class Places:
    """Parts of one pair of images, around places of it."""

    source: AnyArray
    result: AnyArray
    window: Window
    centres: AnyArray
    shape: Shape

    @property
    def count(self) -> int:
        """How many parts there are."""
        return len(self.centres)

    @property
    def window_shape(self) -> Shape:
        """Result pixels of each."""
        return self.shape

    @property
    def images(self) -> tuple[AnyArray, AnyArray]:
        """See `Stamps`."""
        return self.source, self.result

    def read(self, first: int, x: AnyArray, y: AnyArray) -> BoolArray:
        """See `Stamps`."""
        height, width = self.window_shape
        (row, col), (rows, cols) = self.window.result_origin, self.window.shape
        there = np.zeros(len(x), np.bool_)
        for i, (r, c) in enumerate(self.centres[first : first + len(x)].tolist()):
            # Places count the result's pixels; windows count those that can be fitted.
            top, left = r - (height - 1) // 2 - row, c - (width - 1) // 2 - col
            if not (0 <= top <= rows - height and 0 <= left <= cols - width):
                x[i] = y[i] = 0
                continue
            there[i] = True
            load(self.source, self.window.source_pixel(top, left), self.window.boundary, x[i])
            load(self.result, self.window.result_pixel(top, left), "zero", y[i])
        return there


def as_stamps(
    sources: Any,
    results: Any,
    kernel_shape: Shape,
    boundary: Boundary | None,
    centres: Any,
    stamp_shape: Any,
) -> Stamps:
    """Return the arguments of `estimate_kernels` as stamps, checked one by one."""
    if (centres is None) != (stamp_shape is None):
        msg = (
            "centres and stamp_shape go together: the places of stamps in one pair of images, and "
            f"their size; got centres={'None' if centres is None else 'an array'}, "
            f"stamp_shape={stamp_shape!r}"
        )
        raise ValueError(msg)
    if centres is None:
        x, y = (
            _as_images(value, name) for value, name in ((sources, "sources"), (results, "results"))
        )
        if len(x) != len(y):
            msg = f"sources and results must be as many, got {len(x)} and {len(y)}"
            raise ValueError(msg)
        return Stack(x, y, window_of_pair(x[0].shape, y[0].shape, kernel_shape, boundary))
    x, y = as_image(sources, "sources"), as_image(results, "results")
    shape = as_shape(stamp_shape, "stamp_shape", one_for_both=True)
    window = window_of_pair(x.shape, y.shape, kernel_shape, boundary)
    places = np.asarray(centres)
    if places.ndim != 2 or places.shape[1] != 2 or places.dtype.kind not in "iu":
        msg = (
            "centres must be (n, 2) integers, the row and column of every stamp's middle pixel in "
            f"results, got shape {places.shape} and dtype {places.dtype}; round them first"
        )
        raise ValueError(msg)
    return Places(x, y, window, places, shape)


def _as_images(value: Any, name: str) -> AnyArray:
    """Return ``value`` as images along a first axis."""
    try:
        stack = as_stack(value, name)
    except ValueError as reason:
        msg = f"{name} must be images of one shape, (n, rows, cols): {reason}"
        raise ValueError(msg) from reason
    if stack.ndim != 3 or stack.size == 0:
        msg = (
            f"{name} must have 3 dimensions, (n, rows, cols), none of them 0, got shape "
            f"{stack.shape}; for places in one image pass centres= and stamp_shape="
        )
        raise ValueError(msg)
    if stack.dtype.kind not in "biuf":
        msg = f"{name} must hold real numbers, got dtype {stack.dtype}"
        raise TypeError(msg)
    return stack
