"""FITS files, by astropy: one image of them read, several written."""

import io
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastkernel._typing import AnyArray
from fastkernel.cli.errors import InputError

SUFFIXES = (".fits", ".fit", ".fts")

# Keywords of how pixels are stored, which are those of the file that is written.
_STORAGE = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|BSCALE|BZERO|BLANK|EXTNAME|EXTVER"
    r"|CHECKSUM|DATASUM|DATAMIN|DATAMAX"
)


def is_fits(name: str) -> bool:
    """Tell whether a name, without what stands in brackets after it, is that of a FITS file."""
    return Path(parted(name)[0]).suffix.lower() in SUFFIXES


def parted(name: str) -> tuple[str, str | None]:
    """Return a path and the extension in brackets after it, as in ``a.fits[MASK]``.

    Examples
    --------
    >>> parted("a.fits[MASK]"), parted("a.fits")
    (('a.fits', 'MASK'), ('a.fits', None))
    """
    match = re.fullmatch(r"(.*)\[([^\[\]]+)\]", name, re.DOTALL)
    return (match[1], match[2]) if match else (name, None)


def astropy_fits() -> Any:
    """Return ``astropy.io.fits``, or say what to install."""
    try:
        from astropy.io import fits
    except ImportError as problem:
        msg = "FITS needs astropy: pip install 'fastkernel[fits]'"
        raise ImportError(msg) from problem
    return fits


def read_fits(name: str, max_pixels: int) -> tuple[AnyArray, Any]:
    """Read an image of a FITS file.

    Parameters
    ----------
    name : str
        Path of the file, and in brackets which extension is meant, by its name or its number from
        0; the first that holds an image of two axes when not given.
    max_pixels : int
        Largest rows times columns, compared before anything is read.

    Returns
    -------
    pixels : (m, n) array
        Scaled as the file asks for; blank pixels are NaN.
    header : astropy.io.fits.Header
        Of the extension.

    Raises
    ------
    InputError
        If the file is missing or damaged, or has no such image.
    """
    path, extension = parted(name)
    try:
        fits = astropy_fits()
    except ImportError as problem:
        msg = f"{name!r}: {problem}"
        raise InputError(msg) from problem
    try:
        with warnings.catch_warnings():
            # Oddities of a header are no matter here.
            warnings.simplefilter("ignore")
            with fits.open(path, mode="readonly", memmap=False) as file:
                unit = _unit(file, extension, name)
                rows, cols = unit.shape
                if rows * cols > max_pixels:
                    msg = (
                        f"{name!r}: {rows} x {cols} pixels are more than --max-pixels {max_pixels}"
                    )
                    raise InputError(msg)
                pixels, header = np.asarray(unit.data), unit.header.copy()
    except (InputError, MemoryError):
        raise
    except OSError as problem:
        msg = f"{path!r} cannot be read: {problem.strerror or problem}"
        raise InputError(msg) from problem
    except Exception as problem:  # readers raise anything on damaged files
        msg = f"{name!r} is damaged or of a kind that cannot be read: {problem}"
        raise InputError(msg) from problem
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False), header


def _unit(file: Any, extension: str | None, name: str) -> Any:
    """Return the header and data unit that is meant."""
    images = [unit for unit in file if unit.is_image and len(unit.shape) == 2]
    if extension is None and images:
        return images[0]
    for number, unit in enumerate(file):
        if extension is not None and extension.upper() in (unit.name.upper(), str(number)):
            if unit in images:
                return unit
            break
    there = ", ".join(
        f"{number} {unit.name}{' (an image)' * (unit in images)}"
        for number, unit in enumerate(file)
    )
    wanted = "no image" if extension is None else f"no image {extension!r}"
    msg = f"{name!r} has {wanted} of two axes; it holds {there}"
    raise InputError(msg)


def fits_bytes(
    images: Mapping[str, AnyArray], header: Any | None, more: Mapping[str, tuple[Any, str]]
) -> bytes:
    """Return the contents of a FITS file.

    Parameters
    ----------
    images : mapping of str to (m, n) array
        By the name of the extension; the first is the primary one.
    header : astropy.io.fits.Header or None
        Of the image that the first was made from, kept but for how pixels are stored.
    more : mapping of str to (value, comment)
        Keywords that are added to it.
    """
    fits = astropy_fits()
    kept = fits.Header()
    if header is not None:
        kept.extend([card for card in header.cards if not _STORAGE.fullmatch(card.keyword)])
    for keyword, (value, comment) in more.items():
        kept[keyword] = value, comment
    (_, first), *others = images.items()
    units = [fits.PrimaryHDU(first, kept)]
    units += [fits.ImageHDU(image, name=name) for name, image in others]
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits.HDUList(units).writeto(buffer, output_verify="silentfix")
    return buffer.getvalue()
