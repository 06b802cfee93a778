"""Everything that is compiled, compiled or loaded ahead of its first use."""

import numpy as np

from fastkernel._images.checks import as_workers
from fastkernel._images.windows import Window
from fastkernel._loops import design_rows
from fastkernel._typing import AnyArray
from fastkernel.convolution.convolve import convolve
from fastkernel.convolution.matrix import convolution_matrix, design_matrix
from fastkernel.convolution.operator import convolution_operator
from fastkernel.convolution.shift import circshift
from fastkernel.convolution.varying_correlation import VaryingCorrelation
from fastkernel.estimation.equations.residual import residual_equations
from fastkernel.estimation.estimate import estimate_kernel
from fastkernel.estimation.fields.estimate_kernel_field import estimate_kernel_field
from fastkernel.estimation.inverse.inverse_kernel import inverse_kernel
from fastkernel.estimation.stacks.estimate_kernels import estimate_kernels
from fastkernel.psf import disk, gaussian
from fastkernel.restoration.linear_filters import inverse_filter, wiener
from fastkernel.restoration.richardson_lucy import richardson_lucy

# Small, and larger than any tile needs.
_SIDE = 96
_DTYPES = ("uint8", "uint16", "float32", "float64")


def warm_up(*, workers: int | None = None) -> None:
    """Compile every loop, or load it from Numba's cache, so that no later call has to.

    For images of workers and containers, whose cache is filled once, and for services, whose first
    call is to be as fast as the next. It takes some seconds where the cache is full, and about a
    minute where it is empty.

    Parameters
    ----------
    workers : int, optional
        Threads to use in the calls that it makes; as in `estimate_kernel`.

    Returns
    -------
    None
        What the calls return is dropped.

    Raises
    ------
    ValueError
        If ``workers`` is not a positive integer.

    Notes
    -----
    It makes small calls of each kind on images of 8 and 16 bits and of both precisions.

    Examples
    --------
    >>> import fastkernel
    >>> fastkernel.warm_up()
    """
    threads = as_workers(workers)
    picture = np.random.default_rng(0).integers(1, 255, (_SIDE, _SIDE))
    for dtype in _DTYPES:
        image = picture.astype(dtype)
        _convolutions(image, threads)
        _fits(image, threads)
        _restorations(image, threads)
    _large(picture.astype(np.float64), threads)


def _convolutions(image: AnyArray, workers: int) -> None:
    blur, skew = gaussian(5, 1.0), np.arange(1.0, 26).reshape(5, 5)
    for kernel in (blur, skew, blur.astype(np.float32), gaussian(31, 4.0)):
        for mode in ("same", "valid", "full"):
            convolve(image, kernel, mode, "mirror", workers=workers)
        convolve(image, kernel, "same", method="fft", workers=workers)
    circshift(image, (3, 5))
    part = image[:12, :12]
    for boundary in ("zero", "mirror"):
        convolution_matrix(skew, part.shape, "same", boundary)
        convolution_matrix(skew, part.shape, "same", boundary, format="dense")
    convolution_operator(skew, part.shape, "same").rmatvec(np.ones(part.size))
    design_matrix(part, (3, 3))
    ones, window = np.ones((2, 20)), Window((0, 0), (0, 0), (20, 20), "zero")
    varying = VaryingCorrelation(image, np.ones((2, 3, 3)), ones, ones, window)
    for engine in ("direct", "fft"):
        varying.add_to(np.zeros((20, 20)), engine, workers)


def _fits(image: AnyArray, workers: int) -> None:
    result = convolve(image, gaussian(5, 1.0), "same", "mirror").astype(image.dtype)
    for engine in ("float", "fft", *(("integer",) if image.dtype == np.uint8 else ())):
        estimate_kernel(image, result, 5, engine=engine, workers=workers)
    bad = image > np.quantile(image, 0.9)
    asked = (
        {"background": 1, "boundary": "mirror"},
        {"mask": bad, "background": 0},
        {"weights": 1.0 + bad, "sigma_clip": 4.0},
        {"errors": "robust"},
        {"source_variance": 1.0},
        {"ridge": "gcv"},
        {"nonnegative": True, "unit_sum": True},
        {"separable": True},
        {"solver": "fista", "nonnegative": True, "num_iter": 3},
        {"solver": "gradient_descent", "num_iter": 3},
        {"method": "lad", "solver": "linear_programming"},
        {"method": "lad", "solver": "reweighted", "mask": bad},
        {"method": "richardson_lucy", "num_iter": 3},
        {"method": "richardson_lucy", "num_iter": 3, "weights": 1.0 + bad},
        {"method": "fft", "taper": 0.1},
    )
    for options in asked:
        estimate_kernel(image, result, (3, 5), workers=workers, **options)
    kernel = gaussian((3, 5), 1.0)
    for weights in (None, 1.0 + bad):
        residual_equations(image, result, kernel, weights=weights, workers=workers)
    estimate_kernels(image.reshape(-1, 8, 12), result.reshape(-1, 8, 12), 3, workers=workers)
    for mask in (None, bad):
        estimate_kernel_field(image, result, 3, degree=1, mask=mask, workers=workers)


def _restorations(image: AnyArray, workers: int) -> None:
    for boundary in ("circular", "symmetric", "unknown"):
        wiener(image, disk(2.3), boundary=boundary, workers=workers)
        for acceleration in (True, False):
            richardson_lucy(
                image,
                disk(2.3),
                3,
                boundary=boundary,
                acceleration=acceleration,
                noise=None,
                workers=workers,
            )
    for noise in ("auto", "poisson"):
        richardson_lucy(image, disk(2.3), 3, noise=noise, damping=0.1, workers=workers)
    # Neither separable nor symmetric, and so large that transforms win.
    richardson_lucy(image, np.arange(1.0, 226).reshape(15, 15), 3, workers=workers)
    inverse_filter(image, gaussian(5, 1.0), workers=workers)


def _large(image: AnyArray, workers: int) -> None:
    """Kernels of many taps, inverses, and what takes many pixels to be used."""
    taken = np.ones((8, 8))
    design_rows.thin_out(image, (3, 3), (0, 0), 1.0, 1.0, 0.5, np.empty(10), taken)
    result = convolve(image, gaussian(65, 9.0), "same", "circular")
    for taps in (13, 65):
        estimate_kernel(image, result, taps, boundary="circular", workers=workers)
    for method in ("lstsq", "matrix", "fft"):
        inverse_kernel(gaussian(5, 1.0), 21, method=method, workers=workers)
    for solver in ("conjugate_gradients", "gradient_descent", "fista"):
        inverse_kernel(gaussian(5, 1.0), 21, solver=solver, num_iter=3, workers=workers)
