"""Frames to transform images in: what stands beyond an image, and penalties of frequencies."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy.fft import next_fast_len

from fastkernel._images.borders import source_index
from fastkernel._images.checks import float_dtype, refuse_non_finite
from fastkernel._images.rows import rows_of
from fastkernel._images.windows import centre
from fastkernel._loops import margins as loops
from fastkernel._machine.image_transforms import Rows
from fastkernel._machine.pair_transforms import Spectra, pair_spectra
from fastkernel._machine.tiles import Scratch, split
from fastkernel._typing import AnyArray, FloatArray, Progress, Shape

# The margin of an extended image, in reaches of the PSF.
_REACHES = 2

# Small images of one size would spend a tenth of their time on these lines again and again.
_KEPT = 8


def fast_length(least: int) -> int:
    """Return a length from ``least`` on that FFTW transforms well without measuring.

    That is a multiple of 8 without prime factors beyond 5: 125 takes three times as long as 128.

    Examples
    --------
    >>> [fast_length(n) for n in (1, 92, 125, 540)]
    [1, 96, 128, 576]
    """
    if least <= 16:
        return int(next_fast_len(least, real=True))
    return 8 * int(next_fast_len(-(-least // 8), real=True))


class _Margin(NamedTuple):
    """A line's mirror images beyond both ends, and how one turns into the other."""

    after: AnyArray
    before: AnyArray
    share: FloatArray


@lru_cache(_KEPT)
def _margin(length: int, taps: int) -> _Margin:
    """Return the margin that leads from a line's end back to its beginning."""
    size = fast_length(length + max(8, _REACHES * (taps - 1))) - length
    share = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, size + 1) / (size + 1))
    after = source_index(length, length + size, length, "symmetric")
    return _Margin(after, source_index(-size, 0, length, "symmetric"), share)


def extended(image: AnyArray, kernel_shape: Shape) -> tuple[Rows, Shape]:
    """Return an image with margins below and to the right, and its shape."""
    (m, n), (p, q) = image.shape, kernel_shape
    rows, cols = _margin(m, p), _margin(n, q)
    frame = m + rows.share.size, n + cols.share.size

    def read(top: int, out: AnyArray) -> None:
        inside = min(max(m - top, 0), len(out))
        if inside:
            np.copyto(out[:inside, :n], image[top : top + inside], casting="unsafe")
        if inside < len(out):
            part = slice(top + inside - m, top + len(out) - m)
            pair = [
                image.take(index[part], 0).astype(out.dtype, "C", copy=False) for index in rows[:2]
            ]
            loops.blend(*pair, rows.share[part], out[inside:, :n])
        loops.join(out, *cols)

    return Rows(read, frame[0]), frame


def is_whole(image: AnyArray) -> bool:
    """Return whether all pixels are whole numbers, as those of a rounded image are."""
    if image.dtype.kind in "iu":
        return True
    # The first pixel tells it of almost all images.
    return float(image[0, 0]).is_integer() and all(
        bool((image[top:bottom] == np.rint(image[top:bottom])).all())
        for top, bottom in split(image.shape[0], 16)
    )


# The fourth power of a sine, from 0 in the middle of a margin to the next, as a Fourier series: its
# terms, and the mean of its square.
_TERMS = np.array([1, -4, 6, -4, 1]) / 16
_FADED = 35 / 128


class Fading(NamedTuple):
    """A window that fades in the margins of a frame, as what it makes of a transform.

    The transform of the windowed image is ``sum(taps[b] * Y[k + b - 2] for b in range(5))`` along
    either axis.

    Attributes
    ----------
    across, down : (2, 5) arrays of the image's dtype
        Real and imaginary parts of the taps.
    energy : float
        That of white noise of variance 1 in the windowed frame.
    """

    across: AnyArray
    down: AnyArray
    energy: float


@lru_cache(_KEPT)
def fading_window(shape: Shape, frame: Shape, dtype: np.dtype[Any]) -> Fading:
    """Return the window of an image's frame, whose margins stand below and to the right."""
    turns = [(n + k - 1) / n * np.arange(-2, 3) for k, n in zip(shape, frame, strict=True)]
    down, across = ((_TERMS * [np.cos(np.pi * t), np.sin(np.pi * t)]).astype(dtype) for t in turns)
    return Fading(across, down, _FADED**2 * frame[0] * frame[1])


