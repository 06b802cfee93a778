r"""What noise two images and their difference have, told or estimated.

An estimated variance is that of the sky and a slope times the light above it, as photons make it.
The sky's is told by an image alone, from what differs between neighbours where it is dark. The
slopes are told by a first fit: its residual, robustly, in steps of the light that was matched.
"""

from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.optimize import nnls

from fastkernel._typing import BoolArray, FloatArray
from fastkernel.estimation.difference.exposures import Exposure, local_sky, places_of
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.fields.kernel_field import KernelField

# Steps of light, in standard deviations of the sky: bright enough to tell a slope, and not so
# bright that errors of a kernel count.
_STEPS = (3.0, 4.5, 6.5, 9.5, 14.0, 20.0)

# Noise that an image without any is taken to have, as a part of what stands in it; and at least.
_EXACT, _TINY = 1e-6, float(np.finfo(np.float64).tiny)

# Excess of an image's squares over those of its noise, in standard deviations, that is light.
_STANDS_OUT = 5.0

# Fewest pixels by which a step tells anything.
_FEWEST = 50

# Standard deviation over median absolute deviation, of Gaussian noise.
_ROBUST = 1.4826

# The difference of the sky's variances to a first fit's residual that is still taken for an error
# of estimation.
_MOST = 4.0


class NoiseModel(NamedTuple):
    """The variance of an image's noise: that of the sky, and a slope times the light above it.

    Attributes
    ----------
    floor : float
        In squared units of the image.
    slope : float
        In units of the image; one over the gain, where photons make the noise.
    """

    floor: float
    slope: float = 0.0

    def variance(self, light: FloatArray) -> FloatArray:
        """Return the variance where there is a light, relative to the sky; at least half its."""
        return np.maximum(self.floor + self.slope * light, self.floor / 2)


def variance_of_sky(exposure: Exposure) -> float:
    """Estimate the variance of white noise where an image is dark.

    The median of squared second differences along both axes, over the darker half of the pixels of
    every place, by their smoothed levels; the median over places. Never less than rounding to whole
    numbers leaves, where they are, or than a millionth of what stands in the image.
    """
    pixels, bad = exposure.pixels, exposure.bad
    levels = pixels[~bad] + exposure.sky
    whole = np.array_equal(levels, np.rint(levels))
    least = max(1 / 12 if whole else 0.0, _EXACT**2 * float(np.var(levels)), _TINY)
    bent = np.zeros(pixels.shape)
    bent[1:-1, 1:-1] = np.diff(np.diff(pixels, 2, axis=0), 2, axis=1) / 6
    near = uniform_filter(bad.astype(float), 3, mode="constant", cval=1.0) > 1e-6
    smooth = uniform_filter(pixels, 5)
    found = []
    rows, cols = (places_of(n) for n in pixels.shape)
    for top, bottom in rows:
        for left, right in cols:
            inside = slice(top, bottom), slice(left, right)
            good = ~near[inside]
            if np.count_nonzero(good) < _FEWEST:
                continue
            levels = smooth[inside]
            dark = good & (levels <= np.median(levels[good]))
            found.append(np.median(np.abs(bent[inside][dark])))
    if not found:
        return max(float(np.var(levels)), least)
    return max(float((_ROBUST * np.median(found)) ** 2), least)


def refuse_noise(exposure: Exposure, variance: FloatArray) -> None:
    """Raise for an image in which nothing stands out of noise of a variance."""
    good = ~exposure.bad
    light = (exposure.pixels - local_sky(exposure))[good]
    # Squares of noise have twice the squared variance as their own.
    excess, spread = np.sum(light**2 - variance[good]), np.sqrt(2 * np.sum(variance[good] ** 2))
    if not excess > _STANDS_OUT * spread:
        msg = (
            f"nothing in {exposure.name} stands out of its noise, so no kernel can be told; give "
            f"{exposure.name}_variance if its noise was overestimated, or a deeper image"
        )
        raise SingularFitError(msg)


