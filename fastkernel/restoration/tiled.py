"""Restoration of images that are larger than memory, by tiles that overlap."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastkernel._images.checks import (
    as_callback,
    as_channels,
    as_image,
    as_out,
    as_shape,
    float_dtype,
)
from fastkernel._machine.tiles import Tiles
from fastkernel._typing import AnyArray, Progress, Shape
from fastkernel.restoration.arguments import as_psf, as_psfs
from fastkernel.restoration.richardson_lucy import richardson_lucy

# Sides of the PSF that a tile reads beyond its own.
_SIDES = 2


def restore_tiled(
    restore: Callable[..., AnyArray],
    image: Any,
    psf: ArrayLike,
    *,
    out: AnyArray | None = None,
    tile_shape: Shape = (1024, 1024),
    halo: Shape | None = None,
    channel_axis: int | None = None,
    callback: Progress | None = None,
    **options: Any,
) -> AnyArray:
    """Restore an image tile by tile, from and to memory maps.

    Parameters
    ----------
    restore : callable
        `richardson_lucy`, `wiener`, or what takes and returns the same: called as
        ``restore(part, psf, **options)``.
    image : (m, n) array_like of real numbers
        The blurred image: an array, a memory map, or what is read by slices, like a dataset of
        HDF5 or Zarr.
    psf : (p, q) array_like of real numbers
        What a point became, no larger than a tile. Of shape (p, q) for all channels, or with an
        axis of channels.
    out : array of image's shape, optional
        Where to write, for instance a memory map: float32 for a float32 image, else float64,
        apart from ``image``. It is written as tiles are done, also before an error.
    tile_shape : (int, int), optional
        Rows and columns of what is written at a time.
    halo : (int, int), optional
        Rows and columns that are read, restored and left out on each side of a tile, where the
        image has them. Two sides of the PSF, ``(2 * (p - 1), 2 * (q - 1))``, when None.
    channel_axis : int, optional
        The axis of a 3-dimensional array or memory map that holds channels, restored one after
        the other.
    callback : callable, optional
        Called as ``callback(done, total)`` after every tile; what it raises ends the work.
    options : optional
        For ``restore``, by keyword. The ``noise`` of `richardson_lucy` is None when left out, or
        every tile would stop at an iteration of its own: give ``num_iter`` to suit the noise.

    Returns
    -------
    array of image's shape
        ``out``, or a new array.

    Raises
    ------
    TypeError
        If an array is complex, masked or not of numbers, or ``out`` is not an array of the right
        dtype.
    ValueError
        If ``psf`` is not finite, zero everywhere or larger than a tile, ``restore`` would choose
        a balance for every tile, another argument is out of its range, or ``restore`` raises one.

    See Also
    --------
    gcv_balance : One balance for the tiles of `wiener`.

    Notes
    -----
    A restored pixel depends on all others, ever less with their distance; a seam is what the
    halo leaves of that. On a photograph of 8 bits with noise of 0.3 and a PSF of 15 x 15 the root
    mean square along a seam was 0.08 for 50 plain iterations of `richardson_lucy` and a disk,
    where the restoration's error was 15; 0.006 for `wiener` and a Gaussian; but 87 for `wiener`
    and the disk, whose transform has zeros that a weak balance lets ring: take a larger balance,
    or the other function. Say ``acceleration=False``, or tiles choose extrapolations of their
    own. For the same reason `wiener` must be given a number for ``balance``: chosen for every tile
    of 128 x 128 of a photograph it differed more than a thousandfold, and left steps of 3 grey
    levels between them. That of a part that shows a bit of everything does for all.
    `inverse_filter` reaches too far for tiles.

    Memory is what ``restore`` takes for a tile with its halo, of one channel.

    Examples
    --------
    >>> import numpy as np
    >>> from fastkernel import convolve, restore_tiled, richardson_lucy
    >>> image = np.kron(np.random.default_rng(0).random((6, 7)), np.ones((10, 10)))
    >>> psf = np.outer([1, 2, 1], [1, 2, 1]) / 16
    >>> options = {"num_iter": 10, "acceleration": False}
    >>> tiled = restore_tiled(richardson_lucy, image, psf, tile_shape=(32, 32), **options)
    >>> bool(abs(tiled - richardson_lucy(image, psf, **options)).max() < 0.05)
    True

    One balance for all tiles, that of a part:

    >>> from fastkernel import gcv_balance, wiener
    >>> balance = gcv_balance(image[:40, :40], psf)
    >>> tiled = restore_tiled(wiener, image, psf, tile_shape=(32, 32), balance=balance)
    >>> bool(abs(tiled - wiener(image, psf, balance)).max() < 0.05)
    True
    """
    given = as_image(image, "image", 2 if channel_axis is None else 3, lazy=channel_axis is None)
    planes = [given] if channel_axis is None else list(as_channels(given, channel_axis))
    m, n = planes[0].shape
    shape = as_shape(tile_shape, "tile_shape")
    shape = min(m, shape[0]), min(n, shape[1])
    if channel_axis is not None and np.ndim(psf) == 3:
        psfs = as_psfs(psf, shape, channel_axis, len(planes))
    else:
        psfs = [as_psf(psf, shape, whole="a tile")] * len(planes)
    p, q = psfs[0].shape
    above, left = (
        (_SIDES * (p - 1), _SIDES * (q - 1)) if halo is None else as_shape(halo, "halo", least=0)
    )
    dtype = float_dtype(given)
    if out is None:
        found = np.empty(given.shape, dtype)
    else:
        inputs = {"image": given} if isinstance(given, np.ndarray) else {}
        found = as_out(out, given.shape, dtype, **inputs)
    _refuse_balances(restore, options)
    if restore is richardson_lucy:
        options.setdefault("noise", None)
    callback = as_callback(callback)
    outs = [found] if channel_axis is None else list(as_channels(found, channel_axis))
    tiles = Tiles((m, n), shape)
    for channel, (plane, taps, target) in enumerate(zip(planes, psfs, outs, strict=True)):
        for done, (row, col, height, width) in enumerate(tiles, 1):
            top, start = max(row - above, 0), max(col - left, 0)
            part = plane[top : row + height + above, start : col + width + left]
            restored = restore(part, taps, **options)
            inner = np.s_[row - top : row - top + height, col - start : col - start + width]
            target[row : row + height, col : col + width] = restored[inner]
            if callback is not None:
                callback(channel * len(tiles) + done, len(planes) * len(tiles))
    return found


def _refuse_balances(restore: Callable[..., AnyArray], options: dict[str, Any]) -> None:
    """Raise where every tile would choose a balance of its own."""
    try:
        parameters = inspect.signature(restore).parameters
    except (TypeError, ValueError):  # of what is not written in Python
        return
    by_default = parameters["balance"].default if "balance" in parameters else None
    if options.get("balance", by_default) == "gcv":
        msg = (
            "balance must be a number, or every tile would choose its own and seams would show; "
            "take balance=gcv_balance(part, psf), of a part of the image"
        )
        raise ValueError(msg)
