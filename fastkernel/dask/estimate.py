"""Fits of a kernel to images on a cluster: sums by tasks, the solution here."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from operator import methodcaller
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fastkernel._images.pairs import Fitted
from fastkernel._images.usable import PixelRules
from fastkernel._typing import (
    Background,
    Border,
    Engine,
    LstsqSolver,
    NanPolicy,
    Ridge,
    Saturation,
    Shape,
    Symmetry,
)
from fastkernel.dask.equations import Way, as_way, counted_of, residual_of
from fastkernel.dask.pairs import ClusterPair, as_pair
from fastkernel.estimation.equations.normal_equations import NormalEquations
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.fit import KernelFit
from fastkernel.estimation.methods.lstsq import (
    CUT_OFF,
    MAX_REFINEMENTS,
    ROUNDED,
    rounding_shows,
)
from fastkernel.estimation.solvers.options import SolverOptions

_EPS = float(np.finfo(np.float64).eps)

# What is only done where the pixels are at hand.
INSTEAD = "crop the images to one machine's memory and use fastkernel"


def estimate_kernel(
    source: Any,
    result: Any,
    kernel_shape: Shape | int,
    *,
    boundary: Border | None = None,
    background: Background | None = None,
    solver: LstsqSolver = "auto",
    nonnegative: bool = False,
    unit_sum: bool = False,
    symmetric: Symmetry | None = None,
    separable: bool = False,
    ridge: Ridge = 0.0,
    basis: ArrayLike | None = None,
    weights: Any = None,
    mask: Any = None,
    source_mask: Any = None,
    saturation: Saturation | None = None,
    nan_policy: NanPolicy = "raise",
    step: float | None = None,
    num_iter: int | None = None,
    tol: float | None = None,
    engine: Engine = "auto",
    batch: int | Literal["auto"] = "auto",
    split_every: int = 8,
    workers: int = 1,
) -> KernelFit:
    r"""Estimate the kernel that turns one image on a cluster into another, by least squares.

    Parameters
    ----------
    source, result, kernel_shape, boundary, background : as in `normal_equations`
    solver, nonnegative, unit_sum, symmetric, separable : optional
        As in `fastkernel.estimate_kernel`.
    ridge, basis, step, num_iter, tol : optional
        As in `fastkernel.estimate_kernel`.
    weights, mask, source_mask, saturation, nan_policy : optional
        As in `normal_equations`. With None, pixels of an integer result at the ends of its range
        are left out where that takes a third off the residual, as on one machine.
    engine, batch, split_every, workers : optional
        As in `normal_equations`.

    Returns
    -------
    KernelFit
        As of one machine, solved where this is called. ``used`` is None: a mask of a large image
        would be as large.

    Raises
    ------
    SingularFitError
        If the images do not determine the kernel.
    TypeError, ValueError
        As `normal_equations` and `fastkernel.estimate_kernel` do.

    Notes
    -----
    The pixels are read once. Where the result is float64 (or float32, to its own precision) and
    rounding of the sums could be seen in the taps, they are read again, up to three times, for
    the residual; see `fastkernel.residual_equations`.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from scipy import ndimage
    >>> image = da.random.default_rng(0).random((90, 80), chunks=40)
    >>> blur = np.array([[0, 0.1, 0], [0.2, 0.4, 0.2], [0, 0, 0.1]])
    >>> result = da.from_array(ndimage.convolve(image.compute(), blur, mode="mirror"), chunks=30)
    >>> fit = estimate_kernel(image, result, 3, boundary="mirror")
    >>> bool(np.allclose(fit.kernel, blur, rtol=0, atol=1e-12))
    True
    """
    rules = PixelRules(mask, source_mask, weights, saturation, nan_policy)
    pair = as_pair(source, result, kernel_shape, boundary, rules)
    way = as_way(pair, background, engine, batch, split_every, workers)
    options: Any = {
        "solver": solver,
        "ridge": ridge,
        "nonnegative": nonnegative,
        "unit_sum": unit_sum,
        "symmetric": symmetric,
        "basis": basis,
        "separable": separable,
        "step": step,
        "num_iter": num_iter,
        "tol": tol,
    }
    SolverOptions(**options).refuse_shape(pair.kernel_shape)
    found = counted_of(pair, way).compute()
    fit: KernelFit = found.equations.solve(**options)
    if saturation is None:
        solve = methodcaller("solve", **options)
        fit = _without_clipped(fit, found.at_ends, pair, way, solve)
    if _rounding_shows(fit, pair):
        fit = _refined(fit, found.equations, pair, way)
    (m, n), (rows, cols) = pair.source.shape, pair.result.shape
    fitted = () if fit.background is None else (Fitted((m, n), (rows, cols), pair.window, None),)
    return replace(fit, boundary=pair.boundary, _fitted=fitted)


def estimate_given(asked: Mapping[str, Any], defaults: Mapping[str, Any]) -> KernelFit:
    """Estimate a kernel by the arguments of `fastkernel.estimate_kernel`, and their defaults.

    Raises
    ------
    ValueError
        If one that is given is not for images on a cluster.
    """
    given = {}
    for name, value in asked.items():
        default = defaults[name]
        if value is default or (isinstance(value, str | float | int) and value == default):
            continue
        if name == "callback":
            msg = "callback is not for Dask arrays, whose progress Dask shows; leave it out"
            raise ValueError(msg)
        if name not in inspect.signature(estimate_kernel).parameters:
            advice = f"leave it out, or {INSTEAD}.estimate_kernel there"
            msg = f"{name}={value!r} is not for Dask arrays; {advice}"
            raise ValueError(msg)
        given[name] = value
    return estimate_kernel(**given)


def _without_clipped(
    fit: KernelFit, at_ends: int, pair: ClusterPair, way: Way, solve: Callable[..., KernelFit]
) -> KernelFit:
    """Leave out what the ends of an integer range cut off, where the fit shows that they did."""
    energy, weight = _energy(fit)
    if not at_ends or 2 * at_ends > fit.n_pixels or energy <= ROUNDED**2 * weight:
        return fit
    try:
        some = counted_of(pair, way, between_ends=True).compute().equations
        without = solve(some)
    except SingularFitError:
        return fit
    return without if _spread(without) <= CUT_OFF * _spread(fit) else fit


def _energy(fit: KernelFit) -> tuple[float, float]:
    weight = fit.n_pixels if fit.equations is None else fit.equations.total_weight
    return fit.residual_rms**2 * weight, weight


def _spread(fit: KernelFit) -> float:
    """Return the standard deviation of the residual, by its weights."""
    beside = 0 if fit.equations is None else fit.equations.background_terms
    return math.sqrt(_energy(fit)[0] / max(fit.n_pixels - fit.kernel.size - beside, 1))


def _rounding_shows(fit: KernelFit, pair: ClusterPair) -> bool:
    """Tell whether the data are fine enough to see the rounding of the equations."""
    whole = fit.equations
    if fit._factor is None or fit.ridge != 0 or not isinstance(whole, NormalEquations):
        return False
    energy, hidden = _energy(fit)[0], whole.hidden_energy
    return rounding_shows(fit.condition_number, energy, hidden, [pair.result.dtype])


def _refined(fit: KernelFit, equations: NormalEquations, pair: ClusterPair, way: Way) -> KernelFit:
    """Correct the taps by what they leave of the pixels until the corrections stop shrinking."""
    last = np.inf
    for _ in range(MAX_REFINEMENTS):
        left = residual_of(pair, way, fit.kernel, fit.background).compute()
        better = equations.refine(fit, left)
        size = float(np.abs(better.kernel - fit.kernel).max())
        if not size < last / 2:
            break
        fit, last = better, size
        if size <= 4 * _EPS * float(np.abs(fit.kernel).max()):
            break
    return fit
