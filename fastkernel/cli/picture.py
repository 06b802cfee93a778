"""What was read of an image file: its pixels, and what stands beside them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastkernel._typing import AnyArray

# The key of the text that marks drawings of ours: enlarged, and no taps.
DRAWING = "fastkernel drawing"

GREY_OR_RGB = "convert it to grey or RGB first"

# EXIF orientations: whether rows and columns are swapped, then which of them are reversed.
_TURNS = {
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}


class RefusedError(Exception):
    """A sound file that is not taken; the message says why."""


@dataclass(frozen=True)
class Notes:
    """What a file says beside its pixels.

    Attributes
    ----------
    orientation : int
        As in EXIF: how the stored pixels lay before they were turned upright; 1 for upright.
    profile : bytes or None
        The ICC profile of its colours.
    dpi : (float, float) or None
        Pixels an inch across and down, of the upright image.
    drawing : str or None
        Which drawing of ours it is.
    alpha : bool
        Whether an alpha channel was left out.
    exif : bytes or None
        The EXIF block, as Pillow writes it, without an orientation.
    header : astropy.io.fits.Header or None
        Of a FITS file.
    """

    orientation: int = 1
    profile: bytes | None = None
    dpi: tuple[float, float] | None = None
    drawing: str | None = None
    alpha: bool = False
    exif: bytes | None = None
    header: Any = None


NO_NOTES = Notes()


@dataclass(frozen=True)
class Picture:
    """An image and what its file says about it.

    Attributes
    ----------
    pixels : (rows, cols) or (rows, cols, channels) array
        Upright, in any real dtype as stored; black and white images as 0 and 1.
    bits : int or None
        1, 8 or 16 where the pixels are whole grey levels from 0 to ``2**bits - 1``.
    lossy : bool
        Whether the file was compressed with losses.
    notes : Notes
        What the file says beside.
    kind : str
        The format of the file, as in ``"PNG"``.
    """

    pixels: AnyArray
    bits: int | None
    lossy: bool
    notes: Notes = NO_NOTES
    kind: str = "NPY"


def check_size(rows: int, cols: int, max_pixels: int) -> None:
    """Refuse an image that is larger than was allowed, or has no pixels."""
    if rows * cols > max_pixels:
        msg = f"{rows} x {cols} pixels are more than --max-pixels {max_pixels}"
        raise RefusedError(msg)
    if rows * cols < 1:
        msg = "it has no pixels"
        raise RefusedError(msg)


def page_of(page: int | None, count: int) -> int:
    """Return which of ``count`` pages is meant, from 0; refuse to guess among several."""
    if page is None and count != 1:
        msg = f"it holds {count} pages; --page says which is meant, from 1"
        raise RefusedError(msg)
    if page is not None and page > count:
        msg = f"it holds {count} pages, and has no --page {page}"
        raise RefusedError(msg)
    return (page or 1) - 1


def upright(pixels: AnyArray, notes: Notes) -> tuple[AnyArray, Notes]:
    """Turn pixels as their orientation asks for, if it is one that EXIF knows."""
    if notes.orientation not in _TURNS:
        return pixels, replace(notes, orientation=1)
    swapped, reversed_axes = _TURNS[notes.orientation]
    pixels = np.flip(pixels.swapaxes(0, 1) if swapped else pixels, reversed_axes)
    if swapped and notes.dpi is not None:
        notes = replace(notes, dpi=notes.dpi[::-1])
    return np.ascontiguousarray(pixels), notes


def turned_note(pictures: Mapping[str, Picture]) -> str:
    """Return what to say of the files whose pixels are not stored upright, or nothing."""
    turned = [repr(name) for name, picture in pictures.items() if picture.notes.orientation != 1]
    if not turned:
        return ""
    verb = "were" if len(turned) > 1 else "was"
    return f"{' and '.join(turned)} {verb} turned upright, by the EXIF orientation of the file"
