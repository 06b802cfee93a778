"""Restoration of images that are larger than memory, by tiles that overlap."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastkernel._images.blocks import blocks_of_tiles, chunks_beneath, surrounded
from fastkernel._images.checks import (
    as_callback,
    as_channels,
    as_image,
    as_output_dtype,
    as_shape,
    as_target,
    refuse_non_finite,
)
from fastkernel._machine.tiles import Tile, Tiles
from fastkernel._typing import AnyArray, FloatArray, Progress, Shape
from fastkernel.restoration.arguments import as_psf, as_psfs, computed_in, refuse_negative_pixels
from fastkernel.restoration.richardson_lucy import richardson_lucy

# Rows, and columns, of a tile.
_TILE = 1024

# Sides of the PSF that a tile reads beyond its own.
_SIDES = 2


def restore_tiled(
    restore: Callable[..., AnyArray],
    image: Any,
    psf: ArrayLike,
    *,
    out: AnyArray | None = None,
    tile_shape: Shape | None = None,
    halo: Shape | None = None,
    channel_axis: int | None = None,
    dtype: DTypeLike | None = None,
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
    out : array or store of image's shape, optional
        Where to write, for instance a memory map, or what has shape, dtype and assignment to
        slices, like a dataset of HDF5 or Zarr: of ``dtype``, apart from ``image``. It is written
        as tiles are done, also before an error; the chunks of a store once each, where
        ``tile_shape`` is a multiple of them or less.
    tile_shape : (int, int), optional
        Rows and columns of what is restored at a time. None for (1024, 1024), or what is next
        below that in whole chunks, which bounds memory, of ``out``, or of ``image`` if ``out`` has
        none. Larger chunks are parted evenly.
    halo : (int, int), optional
        Rows and columns that are read, restored and left out on each side of a tile, where the
        image has them. Two sides of the PSF, ``(2 * (p - 1), 2 * (q - 1))``, when None, beyond
        which seams seldom show (see Notes).
    channel_axis : int, optional
        The axis of a 3-dimensional array or memory map that holds channels, restored one after
        the other. None for two dimensions.
    dtype : {"float32", "float64"}, optional
        Of the answer and of the computation. None is float32 for a float32 image, else float64.
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
        If an array is complex, masked or not of numbers, ``out`` is neither an array nor a store
        of the right dtype, or ``dtype`` is none.
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

    Memory is what ``restore`` takes for a tile with its halo, of one channel, and of what is read
    or written by slices a few blocks of 32 MiB, or of one chunk. A chunk is decoded once, and once
    more where a neighbour of its block needs its columns for a halo.

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
    computed = as_output_dtype(dtype, given)
    if out is None:
        found = np.empty(given.shape, computed)
    else:
        found = as_target(out, given.shape, computed, image=given)
    shape = _as_tile_shape(tile_shape, chunks_beneath(given, found))
    shape = min(m, shape[0]), min(n, shape[1])
    if channel_axis is not None and np.ndim(psf) == 3:
        psfs = as_psfs(psf, shape, channel_axis, len(planes))
    else:
        psfs = [as_psf(psf, shape, whole="a tile")] * len(planes)
    p, q = psfs[0].shape
    around = (
        (_SIDES * (p - 1), _SIDES * (q - 1)) if halo is None else as_shape(halo, "halo", least=0)
    )
    _refuse_balances(restore, options)
    if restore is richardson_lucy:
        options.setdefault("noise", None)
    callback = as_callback(callback)
    outs = [found] if channel_axis is None else list(as_channels(found, channel_axis))
    blocks = blocks_of_tiles(planes[0], shape, around, outs[0])
    done, total = 0, len(planes) * sum(len(Tiles(block[2:], shape)) for block in blocks)
    for plane, taps, target in zip(planes, psfs, outs, strict=True):
        work = _Tiles(partial(restore, **options), taps, shape, around, computed)
        for given_block in surrounded(plane, blocks, around):
            for _ in work.restored(*given_block, target):
                done += 1
                if callback is not None:
                    callback(done, total)
    return found


class _Tiles(NamedTuple):
    """How tiles of an image are restored."""

    restore: Callable[..., AnyArray]
    psf: FloatArray
    shape: Shape
    halo: Shape
    dtype: np.dtype[Any]

    def restored(self, block: Tile, part: AnyArray, origin: Shape, out: AnyArray) -> Iterator[None]:
        """Restore the tiles of a block, one a step; a store is written when all are."""
        top, left, height, width = block
        whole = slice(top, top + height), slice(left, left + width)
        stored = not isinstance(out, np.ndarray)
        found = np.empty((height, width), self.dtype) if stored else out[whole]
        for row, col, rows, cols in Tiles((height, width), self.shape):
            # Where the tile begins in the part, and where its halo does.
            i, j = top + row - origin[0], left + col - origin[1]
            first, start = max(i - self.halo[0], 0), max(j - self.halo[1], 0)
            around = part[first : i + rows + self.halo[0], start : j + cols + self.halo[1]]
            place = origin[0] + first, origin[1] + start
            own = computed_in(around, self.dtype, place)
            try:
                restored = self.restore(own, self.psf)
            except ValueError:
                _refuse_pixels(self.restore, own, place)
                raise
            i, j = i - first, j - start
            found[row : row + rows, col : col + cols] = restored[i : i + rows, j : j + cols]
            yield
        if stored:
            out[whole] = found


def _refuse_pixels(restore: Callable[..., AnyArray], part: AnyArray, origin: Shape) -> None:
    """Raise for what of a tile cannot be restored, by its index in the image."""
    if getattr(restore, "func", None) is richardson_lucy:
        refuse_negative_pixels(part, None, origin)
    refuse_non_finite("image", part, origin)


def _as_tile_shape(value: Any, chunks: Shape) -> Shape:
    """Return the shape of tiles, which part larger chunks evenly; by default of whole chunks."""
    wanted = (_TILE, _TILE) if value is None else as_shape(value, "tile_shape")
    rows, cols = (
        -(-chunk // -(-chunk // tile))
        if chunk > tile
        else tile // chunk * chunk
        if value is None
        else tile
        for tile, chunk in zip(wanted, chunks, strict=True)
    )
    return rows, cols


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
