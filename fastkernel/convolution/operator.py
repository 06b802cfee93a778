"""Convolution as a linear operator."""

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
from fastkernel._images.windows import MODES, window_of_mode
from fastkernel._typing import AnyArray, Shape
from fastkernel.convolution.convolve import convolve, convolve_adjoint


class _ConvolutionOperator(LinearOperator):  # type: ignore[misc]
    """The matrix of `convolution_matrix`, of which nothing is stored but the kernel."""

    def __init__(
        self, kernel: AnyArray, image_shape: Shape, mode: str, boundary: str, workers: int
    ) -> None:
        self._kernel, self._image_shape, self._workers = kernel, image_shape, workers
        self._mode, self._rule = mode, as_boundary(boundary)
        kernel_shape = kernel.shape[0], kernel.shape[1]
        window = window_of_mode(mode, image_shape, kernel_shape, self._rule)
        self._outputs = window.shape
        super().__init__(kernel.dtype, (window.n_pixels, image_shape[0] * image_shape[1]))

    def _as_image(self, vector: AnyArray, shape: Shape) -> AnyArray:
        image = np.asarray(vector, self.dtype).reshape(shape)
        refuse_non_finite("vector", image)
        return image

    def _matvec(self, x: AnyArray) -> AnyArray:
        image = self._as_image(x, self._image_shape)
        return convolve(image, self._kernel, self._mode, self._rule, workers=self._workers).ravel()

    def _rmatvec(self, x: AnyArray) -> AnyArray:
        outputs = self._as_image(x, self._outputs)
        return convolve_adjoint(
            outputs, self._kernel, self._image_shape, self._mode, self._rule, self._workers
        ).ravel()


def convolution_operator(
    kernel: ArrayLike,
    image_shape: Shape,
    mode: str = "full",
    boundary: str = "zero",
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
        `convolution_matrix`, without its memory; ``rmatvec`` is the exact adjoint.

    Raises
    ------
    TypeError, ValueError
        As `convolution_matrix` does; later, ValueError if a vector is not finite.

    Examples
    --------
    >>> import numpy as np
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
