"""Fits under constraints as plain as can be: dense matrices and projected steps."""

import itertools

import naive
import numpy as np
from skimage import data

GAUSS = np.outer(*[np.exp(-(np.arange(-2.0, 3) ** 2) / s) for s in (2.0, 1.0)])
GAUSS /= GAUSS.sum()


def noise_pair(rng, shape=(5, 5), noise=0.3, size=24):
    """A random source, and a blurred copy with noise that makes free taps negative."""
    image = rng.standard_normal((size, size + 3)) + 0.5
    kernel = np.zeros(shape)
    kernel[1:-1, 1:-1] = rng.random((shape[0] - 2, shape[1] - 2))
    result = naive.convolve(image, kernel / kernel.sum())
    return image, result + noise * rng.standard_normal(result.shape)


def photo_pair(rng, kernel=GAUSS, noise=2.0):
    image = data.camera()[120:160, 200:245].astype(float)
    result = naive.convolve(image, kernel)
    return image, result + noise * rng.standard_normal(result.shape)


def dense(image, result, shape):
    return naive.design_matrix(image, shape), result.ravel()


def objective(x, y, taps):
    return 0.5 * float(np.sum((x @ taps - y) ** 2))


def onto_simplex(v):
    """The projection by sorting, of Duchi et al. 2008."""
    u = np.sort(v)[::-1]
    excess = (np.cumsum(u) - 1) / np.arange(1, len(u) + 1)
    return np.maximum(v - excess[u > excess][-1], 0)


def turned_means(v, shape, quarters):
    kernel = v.reshape(shape)
    return np.mean([np.rot90(kernel, k) for k in quarters], axis=0).ravel()


QUARTERS = {None: (0,), "even": (0, 2), "rotation": (0, 1, 2, 3)}


def projected(v, shape, nonnegative, unit_sum, symmetric):
    v = turned_means(v, shape, QUARTERS[symmetric])
    if nonnegative and unit_sum:
        return onto_simplex(v)
    if unit_sum:
        return v - (v.sum() - 1) / v.size
    return np.maximum(v, 0) if nonnegative else v


def oracle(x, y, shape, constraints, iterations=20000):
    """Projected gradient descent, run until the kernel stands still."""
    gram, moments = x.T @ x, x.T @ y
    step = 1 / np.linalg.eigvalsh(gram)[-1]
    taps = projected(np.zeros(len(gram)), shape, **constraints)
    for _ in range(iterations):
        new = projected(taps - step * (gram @ taps - moments), shape, **constraints)
        if np.abs(new - taps).max() < 1e-15:
            break
        taps = new
    return taps


CONSTRAINTS = [
    {"nonnegative": nonnegative, "unit_sum": unit_sum, "symmetric": symmetric}
    for nonnegative, unit_sum, symmetric in itertools.product(
        (False, True), (False, True), (None, "even", "rotation")
    )
]
