"""Restoration that assumes nothing beyond the frame, by conjugate gradients."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from fastkernel._images.checks import float_dtype, refuse_non_finite
from fastkernel._images.windows import centre
from fastkernel._loops import filters as loops
from fastkernel._machine.image_transforms import (
    RowSpectra,
    change_rows,
    columns_of,
    invert_rows,
    row_spectra,
    transform_columns,
)
from fastkernel._machine.tiles import Scratch, run_jobs, split
from fastkernel._typing import AnyArray, FloatArray, Progress, Shape
from fastkernel.restoration.framing import Regulariser, extended, in_corner

# The residual of the normal equations to stop at, as a share of the first guess's, both over the
# circulant divisor. On photographs that takes from 70 to 230 iterations, and what is left to
# change is a few percent of the error; ten times closer takes three to five times as many.
TOLERANCE = 1e-2

MAX_ITERATIONS = 200

# Or where the last ten steps lowered what is minimised, which noise keeps up, by less than this
# share of it: noise hides what is left to change. On two photographs, blurred by disks, motions and
# Gaussians, with noise of 0.2 to 3 percent, that takes from 14 to 116 iterations, from a sixth of
# those to the tolerance with much noise to all of them with little, and leaves errors at most 1.06
# times as large, most within 0.5 percent; told by three steps alone, up to 1.5 times.
HIDDEN = 5e-4
_LAST = 10


class _Unknown:
    """The normal equations of an image on a torus, of which the frame shows a part.

    Parameters
    ----------
    image : (m, n) array
        Of real numbers.
    psf : (p, q) float64 array
        Finite.
    penalty : callable
        Makes the regulariser of a frame.
    amount : float
        Its strength.
    workers : int
        Threads to use.

    Notes
    -----
    Every array of spectra holds columns of the transform contiguous. The blurred image stands in
    the torus so that its first rows and columns are those of the frame.

    Attributes
    ----------
    left : float
        What is minimised, of the first guess, times the pixels of the torus.
    """

    def __init__(
        self,
        image: AnyArray,
        psf: FloatArray,
        penalty: Callable[[Shape], Regulariser],
        amount: float,
        workers: int,
    ) -> None:
        self._image, self._amount, self._workers = image, amount, workers
        rows, frame = extended(image, (psf.shape[0], psf.shape[1]))
        dtype = float_dtype(image)
        spectra = row_spectra(rows, frame, dtype, workers)
        if not math.isfinite(spectra.energy):
            refuse_non_finite("image", image)
        m, n = frame
        self._scale = dtype.type(1 / (m * n))
        self._seen = image.size / (m * n)
        self._penalty = penalty(frame)
        self._counts = columns_of(n)
        # The rows that the frame shows, read or only written.
        self._shown = RowSpectra(spectra.panels, len(image), frame, 0.0)
        self._hidden = RowSpectra(spectra.panels, 0, frame, 0.0)
        shape = n // 2 + 1, m
        self._taps, self._x, self._residual, self._direction, self._product = (
            np.zeros(shape, spectra.panels.dtype) for _ in range(5)
        )
        self.left = self._guess(spectra, row_spectra(in_corner(psf), frame, dtype, workers))

    def _sides(self, columns: slice) -> tuple[FloatArray, FloatArray, float]:
        return self._penalty.across[columns], self._penalty.down, self._amount

    def _guess(self, image: RowSpectra, psf: RowSpectra) -> float:
        """Begin with the answer for an image that is extended; return what that leaves."""

        def begin(spectra: Sequence[AnyArray], columns: slice, _: Scratch) -> None:
            lines, taps = spectra
            self._taps[columns] = taps
            loops.filter_columns(lines, taps, *self._sides(columns))
            self._x[columns] = lines
            lines *= taps

        back = 0, self._shown.height
        transform_columns([image, psf], begin, self._workers, back=back)

        def miss(pixels: AnyArray, rows: slice) -> float:
            shown, given = pixels[:, : self._image.shape[1]], self._image[rows]
            shown *= -self._scale
            shown += given
            pixels[:, shown.shape[1] :] = 0
            return float(np.einsum("ij,ij", shown, given, dtype=np.float64, casting="same_kind"))

        missed = sum(change_rows(self._shown, miss, self._shown.height, self._workers))

        def adjoin(spectra: Sequence[AnyArray], columns: slice, _: Scratch) -> float:
            across, down, amount = self._sides(columns)
            return float(
                loops.normal_product(
                    self._taps[columns],
                    spectra[0],
                    self._x[columns],
                    across,
                    down,
                    -amount,
                    self._counts[columns],
                    self._residual[columns],
                )
            )

        drawn = sum(transform_columns([self._shown], adjoin, self._workers))
        # The squares of what is missed and of the penalty, from what both do to the answer.
        return missed / float(self._scale) - drawn

    def size(self, step: float = 0.0) -> float:
        """Take a step along the direction; return how large the residual is."""

        def work(columns: slice, _: None, stopped: Callable[[], bool]) -> float:  # noqa: ARG001
            return float(
                loops.descend(
                    self._taps[columns],
                    self._x[columns],
                    self._residual[columns],
                    self._direction[columns],
                    self._product[columns],
                    *self._sides(columns),
                    self._seen,
                    step,
                    self._counts[columns],
                )
            )

        width = self._shown.panels.shape[2]
        parts = [slice(*bounds) for bounds in split(len(self._taps), width)]
        jobs = [partial(work, columns) for columns in parts]
        return sum(run_jobs(jobs, lambda: None, self._workers))

    def turn(self, share: float) -> float:
        """Choose the next direction; return how much the equations bend along it."""

        def blur(spectra: Sequence[AnyArray], columns: slice, _: Scratch) -> None:
            loops.blur_direction(
                self._taps[columns],
                self._residual[columns],
                self._direction[columns],
                *self._sides(columns),
                self._seen,
                share,
                spectra[0],
            )

        transform_columns([self._hidden], blur, self._workers, back=(0, self._shown.height))

        def show(pixels: AnyArray, rows: slice) -> None:  # noqa: ARG001
            pixels[:, : self._image.shape[1]] *= self._scale
            pixels[:, self._image.shape[1] :] = 0

        change_rows(self._shown, show, self._shown.height, self._workers)

        def adjoin(spectra: Sequence[AnyArray], columns: slice, _: Scratch) -> float:
            return float(
                loops.normal_product(
                    self._taps[columns],
                    spectra[0],
                    self._direction[columns],
                    *self._sides(columns),
                    self._counts[columns],
                    self._product[columns],
                )
            )

        return sum(transform_columns([self._shown], adjoin, self._workers))

    def write(self, origin: Shape, out: AnyArray) -> None:
        """Write the part of the image that begins at ``origin``."""

        def read(spectra: Sequence[AnyArray], columns: slice, _: Scratch) -> None:
            spectra[0][:] = self._x[columns]

        transform_columns([self._hidden], read, self._workers, back=(origin[0], len(out)))
        invert_rows(self._hidden, out, origin[1], self._workers)


def restore_unknown(
    image: AnyArray,
    psf: FloatArray,
    penalty: Callable[[Shape], Regulariser],
    amount: float,
    out: AnyArray,
    workers: int,
    progress: Progress | None = None,
) -> int:
    r"""Restore what the frame shows of an image that reaches beyond it.

    Parameters
    ----------
    image : (m, n) array
        Of real numbers; refused if not finite.
    psf : (p, q) float64 array
        Finite.
    penalty : callable
        Makes the regulariser of a frame.
    amount : float
        Its strength ``s``, at least 0.
    out : (m, n) float32 or float64 array
        Overwritten.
    workers : int
        Threads to use. The answer is the same bit for bit.
    progress : callable, optional
        Called as ``progress(done, total)`` in the calling thread; an exception stops the work.

    Returns
    -------
    int
        Iterations taken.

    Notes
    -----
    The least of :math:`\|M (h * x) - y\|^2 + s \|l * x\|^2` over images on a torus that is
    larger than the frame by two reaches of the PSF at least; ``M`` keeps the frame. Conjugate
    gradients in the transform domain, preconditioned by the inverse of
    :math:`c |H|^2 + s |L|^2` with the frame's share ``c`` of the torus. An iteration takes two
    transforms. Memory: six times that of the torus in the precision of ``out``.
    """
    problem = _Unknown(image, psf, penalty, amount, workers)
    size = first = problem.size()
    share, count, left, gains = 0.0, 0, problem.left, deque([math.inf] * _LAST, _LAST)
    while size > TOLERANCE**2 * first and count < MAX_ITERATIONS and sum(gains) > HIDDEN * left:
        bend = problem.turn(share)
        if not bend > 0:
            break
        gains.append(size * size / bend)
        left -= gains[-1]
        last, size = size, problem.size(size / bend)
        share, count = size / last, count + 1
        if progress is not None:
            progress(count, MAX_ITERATIONS)
    i, j = centre((psf.shape[0], psf.shape[1]))
    problem.write((-i, -j), out)
    if progress is not None:
        progress(MAX_ITERATIONS, MAX_ITERATIONS)
    return count
