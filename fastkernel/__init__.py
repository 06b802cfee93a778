"""Recover the convolution kernel that turned one image into another.

The public names are imported when they are first used, so that ``import fastkernel`` costs
little more than NumPy.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "KernelFit": "fit",
    "NormalEquations": "normal",
    "SingularFitError": "errors",
    "estimate_kernel": "estimate",
    "normal_equations": "normal",
}

__all__ = [
    "KernelFit",
    "NormalEquations",
    "SingularFitError",
    "estimate_kernel",
    "normal_equations",
]

if TYPE_CHECKING:
    from fastkernel.errors import SingularFitError as SingularFitError
    from fastkernel.estimate import estimate_kernel as estimate_kernel
    from fastkernel.fit import KernelFit as KernelFit
    from fastkernel.normal import NormalEquations as NormalEquations
    from fastkernel.normal import normal_equations as normal_equations


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        msg = f"module 'fastkernel' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(f"fastkernel.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
