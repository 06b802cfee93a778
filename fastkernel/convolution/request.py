"""What a convolution is asked for, whatever computes it: checked, and in the terms of engines."""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastkernel._images.checks import (
    as_boundary,
    as_choice,
    as_image,
    as_number,
    refuse_larger_kernel,
    refuse_non_finite,
)
from fastkernel._images.windows import MODES, Window, window_of_mode
from fastkernel._typing import AnyArray, Border, Boundary, ConvolutionMethod, Mode, Shape
from fastkernel.convolution.convolution_cost import ENGINES
from fastkernel.convolution.convolution_engines import Correlation


class Request(NamedTuple):
    """What a convolution of an image is asked for.

    Attributes
    ----------
    kernel : (p, q) array
        As it was given.
    taps : (p, q) array
        Those of the correlation, of the output's dtype.
    window : Window
        The outputs, and what they are made of.
    engine : {"auto", "direct", "separable", "fft"}
        How.
    """

    kernel: AnyArray
    taps: AnyArray
    window: Window
    engine: ConvolutionMethod


def as_request(
    kernel: ArrayLike,
    image_shape: Shape,
    dtype: np.dtype[Any],
    mode: Mode,
    boundary: Border,
    method: ConvolutionMethod,
    fill_value: float,
    *,
    flipped: bool,
) -> Request:
    """Check the arguments of a convolution that do not depend on where its image is."""
    given = as_image(kernel, "kernel")
    mode, rule = as_choice(mode, "mode", MODES), as_boundary(boundary)
    engine: Any = as_choice(method, "method", ("auto", *ENGINES))
    p, q = given.shape
    if mode == "valid":
        refuse_larger_kernel("kernel", (p, q), image_shape)
    window = replace(
        window_of_mode(mode, image_shape, (p, q), rule, flipped=flipped),
        fill_value=_as_fill_value(fill_value, rule, dtype),
    )
    taps = as_taps(given, dtype, flipped=flipped)
    return Request(given, taps, window, engine)


def refuse_inseparable(work: Correlation, engine: ConvolutionMethod) -> None:
    """Raise if a kernel has no factors, which were asked for."""
    if engine == "separable" and work.factors is None:
        msg = "kernel must be of rank one for method='separable'; use 'auto'"
        raise ValueError(msg)


def _as_fill_value(value: Any, rule: Boundary, dtype: np.dtype[Any]) -> float:
    """Return what stands beyond the frame, finite in ``dtype``."""
    fill = as_number(value, "fill_value")
    if fill != 0 and rule != "zero":
        msg = (
            f"fill_value goes with boundary='zero', whose zeros it takes the place of, got "
            f"{value!r} with {rule!r}; leave it out"
        )
        raise ValueError(msg)
    with np.errstate(over="ignore"):
        if not math.isfinite(float(dtype.type(fill))):
            msg = f"fill_value must be finite in {dtype}, got {value!r}; use dtype='float64'"
            raise ValueError(msg)
    return fill


def as_taps(kernel: AnyArray, dtype: np.dtype[Any], *, flipped: bool) -> AnyArray:
    """Return a kernel as the taps of a correlation, finite in ``dtype``."""
    with np.errstate(over="ignore"):
        taps = np.ascontiguousarray(kernel[::-1, ::-1] if flipped else kernel, dtype)
    if not math.isfinite(float(np.abs(taps).max())):
        refuse_non_finite("kernel", kernel)
        refuse_non_finite(f"kernel in {dtype}", taps[::-1, ::-1] if flipped else taps)
    return taps
