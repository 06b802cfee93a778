"""Convolution written as matrices: of a kernel, and of an image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array, csr_array

from fastkernel._images.borders import load, source_index
from fastkernel._images.checks import (
    as_boundary,
    as_choice,
    as_image,
    as_kernel_shape,
    as_shape,
    as_workers,
    float_dtype,
    refuse_beyond_memory,
    refuse_larger_kernel,
    refuse_non_finite,
)
from fastkernel._images.windows import MODES, window_of_mode
from fastkernel._loops import matrix as loops
from fastkernel._machine.tiles import run_jobs, split
from fastkernel._typing import AnyArray, Border, Boundary, MatrixFormat, Mode, Shape

Axes: TypeAlias = tuple[loops.Axis, loops.Axis]

FORMATS: tuple[MatrixFormat, ...] = get_args(MatrixFormat)
INT32_MAX = int(np.iinfo(np.int32).max)
# Entries that one job fills: enough to outweigh its overhead, few enough to share out evenly.
JOB_ENTRIES = 1 << 18


def _axis(
    origin: int, size: int, length: int, taps: int, boundary: Boundary, stride: int
) -> loops.Axis:
    """Return the index map of one axis, pixels counted in steps of ``stride``."""
    place = np.arange(size)
    inside = (place + origin >= 0) & (place + origin + taps <= length)
    sides = place[~inside]
    needed = 48 * (len(sides) + 1) * taps
    refuse_beyond_memory(needed, "the border's index map", "convolve needs none")
    line = source_index(origin, origin + size + taps - 1, length, boundary)
    # Row 0 is the pattern of all places inside; a stable order keeps the taps of a pixel sorted.
    pixel = np.vstack([np.arange(taps), line[sides[:, None] + np.arange(taps)]])
    tap = np.argsort(pixel, axis=1, kind="stable")
    pixel = np.take_along_axis(pixel, tap, axis=1)
    distinct = (pixel >= 0).astype(np.int64)
    distinct[:, 1:] &= pixel[:, 1:] != pixel[:, :-1]
    pattern = np.zeros(size, np.int64)
    pattern[sides] = np.arange(1, len(sides) + 1)
    before = np.zeros(size + 1, np.int64)
    np.cumsum(distinct.sum(axis=1)[pattern], out=before[1:])
    shift = np.where(inside, place + origin, 0) * stride
    return loops.Axis(pattern, shift, pixel * stride, tap, before)


def _axes(kernel_shape: Shape, image_shape: Shape, mode: Mode, boundary: Boundary) -> Axes:
    window = window_of_mode(mode, image_shape, kernel_shape, boundary)
    rows, cols = zip(window.source_origin, window.shape, image_shape, kernel_shape, strict=True)
    return _axis(*rows, boundary, image_shape[1]), _axis(*cols, boundary, 1)


def _plan(axes: Axes, image_shape: Shape) -> tuple[Shape, int, type[np.signedinteger[Any]]]:
    """Return shape, number of entries and index dtype of the matrix, by Python's own integers."""
    rows, cols = axes
    shape = len(rows.pattern) * len(cols.pattern), image_shape[0] * image_shape[1]
    entries = int(rows.before[-1]) * int(cols.before[-1])
    return shape, entries, np.int32 if max(*shape, entries) <= INT32_MAX else np.int64


