"""Kernels from files, or described in a word.

Tables of numbers (.npy, .csv, TIFF of floats or of signed whole numbers) hold taps, and are taken
as they stand. Grey levels (PNG, TIFF of unsigned whole numbers) hold a kernel but for its scale:
they are divided by their sum, and the reader is told.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastkernel._typing import FloatArray
from fastkernel.cli.errors import InputError
from fastkernel.cli.files import read_picture

MAX_TAPS = 1 << 20

# Rows and columns beyond which grey levels are a photograph, or a drawing of a kernel.
MOST_LEVELS = 128

FORMS = (
    "a file (.npy, .csv or float .tif of taps; .png or whole-number .tif of grey levels, which are "
    "divided by their sum), gaussian:SIGMA, motion:LENGTH[@ANGLE], disk:RADIUS or box:P[xQ]"
)

# A sum this near to 1 is 1, but for the rounding of float32 files.
_ROUNDING = 1e-6
# A sum that is this small beside the sizes of the taps is 0, but for rounding.
_NOTHING = 1e-3

# Standard deviations from the centre of a Gaussian to its rim: 1e-4 of the peak.
_REACH = 4.3


def read_kernel(text: str, tell: Callable[[str], None] = print) -> FloatArray:
    """Return the kernel that a command line names.

    Parameters
    ----------
    text : str
        Path of a file, or a blur: ``gaussian:2.0``, ``motion:15@30``, ``disk:3.5``, ``box:5x7``.
    tell : callable, optional
        Called with what the reader must know of how the file was understood.

    Returns
    -------
    (p, q) float64 array
        As stored; grey levels divided by their sum. A blur has the sum 1.

    Raises
    ------
    InputError
        If the file cannot be read or holds no taps, or the text is none of these.
    """
    name, colon, numbers = text.partition(":")
    if colon and name in _BLURS:
        return _BLURS[name](text, numbers)
    suffix = Path(text).suffix.lower()
    levels = False
    if suffix == ".csv":
        kernel = _read_csv(text)
    elif suffix in {".npy", ".png", ".tif", ".tiff"}:
        kernel, levels = _read_picture(text, suffix)
    else:
        msg = f"{text!r} is no kernel: give {FORMS}"
        raise InputError(msg)
    bad = np.argwhere(~np.isfinite(kernel))
    if len(bad):
        row, col = map(int, bad[0])
        msg = f"{text!r} must hold finite taps, got {kernel[row, col]} at [{row}, {col}]"
        raise InputError(msg)
    if not kernel.any():
        msg = f"{text!r} must hold a tap that is not zero; it turns every image black"
        raise InputError(msg)
    if levels:
        total = kernel.sum()
        kernel /= total
        tell(f"kernel: {text!r} holds grey levels; taps are these divided by their sum, {total:g}")
    return kernel


def unit_sum(kernel: FloatArray, text: str, tell: Callable[[str], None]) -> FloatArray:
    """Return a PSF whose taps sum to 1, or say why it does not.

    Parameters
    ----------
    kernel : (p, q) float64 array
        Finite taps.
    text : str
        What the command line calls it.
    tell : callable
        Called with what was done, unless the sum is 1 already.

    Returns
    -------
    (p, q) float64 array
        The kernel divided by its sum; as it is where that is not above 0 but for rounding.
    """
    total = float(kernel.sum())
    if abs(total - 1) <= _ROUNDING:
        return kernel
    if total <= _NOTHING * float(np.abs(kernel).sum()):
        tell(
            f"kernel: the taps of {text!r} sum to {total:.6g}, which no blur does; they are taken "
            "as they stand, and the brightness of the picture is not kept"
        )
        return kernel
    tell(
        f"kernel: the taps of {text!r} summed to {total:.6g} and were divided by it, so that the "
        "picture keeps its brightness; --keep-sum takes them as they stand"
    )
    return kernel / total


def _read_picture(text: str, suffix: str) -> tuple[FloatArray, bool]:
    """Return the pixels of a file, and whether they are grey levels."""
    picture = read_picture(text, max_pixels=MAX_TAPS, drop_alpha=True)
    pixels, drawing = picture.pixels, picture.notes.drawing
    if drawing is not None:
        msg = (
            f"{text!r} is a drawing of {drawing}, enlarged to be looked at; give the .npy or .csv "
            "that the same command writes with -o"
        )
        raise InputError(msg)
    if pixels.ndim != 2 or picture.notes.alpha:
        what = "an alpha channel" if picture.notes.alpha else "channels"
        msg = f"{text!r} has {what}; a kernel has rows and columns alone, save it as grey"
        raise InputError(msg)
    levels = suffix != ".npy" and (picture.bits is not None or pixels.dtype.kind in "bu")
    if levels and max(pixels.shape) > MOST_LEVELS:
        rows, cols = pixels.shape
        msg = (
            f"{text!r} holds {rows} x {cols} grey levels, a photograph rather than a kernel of at "
            f"most {MOST_LEVELS} x {MOST_LEVELS}; save larger kernels as .npy or as float TIFF"
        )
        raise InputError(msg)
    return np.array(pixels, np.float64), levels


def _read_csv(name: str) -> FloatArray:
    try:
        with Path(name).open(encoding="utf-8") as file:
            kernel = np.loadtxt(file, np.float64, delimiter=",", ndmin=2, max_rows=MAX_TAPS)
    except OSError as problem:
        msg = f"{name!r} cannot be read: {problem.strerror}"
        raise InputError(msg) from problem
    except ValueError as problem:
        msg = f"{name!r} is not a table of numbers with commas between them: {problem}"
        raise InputError(msg) from problem
    if not kernel.size:
        msg = f"{name!r} is empty"
        raise InputError(msg)
    return kernel


def _numbers(text: str, numbers: str, most: float, separator: str | None = None) -> list[float]:
    """Return one number, or two where there is a separator: sizes in pixels, or an angle."""
    try:
        parts = [numbers] if separator is None else re.split(separator, numbers)
        found = [float(part) for part in parts]
    except ValueError:
        found = []
    if not 1 <= len(found) <= 2 or not all(abs(n) <= most for n in found) or found[0] <= 0:
        msg = f"{text!r} is no kernel: give {FORMS}, sizes above 0 and up to {most:g}"
        raise InputError(msg)
    return found


def _gaussian(text: str, numbers: str) -> FloatArray:
    from fastkernel import psf

    (sigma,) = _numbers(text, numbers, 100)
    return psf.gaussian(2 * math.ceil(_REACH * sigma) + 1, sigma)


def _motion(text: str, numbers: str) -> FloatArray:
    from fastkernel import psf

    return psf.motion(*_numbers(text, numbers, 1000, "@"))


def _disk(text: str, numbers: str) -> FloatArray:
    from fastkernel import psf

    (radius,) = _numbers(text, numbers, 500)
    return psf.disk(radius)


def _box(text: str, numbers: str) -> FloatArray:
    from fastkernel import psf

    rows, *cols = _numbers(text, numbers, 1000, "[x×]")
    sides = [rows, *(cols or [rows])]
    if any(side != round(side) or side < 1 for side in sides):
        msg = f"{text!r} is no kernel: a box has whole sides, as in box:5x7"
        raise InputError(msg)
    return psf.box((round(sides[0]), round(sides[1])))


_BLURS = {"gaussian": _gaussian, "motion": _motion, "disk": _disk, "box": _box}
