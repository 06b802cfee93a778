"""Definitions as plain as they can be read. Nothing here is fast or imports fastkernel."""

import functools

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


def pixel_at(place, length, rule):
    """The pixel of a line at ``place``, walked to from pixel 0; ``length`` stands for a zero."""
    if rule == "zero":
        return place if 0 <= place < length else length
    pixel, step = 0, 1 if place > 0 else -1
    for _ in range(abs(place)):
        if 0 <= pixel + step < length:
            pixel += step
        elif rule == "circular":
            pixel = 0 if step > 0 else length - 1
        elif rule == "symmetric":
            step = -step
        elif rule == "mirror" and length > 1:
            step = -step
            pixel += step
        # Beyond the edge of "replicate" every step stays where it is.
    return pixel


@functools.cache
def pixels_under(length, taps, mode, rule, correlation=False):
    """One row an output of a line, one column a tap: the pixel that they meet."""
    centre = (taps - 1) // 2
    outputs = {"full": length + taps - 1, "same": length, "valid": length - taps + 1}[mode]
    if correlation:
        first, step = {"full": 1 - taps, "same": -centre, "valid": 0}[mode], 1
    else:
        first, step = {"full": 0, "same": centre, "valid": taps - 1}[mode], -1
    return np.array(
        [
            [pixel_at(t + first + step * i, length, rule) for i in range(taps)]
            for t in range(outputs)
        ]
    )


def filtered(image, kernel, mode, rule, correlation=False):
    """Convolution or correlation, every pixel beyond the frame looked up by itself."""
    rows, cols = (
        pixels_under(length, taps, mode, rule, correlation)
        for length, taps in zip(image.shape, kernel.shape, strict=True)
    )
    met = np.pad(image, ((0, 1), (0, 1)))[rows[:, :, None, None], cols]
    return np.einsum("tiuj,ij->tu", met, kernel)


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
