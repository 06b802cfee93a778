"""Convolution of images on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastkernel._images.checks import (
    as_flag,
    as_output_dtype,
    as_workers,
)
from fastkernel._images.windows import Window, centre
from fastkernel._typing import AnyArray, Border, ConvolutionMethod, Mode
from fastkernel.convolution.convolution_engines import Correlation
from fastkernel.convolution.convolve import convolve as convolve_here
from fastkernel.convolution.convolve import correlate as correlate_here
from fastkernel.convolution.request import as_request, refuse_inseparable
from fastkernel.dask.cells import Rect
from fastkernel.dask.inputs import as_image
from fastkernel.dask.output import output_of
from fastkernel.dask.reading import Part, Reading, View, beyond


def convolve(
    image: Any,
    kernel: ArrayLike,
    mode: Mode = "full",
    boundary: Border = "zero",
    *,
    method: ConvolutionMethod = "auto",
    dtype: DTypeLike | None = None,
    fill_value: float = 0.0,
    out: Any = None,
    compute: bool = True,
    workers: int = 1,
) -> Any:
    r"""Convolve an image on a cluster with a kernel.

    Parameters
    ----------
    image : (m, n) image of real numbers
        A Dask array, of chunks of any size; an `xarray.DataArray`; a store that is read by slices
        and pickles, such as a Zarr array, which tasks read themselves; or a callable without
        arguments that opens one on the worker.
    kernel : (p, q) array_like of real numbers
        The kernel, which is flipped both ways. It may be larger than chunks.
    mode, boundary, method, dtype, fill_value : optional
        As in `fastkernel.convolve`. "auto" chooses once, for the whole image.
    out : object, optional
        What takes the output by slices and pickles, such as a Zarr array, or a callable that
        opens it: of the output's shape and any dtype of real numbers, integers rounded to the
        nearest and clipped to their range. Tasks write whole chunks of it, and no pixel travels.
    compute : bool, optional
        Whether to write ``out`` now, or to return what does.
    workers : int, optional
        Threads of a task, beside what the scheduler runs at once.

    Returns
    -------
    dask.array.Array, xarray.DataArray or Delayed
        The output, of ``dtype``, in chunks that follow the image's. A DataArray for a DataArray:
        in "same" and "valid" with the coordinates of the centre tap, in "full" with those that do
        not depend on rows and columns. With ``out``, that; or with ``compute=False`` what writes
        it.

    Raises
    ------
    TypeError, ValueError
        As `fastkernel.convolve` does; if ``image`` or ``out`` is none of the above or does not
        pickle (an array in memory takes no output: workers would write to copies); if chunks are
        of unknown sizes. Tasks raise TypeError if their chunks are masked (`numpy.ma`), which
        would be lost, and with ``method="fft"`` for a pixel that is not finite, by its index in
        the whole image.

    See Also
    --------
    correlate : The same without flipping the kernel.

    Notes
    -----
    A task takes one chunk of the image, and of its neighbours as many rows and columns as the
    kernel reaches, which are all that travels. By "direct" and "separable" the output is that of
    one machine bit for bit; by "fft" up to rounding.

    Examples
    --------
    >>> import dask.array as da
    >>> import fastkernel
    >>> import numpy as np
    >>> image = np.random.default_rng(0).random((50, 60))
    >>> kernel = [[0, 1, 0], [1, 2, 1], [0, 1, 1]]
    >>> found = convolve(da.from_array(image, chunks=17), kernel, "same", "mirror")
    >>> found.chunks[0]
    (17, 17, 16)
    >>> whole = fastkernel.convolve(image, kernel, "same", "mirror")
    >>> bool((found.compute() == whole).all())
    True
    """
    options = method, dtype, fill_value, out, compute, workers
    return filtered(image, kernel, mode, boundary, *options, flipped=True)


def correlate(
    image: Any,
    kernel: ArrayLike,
    mode: Mode = "full",
    boundary: Border = "zero",
    *,
    method: ConvolutionMethod = "auto",
    dtype: DTypeLike | None = None,
    fill_value: float = 0.0,
    out: Any = None,
    compute: bool = True,
    workers: int = 1,
) -> Any:
    """Correlate an image on a cluster with a kernel.

    Parameters
    ----------
    image, kernel, mode, boundary, method : as in `convolve`
        But the kernel is not flipped: see `fastkernel.correlate`.
    dtype, fill_value, out, compute, workers : as in `convolve`

    Returns
    -------
    dask.array.Array, xarray.DataArray or Delayed
        As `convolve` does.

    Raises
    ------
    TypeError, ValueError
        As `convolve` does.

    Examples
    --------
    >>> import dask.array as da
    >>> correlate(da.from_array([[1, 2, 4, 7]], chunks=2), [[-1, 1]], "valid").compute()
    array([[1., 2., 3.]])
    """
    options = method, dtype, fill_value, out, compute, workers
    return filtered(image, kernel, mode, boundary, *options, flipped=False)


def filtered(
    image: Any,
    kernel: ArrayLike,
    mode: Mode,
    boundary: Border,
    method: ConvolutionMethod,
    dtype: DTypeLike | None,
    fill_value: float,
    out: Any,
    compute: bool,
    workers: int,
    *,
    flipped: bool,
) -> Any:
    """Check the arguments of `convolve` and `correlate`, and write the tasks."""
    given, now = as_image(image, "image"), as_flag(compute, "compute")
    computed, asked = as_output_dtype(dtype, given), (mode, boundary, method, fill_value)
    request = as_request(kernel, given.shape, computed, *asked, flipped=flipped)
    window, engine = request.window, request.engine
    whole = Correlation([], request.taps, window)
    refuse_inseparable(whole, engine)
    how_to: Any = whole.chosen(engine), engine == "auto", as_workers(workers), flipped
    work = _Filtering(request.kernel, window, computed, *how_to)
    margin = whole.kernel_shape[0] - 1, whole.kernel_shape[1] - 1
    what = "image", given.shape, given.dtype, given.store
    how = Reading(*what, window.source_origin, margin, window.boundary)
    rim = centre(whole.kernel_shape)
    if flipped:
        rim = margin[0] - rim[0], margin[1] - rim[1]
    # Where an output's centre tap stands, the image's chunks say which it belongs to.
    top, left = (a + b for a, b in zip(window.source_origin, rim, strict=True))
    return output_of(
        "convolve", image, [(how, given)], work, computed, (top, left), window.shape, out, now
    )


@dataclass(frozen=True)
class _Filtering:
    """What a task does: the outputs of its cell.

    Attributes
    ----------
    kernel : (p, q) array
        As it was given.
    window : Window
        All outputs.
    dtype : dtype
        Of the output.
    engine : str
        The one for all cells.
    auto : bool
        Whether it was chosen, and not asked for.
    workers : int
        Threads to use.
    flipped : bool
        Whether to convolve.
    """

    kernel: AnyArray
    window: Window
    dtype: np.dtype[Any]
    engine: ConvolutionMethod
    auto: bool
    workers: int
    flipped: bool

    def __call__(self, views: Sequence[View], parts: Sequence[Rect]) -> AnyArray:
        (rect,) = parts
        part = views[0].read(rect)
        part.refuse_masked("fill it, as dask.array.ma.filled does")
        fill = self.window.fill_value
        pixels, outside = part.pixels, beyond(part) if fill else None
        if outside is not None:
            with np.errstate(over="ignore"):
                pixels = pixels.astype(self.dtype)
            pixels[outside] = fill
        run = convolve_here if self.flipped else correlate_here
        options: Any = {"dtype": self.dtype, "workers": self.workers}
        try:
            return run(pixels, self.kernel, "valid", method=self.engine, **options)
        except ValueError:
            if self.auto:
                # Transforms would spread what is not finite; products take it where it belongs.
                return run(pixels, self.kernel, "valid", method="direct", **options)
            _refuse_not_finite(part, self.dtype)
            raise


def _refuse_not_finite(part: Part, dtype: np.dtype[Any]) -> None:
    with np.errstate(over="ignore"):
        wrong = np.argwhere(~np.isfinite(part.pixels.astype(dtype)))
    if len(wrong):
        row, col = wrong[0]
        msg = (
            f"image must be finite in {dtype}, got {part.pixels[row, col]} at index "
            f"{part.place(row, col)}; use method='direct'"
        )
        raise ValueError(msg)
