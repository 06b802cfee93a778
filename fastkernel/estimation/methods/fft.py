"""Estimation of a kernel by division of spectra."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple, get_args

import numpy as np

from fastkernel._images.checks import (
    as_choice,
    as_fraction,
    as_penalty,
    refuse_non_finite,
    refuse_overflow,
)
from fastkernel._images.pairs import Fitted, Pair, in_memory, refuse_uneven
from fastkernel._images.rows import rows_of
from fastkernel._images.windows import Window, centre, window_of_pair
from fastkernel._loops import spectra as loops
from fastkernel._machine import image_transforms as transforms
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import Scratch, split
from fastkernel._typing import AnyArray, FloatArray, Norm, Progress, Shape
from fastkernel.convolution.convolve import convolved
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.fit import KernelFit, fit_of
from fastkernel.estimation.methods.fft_noise import noise_power, power_of, rounding_power
from fastkernel.estimation.problem import Problem
from fastkernel.estimation.solvers.solution import Solution

_EPS = float(np.finfo(np.float64).eps)
_FLOAT64 = np.dtype(np.float64)

# Sums of squares from which shares of rounding are numbers.
_LEAST_ENERGY = 2.0**-1000

# A frequency whose power is less than this many times that of rounding is empty. Where more than
# a few of the highest are, the result has what the source cannot tell (the cut edge of a stamp),
# and the guard leaves this share of the result, as a ratio of root mean squares, unexplained.
_EMPTY, _FEW, _LEFT = 1e4, 0.01, 3e-3
_LADDER = np.array([10.0**k for k in range(34)])

_HELP = (
    "What helps: a source with more detail (edges or noise in every direction), or more images "
    "of the same kernel"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What "fft" takes.

    Attributes
    ----------
    epsilon : float or None
        The guard, in squared source units times pixels; None takes it from the noise.
    taper : float
        Fraction of the rows at the top and at the bottom, and of the columns at the left and the
        right, over which both images fade to their means: 0 to 0.5. It weakens the cross.
    normalize : {"max", "sum"} or None
        Divide the taps by the largest or by their sum.
    cutoff : float or None
        Taps below this fraction of the largest become 0: 0 to 1.

    Raises
    ------
    TypeError, ValueError
        If one is no number, or out of its range.
    """

    of_problem: ClassVar[tuple[str, ...]] = ()

    epsilon: float | None = None
    taper: float | None = None
    normalize: str | None = None
    cutoff: float | None = None

    def __post_init__(self) -> None:
        if self.epsilon is not None:
            object.__setattr__(self, "epsilon", as_penalty(self.epsilon, "epsilon"))
        taper = 0.0 if self.taper is None else as_fraction(self.taper, "taper", 0.5)
        object.__setattr__(self, "taper", taper)
        if self.normalize is not None:
            as_choice(self.normalize, "normalize", get_args(Norm))
        if self.cutoff is not None:
            object.__setattr__(self, "cutoff", as_fraction(self.cutoff, "cutoff", 1.0))


