"""Direct solvers under constraints, against the dense design matrix and its definitions."""

import naive
import numpy as np
import pytest
from constrained import (
    CONSTRAINTS,
    GAUSS,
    QUARTERS,
    dense,
    noise_pair,
    objective,
    oracle,
    photo_pair,
    projected,
)
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg, optimize

from fastkernel import NormalEquations, SingularFitError, normal_equations
from fastkernel.estimation.solvers.bases import symmetric_basis
from fastkernel.estimation.solvers.constraints import _ActiveSet, minimise
from fastkernel.estimation.solvers.options import SolverOptions as Options
from fastkernel.estimation.solvers.penalties import Penalty


@pytest.mark.parametrize("pair", [noise_pair, photo_pair])
@pytest.mark.parametrize("shape", [(5, 5), (4, 7), (1, 6), (1, 1)])
def test_nonnegative_is_that_of_scipy_on_the_design_matrix(pair, shape, rng):
    image, result = pair(rng)
    rows, cols = (n - k + 1 for n, k in zip(image.shape, shape, strict=True))
    result = np.pad(result, 6, mode="edge")[:rows, :cols]
    x, y = dense(image, result, shape)
    fit = normal_equations(image, result, shape).solve(nonnegative=True)
    want, residual = optimize.nnls(x, y)
    assert_allclose(fit.kernel.ravel(), want, atol=1e-10 * np.abs(want).max())
    assert_array_equal(fit.kernel.ravel() > 0, want > 0)
    assert_allclose(fit.residual_rms, residual / np.sqrt(y.size), rtol=1e-9)
    assert fit.solver == "active_set"
    assert np.isnan(fit.standard_errors).all()


def test_nonnegative_of_a_source_that_tells_too_little_apart(rng):
    image = np.repeat(rng.random((20, 1)), 30, axis=1)
    result = image[1:-1, 1:-1].copy()
    equations = normal_equations(image, result, (3, 3))
    for unit_sum in (False, True):
        with pytest.raises(SingularFitError, match="tells only 3 of its 9 taps apart"):
            equations.solve(nonnegative=True, unit_sum=unit_sum)
    fit = equations.solve(nonnegative=True, solver="fista")
    assert (fit.kernel >= 0).all()
    assert_allclose(fit.predict(image), result, atol=1e-6)


def test_nonnegative_where_nothing_helps():
    image = np.random.default_rng(0).random((20, 20))
    fit = normal_equations(image, -image[1:-1, 1:-1], (3, 3)).solve(nonnegative=True)
    assert_array_equal(fit.kernel, np.zeros((3, 3)))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("on_plane", [False, True])
def test_active_set_ends_at_a_point_of_karush_kuhn_and_tucker(seed, on_plane):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((60, 40)) @ np.diag(np.logspace(0, -3, 40)) + 0.3
    y = rng.standard_normal(60)
    matrix, moments = x.T @ x, x.T @ y
    normal = rng.random(40) + 0.2 if on_plane else None
    taps = minimise(matrix, moments, nonnegative=True, normal=normal).taps
    gradient = matrix @ taps - moments
    slack = 1e-11 * np.abs(moments).max()
    assert (taps >= 0).all()
    free = taps > 0
    if on_plane:
        assert_allclose(normal @ taps, 1, rtol=1e-13)
        gradient -= np.median(gradient[free] / normal[free]) * normal
    assert np.abs(gradient[free]).max() < slack
    assert gradient.min() > -slack


@pytest.mark.parametrize("on_plane", [False, True])
def test_taps_that_only_rounding_pulls_stay_where_they_are(on_plane, rng, monkeypatch):
    x, y = rng.standard_normal((60, 40)), rng.standard_normal(60)
    problem = {"nonnegative": True, "normal": np.ones(40) if on_plane else None}
    want = minimise(x.T @ x, x.T @ y, **problem).taps
    pull = _ActiveSet.pull
    monkeypatch.setattr(_ActiveSet, "pull", lambda *args: pull(*args) + 5.0)
    assert_allclose(minimise(x.T @ x, x.T @ y, **problem).taps, want, atol=1e-13)