class Step(NamedTuple):
    """What a residual tells of pixels with about one light: means over them.

    Attributes
    ----------
    seen : float
        The variance of the residual.
    pixels : int
        How many there are.
    members : bool array
        Which.
    """

    seen: float
    pixels: int
    members: BoolArray


def steps_of(residual: FloatArray, light: FloatArray, spread: float, good: BoolArray) -> list[Step]:
    """Return the sky, and steps of light, with the variance that a residual has there.

    Parameters
    ----------
    residual : (m, n) float64 array
        Of a fit.
    light : (m, n) float64 array
        What was matched, above the sky, in the same units.
    spread : float
        Standard deviation of the sky in the residual.
    good : (m, n) bool array
        Pixels that count.
    """
    edges = [(-np.inf, 1.0), *pairwise(_STEPS)]
    found = []
    for low, high in edges:
        members = good & (light >= low * spread) & (light < high * spread)
        count = int(np.count_nonzero(members))
        if count >= _FEWEST:
            part = residual[members]
            off = _ROBUST * float(np.median(np.abs(part - np.median(part))))
            found.append(Step(max(off, _EXACT * spread) ** 2, count, members))
    return found


class Noise(NamedTuple):
    """The noise of the image that is convolved, the source, and of the other, the result.

    Attributes
    ----------
    source, result : Exposure
        The images.
    source_model, result_model : NoiseModel or None
        Of those whose variance was not told.
    """

    source: Exposure
    result: Exposure
    source_model: NoiseModel | None
    result_model: NoiseModel | None

    @property
    def of_source(self) -> FloatArray:
        """The variance of the source's pixels, (m, n)."""
        if self.source_model is None:
            return cast(FloatArray, self.source.variance)
        return self.source_model.variance(self.source.pixels)

    def of_result(self, matched: FloatArray) -> FloatArray:
        """Return the variance of the result's pixels, (m, n), by what was matched to them.

        Where nothing was matched, NaN, a model takes it to be sky.
        """
        if self.result_model is None:
            return cast(FloatArray, self.result.variance)
        return self.result_model.variance(np.nan_to_num(matched))

    def calibrated(
        self,
        field: KernelField,
        matched: FloatArray,
        residual: FloatArray,
        light: FloatArray,
        workers: int,
    ) -> "Noise":
        """Return the noise whose models agree with the residual of a first fit.

        Parameters
        ----------
        field : KernelField
            The fit.
        matched : (m, n) float64 array
            What it predicts of the result, relative to the result's sky.
        residual : (m, n) float64 array
            What it leaves; NaN where it predicts nothing.
        light : (m, n) float64 array
            What of the prediction is no sky.
        workers : int
            Threads to use.
        """
        x, y = self.source_model, self.result_model
        if x is None and y is None:
            return self
        told = field.variance(
            0.0 if x else self.of_source, 0.0 if y else self.of_result(matched), workers=workers
        )
        floors = field.variance(x.floor if x else 0.0, y.floor if y else 0.0, workers=workers)
        # Photons of equally bright skies: slopes are as the variances of the skies.
        scale = float(field.scale_at(*(n / 2 for n in field.shape)))
        rises = field.variance(
            x.floor * scale * self.source.pixels if x else 0.0,
            y.floor * np.nan_to_num(matched) if y else 0.0,
            workers=workers,
        )
        good = np.isfinite(residual) & ~self.source.bad & ~self.result.bad
        spread = float(np.sqrt(np.median((told + floors)[good])))
        steps = steps_of(residual, light, spread, good)
        if not steps:
            return self
        weights = np.array([np.sqrt(step.pixels) / step.seen for step in steps])
        parts = np.array(
            [[np.mean(part[step.members]) for part in (floors, rises, told)] for step in steps]
        )
        over = np.array([step.seen for step in steps]) - parts[:, 2]
        factors, _ = nnls(weights[:, None] * parts[:, :2], weights * over)
        factor, slope = float(np.clip(factors[0], 1 / _MOST, _MOST)), float(factors[1])
        return self._replace(
            source_model=x and NoiseModel(factor * x.floor, slope * x.floor * scale),
            result_model=y and NoiseModel(factor * y.floor, slope * y.floor),
        )
