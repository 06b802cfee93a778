"""Restoration by Richardson-Lucy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from scipy.ndimage import distance_transform_edt

from fastkernel._images.checks import (
    as_callback,
    as_channels,
    as_count,
    as_flag,
    as_image,
    as_penalty,
    as_workers,
    float_dtype,
)
from fastkernel._loops import richardson_lucy as loops
from fastkernel._machine.tiles import Scratch, Tile
from fastkernel._typing import AnyArray, BorderOrUnknown, FloatArray, Noise, Progress, Shape
from fastkernel.restoration.arguments import (
    as_border,
    as_psfs,
    as_range,
    as_weights,
    computed_in,
    refuse_negative_pixels,
    refuse_negative_taps,
)
from fastkernel.restoration.blur import Blur, each_tile, trimmed
from fastkernel.restoration.cross_validation import cross_validated_alone
from fastkernel.restoration.noise import stored_variance, unevenness

# Share of the largest sensitivity below which a pixel beyond the frame stays as it starts: the
# data hardly see it, and in float32 transforms would leave it to rounding.
UNSEEN = 1e-3

# Least length of gradients that counts in full, as a share of the largest pixel.
_FLAT = 1e-6

# Noise is reckoned with so many times as found: less than there is would never be reached.
_MARGIN = 1.03


class _Reciprocal:
    """The reciprocal of the sensitivity, of which most tiles need but one number.

    Parameters
    ----------
    sensitivity : (M, N) array
        Overwritten.
    seen : (M, N) bool array
        Where it is used; 0 elsewhere.
    """

    def __init__(self, sensitivity: AnyArray, seen: AnyArray) -> None:
        self._whole = np.divide(1, sensitivity, out=sensitivity, where=seen)
        self._whole[~seen] = 0
        self._by_tile: dict[Tile, AnyArray] = {}

    def of(self, tile: Tile) -> AnyArray:
        """Return all reciprocals, or the one of a tile in which they differ by rounding alone."""
        found = self._by_tile.get(tile)
        if found is None:
            top, left, height, width = tile
            part = self._whole[top : top + height, left : left + width]
            low, high = part.min(), part.max()
            same = low > 0 and high - low <= 64 * np.finfo(part.dtype).eps * high
            found = self._by_tile[tile] = np.full((1, 1), part.mean()) if same else self._whole
        return found


class _Options(NamedTuple):
    """The tuning of `richardson_lucy`, checked."""

    num_iter: int
    acceleration: bool
    damping: float
    tol: float | None
    noise: float | Literal["poisson"] | None
    workers: int


class _Restoration:
    """The restoration of one channel: its images, and what an iteration does to their tiles.

    Parameters
    ----------
    image : (m, n) array
        Finite and not negative where it has weight.
    weights : (m, n) array, or None
        Finite, not negative, not all 0.
    psf : (p, q) float64 array
        Finite, not negative, not all 0.
    boundary : str
        A border rule, or "unknown".
    options : _Options
        The rest.
    """

    def __init__(
        self,
        image: AnyArray,
        weights: AnyArray | None,
        psf: FloatArray,
        boundary: str,
        options: _Options,
    ) -> None:
        dtype = float_dtype(image)
        # The PSF is taken out of the scale, and a power of two out of the data, exactly: nothing
        # overflows, and one floor serves data of any size.
        taps = psf / psf.max()
        flux = float(psf.max()) * float(taps.sum())
        counted = image if weights is None else np.where(weights > 0, image, 0)
        scale = 2.0 ** max(math.frexp(float(counted.max()))[1], -1000)
        self._options, self._unit = options, dtype.type(scale / flux)
        self._floor = dtype.type(np.finfo(dtype).eps)
        self._data = self._as_data(counted, 1 / scale, dtype)
        self._shares = None
        if weights is not None:
            # Only their ratios matter.
            self._shares = self._as_data(weights, 1 / weights.max(), dtype)
            self._data *= self._shares
        elif options.noise is not None:
            self._shares = np.ones(image.shape, dtype)
        shape = image.shape[0], image.shape[1]
        self._blur = Blur(trimmed(taps / taps.sum()), shape, boundary, dtype, options.workers)
        self._ratio = np.ones(shape, dtype) if self._shares is None else self._shares.copy()
        sensitivity = self._blur.sensitivity(self._ratio)
        seen = sensitivity > UNSEEN * sensitivity.max()
        self._inverse = _Reciprocal(sensitivity, seen)
        total = float(image.size if self._shares is None else self._shares.sum(dtype=float))
        mean = float(self._data.sum(dtype=float)) / total
        self._estimate = np.full(self._blur.grid, mean, dtype)
        self._point, self._next = self._estimate, np.empty(self._blur.grid, dtype)
        self._step = np.zeros(self._blur.grid if options.acceleration else (0, 0), dtype)
        if options.acceleration:
            self._point = self._estimate.copy()
        if options.noise == "poisson":
            self._target = total / (2 * scale)
        else:
            self._target = total * ((options.noise or 0.0) / scale) ** 2
        self._misfits: dict[Tile, float] = {}
        self._sums: dict[Tile, tuple[float, ...]] = {}

    @staticmethod
    def _as_data(image: AnyArray, factor: float, dtype: np.dtype[Any]) -> AnyArray:
        return np.multiply(image, factor, dtype=dtype, order="C", casting="unsafe")

    def _divide(self, blurred: AnyArray, shape: Shape, origin: Shape, tile: Tile) -> None:
        """Turn a part of the blurred point into the ratio of the data to it."""
        if self._options.noise is not None:
            self._misfits[tile] = self._misfit(blurred, origin, tile)
        loops.divide(blurred, shape, origin, self._data, self._floor)

    def _misfit(self, blurred: AnyArray, origin: Shape, tile: Tile) -> float:
        """Return what a tile, as far as it holds data, adds to the misfit."""
        (top, left, height, width), (m, n) = tile, self._data.shape
        height, width = min(height, m - top), min(width, n - left)
        if height <= 0 or width <= 0:
            return 0.0
        given = blurred, (top - origin[0], left - origin[1]), self._data, self._shares
        if self._options.noise == "poisson":
            floor = float(self._floor)
            return float(loops.poisson_misfit(*given, (top, left, height, width), floor))
        return float(loops.squared_misfit(*given, (top, left, height, width)))

    def _update(self, correlated: AnyArray, tile: Tile, scratch: Scratch) -> None:
        """Make a tile of the next estimate of the correlated ratios."""
        if self._options.damping:
            lines = scratch.array("lines", (3, tile[3] + 1))
            loops.damp(self._point, self._options.damping, _FLAT, tile, lines, correlated)
        given = correlated, self._point, self._inverse.of(tile), tile
        measured = self._options.acceleration or bool(self._options.tol)
        self._sums[tile] = loops.update(*given, measured, self._step, self._next)

    def run(self, progress: Callable[[int], None]) -> AnyArray:
        """Iterate, and return the restored image."""
        options, before = self._options, 0.0
        for done in range(1, options.num_iter + 1):
            if self._blur.in_one_go:
                self._blur.round_trip(self._point, self._divide, self._update)
            else:
                self._blur.forward(self._point, self._divide, self._ratio)
            if options.noise is not None and math.fsum(self._misfits.values()) <= self._target:
                self._estimate = self._point
                break
            if not self._blur.in_one_go:
                self._blur.backward(self._ratio, self._update)
            # Sums that are rounded once do not depend on the order of the tiles.
            squares, size, product = map(math.fsum, zip(*self._sums.values(), strict=True))
            self._estimate, self._next = self._next, self._estimate
            progress(done)
            if done == options.num_iter or (options.tol and squares <= options.tol**2 * size):
                break
            if not options.acceleration:
                self._point = self._estimate
                continue
            self._extrapolate(min(max(product / before, 0.0), 1.0) if before > 0 else 0.0)
            before = squares
        np.multiply(self._estimate[self._blur.frame], self._unit, out=self._ratio)
        return self._ratio

    def _extrapolate(self, share: float) -> None:
        """Move the point beyond the estimate, by a share of the way from the one before."""
        factor = self._data.dtype.type(share)

        def act(tile: Tile, scratch: Scratch) -> None:  # noqa: ARG001
            loops.extrapolate(self._estimate, self._next, factor, tile, self._point)

        each_tile(act, self._blur.grid, self._options.workers)


def _noise_of(
    image: AnyArray, weights: AnyArray | None, psf: FloatArray, workers: int
) -> float | None:
    """Return the noise's standard deviation, with a margin; None where there is none."""
    if weights is not None and not weights.all():
        # Holes would be taken for noise: the nearest pixel that counts fills them.
        nearest = distance_transform_edt(weights == 0, return_distances=False, return_indices=True)
        image = image[tuple(nearest)]
    unit = 2.0 ** math.frexp(float(image.max()))[1]
    if not 0 < unit < math.inf:
        return None
    dtype = float_dtype(image)
    scaled = np.divide(image, unit, dtype=np.float64).astype(dtype)
    # Whole numbers are no longer known by their values; squares of far units are no numbers.
    near = 1e-30 < unit < 1e30
    stored = stored_variance(image) / unit**2 if near else stored_variance(scaled)
    found = cross_validated_alone(scaled, psf / psf.max(), "unknown", workers, stored=stored)
    variance = found.noise * unevenness(scaled)
    return _MARGIN * unit * math.sqrt(variance) if variance > 0 else None


