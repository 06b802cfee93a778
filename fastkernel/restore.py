"""Restoration by one division of spectra: the inverse filter and Wiener's."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.fft import next_fast_len
from scipy.optimize import minimize_scalar

from fastkernel._borders import source_index
from fastkernel._checks import (
    as_boundary,
    as_channels,
    as_choice,
    as_image,
    as_penalty,
    as_workers,
    refuse_non_finite,
)
from fastkernel._loops import restoration as loops
from fastkernel._restore_checks import as_psfs, as_range
from fastkernel._tiles import Scratch
from fastkernel._typing import AnyArray, FloatArray, Progress, Shape
from fastkernel._windows import centre
from fastkernel.transforms import (
    Rows,
    RowSpectra,
    invert_rows,
    row_spectra,
    rows_of,
    stages,
    transform_columns,
)

BORDERS = ("circular", "symmetric")

# The margin of "symmetric", in reaches of the PSF.
_REACHES = 2

# The least noise that cross-validation reckons with, as a share of the image's variance: about
# the rounding of a photograph to 8 bits, which under a wide blur is not white, like detail.
_FLOOR = 1e-5

# Bins of the ratio of penalty to power, about that of a PSF of sum 1: a bin's ratio is wrong by
# 2 percent at most, which a balance can be off by without notice.
_OCTAVES, _PER_OCTAVE = 64, 16


class _Margin(NamedTuple):
    """A line's mirror images beyond both ends, and how one turns into the other."""

    after: AnyArray
    before: AnyArray
    share: FloatArray

    def blend(self, after: AnyArray, before: AnyArray, axis: int) -> AnyArray:
        """Return the margin: the continuation that fades, plus that of the other end."""
        share = self.share[:, None] if axis == 0 else self.share
        return np.asarray((1 - share) * after + share * before)


def _margin(length: int, taps: int) -> _Margin:
    """Return the margin that leads from a line's end back to its beginning."""
    size = int(next_fast_len(length + max(8, _REACHES * (taps - 1)), real=True)) - length
    share = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, size + 1) / (size + 1))
    after = source_index(length, length + size, length, "symmetric")
    return _Margin(after, source_index(-size, 0, length, "symmetric"), share)


def _extended(image: AnyArray, kernel_shape: Shape) -> tuple[Rows, Shape]:
    """Return an image with margins below and to the right, and its shape."""
    (m, n), (p, q) = image.shape, kernel_shape
    rows, cols = _margin(m, p), _margin(n, q)
    frame = m + rows.share.size, n + cols.share.size

    def read(top: int, out: AnyArray) -> None:
        inside = min(max(m - top, 0), len(out))
        if inside:
            np.copyto(out[:inside, :n], image[top : top + inside], casting="unsafe")
        if inside < len(out):
            part = slice(top + inside - m, top + len(out) - m)
            margin = _Margin(rows.after[part], rows.before[part], rows.share[part])
            after, before = (image[index].astype(out.dtype) for index in margin[:2])
            out[inside:, :n] = margin.blend(after, before, axis=0)
        out[:, n:] = cols.blend(out[:, cols.after], out[:, cols.before], axis=1)

    return Rows(read, frame[0]), frame


def _windowed(image: AnyArray) -> tuple[Rows, Shape]:
    """Return an image that fades to nothing at its frame, and the frame to transform it in."""
    m, n = image.shape
    mean = float(image.mean(dtype=float))
    down, across = (
        0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1, k + 1) / (k + 1)) for k in image.shape
    )

    def read(top: int, out: AnyArray) -> None:
        out[:, n:] = 0
        rows = slice(top, top + len(out))
        np.subtract(image[rows], mean, out=out[:, :n], dtype=out.dtype, casting="unsafe")
        out[:, :n] *= (down[rows, None] * across).astype(out.dtype)

    return Rows(read, m), (int(next_fast_len(m, real=True)), int(next_fast_len(n, real=True)))


class _Regulariser(NamedTuple):
    """A penalty of frequencies, ``(across + down) ** 2``."""

    across: FloatArray
    down: FloatArray