def fit(problem: Problem, options: Options, run: Run) -> KernelFit:
    r"""Estimate a kernel by dividing the spectrum of the result by that of the source.

    .. math:: K = \frac{\sum \overline{X}\, Y}{\sum |X|^2 + \epsilon}

    over the pairs of images, transformed back and cropped. The images are taken as periodic: a
    result that was made otherwise leaves an error around its frame, which shows as a cross
    through the centre of the kernel.

    Parameters
    ----------
    problem : Problem
        Images of one shape. Its ``kernel_shape`` is cropped around the origin; None keeps all
        (m, n) taps, the origin at ``((m - 1) // 2, (n - 1) // 2)`` as every other kernel's.
    options : Options
        Guard, taper, scale and cutoff.
    run : Run
        How.

    Returns
    -------
    KernelFit
        Without ``equations``, and with ``standard_errors`` of NaN. ``condition_number`` is the
        ratio of the largest to the least power, ``epsilon`` included. ``residual_rms`` is that of
        the cropped kernel with its cutoff, not normalised, over the pixels that no border rule
        touches; of a kernel of all taps, before its cutoff, over all pixels of the periodic
        images as they were tapered.

    Raises
    ------
    SingularFitError
        If the source is flat, or ``epsilon`` is 0 and frequencies of the source are.
    ValueError
        If a result has not the shape of its source, pairs differ in shape, the kernel is larger
        than the images, a pixel is not finite, or no tap is positive or their sum is zero where
        that is divided by.

    Notes
    -----
    Guarded division is Tikhonov's regularisation by frequency [1]_: it minimises
    :math:`\sum |Y - K X|^2 + \epsilon |K|^2`, and is the Wiener estimate where
    :math:`\epsilon` is the noise's power over that of the transfer function.

    ``epsilon=None`` puts the ratio of the images' energies for the latter. For the noise it takes
    three neighbouring frequencies of a column. A kernel much smaller than the image has a
    transfer function that is all but linear there, so that what is left of the result after the
    best :math:`(a + b t) X` is noise: that of the local linear fits of [2]_, weighted by the
    source. The median over the corner of the highest frequencies (from 3/4 of the Nyquist
    frequency on along both axes), where the signal is least, over ln 2, is the mean of powers
    that are distributed exponentially. Of images with fewer than three rows, and at the least,
    it is the rounding of the transforms. A crop takes most of the noise away and little of what
    damping does to the taps, so less of it is best: the share of the taps that are kept where the
    transfer function is flat, more where it falls. The root of this share is taken, which came
    within a factor of 2 of the best on photographs and noise for kernels of 3 to 25 taps a side.

    The taper is half a cosine period, a Tukey window [3]_.

    Memory: 16 bytes a pixel, and 12 more where there are several pairs, besides the answer.

    References
    ----------
    .. [1] P. C. Hansen, J. G. Nagy and D. P. O'Leary, "Deblurring Images: Matrices, Spectra, and
       Filtering", SIAM 2006, doi:10.1137/1.9780898718874.
    .. [2] T. Gasser, L. Sroka and C. Jennen-Steinmetz, "Residual variance and residual pattern in
       nonlinear regression", Biometrika 73 (1986) 625, doi:10.1093/biomet/73.3.625.
    .. [3] F. J. Harris, "On the use of windows for harmonic analysis with the discrete Fourier
       transform", Proc. IEEE 66 (1978) 51, doi:10.1109/PROC.1978.10837.
    """
    refuse_uneven(problem.images, "fft")
    pairs = [(in_memory(x), in_memory(y)) for x, y, *_ in problem.images]
    frame = _frame(pairs)
    whole = problem.kernel_shape is None
    shape = frame if whole else problem.shape
    windows = [window_of_pair(x.shape, y.shape, shape, None) for x, y in pairs]
    row, col = centre(shape)

    kernel = np.empty(shape)
    energy, condition = _divide(pairs, options, kernel, (-row, -col), run)
    divisor = 1.0 if options.normalize is None else _divisor(kernel, options.normalize)
    if options.cutoff is not None:
        kernel[kernel < options.cutoff * _divisor(kernel, "max")] = 0
    n_pixels = len(pairs) * math.prod(frame)
    if not whole:
        n_pixels = sum(window.n_pixels for window in windows)
        energy = sum(
            _residual_energy(x, y, kernel, window, run.workers)
            for (x, y), window in zip(pairs, windows, strict=True)
        )
    kernel /= divisor
    solution = Solution(
        taps=kernel, solver="division", rank=kernel.size, condition_number=condition
    )
    fitted = (
        [] if whole else [Fitted.of(Pair(*pair, w)) for pair, w in zip(pairs, windows, strict=True)]
    )
    return fit_of(solution, energy, n_pixels, method="fft", fitted=fitted)


def _frame(pairs: Sequence[tuple[AnyArray, AnyArray]]) -> Shape:
    """Return the shape that all images have."""
    shapes = [image.shape for pair in pairs for image in pair]
    for i, (source, result) in enumerate(pairs):
        index = f"[{i}]" if len(pairs) > 1 else ""
        if result.shape != source.shape:
            msg = (
                f"result{index} must have the shape of source{index} for method='fft': FFT "
                f'division needs a "same" result, got {result.shape} and {source.shape}; use '
                "method='lstsq', or crop the source where the result is \"valid\""
            )
            raise ValueError(msg)
        if source.shape != shapes[0]:
            msg = (
                "source must hold images of one shape for method='fft', whose spectra are added: "
                f"got {shapes[0]} and {source.shape}; crop them to one shape, or use "
                "method='lstsq'"
            )
            raise ValueError(msg)
    return shapes[0]


def _divisor(kernel: FloatArray, by: str) -> float:
    """Return the largest tap or the sum of all, which can be divided by."""
    largest, total = float(kernel.max()), float(kernel.sum())
    if by == "max" and not largest > 0:
        msg = (
            f"normalize='max' and cutoff need a positive tap, the largest is {largest:g}; use "
            "normalize='sum' or None, and no cutoff"
        )
        raise ValueError(msg)
    if by == "sum" and not abs(total) > kernel.size * _EPS * float(np.abs(kernel).max()):
        msg = (
            f"normalize='sum' needs taps that do not cancel, they sum to {total:g}; use "
            "normalize='max' or None"
        )
        raise ValueError(msg)
    return largest if by == "max" else total


