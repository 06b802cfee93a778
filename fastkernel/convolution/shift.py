"""Circular shifts of images at the speed of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from fastkernel._images.checks import as_axes, as_out, as_shift, as_stack, as_workers
from fastkernel._loops import shift as loops
from fastkernel._machine.tiles import run_jobs, split
from fastkernel._typing import AnyArray, Shape

# Below it one thread is faster than two are woken.
THREADED_BYTES = 4 << 20
PART_BYTES = 1 << 20


def _copy_blocks(image: AnyArray, shifts: dict[int, int], out: AnyArray) -> None:
    """Shift arrays of any layout and byte order, in two blocks an axis."""
    pieces = [
        ((axis, slice(s, None), slice(n - s)), (axis, slice(s), slice(n - s, None)))
        for axis, s, n in ((axis, s, image.shape[axis]) for axis, s in shifts.items() if s)
    ]
    for block in product(*pieces):
        into, come = [slice(None)] * image.ndim, [slice(None)] * image.ndim
        for axis, there, here in block:
            into[axis], come[axis] = there, here
        np.copyto(out[tuple(into)], image[tuple(come)])


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
    shift: int | Sequence[int],
    *,
    axis: int | Sequence[int] | None = None,
    out: AnyArray | None = None,
    workers: int | None = None,
) -> AnyArray:
    """Shift an image around: what leaves at one side enters at the other.

    Parameters
    ----------
    image : (..., rows, cols) array_like
        An image, or a stack whose last two axes are shifted. Any dtype, which is kept.
    shift : (int, int)
        Rows down and columns to the right; negative, zero and beyond the size are fine. Where
        ``axis`` is given, an integer for each axis, or one for all.
    axis : int or sequence of int, optional
        The axes to shift; the last two when None, an image's rows and columns.
    out : (..., rows, cols) array, optional
        Where to write, of the image's shape and dtype, in any byte order, and without a common
        element. None makes a new array.
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
        If ``image`` has fewer than two dimensions and no ``axis`` is given, ``shift`` is not an
        integer for each axis, ``out`` has another shape, is read-only or overlaps ``image``, or
        ``axis`` or ``workers`` is out of its range.

    See Also
    --------
    fftshift : The shift that brings the origin to the centre.

    Notes
    -----
    The same as ``np.roll(image, shift, axis)``, but for the default of ``axis``. Every byte is read
    and written once.

    Examples
    --------
    >>> from fastkernel import circshift
    >>> circshift([[1, 2, 3], [4, 5, 6]], (1, -1)).tolist()
    [[5, 6, 4], [2, 3, 1]]
    """
    x = as_stack(image, "image", least=2 if axis is None else 1)
    axes = as_axes((-2, -1) if axis is None else axis, "axis", x.ndim)
    steps = as_shift(shift, None if axis is None else len(axes))
    threads = as_workers(workers)
    y = np.empty(x.shape, x.dtype) if out is None else as_out(out, x.shape, x.dtype, image=x)
    if x.nbytes == 0:
        return y
    shifts: dict[int, int] = {}
    for place, step in zip(axes, steps, strict=True):
        shifts[place] = (shifts.get(place, 0) + step) % x.shape[place]
    down, right = (shifts.get(place, 0) for place in (x.ndim - 2, x.ndim - 1))
    plain = x.flags.c_contiguous and y.flags.c_contiguous and x.dtype == y.dtype
    rows_alone = x.ndim >= 2 and not any(shifts[place] for place in set(axes) if place < x.ndim - 2)
    # Bytes of Python objects must not be copied behind the back of their reference counts.
    if plain and rows_alone and not x.dtype.hasobject:
        _copy_rows(x, (down, right), y, threads)
    else:
        _copy_blocks(x, shifts, y)
    return y


def _shift_halfway(
    image: ArrayLike, axes: int | Sequence[int] | None, out: AnyArray | None, sign: int
) -> AnyArray:
    """Shift by half an image, rounded down, to one side or the other."""
    x = as_stack(image, "image", least=2 if axes is None else 1)
    places = as_axes((-2, -1) if axes is None else axes, "axes", x.ndim)
    return circshift(x, [sign * (x.shape[i] // 2) for i in places], axis=places, out=out)


def fftshift(
    image: ArrayLike, axes: int | Sequence[int] | None = None, *, out: AnyArray | None = None
) -> AnyArray:
    """Shift the origin of the last two axes to the centre, pixel ``(rows // 2, cols // 2)``.

    Parameters
    ----------
    image, out : as in `circshift`
    axes : int or sequence of int, optional
        The axes to shift; the last two when None, where NumPy takes all.

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
    >>> from fastkernel import fftshift
    >>> fftshift([[0, 1, 2, -2, -1]]).tolist()
    [[-2, -1, 0, 1, 2]]
    """
    return _shift_halfway(image, axes, out, 1)


def ifftshift(
    image: ArrayLike, axes: int | Sequence[int] | None = None, *, out: AnyArray | None = None
) -> AnyArray:
    """Undo `fftshift`, which for odd sizes is another shift.

    Parameters
    ----------
    image, out : as in `circshift`
    axes : int or sequence of int, optional
        The axes to shift; the last two when None, where NumPy takes all.

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
    >>> from fastkernel import ifftshift
    >>> ifftshift([[-2, -1, 0, 1, 2]]).tolist()
    [[0, 1, 2, -2, -1]]
    """
    return _shift_halfway(image, axes, out, -1)
