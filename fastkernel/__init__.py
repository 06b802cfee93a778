"""Recover the convolution kernel that turned one image into another; convolve, and undo it.

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
    "circshift": "shift",
    "convolution_matrix": "matrix",
    "convolution_operator": "operators",
    "convolve": "convolution",
    "correlate": "convolution",
    "design_matrix": "matrix",
    "estimate_kernel": "estimate",
    "fftshift": "shift",
    "ifftshift": "shift",
    "normal_equations": "normal",
}

__all__ = [
    "KernelFit",
    "NormalEquations",
    "SingularFitError",
    "circshift",
    "convolution_matrix",
    "convolution_operator",
    "convolve",
    "correlate",
    "design_matrix",
    "estimate_kernel",
    "fftshift",
    "ifftshift",
    "normal_equations",
]

if TYPE_CHECKING:
    from fastkernel.convolution import convolve as convolve
    from fastkernel.convolution import correlate as correlate
    from fastkernel.errors import SingularFitError as SingularFitError
    from fastkernel.estimate import estimate_kernel as estimate_kernel
    from fastkernel.fit import KernelFit as KernelFit
    from fastkernel.matrix import convolution_matrix as convolution_matrix
    from fastkernel.matrix import design_matrix as design_matrix
    from fastkernel.normal import NormalEquations as NormalEquations
    from fastkernel.normal import normal_equations as normal_equations
    from fastkernel.operators import convolution_operator as convolution_operator
    from fastkernel.shift import circshift as circshift
    from fastkernel.shift import fftshift as fftshift
    from fastkernel.shift import ifftshift as ifftshift


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        msg = f"module 'fastkernel' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(f"fastkernel.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
