"""Casts, and the errors about arguments that functions share."""

import math
import sys
from numbers import Integral, Real
from typing import Any, NoReturn, TypeVar, cast, get_args

import numpy as np
from numpy.typing import DTypeLike

from fastkernel._images.lazy import LazyImage, is_dask, is_lazy
from fastkernel._images.masks import refuse_masked, unmasked
from fastkernel._images.windows import Within
from fastkernel._machine.memory import usable_memory
from fastkernel._machine.tiles import split, told_workers, usable_cores
from fastkernel._typing import AnyArray, Boundary, Shape

# In small letters. SciPy's "reflect" is NumPy's "symmetric", so that name alone says too little.
_ALIASES: dict[str, Boundary] = {
    **{rule: rule for rule in get_args(Boundary)},
    "constant": "zero",
    "grid-constant": "zero",
    "fill": "zero",
    "border_constant": "zero",
    "wrap": "circular",
    "grid-wrap": "circular",
    "periodic": "circular",
    "border_wrap": "circular",
    "edge": "replicate",
    "nearest": "replicate",
    "extend": "replicate",
    "border_replicate": "replicate",
    "symm": "symmetric",
    "grid-mirror": "symmetric",
    "border_reflect": "symmetric",
    "reflect101": "mirror",
    "reflect_101": "mirror",
    "border_reflect101": "mirror",
    "border_reflect_101": "mirror",
    "border_default": "mirror",
}
# The values of OpenCV's BORDER_CONSTANT, _REPLICATE, _REFLECT, _WRAP and _REFLECT_101.
_OPENCV: tuple[Boundary, ...] = ("zero", "replicate", "symmetric", "circular", "mirror")

_Choice = TypeVar("_Choice", bound=str)

# Bytes that are had without asking.
_ALWAYS_HELD = 64 << 20

MAX_DEGREE = 4


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    """Tell whether ``value`` is an integer that can count the elements of an array."""
    return _is_whole(value) and abs(int(value)) <= sys.maxsize


def as_image(value: Any, name: str, ndim: int = 2, *, lazy: bool = False) -> AnyArray:
    """Return ``value`` as an array of real numbers, or a `LazyImage` where that will do."""
    if lazy and is_lazy(value):
        refuse_masked(value, name)
        # A lazy image answers all that is asked of it below.
        image = cast(AnyArray, LazyImage(value, name))
    else:
        image = unmasked(value, name)
    if image.dtype.kind not in "biuf":
        advice = "take .real or .imag" if image.dtype.kind == "c" else "convert it with .astype"
        msg = f"{name} must hold real numbers, got dtype {image.dtype}; {advice}"
        raise TypeError(msg)
    if image.ndim != ndim:
        axes = "(rows, cols)" if ndim == 2 else "(rows, cols) and one channel axis"
        msg = f"{name} must have {ndim} dimensions, {axes}, got shape {image.shape}"
        if ndim == 2 and image.ndim == 3:
            msg += "; for channels that share the kernel pass channel_axis="
        raise ValueError(msg)
    if image.size == 0:
        msg = f"{name} must have at least one pixel, got shape {image.shape}"
        raise ValueError(msg)
    return image


def float_dtype(image: Any) -> np.dtype[Any]:
    """Return the dtype to compute what has a dtype in: float32 stays, all else becomes float64."""
    return np.dtype(np.float32 if image.dtype.type is np.float32 else np.float64)


def as_shape(value: Any, name: str, *, least: int = 1, one_for_both: bool = False) -> Shape:
    """Return ``value`` as ``(rows, cols)``."""
    rows: Any
    cols: Any
    try:
        rows, cols = (value, value) if one_for_both and _is_integer(value) else value
    except (TypeError, ValueError):
        rows = cols = None
    if not all(_is_integer(n) and n >= least for n in (rows, cols)):
        wanted = "positive integers (rows, cols)" if least == 1 else "integers (rows, cols) from 0"
        msg = f"{name} must be two {wanted}, got {value!r}"
        raise ValueError(msg)
    return int(rows), int(cols)


