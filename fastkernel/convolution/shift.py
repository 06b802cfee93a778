"""Circular shifts of images at the speed of memory."""

from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from fastkernel._images.checks import as_out, as_shift, as_stack, as_workers
from fastkernel._loops import shift as loops
from fastkernel._machine.tiles import run_jobs, split
from fastkernel._typing import AnyArray, Shape

# Below it one thread is faster than two are woken.
THREADED_BYTES = 4 << 20
PART_BYTES = 1 << 20


def _copy_blocks(image: AnyArray, shift: Shape, out: AnyArray) -> None:
    """Shift arrays of any layout, four blocks in all."""
    pieces = [
        ((slice(s, None), slice(n - s)), (slice(s), slice(n - s, None)))
        for s, n in zip(shift, image.shape[-2:], strict=True)
    ]
    for (to_row, from_row), (to_col, from_col) in product(*pieces):
        np.copyto(out[..., to_row, to_col], image[..., from_row, from_col])


def _copy_rows(image: AnyArray, shift: Shape, out: AnyArray, workers: int) -> None:
    """Shift C-ordered arrays as bytes, so that one compiled loop serves every dtype."""
    rows, cols = image.shape[-2:]
    x, y = (a.reshape(-1, rows, cols).view(np.uint8) for a in (image, out))
    offset = shift[0], shift[1] * image.itemsize

    lines, line_bytes = x.shape[0] * rows, x.shape[2]
    if x.nbytes < THREADED_BYTES:
        loops.fill_shifted(x, offset, (0, lines), y)
        return

    def work(span: Shape, scratch: None, stopped: Callable[[], bool]) -> None:  # noqa: ARG001
        loops.fill_shifted(x, offset, span, y)

    spans = split(lines, max(1, PART_BYTES // line_bytes))
    run_jobs([partial(work, span) for span in spans], lambda: None, workers)


def circshift(
    image: ArrayLike,
    shift: Shape,
    *,
    out: AnyArray | None = None,
    workers: int | None = None,
) -> AnyArray:
    """Shift an image around: what leaves at one side enters at the other.

    Parameters
    ----------
    image : (..., rows, cols) array_like
        An image, or a stack whose last two axes are shifted. Any dtype, which is kept.
    shift : (int, int)
        Rows down and columns to the right; negative, zero and beyond the size are fine.
    out : (..., rows, cols) array, optional
        Where to write, of the image's shape and dtype and without a common element.
    workers : int, optional
        Threads to use, every usable core when None. Small images take one.

    Returns
    -------
    (..., rows, cols) array
        ``out``, or a new array in C order.

    Raises
    ------
    TypeError
        If ``image`` is masked, or ``out`` is not an array of its dtype.
    ValueError
        If ``image`` has fewer than two dimensions, ``shift`` is not two integers, ``out`` has
        another shape, is read-only or overlaps ``image``, or ``workers`` is not positive.

    See Also
    --------
    fftshift : The shift that brings the origin to the centre.

    Notes
    -----
    The same as ``np.roll(image, shift, axis=(-2, -1))``. Every byte is read and written once.

    Examples
    --------
    >>> circshift([[1, 2, 3], [4, 5, 6]], (1, -1)).tolist()
    [[5, 6, 4], [2, 3, 1]]
    """
    x = as_stack(image, "image")
    down, right = as_shift(shift)
    threads = as_workers(workers)
    y = np.empty(x.shape, x.dtype) if out is None else as_out(out, x.shape, x.dtype, image=x)
    if x.nbytes == 0:
        return y
    rows, cols = x.shape[-2:]
    offset = down % rows, right % cols
    # Bytes of Python objects must not be copied behind the back of their reference counts.
    if x.flags.c_contiguous and y.flags.c_contiguous and not x.dtype.hasobject:
        _copy_rows(x, offset, y, threads)
    else:
        _copy_blocks(x, offset, y)
    return y


def _shift_halfway(image: ArrayLike, out: AnyArray | None, sign: int) -> AnyArray:
    """Shift by half an image, rounded down, to one side or the other."""
    x = as_stack(image, "image")
    rows, cols = x.shape[-2:]
    return circshift(x, (sign * (rows // 2), sign * (cols // 2)), out=out)


def fftshift(image: ArrayLike, *, out: AnyArray | None = None) -> AnyArray:
    """Shift the origin of the last two axes to the centre, pixel ``(rows // 2, cols // 2)``.

    Parameters
    ----------
    image, out : as in `circshift`

    Returns
    -------
    (..., rows, cols) array
        As `circshift` does.

    Raises
    ------
    TypeError, ValueError
        As `circshift` does.

    Examples
    --------
    >>> fftshift([[0, 1, 2, -2, -1]]).tolist()
    [[-2, -1, 0, 1, 2]]
    """
    return _shift_halfway(image, out, 1)


def ifftshift(image: ArrayLike, *, out: AnyArray | None = None) -> AnyArray:
    """Undo `fftshift`, which for odd sizes is another shift.

    Parameters
    ----------
    image, out : as in `circshift`

    Returns
    -------
    (..., rows, cols) array
        As `circshift` does.

    Raises
    ------
    TypeError, ValueError
        As `circshift` does.

    Examples
    --------
    >>> ifftshift([[-2, -1, 0, 1, 2]]).tolist()
    [[0, 1, 2, -2, -1]]
    """
    return _shift_halfway(image, out, -1)
