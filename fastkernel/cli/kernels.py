"""Kernels from files, or described in a word.

What ``estimate`` found (.npz) holds taps and what belongs to them: the light that they are for and
the level beside them. Tables of numbers (.npy, .csv, TIFF of floats or of signed whole numbers)
hold taps, and are taken as they stand. Grey levels (PNG, TIFF of unsigned whole numbers) hold a
kernel but for its scale: they are divided by their sum, and the reader is told.
"""

import io
import math
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fastkernel._typing import FloatArray
from fastkernel.cli.errors import InputError
from fastkernel.cli.files import STANDARD, read_picture, read_standard_input, sniff
from fastkernel.cli.picture import Picture
from fastkernel.cli.words import KERNEL_FORMS as FORMS

MAX_TAPS = 1 << 20

# Rows and columns beyond which grey levels are a photograph, or a drawing of a kernel.
MOST_LEVELS = 128

# Bytes of standard input that may be a kernel: taps written in full.
_MOST_BYTES = 64 * MAX_TAPS

# A sum this near to 1 is 1, but for the rounding of float32 files.
_ROUNDING = 1e-6
# A sum this near to 1 changes no picture by as much as half a level of 8 bits.
_UNSEEN = 1e-3
# A sum that is this small beside the sizes of the taps is 0, but for rounding.
_NOTHING = 1e-3

# Standard deviations from the centre of a Gaussian to its rim: 1e-4 of the peak.
_REACH = 4.3


@dataclass(frozen=True)
class KernelFile:
    """A kernel, and what belongs to it.

    Attributes
    ----------
    taps : (p, q) float64 array
        As stored; grey levels divided by their sum. A blur has the sum 1.
    light : str or None
        ``"stored"`` where it convolves levels as files hold them, ``"srgb"`` the light that levels
        of sRGB stand for; None where nothing says so.
    background : float
        What it adds to every pixel.
    """

    taps: FloatArray
    light: str | None = None
    background: float = 0.0


def read_kernel(text: str, tell: Callable[[str], None] = print) -> FloatArray:
    """Return the taps of `read_kernel_file`."""
    return read_kernel_file(text, tell).taps


def read_kernel_file(text: str, tell: Callable[[str], None] = print) -> KernelFile:
    """Return the kernel that a command line names.

    Parameters
    ----------
    text : str
        Path of a file, ``-`` for standard input, or a blur: ``gaussian:2.0``, ``motion:15@30``,
        ``disk:3.5``, ``box:5x7``.
    tell : callable, optional
        Called with what the reader must know of how the file was understood.

    Returns
    -------
    KernelFile
        Its taps, and what is known of them.

    Raises
    ------
    InputError
        If the file cannot be read or holds no taps, or the text is none of these.
    """
    name, colon, numbers = text.partition(":")
    if colon and name in _BLURS:
        return KernelFile(_BLURS[name](text, numbers))
    found, levels = _stored(text)
    kernel = found.taps
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
    return found


def _stored(text: str) -> tuple[KernelFile, bool]:
    """Return what a file or standard input holds, and whether it is grey levels."""
    suffix = Path(text).suffix.lower()
    data = None
    if text == STANDARD:
        data = read_standard_input(_MOST_BYTES)
        suffix = _suffix_of(data)
    if suffix == ".npz":
        return _read_npz(text, data), False
    if suffix == ".csv":
        return KernelFile(_read_csv(text, data)), False
    if suffix in {".npy", ".png", ".tif", ".tiff"}:
        picture = read_picture(text, max_pixels=MAX_TAPS, drop_alpha=True, data=data)
        taps, levels = _of_picture(picture, text, suffix)
        return KernelFile(taps), levels
    msg = f"{text!r} is no kernel: give {FORMS}"
    raise InputError(msg)


def _suffix_of(data: bytes) -> str:
    """Return the suffix that a file of these bytes would have."""
    if data.startswith(b"PK"):
        return ".npz"
    known = {"NPY": ".npy", "PNG": ".png", "TIFF": ".tif", None: ".csv"}
    return known.get(sniff(data[:16]), "")


def unit_sum(kernel: FloatArray, text: str, tell: Callable[[str], None]) -> FloatArray:
    """Return a PSF whose taps sum to 1, or say why it does not.

    Parameters
    ----------
    kernel : (p, q) float64 array
        Finite taps.
    text : str
        What the command line calls it.
    tell : callable
        Called with what was done, unless the sum is as good as 1 already.

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
    if abs(total - 1) <= _UNSEEN:
        return kernel / total
    tell(
        f"kernel: the taps of {text!r} summed to {total:.6g} and were divided by it, so that the "
        "picture keeps its brightness; --keep-sum takes them as they stand"
    )
    return kernel / total


def _of_picture(picture: Picture, text: str, suffix: str) -> tuple[FloatArray, bool]:
    """Return the pixels of a file, and whether they are grey levels."""
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


def _read_npz(name: str, data: bytes | None) -> KernelFile:
    try:
        with _opened(name, data) as file, np.load(file, allow_pickle=False) as parts:
            taps = np.array(parts["kernel"], np.float64)
            if "kind" in parts and str(parts["kind"]) == "correlation":
                taps = np.ascontiguousarray(taps[::-1, ::-1])
            light = str(parts["light"]) if "light" in parts else None
            level = float(parts["background"]) if "background" in parts else 0.0
    except OSError as problem:
        msg = f"{name!r} cannot be read: {problem.strerror or problem}"
        raise InputError(msg) from problem
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as problem:
        msg = f"{name!r} holds no kernel that estimate wrote: {problem}"
        raise InputError(msg) from problem
    if taps.ndim != 2 or not 0 < taps.size <= MAX_TAPS or light not in {None, "stored", "srgb"}:
        msg = f"{name!r} holds no kernel that estimate wrote: taps {taps.shape}, light {light}"
        raise InputError(msg)
    if not math.isfinite(level):
        msg = f"{name!r} must hold a finite background, got {level}"
        raise InputError(msg)
    return KernelFile(taps, light, level)


def _opened(name: str, data: bytes | None) -> BinaryIO:
    return Path(name).open("rb") if data is None else io.BytesIO(data)


def _read_csv(name: str, data: bytes | None) -> FloatArray:
    try:
        with io.TextIOWrapper(_opened(name, data), encoding="utf-8") as file:
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