@pytest.mark.parametrize("constraints", CONSTRAINTS, ids=str)
@pytest.mark.parametrize("shape", [(5, 5), (4, 4), (4, 5)], ids=str)
def test_constraints_hold_and_no_kernel_that_keeps_them_is_better(constraints, shape, rng):
    image, result = noise_pair(rng, shape)
    equations = normal_equations(image, result, shape)
    if constraints["symmetric"] == "rotation" and shape[0] != shape[1]:
        with pytest.raises(ValueError, match=r"needs a square kernel.*got kernel_shape \(4, 5\)"):
            equations.solve(**constraints)
        return
    kernel = equations.solve(**constraints).kernel
    for quarters in QUARTERS[constraints["symmetric"]]:
        assert_array_equal(kernel, np.rot90(kernel, quarters))
    if constraints["unit_sum"]:
        assert_allclose(kernel.sum(), 1, rtol=4e-15 * kernel.size)
    if constraints["nonnegative"]:
        assert (kernel >= 0).all()
    x, y = dense(image, result, shape)
    best = oracle(x, y, shape, constraints)
    assert objective(x, y, kernel.ravel()) <= objective(x, y, best) * (1 + 1e-12)
    assert_allclose(kernel.ravel(), best, atol=1e-8)


@pytest.mark.parametrize("constraints", CONSTRAINTS, ids=str)
def test_constraints_on_a_photo(constraints, rng):
    image, result = photo_pair(rng)
    kernel = normal_equations(image, result, (5, 5)).solve(**constraints).kernel
    x, y = dense(image, result, (5, 5))
    want = optimize.minimize(
        lambda z: objective(x, y, projected(z, (5, 5), **constraints)) / y.size,
        kernel.ravel(),
        method="Nelder-Mead",
        options={"maxiter": 300},
    )
    best = projected(want.x, (5, 5), **constraints)
    assert objective(x, y, kernel.ravel()) <= objective(x, y, best) * (1 + 1e-10)
    assert_allclose(projected(kernel.ravel(), (5, 5), **constraints), kernel.ravel(), atol=1e-14)


def test_a_sum_can_determine_what_the_source_does_not(rng):
    """Taps of a sawtooth of two levels are told apart by their sum alone."""
    flat = normal_equations(np.ones((9, 9)), np.ones((9, 9)), (1, 1)).solve(unit_sum=True)
    assert_array_equal(flat.kernel, [[1.0]])
    assert_array_equal(flat.standard_errors, [[0.0]])
    assert_array_equal(flat._factor.solve(np.ones(1)), [0.0])
    image = np.tile([1.0, -1.0], (8, 15))
    truth = np.array([[0.3, 0.7]])
    equations = normal_equations(image, naive.convolve(image, truth), (1, 2))
    with pytest.raises(SingularFitError):
        equations.solve()
    assert_allclose(equations.solve(unit_sum=True).kernel, truth, atol=1e-14)
    # Two unknown sums are one too many.
    with pytest.raises(SingularFitError, match="do not determine the kernel"):
        normal_equations(image, image[:, 3:], (1, 4)).solve(unit_sum=True)


def test_standard_errors_of_constrained_fits_are_those_of_the_free_directions(rng):
    image, result = noise_pair(rng)
    x, y = dense(image, result, (5, 5))
    equations = normal_equations(image, result, (5, 5))
    for options, basis in (
        ({"symmetric": "even"}, symmetric_basis((5, 5), "even").toarray()),
        ({"unit_sum": True}, linalg.null_space(np.ones((1, 25)))),
    ):
        fit = equations.solve(**options)
        covariance = basis @ np.linalg.inv(basis.T @ x.T @ x @ basis) @ basis.T
        scale = fit.residual_rms**2 * y.size / (y.size - basis.shape[1])
        want = np.sqrt(scale * np.diag(covariance))
        assert_allclose(fit.standard_errors.ravel(), want, rtol=1e-9)


def second_differences(shape):
    """One row a second difference of a kernel among zeros, along either axis."""
    rows = []
    for tap in np.eye(shape[0] * shape[1]):
        kernel = np.pad(tap.reshape(shape), 2)
        down, across = np.diff(kernel, 2, axis=0), np.diff(kernel, 2, axis=1)
        rows.append(np.concatenate([down.ravel(), across.ravel()]))
    return np.array(rows).T


