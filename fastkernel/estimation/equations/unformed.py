"""The Gram matrix of a kernel of many taps: applied by transforms, and never formed."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from fastkernel._images.borders import load
from fastkernel._images.pairs import Pair, refuse_unusable
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import run_jobs, split
from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.equations.gathering import gather_correlations

# Pieces of a strip, each about a kernel long, that are held at a time.
SEGMENTS = 32
# Lines of a strip whose products with all others one job finds: few enough that BLAS does not
# start threads of its own.
LINES = 16


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


@dataclass(frozen=True, slots=True)
class UnformedEquations:
    """Normal equations whose Gram matrix is applied; taps are by shift.

    Attributes
    ----------
    operator : Operator
        The Gram matrix.
    moments : (p, q) float64 array
        In source times result units.
    energy : float
        Of the result, in squared result units.
    n_pixels : int
        Of the result.
    """

    operator: Operator
    moments: FloatArray
    energy: float
    n_pixels: int


def unformed_equations(pairs: Sequence[Pair], kernel_shape: Shape, run: Run) -> UnformedEquations:
    """Gather the equations of pairs in memory; the parameters are those of `gather`."""
    moments, energy, autocorrelations = np.zeros(kernel_shape), 0.0, []
    with np.errstate(over="ignore", invalid="ignore"):
        for _, found in gather_correlations(pairs, kernel_shape, run):
            moments += found.moments
            energy += found.energy
            autocorrelations.append(found.base)
        refuse_unusable(pairs, np.asarray(autocorrelations), moments, energy)
    n_pixels = sum(pair.window.n_pixels for pair in pairs)
    operator = Operator(pairs, autocorrelations, run.workers)
    return UnformedEquations(operator, moments, energy, n_pixels)
