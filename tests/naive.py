"""Definitions as plain as they can be read. Nothing here is fast or imports fastkernel."""

import numpy as np

PAD_MODES = {
    "zero": "constant",
    "circular": "wrap",
    "replicate": "edge",
    "symmetric": "symmetric",
    "mirror": "reflect",
}


def design_matrix(image, kernel_shape):
    """One row per valid pixel, one column per tap: ``X @ k.ravel()`` is the convolution."""
    p, q = kernel_shape
    rows, cols = image.shape[0] - p + 1, image.shape[1] - q + 1
    patches = [image[r : r + p, c : c + q] for r in range(rows) for c in range(cols)]
    return np.array([patch[::-1, ::-1].ravel() for patch in patches])


def extended(image, kernel_shape, mode, boundary="zero"):
    """The image whose valid convolution is the convolution of ``mode``."""
    p, q = kernel_shape
    i, j = (p - 1) // 2, (q - 1) // 2
    if mode == "full":
        return np.pad(image, ((p - 1, p - 1), (q - 1, q - 1)))
    if mode == "same":
        return np.pad(image, ((p - 1 - i, i), (q - 1 - j, j)), PAD_MODES[boundary])
    return image


def convolve(image, kernel, mode="valid", boundary="zero"):
    """The sum over taps, written out."""
    x = extended(np.asarray(image, float), kernel.shape, mode, boundary)
    p, q = kernel.shape
    rows, cols = x.shape[0] - p + 1, x.shape[1] - q + 1
    out = np.zeros((rows, cols))
    for i in range(p):
        for j in range(q):
            out += kernel[i, j] * x[p - 1 - i : p - 1 - i + rows, q - 1 - j : q - 1 - j + cols]
    return out


def inside(result, kernel_shape):
    """The pixels of a "same" result that no border rule can touch."""
    p, q = kernel_shape
    i, j = (p - 1) // 2, (q - 1) // 2
    return result[p - 1 - i : result.shape[0] - i, q - 1 - j : result.shape[1] - j]


def least_squares(image, result, kernel_shape):
    """The kernel of a valid pair by a dense solver that never squares the condition number."""
    x = design_matrix(np.asarray(image, float), kernel_shape)
    taps, *_ = np.linalg.lstsq(x, np.asarray(result, float).ravel(), rcond=None)
    return taps.reshape(kernel_shape)
