"""Images in, sums over their pixels out.

Sums add up in the order of the jobs, so the number of workers does not change a bit of them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastkernel._images.borders import load
from fastkernel._images.checks import refuse_non_finite, refuse_overflow
from fastkernel._images.lazy import LazyImage, read
from fastkernel._images.windows import Window
from fastkernel._loops import rims
from fastkernel._machine.tiles import Scratch, run_jobs, split
from fastkernel._typing import FloatArray, Progress, Shape
from fastkernel.estimation.equations.gathering_cost import choose_engine
from fastkernel.estimation.equations.gathering_engines import (
    MAX_JOBS,
    FftJob,
    Found,
    Job,
    Pair,
    RimJob,
    residual_jobs,
    rim_jobs,
    tile_jobs,
)

# Multiply-adds below which threads cost more than they save.
THREADED_WORK = 40_000_000

# Least rows, and columns, of a block of an image that is read by slices: at most 16 MB of float64
# of each image is in memory at a time unless the kernel is taller than 128.
BLOCK_SHAPE = (256, 8192)


@dataclass(frozen=True, slots=True)
class Sums:
    """What a least-squares fit needs to know about its pixels; shifts in correlation order."""

    gram: FloatArray
    moments: FloatArray
    energy: float


def _gram(
    pair: Pair, kernel_shape: Shape, base: FloatArray, strips: Sequence[FloatArray]
) -> FloatArray:
    """Return the Gram matrix from what the tiles found and the strips of rows and of columns."""
    p, q = kernel_shape
    (top, left), (height, width) = pair.window.source_origin, pair.window.shape
    corners = np.empty((4, p - 1, q - 1))
    if corners.size:
        places = [(r, c) for r in (top, top + height) for c in (left, left + width)]
        for place, corner in zip(places, corners, strict=True):
            load(pair.source, place, pair.window.boundary, corner)
    if base.ndim == 2:
        autocorrelation, base = base, np.empty((2, p, q))
        entering = strips[1][1], strips[0][1], corners[3]
        rims.fill_base(autocorrelation, *entering, base[0], base[1])
    rows, columns = (entering - leaving for leaving, entering in strips)
    gram = np.empty((p, q, p, q))
    rims.fill_gram(base[0], base[1], columns, rows, corners, np.empty((q, q)), gram)
    return gram.reshape(p * q, p * q)


def _resident(pair: Pair, kernel_shape: Shape) -> Iterator[Pair]:
    """Yield a pair whole, or block by block where an image is read by slices.

    The sums of blocks add up. A block of the source keeps the rows that the next one needs, so
    nothing is read twice but the few columns that neighbours share in images wider than a block.
    """
    source, result, window = pair
    if not (isinstance(source, LazyImage) or isinstance(result, LazyImage)):
        yield pair
        return
    (p, q), (height, width) = kernel_shape, window.shape
    cols = min(width, BLOCK_SHAPE[1])
    rows = max(BLOCK_SHAPE[0], 2 * p)
    for left, right in split(width, cols):
        kept = np.empty((0, 0))
        for top, bottom in split(height, rows):
            shape = bottom - top, right - left
            part, origin, boundary = source, window.source_pixel(top, left), window.boundary
            if isinstance(source, LazyImage):
                # All of the first block, then what follows the rows that were kept.
                old = 0 if top == 0 else p - 1
                part = read(
                    source,
                    (origin[0] + old, origin[1]),
                    (shape[0] + p - 1 - old, shape[1] + q - 1),
                    boundary,
                )
                part = np.vstack([kept, part]) if old else part
                kept = part[len(part) - p + 1 :].copy()
                origin, boundary = (0, 0), "zero"
            answer, place = result, window.result_pixel(top, left)
            if isinstance(result, LazyImage):
                answer, place = read(result, place, shape, "zero"), (0, 0)
            yield Pair(part, answer, Window(origin, place, shape, boundary))


def _run(
    pairs: Sequence[Pair],
    kernel_shape: Shape,
    make_jobs: Callable[[Pair], list[Job]],
    workers: int,
    progress: Progress | None,
) -> Iterator[tuple[Pair, list[tuple[Job, Any]]]]:
    """Yield every pair, or block of one, with its jobs and what they found.

    A bounded number of jobs, and of blocks in memory, is under way at a time.
    """
    total = sum(pair.window.n_pixels for pair in pairs)
    done = 0

    def finish(batch: list[tuple[Pair, list[Job]]]) -> Iterator[tuple[Pair, list[tuple[Job, Any]]]]:
        nonlocal done
        jobs = [job for _, own in batch for job in own]
        pixels = sum(pair.window.n_pixels for pair, _ in batch)

        def report(finished: int, of: int) -> None:
            if progress is not None:
                progress(done + pixels * finished // of, total)

        found = iter(
            run_jobs(
                [job.work for job in jobs],
                Scratch,
                workers if 3 * pixels * math.prod(kernel_shape) > THREADED_WORK else 1,
                report,
            )
        )
        done += pixels
        for pair, own in batch:
            yield pair, [(job, next(found)) for job in own]

    batch: list[tuple[Pair, list[Job]]] = []
    for pair in pairs:
        for part in _resident(pair, kernel_shape):
            batch.append((part, make_jobs(part)))
            if part is not pair or sum(len(own) for _, own in batch) >= MAX_JOBS:
                yield from finish(batch)
                batch = []
    if batch:
        yield from finish(batch)


def gather(
    pairs: Sequence[Pair],
    kernel_shape: Shape,
    workers: int,
    progress: Progress | None = None,
    engine: str = "auto",
) -> Sums:
    """Return the sums of all pairs.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    workers : int
        Threads to use.
    progress : callable, optional
        Called as ``progress(done, total)``.
    engine : {"auto", "integer", "float", "fft"}, optional
        How to sum; by the model of cost for "auto".

    Returns
    -------
    Sums
        ``gram`` (p*q, p*q), ``moments`` (p*q,) by shift, and ``energy``.

    Raises
    ------
    ValueError
        If a pixel that is used is not finite, or the sums overflow.
    """
    p, q = kernel_shape

    def make_jobs(pair: Pair) -> list[Job]:
        chosen = engine
        if engine == "auto":
            chosen = choose_engine(pair.source, pair.result, pair.window.shape, kernel_shape)
        return [*tile_jobs(pair, kernel_shape, chosen), *rim_jobs(pair, kernel_shape)]

    gram, moments, energy = np.zeros((p * q, p * q)), np.zeros(p * q), 0.0
    # Pixels that are not finite show in the sums; looking for them first would cost a pass.
    with np.errstate(over="ignore", invalid="ignore"):
        for pair, pieces in _run(pairs, kernel_shape, make_jobs, workers, progress):
            transformed = isinstance(pieces[0][0], FftJob)
            base = np.zeros((p, 2 * q - 1) if transformed else (2, p, q))
            strips = np.zeros((2, q, p - 1, p - 1)), np.zeros((2, p, q - 1, q - 1))
            for job, found in pieces:
                if isinstance(job, RimJob):
                    np.add(strips[job.axis], found, out=strips[job.axis])
                else:
                    moments += found.moments.ravel()
                    base += found.base
                    energy += found.energy
            gram += _gram(pair, kernel_shape, base, strips)
    refuse_unusable(pairs, gram, moments, energy)
    return Sums(gram, moments, energy)


def gather_correlations(
    pairs: Sequence[Pair], kernel_shape: Shape, workers: int, progress: Progress | None = None
) -> Iterator[tuple[Pair, Found]]:
    """Yield every pair with its moments, autocorrelation and energy, and no Gram matrix.

    The autocorrelation is that of the whole virtual source, zeros beyond it, at all shifts that
    differ by less than a kernel.
    """
    for pair, pieces in _run(
        pairs, kernel_shape, lambda pair: tile_jobs(pair, kernel_shape, "fft"), workers, progress
    ):
        yield (
            pair,
            Found(
                sum(found.moments for _, found in pieces),
                sum(found.base for _, found in pieces),
                sum(found.energy for _, found in pieces),
            ),
        )


def gather_residual(
    pairs: Sequence[Pair], taps: FloatArray, workers: int
) -> tuple[FloatArray, float]:
    """Return the moments and the energy of what a kernel leaves unexplained.

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
    moments : (p*q,) float64 array
        Sums of the residual times the shifted source.
    energy : float
        Sum of the squared residual.
    """
    moments, energy = np.zeros(taps.size), 0.0
    shape = (taps.shape[0], taps.shape[1])
    for _, pieces in _run(pairs, shape, lambda pair: residual_jobs(pair, taps), workers, None):
        for _, found in pieces:
            moments += found.moments.ravel()
            energy += found.energy
    return moments, energy


def refuse_unusable(
    pairs: Sequence[Pair], gram: FloatArray, moments: FloatArray, energy: float
) -> None:
    """Raise if sums show that a pixel is not finite, or that its products are not."""
    if np.isfinite(gram).all() and np.isfinite(moments).all() and math.isfinite(energy):
        return
    for i, (source, result, window) in enumerate(pairs):
        (top, left), (height, width) = window.result_origin, window.shape
        index = f"[{i}]" if len(pairs) > 1 else ""
        used = result[top : top + height, left : left + width]
        refuse_non_finite(f"source{index}", source)
        refuse_non_finite(f"result{index}", used, window.result_origin)
    refuse_overflow()
