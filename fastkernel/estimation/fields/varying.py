"""Convolution with a kernel that varies over the image, in bounded memory, and its noise."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from fastkernel._images.checks import as_image, as_penalty, as_shape
from fastkernel._images.masks import parted
from fastkernel._images.pairs import spread
from fastkernel._images.usable import as_mask, as_numbers
from fastkernel._images.windows import Window
from fastkernel._machine.tiles import split
from fastkernel._typing import AnyArray, BoolArray, FloatArray, Shape
from fastkernel.convolution.convolve import convolved
from fastkernel.convolution.varying_correlation import VaryingCorrelation
from fastkernel.estimation.fields.frame import Frame
from fastkernel.estimation.polynomial import polynomial_image

# Rows whose background and bad pixels are looked at together: some megabytes.
_STRIP_ROWS = 512

# Side of the parts in which a variance takes the kernel to be constant.
_PART = 64

# The least noise to be made white, of the most in any frequency.
_LEAST_NOISE = 1e-6


class Varying(NamedTuple):
    """A kernel that varies, and which pixels it makes.

    Attributes
    ----------
    coefficients : (terms, p, q) float64 array
        The taps of every function of position.
    frame : Frame
        The functions.
    window : Window
        The pixels of the result, all of its others left alone.
    background : (d + 1, d + 1) float64 array or None
        What is added, by degree over the window.
    """

    coefficients: FloatArray
    frame: Frame
    window: Window
    background: FloatArray | None

    def convolve(
        self, image: AnyArray, bad: BoolArray | None, out: FloatArray, workers: int
    ) -> None:
        """Write the convolution of an image into a result, NaN where a bad pixel has a part in it.

        Parameters
        ----------
        image : (m, n) array
            Finite, whatever is bad.
        bad : (m, n) bool array or None
            Which pixels are; None for none.
        out : float64 array of the result's shape
            Overwritten in the window.
        workers : int
            Threads to use.
        """
        self._begin(out)
        parts = list(self._parts(self.frame.cuts(0), self.frame.cuts(1), self.window.shape))
        if not all(self._correlation(image, part).add_to(out, "auto", workers) for part in parts):
            # Finite pixels whose transforms are not.
            self._begin(out)
            for part in parts:
                self._correlation(image, part).add_to(out, "direct", workers)
        if bad is not None:
            for part in self._strips():
                out[_inside(part)][self._reached(bad, part)] = np.nan

    def _begin(self, out: FloatArray) -> None:
        """Write the background, or zeros, into the window."""
        first, start = self.window.result_origin
        for part in self._strips():
            (top, left), sky = part.result_origin, np.zeros(())
            if self.background is not None:
                place = top - first, left - start
                sky = polynomial_image(self.background, self.window.shape, place, part.shape)
            out[_inside(part)] = sky

    def _correlation(self, image: AnyArray, part: Window) -> VaryingCorrelation:
        """Return what convolves an image over a part, by the functions that are not 0 there."""
        lines = []
        for axis, number in enumerate(self.frame.numbers):
            start, length = part.result_origin[axis], part.shape[axis]
            lines.append(self.frame.line(axis, np.arange(start, start + length))[number])
        seen = np.all([line.any(axis=1) for line in lines], axis=0)
        taps = np.ascontiguousarray(self.coefficients[seen, ::-1, ::-1])
        down, across = (line[seen] for line in lines)
        return VaryingCorrelation(image, taps, down, across, part)

    def _strips(self) -> Iterator[Window]:
        """Yield some rows of the window after the others."""
        return self._parts([], [], (_STRIP_ROWS, self.window.shape[1]))

    def add_variance(self, variance: AnyArray, out: FloatArray, workers: int) -> None:
        """Add the variance of the convolution of noise that is independent from pixel to pixel."""
        for part in self._parts([], [], (_PART, _PART)):
            (top, left), (height, width) = part.result_origin, part.shape
            values = self.frame.values(top + (height - 1) / 2, left + (width - 1) / 2)
            kernel = np.tensordot(values, self.coefficients, 1)
            noise = convolved(variance, kernel**2, part, workers)
            out[_inside(part)] += noise

    def _parts(self, rows: Sequence[int], cols: Sequence[int], most: Shape) -> Iterator[Window]:
        """Yield the parts of the window between cuts of the result, of so many pixels at most."""
        (first, start), (height, width) = self.window.result_origin, self.window.shape
        for top, bottom in _pieces(rows, first, first + height, most[0]):
            for left, right in _pieces(cols, start, start + width, most[1]):
                place = self.window.source_pixel(top - first, left - start)
                shape = bottom - top, right - left
                yield Window(place, (top, left), shape, self.window.boundary)

    def _reached(self, bad: BoolArray, part: Window) -> BoolArray:
        """Return which pixels of a part a bad one of the source has a part in."""
        (p, q), used = self.coefficients.shape[1:], np.ones(part.shape, np.bool_)
        spread(bad, part.source_origin, part.boundary, (p, q), used)
        return ~used


def _inside(part: Window) -> tuple[slice, slice]:
    """Return the place of a part in the result."""
    (top, left), (height, width) = part.result_origin, part.shape
    return slice(top, top + height), slice(left, left + width)


def _pieces(cuts: Sequence[int], first: int, last: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield the parts between the cuts in a range, of at most so many each."""
    edges = sorted({first, last, *(cut for cut in cuts if first < cut < last)})
    for start, stop in itertools.pairwise(edges):
        for one, other in split(stop - start, most):
            yield start + one, start + other


