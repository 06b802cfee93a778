"""Images, and what stands beyond them, as rows that transforms read."""

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
