"""Convolution as a linear operator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator

from fastkernel._images.checks import (
    as_boundary,
    as_choice,
    as_image,
    as_shape,
    as_workers,
    float_dtype,
    refuse_larger_kernel,
    refuse_non_finite,
)
from fastkernel._images.masks import refuse_masked
from fastkernel._images.windows import MODES, window_of_mode
from fastkernel._typing import AnyArray, Border, Mode, Shape
from fastkernel.convolution.convolve import convolve, convolve_adjoint


class _ConvolutionOperator(LinearOperator):  # type: ignore[misc]
    """The matrix of `convolution_matrix`, of which nothing is stored but the kernel."""

    def __init__(
        self, kernel: AnyArray, image_shape: Shape, mode: Mode, boundary: Border, workers: int
    ) -> None:
        self._kernel, self._image_shape, self._workers = kernel, image_shape, workers
        self._mode, self._rule = mode, as_boundary(boundary)
        kernel_shape = kernel.shape[0], kernel.shape[1]
        window = window_of_mode(mode, image_shape, kernel_shape, self._rule)
        self._outputs = window.shape
        super().__init__(kernel.dtype, (window.n_pixels, image_shape[0] * image_shape[1]))

    def dot(self, x: Any) -> Any:
        """Return the product with a vector, a matrix or an operator."""
        refuse_masked(x, "vector")  # SciPy would drop the mask
        return super().dot(x)

    def _matvec(self, x: AnyArray) -> AnyArray:
        def applied(image: AnyArray) -> AnyArray:
            return convolve(image, self._kernel, self._mode, self._rule, workers=self._workers)

        return self._of_parts(x, self._image_shape, applied)

    def _rmatvec(self, x: AnyArray) -> AnyArray:
        def applied(outputs: AnyArray) -> AnyArray:
            return convolve_adjoint(
                outputs, self._kernel, self._image_shape, self._mode, self._rule, self._workers
            )

        return self._of_parts(x, self._outputs, applied)

    def _of_parts(
        self, vector: AnyArray, shape: Shape, applied: Callable[[AnyArray], AnyArray]
    ) -> AnyArray:
        """Apply the operator, to the real and the imaginary part where there are two."""
        refuse_masked(vector, "vector")
        if vector.dtype.kind not in "biufc":
            msg = f"vector must hold numbers, got dtype {vector.dtype}; convert it with .astype"
            raise TypeError(msg)

        def real(part: AnyArray) -> AnyArray:
            image = np.asarray(part, self.dtype).reshape(shape)
            refuse_non_finite("vector", image)
            return applied(image).ravel()

        if vector.dtype.kind != "c":
            return real(vector)
        # The kernel is real, so the parts do not mix.
        found = np.empty(math.prod(self.shape) // vector.size, np.result_type(self.dtype, 1j))
        found.real, found.imag = real(vector.real), real(vector.imag)
        return found


def convolution_operator(
    kernel: ArrayLike,
    image_shape: Shape,
    mode: Mode = "full",
    boundary: Border = "zero",
    *,
    workers: int | None = None,
) -> LinearOperator:
    """Return the convolution by a kernel as a linear operator, for SciPy's iterative solvers.

    Parameters
    ----------
    kernel, image_shape : as in `convolution_matrix`
    mode, boundary, workers : as in `convolve`

    Returns
    -------
    scipy.sparse.linalg.LinearOperator
        Of shape (outputs, m * n); float32 for a float32 kernel, else float64. Equal to
        `convolution_matrix`, without its memory; ``rmatvec`` is the exact adjoint. A complex
        vector has its parts convolved apart; the product is complex, of the same precision.

    Raises
    ------
    TypeError, ValueError
        As `convolution_matrix` does; later, if a vector is masked, not of numbers or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from fastkernel import convolution_operator
    >>> from scipy.sparse.linalg import lsqr
    >>> blur = np.array([[0, 0.1, 0], [0.1, 0.6, 0.1], [0, 0.1, 0]])
    >>> operator = convolution_operator(blur, (20, 20))
    >>> image = np.random.default_rng(0).standard_normal(400)
    >>> bool(np.allclose(lsqr(operator, operator @ image, atol=1e-9, btol=1e-9)[0], image))
    True
    """
    given, shape = as_image(kernel, "kernel"), as_shape(image_shape, "image_shape")
    mode = as_choice(mode, "mode", MODES)
    refuse_non_finite("kernel", given)
    if mode == "valid":
        refuse_larger_kernel("kernel", given.shape, shape)
    dtype = float_dtype(given)
    return _ConvolutionOperator(given.astype(dtype), shape, mode, boundary, as_workers(workers))