def whitening(kernel: FloatArray, source: Any, result: Any, shape: Any) -> FloatArray:
    """Return the kernel of `KernelField.decorrelation` from the variances of both images."""
    v, w = as_penalty(source, "source_variance"), as_penalty(result, "result_variance")
    if not v + w > 0:
        msg = "source_variance and result_variance must not both be 0: nothing would be noise"
        raise ValueError(msg)
    size = as_shape(shape, "shape", one_for_both=True)
    if not (size[0] % 2 and size[1] % 2):
        msg = f"shape must be odd, so that a pixel stands in the middle, got {size}"
        raise ValueError(msg)
    # So long that what wraps around has died away.
    lengths = [
        fft.next_fast_len(4 * max(pair), real=True) for pair in zip(size, kernel.shape, strict=True)
    ]
    noise = w + v * np.abs(fft.rfft2(kernel, lengths)) ** 2
    # What the kernel does not let through is not made white from nothing.
    noise = np.maximum(noise, _LEAST_NOISE * noise.max())
    made = fft.irfft2(np.sqrt((w + v * kernel.sum() ** 2) / noise), lengths)
    middle = np.roll(made, (size[0] // 2, size[1] // 2), (0, 1))[: size[0], : size[1]]
    return np.asarray(middle / middle.sum())


def as_variance(value: ArrayLike, name: str, shape: Shape) -> AnyArray:
    """Return the variance of an image of a shape."""
    if np.ndim(value) == 0:
        return np.broadcast_to(np.float64(as_penalty(value, name)), shape)
    return as_numbers(value, name, shape)


def with_mask(
    value: ArrayLike, mask: ArrayLike | None, name: str = "source", mask_name: str = "source_mask"
) -> tuple[FloatArray, BoolArray | None]:
    """Return an image whose bad pixels are zeros, and where these are; None for none."""
    pixels, bad = parted(value)
    image = as_image(pixels, name)
    if mask is not None:
        given = as_mask(mask, mask_name, image.shape)
        bad = given if bad is None else bad | given
    if image.dtype.kind == "f":
        wrong = ~np.isfinite(image)
        bad = wrong if bad is None else bad | wrong
    if bad is None or not bad.any():
        return image, None
    return np.where(bad, 0, image), bad
