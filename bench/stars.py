"""Simulated star fields whose kernel is known at every place, and figures that judge a difference.

The science scene is the reference's, convolved with a kernel that varies smoothly and is no
polynomial of position, and what changed in between. Both have sky, noise of photons and of reading
out, saturated stars, dead pixels, and the science image cosmic rays.
"""

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from fastkernel import convolve, psf

GAIN, READ_NOISE, SATURATION = 1.6, 4.0, 60000.0
SKY = (250.0, 400.0)
RADIUS = 10  # of the true kernels, in pixels
# Widths of the kernels that are mixed, in pixels, and the scale of the science image.
WIDTHS, SCALE = (0.8, 1.1, 1.5), 1.2
FAR, DETECTED = 30, 5.0


class Kind(NamedTuple):
    """A kind of field: stars a megapixel, how its kernel varies, the reference's exposures."""

    name: str
    stars: int
    amplitude: float
    exposures: int


KINDS = [
    Kind("constant kernel", 2500, 0.0, 4),
    Kind("varying kernel", 2500, 1.0, 4),
    Kind("varying, noisy reference", 2500, 1.0, 1),
    Kind("crowded", 20000, 1.0, 1),
    Kind("sparse", 500, 1.0, 4),
]


class Field(NamedTuple):
    """Two images of the sky, and the truth.

    Attributes
    ----------
    reference, science : (n, n) float32 arrays
        NaN where a pixel is dead.
    variances : two (n, n) float64 arrays
        Of the reference's and the science image's noise.
    mixed : (3, n, n) float64 array
        How much of every kernel of `KERNELS` there is at every place of the science image.
    ideal : (n, n) float64 array
        The difference that the true kernel leaves.
    light : (n, n) float64 array
        The science image's, without its sky.
    spoilt : (n, n) bool array
        What no difference can be judged by: saturated, dead or hit, and what these reach.
    changed : (k, 2) int array
        Where something changed.
    """

    reference: NDArray
    science: NDArray
    variances: tuple[NDArray, NDArray]
    mixed: NDArray
    ideal: NDArray
    light: NDArray
    spoilt: NDArray
    changed: NDArray


def _kernels() -> NDArray:
    side = 2 * RADIUS + 1
    return np.array([np.roll(psf.gaussian(side, w), (0, i), (0, 1)) for i, w in enumerate(WIDTHS)])


KERNELS = _kernels()
STAR = 1 / (1 + (np.add.outer(*2 * [np.arange(-15.0, 16) ** 2])) / 1.7**2) ** 2.5
STAR /= STAR.sum()


def _mixed(size: int, amplitude: float) -> NDArray:
    """Shares of the kernels, from smooth functions of position; they add up to the scale."""
    v, u = np.meshgrid(*2 * [np.linspace(-1, 1, size)], indexing="ij")
    place = 1 + amplitude * np.tanh(0.8 * u - 0.5 * v + 0.6 * u * v)
    shares = [(place - 1) * (place - 2) / 2, place * (2 - place), place * (place - 1) / 2]
    return SCALE * np.array(shares)


def _stars(rng: np.random.Generator, size: int, number: int) -> NDArray:
    """Points of light between four pixels each, of magnitudes as stars have them."""
    light = np.zeros((size, size))
    rows, cols = rng.uniform(0, size - 1, (2, number))
    flux = 200 * rng.uniform(10**-3.1, 1, number) ** -1.33
    top, left = rows.astype(int), cols.astype(int)
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = np.abs(1 - i - (rows - top)) * np.abs(1 - j - (cols - left))
        np.add.at(light, (top + i, left + j), share * flux)
    return light


def _varied(light: NDArray, mixed: NDArray) -> NDArray:
    parts = zip(mixed, KERNELS, strict=True)
    return np.asarray(sum(share * convolve(light, kernel, "same") for share, kernel in parts))


def _observed(rng: np.random.Generator, mean: NDArray, exposures: int) -> tuple[NDArray, NDArray]:
    variance = (mean / GAIN + (READ_NOISE / GAIN) ** 2) / exposures
    image = rng.poisson(mean * GAIN * exposures) / (GAIN * exposures)
    image += rng.normal(0, READ_NOISE / GAIN / np.sqrt(exposures), mean.shape)
    return np.minimum(image, SATURATION), variance


