"""Restoration by one division of spectra: the inverse filter and Wiener's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastkernel._images.checks import (
    as_boundary,
    as_callback,
    as_channels,
    as_choice,
    as_flag,
    as_image,
    as_penalty,
    as_workers,
    float_dtype,
)
from fastkernel._images.windows import centre
from fastkernel._loops import filters as loops
from fastkernel._machine.image_transforms import stages
from fastkernel._machine.pair_transforms import Spectra
from fastkernel._machine.tiles import Scratch
from fastkernel._typing import AnyArray, Balance, FloatArray, Progress, Shape, Surround
from fastkernel.restoration.arguments import as_psfs, as_range, computed_in, refuse_zero_sum
from fastkernel.restoration.cross_validation import cross_validated, cross_validated_alone
from fastkernel.restoration.framing import Regulariser, even, framed_spectra, laplacian
from fastkernel.restoration.unknown_border import restore_unknown

BORDERS = ("circular", "symmetric", "edge_taper", "unknown")

# How much the error of a guessed border may grow before none is guessed. On photographs the error
# with "symmetric" was within a tenth of that with "unknown" below this for all blurs.
_RINGING = 1.3

# Sides of the frame, in those of the PSF, and least side, that tell how much it grows.
_SIDES, _LEAST = 4, 128

# Binary exponents beyond which powers in a dtype may overflow or vanish.
_EXPONENTS = {4: 20, 8: 200}


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


def _rings(psf: FloatArray, balance: float) -> bool:
    """Return whether a guess of what stands beyond the frame would ring far into the image.

    The error of a guess has the spectrum of edges, ``1 / L``; the division multiplies it by
    ``|H| / (|H|**2 + balance * L**2)``, most where the PSF passes little of what edges hold.
    """
    p, q = psf.shape
    frame = max(_LEAST, _SIDES * p), max(_LEAST, _SIDES * q)
    size = float(np.abs(psf).sum())
    passed = np.abs(np.fft.rfft2(psf / size, frame))
    sides = laplacian(frame)
    penalty = sides.across + sides.down[:, None]
    divisor = passed**2 + balance / size**2 * penalty**2
    edges = np.divide(1, penalty, out=np.zeros(penalty.shape), where=penalty > 0)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        gains = np.where(divisor > 0, passed / divisor, 0) ** 2
        return not float((gains * edges).sum() / edges.sum()) <= _RINGING**2


def _in_units(image: AnyArray) -> tuple[AnyArray, float]:
    """Return an image whose powers are numbers, and its unit: a power of two, mostly 1."""
    dtype = float_dtype(image)
    largest = max(abs(float(image.max())), abs(float(image.min())))
    exponent = math.frexp(largest)[1] if 0 < largest < math.inf else 0
    if abs(exponent) <= _EXPONENTS[dtype.itemsize]:
        return image, 1.0
    return np.ldexp(image.astype(dtype), -exponent), 2.0 ** (exponent - 1) * 2.0


class _Work(NamedTuple):
    """The channels of a call, checked."""

    channels: AnyArray
    psfs: Sequence[FloatArray]
    boundary: str
    workers: int


def _work(
    image: ArrayLike,
    psf: ArrayLike,
    boundary: Surround,
    channel_axis: int | None,
    workers: int | None,
    dtype: DTypeLike | None = None,
    borders: tuple[str, ...] = ("auto", *BORDERS),
) -> _Work:
    """Check what every filter takes."""
    given = computed_in(as_image(image, "image", 2 if channel_axis is None else 3), dtype)
    channels = given[None] if channel_axis is None else as_channels(given, channel_axis)
    shape = channels.shape[1], channels.shape[2]
    psfs = as_psfs(psf, shape, channel_axis, len(channels))
    rule = boundary if boundary in borders else as_boundary(boundary)
    if rule == "edge_taper":
        for taps in psfs:
            refuse_zero_sum(taps)
    return _Work(channels, psfs, as_choice(rule, "boundary", borders), as_workers(workers))


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
    progress = stages(as_callback(callback), runs * len(found))
    for given, psf, out in zip(work.channels, work.psfs, found, strict=True):
        channel, unit = _in_units(given)
        amount, boundary = strength, work.boundary
        if boundary == "auto" and amount is not None:
            boundary = "unknown" if _rings(psf, amount) else "symmetric"
        if boundary == "unknown" and amount is None:
            found_alone = cross_validated_alone(
                channel, psf, "unknown", work.workers, next(progress)
            )
            amount = found_alone.balance
        if boundary != "unknown":
            frame_border = "symmetric" if boundary == "auto" else boundary
            with framed_spectra(
                channel, psf, frame_border, work.workers, next(progress)
            ) as problem:
                if amount is None:
                    amount = cross_validated(
                        problem, channel, psf, frame_border, next(progress)
                    ).balance
                if boundary == "auto" and _rings(psf, amount):
                    boundary = "unknown"
                else:
                    i, j = centre((psf.shape[0], psf.shape[1]))
                    _divide(problem, penalty(problem.frame), amount, (-i, -j), out, progress)
        if boundary == "unknown":
            if work.boundary == "auto":
                skipped = 1 if strength is None else 2  # stages that a division would have had
                for _ in range(skipped):
                    next(progress)
            restore_unknown(
                channel, psf, penalty, cast(float, amount), out, work.workers, next(progress)
            )
        if unit != 1:
            out *= out.dtype.type(unit)
        if limits is not None:
            np.clip(out, *limits, out=out)
    return found[0] if channel_axis is None else np.moveaxis(found, 0, channel_axis)


def inverse_filter(
    image: ArrayLike,
    psf: ArrayLike,
    epsilon: float = 1e-5,
    *,
    boundary: Surround = "circular",
    guarded: bool = False,
    clip: tuple[float | None, float | None] | None = None,
    channel_axis: int | None = None,
    dtype: DTypeLike | None = None,
    workers: int | None = None,
    callback: Progress | None = None,
) -> AnyArray:
    r"""Undo a blur by dividing transforms, for images without noise.

    Parameters
    ----------
    image, psf : as in `wiener`
    epsilon : float, optional
        Added to the transform of the PSF, or in its square to its power; in units of ``psf``'s
        sum, at least 0. The default only keeps divisors from 0: noise asks for more.
    boundary : {"circular", "symmetric", "edge_taper", "unknown"}, optional
        What stands beyond the frame, as in `wiener`; "unknown" only when ``guarded``. "circular"
        is what a division of transforms assumes.
    guarded : bool, optional
        Which division: see Notes. The default is the plain one, which undoes an exact blur.
    clip, channel_axis, dtype, workers, callback : as in `wiener`

    Returns
    -------
    array of image's shape
        Of ``dtype``; in units of ``image`` over those of ``psf``'s
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
    >>> from fastkernel import convolve, inverse_filter
    >>> image = np.random.default_rng(0).random((8, 9))
    >>> psf = np.array([[0, 0.1, 0], [0.1, 0.6, 0.1], [0, 0.1, 0]])
    >>> blurred = convolve(image, psf, "same", "circular")
    >>> bool(np.allclose(inverse_filter(blurred, psf, 0), image))
    True
    """
    work = _work(image, psf, boundary, channel_axis, workers, dtype, BORDERS)
    epsilon, guarded = as_penalty(epsilon, "epsilon"), as_flag(guarded, "guarded")
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
    balance: Balance = "gcv",
    *,
    boundary: Surround = "auto",
    clip: tuple[float | None, float | None] | None = None,
    channel_axis: int | None = None,
    dtype: DTypeLike | None = None,
    workers: int | None = None,
    callback: Progress | None = None,
) -> AnyArray:
    r"""Restore a blurred, noisy image by one linear filter.

    Parameters
    ----------
    image : (m, n) array_like of real numbers
        The blurred image, in any unit, finite.
    psf : (p, q) array_like of real numbers
        What a point became, no larger than the image, of any sum: that of the answer is the
        image's over it. Of shape (p, q) for all channels, or with an axis of channels.
    balance : float or "gcv", optional
        Strength of the prior, at least 0: more is smoother. "gcv" takes, for every channel, that
        of least generalised cross-validation [2]_ [3]_, which needs no knowledge of the noise
        but that it is white. It reckons with at least 0.3 percent of the image's standard
        deviation, with that of rounding to steps, and with what shows at the borders of JPEG's
        blocks, which is not white: give a number for a blur without noise.
    boundary : {"auto", "circular", "symmetric", "edge_taper", "unknown"}, optional
        What stands beyond the frame. "auto" is "symmetric", or "unknown" where that would ring
        (see Notes). In order: the image again, for blurs that were made so; its mirror
        image, which over two reaches of the PSF turns into that of the other side; the image
        again, after its edges turned into their own blur; or nothing that is assumed, which is
        best and takes longest. See Notes.
    clip : (float, float), optional
        Lowest and highest pixel of the answer, None where open. Nothing is clipped by default.
    channel_axis : int, optional
        The axis of a 3-dimensional image that holds channels; None for two dimensions.
    dtype : {"float32", "float64"}, optional
        Of the answer and of the computation, for which ``image`` is rounded to it. None is
        float32 for a float32 image, else float64.
    workers : int, optional
        Threads to use, every usable core when None. The answer is the same bit for bit.
    callback : callable, optional
        Called as ``callback(done, total)``; what it raises ends the work.

    Returns
    -------
    array of image's shape
        Of ``dtype``; in units of ``image`` over those of ``psf``'s sum. Pixels can be negative.

    Raises
    ------
    TypeError
        If an array is complex, masked or not of numbers, or ``balance`` or ``dtype`` is none.
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

    "auto" takes "unknown" where the division multiplies errors of the spectrum of edges, whose
    power falls as :math:`1 / L`, by more than 1.3: for a motion, and for a wide
    blur of another shape with noise below some 2 percent. That takes longer, see below: give
    "symmetric" where time matters more.

    With "unknown" the restored image reaches beyond the frame, and only pixels inside it have to
    be explained [5]_ [6]_: the least of :math:`\|M (h * x) - y\|^2 + \lambda \|l * x\|^2`, where
    ``M`` keeps the frame. Conjugate gradients find it, preconditioned by the division above, on a
    torus that is larger by two reaches of the PSF; they start from the answer for "symmetric",
    and stop where noise hides what is left to change, at a residual of a hundredth of that
    one's, or after 200 iterations. A photograph takes some 20 iterations with noise of 3 percent,
    and 50 to 120 with 0.2 percent, of two transforms each: about as many divisions. Memory is six
    times the image's with its margins.

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
    >>> from fastkernel import convolve, wiener
    >>> image = np.kron(np.arange(16.0).reshape(4, 4) % 5, np.ones((16, 16)))
    >>> psf = np.ones((5, 5)) / 25
    >>> noise = 0.01 * np.random.default_rng(0).standard_normal((64, 64))
    >>> blurred = convolve(image, psf, "same", "symmetric") + noise
    >>> bool(np.square(wiener(blurred, psf) - image).mean() < np.square(blurred - image).mean() / 4)
    True
    """
    work = _work(image, psf, boundary, channel_axis, workers, dtype)
    chosen = None if isinstance(balance, str) else as_penalty(balance, "balance")
    if chosen is None:
        as_choice(balance, "balance", ("gcv",))
    return _restored(work, laplacian, chosen, clip, channel_axis, callback)


def gcv_balance(
    image: ArrayLike,
    psf: ArrayLike,
    *,
    boundary: Surround = "auto",
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
    >>> from fastkernel import gcv_balance
    >>> noise = np.random.default_rng(0).standard_normal((64, 64))
    >>> gcv_balance(noise, np.ones((3, 3)) / 9) > 1
    True
    """
    work = _work(image, psf, boundary, None, workers)
    rule = "unknown" if work.boundary == "auto" else work.boundary
    channel, _ = _in_units(work.channels[0])
    return cross_validated_alone(channel, work.psfs[0], rule, work.workers).balance