def _residual_energy(
    source: AnyArray, result: AnyArray, kernel: FloatArray, window: Window, workers: int
) -> float:
    """Return the sum of the squares that a kernel leaves in a window."""
    left = convolved(source, kernel, window, workers)
    (top, first), (height, width) = window.result_origin, window.shape
    np.subtract(result[top : top + height, first : first + width], left, out=left)
    return float(sum(loops.sum_of_squares(left[i:j]) for i, j in split(height, 256)))


def _tapered(image: AnyArray, taper: float) -> transforms.Rows:
    """Return the rows of an image that fades to its mean."""
    frame = image.shape[0], image.shape[1]
    plain = rows_of(image, frame)
    if taper == 0:
        return plain
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(image.mean(dtype=np.float64))
    down, across = (_taper_window(n, taper) for n in frame)

    def read(top: int, out: AnyArray) -> None:
        plain.read(top, out)
        with np.errstate(over="ignore", invalid="ignore"):
            out -= mean
            out *= down[top : top + len(out), None]
            out *= across
            out += mean

    return transforms.Rows(read, frame[0])


def _taper_window(length: int, taper: float) -> FloatArray:
    """Return half a cosine period at either end, 1 between; symmetric, nowhere 0.

    Examples
    --------
    >>> _taper_window(5, 0.4).round(3).tolist()
    [0.146, 0.854, 1.0, 0.854, 0.146]
    """
    place = np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5
    return np.asarray(np.sin(np.pi / 2 * np.minimum(place / max(taper * length, 0.5), 1)) ** 2)


class _Powers(NamedTuple):
    """What some columns tell of the power of the source, and of the residual.

    Attributes
    ----------
    least, largest : float
        Power.
    varying : float
        The largest but for that of the mean.
    empty : int
        Frequencies without power.
    explained : float
        How much less energy the residual has than the result, times the number of pixels.
    """

    least: float
    largest: float
    varying: float
    empty: int
    explained: float