@pytest.mark.parametrize("shape", [(5, 5), (1, 4), (3, 2), (2, 1)])
def test_smoothness_is_the_penalty_it_says(shape, rng):
    image = rng.standard_normal((20, 22))
    result = rng.standard_normal((21 - shape[0], 23 - shape[1]))
    x, y = dense(image, result, shape)
    penalty = 0.3
    rough = second_differences(shape)
    normal = x.T @ x + penalty * y.size * rough.T @ rough
    fit = normal_equations(image, result, shape).solve(ridge=("smooth", penalty))
    assert_allclose(fit.kernel.ravel(), linalg.solve(normal, x.T @ y), atol=1e-12)
    assert fit.ridge == penalty
    taps = rng.standard_normal(shape)
    gradient = Penalty(penalty, smooth=True)(taps).ravel()
    assert_allclose(gradient, penalty * rough.T @ rough @ taps.ravel(), atol=1e-12)


@pytest.mark.parametrize("noise", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("pair", [noise_pair, photo_pair])
def test_cross_validation_finds_what_the_dense_hat_matrix_does(pair, noise, rng):
    image, result = pair(rng, noise=noise)
    x, y = dense(image, result, (5, 5))
    x, y = x[::9], y[::9]
    n = y.size

    def score(penalty):
        hat = x @ linalg.solve(x.T @ x + penalty * n * np.eye(25), x.T)
        return n * np.sum((y - hat @ y) ** 2) / (n - np.trace(hat)) ** 2

    trials = [0.0, *np.geomspace(1e-14, 1e3, 40) * np.linalg.eigvalsh(x.T @ x)[-1] / n]
    fit = NormalEquations(x.T @ x, x.T @ y, y @ y, n, (5, 5)).solve(ridge="gcv")
    assert score(fit.ridge) <= min(map(score, trials)) * (1 + 1e-7)
    want = linalg.solve(x.T @ x + fit.ridge * n * np.eye(25), x.T @ y)
    assert_allclose(fit.kernel.ravel(), want, atol=1e-9 * np.abs(want).max())


def test_cross_validation_of_a_result_without_noise(rng):
    image = rng.standard_normal((60, 60))
    equations = normal_equations(image, naive.convolve(image, GAUSS), (5, 5))
    assert equations.solve(ridge="gcv").ridge == 0


def test_cross_validation_of_a_source_without_detail():
    flat = normal_equations(np.zeros((9, 9)), np.ones((7, 7)), (3, 3))
    with pytest.raises(SingularFitError, match="the source is flat"):
        flat.solve(ridge="gcv")
    one = normal_equations(np.ones((9, 9)), np.ones((7, 7)), (3, 3)).solve(ridge="gcv")
    assert one.ridge > 0
    assert_allclose(one.kernel, 1 / 9, rtol=1e-3)


@pytest.mark.parametrize("shape", [(5, 5), (3, 6), (1, 4), (4, 1)])
def test_a_separable_kernel_comes_back(shape, rng):
    image = rng.standard_normal((25, 28))
    column, row = rng.standard_normal(shape[0]), rng.standard_normal(shape[1])
    truth = np.outer(column, row)
    fit = normal_equations(image, naive.convolve(image, truth), shape).solve(separable=True)
    assert_allclose(fit.kernel, truth, atol=1e-7 * np.abs(truth).max())
    assert fit.converged
    assert fit.solver == "alternating_least_squares"


def alternating_oracle(x, y, shape, start):
    """Alternating least squares on the dense design matrix, from one start."""
    tensor = x.reshape(-1, *shape)
    row = start
    for _ in range(2000):
        column = np.linalg.lstsq(tensor @ row, y, rcond=None)[0]
        row = np.linalg.lstsq(np.einsum("tij,i->tj", tensor, column), y, rcond=None)[0]
    return np.outer(column, row).ravel()


@pytest.mark.jit
def test_separable_is_no_worse_than_a_dense_alternation_from_many_starts(rng):
    image, result = noise_pair(rng, noise=1.0)
    result += naive.convolve(image, rng.standard_normal((5, 5)))
    x, y = dense(image, result, (5, 5))
    fit = normal_equations(image, result, (5, 5)).solve(separable=True, tol=1e-12)
    starts = [alternating_oracle(x, y, (5, 5), rng.standard_normal(5)) for _ in range(4)]
    best = min(objective(x, y, taps) for taps in starts)
    assert objective(x, y, fit.kernel.ravel()) <= best * (1 + 1e-9)
    assert np.linalg.svd(fit.kernel)[1][1] < 1e-14 * np.abs(fit.kernel).max() * 10
    objectives = fit.history["objective"]
    assert len(objectives) == fit.num_iter + 1
    assert (np.diff(objectives) <= 1e-12 * objectives[0]).all()
    assert_allclose(fit.history["residual_rms"] ** 2 * y.size / 2, objectives, rtol=1e-12)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("unit_sum", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 0.1, ("smooth", 0.1), "gcv"], ids=str)