def field(kind: Kind, size: int, seed: int) -> Field:
    rng = np.random.default_rng([seed, len(kind.name)])
    area = size**2 / 1024**2
    scene = convolve(_stars(rng, size, round(kind.stars * area)), STAR, "same")
    changed = rng.integers(FAR, size - FAR, (round(40 * area), 2))
    new = np.zeros((size, size))
    new[tuple(changed.T)] = rng.uniform(500, 3000, len(changed)) * rng.choice(
        [1, -0.5], len(changed)
    )
    mixed = _mixed(size, kind.amplitude)
    light = _varied(scene + convolve(new, STAR, "same"), mixed)
    tilt = np.add.outer(*np.linspace([-0.05, -0.03], [0.05, 0.03], size).T)
    skies = SKY[0] * (1 + tilt), SKY[1] * (1 - 2 * tilt)
    reference, before = _observed(rng, scene + skies[0], kind.exposures)
    science, after = _observed(rng, np.maximum(light + skies[1], 0), 1)
    bad = [image >= 0.98 * SATURATION for image in (reference, science)]
    ideal = science - skies[1] - _varied(reference - skies[0], mixed)
    for mask in bad:
        mask.ravel()[rng.integers(0, size**2, round(60 * area))] = True
        mask[rng.integers(size) :, rng.integers(size)] = True
    hit = rng.integers(0, size**2, round(150 * area))
    science.ravel()[hit] += rng.uniform(300, 20000, len(hit))
    for image, mask in zip((reference, science), bad, strict=True):
        image[mask & (image < 0.98 * SATURATION)] = np.nan
    spoilt = ndimage.binary_dilation(bad[0], iterations=RADIUS + 2)
    bad[1].ravel()[hit] = True
    spoilt |= ndimage.binary_dilation(bad[1], iterations=5)
    spoilt[:FAR] = spoilt[-FAR:] = spoilt[:, :FAR] = spoilt[:, -FAR:] = True
    images = reference.astype(np.float32), science.astype(np.float32)
    return Field(*images, (before, after), mixed, ideal, light, spoilt, changed)


def kernel_at(truth: Field, row: int, col: int) -> NDArray:
    return np.tensordot(truth.mixed[:, row, col], KERNELS, 1)


def _variance(truth: Field) -> NDArray:
    """The difference's own, by the true kernel of a cell of the field."""
    size = len(truth.reference)
    edges = np.linspace(0, size, 9).astype(int)
    around = np.pad(truth.variances[0], RADIUS, mode="edge")
    out = truth.variances[1].copy()
    for top, bottom in itertools.pairwise(edges):
        for left, right in itertools.pairwise(edges):
            squares = kernel_at(truth, (top + bottom) // 2, (left + right) // 2) ** 2
            part = around[top : bottom + 2 * RADIUS, left : right + 2 * RADIUS]
            out[top:bottom, left:right] += signal.oaconvolve(part, squares, mode="valid")
    return out


def judged(truth: Field, difference: NDArray) -> dict[str, float]:
    """Noise over that of the truth (1 is ideal), in all and on stars, and false detections."""
    sigma = np.sqrt(_variance(truth))
    clean = np.ones(sigma.shape, bool)
    clean[tuple(truth.changed.T)] = False
    clean = ndimage.binary_erosion(clean, iterations=12, border_value=1)
    clean &= ~truth.spoilt & np.isfinite(difference)
    pull = np.where(clean, difference, 0) / sigma
    bright = clean & (truth.light > 5 * sigma)
    middle = len(sigma) // 2
    seen = signal.convolve(STAR, kernel_at(truth, middle, middle), mode="same")
    seen /= seen.sum()
    matched = signal.oaconvolve(np.where(clean, difference, 0), seen[::-1, ::-1], mode="same")
    noise = signal.oaconvolve(sigma**2, seen**2, mode="same")
    # Noise that a kernel has smoothed is alike in neighbours: the spread says by how much.
    score = matched / np.sqrt(noise)
    score /= np.std(score[clean & (truth.light < sigma)])
    peaks = (np.abs(score) == ndimage.maximum_filter(np.abs(score), 7)) & (np.abs(score) > DETECTED)
    return {
        "all": float(np.sqrt(np.mean(pull[clean] ** 2))),
        "stars": float(np.sqrt(np.mean(pull[bright] ** 2))),
        "false": int(np.count_nonzero(peaks & clean)),
    }


def error_of_kernels(truth: Field, found: NDArray) -> dict[str, float]:
    """Of kernels at `places`: what a star sees of their error, and their scale's, as shares."""
    errors, scales = [], []
    for (row, col), kernel in zip(places(len(truth.reference)), found, strict=True):
        true = kernel_at(truth, row, col)
        off = -true
        margins = [RADIUS - (k - 1) // 2 for k in kernel.shape]
        inside = tuple(slice(m, m + k) for m, k in zip(margins, kernel.shape, strict=True))
        off[inside] += kernel
        seen, star = (signal.convolve(part, STAR) for part in (off, true))
        errors.append(np.linalg.norm(seen) / np.linalg.norm(star))
        scales.append(kernel.sum() / true.sum() - 1)
    return {"psf": float(np.mean(errors)), "scale": float(np.mean(scales))}


def places(size: int) -> list[tuple[int, int]]:
    steps = [round(share * (size - 1)) for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    return [(row, col) for row in steps for col in steps]
