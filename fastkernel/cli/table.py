"""Kernels as text on standard output."""

import sys

from fastkernel._typing import FloatArray
from fastkernel.estimation.display import tables
from fastkernel.estimation.display.tables import align as align


def kernel_table(kernel: FloatArray, errors: FloatArray, columns: int) -> list[str]:
    """Lay out a kernel in as much detail as fits, in characters that standard output takes."""
    return tables.kernel_table(kernel, errors, columns, plus_minus())


def plus_minus() -> str:
    """Return the sign, in ASCII where standard output takes nothing else."""
    try:
        "±".encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return "+/-"
    return "±"
