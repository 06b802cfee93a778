"""Convolution and correlation of images, and the adjoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastkernel._images.blocks import blocks_of
from fastkernel._images.borders import source_index
from fastkernel._images.checks import (
    as_channels,
    as_flag,
    as_image,
    as_output_dtype,
    as_target,
    as_workers,
    refuse_non_finite,
)
from fastkernel._images.lazy import LazyImage, handed_over, is_dask
from fastkernel._images.windows import Window, window_of_mode
from fastkernel._machine.tiles import split
from fastkernel._typing import (
    AnyArray,
    Border,
    Boundary,
    ConvolutionMethod,
    FloatArray,
    Mode,
    Shape,
)
from fastkernel.convolution.convolution_engines import Correlation, Plane
from fastkernel.convolution.request import as_request, as_taps, refuse_inseparable


def convolve(
    image: ArrayLike,
    kernel: ArrayLike,
    mode: Mode = "full",
    boundary: Border = "zero",
    *,
    method: ConvolutionMethod = "auto",
    channel_axis: int | None = None,
    check_finite: bool = True,
    out: AnyArray | None = None,
    dtype: DTypeLike | None = None,
    fill_value: float = 0.0,
    workers: int | None = None,
) -> AnyArray:
    r"""Convolve an image with a kernel.

    Parameters
    ----------
    image : (m, n) array_like of real numbers
        The image, in any unit, of any layout; memory maps are read tile by tile, and what is read
        by slices, such as a dataset of Zarr or HDF5, block by block of whole chunks. A Dask array
        makes one, by `fastkernel.dask.convolve`.
    kernel : (p, q) array_like of real numbers
        The kernel, which is flipped both ways. May be larger than the image, but in "valid".
    mode : {"full", "same", "valid"}, optional
        Outputs: all (m + p - 1, n + q - 1) that a tap can reach, the (m, n) under the centre tap
        ``((p - 1) // 2, (q - 1) // 2)``, or the (m - p + 1, n - q + 1) that need no border.
        The default is that of scipy.signal, as is "zero" below.
    boundary : str, optional
        What stands beyond the frame: "zero", "circular", "replicate", "symmetric" (edge pixel
        repeated) or "mirror" (not repeated). Without effect in "valid". The names and numbers that
        SciPy, NumPy and OpenCV have for these will do too, but for "reflect".
    method : {"auto", "direct", "separable", "fft"}, optional
        How: tap by tap, by a column and a row of taps (a kernel of rank one only), by transforms
        of tiles, or whichever a model of their cost finds fastest.
    channel_axis : int, optional
        The axis of a 3-dimensional image that holds channels, or images of a stack. None for an
        image of two dimensions: which axis is meant is never guessed.
    check_finite : bool, optional
        Whether "fft" refuses NaN and infinity, which there spoil the outputs of two tiles. By the
        others, "auto" among them, they spoil exactly those that the kernel reaches from them.
        A Dask array is always looked at.
    out : array or store, optional
        Where to write; None makes a new array. Of the shape and dtype that are returned, any
        layout, apart from ``image``. Or, for two dimensions, what has shape, dtype and assignment
        to slices, such as a dataset of Zarr or HDF5: its chunks are written once each, and
        ``image`` may be larger than memory.
    dtype : {"float32", "float64"}, optional
        Of the output and of the sums. None is float32 for a float32 image, else float64.
    fill_value : float, optional
        What "zero" puts beyond the frame in place of zeros, in units of the image.
    workers : int, optional
        Threads to use, every usable core when None. The answer is the same bit for bit.

    Returns
    -------
    array
        ``out``, or a new array of ``dtype``, in units of the image times those of the kernel. The
        channels stand in the axis where they stood.

    Raises
    ------
    TypeError
        If ``image`` or ``kernel`` is complex, masked or not of numbers, ``out`` is neither an
        array nor a store of the right dtype, or ``dtype``, ``fill_value`` or a flag is none.
    ValueError
        If a tap is not finite, or a pixel where that matters; if the kernel does not fit inside
        the image in "valid", is not of rank one for "separable", ``fill_value`` comes with
        another border than "zero", or another argument is out of its range.

    See Also
    --------
    correlate : The same without flipping the kernel.
    convolution_operator : The same as a linear operator, with its adjoint.

    Notes
    -----
    .. math:: \mathrm{out}_t = \sum_{ij} k_{ij}\, x_{t + c - (i, j)}

    with ``c`` the centre tap in "same", 0 in "full", and ``(p - 1, q - 1)`` in "valid". Border
    rules are index maps: no padded copy is made, and memory beyond the output is a few tiles a
    worker, or of what is read or written by slices a few blocks of 32 MiB. Sums are taken in the
    dtype of the output. Transforms are those of overlap-save [1]_,
    of two tiles as the real and the imaginary part of one; their error is relative to the largest
    pixels nearby.

    References
    ----------
    .. [1] T. G. Stockham, "High-speed convolution and correlation", AFIPS Spring Joint Computer
       Conference 28 (1966) 229-233.

    Examples
    --------
    >>> from fastkernel import convolve
    >>> convolve([[1, 2, 3, 4]], [[1, -1]], "same", "replicate")
    array([[0., 1., 1., 1.]])
    """
    options = method, channel_axis, check_finite, out, dtype, fill_value, workers
    return _filtered(image, kernel, mode, boundary, *options, flipped=True)


def correlate(
    image: ArrayLike,
    kernel: ArrayLike,
    mode: Mode = "full",
    boundary: Border = "zero",
    *,
    method: ConvolutionMethod = "auto",
    channel_axis: int | None = None,
    check_finite: bool = True,
    out: AnyArray | None = None,
    dtype: DTypeLike | None = None,
    fill_value: float = 0.0,
    workers: int | None = None,
) -> AnyArray:
    r"""Correlate an image with a kernel: sums of pixels times the taps that lie on them.

    Parameters
    ----------
    image, kernel, mode, boundary, method : as in `convolve`
        But the kernel is not flipped.
    channel_axis, check_finite, out, dtype, fill_value, workers : as in `convolve`

    Returns
    -------
    array
        As `convolve` does.

    Raises
    ------
    TypeError, ValueError
        As `convolve` does.

    See Also
    --------
    convolve : The same with the kernel flipped.

    Notes
    -----
    .. math:: \mathrm{out}_t = \sum_{ij} k_{ij}\, x_{t - c + (i, j)}

    with ``c`` the centre tap ``((p - 1) // 2, (q - 1) // 2)`` in "same", ``(p - 1, q - 1)`` in
    "full", and 0 in "valid". SciPy and OpenCV take ``(p // 2, q // 2)`` in "same", which differs
    for even sizes; this choice makes it the adjoint of `convolve` beyond a zero border.

    Examples
    --------
    >>> from fastkernel import correlate
    >>> correlate([[1, 2, 4, 7]], [[-1, 1]], "valid")
    array([[1., 2., 3.]])
    """
    options = method, channel_axis, check_finite, out, dtype, fill_value, workers
    return _filtered(image, kernel, mode, boundary, *options, flipped=False)


def _filtered(
    image: ArrayLike,
    kernel: ArrayLike,
    mode: Mode,
    boundary: Border,
    method: ConvolutionMethod,
    channel_axis: int | None,
    check_finite: bool,
    out: AnyArray | None,
    dtype: DTypeLike | None,
    fill_value: float,
    workers: int | None,
    *,
    flipped: bool,
) -> AnyArray:
    """Check the arguments and run."""
    if is_dask(image) and channel_axis is None and not isinstance(out, np.ndarray):
        there = method, dtype, fill_value, out, True, 1 if workers is None else workers
        asked_there = image, kernel, mode, boundary, *there
        found: AnyArray = handed_over("convolve").filtered(*asked_there, flipped=flipped)
        return found
    ndim = 2 if channel_axis is None else 3
    given = as_image(image, "image", ndim, lazy=channel_axis is None)
    finite, threads = as_flag(check_finite, "check_finite"), as_workers(workers)
    channels = [given] if channel_axis is None else list(as_channels(given, channel_axis))
    computed = as_output_dtype(dtype, given)
    (m, n), asked = channels[0].shape, (mode, boundary, method, fill_value)
    given_kernel, taps, window, engine = as_request(
        kernel, (m, n), computed, *asked, flipped=flipped
    )
    found_shape: tuple[int, ...] = window.shape
    if channel_axis is not None:
        found_shape = tuple(np.insert(window.shape, channel_axis % 3, len(channels)).tolist())
    if out is None:
        found = np.empty(found_shape, computed)
    else:
        found = as_target(out, found_shape, computed, image=given, kernel=given_kernel)
    by_blocks = isinstance(given, LazyImage) or not isinstance(found, np.ndarray)
    outs = [found] if channel_axis is None else np.moveaxis(found, channel_axis, 0)
    planes = [] if by_blocks else [Plane(x, y) for x, y in zip(channels, outs, strict=True)]
    work = Correlation(planes, taps, window)
    refuse_inseparable(work, engine)
    options = engine, finite and engine != "auto", threads
    if by_blocks:
        _run_by_blocks(work, given, found, *options)
    else:
        _run(work, channels, *options)
    return found


def _run_by_blocks(
    work: Correlation, image: AnyArray, out: AnyArray, engine: str, refuse: bool, workers: int
) -> None:
    """Do as `_run` does, a block of an image at a time, by the engine that suits the whole."""
    auto, engine = engine == "auto", work.chosen(engine)
    for (top, left, height, width), part, window in blocks_of(
        image, work.window, work.kernel_shape, out
    ):
        place = slice(top, top + height), slice(left, left + width)
        stored = not isinstance(out, np.ndarray)
        found = np.empty((height, width), work.dtype) if stored else out[place]
        block = replace(work, planes=[Plane(part, found)], window=window)
        if not block.run(engine, workers):
            if auto:
                _spoil(block, workers)
            elif refuse:
                _refuse_spoilt([image], work.dtype)
                refuse = False  # what is finite need not be looked at again
        if stored:
            out[place] = found


def _run(
    work: Correlation, images: Sequence[AnyArray], engine: str, refuse: bool, workers: int
) -> None:
    """Correlate, and see to what transforms cannot."""
    if work.run(engine, workers):
        return
    if engine == "auto":
        _spoil(work, workers)
    elif refuse:
        _refuse_spoilt(images, work.dtype)


def _refuse_spoilt(images: Sequence[AnyArray], dtype: np.dtype[Any]) -> None:
    """Raise for the first pixel that transforms in a dtype cannot take."""
    advice = "crop it away, use method='direct', or say check_finite=False"
    for i, x in enumerate(images):
        name = "image" if len(images) == 1 else f"image channel {i}"
        refuse_non_finite(name, x, advice=advice)
        if x.dtype.kind == "f" and x.dtype.itemsize > dtype.itemsize:
            for top, bottom in split(x.shape[0], 256):
                with np.errstate(over="ignore"):
                    strip = x[top:bottom, :].astype(dtype)
                refuse_non_finite(f"{name} in {dtype}", strip, (top, 0), advice)


def _spoil(work: Correlation, workers: int) -> None:
    """Correlate what transforms cannot: planes of which pixels are not finite.

    The rest is correlated by itself, and so is where such pixels stand: an output that reaches one
    becomes what a sum of products would, NaN where that meets NaN, infinity times zero or both
    infinities.
    """
    nowhere = replace(work.window, fill_value=0.0)
    taps, dtype = work.taps, work.dtype

    def reached(pixels: AnyArray, some: AnyArray) -> AnyArray:
        if not (pixels.any() and some.any()):
            return np.zeros(work.window.shape, bool)
        hits = np.empty(work.window.shape, np.float32)
        plane = Plane(pixels.astype(np.float32), hits)
        Correlation([plane], some.astype(np.float32), nowhere).run("auto", workers)
        return hits > 0.5

    for plane in work.planes:
        if plane.out is None:
            continue
        with np.errstate(over="ignore"):
            image = plane.image.astype(dtype)
        finite = np.isfinite(image)
        high, low = image == np.inf, image == -np.inf
        image[~finite] = 0
        if not Correlation([Plane(image, plane.out)], taps, work.window).run("auto", workers):
            # Finite numbers whose transforms are not.
            Correlation([Plane(image, plane.out)], taps, work.window).run("direct", workers)
        if finite.all():
            continue
        up = reached(high, taps > 0) | reached(low, taps < 0)
        down = reached(high, taps < 0) | reached(low, taps > 0)
        lost = reached(~finite & ~high & ~low, np.ones(taps.shape, bool))
        lost |= reached(high | low, taps == 0) | (up & down)
        plane.out[up] = np.inf
        plane.out[down] = -np.inf
        plane.out[lost] = np.nan


def convolve_adjoint(
    outputs: AnyArray,
    kernel: AnyArray,
    image_shape: Shape,
    mode: Mode,
    boundary: Boundary,
    workers: int,
) -> AnyArray:
    """Return what the transpose of a convolution makes of its outputs.

    Parameters
    ----------
    outputs : array
        Of the shape of ``mode``, float32 or float64, finite.
    kernel : (p, q) array
        The convolution's kernel.
    image_shape : (int, int)
        Shape of the image that the convolution takes.
    mode, boundary : str
        Those of the convolution.
    workers : int
        Threads to use.

    Returns
    -------
    `image_shape` array
        The dtype of ``outputs``.

    Notes
    -----
    A convolution reads its image through the border's index map, then correlates. Its transpose
    correlates backwards, over the frame and the strips around it, and adds what lands in the
    strips to the pixels that the map had read there.
    """
    taps = as_taps(kernel, outputs.dtype, flipped=False)
    (p, q), (m, n) = taps.shape, image_shape
    window = window_of_mode(mode, image_shape, (p, q), boundary)
    (above, left), boundary = (-i for i in window.source_origin), window.boundary
    below, right = window.shape[0] + p - 1 - m - above, window.shape[1] + q - 1 - n - left

    def backwards(top: int, start: int, height: int, width: int) -> AnyArray:
        """Return the part of the extended image that begins at pixel (top, start)."""
        part = np.empty((height, width), outputs.dtype)
        origin = top + above - (p - 1), start + left - (q - 1)
        around = Window(origin, (0, 0), (height, width), "zero")
        Correlation([Plane(outputs, part)], taps, around).run("auto", workers)
        return part

    found = backwards(0, 0, m, n)
    strips = [
        (-above, -left, above, left + n + right),
        (m, -left, below, left + n + right),
        (0, -left, m, left),
        (0, n, m, right),
    ]
    for top, start, height, width in strips if boundary != "zero" else ():
        if height > 0 and width > 0:
            rows = source_index(top, top + height, m, boundary)
            cols = source_index(start, start + width, n, boundary)
            np.add.at(found, (rows[:, None], cols), backwards(top, start, height, width))
    return found


def convolved(image: AnyArray, kernel: FloatArray, window: Window, workers: int) -> FloatArray:
    """Return the convolution of an image over any window, in float64.

    Parameters
    ----------
    image : (m, n) array
        Any real dtype and layout. A NaN spoils only the outputs that it reaches.
    kernel : (p, q) float64 array
        The kernel, finite.
    window : Window
        The outputs, and what they are made of.
    workers : int
        Threads to use.

    Returns
    -------
    (height, width) float64 array
        Of ``window.shape``.
    """
    out = np.empty(window.shape)
    work = Correlation([Plane(image, out)], as_taps(kernel, out.dtype, flipped=True), window)
    if not work.run("auto", workers):
        work.run("direct", workers)
    return out
