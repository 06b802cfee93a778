"""Coordinates of xarray: which of an image's an output keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastkernel.dask.inputs import is_labelled


def labelled(found: Any, image: Any, starts: Sequence[int]) -> Any:
    """Return an output as a DataArray, if the image is one.

    Parameters
    ----------
    found : dask.array.Array
        The output.
    image : object
        What it was made of.
    starts : (int, int)
        The image's row and column that the output's first pixel stands at.

    Returns
    -------
    dask.array.Array or xarray.DataArray
        With the coordinates of the image's pixels where all outputs stand at one; else with those
        that do not depend on them.
    """
    if not is_labelled(image):
        return found
    axes = list(zip(image.dims, starts, found.shape, image.shape, strict=True))
    if all(start >= 0 and start + n <= length for _, start, n, length in axes):
        inner = {axis: slice(start, start + n) for axis, start, n, _ in axes}
        return image.isel(inner).copy(data=found)
    coords = {name: c for name, c in image.coords.items() if not set(c.dims) & set(image.dims)}
    return type(image)(found, dims=image.dims, coords=coords, name=image.name, attrs=image.attrs)
