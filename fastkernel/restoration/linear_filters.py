"""Restoration by one division of spectra: the inverse filter and Wiener's."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastkernel._images.checks import (
    as_boundary,
    as_channels,
    as_choice,
    as_image,
    as_penalty,
    as_workers,
    float_dtype,
    refuse_non_finite,
)
from fastkernel._images.windows import centre
from fastkernel._loops import restoration as loops
from fastkernel._machine.tiles import Scratch
from fastkernel._machine.transforms import Rows, Spectra, columns_of, pair_spectra, rows_of, stages
from fastkernel._typing import AnyArray, FloatArray, Progress, Shape
from fastkernel.restoration.arguments import as_psfs, as_range, refuse_zero_sum
from fastkernel.restoration.framing import (
    Regulariser,
    even,
    extended,
    fading_window,
    in_corner,
    is_whole,
    laplacian,
    tapered,
)
from fastkernel.restoration.unknown_border import restore_unknown

BORDERS = ("circular", "symmetric", "edge_taper", "unknown")

# The least noise that cross-validation reckons with, as a share of the image's variance, and the
# variance that rounding to whole numbers adds, which under a wide blur is not white, like detail.
_FLOOR, _ROUNDING = 1e-5, 1 / 12

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


class _Framed(NamedTuple):
    """An image as a border rule continues it."""

    rows: Rows
    frame: Shape


def _framed(image: AnyArray, psf: FloatArray, border: str, workers: int) -> _Framed:
    """Choose the frame of an image, and what to read in it."""
    dtype = float_dtype(image)
    if border == "symmetric":
        return _Framed(*extended(image, (psf.shape[0], psf.shape[1])))
    if border == "edge_taper":
        image = tapered(image, psf, dtype, workers)
    frame = image.shape[0], image.shape[1]
    return _Framed(rows_of(image, frame), frame)


def _entered(
    opened: ExitStack,
    image: AnyArray,
    framed: _Framed,
    psf: FloatArray,
    workers: int,
    progress: Progress | None,
) -> Spectra:
    """Borrow the transforms of an image and a PSF; refuse pixels that are not finite."""
    (rows, frame), dtype, room = framed, float_dtype(image), len(image)
    taps = in_corner(psf)
    spectra = opened.enter_context(
        pair_spectra(rows, taps, frame, dtype, workers, progress, room=room)
    )
    if not math.isfinite(spectra.energy):
        refuse_non_finite("image", image)
    return spectra


def _gcv_balance(
    problem: Spectra, image: AnyArray, psf: FloatArray, border: str, progress: Progress | None
) -> float:
    r"""Return the balance of least generalised cross-validation.

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

    def octave_of(parts: Sequence[FloatArray]) -> float:
        found = parts[0]
        for part in parts[1:]:
            found += part
        # A flat image leaves nothing but rounding.
        least = (_FLAT * np.finfo(dtype).eps) ** 2 * m * n * problem.energy
        floors = least, (_FLOOR, _ROUNDING * noise * is_whole(image))
        bins = np.empty((4, len(found)))
        return float(
            loops.least_cross_validation(
                found, _PER_OCTAVE, _OCTAVES, *floors, largest**2, _CAUTION, bins
            )
        )

    share = max(1, len(counts) // _COLUMNS)
    octave = octave_of(problem.sample(work, share, progress))
    if share > 1 and octave == -math.inf:  # all there is stands between the columns
        octave = octave_of(problem.columns(work))
    return float(2.0 ** (octave - middle))


def _divide(
    problem: Spectra,
    penalty: Regulariser,
    amount: float,
    origin: Shape,
    out: AnyArray,
    progress: Iterator[Progress | None],
) -> None:
    """Divide the columns, and transform back."""

    def work(spectra: Sequence[AnyArray], columns: slice, _: Scratch) -> None:
        loops.filter_columns(*spectra, penalty.across[columns], penalty.down, amount)

    problem.columns(work, next(progress), back=(origin[0], len(out)))
    problem.invert(out, origin[1], next(progress))


class _Work(NamedTuple):
    """The channels of a call, checked."""

    channels: AnyArray
    psfs: Sequence[FloatArray]
    boundary: str
    workers: int


def _work(
    image: ArrayLike,
    psf: ArrayLike,
    boundary: str,
    channel_axis: int | None,
    workers: int | None,
) -> _Work:
    """Check what every filter takes."""
    given = as_image(image, "image", 2 if channel_axis is None else 3)
    channels = given[None] if channel_axis is None else as_channels(given, channel_axis)
    shape = channels.shape[1], channels.shape[2]
    psfs = as_psfs(psf, shape, channel_axis, len(channels))
    rule = boundary if boundary in BORDERS else as_boundary(boundary)
    if rule == "edge_taper":
        for taps in psfs:
            refuse_zero_sum(taps)
    return _Work(channels, psfs, as_choice(rule, "boundary", BORDERS), as_workers(workers))


def _cross_validated(
    image: AnyArray,
    psf: FloatArray,
    border: str,
    workers: int,
    progress: Progress | None = None,
) -> float:
    """Return the balance for one channel, where no division follows."""
    framed = _framed(image, psf, "symmetric" if border == "unknown" else border, workers)
    steps = stages(progress, 2)
    with ExitStack() as opened:
        problem = _entered(opened, image, framed, psf, workers, next(steps))
        return _gcv_balance(problem, image, psf, border, next(steps))


def _restored(
    work: _Work,
    penalty: Callable[[Shape], Regulariser],
    strength: float | None,
    clip: tuple[float | None, float | None] | None,
    channel_axis: int | None,
    callback: Progress | None,
) -> AnyArray:
    """Restore every channel by a division of a strength, cross-validated where it is None."""
    limits = None if clip is None else as_range(clip, "clip")
    found = np.empty(work.channels.shape, float_dtype(work.channels))
    runs = (1 if work.boundary == "unknown" else 3) + (strength is None)
    progress = stages(callback, runs * len(found))
    for channel, psf, out in zip(work.channels, work.psfs, found, strict=True):
        if work.boundary == "unknown":
            amount = strength
            if amount is None:
                amount = _cross_validated(channel, psf, "unknown", work.workers, next(progress))
            restore_unknown(channel, psf, penalty, amount, out, work.workers, next(progress))
        else:
            i, j = centre((psf.shape[0], psf.shape[1]))
            with ExitStack() as opened:
                framed = _framed(channel, psf, work.boundary, work.workers)
                given = channel, framed, psf, work.workers, next(progress)
                problem = _entered(opened, *given)
                amount = strength
                if amount is None:
                    amount = _gcv_balance(problem, channel, psf, work.boundary, next(progress))
                _divide(problem, penalty(problem.frame), amount, (-i, -j), out, progress)
        if limits is not None:
            np.clip(out, *limits, out=out)
    return found[0] if channel_axis is None else np.moveaxis(found, 0, channel_axis)


def inverse_filter(
    image: ArrayLike,
    psf: ArrayLike,
    epsilon: float = 1e-5,
    *,
    boundary: str = "circular",
    guarded: bool = False,
    clip: tuple[float | None, float | None] | None = None,
    channel_axis: int | None = None,
    workers: int | None = None,
    callback: Progress | None = None,
) -> AnyArray:
    r"""Undo a blur by dividing transforms, for images without noise.

    Parameters
    ----------
    image : (m, n) array_like of real numbers
        The blurred image, in any unit, finite.
    psf : (p, q) array_like of real numbers
        What a point became, no larger than the image. Of shape (p, q) for all channels, or with
        an axis of channels.
    epsilon : float, optional
        Added to the transform of the PSF, or in its square to its power; in units of ``psf``'s
        sum, at least 0.
    boundary : {"circular", "symmetric", "edge_taper", "unknown"}, optional
        What stands beyond the frame, as in `wiener`; "unknown" only when ``guarded``.
    guarded : bool, optional
        Which division: see Notes.
    clip, channel_axis, workers, callback : optional
        As in `wiener`.

    Returns
    -------
    array of image's shape
        float32 for a float32 image, else float64; in units of ``image`` over those of ``psf``'s
        sum.

    Raises
    ------
    TypeError, ValueError
        As `wiener` does, and if ``epsilon`` is negative, or ``boundary`` is "unknown" and the
        division not guarded.

    See Also
    --------
    wiener : For images with noise, which includes the rounding to 8 bits.

    Notes
    -----
    With transforms taken about the centre tap,

    .. math:: X = \frac{Y}{H + \epsilon} \qquad\text{or, guarded,}\qquad
              X = \frac{\overline{H}\, Y}{|H|^2 + \epsilon^2}

    and 0 where the divisor is 0. The first exactly undoes a blur by ``psf`` with ``epsilon`` added
    to its centre tap. It multiplies noise by up to :math:`1 / |H + \epsilon|`, without a bound
    where ``H`` comes close to :math:`-\epsilon`; the guarded form by no more than
    :math:`1 / 2 \epsilon`. Rounding counts as noise: use float64.

    The guarded form is the least of :math:`\|h * x - y\|^2 + \epsilon^2 \|x\|^2`, which is what
    "unknown" solves for pixels inside the frame, with the iterations that `wiener` tells of. A
    small ``epsilon`` needs more than it takes: they end before noise is sharpened in full.

    Examples
    --------
    >>> import numpy as np
    >>> from fastkernel import convolve
    >>> image = np.random.default_rng(0).random((8, 9))
    >>> psf = np.array([[0, 0.1, 0], [0.1, 0.6, 0.1], [0, 0.1, 0]])
    >>> blurred = convolve(image, psf, "same", "circular")
    >>> bool(np.allclose(inverse_filter(blurred, psf, 0), image))
    True
    """
    work = _work(image, psf, boundary, channel_axis, workers)
    epsilon = as_penalty(epsilon, "epsilon")
    if work.boundary == "unknown" and not guarded:
        msg = (
            "boundary='unknown' is solved by least squares, for which there is no plain division; "
            "pass guarded=True, or take another boundary"
        )
        raise ValueError(msg)
    if not guarded:
        for taps in work.psfs:
            taps[centre((taps.shape[0], taps.shape[1]))] += epsilon
    return _restored(work, even, epsilon**2 if guarded else 0.0, clip, channel_axis, callback)


def wiener(
    image: ArrayLike,
    psf: ArrayLike,
    balance: float | str = "gcv",
    *,
    boundary: str = "symmetric",
    clip: tuple[float | None, float | None] | None = None,
    channel_axis: int | None = None,
    workers: int | None = None,
    callback: Progress | None = None,
) -> AnyArray:
    r"""Restore a blurred, noisy image by one linear filter.

    Parameters
    ----------
    image : (m, n) array_like of real numbers
        The blurred image, in any unit, finite.
    psf : (p, q) array_like of real numbers
        What a point became, no larger than the image. Of shape (p, q) for all channels, or with
        an axis of channels.
    balance : float or "gcv", optional
        Strength of the prior, at least 0: more is smoother. "gcv" takes, for every channel, that
        of least generalised cross-validation [2]_ [3]_, which needs no knowledge of the noise
        but that it is white. It reckons with at least 0.3 percent of the image's standard
        deviation: give a number for a blur without noise.
    boundary : {"circular", "symmetric", "edge_taper", "unknown"}, optional
        What stands beyond the frame: the image again, for blurs that were made so; its mirror
        image, which over two reaches of the PSF turns into that of the other side; the image
        again, after its edges turned into their own blur; or nothing that is assumed, which is
        best and takes longest. See Notes.
    clip : (float, float), optional
        Lowest and highest pixel of the answer, None where open. Nothing is clipped by default.
    channel_axis : int, optional
        The axis of a 3-dimensional image that holds channels.
    workers : int, optional
        Threads to use, every usable core when None. The answer is the same bit for bit.
    callback : callable, optional
        Called as ``callback(done, total)``; what it raises ends the work.

    Returns
    -------
    array of image's shape
        float32 for a float32 image, else float64; in units of ``image`` over those of ``psf``'s
        sum. Pixels can be negative.

    Raises
    ------
    TypeError
        If an array is complex, masked or not of numbers, or ``balance`` is no number.
    ValueError
        If a pixel or tap is not finite, ``psf`` is zero everywhere, larger than the image or, with
        "edge_taper", of sum 0, the number of channels does not fit, or another argument is out of
        its range.

    See Also
    --------
    gcv_balance : The balance alone.
    richardson_lucy : Slower; for light, which is nonnegative.

    Notes
    -----
    .. math:: X = \frac{\overline{H}\, Y}{|H|^2 + \lambda\, |L|^2}

    with the transform ``L`` of the Laplacian, 4 amid -1 [1]_: the least of
    :math:`\|h * x - y\|^2 + \lambda \|l * x\|^2`. Memory beyond the answer is about the image's in
    the precision of the answer, with its margins; twice that with "edge_taper". Cross-validation
    sees the image fade at the frame, and of a wide one a sample of 256 columns of the transform or
    more.

    A border rule is a guess. Where a PSF passes nothing at all of some frequencies, as a disk or
    a straight motion does, and the noise is low, its error rings far into the image, which the
    balance does not take into account. The edge taper [4]_ makes the image periodic: a pixel at the
    frame is replaced by its circular blur, and inside, where the autocorrelation of the PSF's sums
    does not reach, nothing changes. What stands within a PSF of the frame stays blurred.

    With "unknown" the restored image reaches beyond the frame, and only pixels inside it have to
    be explained [5]_ [6]_: the least of :math:`\|M (h * x) - y\|^2 + \lambda \|l * x\|^2`, where
    ``M`` keeps the frame. Conjugate gradients find it, preconditioned by the division above, on a
    torus that is larger by two reaches of the PSF; they start from the answer for "symmetric",
    and stop at a residual of a hundredth of that one's, or after 200 iterations. A photograph
    takes from 70 on, more for less noise, of two transforms each: fifty to two hundred times as
    long as a division. Memory is six times the image's with its margins.

    References
    ----------
    .. [1] B. R. Hunt, "The application of constrained least squares estimation to image
       restoration by digital computer", IEEE Trans. Comput. C-22 (1973) 805-812,
       doi:10.1109/TC.1973.5009169.
    .. [2] G. H. Golub, M. Heath and G. Wahba, "Generalized cross-validation as a method for
       choosing a good ridge parameter", Technometrics 21 (1979) 215-223,
       doi:10.1080/00401706.1979.10489751.
    .. [3] N. P. Galatsanos and A. K. Katsaggelos, "Methods for choosing the regularization
       parameter and estimating the noise variance in image restoration and their relation",
       IEEE Trans. Image Process. 1 (1992) 322-336, doi:10.1109/83.148606.
    .. [4] "edgetaper: taper discontinuities along image edges", MATLAB Image Processing Toolbox,
       https://www.mathworks.com/help/images/ref/edgetaper.html.
    .. [5] S. J. Reeves, "Fast image restoration without boundary artifacts", IEEE Trans. Image
       Process. 14 (2005) 1448-1453.
    .. [6] M. S. C. Almeida and M. A. T. Figueiredo, "Deconvolving images with unknown boundaries
       using the alternating direction method of multipliers", IEEE Trans. Image Process. 22 (2013)
       3074-3086.

    Examples
    --------
    >>> import numpy as np
    >>> from fastkernel import convolve
    >>> image = np.kron(np.arange(16.0).reshape(4, 4) % 5, np.ones((16, 16)))
    >>> psf = np.ones((5, 5)) / 25
    >>> noise = 0.01 * np.random.default_rng(0).standard_normal((64, 64))
    >>> blurred = convolve(image, psf, "same", "symmetric") + noise
    >>> bool(np.square(wiener(blurred, psf) - image).mean() < np.square(blurred - image).mean() / 4)
    True
    """
    work = _work(image, psf, boundary, channel_axis, workers)
    chosen = None if isinstance(balance, str) else as_penalty(balance, "balance")
    if chosen is None:
        as_choice(balance, "balance", ("gcv",))
    return _restored(work, laplacian, chosen, clip, channel_axis, callback)


def gcv_balance(
    image: ArrayLike,
    psf: ArrayLike,
    *,
    boundary: str = "symmetric",
    workers: int | None = None,
) -> float:
    """Return the balance that `wiener` takes for "gcv".

    Parameters
    ----------
    image, psf, boundary, workers : as in `wiener`
        Without channels.

    Returns
    -------
    float
        In squared units of ``psf``'s sum. 0 for a flat image, of which nothing can be told.

    Raises
    ------
    TypeError, ValueError
        As `wiener` does.

    Notes
    -----
    For one balance in many images, or in all tiles of one: that of a part is nearly that of the
    whole.

    Examples
    --------
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).standard_normal((64, 64))
    >>> gcv_balance(noise, np.ones((3, 3)) / 9) > 1
    True
    """
    work = _work(image, psf, boundary, None, workers)
    return _cross_validated(work.channels[0], work.psfs[0], work.boundary, work.workers)