def test_separable_with_other_constraints(nonnegative, unit_sum, ridge, rng):
    image, result = noise_pair(rng)
    fit = normal_equations(image, result, (5, 5)).solve(
        separable=True, nonnegative=nonnegative, unit_sum=unit_sum, ridge=ridge
    )
    assert np.linalg.svd(fit.kernel)[1][1] < 1e-13
    if nonnegative:
        assert (fit.kernel >= 0).all()
    if unit_sum:
        assert_allclose(fit.kernel.sum(), 1, rtol=1e-13)
    pushed = 0.0
    if fit.ridge:
        pushed = (
            fit.kernel.ravel()
            @ Penalty(fit.ridge * result.size, isinstance(ridge, tuple))(fit.kernel).ravel()
        )
    x, y = dense(image, result, (5, 5))
    want = objective(x, y, fit.kernel.ravel()) + pushed / 2
    assert_allclose(fit.history["objective"][-1], want, rtol=1e-10)


def test_separable_of_a_kernel_without_a_sum(rng):
    """A start whose sum is 0 cannot be scaled to 1."""
    image = rng.standard_normal((20, 20))
    derivative = np.outer([1.0, 2.0, 1.0], [-1.0, 0.0, 1.0])
    equations = normal_equations(image, naive.convolve(image, derivative), (3, 3))
    assert_allclose(equations.solve(separable=True, unit_sum=True).kernel.sum(), 1, rtol=1e-13)
    assert (equations.solve(separable=True, nonnegative=True).kernel >= 0).all()


def test_separable_where_nothing_helps():
    image = np.random.default_rng(0).random((20, 20))
    fit = normal_equations(image, -image[1:-1, 1:-1], (3, 3)).solve(
        separable=True, nonnegative=True
    )
    assert_array_equal(fit.kernel, np.zeros((3, 3)))
    assert fit.converged


def test_separable_determines_more_than_all_taps_would(rng):
    """Waves along each axis tell a column and a row apart, but not every tap."""
    image = np.add.outer(rng.standard_normal(30), np.zeros(30)) + rng.standard_normal(30)
    truth = np.outer([1.0, 2.0, 1.0], [1.0, 3.0, 1.0])
    result = naive.convolve(image, truth)
    equations = normal_equations(image, result, (3, 3))
    with pytest.raises(SingularFitError):
        equations.solve()
    fit = equations.solve(separable=True)
    assert_allclose(fit.predict(image), result, atol=1e-6 * np.abs(result).max())
    assert fit.condition_number == np.inf
    assert fit.rank == 5


@pytest.mark.parametrize("symmetric", [None, "even", "rotation"])
def test_minimum_norm_is_the_pseudo_inverse(symmetric, rng):
    image = np.add.outer(rng.standard_normal(30), rng.standard_normal(30))
    result = rng.standard_normal((28, 28))
    x, y = dense(image, result, (3, 3))
    basis = np.eye(9) if symmetric is None else symmetric_basis((3, 3), symmetric).toarray()
    want = basis @ np.linalg.lstsq(x @ basis, y, rcond=1e-10)[0]
    fit = normal_equations(image, result, (3, 3)).solve(solver="minimum_norm", symmetric=symmetric)
    assert_allclose(fit.kernel.ravel(), want, atol=1e-10)
    assert fit.rank == np.linalg.matrix_rank(x @ basis, tol=1e-6)
    assert fit.solver == "minimum_norm"
    assert np.isnan(fit.standard_errors).all()


