"""What a kernel leaves of a result, as an image to look at."""

from typing import TYPE_CHECKING

import numpy as np

from fastkernel._typing import BoolArray, FloatArray, Shape
from fastkernel.cli.picture import Picture

if TYPE_CHECKING:
    from fastkernel import KernelFit


def residual_picture(source: Picture, result: Picture, fit: "KernelFit") -> FloatArray | None:
    """Return what the kernel leaves of the result, of colours the mean; NaN where none was used."""
    x, y = (np.atleast_3d(one.pixels) for one in (source, result))
    several = np.ndim(fit.background if fit.background is not None else 0.0) in {1, 3}
    try:
        left = [
            fit.residual(x[..., i], y[..., i], pair=i if several else None)
            for i in range(x.shape[2])
        ]
    except (TypeError, ValueError):  # a fit of pixels that are not all of them
        return None
    used = fit.used if isinstance(fit.used, tuple) else (fit.used,) * len(left)
    total, count = np.zeros(left[0].shape), np.zeros(left[0].shape)
    for part, mask in zip(left, used, strict=False):
        some = _window(mask, part.shape, fit.kernel.shape)
        total += np.where(some, part, 0.0)
        count += some
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _window(used: BoolArray | None, shape: Shape, kernel_shape: Shape) -> BoolArray:
    """Return which pixels of a residual were used, which has no rim that a border rule made."""
    if used is not None:
        rows, cols = (k // 2 for k in kernel_shape) if used.shape != shape else (0, 0)
        used = used[rows : rows + shape[0], cols : cols + shape[1]]
    return np.ones(shape, np.bool_) if used is None or used.shape != shape else used