def _filled(taps: AnyArray, axes: Axes, csr: tuple[AnyArray, ...], workers: int) -> None:
    data, indices, indptr = csr
    rows = len(axes[0].pattern)

    def make_scratch() -> tuple[AnyArray, AnyArray]:
        return np.empty(taps.size), np.empty(taps.size, indices.dtype)

    def work(
        span: Shape,
        scratch: tuple[AnyArray, AnyArray],
        stopped: Callable[[], bool],  # noqa: ARG001
    ) -> None:
        loops.fill_matrix(taps, axes, span, scratch, csr)

    part = max(1, JOB_ENTRIES * rows // max(1, len(data)))
    run_jobs([partial(work, span) for span in split(rows, part)], make_scratch, workers)
    indptr[-1] = len(data)


def convolution_matrix(
    kernel: ArrayLike,
    image_shape: Shape,
    mode: Mode = "full",
    boundary: Border = "zero",
    *,
    format: MatrixFormat = "csr",  # noqa: A002
    workers: int | None = None,
) -> csr_array | coo_array | AnyArray:
    r"""Return the matrix ``K`` for which ``K @ image.ravel()`` is the convolution of the image.

    Parameters
    ----------
    kernel : (p, q) array_like of real numbers
        The kernel, which the convolution flips. May be larger than the image, except in "valid".
    image_shape : (int, int)
        Rows ``m`` and columns ``n`` of the image, in pixels.
    mode, boundary, workers : as in `convolve`
    format : {"csr", "coo", "dense"}, optional
        A SciPy sparse array, or a NumPy array. Rows together, as "csr" has them, suit products
        with images.

    Returns
    -------
    (outputs, m * n) csr_array, coo_array or ndarray
        float32 for a float32 kernel, else float64; rows and columns in C order of the pixels.
        Sparse arrays are canonical: sorted, one entry for each output and pixel that a tap joins,
        also where the taps are, or add up to, zero. int32 indices where they suffice.

    Raises
    ------
    TypeError
        If ``kernel`` is complex, masked or not of numbers.
    ValueError
        If a tap is not finite, ``kernel`` does not fit inside the image in "valid", or another
        argument is out of its range.
    MemoryError
        If the matrix takes more than the machine's memory; nothing has been allocated then.

    See Also
    --------
    design_matrix : The same convolution as a matrix that multiplies the kernel.

    Notes
    -----
    Border rules act on rows and columns apart, so the pixels under an output are all pairs of its
    distinct rows and columns: entries are counted before they are made, and each is written once.

    Examples
    --------
    >>> from fastkernel import convolution_matrix
    >>> convolution_matrix([[1, 2, 3]], (1, 4), "same", format="dense")
    array([[2., 1., 0., 0.],
           [3., 2., 1., 0.],
           [0., 3., 2., 1.],
           [0., 0., 3., 2.]])
    """
    given = as_image(kernel, "kernel")
    image_shape = as_shape(image_shape, "image_shape")
    mode = as_choice(mode, "mode", MODES)
    rule = as_boundary(boundary)
    format = as_choice(format, "format", FORMATS)  # noqa: A001
    threads = as_workers(workers)
    refuse_non_finite("kernel", given)
    if mode == "valid":
        refuse_larger_kernel("kernel", given.shape, image_shape)
    dtype = float_dtype(given)
    axes = _axes(given.shape, image_shape, mode, rule)
    shape, entries, index = _plan(axes, image_shape)
    index_bytes = np.dtype(index).itemsize
    needed = entries * (dtype.itemsize + index_bytes) + (shape[0] + 1) * index_bytes
    if format == "coo":
        needed += entries * index_bytes
    elif format == "dense":
        needed += shape[0] * shape[1] * dtype.itemsize
    refuse_beyond_memory(needed, "the convolution matrix", "convolution_operator needs none")
    data, indices = np.empty(entries, dtype), np.empty(entries, index)
    indptr = np.empty(shape[0] + 1, index)
    taps = np.ascontiguousarray(given[::-1, ::-1], np.float64)
    _filled(taps, axes, (data, indices, indptr), threads)
    # Given to the constructor, 64-bit indices would be read once more.
    matrix = csr_array(shape, dtype=dtype)
    matrix.data, matrix.indices, matrix.indptr = data, indices, indptr
    matrix.has_canonical_format = True
    if format == "dense":
        return matrix.toarray()
    if format == "coo":
        matrix = matrix.tocoo(copy=False)
        matrix.has_canonical_format = True
    return matrix


def design_matrix(
    image: ArrayLike,
    kernel_shape: Shape | int,
    mode: Mode = "valid",
    boundary: Border = "zero",
    *,
    workers: int | None = None,
) -> AnyArray:
    r"""Return the matrix ``X`` for which ``X @ kernel.ravel()`` is the convolution of the image.

    Parameters
    ----------
    image : (m, n) array_like of real numbers
        The image, in any unit. Pixels are copied as they are, NaN and infinity too.
    kernel_shape : (int, int) or int
        Rows ``p`` and columns ``q`` of the kernel, in pixels.
    mode, boundary, workers : as in `convolve`
        But "valid" is the default: what least squares fits, since no border is guessed.

    Returns
    -------
    (outputs, p * q) array
        float32 for a float32 image, else float64. One row per output pixel, one column per tap,
        both in C order.

    Raises
    ------
    TypeError
        If ``image`` is complex, masked or not of numbers.
    ValueError
        If the kernel does not fit inside the image in "valid", or another argument is out of its
        range.
    MemoryError
        If the matrix takes more than the machine's memory; nothing has been allocated then.

    See Also
    --------
    normal_equations : ``X.T @ X`` and ``X.T @ y`` without the matrix.
    convolution_matrix : The same convolution as a matrix that multiplies the image.

    Examples
    --------
    >>> import numpy as np
    >>> from fastkernel import convolution_matrix, design_matrix
    >>> image = np.random.default_rng(0).standard_normal((12, 9))
    >>> kernel = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> result = convolution_matrix(kernel, image.shape, "valid") @ image.ravel()
    >>> taps, *_ = np.linalg.lstsq(design_matrix(image, (2, 2)), result)
    >>> bool(np.allclose(taps, kernel.ravel()))
    True
    """
    given = as_image(image, "image")
    p, q = as_kernel_shape(kernel_shape)
    mode = as_choice(mode, "mode", MODES)
    rule = as_boundary(boundary)
    threads = as_workers(workers)
    if mode == "valid":
        refuse_larger_kernel("kernel_shape", (p, q), given.shape)
    dtype = float_dtype(given)
    window = window_of_mode(mode, given.shape, (p, q), rule)
    height, width = window.shape
    needed = height * width * p * q * dtype.itemsize
    refuse_beyond_memory(needed, "the design matrix", "normal_equations needs none")
    matrix = np.empty((height * width, p * q), dtype)
    # The p - 1 rows that neighbouring strips share are loaded twice.
    part = max(p, JOB_ENTRIES // (width * p * q), 1)
    # Outputs at a time, after which Ctrl-C is heard: rows of them, or parts of one row.
    rows = max(1, JOB_ENTRIES // (width * p * q))
    cols = width if rows > 1 else max(1, JOB_ENTRIES // (p * q))

    def work(span: Shape, scratch: AnyArray, stopped: Callable[[], bool]) -> None:
        first, last = span
        strip = scratch[: last - first + p - 1]
        load(given, window.source_pixel(first, 0), window.boundary, strip[::-1, ::-1])
        height = last - first
        for top, bottom in split(height, rows):
            for left, right in split(width, cols):
                if stopped():
                    return
                # Flipped: what is under the last output comes first.
                under = strip[height - bottom : height - top + p - 1]
                if cols < width:
                    under = np.ascontiguousarray(under[:, width - right : width - left + q - 1])
                start = (first + top) * width + left
                taken = (bottom - top) * (right - left)
                loops.fill_patches(under, (p, q), matrix[start : start + taken])

    def make_scratch() -> NDArray[Any]:
        return np.empty((min(part, height) + p - 1, width + q - 1), dtype)

    run_jobs([partial(work, span) for span in split(height, part)], make_scratch, threads)
    return matrix
