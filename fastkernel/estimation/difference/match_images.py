"""Subtraction of images: the difference of two images of one scene."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike

from fastkernel._images.checks import (
    as_callback,
    as_choice,
    as_degree,
    as_flag,
    as_kernel_shape,
    as_workers,
    refuse_larger_kernel,
)
from fastkernel._machine.run import Run
from fastkernel._typing import (
    Background,
    BoolArray,
    FloatArray,
    KernelShape,
    Progress,
    Saturation,
    Shape,
)
from fastkernel.basis import gaussian_polynomials
from fastkernel.estimation.difference.chosen_pixels import (
    MARGIN,
    around,
    first_choice,
)
from fastkernel.estimation.difference.direction import Widths, widths_of
from fastkernel.estimation.difference.exposures import Exposure, exposures_of, local_sky
from fastkernel.estimation.difference.image_match import ImageMatch, background_image, background_of
from fastkernel.estimation.difference.noise import (
    Noise,
    NoiseModel,
    refuse_noise,
    variance_of_sky,
)
from fastkernel.estimation.difference.outcome import Fit, outcome, robust_std, with_background
from fastkernel.estimation.fields.estimate_kernel_field import estimate_kernel_field
from fastkernel.estimation.fields.kernel_field import KernelField

Direction: TypeAlias = Literal["auto", "reference", "science"]

# Fits: a first one without weights, that tells the noise; each other by what the last one left.
_FITS = 3

# Side of the tiles in which the kernel counts as constant, in pixels.
_TILE = 64

# Widths of the Gaussians that the kernel is made of, in its own standard deviations, which count
# as one pixel at least; and degrees of the polynomials beside them.
_SIGMAS, _DEGREES = (0.8, 1.6, 3.0), (4, 2, 0)

# Standard deviations of the kernel that an automatic shape has room for on either side, and the
# least and most pixels.
_REACH, _LEAST, _MOST = 6.0, 5, 15

# Columns of the basis that are sums of others but for this are left out.
_DEPENDENT = 1e-6

# Standard deviation that is expected of the second differences of a kernel's taps, as a part of
# their sum.
_ROUGHNESS = 0.02

_MOST_DEGREE = 4

# Of which progress is told.
_STEPS = 1000

# Pixels that a first choice must have for each unknown, or all are fitted to.
_ENOUGH = 4


class _Asked(NamedTuple):
    """What is asked of the kernel and of the background."""

    kernel_shape: Shape
    basis: FloatArray | None
    degree: int
    background: int | None
    adapt: bool

    @property
    def unknowns(self) -> int:
        taps = math.prod(self.kernel_shape) if self.basis is None else self.basis.shape[1]
        return taps * (self.degree + 1) * (self.degree + 2) // 2


def match_images(
    science: ArrayLike,
    reference: ArrayLike,
    kernel_shape: KernelShape = "auto",
    *,
    degree: int = 2,
    background: Background | None = 2,
    science_variance: ArrayLike | None = None,
    reference_variance: ArrayLike | None = None,
    science_mask: ArrayLike | None = None,
    reference_mask: ArrayLike | None = None,
    saturation: Saturation | None = None,
    direction: Direction = "auto",
    decorrelate: bool = True,
    adapt_degree: bool = True,
    workers: int | None = None,
    callback: Progress | None = None,
) -> ImageMatch:
    r"""Return the difference of two images of one scene that differ in blur and brightness.

    The sharper image is convolved by a kernel that varies over the frame, such that it becomes
    like the other; what is left is what changed between the two, and noise.

    Parameters
    ----------
    science, reference : (m, n) array_like of real numbers
        The images, in any unit each, aligned to about a pixel. Pixels that are not finite, or
        masked in an image that carries its mask, are bad.
    kernel_shape : (int, int), int or "auto", optional
        Rows and columns of the kernel, in pixels. "auto" has room for 6 standard deviations of the
        kernel on either side, as the widths of the images tell them: 11 to 31 pixels, and no more
        than half of the images.
    degree : int, optional
        Of the polynomials of position that the taps are, 0 to 4. With 2 a kernel can be sharpest
        inside the frame; ``adapt_degree`` takes what the images ask for.
    background : int, "constant" or None, optional
        Degree of the polynomial that is fitted beside the matched image, 0 to 4; None for none. 2
        follows a sky that slopes and bends.
    science_variance, reference_variance : float or (m, n) array_like, optional
        Of the noise of every pixel, in squared units of its image. Estimated when None; see Notes.
    science_mask, reference_mask : (m, n) array_like of bool, optional
        True where a pixel is bad; None where none is.
    saturation : "auto", (low, high) or None, optional
        Levels from which on pixels are saturated, of both images, as in `estimate_kernel`.
    direction : {"auto", "reference", "science"}, optional
        Which image is convolved; "auto" takes the sharper one.
    decorrelate : bool, optional
        Whether to make the noise of the difference white, which the convolution correlates, by
        default, since what detects sources takes noise for white. Point sources become a little
        sharper by it, and the variance of a pixel larger.
    adapt_degree : bool, optional
        Whether to take a kernel that does not vary, or one degree more than ``degree``, where
        Akaike's criterion says that the images ask for it; ``field.degree`` tells.
    workers : int, optional
        Threads to use, every usable core when None. The answer is the same bit for bit.
    callback : callable, optional
        Called as ``callback(done, total)`` in the calling thread; an exception stops the work.

    Returns
    -------
    ImageMatch
        The difference, science less reference in units of the science image whichever was
        convolved, its variance, the kernel field, and what is said of every pixel: where a bad
        pixel has a part, the difference is NaN and flagged.

    Raises
    ------
    SingularFitError
        If the images do not determine the kernel.
    TypeError, ValueError
        If an image is none, shapes differ, an argument is out of its range, or an image has too
        few good pixels.

    See Also
    --------
    estimate_kernel_field : The fit, of whatever pixels and weights one likes.

    Notes
    -----
    The kernel is a sum of Gaussians times polynomials [1]_, of 0.8, 1.6 and 3 times its own width
    as those of the images tell it, and of degree 4, 2 and 0; a kernel of fewer taps is free. The
    coefficients are polynomials of position [2]_; their sum, the photometric scale, is constant.
    It is fitted three times to pixels near light that fit: where the matched light is more than 5
    standard deviations of the noise, and 3 pixels around, but not where the difference is more than
    5 of its own. Weights are inverse variances :math:`V_s + k^2 * V_r` of the difference, found by
    the fit before; what the noise of the convolved image adds to the equations is taken off them;
    a penalty expects second differences of the taps of 0.02 of their sum. The background is that
    of the pixels without light, all over the frame.

    Where a variance is not told, its value in the sky is estimated from second differences of
    neighbours in the darker half of every place of 64 pixels, and made to agree with what the first
    fit leaves; how it rises with the light above the sky, in proportion, as that of photons does,
    is estimated from the residual of faint light. The noise must be white for the former; that of
    resampled images is better told.

    The sharper image is that whose autocorrelation, the median over places, is narrower.
    Decorrelation convolves the difference by a kernel of sum 1 of spectrum
    :math:`\sqrt{(V_s + s^2 V_r) / (V_s + |\hat k|^2 V_r)}` [3]_, with the sky's variances and the
    kernel of every place.

    References
    ----------
    .. [1] C. Alard and R. H. Lupton, "A method for optimal image subtraction", Astrophys. J.
       503 (1998) 325, doi:10.1086/305984.
    .. [2] C. Alard, "Image subtraction using a space-varying kernel", Astron. Astrophys. Suppl.
       144 (2000) 363-370, doi:10.1051/aas:2000214.
    .. [3] D. J. Reiss and R. H. Lupton, "Implementation of Image Difference Decorrelation", LSST
       Data Management Technical Note 21 (2016), https://dmtn-021.lsst.io.

    Examples
    --------
    A star that is new:

    >>> import numpy as np
    >>> from fastkernel import convolve, match_images, psf
    >>> rng = np.random.default_rng(0)
    >>> sky = np.zeros((150, 150))
    >>> sky.flat[rng.choice(sky.size, 200, replace=False)] = rng.uniform(500, 5000, 200)
    >>> reference = convolve(sky, psf.gaussian(15, 1.5), "same") + rng.standard_normal(sky.shape)
    >>> sky[40, 90] += 1000
    >>> science = convolve(sky, psf.gaussian(15, 2.0), "same") + rng.standard_normal(sky.shape)
    >>> match = match_images(science, reference, 11, degree=0)
    >>> match.direction, np.unravel_index(np.nanargmax(match.scores), sky.shape)
    ('reference', (np.int64(40), np.int64(90)))
    """
    run = Run(as_workers(workers), as_callback(callback))
    white = as_flag(decorrelate, "decorrelate")
    adapt = as_flag(adapt_degree, "adapt_degree")
    asked_direction = as_choice(direction, "direction", get_args(Direction))
    if isinstance(degree, bool | str) or degree not in range(_MOST_DEGREE + 1):
        msg = f"degree must be an integer from 0 to {_MOST_DEGREE}, got {degree!r}"
        raise ValueError(msg)
    level = None if background is None else as_degree(background)
    exposures = exposures_of(
        (science, reference),
        (science_mask, reference_mask),
        (science_variance, reference_variance),
        saturation,
    )
    if level is None:
        exposures = exposures[0].with_sky(), exposures[1].with_sky()
    widths = widths_of(*exposures)
    convolved = widths.sharper if asked_direction == "auto" else asked_direction
    shape = _shape(kernel_shape, widths, exposures[0].pixels.shape)
    asked = _Asked(shape, _basis(shape, widths.kernel_width()), int(degree), level, adapt)
    result, source = exposures if convolved == "reference" else exposures[::-1]
    fit = _fitted(source, result, asked, run)
    match = outcome(fit, convolved, widths, white=white, workers=run.workers)
    if run.progress is not None:
        run.progress(_STEPS, _STEPS)
    return match


def _shape(value: KernelShape, widths: Widths, image_shape: Shape) -> Shape:
    """Return the kernel's shape; with "auto", what the widths of the images ask for."""
    if isinstance(value, str):
        as_choice(value, "kernel_shape", ("auto",))
        most = min(_MOST, (min(image_shape) - 1) // 4)
        half = min(max(math.ceil(_REACH * widths.kernel_width()), _LEAST), most)
        return 2 * half + 1, 2 * half + 1
    shape = as_kernel_shape(value)
    refuse_larger_kernel("kernel_shape", shape, image_shape)
    return shape


def _basis(shape: Shape, width: float) -> FloatArray | None:
    """Return kernels of which the kernel is to be a sum; None where taps are as few."""
    sigmas = [max(width, 1.0) * sigma for sigma in _SIGMAS]
    columns = gaussian_polynomials(shape, sigmas, _DEGREES)
    if columns.shape[1] >= len(columns):
        return None
    left, values, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(left[:, values > _DEPENDENT * values[0]])


def _fitted(source: Exposure, result: Exposure, asked: _Asked, run: Run) -> Fit:
    """Fit, and fit again by what the last fit tells of noise, light and pixels that stick out."""
    models = [
        NoiseModel(variance_of_sky(one)) if one.variance is None else None
        for one in (source, result)
    ]
    noise = Noise(source, result, *models)
    spreads = [
        math.sqrt(float(np.median(v))) for v in (noise.of_source, noise.of_result(result.pixels))
    ]
    refuse_noise(source, noise.of_source)
    refuse_noise(result, noise.of_result(result.pixels))
    usable = ~around(result.bad, 1)
    chosen = usable & first_choice(list(zip((source, result), spreads, strict=True)))
    if np.count_nonzero(chosen) < _ENOUGH * asked.unknowns:
        chosen = usable
    weights, unit, sky = np.where(chosen, 1.0, 0.0), spreads[1] ** 2, local_sky(source)
    level = None
    for turn in range(_FITS):
        last = weights, unit, level
        field = _field(noise, *last, asked, run, turn)
        fit = _followed(field, noise, sky, run.workers)
        noise, level = fit.noise, fit.field.background
        good = np.isfinite(fit.residual) & usable & ~around(fit.out, MARGIN)
        chosen = good & fit.near_light
        if np.count_nonzero(chosen) < _ENOUGH * asked.unknowns:
            chosen = good
        weights, unit = np.zeros(chosen.shape), float(np.median(fit.variance[chosen]))
        weights[chosen] = unit / fit.variance[chosen]
    for degree in (0, asked.degree + 1) if asked.adapt else ():
        other = asked._replace(degree=degree)
        enough = np.count_nonzero(chosen) >= _ENOUGH * other.unknowns
        if degree == asked.degree or degree > _MOST_DEGREE or not enough:
            continue
        field = _field(noise, *last, other, run, _FITS + (degree > 0))
        tried = _followed(field, noise, sky, run.workers)
        if _gain(fit, tried, chosen) > 2 * (other.unknowns - asked.unknowns):
            return tried
    return fit


def _gain(fit: Fit, other: Fit, chosen: BoolArray) -> float:
    """Return by how much another fit lowers twice the negative log-likelihood of pixels."""
    scores = [one.residual[chosen] / np.sqrt(fit.variance[chosen]) for one in (fit, other)]
    squares = [float(np.sum(part**2)) for part in scores]
    # By the noise that there is, whatever was told of it.
    return (squares[0] - squares[1]) / robust_std(scores[0]) ** 2


def _field(
    noise: Noise,
    weights: FloatArray,
    unit: float,
    level: FloatArray | None,
    asked: _Asked,
    run: Run,
    turn: int,
) -> KernelField:
    """Fit the kernel with weights of pixels, the variance ``unit`` over the noise of each.

    Near light a background is hard to tell from the far wings of a kernel: where it is known, from
    the sky, it is not fitted.
    """
    result = noise.result.pixels
    if level is not None:
        result = result - background_image(level, result.shape, asked.kernel_shape)
    progress, lit = run.progress, weights > 0
    # The square of the scale, about.
    gain = float(np.sum(result[lit] ** 2) / np.sum(noise.source.pixels[lit] ** 2))
    rough = _ROUGHNESS**2 * gain * float(np.sum(weights))
    field = estimate_kernel_field(
        noise.source.pixels,
        result,
        asked.kernel_shape,
        degree=asked.degree,
        tile=_TILE,
        background=asked.background if level is None else None,
        ridge=("smooth", unit / rough),
        basis=asked.basis,
        weights=weights,
        source_mask=noise.source.bad,
        source_variance=noise.of_source,
        workers=run.workers,
        callback=progress and (lambda done, total: progress(*_steps(turn + done / total))),
    )
    return field if level is None else replace(field, background=level)


def _steps(fits: float) -> tuple[int, int]:
    """Return how many steps of how many are done after so many fits."""
    return round(_STEPS * fits / (_FITS + 2)), _STEPS


def _followed(field: KernelField, noise: Noise, sky: FloatArray, workers: int) -> Fit:
    """Return a fit with what it leaves, and the noise that agrees with this."""
    bad = noise.source.bad
    matched = field.predict(noise.source.pixels, source_mask=bad, workers=workers)
    light = matched - background_of(field) - float(field.scale_at(0, 0)) * sky
    residual = noise.result.pixels - matched
    noise = noise.calibrated(field, matched, residual, light, workers)
    of_source, of_result = noise.of_source, noise.of_result(matched)
    variance = field.variance(of_source, of_result, workers=workers)
    return with_background(Fit(field, residual, light, noise, of_source, of_result, variance))