class _Quotient:
    """The quotient of the spectra of several pairs, a panel of columns at a time.

    Parameters
    ----------
    frame : (int, int)
        ``(m, n)``.
    several : bool
        Whether the pairs before the last are added: 12 bytes a pixel, else none.
    """

    def __init__(self, frame: Shape, several: bool) -> None:
        self._cols = frame[1]
        shape = (frame[1] // 2 + 1, frame[0])
        self._sums = (np.zeros(shape, np.complex128), np.zeros(shape)) if several else None

    def add(
        self, spectra: Sequence[AnyArray], columns: slice, scratch: Scratch
    ) -> tuple[AnyArray, AnyArray]:
        """Add a pair, and return the sums of all so far."""
        if self._sums is not None:
            cross, power = self._sums[0][columns], self._sums[1][columns]
        else:
            cross = scratch.array("cross", spectra[0].shape, np.complex128)
            power = scratch.array("power", spectra[0].shape)
            cross[:], power[:] = 0, 0
        with np.errstate(over="ignore", invalid="ignore"):
            loops.add_products(*spectra, cross, power)
        return cross, power

    def left_by(
        self,
        ladder: FloatArray,
        spectra: Sequence[AnyArray],
        columns: slice,
        scratch: Scratch,  # noqa: ARG002
    ) -> FloatArray:
        """Return the energy that guards leave unexplained, the last pair among the others."""
        source, result = spectra
        cross, power = source.conj() * result, power_of(source)
        if self._sums is not None:
            cross, power = cross + self._sums[0][columns], power + self._sums[1][columns]
        with np.errstate(divide="ignore", invalid="ignore"):
            whole = (
                np.where(power > 0, power_of(cross) / power, 0.0) * self._times(columns)[:, None]
            )
            return np.array([np.sum(whole * (e / (power + e)) ** 2) for e in ladder])

    def _times(self, columns: slice) -> FloatArray:
        """Return how often columns stand in a real image's transform: those inside twice."""
        column = np.arange(columns.start, columns.stop)
        return np.where((column == 0) | (2 * column == self._cols), 1.0, 2.0)

    def divide(
        self, epsilon: float, spectra: Sequence[AnyArray], columns: slice, scratch: Scratch
    ) -> _Powers:
        """Add the last pair, and leave the kernel's spectrum in place of the source's."""
        cross, power = self.add(spectra, columns, scratch)
        explained = scratch.array("explained", (len(power),))
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            loops.divide(cross, power, epsilon, spectra[0], explained)
        least, largest = float(power.min()), float(power.max())
        varying = largest
        if columns.start == 0:
            varying = float(max(power[0, 1:].max(initial=0), power[1:].max(initial=0)))
        return _Powers(
            least,
            largest,
            varying,
            power.size - int(np.count_nonzero(power)) if least == 0 else 0,
            float(np.sum(self._times(columns) * explained)),
        )


def _divide(
    pairs: Sequence[tuple[AnyArray, AnyArray]],
    options: Options,
    out: FloatArray,
    origin: Shape,
    run: Run,
) -> tuple[float, float]:
    """Write the part of the kernel that begins at ``origin``, counted around, to ``out``.

    Returns
    -------
    energy : float
        Of the periodic residual.
    condition_number : float
        Largest power over the least, with ``epsilon``.
    """
    m, n = frame = _frame(pairs)
    epsilon, workers = options.epsilon, run.workers
    quotient = _Quotient(frame, len(pairs) > 1)
    steps = transforms.stages(run.progress, len(pairs) * (4 if epsilon is None else 3) + 1)
    source_energy = result_energy = noise = 0.0
    empty_share = 1.0
    for i, pair in enumerate(pairs):
        names = ("source", "result") if len(pairs) == 1 else (f"source[{i}]", f"result[{i}]")
        x, y = (
            _finite_row_spectra(name, image, options.taper, len(out), workers, next(steps))
            for name, image in zip(names, pair, strict=True)
        )
        source_energy += x.energy
        result_energy += y.energy
        if epsilon is None:
            floor = rounding_power(pair[0], x.energy)
            found_noise, share = noise_power(x, y, _EMPTY * floor, workers, next(steps))
            noise += found_noise / len(pairs)
            empty_share = min(empty_share, share)
        if i < len(pairs) - 1:
            transforms.transform_columns((x, y), quotient.add, workers, next(steps))
            # Gone before the next pair comes.
            del x, y
    if epsilon is None:
        rounding = _EPS**2 * math.log2(2 * m * n) * source_energy
        if empty_share > _FEW:
            ladder = rounding * _LADDER
            left_by = partial(quotient.left_by, ladder)
            left = sum(transforms.transform_columns((x, y), left_by, workers))
            fine = np.flatnonzero(left <= _LEFT**2 * result_energy * m * n)
            rounding = float(ladder[fine[-1]]) if fine.size else rounding
        gain = result_energy / source_energy if source_energy > 0 else 0.0
        kept = math.sqrt(out.size / (m * n))
        epsilon = max(kept * noise / gain if gain > 0 else 0.0, rounding)
    found = transforms.transform_columns(
        (x, y), partial(quotient.divide, epsilon), workers, next(steps), back=(origin[0], len(out))
    )
    least, largest = min(part.least for part in found), max(part.largest for part in found)
    if not math.isfinite(largest + epsilon):
        refuse_overflow()
    varying, empty = max(part.varying for part in found), sum(part.empty for part in found)
    _refuse_undetermined(varying, empty, epsilon, frame, source_energy)
    transforms.invert_rows(x, out, origin[1], workers, next(steps))
    energy = result_energy - sum(part.explained for part in found) / (m * n)
    return energy, (largest + epsilon) / (least + epsilon)


def _finite_row_spectra(
    name: str,
    image: AnyArray,
    taper: float | None,
    room: int,
    workers: int,
    progress: Progress | None,
) -> transforms.RowSpectra:
    frame = image.shape[0], image.shape[1]
    rows = _tapered(image, taper or 0.0)
    found = transforms.row_spectra(rows, frame, _FLOAT64, workers, progress, room=room)
    if not math.isfinite(found.energy):
        refuse_non_finite(name, image)
        refuse_overflow()
    if 0 < found.energy < _LEAST_ENERGY:
        msg = (
            f"{name} must have a sum of squares from {_LEAST_ENERGY:.0e} for method='fft', got "
            f"{found.energy:.1e}: what follows from it is no number of float64; give the pixels "
            "another unit, in which they are near 1"
        )
        raise ValueError(msg)
    return found


def _refuse_undetermined(
    varying: float, empty: int, epsilon: float, frame: Shape, energy: float
) -> None:
    """Raise for a source of one frequency, or whose empty frequencies would be divided by."""
    m, n = frame
    n_pixels = m * n
    rounding = 16 * _EPS**2 * math.log2(2 * n_pixels) * n_pixels * energy
    if n_pixels > 1 and varying <= rounding:
        cause = "zero" if energy == 0 else "flat"
        msg = f"the images do not determine the kernel: the source is {cause}. {_HELP}"
        raise SingularFitError(msg)
    if empty and epsilon == 0:
        msg = (
            f"the images do not determine the kernel: the source is empty at {empty} of the "
            f"{m * (n // 2 + 1)} frequencies of a real image, and epsilon=0 would divide by them. "
            f"{_HELP}, or epsilon: a positive number, or None to take it from the noise"
        )
        raise SingularFitError(msg)
