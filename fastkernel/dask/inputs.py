"""What a cluster can be given for an image: Dask arrays, DataArrays, stores, what opens one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import dask.array
import numpy as np
from cloudpickle import dumps  # as Dask does
from dask.array.core import normalize_chunks

from fastkernel._images.lazy import is_dask, is_lazy
from fastkernel._typing import Shape
from fastkernel.dask.cells import Edges, edges_of
from fastkernel.dask.reading import opened

# Bytes of the chunks of what has none, such as a memory map.
_CHUNK = "4MiB"


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is somewhere else.

    Attributes
    ----------
    name : str
        In messages.
    shape, dtype
        Rows and columns, and what the pixels are.
    edges : (list of int, list of int)
        Where chunks begin along both axes, and where the last one ends.
    array : dask.array.Array or None
        The image, if it is one of Dask's.
    store : object, callable or None
        Else what tasks read by slices, or what opens it.
    """

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    edges: Edges
    array: Any = None
    store: Any = None


def as_image(value: Any, name: str, chunks: Any = None) -> Image:
    """Return an argument as an image of real numbers with two dimensions.

    Parameters
    ----------
    value : object
        A Dask array, an xarray.DataArray, what is read by slices and pickles, a callable without
        arguments that returns something that is read by slices, or an array.
    name : str
        The argument's.
    chunks : (sequence of int, sequence of int), optional
        Of what has none, if it is of that shape.

    Raises
    ------
    TypeError
        If it is none of these, does not pickle or does not hold real numbers.
    ValueError
        If it has not two dimensions or no pixel, or its chunks are of unknown sizes.
    """
    value = unlabelled(value)
    store = None
    if callable(value) and not hasattr(value, "shape"):
        store, value, name_of_value = value, opened(value), f"{name}()"
    elif is_lazy(value) and not is_dask(value):
        refuse_unpicklable(value, name)
        store, name_of_value = value, name
    else:
        name_of_value = name
    if isinstance(value, list | tuple):
        value = np.asanyarray(value)
    if not (is_dask(value) or is_lazy(value) or isinstance(value, np.ndarray)):
        msg = (
            f"{name_of_value} must be a Dask array, a DataArray, a store of two dimensions that is "
            "read by slices (Zarr), or a callable that opens one on the worker, got "
            f"{type(value).__name__}"
        )
        raise TypeError(msg)
    dtype = np.dtype(value.dtype)
    if dtype.kind not in "biuf":
        msg = f"{name} must hold real numbers, got dtype {dtype}; convert it with .astype"
        raise TypeError(msg)
    if len(value.shape) != 2:
        msg = (
            f"{name} must have 2 dimensions, (rows, cols), got shape {tuple(value.shape)}; take "
            "one channel or plane at a time"
        )
        raise ValueError(msg)
    if any(math.isnan(n) for n in value.shape):
        msg = f"{name} has chunks of unknown sizes; call compute_chunk_sizes() of it first"
        raise ValueError(msg)
    if not all(value.shape):
        msg = f"{name} must have at least one pixel, got shape {tuple(value.shape)}"
        raise ValueError(msg)
    shape = int(value.shape[0]), int(value.shape[1])
    sizes = getattr(value, "chunks", None) or "auto"
    if chunks is not None and sizes == "auto" and tuple(map(sum, chunks)) == shape:
        sizes = chunks
    known = normalize_chunks(sizes, shape, limit=_CHUNK, dtype=dtype)
    array = value if is_dask(value) else None
    if store is None and array is None:
        array = dask.array.from_array(value, chunks=known)
    return Image(name, shape, dtype, (edges_of(known[0]), edges_of(known[1])), array, store)


def unlabelled(value: Any) -> Any:
    """Return the pixels of an xarray.DataArray; anything else as it is."""
    return value.data if is_labelled(value) else value


def is_labelled(value: Any) -> bool:
    """Tell whether something is an xarray.DataArray, without importing xarray."""
    return type(value).__module__.split(".")[0] == "xarray" and hasattr(value, "coords")


def as_like(value: Any, name: str, image: Image) -> Image:
    """Return what is said of every pixel of an image: numbers of its shape."""
    chunks = [np.diff(edges).tolist() for edges in image.edges]
    found = as_image(value, name, chunks)
    if found.shape != image.shape:
        msg = (
            f"{name} must have the shape {image.shape} of {image.name}, one number a pixel, got "
            f"{found.shape}"
        )
        raise ValueError(msg)
    return found


def refuse_unpicklable(value: Any, name: str) -> None:
    """Raise for what cannot be sent to a worker."""
    try:
        dumps(value)
    except TypeError as reason:
        msg = (
            f"{name} does not pickle and cannot reach a worker ({reason}); pass a callable that "
            "opens it there, as lambda: h5py.File(path)['image']"
        )
        raise TypeError(msg) from None
