"""Kernels from files, or described in a word."""

import math
import re
from pathlib import Path

import numpy as np

from fastkernel._typing import FloatArray
from fastkernel.cli.errors import InputError
from fastkernel.cli.files import read_picture

MAX_TAPS = 1 << 20

FORMS = (
    "a file (.npy, .csv, .png: a pixel a tap), gaussian:SIGMA, motion:LENGTH[@ANGLE], "
    "disk:RADIUS or box:P[xQ]"
)

# Standard deviations from the centre of a Gaussian to its rim: 1e-4 of the peak.
_REACH = 4.3


def read_kernel(text: str) -> FloatArray:
    """Return the kernel that a command line names.

    Parameters
    ----------
    text : str
        Path of a file, or a blur: ``gaussian:2.0``, ``motion:15@30``, ``disk:3.5``, ``box:5x7``.

    Returns
    -------
    (p, q) float64 array
        As stored; grey levels of a picture divided by their sum. A blur has the sum 1.

    Raises
    ------
    InputError
        If the file cannot be read, or the text is none of these.
    """
    name, colon, numbers = text.partition(":")
    if colon and name in _BLURS:
        return _BLURS[name](text, numbers)
    suffix = Path(text).suffix.lower()
    if suffix == ".csv":
        kernel = _read_csv(text)
    elif suffix in {".npy", ".png", ".tif", ".tiff"}:
        picture = read_picture(text, max_pixels=MAX_TAPS)
        if picture.pixels.ndim != 2:
            msg = f"{text!r} has channels; a kernel has rows and columns, save it as grey"
            raise InputError(msg)
        kernel = np.array(picture.pixels, np.float64)
        if suffix != ".npy" and kernel.any():
            kernel /= kernel.sum()
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
    return kernel


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
