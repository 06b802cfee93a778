"""Least squares over all pixels: the exact fit, and what corrects its rounding."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar, get_args

import numpy as np

from fastkernel._images.checks import as_choice, as_flag, as_number
from fastkernel._images.pairs import Fitted, Pair, held
from fastkernel._machine.run import Run
from fastkernel._typing import Errors, FloatArray, Shape
from fastkernel.estimation.equations.background import as_background, coefficients_of
from fastkernel.estimation.equations.chosen_rows import rows_of
from fastkernel.estimation.equations.clipping import (
    between_ends,
    cleaned,
    clipped_share,
    moved_pixels,
    within,
)
from fastkernel.estimation.equations.formed import Gathered, gathered
from fastkernel.estimation.equations.gathering import as_engine
from fastkernel.estimation.equations.normal_equations import NormalEquations
from fastkernel.estimation.equations.plain_pairs import plain_sums
from fastkernel.estimation.equations.residual import (
    Beside,
    residual_moments_beside,
    residual_sums,
)
from fastkernel.estimation.equations.scatter import scatter_of
from fastkernel.estimation.equations.source_sums import noise_energies
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.fit import KernelFit, fit_of
from fastkernel.estimation.methods.lstsq_noisy import pull_of, with_less_ridge, with_ridge
from fastkernel.estimation.methods.lstsq_sampled import corrected, share_of_rows
from fastkernel.estimation.methods.lstsq_unformed import fit_unformed
from fastkernel.estimation.problem import Problem
from fastkernel.estimation.solvers.direct import Factor, refuse_too_few
from fastkernel.estimation.solvers.options import SolverOptions
from fastkernel.estimation.solvers.small import solve_shifts
from fastkernel.estimation.solvers.solution import Solution, System
from fastkernel.estimation.solvers.solve import solve

_EPS = float(np.finfo(np.float64).eps)

# Taps beyond which the equations are not formed: they would take 128 MiB, and a minute soon.
FORMED = 4096

# Share of the taps' size that rounding may reach before the pixels are read again, and how often.
_ROUNDING_ALLOWED = 1e-11
MAX_REFINEMENTS = 3

# Times what rounding hides of the energy, up to which all of it may be rounding: 2.1 was the most
# of 141 exact pairs.
_HIDDEN = 4.0

# Root mean square, in levels, that rounding alone may leave; and the part of a residual that is
# left without pixels at the ends of their range, from which down they are taken for cut off.
ROUNDED, CUT_OFF = 0.32, 2 / 3

# Standard deviations within which enough of a normal distribution is left; how often pixels are
# clipped, and how often those may come back that were.
_LEAST_CLIP = 1.5
_MAX_CLIPS, _MAX_RETURNS = 40, 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(SolverOptions):
    """What "lstsq" takes: what its solvers do, and what it does with pixels.

    Attributes
    ----------
    engine : str
        How pixels are summed.
    sigma_clip : float or None
        How many standard deviations a residual may be.
    errors : {"even", "robust"}
        Whether error bars take noise to be alike everywhere and white.
    absolute_sigma : bool
        Whether weights are inverse variances as they stand.
    """

    of_problem: ClassVar = (
        *("boundary", "background", "mask", "source_mask", "weights", "saturation"),
        *("nan_policy", "source_variance"),
    )

    engine: str = "auto"
    sigma_clip: float | None = None
    errors: str = "even"
    absolute_sigma: bool = False

    def __post_init__(self) -> None:
        SolverOptions.__post_init__(self)
        as_choice(self.errors, "errors", get_args(Errors))
        object.__setattr__(self, "absolute_sigma", as_flag(self.absolute_sigma, "absolute_sigma"))
        if self.absolute_sigma and self.errors == "robust":
            msg = (
                "absolute_sigma=True takes the weights for inverse variances and errors='robust' "
                "takes no noise for known: choose one"
            )
            raise ValueError(msg)
        if self.sigma_clip is not None:
            sigma = as_number(self.sigma_clip, "sigma_clip")
            if not sigma >= _LEAST_CLIP:
                msg = (
                    f"sigma_clip must be at least {_LEAST_CLIP}, got {sigma}: of normal noise "
                    "too little would be left to know its size by"
                )
                raise ValueError(msg)
            object.__setattr__(self, "sigma_clip", sigma)


_PLAIN, _ALONE = Options(), Run()


@dataclass(frozen=True, slots=True)
class _Fit:
    """A fit under way: the pixels, what they add up to, and the kernel that these say."""

    pairs: list[Pair]
    sums: Gathered
    equations: NormalEquations
    solution: Solution
    energy: float
    given: list[FloatArray] | None = None

    @property
    def exact(self) -> bool:
        """Whether the equations are those of all rows."""
        return self.given is None

    @property
    def whole(self) -> System:
        """What the pixels add up to, noise included, less the backgrounds."""
        return self.sums.equations(self.equations.kernel_shape).system

    @property
    def flipped(self) -> FloatArray:
        """The kernel by shift."""
        return np.ascontiguousarray(self.solution.taps[::-1, ::-1])

    @property
    def coefficients(self) -> list[FloatArray]:
        """Those of the best backgrounds, or where the equations do not tell them, as given."""
        if self.given is not None:
            return self.given
        return [coefficients_of(part, self.solution.taps) for part in self.sums.backgrounds]

    @property
    def beside(self) -> Beside | None:
        """The best backgrounds."""
        if not self.sums.backgrounds:
            return None
        return Beside.of(self.pairs, self.sums.backgrounds, self.coefficients)


def fit(problem: Problem, options: Options, run: Run) -> KernelFit:
    """Gather, solve, and correct what rounding did; see `estimate_kernel`."""
    shape, pairs = problem.shape, problem.pairs()
    engine = as_engine(options.engine, pairs)
    options.refuse_shape(shape)
    # Where a side is 1 or 2 the equations are no larger than what replaces them.
    if math.prod(shape) > FORMED and min(shape) > 2:
        _refuse_formed(problem, options, pairs)
        return fit_unformed(pairs, shape, options, run)
    noisy = any(pair.source_variance is not None for pair in pairs)
    if options.sigma_clip is not None or options.errors == "robust" or noisy:
        pairs = held(pairs)
    if noisy and options.absolute_sigma:
        msg = (
            "absolute_sigma=True takes the weights for the inverse variances of all noise, "
            "beside which source_variance tells of more: leave one out"
        )
        raise ValueError(msg)
    unasked = noisy and options.ridge == 0.0 and options.basis is None
    if unasked:
        options = with_ridge(options, pairs)
    found = _first(pairs, problem, options, engine, run)
    if problem.may_be_clipped and found.exact:
        found = _unsaturated(found, shape, options, run)
    if options.sigma_clip is not None:
        found = _clipped(found, shape, options, options.sigma_clip, run)
    plain = found.exact and not (options.smooth or noisy)
    factor = found.solution.factor
    if factor is not None and plain and _rounding_shows_in(found):
        found = _refined(found, factor, run)
    scatter = None
    if factor is not None and (options.errors == "robust" or noisy):
        scatter = _scatter(found, run)
    if scatter is not None and noisy:
        system = found.equations.system
        if unasked:
            solution = with_less_ridge(system, options, found.solution, scatter)
            found = replace(
                found, solution=solution, energy=found.whole.residual_energy(solution.taps)
            )
            scatter = _scatter(found, run)
        # By how much the penalty moves the taps is an error of theirs.
        pull = pull_of(system, found.solution, smooth=options.smooth)
        scatter += np.outer(pull, pull)
    return _answer(found, options, scatter)


def fit_plain(source: Any, result: Any, kernel_shape: Any) -> KernelFit | None:
    """Fit a small pair of which only the kernel's shape is asked.

    Parameters
    ----------
    source, result, kernel_shape
        As in `estimate_kernel`, not checked.

    Returns
    -------
    KernelFit or None
        What `fit` returns, bit for bit. None where there may be more to do, or to say.
    """
    summed = plain_sums(source, result, kernel_shape)
    if summed is None:
        return None
    pair, sums, shape = summed
    energy, n_pixels = sums.sums.energy, sums.n_pixels
    gram, moments, solution = solve_shifts(*sums.sums, shape)
    if solution is None:
        return None
    equations = NormalEquations(gram, moments, energy, n_pixels, shape)
    left = max(solution.energy, equations.hidden_energy)
    fit = _unsaturated(_Fit([pair], sums, equations, solution, left), shape, _PLAIN, _ALONE)
    if fit.solution.factor is not None and _rounding_shows_in(fit):
        fit = _refined(fit, fit.solution.factor, _ALONE)
    return _answer(fit, _PLAIN, None)


def _first(pairs: list[Pair], problem: Problem, options: Options, engine: str, run: Run) -> _Fit:
    """Fit all pixels that are used, by all of their rows, or by some and corrections."""
    shape, degree = problem.shape, problem.background
    # Corrections keep what equations alone constrain.
    direct = options.solver == "auto" and not (options.nonnegative or options.separable)
    noisy = any(pair.source_variance is not None for pair in pairs)
    if direct and options.sigma_clip is None and not noisy:
        share = share_of_rows(pairs, shape, degree)
        if share < 1:
            # What some rows say may be singular where what all say is not.
            with suppress(SingularFitError):
                sums = gathered(pairs, shape, degree, run, engine, share)
                some = _solved_sums(pairs, sums, shape, options, run)
                found = _corrected(some, options, run)
                if found is not None:
                    return found
    reading, solving = run, run
    if options.descends or options.separable:
        reading, solving = run.halves(sum(pair.window.n_pixels for pair in pairs))
    sums = gathered(pairs, shape, degree, reading, engine)
    return _solved_sums(pairs, sums, shape, options, solving)


def _answer(found: _Fit, options: Options, scatter: FloatArray | None) -> KernelFit:
    """Return what was found as a `KernelFit`."""
    both = zip(found.sums.backgrounds, found.coefficients, strict=True)
    beside = [as_background(*part) for part in both]
    return fit_of(
        found.solution,
        found.energy,
        found.equations.n_pixels,
        method="lstsq",
        equations=found.equations if found.exact else None,
        background_terms=found.equations.background_terms,
        total_weight=found.equations.total_weight,
        background=(beside[0] if len(beside) == 1 else np.array(beside)) if beside else None,
        fitted=[Fitted.of(pair) for pair in found.pairs],
        scatter=scatter,
        absolute=options.absolute_sigma,
    )


def _corrected(found: _Fit, options: Options, run: Run) -> _Fit | None:
    """Correct what the equations of some rows say; None if that does not work."""
    factor = found.solution.factor
    if factor is None:
        return None
    smooth = options.smooth
    end = corrected(found.pairs, found.sums, found.solution, factor, smooth=smooth, run=run)
    if end is None:
        return None
    solution, energy, coefficients = end
    return replace(found, solution=solution, energy=energy, given=coefficients)


def _refuse_formed(problem: Problem, options: Options, pairs: Sequence[Pair]) -> None:
    """Raise for what needs the equations, where these are not formed."""
    asked = {
        "background": (problem.background is not None, "subtract it from result"),
        "mask, weights and saturation": (
            any(not pair.even for pair in pairs),
            "crop to pixels that are good",
        ),
        "source_variance": (
            any(pair.source_variance is not None for pair in pairs),
            "leave it out",
        ),
        "sigma_clip": (options.sigma_clip is not None, "mask what sticks out"),
        "errors='robust'": (options.errors == "robust", "leave it out"),
    }
    for name, (given, instead) in asked.items():
        if given:
            msg = (
                f"{name} goes with kernels of at most {FORMED} taps, got kernel_shape "
                f"{problem.shape}; {instead}, or use a smaller kernel_shape"
            )
            raise ValueError(msg)


def _scatter(found: _Fit, run: Run) -> FloatArray:
    """Return how the scores of a fit scatter."""
    backgrounds, gram = found.sums.backgrounds, found.whole.gram
    return scatter_of(found.pairs, found.flipped, found.beside, backgrounds, gram, run)


def _solved_sums(
    pairs: list[Pair], sums: Gathered, shape: Shape, options: Options, run: Run
) -> _Fit:
    """Solve what sums say, less what the source's noise adds to them."""
    equations = whole = sums.equations(shape)
    noisy = any(pair.source_variance is not None for pair in pairs)
    if noisy:
        noise = noise_energies(pairs, shape, run.silent)
        equations = replace(whole, gram=whole.gram - np.diag(noise))
    try:
        solution = solve(equations.system, options, run.progress)
    except SingularFitError as reason:
        if not noisy:
            raise
        msg = f"{reason}, or a smaller source_variance"
        raise SingularFitError(msg) from reason
    system = whole.system
    energy = system.residual_energy(solution.taps) if noisy else system.energy_left(solution)
    return _Fit(pairs, sums, equations, solution, energy)


