"""Image pairs with a planted kernel, made from photographs that scikit-image ships."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import skimage.color
import skimage.data
import skimage.io
from numpy.typing import NDArray
from scipy import ndimage

# The side up to which a photograph is used; larger sizes magnify the retina, the biggest bundled.
PHOTOGRAPHS = {
    "camera.png": 512,
    "hubble_deep_field.jpg": 872,
    "astronaut.png": 1536,
    "retina.jpg": 1 << 16,
}
NOISE = 2.0  # grey levels: the grain that magnifying took away


class Pair(NamedTuple):
    source: NDArray
    result: NDArray
    kernel: NDArray


def photograph_for(size: int) -> str:
    return next(name for name, side in PHOTOGRAPHS.items() if size <= side)


def _stored(name: str) -> NDArray:
    # Opened by path: skimage.data would fetch an image that a version does not bundle.
    return skimage.io.imread(Path(skimage.data.__file__).with_name(name))


def camera() -> NDArray[np.float64]:
    """The photograph of 512² that everyone knows, as it is."""
    return _stored("camera.png").astype(float)


def photograph(size: int) -> NDArray[np.uint8]:
    """A grey photograph of (size, size): cropped or cubically magnified, with grain."""
    grey = _stored(photograph_for(size)).astype(float)
    if grey.ndim == 3:
        grey = skimage.color.rgb2gray(grey)
    side = min(grey.shape)
    top, left = (grey.shape[0] - side) // 2, (grey.shape[1] - side) // 2
    grey = grey[top : top + side, left : left + side]
    if size > side:
        grey = ndimage.zoom(grey, size / side, order=3, mode="nearest", grid_mode=True)
    margin = (grey.shape[0] - size) // 2
    grey = grey[margin : margin + size, margin : margin + size]
    grain = np.random.default_rng(size).normal(0.0, NOISE, grey.shape)
    return np.clip(np.rint(grey + grain), 0, 255).astype(np.uint8)


def planted_kernel(taps: int) -> NDArray[np.float64]:
    """Positive, without symmetry, of sum 1."""
    kernel = np.random.default_rng(taps).uniform(0.1, 1.0, (taps, taps))
    return kernel / kernel.sum()


def pair(image: NDArray[np.uint8], taps: int, dtype: str) -> Pair:
    """The image and its "same" convolution, edges replicated as image tools do."""
    kernel = planted_kernel(taps)
    result = ndimage.convolve(image.astype(np.float64), kernel, mode="nearest")
    if dtype == "uint8":
        result = np.rint(result)
    return Pair(image.astype(dtype), result.astype(dtype), kernel)


def error(found: NDArray, planted: NDArray) -> float | None:
    """The largest error of a tap over the largest tap, None where it is not a number."""
    largest = float(np.abs(found - planted).max() / planted.max())
    return largest if np.isfinite(largest) else None
