"""Fits of large kernels: conjugate gradients, with the Gram matrix applied and never formed."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from fastkernel._images.borders import load
from fastkernel._machine.tiles import Tiles, run_jobs, split
from fastkernel._typing import FloatArray, Progress, Shape
from fastkernel.errors import SingularFitError
from fastkernel.estimation.equations.gathering import gather_correlations, refuse_unusable
from fastkernel.estimation.equations.gathering_engines import MAX_JOBS, Pair
from fastkernel.estimation.equations.sweeps import held
from fastkernel.estimation.fit import KernelFit
from fastkernel.estimation.solvers.descents import descend
from fastkernel.estimation.solvers.direct import refuse_too_few
from fastkernel.estimation.solvers.options import Options
from fastkernel.estimation.solvers.penalties import Penalty

_EPS = float(np.finfo(np.float64).eps)

# Pieces of a strip, each about a kernel long, that are held at a time.
SEGMENTS = 32
# Lines of a strip whose products with all others one job finds: few enough that BLAS does not
# start threads of its own.
LINES = 16

# The pixels correct what a solve leaves, so none need reach full accuracy; what corrections
# correct is mostly rounding, of all frequencies, which takes more iterations than an image does.
_TOL, _REFINE_TOL = 1e-8, 1e-3
_MAX_ITER = 2000
_MAX_REFINEMENTS = 5
# Share of the taps' size below which a correction is the last.
_REFINED = 1e-10
# Enough for the least determined direction to stand out of a random one.
_PROBE_TOL = 1e-2

_HELP = (
    "What helps: a source with more detail (edges or noise in every direction), more images of "
    "the same kernel, a smaller kernel_shape, or ridge= to prefer small taps"
)


class _Part(Protocol):
    """A symmetric matrix that is part of the Gram matrix, as a function of taps by shift."""

    def __call__(self, taps: FloatArray) -> FloatArray: ...


@dataclass(frozen=True, slots=True)
class Toeplitz:
    """Products of the whole virtual source, zeros beyond it: they depend on the lag alone."""

    spectrum: FloatArray
    grid: Shape

    def __call__(self, taps: FloatArray) -> FloatArray:
        """Apply by one transform there and one back."""
        p, q = taps.shape
        found = fft.irfft2(self.spectrum * fft.rfft2(taps, self.grid), self.grid)
        return np.asarray(found[:p, :q])


@dataclass(frozen=True, slots=True)
class Bands:
    """Products of outputs beyond two sides of the window, and along them without end.

    Attributes
    ----------
    blocks : (n // 2 + 1, k, k) complex128 array
        Along the sides products depend on the lag alone: for every frequency of ``n``, the
        conjugate of a Hermitian matrix over the taps across.
    axis : int
        The axis of the taps across the sides, of length ``k``.
    length : int
        ``n``.
    """

    blocks: NDArray[np.complex128]
    axis: int
    length: int

    def __call__(self, taps: FloatArray) -> FloatArray:
        """Apply one matrix a frequency, negated: these outputs are not in the window."""
        lines = taps if self.axis == 0 else taps.T
        spectra = fft.rfft(lines, self.length)
        # Not matmul: BLAS would start threads of its own for every frequency, for microseconds.
        found = np.vecdot(self.blocks, np.ascontiguousarray(spectra.T)[:, None, :])
        out: FloatArray = -fft.irfft(found.T, self.length)[:, : lines.shape[1]]
        return out if self.axis == 0 else out.T


@dataclass(frozen=True, slots=True)
class Corners:
    """Products of outputs beyond two sides at once, which `Bands` of both axes take away."""

    spectra: Sequence[NDArray[np.complex128]]
    grid: Shape

    def __call__(self, taps: FloatArray) -> FloatArray:
        """Apply by finding these outputs and correlating them with what they are made of."""
        p, q = taps.shape
        kernel = fft.rfft2(taps, self.grid).conj()
        total = np.zeros(kernel.shape, np.complex128)
        for spectrum in self.spectra:
            outputs = fft.irfft2(spectrum * kernel, self.grid)[: p - 1, : q - 1]
            total += spectrum * fft.rfft2(outputs, self.grid).conj()
        return np.asarray(fft.irfft2(total, self.grid)[:p, :q])


class Operator:
    r"""The Gram matrix of some pairs, as a function of taps by shift.

    With :math:`F` the full convolution by the virtual source (zeros beyond it), ``T`` the outputs
    of rows above or below the window and ``L`` those of columns left or right of it,

    .. math:: H = F^T F - F_T^T F_T - F_L^T F_L + F_{TL}^T F_{TL} .

    The first part is block-Toeplitz with Toeplitz blocks and known by its lags. The second
    involves ``p - 1`` rows of pixels at either end, is Toeplitz along the columns, and so is a
    matrix of ``p`` by ``p`` a frequency; the third likewise; the last needs the corners alone.
    An iteration therefore takes :math:`O(pq(p + q))` whatever the size of the images, where
    transforms of the strips would take a number that grows with their length.

    Memory: ``16 * p * q * (p + q)`` bytes, up to twice that while it is made, and
    ``128 * p * q`` for the corners of every pair, whatever the size of the images. The Gram
    matrix takes ``8 * (p * q)**2``, which is less where a side of the kernel is 1 or 2.

    Parameters
    ----------
    pairs : sequence of Pair
        Their windows and sources are read.
    autocorrelations : sequence of (p, 2q - 1) float64 array
        One a pair, as `gather_correlations` finds them.
    workers : int
        Threads to use.

    Attributes
    ----------
    eigenvalues : (p, q // 2 + 1) float64 array
        Of the circulant matrix nearest to this one in the Frobenius norm, by frequency. Each is
        ``v.H @ H @ v`` for a Fourier vector of length 1, so none is less than the least
        eigenvalue of this matrix.
    """

    def __init__(
        self, pairs: Sequence[Pair], autocorrelations: Sequence[FloatArray], workers: int
    ) -> None:
        p, width = autocorrelations[0].shape
        q = (width + 1) // 2
        self.shape, self.workers, self.ridge = (p, q), workers, 0.0
        grid = fft.next_fast_len(2 * p - 1, real=True), fft.next_fast_len(2 * q - 1, real=True)
        row_lags, col_lags = _falling(p), _falling(q)
        # By lag (d, j) with d in (-p, p) and j in (-q, q), both from the most negative on.
        lags = np.sum(autocorrelations, axis=0)
        lags = np.concatenate([lags[:0:-1, ::-1], lags])
        diagonals = lags * row_lags[:, None] * col_lags
        parts: list[_Part] = [Toeplitz(fft.rfft2(_around_zero(lags, grid), grid).real, grid)]
        for axis, k in ((0, p), (1, q)):
            if k == 1:
                continue
            n = grid[1 - axis]
            blocks = np.zeros((n // 2 + 1, k, k), np.complex128)
            for pair, entering in itertools.product(pairs, (False, True)):
                side = _side(pair, self.shape, axis, entering, workers)
                sums = np.array([np.trace(side, offset) for offset in range(1 - k, k)])
                diagonals -= sums * col_lags if axis == 0 else sums.T * row_lags[:, None]
                for i, lines in enumerate(side):  # one at a time: all would double the memory
                    blocks[:, i] += fft.rfft(_around_zero(lines, (k, n), (1,))).T
                del side, lines
            parts.append(Bands(blocks, axis, n))
        if p > 1 and q > 1:
            corners = [corner for pair in pairs for corner in _corners(pair, self.shape)]
            parts.append(Corners([fft.rfft2(corner, grid) for corner, _, _ in corners], grid))
            diagonals += sum(_corner_diagonals(*corner, grid) for corner in corners)
        self._parts = parts
        wrapped = np.zeros((p, q))
        np.add.at(
            wrapped,
            (np.arange(1 - p, p)[:, None] % p, np.arange(1 - q, q) % q),
            diagonals / (p * q),
        )
        self.eigenvalues: FloatArray = fft.rfft2(wrapped).real

    def __call__(self, taps: FloatArray) -> FloatArray:
        """Return ``H @ taps``, (p, q), with the ridge."""

        def work(part: _Part, _: None, stopped: Callable[[], bool]) -> FloatArray:  # noqa: ARG001
            return part(taps)

        # Parts add up in their own order, whoever applied them.
        found = run_jobs([partial(work, part) for part in self._parts], lambda: None, self.workers)
        return np.asarray(sum(found) + self.ridge * taps)


def _falling(k: int) -> FloatArray:
    """Return how many pairs of ``k`` taps stand at every lag."""
    return np.asarray(k - np.abs(np.arange(1.0 - k, k)))


def _around_zero(lags: FloatArray, grid: Shape, axes: tuple[int, ...] = (0, 1)) -> FloatArray:
    """Return lags, from the most negative on, on a grid that wraps around and begins with 0."""
    places = [
        np.arange(n // 2 - n + 1, n // 2 + 1) if axis in axes else np.arange(n)
        for axis, n in enumerate(lags.shape)
    ]
    out = np.zeros(grid)
    out[np.ix_(*places)] = lags
    return out


def _side(pair: Pair, kernel_shape: Shape, axis: int, entering: bool, workers: int) -> FloatArray:
    """Return the products of the outputs beyond one side of the window, (k, k, lags).

    Parameters
    ----------
    pair : Pair
        Its source is read in ``k - 1`` rows (axis 0) or columns at the window's side.
    kernel_shape : (int, int)
        ``(p, q)``.
    axis : int
        The axis across the side, along which a kernel has ``k`` taps.
    entering : bool
        Whether it is the far side.
    workers : int
        Threads to use.

    Returns
    -------
    (k, k, 2 * n - 1) float64 array
        For every pair of taps across and every lag ``j`` of ``n`` taps along: the sum over these
        outputs of one tap's pixel times that of the other, which stands ``j`` further along.
    """
    k, n = kernel_shape[axis], kernel_shape[1 - axis]
    across = pair.window.shape[axis] if entering else 0
    end = pair.window.shape[1 - axis] + n - 1
    out = np.zeros((k, k, 2 * n - 1))
    # The lines' own products; of a line's taps each needs sums of these down a diagonal.
    lines = out[:-1, :-1] if entering else out[1:, 1:]
    # A piece of ``size`` pixels among its surroundings: no lag wraps around.
    length = fft.next_fast_len(4 * n, real=True)
    size = length - 2 * (n - 1)
    for start, stop in split(end, SEGMENTS * size):
        count = -(-(stop - start) // size)
        strip = np.zeros((k - 1, count * size + 2 * (n - 1)))
        first, last = max(start - n + 1, 0), min(stop + n - 1, end)
        part = strip[:, first - start + n - 1 : last - start + n - 1]
        place = (across, first) if axis == 0 else (first, across)
        load(
            pair.source,
            pair.window.source_pixel(*place),
            pair.window.boundary,
            part if axis == 0 else part.T,
        )
        pieces = np.lib.stride_tricks.sliding_window_view(strip, length, axis=1)[:, ::size]
        cores = np.zeros(pieces.shape)
        cores[:, :, :size] = pieces[:, :, n - 1 : n - 1 + size]
        # The last piece's own pixels end where the strip does.
        cores[:, -1, stop - start - (count - 1) * size :] = 0
        # By frequency, line and piece.
        wide = np.ascontiguousarray(fft.rfft(pieces).transpose(2, 1, 0))
        core = np.ascontiguousarray(fft.rfft(cores).transpose(2, 0, 1).conj())

        def work(
            bounds: Shape,
            _: None,
            stopped: Callable[[], bool],  # noqa: ARG001
            wide: NDArray[np.complex128] = wide,
            core: NDArray[np.complex128] = core,
        ) -> None:
            top, bottom = bounds
            products = np.matmul(core[:, top:bottom], wide).transpose(1, 2, 0)
            lines[top:bottom] += fft.irfft(products, length)[..., : 2 * n - 1]

        run_jobs([partial(work, bounds) for bounds in split(k - 1, LINES)], lambda: None, workers)
    if entering:
        for i in range(k - 2, -1, -1):
            out[i, :-1] += out[i + 1, 1:]
    else:
        for i in range(1, k):
            out[i, 1:] += out[i - 1, :-1]
    return out


def _corners(pair: Pair, kernel_shape: Shape) -> list[tuple[FloatArray, bool, bool]]:
    """Return the corners of the virtual source, each where it meets the outputs beyond it.

    A corner of ``(p - 1, q - 1)`` pixels stands in an array of twice its size: output ``(s, u)``
    beyond both sides is made of the pixels from ``(s, u)`` on. With it, whether it is at the far
    side of either axis.
    """
    (p, q), (height, width) = kernel_shape, pair.window.shape
    found = []
    for far_row in (False, True):
        for far_col in (False, True):
            corner = np.zeros((2 * p - 2, 2 * q - 2))
            part = corner[0 if far_row else p - 1 :, 0 if far_col else q - 1 :][: p - 1, : q - 1]
            place = (height if far_row else 0, width if far_col else 0)
            load(pair.source, pair.window.source_pixel(*place), pair.window.boundary, part)
            found.append((corner, far_row, far_col))
    return found


def _corner_diagonals(corner: FloatArray, far_row: bool, far_col: bool, grid: Shape) -> FloatArray:
    """Return the sums down the diagonals of a corner's part of the matrix, by lag.

    A pair of pixels counts once for every output that sees both: as many as there are from the
    window's side to the farther of them.
    """
    p, q = corner.shape[0] // 2 + 1, corner.shape[1] // 2 + 1
    near = corner[0 if far_row else p - 1 :, 0 if far_col else q - 1 :][: p - 1, : q - 1]
    # As if at the near sides, where the farther pixel is the later one.
    turned = near[:: -1 if far_row else 1, :: -1 if far_col else 1]
    rows, cols = np.arange(p - 1.0, 0, -1)[:, None], np.arange(q - 1.0, 0, -1)

    def lags(a: FloatArray, b: FloatArray) -> FloatArray:
        found = fft.irfft2(fft.rfft2(a, grid).conj() * fft.rfft2(b, grid), grid)
        return np.asarray(found[np.arange(p)[:, None], np.arange(1 - q, q)])

    half = lags(turned, rows * cols * turned)
    half[:, : q - 1] = lags(cols * turned, rows * turned)[:, : q - 1]
    if far_row != far_col:
        half = half[:, ::-1]
    return np.concatenate([half[:0:-1, ::-1], half])


class Solved(NamedTuple):
    """What conjugate gradients found, and by how many iterations."""

    taps: FloatArray
    num_iter: int


def conjugate_gradients(operator: Operator, moments: FloatArray, tol: float) -> Solved:
    r"""Solve the normal equations by preconditioned conjugate gradients.

    Parameters
    ----------
    operator : Operator
        The matrix, ``ridge`` included.
    moments : (p, q) float64 array
        The right-hand side.
    tol : float
        Stop where the residual is less by this factor, in the norm of the inverse
        preconditioner. A plain norm would see little but the mean of a bright source.

    Returns
    -------
    Solved
        The taps, (p, q), by shift.

    Raises
    ------
    SingularFitError
        If a direction has no positive curvature, or the residual is still too large after 2000
        iterations.

    Notes
    -----
    The preconditioner is the circulant matrix nearest to the operator in the Frobenius norm
    [1]_ [2]_. It is that of the valid problem, not of the zero-extended one, whose outputs beyond
    a bright source's frame would hide its mean. Being made of Rayleigh quotients, it is positive
    definite where the operator is.

    References
    ----------
    .. [1] T. F. Chan, "An optimal circulant preconditioner for Toeplitz systems", SIAM J. Sci.
       Stat. Comput. 9 (1988) 766-771.
    .. [2] R. H. Chan and M. K. Ng, "Conjugate gradient methods for Toeplitz systems", SIAM Review
       38 (1996) 427-482.
    """
    shape = operator.shape
    eigenvalues = operator.eigenvalues + operator.ridge
    if not eigenvalues.min() > moments.size * _EPS * eigenvalues.max():
        flat = bool((eigenvalues > moments.size * _EPS * eigenvalues.max()).sum() <= 1)
        cause = "the source is flat" if flat else "the source lacks frequencies"
        msg = f"the images do not determine the kernel: {cause}. {_HELP}"
        raise SingularFitError(msg)

    def precondition(residual: FloatArray) -> FloatArray:
        return np.asarray(fft.irfft2(fft.rfft2(residual) / eigenvalues, shape))

    taps, residual = np.zeros(shape), moments
    direction = precondition(residual)
    size = first = float(np.sum(residual * direction))
    for iteration in range(_MAX_ITER):
        if size <= tol**2 * first:
            return Solved(taps, iteration)
        image = operator(direction)
        curvature = float(np.sum(direction * image))
        if not curvature > 0:
            break
        step = size / curvature
        taps, residual = taps + step * direction, residual - step * image
        ahead = precondition(residual)
        size, last = float(np.sum(residual * ahead)), size
        direction = ahead + size / last * direction
    msg = (
        "the images do not determine the kernel: its equations are too close to singular for "
        f"conjugate gradients. {_HELP}"
    )
    raise SingularFitError(msg)


def condition_number(operator: Operator) -> float:
    """Estimate the condition number of the operator, or refuse it.

    The largest and the least of the Rayleigh quotients of all Fourier vectors and of one step of
    inverse iteration from random taps (the same every time) are divided: an estimate from below,
    in the 2-norm. Moments alone would not do: they lie where the source shows its taps, so that
    conjugate gradients converge without a sign of what it does not show.

    Raises
    ------
    SingularFitError
        If the estimate passes ``1 / (p * q * eps)``, or the step fails.
    """
    start = np.random.default_rng(0).standard_normal(operator.shape)
    taps = conjugate_gradients(operator, start, _PROBE_TOL).taps
    quotient = float(np.sum(taps * operator(taps)) / np.sum(taps * taps))
    eigenvalues = operator.eigenvalues + operator.ridge
    largest, least = float(eigenvalues.max()), min(float(eigenvalues.min()), quotient)
    if not least > start.size * _EPS * largest:
        msg = (
            "the images do not determine the kernel: the source does not tell all of its "
            f"{start.size} taps apart. {_HELP}"
        )
        raise SingularFitError(msg)
    return largest / least


def residual_moments(
    pairs: Sequence[Pair], taps: FloatArray, workers: int
) -> tuple[FloatArray, float]:
    """Return the moments and the energy of what a kernel leaves unexplained, by transforms.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one, of finite pixels.
    taps : (p, q) float64 array
        The kernel by shift, that is flipped both ways.
    workers : int
        Threads to use.

    Returns
    -------
    moments : (p, q) float64 array
        Sums of the residual times the shifted source.
    energy : float
        Sum of the squared residual.
    """
    p, q = taps.shape
    grid = _tile_length(p), _tile_length(q)
    kernel = fft.rfft2(taps, grid).conj()

    def work(
        pair: Pair,
        tiles: Sequence[tuple[int, int, int, int]],
        _: None,
        stopped: Callable[[], bool],
    ) -> tuple[FloatArray, float]:
        total, energy, window = np.zeros(kernel.shape, np.complex128), 0.0, pair.window
        for top, left, height, width in tiles:
            if stopped():
                break
            x, y = np.empty((height + p - 1, width + q - 1)), np.empty((height, width))
            load(pair.source, window.source_pixel(top, left), window.boundary, x)
            load(pair.result, window.result_pixel(top, left), window.boundary, y)
            spectrum = fft.rfft2(x, grid)
            y -= fft.irfft2(spectrum * kernel, grid)[:height, :width]
            energy += float(np.sum(y * y))
            total += spectrum * fft.rfft2(y, grid).conj()
        return fft.irfft2(total, grid)[:p, :q], energy

    moments, energy = np.zeros((p, q)), 0.0
    for pair in pairs:
        tiles = Tiles(pair.window.shape, (grid[0] - p + 1, grid[1] - q + 1))
        shares = list(split(len(tiles), -(-len(tiles) // MAX_JOBS)))
        jobs = [partial(work, pair, tiles[start:stop]) for start, stop in shares]
        for part, part_energy in run_jobs(jobs, lambda: None, workers):
            moments += part
            energy += part_energy
    return moments, energy


def _tile_length(k: int) -> int:
    return int(fft.next_fast_len(max(256, 4 * k), real=True))


def unformed_penalty(options: Options, kernel_shape: Shape) -> float:
    """Return the penalty of options that can be served without a Gram matrix, or raise.

    Raises
    ------
    ValueError
        The message says which solvers do what is asked.
    """
    options.refuse_shape(kernel_shape)
    taps = f"the {math.prod(kernel_shape)} taps of kernel_shape {kernel_shape}"
    penalty = options.penalty
    if options.solver == "minimum_norm" or options.separable or penalty is None:
        msg = (
            "solver='minimum_norm', separable=True and ridge='gcv' need the normal equations, "
            f"which are not formed for {taps}; use a smaller kernel_shape, or "
            "normal_equations(...).solve(...) if you have "
            f"{8 * math.prod(kernel_shape) ** 2 / 2**30:.1f} GiB of memory and the time"
        )
        raise ValueError(msg)
    constrained = options.nonnegative or options.unit_sum or options.symmetric or options.smooth
    if constrained and not options.descends:
        msg = (
            "nonnegative, unit_sum, symmetric and ridge=('smooth', ...) go with "
            f"solver='gradient_descent' and 'fista' for {taps}, got solver={options.solver!r}"
        )
        raise ValueError(msg)
    return penalty


def _descended(
    operator: Operator,
    pairs: Sequence[Pair],
    moments: FloatArray,
    energy: float,
    n_pixels: int,
    ridge: float,
    options: Options,
    progress: Progress | None,
) -> KernelFit:
    """Descend on the operator: whatever a kernel must be, it must be when flipped."""
    penalty = Penalty(ridge * n_pixels, options.smooth)
    # A smoothness penalty only adds to what stands here.
    operator.ridge = 0.0 if penalty.smooth else penalty.weight
    condition = condition_number(operator)
    operator.ridge, hidden = 0.0, 4 * _EPS * energy
    found = descend(operator, moments, energy, hidden, n_pixels, penalty, options, progress)
    _, energy = residual_moments(pairs, found.taps, operator.workers)
    return KernelFit(
        kernel=np.ascontiguousarray(found.taps[::-1, ::-1]),
        residual_rms=math.sqrt(energy / n_pixels),
        condition_number=condition,
        rank=found.taps.size,
        n_pixels=n_pixels,
        method="lstsq",
        solver=options.solver,
        equations=None,
        _factor=None,
        num_iter=found.num_iter,
        converged=found.converged,
        history=found.history,
        ridge=ridge,
    )


def fit_large(
    pairs: Sequence[Pair],
    kernel_shape: Shape,
    ridge: float,
    workers: int,
    progress: Progress | None = None,
    options: Options | None = None,
) -> KernelFit:
    r"""Fit a kernel of many taps without a Gram matrix.

    Minimises :math:`\|X k - y\|^2 + \lambda n \|k\|^2`, where ``n`` counts the pixels, by
    conjugate gradients or by a descent.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one, of windows for this kernel.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    ridge : float
        Penalty :math:`\lambda \ge 0`, in squared source units. 0 is plain least squares.
    workers : int
        Threads to use. The answer is the same bit for bit.
    progress : callable, optional
        Called as ``progress(done, total)`` while the pixels are first read, then with the
        iterations of a descent.
    options : Options, optional
        A descent, and its constraints; its ``ridge`` is what counts if it is given. None for
        conjugate gradients.

    Returns
    -------
    KernelFit
        Without ``equations``, and with ``standard_errors`` of NaN: both need the Gram matrix.
        ``condition_number`` is an estimate from below, in the 2-norm.

    Raises
    ------
    SingularFitError
        If there are fewer pixels than taps, or the source does not tell the taps apart.
    ValueError
        If a pixel that is used is not finite, the sums overflow, the step of a descent is too
        large, or the options need the Gram matrix.

    Notes
    -----
    The pixels are read once for the sums. A descent ends there, but for the residual. After a
    solve they are read again: the residual,
    computed pixel by pixel, gives the moments that the next solve corrects the taps by, so that
    rounding reaches the taps at about the square root of ``condition_number`` times 1e-16 of
    their size, and a small residual is seen. Memory: see `Operator`.
    """
    options = options or Options(ridge=ridge)
    ridge = unformed_penalty(options, kernel_shape)
    # The rims of a dataset are read again and again: hold it.
    pairs = held(pairs)
    n_pixels = sum(pair.window.n_pixels for pair in pairs)
    if ridge == 0:
        refuse_too_few(n_pixels, math.prod(kernel_shape))
    moments, energy, autocorrelations = np.zeros(kernel_shape), 0.0, []
    with np.errstate(over="ignore", invalid="ignore"):
        for _, found in gather_correlations(pairs, kernel_shape, workers, progress):
            moments += found.moments
            energy += found.energy
            autocorrelations.append(found.base)
        refuse_unusable(pairs, np.asarray(autocorrelations), moments, energy)
    operator = Operator(pairs, autocorrelations, workers)
    if options.descends:
        return _descended(operator, pairs, moments, energy, n_pixels, ridge, options, progress)
    operator.ridge = ridge * n_pixels
    condition = condition_number(operator)
    taps = conjugate_gradients(operator, moments, _TOL).taps
    last = math.inf
    for _ in range(_MAX_REFINEMENTS):
        left, energy = residual_moments(pairs, taps, workers)
        step = conjugate_gradients(operator, left - operator.ridge * taps, _REFINE_TOL).taps
        size = float(np.abs(step).max())
        if not size < last / 2:
            break
        without_ridge = operator(step) - operator.ridge * step
        energy += float(np.sum(step * (without_ridge - 2 * left)))
        taps, last = taps + step, size
        if size <= _REFINED * float(np.abs(taps).max()):
            break
    return KernelFit(
        kernel=np.ascontiguousarray(taps[::-1, ::-1]),
        residual_rms=math.sqrt(max(energy, 0.0) / n_pixels),
        condition_number=condition,
        rank=taps.size,
        n_pixels=n_pixels,
        method="lstsq",
        solver="conjugate_gradients",
        equations=None,
        _factor=None,
        ridge=ridge,
    )