def _laplacian(frame: Shape) -> _Regulariser:
    """Return the transform of the Laplacian, 4 amid -1."""
    (m, n) = frame
    across = 2 - 2 * np.cos(2 * np.pi * np.arange(n // 2 + 1) / n)
    return _Regulariser(across, 2 - 2 * np.cos(2 * np.pi * np.arange(m) / m))


def _even(frame: Shape) -> _Regulariser:
    """Return a penalty that is the same at every frequency."""
    return _Regulariser(np.zeros(frame[1] // 2 + 1), np.ones(frame[0]))


class _Problem(NamedTuple):
    """An image and a PSF, their rows transformed."""

    image: RowSpectra
    psf: RowSpectra
    workers: int

    def columns(
        self,
        work: Callable[[Sequence[AnyArray], slice, Scratch], Any],
        progress: Progress | None,
        back: tuple[int, int] | None = None,
    ) -> list[Any]:
        """Call a function of the columns' spectra, as `transform_columns` does."""
        pair = [self.image, self.psf]
        return transform_columns(pair, work, self.workers, progress, back=back)


def _problem(
    image: AnyArray, psf: FloatArray, border: str, workers: int, progress: Progress | None
) -> _Problem:
    """Transform the rows; refuse pixels that are not finite."""
    dtype = np.dtype(np.float32 if image.dtype == np.float32 else np.float64)
    frame = image.shape[0], image.shape[1]
    rows = rows_of(image, frame)
    if border == "symmetric":
        rows, frame = _extended(image, (psf.shape[0], psf.shape[1]))
    elif border == "faded":
        rows, frame = _windowed(image)
    spectra = row_spectra(rows, frame, dtype, workers, progress, room=image.shape[0])
    if not math.isfinite(spectra.energy):
        refuse_non_finite("image", image)
    taps = rows_of(psf, frame, count=len(psf))
    return _Problem(spectra, row_spectra(taps, frame, dtype, workers), workers)


def _gcv_balance(problem: _Problem, size: float, progress: Progress | None) -> float:
    r"""Return the balance of least generalised cross-validation.

    The filter leaves of a frequency the share :math:`r = \lambda\rho / (1 + \lambda\rho)`, which
    depends on the ratio ``rho`` of penalty to power alone: so one pass over the spectrum sorts
    energies by ratio, and the score :math:`\sum |Y|^2 r^2 / (\sum r)^2` of any balance is a sum
    over the bins.

    Parameters
    ----------
    problem : _Problem
        The image, faded at the frame where it is not circular, and the PSF.
    size : float
        The largest that the PSF's transform can be.
    progress : callable, optional
        Called as ``progress(done, total)``.
    """
    penalty, n = _laplacian(problem.image.frame), problem.image.frame[1]
    counts = np.full(n // 2 + 1, 2.0)
    counts[0] = 1
    if n % 2 == 0:
        counts[-1] = 1
    centre = -round(2 * math.log2(size))
    first, bins = centre - _OCTAVES, 2 * _OCTAVES * _PER_OCTAVE

    def work(spectra: Sequence[AnyArray], columns: slice, _: Scratch) -> FloatArray:
        found = np.zeros((2, bins))
        sides = penalty.across[columns], penalty.down
        loops.add_by_ratio(*spectra, *sides, counts[columns], float(first), _PER_OCTAVE, found)
        return found

    found = np.sum(problem.columns(work, progress), axis=0)
    used = np.flatnonzero(found[1])
    energy, number = found[:, used]
    if not energy.any():
        return 0.0
    energy = energy + _FLOOR * energy.sum() / number.sum() * number
    ratio = 2.0 ** ((used + 0.5) / _PER_OCTAVE - _OCTAVES)

    def score(octave: float) -> float:
        left = 1 / (1 + 1 / (2.0**octave * ratio))
        return float((energy * left**2).sum() / (number * left).sum() ** 2)

    scores = [score(octave) for octave in range(-_OCTAVES, _OCTAVES + 1)]
    best = int(np.argmin(scores)) - _OCTAVES
    found_octave = minimize_scalar(score, bounds=(best - 1, best + 1), method="bounded").x
    return float(2.0 ** (found_octave - centre))


def _divide(
    problem: _Problem,
    penalty: _Regulariser,
    amount: float,
    origin: Shape,
    out: AnyArray,
    progress: Iterator[Progress | None],
) -> None:
    """Divide the columns, and transform back."""

    def work(spectra: Sequence[AnyArray], columns: slice, _: Scratch) -> None:
        loops.filter_columns(*spectra, penalty.across[columns], penalty.down, amount)

    problem.columns(work, next(progress), (origin[0], len(out)))
    invert_rows(problem.image, out, origin[1], problem.workers, next(progress))


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
    return _Work(channels, psfs, as_choice(rule, "boundary", BORDERS), as_workers(workers))


def _cross_validated(
    image: AnyArray, psf: FloatArray, work: _Work, progress: Progress | None = None
) -> tuple[float, _Problem]:
    """Return the balance for one channel, and the problem that told it."""
    # Any continuation is wrong by more than the noise where the PSF passes next to nothing, and
    # cross-validation would take that for detail: it sees an image that fades.
    border, steps = "circular" if work.boundary == "circular" else "faded", stages(progress, 2)
    problem = _problem(image, psf, border, work.workers, next(steps))
    return _gcv_balance(problem, float(np.abs(psf).sum()), next(steps)), problem


def _restored(
    work: _Work,
    penalty: Callable[[Shape], _Regulariser],
    strength: float | None,
    clip: tuple[float | None, float | None] | None,
    channel_axis: int | None,
    callback: Progress | None,
) -> AnyArray:
    """Restore every channel by a division of a strength, cross-validated where it is None."""
    limits = None if clip is None else as_range(clip, "clip")
    dtype = np.float32 if work.channels.dtype == np.float32 else np.float64
    found = np.empty(work.channels.shape, dtype)
    again = strength is not None or work.boundary != "circular"
    progress = stages(callback, (2 + (strength is None) + again) * len(found))
    problem: _Problem | None = None
    for channel, psf, out in zip(work.channels, work.psfs, found, strict=True):
        amount = strength
        if amount is None:
            amount, problem = _cross_validated(channel, psf, work, next(progress))
        if again or problem is None:
            problem = None  # as large as the image, as the next is
            problem = _problem(channel, psf, work.boundary, work.workers, next(progress))
        i, j = centre((psf.shape[0], psf.shape[1]))
        _divide(problem, penalty(problem.image.frame), amount, (-i, -j), out, progress)
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
    boundary : {"circular", "symmetric"}, optional
        What stands beyond the frame, as in `wiener`.
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
        As `wiener` does, and if ``epsilon`` is negative.

    See Also
    --------
    wiener : For images with noise, which includes the rounding to 8 bits.

    Notes
    -----
    With transforms taken about the centre tap,

    .. math:: X = rac{Y}{H + \epsilon} \qquad	ext{or, guarded,}\qquad
              X = rac{\overline{H}\, Y}{|H|^2 + \epsilon^2}

    and 0 where the divisor is 0. The first exactly undoes a blur by ``psf`` with ``epsilon`` added
    to its centre tap. It multiplies noise by up to :math:`1 / |H + \epsilon|`, without a bound
    where ``H`` comes close to :math:`-\epsilon`; the guarded form by no more than
    :math:`1 / 2 \epsilon`. Rounding counts as noise: use float64.

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
    if not guarded:
        for taps in work.psfs:
            taps[centre((taps.shape[0], taps.shape[1]))] += epsilon
    return _restored(work, _even, epsilon**2 if guarded else 0.0, clip, channel_axis, callback)


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
    boundary : {"circular", "symmetric"}, optional
        What stands beyond the frame: the image again, for blurs that were made so; or its mirror
        image, which over two reaches of the PSF turns into that of the other side.
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
        If a pixel or tap is not finite, ``psf`` is zero everywhere or larger than the image, the
        number of channels does not fit, or another argument is out of its range.

    See Also
    --------
    gcv_balance : The balance alone.
    richardson_lucy : Slower; for light, which is nonnegative.

    Notes
    -----
    .. math:: X = rac{\overline{H}\, Y}{|H|^2 + \lambda\, |L|^2}

    with the transform ``L`` of the Laplacian, 4 amid -1 [1]_: the least of
    :math:`\|h * x - y\|^2 + \lambda \|l * x\|^2`. Memory beyond the answer is about the image's in
    the precision of the answer, with its margins.

    A border rule is a guess. Where a PSF passes nothing at all of some frequencies, as a disk or
    a straight motion does, and the noise is low, its error rings far into the image, which the
    balance does not take into account: `richardson_lucy` needs no such guess.

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
    return _restored(work, _laplacian, chosen, clip, channel_axis, callback)


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
    return _cross_validated(work.channels[0], work.psfs[0], work)[0]