def richardson_lucy(
    image: ArrayLike,
    psf: ArrayLike,
    num_iter: int = 50,
    *,
    acceleration: bool = True,
    boundary: BorderOrUnknown = "unknown",
    weights: ArrayLike | None = None,
    damping: float = 0.0,
    tol: float | None = None,
    noise: Noise | None = "auto",
    clip: tuple[float | None, float | None] | None = None,
    channel_axis: int | None = None,
    dtype: DTypeLike | None = None,
    workers: int | None = None,
    callback: Progress | None = None,
) -> AnyArray:
    r"""Restore a blurred image of nonnegative pixels by Richardson-Lucy iterations.

    Parameters
    ----------
    image : (m, n) array_like of real numbers
        The blurred image, in any unit proportional to light; nonnegative. Gamma-encoded values
        (sRGB) should be decoded first.
    psf : (p, q) array_like of real numbers
        What a point became: nonnegative, no larger than the image, of any sum. Of shape
        (p, q) for all channels, or with an axis of channels.
    num_iter : int, optional
        Most iterations; ``noise`` ends them earlier, since they sharpen noise too. All are done
        where there is none, or with ``noise=None``.
    acceleration : bool, optional
        Whether to extrapolate between iterations [3]_, which saves most of them.
    boundary : str, optional
        What stands beyond the frame. "unknown": an image that is restored with the rest, as far
        as the PSF reaches, and not returned [4]_. Otherwise a border rule, as in `convolve`.
    weights : (m, n) array_like of real numbers, optional
        How much a pixel counts, at least 0: 0 for a bad one, which may then hold anything. Of the
        shape of a channel, or of ``image``. All count alike when None.
    damping : float, optional
        Strength of total variation's damping [5]_, 0, for none, to below 1/4; about 0.002 to 0.02
        for noisy images.
    tol : float, optional
        Stop when the step of an iteration is at most this share of the estimate's size (root
        mean squares). None leaves the end to ``noise`` and ``num_iter``.
    noise : float, "auto", "poisson" or None, optional
        Stop at the first estimate whose blur fits the image as well as noise allows. A number is
        the noise's standard deviation, in units of ``image``: stop when the root mean square of
        the residual is no more. "auto" estimates it, see Notes. None never stops.
        "poisson", for an image of counts: stop when twice the mean Kullback-Leibler divergence is
        no more than 1 [6]_.
    clip, channel_axis, dtype, workers : as in `wiener`
    callback : callable, optional
        Called as ``callback(done, total)`` after every iteration, with those of all channels in
        ``total``; what it raises ends the work.

    Returns
    -------
    array of image's shape
        Of ``dtype``; in units of ``image`` over those of ``psf``'s sum. Nonnegative.

    Raises
    ------
    TypeError
        If an array is complex, masked or not of numbers, or a number or ``dtype`` is none.
    ValueError
        If a pixel that has weight is negative or not finite; if ``psf`` is negative somewhere,
        not finite, zero everywhere or larger than the image; if the number of channels or the
        shape of ``weights`` does not fit, or another argument is out of its range.

    See Also
    --------
    wiener : One linear step, faster, for any pixels.

    Notes
    -----
    With ``H`` the blur into the frame, ``y`` the image and ``w`` the weights, an iteration
    [1]_ [2]_ is

    .. math:: x \leftarrow \frac{x}{H^T w}\, H^T \frac{w\, y}{H x}

    from a flat image of the data's mean. It keeps the light, ``sum(w * H x) = sum(w * y)``, and
    leads to the largest Poisson likelihood. Where :math:`H^T w` is below a thousandth of its
    largest value, which is beyond the frame or amid pixels without weight, ``x`` stays as it
    starts. Damping divides by :math:`1 - \lambda\, \mathrm{div} (\nabla x / |\nabla x|)` too,
    gradients below :math:`8 \lambda x` counting less, which keeps flat places flat. The
    accelerated iteration starts from :math:`x_k + \alpha (x_k - x_{k-1})`, where :math:`\alpha` is
    the ratio of successive steps' products, between 0 and 1.

    The noise of "auto" is what cross-validation finds, as in `wiener`, where it varies over the
    image its mean; or at least that of rounding to steps and of the blocks of JPEG, whose noise is
    not white; and 3 percent more. It errs to the side of stopping early: of photographs with noise
    of 0.5 to 5 percent, or of JPEG's, the answer was nearer to the truth than the image in all
    cases; often farther than with a number of iterations chosen by the truth.

    An iteration takes the time of two convolutions. For all but small PSFs a tile goes through
    both, and what stands between them, while it is in the cache; by transforms, whose error is
    some 5e-7 of the largest pixels nearby in float32: of images with a wide range of brightness
    pass float64. With the answer it takes five and a half images of the
    returned dtype, two more when accelerated, and one more with ``weights`` or ``noise``.

    References
    ----------
    .. [1] W. H. Richardson, "Bayesian-based iterative method of image restoration", J. Opt. Soc.
       Am. 62 (1972) 55-59, doi:10.1364/JOSA.62.000055.
    .. [2] L. B. Lucy, "An iterative technique for the rectification of observed distributions",
       Astron. J. 79 (1974) 745-754, doi:10.1086/111605.
    .. [3] D. S. C. Biggs and M. Andrews, "Acceleration of iterative image restoration
       algorithms", Appl. Opt. 36 (1997) 1766-1775, doi:10.1364/AO.36.001766.
    .. [4] M. Bertero and P. Boccacci, "A simple method for the reduction of boundary effects in
       the Richardson-Lucy approach to image deconvolution", Astron. Astrophys. 437 (2005)
       369-374, doi:10.1051/0004-6361:20052717.
    .. [5] N. Dey et al., "Richardson-Lucy algorithm with total variation regularization for 3D
       confocal microscope deconvolution", Microsc. Res. Tech. 69 (2006) 260-266,
       doi:10.1002/jemt.20294.
    .. [6] M. Bertero et al., "A discrepancy principle for Poisson data", Inverse Problems 26
       (2010) 105004, doi:10.1088/0266-5611/26/10/105004.

    Examples
    --------
    >>> import numpy as np
    >>> from fastkernel import convolve, richardson_lucy
    >>> star = np.zeros((9, 9))
    >>> star[4, 4] = 1
    >>> psf = [[0, 1, 0], [1, 4, 1], [0, 1, 0]]
    >>> bool(richardson_lucy(convolve(star, psf, "same"), psf, noise=None)[4, 4] > 0.99)
    True
    """
    given = computed_in(as_image(image, "image", 2 if channel_axis is None else 3), dtype)
    channels = given[None] if channel_axis is None else as_channels(given, channel_axis)
    shape, n = (channels.shape[1], channels.shape[2]), len(channels)
    psfs = as_psfs(psf, shape, channel_axis, n)
    shares = as_weights(weights, shape, channel_axis, n)
    rule = as_border(boundary, ("unknown",))
    by_name = isinstance(noise, str) and noise in ("auto", "poisson")
    known = None if noise is None or by_name else as_penalty(noise, "noise")
    options = _Options(
        as_count(num_iter, "num_iter"),
        as_flag(acceleration, "acceleration"),
        as_penalty(damping, "damping"),
        None if tol is None else as_penalty(tol, "tol"),
        "poisson" if noise == "poisson" else known,
        as_workers(workers),
    )
    if options.damping >= 0.25:
        msg = f"damping must be below 0.25, where it can turn the sign of a pixel, got {damping!r}"
        raise ValueError(msg)
    limits = None if clip is None else as_range(clip, "clip")
    callback = as_callback(callback)
    for taps in psfs:
        refuse_negative_taps(taps)
    for plane, share in zip(channels, shares, strict=True):
        refuse_negative_pixels(plane, share)
    found: list[AnyArray] = []

    def report(done: int) -> None:
        if callback is not None:
            callback(len(found) * options.num_iter + done, n * options.num_iter)

    for plane, share, taps in zip(channels, shares, psfs, strict=True):
        if noise == "auto":
            options = options._replace(noise=_noise_of(plane, share, taps, options.workers))
        found.append(_Restoration(plane, share, taps, rule, options).run(report))
    if limits is not None:
        for plane in found:
            np.clip(plane, *limits, out=plane)
    return found[0] if channel_axis is None else np.stack(found, axis=channel_axis)
