"""What a file of a field must hold to be one."""

import math
from typing import Any

import numpy as np

from fastkernel._images.checks import MAX_DEGREE, as_boundary, as_shape, refuse_non_finite
from fastkernel._images.windows import window_of_pair
from fastkernel._typing import AnyArray
from fastkernel.estimation.equations.normal_equations import centred_taps
from fastkernel.estimation.fields.frame import Frame
from fastkernel.estimation.fields.unknowns import Unknowns

# Numbers, pairs of them, and arrays of so many dimensions.
_NUMBERS = {
    **dict.fromkeys(("degree", "scale_degree", "n_pixels"), int),
    **dict.fromkeys(("residual_rms", "condition_number", "ridge", "noise_variance"), float),
}
_PAIRS = ("shape", "source_shape", "fitted_shape", "grid")
_ARRAYS = {"coefficients": 3, "background": 2, "used": 2, "factor": 2, "turn": 2, "scales": 2}
_OPTIONAL = ("grid", "background", "boundary", "used")


def as_fields(found: dict[str, AnyArray]) -> dict[str, Any]:
    """Return the content of a file as `KernelField` takes it, or raise ValueError."""
    missing = {*_NUMBERS, *_PAIRS, *_ARRAYS} - {*found, *_OPTIONAL}
    if missing:
        msg = f"it has no {', '.join(sorted(missing))}"
        raise ValueError(msg)
    values: dict[str, Any] = dict.fromkeys(_OPTIONAL)
    for name, kind in _NUMBERS.items():
        values[name] = kind(found[name].item())
    for name in (name for name in _PAIRS if name in found):
        values[name] = as_shape(tuple(found[name].tolist()), name)
    for name, ndim in _ARRAYS.items():
        if name in found:
            dtype = np.dtype(np.bool_ if name == "used" else np.float64)
            if found[name].ndim != ndim or found[name].dtype != dtype:
                msg = f"{name} is of {found[name].dtype} and {found[name].ndim} dimensions"
                raise ValueError(msg)
            refuse_non_finite(name, found[name])
            values[name] = found[name]
    if "boundary" in found:
        values["boundary"] = as_boundary(found["boundary"].item())
    _refuse_other_shapes(values)
    return values


def _refuse_other_shapes(values: dict[str, Any]) -> None:
    """Raise for arrays of a file that do not belong together."""
    (terms, p, q), sky, scales = (
        values["coefficients"].shape,
        values["background"],
        values["scales"],
    )
    frame = Frame(values["shape"], values["degree"], values["grid"])
    if not 0 <= frame.degree <= MAX_DEGREE or math.prod(frame.grid or (1, 1)) > terms:
        msg = f"{terms} functions of position of degree {frame.degree} or in a grid {frame.grid}"
        raise ValueError(msg)
    window_of_pair(values["source_shape"], frame.shape, values["fitted_shape"], values["boundary"])
    centred_taps(values["fitted_shape"], (p, q))
    beside = 0 if sky is None else len(sky) * (len(sky) + 1) // 2
    expected: dict[str, tuple[int, ...]] = {
        "coefficients": (frame.terms, p, q),
        "turn": (p * q, values["turn"].shape[1]),
        "scales": (len(scales), frame.terms),
    }
    if values["used"] is not None:
        expected["used"] = values["shape"]
    if sky is not None:
        expected["background"] = len(sky), len(sky)
    _refuse_shapes(values, expected)
    unknowns = Unknowns(values["turn"], scales, beside).of_taps + beside
    _refuse_shapes(values, {"factor": (unknowns, unknowns)})


def _refuse_shapes(values: dict[str, Any], expected: dict[str, tuple[int, ...]]) -> None:
    for name, shape in expected.items():
        if values[name].shape != shape:
            msg = f"{name} has the shape {values[name].shape}, not {shape}"
            raise ValueError(msg)
