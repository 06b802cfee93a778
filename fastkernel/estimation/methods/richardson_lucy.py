"""Richardson-Lucy estimation of a kernel: source and kernel exchange their places."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastkernel._images.borders import load
from fastkernel._images.checks import as_count, as_flag, as_penalty, refuse_non_finite
from fastkernel._images.pairs import Pair, held, used_images
from fastkernel._loops import ratios, stencil
from fastkernel._machine.fft import borrowed_tile_transforms
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import Scratch, Tile, Tiles, shares, split
from fastkernel._typing import AnyArray, FloatArray, Shape
from fastkernel.convolution.convolution_cost import engine_times, fft_lengths
from fastkernel.errors import SingularFitError
from fastkernel.estimation.equations import gathering_engines as engines
from fastkernel.estimation.equations.background import background_sums
from fastkernel.estimation.equations.sweeps import View, each_pair, sweep
from fastkernel.estimation.fit import KernelFit, fit_of
from fastkernel.estimation.problem import Problem
from fastkernel.estimation.solvers.direct import refuse_too_few
from fastkernel.estimation.solvers.solution import Solution

_NUM_ITER, _TOL = 500, 1e-6

# What a convolution must pass to divide by it: a ratio to it is finite.
_FLOOR = 1e-150

# Share of a tile's largest value from which on the rounding of transforms, about 1e-16 of that
# value, is too small a part of a convolution to be seen in a ratio.
_SAFE = 1e-7

# Most of a tap that one extrapolation takes: at zero it would stay for ever.
_LEAST = 0.1


class _Expected(NamedTuple):
    """What a kernel makes of the sources, compared with the results.

    Attributes
    ----------
    moments : (p, q) float64 array
        By shift: sums of the ratio of result and convolution times the shifted source.
    likelihood, energy : float
        See `ratios.divide`.
    """

    moments: FloatArray
    likelihood: float
    energy: float


def _divide(y: FloatArray, convolved: FloatArray, scratch: Scratch) -> tuple[float, float]:
    """Divide in place; return the likelihood and the energy of the tile."""
    logarithms = scratch.array("logarithms", convolved.shape)
    # NumPy's logarithm works on whole vectors, one in a loop of Numba's does not.
    np.maximum(convolved, _FLOOR, out=logarithms)
    np.log(logarithms, out=logarithms)
    likelihood, energy = ratios.divide(y, convolved, logarithms, _FLOOR)
    return likelihood, energy


def _expect_directly(pairs: Sequence[Pair], taps: FloatArray, run: Run) -> _Expected:
    """Convolve, divide and correlate tap by tap."""

    def act(view: View, found: tuple[float, float] | None) -> tuple[float, float]:
        likelihood, energy = _divide(view.y, view.convolved, view.scratch)
        before = found or (0.0, 0.0)
        return before[0] + likelihood, before[1] + energy

    moments, likelihood, energy = np.zeros(taps.shape), 0.0, 0.0
    for _, part, sums in sweep(pairs, taps, act, run):
        moments += part
        likelihood += sums[0]
        energy += sums[1]
    return _Expected(moments, likelihood, energy)


@dataclass(frozen=True, slots=True)
class _TransformJob:
    """Some tiles of a pair, convolved and correlated by transforms.

    The products of spectra add up over the tiles, and are transformed back once.

    Attributes
    ----------
    pair : Pair
        What is read.
    taps : (p, q) float64 array
        The kernel by shift.
    spectrum : complex128 array
        Of ``taps``, conjugate and scaled for a transform back.
    lengths : (int, int)
        Shape of the transforms.
    tiles : sequence of tiles
        Parts of the window.
    """

    pair: Pair
    taps: FloatArray
    spectrum: NDArray[np.complex128]
    lengths: Shape
    tiles: Sequence[Tile]

    def __call__(self, scratch: Scratch, stopped: Callable[[], bool]) -> _Expected:
        (source, result, window), (p, q) = self.pair, self.taps.shape
        total = np.zeros(self.spectrum.shape, np.complex128)
        likelihood, energy = 0.0, 0.0
        with borrowed_tile_transforms(self.lengths, np.dtype(np.float64)) as plan:
            for top, left, height, width in self.tiles:
                if stopped():
                    break
                rows, cols = height + p - 1, width + q - 1
                plan.tile[rows:] = 0
                plan.tile[:rows, cols:] = 0
                load(
                    source,
                    window.source_pixel(top, left),
                    window.boundary,
                    plan.tile[:rows, :cols],
                )
                plan.forward()
                spectrum = scratch.array("spectrum", self.spectrum.shape, np.complex128)
                np.copyto(spectrum, plan.spectrum)
                np.multiply(spectrum, self.spectrum, out=plan.spectrum)
                plan.inverse()
                convolved = scratch.array("convolved", (height, width))
                y = scratch.array("y", (height, width))
                np.copyto(convolved, plan.tile[:height, :width])
                load(result, window.result_pixel(top, left), window.boundary, y)
                if ((convolved < _SAFE * convolved.max()) & (y > 0)).any():
                    self._convolve_directly((top, left, height, width), convolved, scratch)
                found = _divide(y, convolved, scratch)
                likelihood += found[0]
                energy += found[1]
                plan.tile[height:] = 0
                plan.tile[:height, width:] = 0
                plan.tile[:height, :width] = y
                plan.forward()
                np.conjugate(plan.spectrum, out=plan.spectrum)
                plan.spectrum *= spectrum
                total += plan.spectrum
            plan.spectrum[:] = total
            plan.inverse()
            moments = plan.tile[:p, :q] / math.prod(self.lengths)
        return _Expected(moments, likelihood, energy)

    def _convolve_directly(self, tile: Tile, convolved: FloatArray, scratch: Scratch) -> None:
        """Convolve a tile some of whose outputs are too dark for transforms."""
        (p, q), (top, left, height, width), window = self.taps.shape, tile, self.pair.window
        cols = width + q - 1
        x = scratch.array("x", (height + p - 1, stencil.row_length(cols, convolved.dtype)))
        load(self.pair.source, window.source_pixel(top, left), window.boundary, x[:, :cols])
        stencil.correlate_tile(x, (0, 0), self.taps, (height, width), convolved, 0, 0)


def _expect_by_transforms(pairs: Sequence[Pair], taps: FloatArray, run: Run) -> _Expected:
    """Convolve, divide and correlate by transforms of tiles."""
    (p, q), float64 = taps.shape, np.dtype(np.float64)

    def make_jobs(_: int, pair: Pair) -> list[_TransformJob]:
        lengths = fft_lengths(pair.window.shape, (p, q), 8)
        with borrowed_tile_transforms(lengths, float64) as plan:
            plan.tile[:] = 0
            plan.tile[:p, :q] = taps
            plan.forward()
            spectrum = plan.spectrum.conj() / math.prod(lengths)
        tiles = Tiles(pair.window.shape, (lengths[0] - p + 1, lengths[1] - q + 1))
        return [
            _TransformJob(pair, taps, spectrum, lengths, part)
            for part in shares(tiles, engines.MAX_JOBS)
        ]

    moments, likelihood, energy = np.zeros((p, q)), 0.0, 0.0
    for _, pieces in each_pair(pairs, (p, q), make_jobs, run):
        for _, found in pieces:
            moments += found.moments
            likelihood += found.likelihood
            energy += found.energy
    # Where all products are dark, rounding may leave less than nothing.
    return _Expected(moments.clip(0), likelihood, energy)


def _transforms_win(pairs: Sequence[Pair], kernel_shape: Shape) -> bool:
    """Tell whether two transforms there and one back take less time than two direct passes.

    FFTW takes 1.6 times as long for a tile as a pair of tiles takes for its half.
    """
    times = [engine_times(pair.window.shape, kernel_shape, 8) for pair in pairs]
    return 2 * sum(t["direct"] for t in times) > 1.5 * 1.6 * sum(t["fft"] for t in times)


def _refuse_negative(name: str, image: AnyArray, origin: Shape = (0, 0)) -> None:
    """Raise for the first pixel that is negative or not finite."""
    refuse_non_finite(name, image, origin)
    if image.dtype.kind in "bu":
        return
    for top, bottom in split(image.shape[0], 256):
        strip = image[top:bottom]
        if strip.min() < 0:
            row, col = (int(i) for i in np.argwhere(strip < 0)[0])
            msg = (
                f"{name} must not be negative for method='richardson_lucy', got "
                f"{strip[row, col]} at index {(row + top + origin[0], col + origin[1])}; "
                "subtract the background's level, clip such pixels to 0, or use method='lstsq'"
            )
            raise ValueError(msg)


def _check_pixels(pairs: Sequence[Pair], kernel_shape: Shape) -> None:
    """Raise for pixels that are negative or not finite, and for sources that tell nothing."""
    for name, image, origin in used_images(pairs):
        _refuse_negative(name, image, origin)

    def tells(pair: Pair) -> bool:
        source, _, window = pair
        # Zeros beyond the frame are detail, and one tap needs none.
        edged = window.boundary == "zero" and window.source_origin != (0, 0)
        plain = source.min() == source.max() and not edged and kernel_shape != (1, 1)
        return bool(source.max() > 0 and not plain)

    if not any(map(tells, pairs)):
        msg = (
            "the images do not determine the kernel: the source is flat. What helps: a source "
            "with more detail (edges or noise in every direction)"
        )
        raise SingularFitError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What "richardson_lucy" takes.

    Attributes
    ----------
    nonnegative : bool
        Without effect: no tap is negative.
    num_iter : int or None
        Most iterations; 500 when None.
    tol : float or None
        Stop where no tap changes by more than this share of the largest; 1e-6 when None. The
        changes of a slow iteration are less than its error.
    acceleration : bool
        Whether to extrapolate from one iterate to the next. Where that makes the likelihood
        fall, it starts afresh.

    Raises
    ------
    TypeError, ValueError
        If one is out of its range.
    """

    of_problem: ClassVar = ("boundary",)

    nonnegative: bool = False
    num_iter: int | None = None
    tol: float | None = None
    acceleration: bool = True

    def __post_init__(self) -> None:
        for name in ("nonnegative", "acceleration"):
            object.__setattr__(self, name, as_flag(getattr(self, name), name))
        if self.num_iter is not None:
            object.__setattr__(self, "num_iter", as_count(self.num_iter, "num_iter"))
        if self.tol is not None:
            object.__setattr__(self, "tol", as_penalty(self.tol, "tol"))