def in_corner(psf: FloatArray) -> Rows:
    """Return a PSF whose first tap stands at the frame's first pixel."""
    p, q = psf.shape

    def read(top: int, out: AnyArray) -> None:
        out[:, :q] = psf[top : top + len(out)]
        out[:, q:] = 0

    return Rows(read, p)


def _nearness(sums: FloatArray, length: int) -> FloatArray:
    """Return how much of a line is its blur: the autocorrelation of a PSF's sums, at both ends."""
    lags = np.correlate(sums, sums, "full")[len(sums) - 1 :]
    share = np.zeros(length)
    share[: len(lags)] = lags / lags[0]
    return np.maximum(share, share[::-1]).clip(0, 1)


def tapered(image: AnyArray, psf: FloatArray, dtype: np.dtype[Any], workers: int) -> AnyArray:
    """Return an image that turns into its circular blur towards the frame."""
    (m, n), frame = image.shape, (image.shape[0], image.shape[1])
    i, j = centre((psf.shape[0], psf.shape[1]))
    out = np.empty(frame, dtype)

    def multiply(spectra: Sequence[AnyArray], columns: slice, scratch: Scratch) -> None:  # noqa: ARG001
        spectra[0] *= spectra[1]

    taps = in_corner(psf / psf.sum())
    with pair_spectra(rows_of(image, frame), taps, frame, dtype, workers, room=m) as pair:
        pair.columns(multiply, back=(i, m))
        pair.invert(out, j)
    down, across = _nearness(psf.sum(axis=1), m), _nearness(psf.sum(axis=0), n)
    for top, bottom in split(m, 64):
        inside = ((1 - down[top:bottom, None]) * (1 - across)).astype(dtype)
        strip = out[top:bottom]
        strip += inside * (image[top:bottom] - strip)
    return out


def _framed(image: AnyArray, psf: FloatArray, border: str, workers: int) -> tuple[Rows, Shape]:
    """Return what to read of an image as a border rule continues it, and its frame."""
    if border == "symmetric":
        return extended(image, (psf.shape[0], psf.shape[1]))
    if border == "edge_taper":
        image = tapered(image, psf, float_dtype(image), workers)
    frame = image.shape[0], image.shape[1]
    return rows_of(image, frame), frame


@contextmanager
def framed_spectra(
    image: AnyArray,
    psf: FloatArray,
    border: str,
    workers: int,
    progress: Progress | None = None,
) -> Iterator[Spectra]:
    """Lend the transforms of an image, as a border rule continues it, and of a PSF.

    Parameters
    ----------
    image : (m, n) array
        Of real numbers; refused if not finite.
    psf : (p, q) float64 array
        Finite.
    border : {"circular", "symmetric", "edge_taper"}
        What stands beyond the image.
    workers : int
        Threads to use. The answer is the same bit for bit.
    progress : callable, optional
        Called as ``progress(done, total)``.

    Yields
    ------
    Spectra
        Both the image and the PSF begin at the frame's first pixel.
    """
    (rows, frame), taps, room = _framed(image, psf, border, workers), in_corner(psf), len(image)
    given = rows, taps, frame, float_dtype(image), workers, progress
    with pair_spectra(*given, room=room) as spectra:
        if not math.isfinite(spectra.energy):
            refuse_non_finite("image", image)
        yield spectra


class Regulariser(NamedTuple):
    """A penalty of frequencies, ``(across + down) ** 2``."""

    across: FloatArray
    down: FloatArray


@lru_cache(_KEPT)
def laplacian(frame: Shape) -> Regulariser:
    """Return the transform of the Laplacian, 4 amid -1."""
    (m, n) = frame
    across = 2 - 2 * np.cos(2 * np.pi * np.arange(n // 2 + 1) / n)
    return Regulariser(across, 2 - 2 * np.cos(2 * np.pi * np.arange(m) / m))


def even(frame: Shape) -> Regulariser:
    """Return a penalty that is the same at every frequency."""
    return Regulariser(np.zeros(frame[1] // 2 + 1), np.ones(frame[0]))