def as_within(value: Any) -> Within:
    """Return ``value``, ``((top, left), (rows, cols))``, as the place of a part in a whole."""
    try:
        origin, shape = value
    except (TypeError, ValueError):
        msg = f"within must be ((top, left), (rows, cols)), got {value!r}"
        raise ValueError(msg) from None
    return Within(
        as_shape(origin, "the first part of within", least=0),
        as_shape(shape, "the second part of within"),
    )


def as_kernel_shape(value: Any) -> Shape:
    """Return ``value`` as ``(p, q)``; one integer stands for both."""
    return as_shape(value, "kernel_shape", one_for_both=True)


def as_count(value: Any, name: str) -> int:
    """Return ``value`` as a positive integer."""
    if not _is_integer(value) or value < 1:
        msg = f"{name} must be a positive integer, got {value!r}"
        raise ValueError(msg)
    return int(value)


def as_boundary(value: Any) -> Boundary:
    """Return the name of a border rule; names and numbers of other libraries are translated."""
    if not isinstance(value, str) and not _is_whole(value):
        msg = f"boundary must be a string, or a number of OpenCV's, got {value!r}"
        raise TypeError(msg)
    name = value.lower() if isinstance(value, str) else int(value)
    if name == "reflect":
        msg = (
            f"boundary={value!r} repeats the edge pixel in SciPy and does not in NumPy; "
            "say 'symmetric' (d c b a | a b c d) or 'mirror' (d c b | a b c d)"
        )
        raise ValueError(msg)
    if isinstance(name, int) and 0 <= name < len(_OPENCV):
        return _OPENCV[name]
    if name not in _ALIASES:
        msg = (
            f"boundary must be one of {', '.join(get_args(Boundary))}, got {value!r}; SciPy's, "
            "NumPy's and OpenCV's names of these, and OpenCV's numbers 0 to 4, will do too"
        )
        raise ValueError(msg)
    return _ALIASES[name]


def as_choice(value: Any, name: str, choices: tuple[_Choice, ...]) -> _Choice:
    """Return ``value``, known to be one of ``choices``."""
    if isinstance(value, str):
        for choice in choices:
            if value == choice:
                return choice
    msg = f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}"
    raise ValueError(msg)


def as_flag(value: Any, name: str) -> bool:
    """Return ``value``, known to be True or False: "no" and 2 would count as True."""
    if not isinstance(value, bool | np.bool_):
        msg = f"{name} must be True or False, got {value!r}"
        raise TypeError(msg)
    return bool(value)


def as_callback(value: Any, name: str = "callback") -> Any:
    """Return ``value``, known to be None or something that can be called."""
    if value is not None and not callable(value):
        msg = f"{name} must be None or callable as callback(done, total), got {value!r}"
        raise TypeError(msg)
    return value


def as_float_dtype(value: Any) -> np.dtype[Any]:
    """Return ``value`` as the dtype of this machine's float32 or float64."""
    try:
        dtype: np.dtype[Any] | None = np.dtype(value)
    except TypeError:
        dtype = None
    if value is None or dtype is None or dtype not in (np.float32, np.float64):
        msg = f"dtype must be float32 or float64, got {value!r}"
        raise TypeError(msg)
    return dtype


def as_output_dtype(value: Any, image: Any) -> np.dtype[Any]:
    """Return ``value`` as `as_float_dtype` does; for None, the dtype to compute an image in."""
    return float_dtype(image) if value is None else as_float_dtype(value)


def as_out(value: Any, shape: tuple[int, ...], dtype: DTypeLike, **inputs: AnyArray) -> AnyArray:
    """Return ``value``, known to be an array of a shape and dtype, apart from the inputs."""
    if not isinstance(value, np.ndarray):
        msg = f"out must be a NumPy array, got {type(value).__name__}"
        raise TypeError(msg)
    refuse_masked(value, "out", "pass a plain array")
    _refuse_other(value, shape, dtype)
    if not value.flags.writeable:
        msg = "out must be writeable, got a read-only array; pass a copy or leave it out"
        raise ValueError(msg)
    for name, image in inputs.items():
        if np.shares_memory(value, image):
            msg = (
                f"out must not overlap {name}, which is read while out is written; "
                "pass another array"
            )
            raise ValueError(msg)
    return value