def fit(problem: Problem, options: Options, run: Run) -> KernelFit:
    r"""Estimate a nonnegative kernel by Richardson-Lucy iterations.

    Maximises the likelihood of a result whose pixels are counts with the convolution as their
    mean, by :math:`k \leftarrow k \cdot X^T(y / Xk) / X^T 1` from a flat kernel.

    Parameters
    ----------
    problem : Problem
        Images without negative pixels.
    options : Options
        When to stop, and whether to extrapolate [3]_.
    run : Run
        How; it hears of every iteration.

    Returns
    -------
    KernelFit
        Without equations, and so without standard errors and condition number (NaN).
        ``history["log_likelihood"]`` holds the Poisson log-likelihood, but for the terms of the
        result alone, of the kernel that every iteration started from (when accelerated: of the
        extrapolated one), and of the last.

    Raises
    ------
    SingularFitError
        If there are fewer pixels than taps, or every source is flat.
    ValueError
        If a pixel is negative or not finite.

    Notes
    -----
    An iteration reads every pixel once: a tile is convolved, divided and correlated while it is
    in cache, for large kernels by transforms. A pixel that no tap reaches is left out, and a tap
    under which the source is dark throughout is 0. The sum over the result is that over the
    convolution after every plain iteration. Directions in which the source has little detail take
    many iterations: stopped early, the kernel is smoother than that of largest likelihood [1]_,
    [2]_.

    References
    ----------
    .. [1] W. H. Richardson, "Bayesian-based iterative method of image restoration", J. Opt. Soc.
       Am. 62 (1972) 55-59.
    .. [2] L. B. Lucy, "An iterative technique for the rectification of observed distributions",
       Astron. J. 79 (1974) 745-754.
    .. [3] D. S. C. Biggs and M. Andrews, "Acceleration of iterative image restoration
       algorithms", Appl. Opt. 36 (1997) 1766-1775.
    """
    kernel_shape = problem.shape
    pairs = held(problem.pairs())
    n_pixels = sum(pair.window.n_pixels for pair in pairs)
    refuse_too_few(n_pixels, math.prod(kernel_shape))
    _check_pixels(pairs, kernel_shape)
    sums = [background_sums(pair, kernel_shape, 0, run.workers) for pair in pairs]
    seen = np.sum([part.products for part in sums], axis=0).reshape(kernel_shape)[::-1, ::-1]
    counts = sum(float(part.moments[0]) for part in sums)
    expect = partial(
        _expect_by_transforms if _transforms_win(pairs, kernel_shape) else _expect_directly,
        pairs,
        run=run.silent,
    )
    start = np.where(seen > 0, counts / seen.sum(), 0.0)
    history: list[float] = []

    def update(taps: FloatArray) -> FloatArray:
        found = expect(taps)
        history.append(found.likelihood)
        updated: FloatArray = np.zeros(kernel_shape)
        np.divide(taps * found.moments, seen, out=updated, where=seen > 0)
        return updated

    taps, done, converged = _iterate(update, start, history, options, run)
    last = expect(taps)
    history.append(last.likelihood)
    solution = Solution(
        taps=np.ascontiguousarray(taps[::-1, ::-1]),
        solver="biggs_andrews" if options.acceleration else "plain",
        rank=taps.size,
        num_iter=done,
        converged=converged,
        history={"log_likelihood": np.array(history)},
    )
    return fit_of(solution, last.energy, n_pixels, method="richardson_lucy")


def _iterate(
    update: Callable[[FloatArray], FloatArray],
    taps: FloatArray,
    history: Sequence[float],
    options: Options,
    run: Run,
) -> tuple[FloatArray, int, bool]:
    """Return the taps, how many updates were taken, and whether they met the tolerance.

    ``update`` extends ``history`` by the likelihood of the taps that it is given.
    """
    most = _NUM_ITER if options.num_iter is None else options.num_iter
    tol = _TOL if options.tol is None else options.tol
    point, last = taps, None
    for done in range(1, most + 1):
        updated = update(point)
        change = updated - point
        if run.progress is not None:
            run.progress(done, most)
        if np.abs(change).max() <= tol * updated.max():
            return updated, done, True
        share = 0.0
        if options.acceleration and last is not None and not history[-1] < history[-2]:
            share = float(np.clip(np.vdot(change, last) / np.vdot(last, last), 0.0, 1.0))
        point = np.maximum(updated + share * (updated - taps), _LEAST * updated)
        taps, last = updated, change
    return taps, most, False