def _clipped(found: _Fit, shape: Shape, options: Options, sigma: float, run: Run) -> _Fit:
    """Leave out what sticks out of the fit, and fit again, until nothing changes.

    What was left out before may come back, but not for ever.
    """
    first = found.pairs
    for times in range(_MAX_CLIPS):
        bound = sigma * _spread(found) / clipped_share(sigma)
        if times >= _MAX_RETURNS:
            first = found.pairs
        pairs = within(first, found.flipped, found.beside, bound, run.silent)
        moved = _moved(found, pairs, shape, options, run)
        if moved is None:
            break
        found = moved
    return found


def _spread(found: _Fit) -> float:
    """Return the standard deviation of the residual, by its weights."""
    lost = found.solution.taps.size + found.equations.background_terms
    return math.sqrt(found.energy / max(found.equations.n_pixels - lost, 1))


def _moved(found: _Fit, pairs: list[Pair], shape: Shape, options: Options, run: Run) -> _Fit | None:
    """Return the fit of some pixels fewer, or more, from the same sums; None for no change."""
    sums = found.sums
    degree = None if not sums.backgrounds else sums.backgrounds[0].degree
    for sign, moved in zip((-1, 1), moved_pixels(found.pairs, pairs), strict=True):
        count = sum(pair.n_pixels for pair in moved)
        if count:
            rows = rows_of(moved, shape, degree, run.silent)
            sums = sums.changed(rows, sign, count, sum(pair.total_weight for pair in moved))
    if sums is found.sums:
        return None
    refuse_too_few(sums.n_pixels, found.solution.taps.size + found.equations.background_terms)
    if sums.worn:
        clean = [cleaned(pair) for pair in pairs]
        sums = gathered(clean, shape, degree, run.silent, options.engine)
    return _solved_sums(pairs, sums, shape, options, run.silent)


