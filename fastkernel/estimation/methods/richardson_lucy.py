"""Richardson-Lucy estimation of a kernel: source and kernel exchange their places."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np

from fastkernel._images.borders import load
from fastkernel._images.checks import as_count, as_flag, as_penalty, refuse_non_finite
from fastkernel._images.extremes import refuse_extremes
from fastkernel._images.pairs import OMIT, Cleaned, Fitted, Pair, held, used_images
from fastkernel._loops import ratios, stencil
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import Scratch, Tile, split
from fastkernel._typing import AnyArray, FloatArray, Shape
from fastkernel.estimation.equations.source_sums import source_sums
from fastkernel.estimation.equations.sweeps import View, sweep
from fastkernel.estimation.equations.transformed_sweeps import (
    sweep_by_transforms,
    transforms_win,
)
from fastkernel.estimation.errors import SingularFitError
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


def _divide(
    pair: Pair, tile: Tile, y: FloatArray, convolved: FloatArray, scratch: Scratch
) -> tuple[float, float]:
    """Divide in place, times the weights; return the likelihood and the energy of the tile."""
    logarithms = scratch.array("logarithms", convolved.shape)
    # NumPy's logarithm works on whole vectors, one in a loop of Numba's does not.
    np.maximum(convolved, _FLOOR, out=logarithms)
    np.log(logarithms, out=logarithms)
    if pair.even:
        likelihood, energy = ratios.divide(y, convolved, logarithms, _FLOOR)
        return likelihood, energy
    weights = scratch.array("weights", convolved.shape)
    pair.load_weights(tile[0], tile[1], weights)
    pixels = y[:, : convolved.shape[1]]
    likelihood = float(np.sum(weights * (pixels * logarithms - convolved)))
    energy = float(np.sum(weights * (pixels - convolved) ** 2))
    reached = convolved > _FLOOR
    np.divide(weights * pixels, convolved, out=pixels, where=reached)
    pixels[~reached] = 0
    return likelihood, energy


def _expect(pairs: Sequence[Pair], taps: FloatArray, transforms: bool, run: Run) -> _Expected:
    """Convolve, divide and correlate, tap by tap or by transforms."""

    def act(view: View, found: tuple[float, float] | None) -> tuple[float, float]:
        pair, model = pairs[view.number], view.convolved
        if transforms and ((model < _SAFE * model.max()) & (view.y > 0)).any():
            _convolve_directly(pair, view, taps)
        likelihood, energy = _divide(pair, view.tile, view.y, model, view.scratch)
        before = found or (0.0, 0.0)
        return before[0] + likelihood, before[1] + energy

    moments, likelihood, energy = np.zeros(taps.shape), 0.0, 0.0
    each = sweep_by_transforms if transforms else sweep
    for _, part, sums in each(pairs, taps, act, run):
        moments += part
        likelihood += sums[0]
        energy += sums[1]
    # Where all products are dark, rounding may leave less than nothing.
    return _Expected(moments.clip(0), likelihood, energy)


def _convolve_directly(pair: Pair, view: View, taps: FloatArray) -> None:
    """Convolve a tile some of whose outputs are too dark for transforms."""
    (p, q), (top, left, height, width), window = taps.shape, view.tile, pair.window
    cols = width + q - 1
    shape = height + p - 1, stencil.row_length(cols, view.convolved.dtype)
    x = view.scratch.array("directly", shape)
    load(pair.source, window.source_pixel(top, left), window.boundary, x[:, :cols])
    stencil.correlate_tile(x, (0, 0), taps, (height, width), view.convolved, 0, 0)


def _refuse_negative(name: str, image: AnyArray, origin: Shape = (0, 0)) -> None:
    """Raise for the first pixel that is negative or not finite."""
    refuse_non_finite(name, image, origin, OMIT)
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
        source, _, window, *_ = pair
        if isinstance(source, Cleaned):
            source = source.good()
            if not source.size:
                return False
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

    of_problem: ClassVar = (
        *("boundary", "mask", "source_mask", "weights", "saturation", "nan_policy"),
    )

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
    n_pixels = sum(pair.n_pixels for pair in pairs)
    refuse_too_few(n_pixels, math.prod(kernel_shape))
    _check_pixels(pairs, kernel_shape)
    refuse_extremes(pairs, "richardson_lucy")
    seen, counts = source_sums(pairs, kernel_shape, run.silent)
    expect = partial(_expect, pairs, transforms=transforms_win(pairs, kernel_shape), run=run.silent)
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
    return fit_of(
        solution,
        last.energy,
        n_pixels,
        method="richardson_lucy",
        fitted=[Fitted.of(pair) for pair in pairs],
        total_weight=sum(pair.total_weight for pair in pairs),
    )


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
