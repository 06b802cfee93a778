"""Images on a cluster: fits, convolutions and restorations of what Dask holds, or reads.

Comes in: Dask arrays, DataArrays of xarray, stores that are read by slices and pickle (Zarr), and
callables that open one on a worker (HDF5, TIFF). Goes out: what the functions of the same names
return on one machine, as `dask.delayed.Delayed`, `dask.array.Array` or DataArray where that can be
computed later. May import: everything but `cli`. It needs Dask, ``pip install fastkernel[dask]``,
and is imported by name: ``import fastkernel.dask``.

Inside: `cells` cuts a window into cells along chunks and says what each needs; `inputs` and
`pairs` say what the images are; `graph` writes the tasks; `reading` is what runs in them.
"""

from fastkernel.dask.convolve import convolve, correlate
from fastkernel.dask.equations import normal_equations
from fastkernel.dask.estimate import estimate_kernel
from fastkernel.dask.fields import estimate_kernel_field
from fastkernel.dask.restore import richardson_lucy, wiener

__all__ = [
    "convolve",
    "correlate",
    "estimate_kernel",
    "estimate_kernel_field",
    "normal_equations",
    "richardson_lucy",
    "wiener",
]