def test_minimum_norm_of_a_source_of_zeros():
    fit = normal_equations(np.zeros((9, 9)), np.ones((7, 7)), (3, 3)).solve(solver="minimum_norm")
    assert_array_equal(fit.kernel, np.zeros((3, 3)))
    assert (fit.rank, fit.condition_number, fit.residual_rms) == (0, np.inf, 1.0)


def test_no_pixels_determine_nothing():
    for solver in ("auto", "minimum_norm", "fista"):
        with pytest.raises(SingularFitError, match="0 pixels for 9 taps"):
            NormalEquations.zero((3, 3)).solve(solver=solver)


def test_symmetry_needs_fewer_pixels(rng):
    image = rng.standard_normal((6, 6))
    truth = np.array([[1.0, 2.0, 1.0], [3.0, 4.0, 3.0], [1.0, 2.0, 1.0]])
    truth[0, 0] = truth[2, 2] = 0.5
    result = naive.convolve(image, truth)[:2]
    equations = normal_equations(image[:4], result, (3, 3))
    with pytest.raises(SingularFitError, match="8 pixels for 9 taps"):
        equations.solve()
    assert_allclose(equations.solve(symmetric="even").kernel, truth, atol=1e-10)


REFUSED = {
    "solver": ({"solver": "newton"}, ValueError, r"solver must be one of 'auto', .*got 'newton'"),
    "ridge word": ({"ridge": "lcurve"}, TypeError, r"\('smooth', 'gcv'\), got 'lcurve'"),
    "ridge pair": ({"ridge": ("rough", 1)}, TypeError, r"got \('rough', 1\)"),
    "smooth": ({"ridge": ("smooth", -1)}, ValueError, r"ridge=\('smooth', penalty\) must be fin"),
    "ridge": ({"ridge": -1}, ValueError, "ridge must be finite and at least 0, got -1"),
    "symmetric": (
        {"symmetric": True},
        ValueError,
        "symmetric must be one of 'even', .*'square', got True",
    ),
    "num_iter": ({"solver": "fista", "num_iter": 0}, ValueError, "a positive integer, got 0"),
    "num_iter kind": ({"solver": "fista", "num_iter": 2.0}, ValueError, "integer, got 2.0"),
    "tol": ({"solver": "fista", "tol": -1e-3}, ValueError, "tol must be finite and at least 0"),
    "step": ({"solver": "fista", "step": 0.0}, ValueError, "step must be above 0, got 0.0"),
    "step kind": ({"solver": "fista", "step": "1"}, TypeError, "step must be a number, got '1'"),
    "step of none": ({"step": 1e-3}, ValueError, "step goes with solver='gradient_descent' and"),
    "tol of none": ({"tol": 1e-3}, ValueError, "num_iter and tol go with .*separable=True"),
    "iterations of none": (
        {"solver": "minimum_norm", "num_iter": 5},
        ValueError,
        "got solver='minimum_norm', which does not iterate",
    ),
    "separable descent": (
        {"separable": True, "solver": "fista"},
        ValueError,
        "it goes with solver='auto' and symmetric=None, and with nonnegative, unit_sum and ridge",
    ),
    "separable rotation": ({"separable": True, "symmetric": "rotation"}, ValueError, "'rotation'"),
    "shortest of signs": (
        {"solver": "minimum_norm", "nonnegative": True},
        ValueError,
        "solver='minimum_norm' goes with symmetric and basis alone.*use solver='auto'",
    ),
    "shortest with ridge": ({"solver": "minimum_norm", "ridge": 1.0}, ValueError, "with symmetric"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals(arguments, error, message):
    with pytest.raises(error, match=message):
        Options(**arguments)
    with pytest.raises(error, match=message):
        NormalEquations.zero((3, 3)).solve(**arguments)