def _unsaturated(found: _Fit, shape: Shape, options: Options, run: Run) -> _Fit:
    """Leave out what the ends of an integer range cut off, where the fit shows that they did.

    Noise too puts pixels at the ends. What was cut off leaves far more than that.
    """
    if found.energy <= ROUNDED**2 * found.equations.total_weight:
        return found
    pairs = [between_ends(pair) for pair in found.pairs]
    n_pixels = sum(pair.n_pixels for pair in pairs)
    if n_pixels == found.equations.n_pixels or 2 * n_pixels < found.equations.n_pixels:
        return found
    try:
        without = _moved(found, pairs, shape, options, run)
    except SingularFitError:
        return found
    if without is None or _spread(without) > CUT_OFF * _spread(found):
        return found
    return without


def _rounding_shows_in(found: _Fit) -> bool:
    energies = found.energy, found.equations.hidden_energy
    dtypes = [pair.result.dtype for pair in found.pairs]
    return rounding_shows(found.solution.condition_number, *energies, dtypes)


def rounding_shows(
    condition_number: float, energy: float, hidden_energy: float, dtypes: Sequence[np.dtype[Any]]
) -> bool:
    """Tell whether results of some dtypes are fine enough to see the rounding of the equations."""
    if any(dtype.kind != "f" for dtype in dtypes):
        return False
    resolution = max(float(np.finfo(dtype).eps) for dtype in dtypes)
    return condition_number * _EPS > max(resolution, _ROUNDING_ALLOWED) or (
        energy <= _HIDDEN * hidden_energy and resolution <= _EPS
    )


def _refined(found: _Fit, factor: Factor, run: Run) -> _Fit:
    """Correct the taps by the residual of the pixels until the corrections stop shrinking."""
    pairs, backgrounds, equations = found.pairs, found.sums.backgrounds, found.equations
    kernel, energy, last = found.solution.taps, found.energy, math.inf
    penalty, coefficients = found.solution.ridge * equations.total_weight, found.coefficients
    for _ in range(MAX_REFINEMENTS):
        flipped = np.ascontiguousarray(kernel[::-1, ::-1])
        if backgrounds:
            by_shift, left, coefficients = residual_moments_beside(
                pairs, flipped, backgrounds, coefficients, run.silent
            )
        else:
            by_shift, left, _ = residual_sums(pairs, flipped, None, run.silent)
        moments = by_shift[::-1]
        step = factor.solve(moments - penalty * kernel.ravel())
        size = float(np.abs(step).max())
        if not size < last / 2:
            break
        kernel, last = kernel + step.reshape(kernel.shape), size
        energy = left + float(step @ (equations.gram @ step) - 2 * (step @ moments))
        if size <= 4 * _EPS * float(np.abs(kernel).max()):
            break
    return replace(found, solution=found.solution._replace(taps=kernel), energy=energy)
