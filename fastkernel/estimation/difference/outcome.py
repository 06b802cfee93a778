"""From a fit to a difference: its background, its units, its white noise, what is said of it."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fastkernel._typing import BoolArray, FloatArray
from fastkernel.estimation.difference.chosen_pixels import near_light, reached, sticking_out
from fastkernel.estimation.difference.direction import Convolved, Widths
from fastkernel.estimation.difference.image_match import (
    MISSING,
    ImageMatch,
    MatchFlag,
    MatchQuality,
)
from fastkernel.estimation.difference.noise import Noise
from fastkernel.estimation.difference.sky import fitted_background
from fastkernel.estimation.difference.whitening import whitened
from fastkernel.estimation.fields.kernel_field import KernelField
from fastkernel.estimation.polynomial import polynomial_image
from fastkernel.estimation.quality import Belief

# Share of the good pixels that must be dark for a background to be fitted to these alone.
_DARK = 0.1

# Sum of taps, of which all make 1, that may meet missing pixels unsaid.
_MIXED = 0.01

# Scores of the sky beyond which variances are wrong, and of light beyond which kernels are.
_UNEVEN, _WRONG = 1.1, 2.0
_UNMATCHED, _LOST = 1.15, 2.0

# Scores of the sky below which variances are so wrong that these, not the sky, are compared with.
_LEAST = 0.5

# Share of clipped pixels from which on they are mentioned.
_MANY = 0.02


@dataclass(frozen=True, slots=True)
class Fit:
    """A fit of the kernel, and what follows from it.

    Attributes
    ----------
    field : KernelField
        Of the images less their skies.
    residual, light : (m, n) float64 arrays
        What it leaves, and what of its prediction is no sky; NaN where a bad pixel of the source
        has a part in it, and along the border.
    noise : Noise
        Of the images.
    source_variance, result_variance, variance : (m, n) float64 arrays
        Of the images and of the residual.
    """

    field: KernelField
    residual: FloatArray
    light: FloatArray
    noise: Noise
    source_variance: FloatArray
    result_variance: FloatArray
    variance: FloatArray

    @property
    def out(self) -> BoolArray:
        """Pixels that stick out."""
        return sticking_out(self.residual, self.light, self.variance) & ~self.noise.result.bad

    @property
    def near_light(self) -> BoolArray:
        """Pixels near light that is seen in the difference."""
        return near_light(self.light, self.variance)


def outcome(
    fit: Fit, convolved: Convolved, widths: Widths, *, white: bool, workers: int
) -> ImageMatch:
    """Return the difference that a fit leaves, with all that is said of it.

    Parameters
    ----------
    fit : Fit
        The last.
    convolved : {"reference", "science"}
        Which image was convolved.
    widths : Widths
        Of the images.
    white : bool
        Whether the noise of the difference is to be made white.
    workers : int
        Threads to use.
    """
    flags = _flags(fit, convolved)
    missing = (flags & MISSING) != 0
    residual, variance = np.where(missing, np.nan, fit.residual), fit.variance
    if white:
        made = whitened(
            fit.field, residual, missing, fit.source_variance, fit.result_variance, workers
        )
        residual, variance = np.where(missing, np.nan, made.residual), made.variance
        flags[(np.abs(made.missing) > _MIXED) & ~missing] |= np.uint8(MatchFlag.NEIGHBOUR)
    field, factor = fit.field, 1.0
    if convolved == "science":
        factor = -1 / _scale(field)
    # Its prediction of the image as it came, sky and all.
    if field.background is not None:
        background = field.background.copy()
        background[0, 0] += fit.noise.result.sky - _scale(field) * fit.noise.source.sky
        field = replace(field, background=background)
    return ImageMatch(
        difference=residual * factor,
        variance=np.where(missing, np.nan, variance * factor**2),
        field=field,
        flags=flags,
        used=field.used,
        direction=convolved,
        decorrelated=white,
        quality=_quality(fit, residual / np.sqrt(variance), flags, widths),
    )


def _scale(field: KernelField) -> float:
    """Return the sum of the taps, which is the same everywhere."""
    return float(field.scale_at(0, 0))


def with_background(fit: Fit) -> Fit:
    """Return a fit whose background is that of the sky all over the frame."""
    field, ((p, q), (m, n)) = fit.field, (fit.field.kernel_shape, fit.field.shape)
    if field.background is None:
        return fit
    good = np.isfinite(fit.residual) & ~fit.noise.result.bad & ~fit.out
    dark = good & ~fit.near_light
    if np.count_nonzero(dark) < _DARK * np.count_nonzero(good):
        dark = good
    inside = slice(p // 2, p // 2 + m - p + 1), slice(q // 2, q // 2 + n - q + 1)
    spread = math.sqrt(np.median(fit.variance[dark]))
    residual = fit.residual.copy()
    degree = len(field.background) - 1
    more = fitted_background(residual[inside], dark[inside], spread, degree)
    shape = m - p + 1, n - q + 1
    residual[inside] -= polynomial_image(more, shape, (0, 0), shape)
    background = field.background + more
    return replace(fit, field=replace(field, background=background), residual=residual)


def _flags(fit: Fit, convolved: Convolved) -> NDArray[np.uint8]:
    """Return what is said of every pixel, before decorrelation."""
    source, result = fit.noise.source, fit.noise.result
    (p, q), (m, n) = fit.field.kernel_shape, fit.field.shape
    flags = np.full((m, n), MatchFlag.BORDER, np.uint8)
    flags[p // 2 : p // 2 + m - p + 1, q // 2 : q // 2 + n - q + 1] = 0
    names = MatchFlag.REFERENCE, MatchFlag.SCIENCE
    of_source, of_result = names if convolved == "reference" else names[::-1]
    flags[reached(source.bad & ~source.saturated, (p, q))] |= np.uint8(of_source)
    flags[result.bad & ~result.saturated] |= np.uint8(of_result)
    flags[reached(source.saturated, (p, q)) | result.saturated] |= np.uint8(MatchFlag.SATURATED)
    flags[fit.out] |= np.uint8(MatchFlag.CLIPPED)
    return flags


def _quality(
    fit: Fit, scores: FloatArray, flags: NDArray[np.uint8], widths: Widths
) -> MatchQuality:
    """Say how far to believe a difference."""
    good = flags == 0
    sky, lit = good & ~fit.near_light, good & fit.near_light
    std = robust_std(scores[sky if sky.any() else good])
    on_light = math.sqrt(np.mean(scores[lit] ** 2)) if lit.any() else math.nan
    left, right = scores[:, :-1], scores[:, 1:]
    pairs = sky[:, :-1] & sky[:, 1:]
    correlation = math.nan
    if pairs.any():
        correlation = float(np.mean(left[pairs] * right[pairs]) / np.mean(scores[sky] ** 2))
    missing = float(np.mean((flags & MISSING) != 0))
    clipped = float(np.mean((flags & MatchFlag.CLIPPED) != 0))
    # As far as so many pixels tell the noise; a median deviation is less sure than a mean square.
    doubts = [
        3 * error / math.sqrt(max(int(np.count_nonzero(part)), 1))
        for part, error in ((sky, 1.17), (lit, 0.71))
    ]
    belief, reasons = _verdict(std, on_light, clipped, *doubts)
    return MatchQuality(
        belief=belief,
        reasons=reasons,
        score_std=std,
        score_rms_on_light=on_light,
        correlation=correlation,
        missing=missing,
        clipped=clipped,
        n_pixels=fit.field.n_pixels,
        science_width=widths.science,
        reference_width=widths.reference,
    )


def robust_std(scores: FloatArray) -> float:
    """Return the standard deviation of numbers of which few stick out, NaN of none."""
    if not scores.size:
        return math.nan
    return 1.4826 * float(np.median(np.abs(scores - np.median(scores))))


def _verdict(
    std: float, on_light: float, clipped: float, sky_doubt: float, doubt: float
) -> tuple[Belief, tuple[str, ...]]:
    ratio, reasons, fatal = on_light / max(std, _LEAST), [], False
    if ratio > _UNMATCHED + sky_doubt + doubt:
        reasons.append(f"light leaves {ratio:.2f} times the noise of the sky: it is not matched")
        fatal |= ratio > _LOST + sky_doubt + doubt
    if not 1 / _UNEVEN - sky_doubt <= std <= _UNEVEN + sky_doubt:
        reasons.append(f"the sky has {std:.2f} times the noise of its variance")
        fatal |= std > _WRONG + sky_doubt
    if clipped > _MANY:
        reasons.append(f"{clipped:.1%} of the pixels stick out of the noise")
    if not reasons:
        return "believe it", ("light leaves what noise leaves",)
    return "do not believe it" if fatal else "believe it with care", tuple(reasons)
