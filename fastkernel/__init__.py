"""Recover the convolution kernel that turned one image into another; convolve, and undo it.

The public names are imported when they are first used, so that ``import fastkernel`` costs
little more than NumPy.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "InverseFit": "inverse",
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
    "gcv_balance": "restore",
    "ifftshift": "shift",
    "inverse_filter": "restore",
    "inverse_kernel": "inverse",
    "normal_equations": "normal",
    "restore_tiled": "tiled",
    "richardson_lucy": "richardson",
    "wiener": "restore",
}

__all__ = [
    "InverseFit",
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
    "gcv_balance",
    "ifftshift",
    "inverse_filter",
    "inverse_kernel",
    "normal_equations",
    "restore_tiled",
    "richardson_lucy",
    "wiener",
]

if TYPE_CHECKING:
    from fastkernel import psf as psf
    from fastkernel.convolution import convolve as convolve
    from fastkernel.convolution import correlate as correlate
    from fastkernel.errors import SingularFitError as SingularFitError
    from fastkernel.estimate import estimate_kernel as estimate_kernel
    from fastkernel.fit import KernelFit as KernelFit
    from fastkernel.inverse import InverseFit as InverseFit
    from fastkernel.inverse import inverse_kernel as inverse_kernel
    from fastkernel.matrix import convolution_matrix as convolution_matrix
    from fastkernel.matrix import design_matrix as design_matrix
    from fastkernel.normal import NormalEquations as NormalEquations
    from fastkernel.normal import normal_equations as normal_equations
    from fastkernel.operators import convolution_operator as convolution_operator
    from fastkernel.restore import gcv_balance as gcv_balance
    from fastkernel.restore import inverse_filter as inverse_filter
    from fastkernel.restore import wiener as wiener
    from fastkernel.richardson import richardson_lucy as richardson_lucy
    from fastkernel.shift import circshift as circshift
    from fastkernel.shift import fftshift as fftshift
    from fastkernel.shift import ifftshift as ifftshift
    from fastkernel.tiled import restore_tiled as restore_tiled


def __getattr__(name: str) -> Any:
    if name == "psf":  # a module of functions
        return importlib.import_module("fastkernel.psf")
    if name not in _HOME:
        msg = f"module 'fastkernel' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(f"fastkernel.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "psf"])
