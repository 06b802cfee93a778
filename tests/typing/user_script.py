"""What a user writes, held against the strictest settings of mypy and of pyright."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastkernel
from fastkernel import (
    ImageMatch,
    InverseFit,
    KernelField,
    KernelFit,
    NormalEquations,
    SingularFitError,
    basis,
    convolution_matrix,
    convolution_operator,
    convolve,
    correlate,
    estimate_kernel,
    estimate_kernel_field,
    estimate_kernels,
    inverse_filter,
    inverse_kernel,
    match_images,
    normal_equations,
    psf,
    richardson_lucy,
    select_kernel_shape,
    wiener,
)


def fitted(source: NDArray[np.uint8], result: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    bad = result == 255
    try:
        fit: KernelFit = estimate_kernel(source, result, (5, 5), mask=bad, ridge=("smooth", "gcv"))
    except SingularFitError as problem:
        print(problem)
        return None
    print(fit.residual_rms, fit.n_pixels, fit.standard_errors.max(), fit.quality)
    print(len(fit.report("html")))
    return fit.kernel


def parts(images: list[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> KernelFit:
    equations: list[NormalEquations] = [normal_equations(x, y, 7) for x, y in images]
    total = equations[0]
    for one in equations[1:]:
        total = total + one
    return total.crop((5, 5)).solve(nonnegative=True)


def undone(image: NDArray[np.float64]) -> NDArray[Any]:
    blur = psf.gaussian(15, 1.5)
    blurred = convolve(image, blur, "same", "mirror", workers=2)
    print(correlate(blurred, blur, "valid").shape)
    for restored in (wiener(blurred, blur), inverse_filter(blurred, blur, 1e-3)):
        print(np.abs(restored - image).max())
    return richardson_lucy(blurred, blur, 30, boundary="unknown")


def varying(science: NDArray[np.float64], reference: NDArray[np.float64]) -> None:
    field: KernelField = estimate_kernel_field(reference, science, 9, degree=2)
    print(field.kernel_at(3, 4).sum(), field.predict(reference).shape)
    match: ImageMatch = match_images(science, reference)
    print(match.difference / np.sqrt(match.variance))
    print(estimate_kernels([science], [reference], 3), select_kernel_shape(science, reference, 9))


def matrices(kernel: NDArray[np.float64]) -> None:
    inverse: InverseFit = inverse_kernel(kernel, 15, callback=None)
    print(inverse.delay, inverse.noise_gain, basis.gaussian_polynomials(9, [1.0], [2]).shape)
    print(convolution_matrix(kernel, (9, 9)), convolution_operator(kernel, (9, 9)))


fastkernel.warm_up(workers=1)
