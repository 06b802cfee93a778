"""The balance of least generalised cross-validation."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastkernel._images.checks import float_dtype
from fastkernel._loops import cross_validation as loops
from fastkernel._machine.image_transforms import columns_of, stages
from fastkernel._machine.pair_transforms import Spectra
from fastkernel._machine.tiles import Scratch
from fastkernel._typing import AnyArray, FloatArray, Progress
from fastkernel.restoration.framing import fading_window, framed_spectra, laplacian
from fastkernel.restoration.noise import stored_variance

# The least noise that cross-validation reckons with, as a share of the image's variance. What the
# image was stored with is reckoned with too: it is not white, and would be taken for detail.
_FLOOR = 1e-5

# How much restored noise as strong as the image adds to the score. Next to nothing where the
# noise is white; without it, noise that is not can be taken for detail of any strength.
_CAUTION = 0.05

# Columns of the transform that the score is made of where there are twice as many: enough to tell
# a balance.
_COLUMNS = 256

# Columns on either side that the window makes a column of.
_REACH = 2

# Magnitudes of the transform of a flat image, in roundings of its norm.
_FLAT = 8

# Bins of the ratio of penalty to power, about that of a PSF of sum 1: a bin's ratio is wrong by
# 6 percent at most, which a balance can be off by without notice. The loop counts them from the
# exponent 0 of a float64, which stands for 2 to the power of -1023.
_OCTAVES, _PER_OCTAVE, _EXPONENT = 64, 8, 1023


class Balance(NamedTuple):
    """What cross-validation tells of an image.

    Attributes
    ----------
    balance : float
        Strength of the prior.
    noise : float
        Variance of the noise, in squared units of the image.
    """

    balance: float
    noise: float


def cross_validated(
    problem: Spectra,
    image: AnyArray,
    psf: FloatArray,
    border: str,
    progress: Progress | None,
    stored: float | None = None,
) -> Balance:
    r"""Return the balance of least generalised cross-validation, and the noise that it tells.

    The filter leaves of a frequency the share :math:`r = \lambda\rho / (1 + \lambda\rho)`, which
    depends on the ratio ``rho`` of penalty to power alone: so one pass over the spectrum sorts
    energies by ratio, and the score :math:`V = \sum |Y|^2 r^2 / (\sum r)^2` of any balance is a sum
    over the bins. ``V`` also tells the variance of the noise; how strong that would be in the
    restored image, :math:`\sum (1 - r)^2 / |H|^2` times as strong, is held against a balance.

    Any continuation of an image is wrong by more than the noise where the PSF passes next to
    nothing, and cross-validation would take that for detail: it sees the image fade to nothing in
    the frame's margins. In the transform that is a short convolution.

    Parameters
    ----------
    problem : Spectra
        The image and the PSF.
    image : (rows, cols) array
        The image as it was given.
    psf : (p, q) float64 array
        For the largest that its transform can be.
    border : str
        "circular" where the image is not to fade.
    progress : callable, optional
        Called as ``progress(done, total)``.
    stored : float, optional
        Variance that the image was stored with; by default that which it shows.
    """
    frame, (m, n), dtype = problem.frame, problem.frame, float_dtype(image)
    penalty, counts = laplacian(frame), columns_of(n)
    largest = float(np.add.reduce(np.abs(psf), axis=None))
    middle = -round(2 * math.log2(largest))
    first = (middle - _OCTAVES + _EXPONENT) * _PER_OCTAVE
    noise, taps = float(m * n), (np.empty((2, 0), dtype),) * 2
    fading = fading_window((image.shape[0], image.shape[1]), frame, dtype)
    if border != "circular" and n > 2 * _REACH:
        noise, taps = fading.energy, (fading.across, fading.down)

    def work(spectra: Sequence[AnyArray], columns: slice, _: Scratch) -> FloatArray:
        y, h = (part.view(dtype) for part in spectra)
        # Beyond its first and its last column a real image's transform mirrors itself.
        width = columns.stop - columns.start
        before = 1 if columns.start == 0 and width > _REACH else -1
        after = n - columns.stop - columns.start if columns.stop == len(counts) else -1
        ends = before, after if after >= _REACH - 1 else -1
        lines, space = (np.empty((4, 2 * m), dtype), np.empty((2, m + 4), dtype)), np.empty((3, m))
        found = np.zeros((2 * _OCTAVES * _PER_OCTAVE, 3))
        given = (penalty.across[columns], penalty.down), taps, ends, *lines, counts[columns]
        mean = y[0, :2].copy()
        if columns.start == 0:
            y[0, :2] = 0  # or the window would spread it
        loops.add_by_ratio(y, h, *given, first, space, space.view(np.int64), found)
        y[0, :2] = mean
        return found

    least_noise = noise * (stored_variance(image) if stored is None else stored)

    def octave_of(parts: Sequence[FloatArray]) -> tuple[float, float]:
        found = parts[0]
        for part in parts[1:]:
            found += part
        # A flat image leaves nothing but rounding.
        least = (_FLAT * np.finfo(dtype).eps) ** 2 * m * n * problem.energy
        floors = least, (_FLOOR, least_noise)
        bins = np.empty((4, len(found)))
        octave, level = loops.least_cross_validation(
            found, _PER_OCTAVE, _OCTAVES, *floors, largest**2, _CAUTION, bins
        )
        return float(octave), float(level)

    share = max(1, len(counts) // _COLUMNS)
    octave, level = octave_of(problem.sample(work, share, progress))
    if share > 1 and octave == -math.inf:  # all there is stands between the columns
        octave, level = octave_of(problem.columns(work))
    return Balance(float(2.0 ** (octave - middle)), max(level, least_noise, 0.0) / noise)


def cross_validated_alone(
    image: AnyArray,
    psf: FloatArray,
    border: str,
    workers: int,
    progress: Progress | None = None,
    stored: float | None = None,
) -> Balance:
    """Return the balance for one channel, where no division follows.

    Where nothing is assumed beyond the image ("unknown"), its mirror image stands there for this.
    """
    frame_border = "symmetric" if border == "unknown" else border
    steps = stages(progress, 2)
    with framed_spectra(image, psf, frame_border, workers, next(steps)) as problem:
        return cross_validated(problem, image, psf, border, next(steps), stored)
