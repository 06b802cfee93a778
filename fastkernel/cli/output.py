"""Writing files whole or not at all."""

import importlib.util
import io
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastkernel._machine.files import beside, write_whole
from fastkernel._typing import FloatArray
from fastkernel.cli.errors import OutputError, UsageError
from fastkernel.cli.files import STANDARD
from fastkernel.cli.picture import DRAWING
from fastkernel.cli.raster import pillow
from fastkernel.cli.streams import Stream

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SUFFIXES = (".npz", ".npy", ".csv", ".png")

# The target of what goes to standard output: no path that `check_target` returns, which are whole.
_STANDARD_OUTPUT = Path(STANDARD)

# What a report is written as.
REPORTS: dict[str, Literal["html", "text"]] = {".html": "html", ".txt": "text"}

_PICTURE_SIDE = 256
_MID_GREY = 128


def check_target(name: str, *, force: bool, inputs: Iterable[str] = ()) -> Path:
    """Check, before any work is done, that a file can be written.

    Parameters
    ----------
    name : str
        The file to write, or ``-`` for standard output.
    force : bool
        Whether it may exist.
    inputs : iterable of str, optional
        Files that it must not be.

    Returns
    -------
    Path
        Where `write_file` is to write: what ``name`` points to, should it be a link.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    if name == STANDARD:
        if sys.stdout is None or sys.stdout.isatty():
            what = "closed" if sys.stdout is None else "a terminal"
            msg = f"standard output is {what}; '-' writes to a pipe, or a file after '>'"
            raise OutputError(msg)
        return _STANDARD_OUTPUT
    try:
        path = Path(os.path.realpath(name))
        if any(path.samefile(other) for other in inputs if path.exists() and Path(other).exists()):
            msg = f"{name!r} is an input; give the output another name"
            raise OutputError(msg)
        if os.path.lexists(name) and path.exists() and not path.is_file():
            msg = f"{name!r} exists and is not a file; give the output another name"
            raise OutputError(msg)
        if os.path.lexists(name) and not force:
            msg = f"{name!r} exists; --force overwrites it"
            raise OutputError(msg)
        temporary = beside(path)
        temporary.touch(exist_ok=False)
        temporary.unlink()
    except OSError as problem:
        raise _unwritable(name, problem) from problem
    return path


def check_apart(output: str | None, plot: str | None, report: str | None = None) -> None:
    """Check, before any work is done, that a kernel, its figure and its report are apart.

    Parameters
    ----------
    output, plot, report : str or None
        The files to write; None where none is asked for.

    Raises
    ------
    UsageError
        If two are one, of which the second would replace the first.
    """
    asked = {"-o": output, "--plot": plot, "--report": report}
    named = {option: name for option, name in asked.items() if name is not None}
    for (option, name), (other, second) in combinations(named.items(), 2):
        if _are_one(name, second):
            kind = "report" if other == "--report" else "figure"
            msg = f"{option} and {other} both write {name!r}; give the {kind} another name"
            raise UsageError(msg)


def _are_one(name: str, other: str) -> bool:
    try:
        first, second = (Path(os.path.normcase(os.path.realpath(path))) for path in (name, other))
        if first.exists() and second.exists() and str(first).casefold() == str(second).casefold():
            return first.samefile(second)  # some file systems tell no capitals
    except OSError as problem:
        raise _unwritable(name, problem) from problem
    return first == second


def suffix_of(name: str, asked: str | None, standard: str) -> str:
    """Return the suffix that says how a file is written.

    Parameters
    ----------
    name : str
        The file.
    asked : str or None
        The format that was asked for, as in ``"png"``.
    standard : str
        That of standard output, unless one was asked for.
    """
    if asked is not None:
        return f".{asked}"
    return standard if name == STANDARD else Path(name).suffix.lower()


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, or standard output."""
    if path == _STANDARD_OUTPUT:
        _write_standard(data)
        return
    try:
        write_whole(path, data)
    except OSError as problem:
        raise _unwritable(str(path), problem) from problem


