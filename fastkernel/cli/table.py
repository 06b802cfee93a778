"""Kernels as text on standard output."""

import sys
from typing import TextIO

from fastkernel._typing import FloatArray
from fastkernel.estimation.display import tables
from fastkernel.estimation.display.tables import align as align


def kernel_table(
    kernel: FloatArray, errors: FloatArray, columns: int, stream: TextIO | None = None
) -> list[str]:
    """Lay out a kernel in as much detail as fits, in characters that a stream takes."""
    return tables.kernel_table(kernel, errors, columns, plus_minus(stream))


def plus_minus(stream: TextIO | None = None) -> str:
    """Return the sign, in ASCII where a stream, by default standard output, takes nothing else."""
    stream = sys.stdout if stream is None else stream
    try:
        "±".encode(getattr(stream, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return "+/-"
    return "±"


def is_bars(line: str) -> bool:
    """Tell whether a line of a table holds standard errors."""
    return line.lstrip().startswith(("±", "+/-"))
