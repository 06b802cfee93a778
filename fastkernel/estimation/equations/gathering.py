"""Images in, sums over their pixels out.

Sums add up in the order of the jobs, so the number of workers does not change a bit of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from fastkernel._images.borders import load
from fastkernel._images.checks import refuse_beyond_memory
from fastkernel._images.pairs import Pair, refuse_unusable
from fastkernel._loops import rims
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import never, own_scratch
from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.equations.gathering_cost import ENGINES, choose_engine, is_narrow
from fastkernel.estimation.equations.gathering_engines import (
    RimJob,
    is_whole,
    rim_jobs,
    tile_jobs,
)
from fastkernel.estimation.equations.row_jobs import FftJob, Found
from fastkernel.estimation.equations.sweeps import Job, each_pair

# Matrices of their size that are held at a time while equations are formed, and solved.
_GRAMS = 4


class Sums(NamedTuple):
    """What a least-squares fit needs to know about its pixels; shifts in correlation order."""

    gram: FloatArray
    moments: FloatArray
    energy: float

    def plus(self, other: Sums) -> Sums:
        """Return the sums over the pixels of both."""
        return Sums(
            self.gram + other.gram, self.moments + other.moments, self.energy + other.energy
        )


def _gram(pair: Pair, kernel_shape: Shape, pieces: Sequence[tuple[Job[Any], Any]]) -> FloatArray:
    """Return the Gram matrix: that of the one job, or what tiles and the strips at rims make."""
    job, first = pieces[0]
    if first.gram is not None:
        whole: FloatArray = first.gram
        return whole
    p, q = kernel_shape
    base = np.zeros((p, 2 * q - 1) if isinstance(job, FftJob) else (2, p, q))
    strips = np.zeros((2, q, p - 1, p - 1)), np.zeros((2, p, q - 1, q - 1))
    for job, found in pieces:
        if isinstance(found, Found):
            base += found.base
        elif isinstance(job, RimJob):
            np.add(strips[job.axis], found, out=strips[job.axis])
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
    gram = np.empty((p * q, p * q))
    rims.fill_gram(base[0], base[1], columns, rows, corners, np.empty((q, q)), True, gram)
    return gram


def gather(
    pairs: Sequence[Pair],
    kernel_shape: Shape,
    run: Run,
    engine: str = "auto",
    whole: Sequence[Pair] | None = None,
) -> Sums:
    """Return the sums of all pairs.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    run : Run
        How.
    engine : {"auto", "integer", "float", "fft"}, optional
        How to sum; by the model of cost for "auto".
    whole : sequence of Pair, optional
        The pairs of which these are blocks, for messages.

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
    refuse_beyond_memory(
        _GRAMS * 8 * (p * q) ** 2,
        f"the equations of a kernel of {p} by {q} taps",
        "use a smaller kernel_shape",
    )

    def make_jobs(_: int, pair: Pair) -> Sequence[Job[Any]]:
        chosen = engine
        if engine == "auto":
            chosen = choose_engine(pair.source, pair.result, pair.window.shape, kernel_shape)
        jobs = tile_jobs(pair, kernel_shape, chosen)
        return jobs if is_whole(jobs) else [*jobs, *rim_jobs(pair, kernel_shape)]

    alone = make_jobs(0, pairs[0]) if len(pairs) == 1 and not pairs[0].lazy else None
    if alone is not None and is_whole(alone):
        sums = _one_job(alone[0], run, pairs[0].window.n_pixels)
        refuse_unusable(whole or pairs, *sums)
        return sums
    gram, moments, energy = np.zeros((p * q, p * q)), np.zeros(p * q), 0.0
    # Pixels that are not finite show in the sums; looking for them first would cost a pass.
    with np.errstate(over="ignore", invalid="ignore"):
        known = make_jobs if alone is None else lambda *_: alone
        for pair, pieces in each_pair(pairs, kernel_shape, known, run, 3 * p * q):
            for _, found in pieces:
                if isinstance(found, Found):
                    moments += found.moments.ravel()
                    energy += found.energy
            gram += _gram(pair, kernel_shape, pieces)
    refuse_unusable(whole or pairs, gram, moments, energy)
    return Sums(gram, moments, energy)


def _one_job(job: Job[Found], run: Run, n_pixels: int) -> Sums:
    """Return what one job finds of a whole pair: what does it all is worth no thread, no sum."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = job(own_scratch(), never)
    if run.progress is not None:
        run.progress(n_pixels, n_pixels)
    return Sums(cast(FloatArray, found.gram), found.moments.ravel(), found.energy)


def gather_correlations(
    pairs: Sequence[Pair], kernel_shape: Shape, run: Run
) -> Iterator[tuple[Pair, Found]]:
    """Yield every pair with its moments, autocorrelation and energy, and no Gram matrix.

    The autocorrelation is that of the whole virtual source, zeros beyond it, at all shifts that
    differ by less than a kernel.
    """

    def make_jobs(_: int, pair: Pair) -> Sequence[Job[Any]]:
        return tile_jobs(pair, kernel_shape, "fft")

    work = 3 * kernel_shape[0] * kernel_shape[1]
    for pair, pieces in each_pair(pairs, kernel_shape, make_jobs, run, work):
        yield (
            pair,
            Found(
                sum(found.moments for _, found in pieces),
                sum(found.base for _, found in pieces),
                sum(found.energy for _, found in pieces),
            ),
        )


def as_engine(engine: str, pairs: Sequence[Pair]) -> str:
    """Return the engine, checked against what it can do."""
    if engine not in ("auto", *ENGINES):
        msg = f"engine must be 'auto', {', '.join(map(repr, ENGINES))}, got {engine!r}"
        raise ValueError(msg)
    wide = [p for p in pairs if not is_narrow(p.source, p.result)]
    if engine == "integer" and wide:
        dtypes = f"{wide[0].source.dtype} and {wide[0].result.dtype}"
        msg = f"engine='integer' needs images of at most 8 bits, got {dtypes}; use 'auto'"
        raise ValueError(msg)
    return engine
