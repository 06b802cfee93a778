"""Images as rows: those that transforms read, and those that loops read where they stand."""

from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from fastkernel._images.borders import load
from fastkernel._machine.image_transforms import Rows
from fastkernel._typing import AnyArray, Boundary, Shape


def rows_of(
    image: AnyArray,
    frame: Shape,
    *,
    origin: Shape = (0, 0),
    boundary: Boundary = "zero",
    count: int | None = None,
) -> Rows:
    """Return the part of an endless image that a frame shows.

    Parameters
    ----------
    image : (rows, cols) array
        Any real dtype, layout and byte order.
    frame : (int, int)
        Shape of the part.
    origin : (int, int), optional
        Row and column of ``image`` at the frame's first pixel; may be negative.
    boundary : str, optional
        What stands beyond the image, as in `borders.source_index`.
    count : int, optional
        Rows to read where only zeros follow; all of the frame when None.

    Returns
    -------
    Rows
        For `image_transforms.row_spectra` and `pair_transforms.pair_spectra`.
    """

    def read(top: int, out: AnyArray) -> None:
        load(image, (origin[0] + top, origin[1]), boundary, out)

    return Rows(read, frame[0] if count is None else count)


class FlatPixels(NamedTuple):
    """The pixels of an image as they stand.

    Attributes
    ----------
    pixels : 1-D array
        Row after row, with what may stand between rows; a view that cannot be written to.
    stride : int
        From one row to the next, in pixels.
    """

    pixels: AnyArray
    stride: int


def flat_pixels(image: Any) -> FlatPixels | None:
    """Return the pixels of an image row after row, as they stand.

    Parameters
    ----------
    image : (rows, cols) array or other image
        Anything that a `Pair` holds.

    Returns
    -------
    FlatPixels or None
        None where the image is no array, or a row of it not one pixel after the other.
    """
    if not isinstance(image, np.ndarray) or not (image.flags.aligned and image.dtype.isnative):
        return None
    (m, n), size, array = image.shape, image.itemsize, np.asarray(image)
    if array.flags.c_contiguous:
        stride, flat = n, array.reshape(-1)
    else:
        stride, rest = divmod(array.strides[0], size)
        if array.strides[1] != size or rest or stride < n:
            return None
        flat = as_strided(array, ((m - 1) * stride + n,), (size,))
    flat.flags.writeable = False
    return FlatPixels(flat, stride)