def _refuse_other(out: Any, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Raise for an output of another dtype or shape."""
    if np.dtype(out.dtype).newbyteorder("=") != np.dtype(dtype).newbyteorder("="):
        msg = f"out must have dtype {np.dtype(dtype)}, got {out.dtype}"
        raise TypeError(msg)
    if tuple(out.shape) != shape:
        msg = f"out must have shape {shape}, got {tuple(out.shape)}"
        raise ValueError(msg)


def as_target(value: Any, shape: tuple[int, ...], dtype: DTypeLike, **inputs: AnyArray) -> AnyArray:
    """Return ``value``, known to be an array, or a store that is written by slices."""
    if isinstance(value, np.ndarray):
        arrays = {name: image for name, image in inputs.items() if isinstance(image, np.ndarray)}
        return as_out(value, shape, dtype, **arrays)
    written = all(hasattr(value, name) for name in ("shape", "dtype", "__setitem__"))
    if not written or is_dask(value) or len(shape) != 2:
        msg = (
            "out must be a NumPy array, or for an image of two dimensions what has shape, dtype "
            "and assignment to slices, such as a dataset of Zarr or HDF5, got "
            f"{type(value).__name__}"
        )
        raise TypeError(msg)
    _refuse_other(value, shape, dtype)
    for name, image in inputs.items():
        if isinstance(image, LazyImage) and image.is_of(value):
            msg = f"out must not be {name}, which is read while out is written; pass another store"
            raise ValueError(msg)
    # A store takes what is asked of an array.
    return cast(AnyArray, value)


def as_stack(value: Any, name: str, *, least: int = 2) -> AnyArray:
    """Return ``value`` as an array whose last two axes are rows and columns, if ``least`` is 2."""
    image = unmasked(value, name, "shift .data and .mask apart")
    if image.ndim < least:
        axes = "2 dimensions, (..., rows, cols)" if least == 2 else "1 dimension"
        msg = f"{name} must have at least {axes}, got shape {image.shape}"
        if least == 2:
            msg += "; for a single line use image[None]"
        raise ValueError(msg)
    return image


def as_axes(value: Any, name: str, ndim: int) -> tuple[int, ...]:
    """Return ``value``, one axis or several, as numbers from 0."""
    axes = (value,) if _is_integer(value) else value
    whole = isinstance(axes, tuple | list) and all(map(_is_integer, axes))
    if not whole or not all(-ndim <= axis < ndim for axis in axes):
        msg = f"{name} must be axes of an array of {ndim} dimensions, got {value!r}"
        raise ValueError(msg)
    return tuple(int(axis) % ndim for axis in axes)


def as_shift(value: Any, n_axes: int | None = None) -> tuple[int, ...]:
    """Return ``value`` as a shift along each axis.

    One integer is meant for all axes that are named. Where none is it would not mean what it does
    in NumPy, and is refused.
    """
    if _is_integer(value) and n_axes is not None:
        return (int(value),) * n_axes
    each = "an integer for each axis that is named"
    wanted = "two integers (rows, cols)" if n_axes is None else each
    try:
        shifts = tuple(value)
    except TypeError:
        shifts = (None,)
    if len(shifts) != (2 if n_axes is None else n_axes) or not all(map(_is_whole, shifts)):
        advice = f"; say ({value}, 0) or (0, {value})" if _is_whole(value) else ""
        msg = f"shift must be {wanted}, got {value!r}{advice}"
        raise ValueError(msg)
    return tuple(map(int, shifts))


def as_channels(image: AnyArray, channel_axis: Any) -> AnyArray:
    """Return a view of a 3-dimensional image with its channels first."""
    if not _is_integer(channel_axis) or not -3 <= channel_axis < 3:
        msg = f"channel_axis must be an axis of a 3-dimensional image, got {channel_axis!r}"
        raise ValueError(msg)
    return np.moveaxis(image, channel_axis, 0)


def _as_float(value: Any) -> float:
    """Return a real number as a float; infinity for an integer or fraction beyond all of them."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def as_number(value: Any, name: str) -> float:
    """Return ``value`` as a finite number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        msg = f"{name} must be a number, got {value!r}"
        raise TypeError(msg)
    number = _as_float(value)
    if not math.isfinite(number):
        msg = f"{name} must be finite, got {value!r}"
        raise ValueError(msg)
    return number


def as_positive(value: Any, name: str) -> float:
    """Return ``value`` as a finite number greater than 0."""
    number = as_number(value, name)
    if number <= 0:
        msg = f"{name} must be greater than 0, got {value!r}"
        raise ValueError(msg)
    return number


def as_penalty(value: Any, name: str) -> float:
    """Return ``value`` as a finite number that is not negative."""
    if not isinstance(value, Real) or isinstance(value, bool):
        msg = f"{name} must be a number, got {value!r}"
        raise TypeError(msg)
    number = _as_float(value)
    if not (math.isfinite(number) and number >= 0):
        msg = f"{name} must be finite and at least 0, got {value!r}"
        raise ValueError(msg)
    return number


def as_fraction(value: Any, name: str, most: float) -> float:
    """Return ``value`` as a number from 0 to ``most``."""
    if not isinstance(value, Real) or isinstance(value, bool):
        msg = f"{name} must be a number or None, got {value!r}"
        raise TypeError(msg)
    number = _as_float(value)
    if not 0 <= number <= most:
        msg = f"{name} must be from 0 to {most:g}, got {value!r}"
        raise ValueError(msg)
    return number


def as_degree(background: Any) -> int:
    """Return the degree of a background: 0 for "constant".

    Raises
    ------
    ValueError
        If ``background`` is neither "constant" nor an integer from 0 to 4.
    """
    if isinstance(background, str) and background == "constant":
        return 0
    whole = _is_integer(background)
    if not (whole and 0 <= background <= MAX_DEGREE):
        msg = (
            f"background must be None, 'constant' or a polynomial degree from 0 to {MAX_DEGREE}, "
            f"got {background!r}"
        )
        raise ValueError(msg)
    return int(background)


def as_workers(value: int | None) -> int:
    """Return the number of threads to use; None is what the environment says, or every core."""
    if value is None:
        return told_workers() or usable_cores()
    if not _is_integer(value) or value < 1:
        msg = f"workers must be a positive integer, or None for every usable core, got {value!r}"
        raise ValueError(msg)
    return int(value)


def refuse_larger_kernel(name: str, kernel_shape: Shape, image_shape: Shape) -> None:
    """Raise for a kernel that leaves no valid output."""
    if kernel_shape[0] > image_shape[0] or kernel_shape[1] > image_shape[1]:
        msg = (
            f"{name} must fit inside the image for mode='valid': got {kernel_shape} for image "
            f"{image_shape}; use at most {image_shape}, or mode='same' or 'full'"
        )
        raise ValueError(msg)


def refuse_beyond_memory(needed: int, what: str, advice: str) -> None:
    """Raise before arrays are made that cannot be held."""
    if needed <= _ALWAYS_HELD:
        return  # asking the system takes as long as a small fit
    memory = usable_memory()
    if needed > memory:
        msg = (
            f"{what} would take {needed} bytes ({needed / 2**30:.1f} GiB), more than this "
            f"process may have ({memory / 2**30:.1f} GiB); {advice}"
        )
        raise MemoryError(msg)


def refuse_non_finite(
    name: str,
    image: AnyArray,
    origin: Shape = (0, 0),
    advice: str = "crop to where all pixels are",
) -> None:
    """Raise for the first pixel that is NaN or infinite; ``origin`` is added to its index."""
    for top, bottom in split(image.shape[0], 256):
        strip = image[top:bottom, :]
        bad = np.argwhere(~np.isfinite(strip))
        if len(bad):
            row, col = int(bad[0, 0]) + top, int(bad[0, 1])
            pixel = strip[tuple(bad[0])]
            msg = (
                f"{name} must be finite, got {pixel} at index "
                f"{(row + origin[0], col + origin[1])}; {advice}"
            )
            raise ValueError(msg)


def refuse_overflow() -> NoReturn:
    """Raise for finite pixels whose sums are not."""
    msg = (
        "source and result hold numbers whose products overflow float64; "
        "divide both by their largest magnitude"
    )
    raise ValueError(msg)
