"""What is kept of normal equations in a file: its fields, and what is checked of them."""

import math
from typing import Any

import numpy as np

from fastkernel._images.checks import as_degree, as_kernel_shape, as_shape
from fastkernel.estimation.equations.background import BackgroundSums, terms_of

# Before the names of the fields of a background that parts share.
_BACKGROUND = "background_of_parts_"

_FLOAT = np.dtype(np.float64)


def fields_of_background(background: BackgroundSums | None) -> dict[str, Any]:
    """Return the fields that a background adds to those of equations; none for None."""
    if background is None:
        return {}
    names = background.__dataclass_fields__
    return {_BACKGROUND + name: getattr(background, name) for name in names}


def checked_fields(found: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the fields of a file as `NormalEquations` takes them, or raise ValueError."""
    rows, cols = as_kernel_shape(tuple(found["kernel_shape"]))
    taps, gram, moments = rows * cols, found["gram"], found["moments"]
    if gram.shape != (taps, taps) or moments.shape != (taps,):
        msg = f"arrays of shapes {gram.shape} and {moments.shape} for kernel {(rows, cols)}"
        raise ValueError(msg)
    if gram.dtype != np.float64 or moments.dtype != np.float64:
        msg = f"arrays of {gram.dtype} and {moments.dtype}, not float64"
        raise ValueError(msg)
    if not (np.isfinite(gram).all() and np.isfinite(moments).all()):
        msg = "gram or moments are not finite"
        raise ValueError(msg)
    if not np.array_equal(gram, gram.T) or (np.diag(gram) < 0).any():
        msg = "gram is no sum of squares: it must be symmetric, its diagonal not negative"
        raise ValueError(msg)
    numbers: dict[str, Any] = {}
    for name in ("n_pixels", "background_terms"):
        numbers[name] = int(_single(found, name, "iu"))
        if numbers[name] < 0:
            msg = f"{name} is {numbers[name]}, a count"
            raise ValueError(msg)
    if "total_weight" not in found:  # a file of version 0.1
        found["total_weight"] = np.asarray(numbers["n_pixels"])
    for name in ("energy", "background_energy", "total_weight"):
        numbers[name] = float(_single(found, name, "iuf"))
        if not 0 <= numbers[name] < math.inf:
            msg = f"{name} is {numbers[name]}, no sum of squares"
            raise ValueError(msg)
    background = _background(found, taps)
    return {
        "gram": gram,
        "moments": moments,
        "kernel_shape": (rows, cols),
        "background": background,
        **numbers,
    }


def _background(found: dict[str, np.ndarray], taps: int) -> BackgroundSums | None:
    """Return the background of a file's parts, None if it has none, or raise ValueError."""
    if _BACKGROUND + "degree" not in found:
        return None
    degree = as_degree(int(_single(found, _BACKGROUND + "degree", "iu")))
    shape = as_shape(tuple(found[_BACKGROUND + "shape"]), "shape of the background")
    terms = len(terms_of(degree)[0])
    arrays = [found[_BACKGROUND + name] for name in ("products", "gram", "moments")]
    shapes = [(taps, terms), (terms, terms), (terms,)]
    if [array.shape for array in arrays] != shapes or {a.dtype for a in arrays} != {_FLOAT}:
        msg = f"arrays of a background of degree {degree} must be float64 of shapes {shapes}"
        raise ValueError(msg)
    if not all(np.isfinite(array).all() for array in arrays):
        msg = "sums of the background are not finite"
        raise ValueError(msg)
    products, gram, moments = arrays
    return BackgroundSums(degree, products, gram, moments, shape)


def _single(found: dict[str, np.ndarray], name: str, kinds: str) -> np.ndarray:
    """Return a field that holds one number, 0 if a file of an earlier version lacks it."""
    value = found.get(name, np.zeros((), np.int64))
    if value.shape != () or value.dtype.kind not in kinds:
        msg = f"{name} is an array of shape {value.shape} and dtype {value.dtype}, not one number"
        raise ValueError(msg)
    return value
