"""What an image was stored with: rounding to steps, and the blocks of JPEG.

Neither is white: rounding adds a little at every frequency, but is the only noise of many images;
what JPEG takes away lies where the image is, and nothing of it shows at high frequencies, where
noise is commonly looked for.
"""

import math

import numpy as np

from fastkernel._machine.tiles import split
from fastkernel._typing import AnyArray, FloatArray
from fastkernel.restoration.framing import is_whole

# Rows, and columns, that are looked at: enough to tell, however large the image.
_LINES, _STRIP = 512, 16

# Pixels whose steps are looked at together, in the first cache.
_PIXELS = 1 << 13

# Sides of the blocks of JPEG.
_BLOCK = 8

# Share of the excess of squared jumps between blocks that is the variance of what JPEG changed:
# 0.11 to 0.43 for photographs under blurs of 1 to 4 pixels, at qualities 50 to 95.
_JUMPS = 0.25

# How far the jumps between blocks stand out from those elsewhere, in their standard deviations and
# as a share, before they are taken for any.
_CLEARLY, _SHARE = 5.0, 0.1

# Values that an image must have before equal gaps between them are taken for rounding.
_VALUES = 32

# Sides of the places whose noise is compared, and by how much it may vary.
_PLACE, _VARIES = 16, 4.0

# Pixels that are looked at first, of which neighbouring values are a step apart, or so many.
_FEW, _GAPS = 1024, 3

# Largest deviation from a multiple of the gap, as a share of the gap.
_NEAR = 1e-2


def stored_variance(image: AnyArray) -> float:
    """Return the variance that rounding and JPEG have added to an image, as far as it shows.

    Parameters
    ----------
    image : (m, n) array
        Of real numbers, finite.
    """
    strips = [_strips(image), _strips(image.T)]
    return _rounding(image, strips[0]) + _JUMPS * sum(map(_jumps, strips)) / 2


def _strips(image: AnyArray) -> AnyArray:
    """Return some rows, a few that stand side by side at a time."""
    m = len(image)
    if m <= _LINES:
        return image[:]
    tops = np.linspace(0, m - _STRIP, _LINES // _STRIP).astype(int)
    return np.concatenate([image[top : top + _STRIP] for top in tops])


def _rounding(image: AnyArray, lines: AnyArray) -> float:
    """Return the variance of rounding to steps of one size, 0 where pixels are not in steps."""
    if is_whole(image):
        return 1 / 12
    # Most images are in no steps, which some pixels tell; gaps between these may be several steps.
    few = np.unique(lines.flat[:: max(1, lines.size // _FEW)].astype(np.float64))
    if lines.size > _FEW and not any(_gap(few, count) for count in range(1, _GAPS + 1)):
        return 0.0
    values = np.unique(lines).astype(np.float64)
    if not _VALUES <= len(values) <= lines.size / 4:
        return 0.0
    return _gap(values) ** 2 / 12


def _gap(values: FloatArray, steps: int = 1) -> float:
    """Return the step of which the least gap of ascending values has so many, 0 for none."""
    # Values that differ by rounding of floats are one.
    gaps = np.diff(values)
    gaps = gaps[gaps > 1e-6 * (values[-1] - values[0])]
    if not len(gaps):
        return 0.0
    step = float(gaps.min()) / steps
    places = (values - values[0]) / step
    return step if np.abs(places - np.rint(places)).max() <= _NEAR else 0.0


def _jumps(lines: AnyArray) -> float:
    """Return by how much squared jumps between blocks exceed those between other columns."""
    if lines.shape[1] < 4 * _BLOCK:
        return 0.0
    squares = np.zeros(lines.shape[1] - 3)
    for top, bottom in split(len(lines), max(1, _PIXELS // lines.shape[1])):
        steps = np.diff(lines[top:bottom].astype(np.float64), axis=1)
        # The step between two columns, beyond what the steps on either side lead to expect.
        steps = steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) / 2
        squares += np.einsum("ij,ij->j", steps, steps) / len(lines)
    phase = np.arange(len(squares)) % _BLOCK
    *others, most = np.sort(np.bincount(phase, squares) / np.bincount(phase)).tolist()
    mean = sum(others) / len(others)
    deviation = math.sqrt(sum((one - mean) ** 2 for one in others) / len(others))
    excess = most - mean
    return 0.0 if excess <= max(_CLEARLY * deviation, _SHARE * mean) else excess


def unevenness(image: AnyArray) -> float:
    """Return the mean variance of an image's noise over that which a fading window shows.

    Noise is strongest where light is, or weakest where it is clipped, and the window of
    cross-validation sees the middle of an image more than its rim. At least 1, and rather too much
    where detail is taken for noise.

    Parameters
    ----------
    image : (m, n) array
        Of real numbers, finite.
    """
    m, n = image.shape
    if min(m, n) < 2 * _PLACE:
        return 1.0
    tops = np.unique(np.linspace(0, m - _PLACE, min(m, _LINES) // _PLACE).astype(int))
    across = np.sin(np.pi * (np.arange(n // _PLACE) + 0.5) * _PLACE / n) ** 8
    found, weights = [], []
    for top in tops:
        rows = np.asarray(image[top : top + _PLACE, : n // _PLACE * _PLACE], np.float64)
        bent = np.diff(rows, 2, axis=0)
        bent[:, 1:-1] = np.diff(bent, 2, axis=1)
        places = np.abs(bent).reshape(_PLACE - 2, -1, _PLACE)
        found.append(np.median(places, axis=(0, 2)) ** 2)
        weights.append(across * np.sin(np.pi * (top + _PLACE / 2) / m) ** 8)
    seen = np.average(np.array(found), weights=np.array(weights))
    mean = float(np.mean(found))
    return min(max(mean / float(seen), 1.0), _VARIES) if seen > 0 else 1.0
