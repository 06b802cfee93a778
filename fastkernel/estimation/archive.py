"""Values in .npz files, without pickle."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fastkernel._machine.files import write_whole
from fastkernel._typing import AnyArray

T = TypeVar("T")

# What comes of bytes that are no archive, an archive of something else, or a damaged one.
_NO_ARCHIVE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    EOFError,
    OverflowError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    OSError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def write_archive(path: str | PathLike[str], fields: Mapping[str, Any]) -> None:
    """Write arrays and numbers by name, whole or not at all; OSError if that cannot be."""
    data = io.BytesIO()
    np.savez(data, **fields, allow_pickle=False)
    write_whole(Path(path), data.getvalue())


def read_archive(
    path: str | PathLike[str], what: str, content: Callable[[dict[str, AnyArray]], T]
) -> T:
    """Return what a file holds.

    Parameters
    ----------
    path : str or path-like
        The file.
    what : str
        What it should hold, in messages.
    content : callable
        Makes it of the arrays by name.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it holds something else.
    """
    # Read first: what fails from here on is the fault of the bytes, not of the disk.
    stored = io.BytesIO(Path(path).read_bytes())
    try:
        with np.load(stored, allow_pickle=False) as file:
            return content({name: file[name] for name in file.files})
    except _NO_ARCHIVE as reason:
        msg = f"{str(path)!r} does not hold {what} saved by fastkernel: {reason}"
        raise ValueError(msg) from reason