def _write_standard(data: bytes) -> None:
    out = sys.stdout
    try:
        if isinstance(out, Stream):
            out.write_bytes(data)
        else:
            out.flush()
            out.buffer.write(data)
            out.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as problem:
        msg = f"standard output: {problem.strerror or problem}"
        raise OutputError(msg) from problem


def _unwritable(name: str, problem: OSError) -> OutputError:
    return OutputError(f"{name!r} cannot be written: {problem.strerror}")


def check_kernel_target(name: str, suffix: str, *, force: bool, inputs: Iterable[str]) -> Path:
    """Check the target of a kernel as `check_target` does, and that its suffix is one of ours."""
    if suffix not in _SUFFIXES:
        msg = f"{name!r} has none of the suffixes a kernel is written to: {', '.join(_SUFFIXES)}"
        raise OutputError(msg)
    if suffix == ".png":
        try:
            pillow()
        except ImportError as problem:
            raise OutputError(str(problem)) from problem
    return check_target(name, force=force, inputs=inputs)


def check_plot_target(name: str, *, force: bool, inputs: Iterable[str]) -> Path:
    """Check the target of a figure as `check_target` does, and that it can be drawn."""
    if Path(name).suffix.lower() != ".png":
        msg = f"{name!r} has not the suffix a figure is written to: .png"
        raise OutputError(msg)
    _check_drawing()
    return check_target(name, force=force, inputs=inputs)


def check_report_target(name: str, *, force: bool, inputs: Iterable[str]) -> Path:
    """Check the target of a report as `check_target` does, and that its pictures can be drawn."""
    suffix = Path(name).suffix.lower()
    if suffix not in REPORTS:
        msg = f"{name!r} has none of the suffixes a report is written to: {', '.join(REPORTS)}"
        raise OutputError(msg)
    if REPORTS[suffix] == "html":
        _check_drawing()
    return check_target(name, force=force, inputs=inputs)


def _check_drawing() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        msg = "figures need matplotlib: pip install 'fastkernel[plot]'"
        raise OutputError(msg)


def json_text(value: object) -> str:
    """Return JSON on one line: numbers in full, null for those that are not finite."""
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value: object) -> object:
    """Return a value made of what JSON knows."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def figure_bytes(figure: "Figure") -> bytes:
    """Return the contents of a figure's ``.png`` file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={DRAWING: "a fit"})
    return buffer.getvalue()


def kernel_bytes(
    kernel: FloatArray, suffix: str, beside: Mapping[str, FloatArray | float | str] | None = None
) -> bytes:
    """Return the contents of a kernel's file.

    Parameters
    ----------
    kernel : (p, q) float64 array
        The taps.
    suffix : str
        ``.npz``, ``.npy``, ``.csv`` or ``.png``.
    beside : mapping, optional
        What belongs to the taps, by the names that an ``.npz`` file gives them; others have no
        place for it.
    """
    buffer = io.BytesIO()
    if suffix == ".npz":
        parts: dict[str, Any] = {"kernel": kernel} | dict(beside or {})
        np.savez(buffer, **parts, allow_pickle=False)
    elif suffix == ".npy":
        np.save(buffer, kernel, allow_pickle=False)
    elif suffix == ".csv":
        lines = (",".join(map(repr, row)) for row in kernel.tolist())
        buffer.write("".join(f"{line}\n" for line in lines).encode())
    else:
        from PIL.PngImagePlugin import PngInfo

        mark = PngInfo()
        mark.add_text(DRAWING, "a kernel")
        pillow().fromarray(kernel_levels(kernel)).save(buffer, "PNG", pnginfo=mark)
    return buffer.getvalue()


def kernel_levels(kernel: FloatArray) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Return an enlarged 8 bit picture of a kernel.

    Zero is black; or, where a tap is visibly negative, mid-grey. The largest tap is white or black.
    """
    scaled = kernel / (np.abs(kernel).max() or 1.0)
    # Noise around zero does not make a kernel negative: it must be dark enough to be seen.
    negative = scaled.min() < -0.5 / 255
    levels = _MID_GREY + 127 * scaled if negative else np.maximum(255 * scaled, 0)
    factor = -(-_PICTURE_SIDE // max(kernel.shape))
    return np.kron(np.rint(levels).astype(np.uint8), np.ones((factor, factor), np.uint8))
