"""Descents on the equations and on the operator, against the published iteration."""

import math

import naive
import numpy as np
import pytest
from calls import fit_large
from constrained import CONSTRAINTS, dense, noise_pair, objective, onto_simplex, oracle
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import fftconvolve
from skimage import data

from fastkernel import NormalEquations, SingularFitError, normal_equations
from fastkernel._images.pairs import Pair
from fastkernel._images.windows import window_of_pair
from fastkernel._loops import descent
from fastkernel.estimation.solvers import descents
from fastkernel.estimation.solvers.bases import tap_groups
from fastkernel.estimation.solvers.descents import applied, largest_eigenvalue
from fastkernel.estimation.solvers.options import SolverOptions as Options
from fastkernel.estimation.solvers.penalties import Penalty


def published_problem(size=200, square=slice(85, 115), half=25, sigma=4.0):
    """A white square, and what a Gaussian kernel makes of it."""
    image = np.zeros((size, size))
    image[square, square] = 1
    place = np.arange(-half, half + 1.0)
    kernel = np.exp(-np.add.outer(place**2, place**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    return image, fftconvolve(image, kernel, mode="valid"), kernel


def published_history(image, result, shape, step, num_iter):
    """``h <- h - step * x' (h * x - y)`` on the images, from zero."""
    kernel, history = np.zeros(shape), []
    for _ in range(num_iter + 1):
        residual = fftconvolve(image, kernel, mode="valid") - result
        history.append(0.5 * np.sum(residual**2))
        kernel = kernel - step * fftconvolve(image[::-1, ::-1], residual, mode="valid")
    return np.array(history)


@pytest.fixture(scope="module")
def published():
    image, result, kernel = published_problem()
    return image, result, kernel, normal_equations(image, result, kernel.shape)


@pytest.mark.jit
def test_plain_descent_is_the_published_iteration(published):
    image, result, _, equations = published
    fit = equations.solve(solver="gradient_descent", step=2e-6, num_iter=50)
    want = published_history(image, result, (51, 51), 2e-6, 50)
    assert_allclose(fit.history["objective"], want, rtol=1e-9)
    assert_allclose(fit.history["residual_rms"], np.sqrt(2 * want / result.size), rtol=1e-9)
    assert (fit.num_iter, fit.solver, fit.converged) == (50, "gradient_descent", False)


@pytest.mark.jit
def test_momentum_saves_nineteen_of_twenty_iterations(published):
    *_, equations = published
    plain = equations.solve(solver="gradient_descent", step=2e-6, num_iter=3000)
    assert len(plain.history["objective"]) == 3001
    quick = equations.solve(solver="fista", num_iter=150)
    assert quick.residual_rms <= plain.residual_rms


@pytest.mark.jit
def test_direct_answer_of_the_published_problem(published):
    *_, kernel, equations = published
    assert_allclose(equations.solve().kernel, kernel, atol=1e-8 * kernel.max())


@pytest.mark.parametrize("step", [None, 4e-4])
def test_every_iterate_is_that_of_the_design_matrix(step, rng):
    image, result = noise_pair(rng)
    x, y = dense(image, result, (5, 5))
    fit = normal_equations(image, result, (5, 5)).solve(
        solver="gradient_descent", step=step, num_iter=20, ridge=0.1
    )
    weight = 0.1 * y.size
    step = step or 1 / np.linalg.eigvalsh(x.T @ x + weight * np.eye(25))[-1]
    taps = np.zeros(25)
    for iteration in range(21):
        residual = x @ taps - y
        want = 0.5 * (residual @ residual + weight * taps @ taps)
        assert_allclose(fit.history["objective"][iteration], want, rtol=1e-6)
        assert_allclose(
            fit.history["residual_rms"][iteration], np.sqrt(np.mean(residual**2)), rtol=1e-6
        )
        if iteration < 20:
            taps = taps - step * (x.T @ residual + weight * taps)
    assert_allclose(fit.kernel.ravel(), taps, rtol=1e-5)


@pytest.mark.parametrize("solver", ["gradient_descent", "fista"])
@pytest.mark.parametrize("constraints", CONSTRAINTS, ids=str)
def test_descents_end_where_the_oracle_does(solver, constraints, rng):
    image, result = noise_pair(rng)
    x, y = dense(image, result, (5, 5))
    fit = normal_equations(image, result, (5, 5)).solve(solver=solver, tol=1e-12, **constraints)
    want = oracle(x, y, (5, 5), constraints)
    assert_allclose(fit.kernel.ravel(), want, atol=1e-9)
    assert fit.converged
    assert objective(x, y, fit.kernel.ravel()) <= objective(x, y, want) * (1 + 1e-12)
    assert_allclose(fit.history["objective"][-1], objective(x, y, want), rtol=1e-10)
    quarters = {None: 0, "even": 2, "rotation": 1}[constraints["symmetric"]]
    assert_array_equal(fit.kernel, np.rot90(fit.kernel, quarters))
    if constraints["nonnegative"]:
        assert (fit.kernel >= 0).all()
    if constraints["unit_sum"]:
        assert_allclose(fit.kernel.sum(), 1, rtol=1e-14)


@pytest.mark.parametrize("solver", ["gradient_descent", "fista"])
@pytest.mark.parametrize("ridge", [0.3, ("smooth", 0.3), "gcv"], ids=str)
def test_descents_end_where_the_direct_solver_does(solver, ridge, rng):
    image, result = noise_pair(rng)
    equations = normal_equations(image, result, (5, 5))
    fit, want = (equations.solve(solver=s, ridge=ridge) for s in (solver, "auto"))
    assert_allclose(fit.kernel, want.kernel, atol=1e-7)
    assert_allclose(fit.residual_rms, want.residual_rms, rtol=1e-7)
    assert fit.ridge == want.ridge > 0
    assert_allclose(fit.condition_number, want.condition_number)
    pushed = Penalty(fit.ridge * result.size, isinstance(ridge, tuple))(fit.kernel)
    half = 0.5 * (fit.residual_rms**2 * result.size + np.sum(pushed * fit.kernel))
    assert_allclose(fit.history["objective"][-1], half, rtol=1e-12)


def test_from_zero_to_the_shortest_kernel_of_a_source_that_tells_too_little(rng):
    image = np.add.outer(rng.standard_normal(30), rng.standard_normal(30))
    equations = normal_equations(image, rng.standard_normal((28, 28)), (3, 3))
    want = equations.solve(solver="minimum_norm")
    fit = equations.solve(solver="fista", tol=1e-11)
    assert_allclose(fit.kernel, want.kernel, atol=1e-9)
    assert (fit.rank, fit.condition_number) == (want.rank, math.inf)


def test_momentum_needs_fewer_iterations_on_a_photo():
    image = data.camera()[100:150, 150:200].astype(float)
    result = naive.convolve(image, np.outer([1.0, 2.0, 1.0], [1.0, 4.0, 1.0]) / 24)
    equations = normal_equations(image, result, (3, 3))
    plain = equations.solve(solver="gradient_descent", num_iter=2000)
    quick = equations.solve(solver="fista", num_iter=2000)
    assert (quick.history["residual_rms"] <= plain.residual_rms).argmax() < 300
    assert (np.diff(plain.history["objective"]) <= 1e-9).all()


def test_ends_at_the_tolerance_and_says_so(rng):
    image, result = noise_pair(rng)
    equations = normal_equations(image, result, (5, 5))
    fit = equations.solve(solver="fista", tol=1e-3)
    assert fit.converged
    gradient = equations.gram @ fit.kernel.ravel() - equations.moments
    assert np.linalg.norm(gradient) <= 2e-3 * np.linalg.norm(equations.moments)
    assert not equations.solve(solver="fista", num_iter=3).converged
    assert not equations.solve(solver="fista", num_iter=3, tol=1e-6).converged
    done = equations.solve(solver="fista", num_iter=400)
    assert done.converged
    assert done.num_iter == 400 == len(done.history["objective"]) - 1
    nothing = normal_equations(image, 0 * result, (5, 5)).solve(solver="fista")
    assert (nothing.num_iter, nothing.converged, nothing.residual_rms) == (1, True, 0.0)


@pytest.mark.parametrize(("solver", "factor"), [("gradient_descent", 2), ("fista", 1)])
def test_a_step_too_large_is_refused_before_iterating(solver, factor, rng):
    image, result = noise_pair(rng)
    equations = normal_equations(image, result, (5, 5))
    most = factor / np.linalg.eigvalsh(equations.gram)[-1]
    calls = []
    with pytest.raises(ValueError, match="the largest stable step of solver=") as raised:
        equations.solve(solver=solver, step=1.01 * most, callback=lambda *seen: calls.append(seen))
    named = float(str(raised.value).split("at most ")[1].split(",")[0])
    assert_allclose(named, most, rtol=1e-5)
    assert not calls
    assert equations.solve(solver=solver, step=most, num_iter=500).residual_rms < 1


def test_divergence_is_an_error_too(rng, monkeypatch):
    image, result = noise_pair(rng)
    monkeypatch.setattr(descents, "largest_eigenvalue", lambda matrix, shape: 1.0)
    with pytest.raises(ValueError, match=r"step 1 made the descent diverge after \d+ iterations"):
        normal_equations(image, result, (5, 5)).solve(solver="gradient_descent")


def test_a_source_of_zeros_is_refused():
    equations = normal_equations(np.zeros((9, 9)), np.ones((7, 7)), (3, 3))
    with pytest.raises(SingularFitError, match="the source is zero everywhere"):
        equations.solve(solver="fista")


@pytest.mark.parametrize("options", [{"solver": "fista"}, {"separable": True}], ids=str)
def test_progress_counts_up_and_an_exception_in_it_stops_the_work(options, rng):
    image, result = noise_pair(rng)
    equations, seen = normal_equations(image, result, (5, 5)), []
    equations.solve(num_iter=100, callback=lambda *call: seen.append(call), **options)
    total = seen[0][1]
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)

    class StoppedError(Exception):
        pass

    def stop(done, total):
        raise StoppedError

    with pytest.raises(StoppedError):
        equations.solve(num_iter=100, callback=stop, **options)


@pytest.mark.parametrize("border", [0, 1])
@pytest.mark.parametrize("shape", [(5, 7), (4, 4), (1, 9)])
def test_both_ways_to_apply_a_gram_matrix(border, shape, rng, monkeypatch):
    """Where the border is zero the entries depend on the lag alone; elsewhere they do not."""
    monkeypatch.setattr(descents, "TRANSFORMED", 1)
    image = np.zeros((40, 44))
    image[9:-9, 9:-9] = rng.integers(0, 9, (22, 26))
    image[0] = border
    rows, cols = (n - k + 1 for n, k in zip(image.shape, shape, strict=True))
    equations = normal_equations(image, np.ones((rows, cols)), shape)
    taps = rng.standard_normal(shape)
    with applied(equations.gram, shape) as matrix:
        got = matrix(taps)
    want = (equations.gram @ taps.ravel()).reshape(shape)
    assert_allclose(got, want, atol=1e-12 * np.abs(want).max())


@pytest.mark.parametrize("n", [1, 2, 3, 40])
@pytest.mark.parametrize("decay", [0.0, 3.0])
def test_largest_eigenvalue_is_a_close_bound_from_above(n, decay, rng):
    basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
    matrix = basis @ np.diag(np.logspace(0, -decay, n)) @ basis.T
    found = largest_eigenvalue(lambda taps: (matrix @ taps.ravel()).reshape(1, n), (1, n))
    assert 1 - 1e-12 <= found <= 1 + 3e-6


def test_largest_eigenvalue_where_products_run_out(rng, monkeypatch):
    monkeypatch.setattr(descents, "_MAX_PRODUCTS", 6)
    values = np.linspace(0.5, 1, 50)
    found = largest_eigenvalue(lambda taps: taps * values, (1, 50))
    assert 1 <= found <= 1.2


def test_projection_is_that_of_sorting(rng):
    none = np.zeros(0, np.int64)
    for n in (1, 2, 7, 50, 400):
        for scale in (1e-17, 0.01, 1.0, 100.0):
            # Ties, up to rounding, at the threshold too.
            point = rng.choice([1 / n, 2 / n, 0.0], n) + scale * rng.standard_normal(n)
            out, zero = np.empty(n), np.zeros(n)
            descent.take_step(point, zero, zero, zero, 1.0, none, np.zeros((2, 1)), True, True, out)
            assert_allclose(out, onto_simplex(point), atol=1e-14 * max(scale, 1))


def test_groups_of_a_symmetry():
    assert_array_equal(tap_groups((2, 2), None), [0, 1, 2, 3])
    assert_array_equal(tap_groups((2, 3), "even"), [0, 1, 2, 2, 1, 0])
    assert_array_equal(tap_groups((3, 3), "rotation"), [0, 1, 0, 1, 2, 1, 0, 1, 0])


def fitted(image, result, shape, ridge=0.0, workers=1, callback=None, **options):
    pairs = [Pair(image, result, window_of_pair(image.shape, result.shape, shape, None))]
    return fit_large(pairs, shape, 0.0, workers, callback, Options(ridge=ridge, **options))


@pytest.mark.parametrize("solver", ["gradient_descent", "fista"])
@pytest.mark.parametrize(
    "options",
    [
        *CONSTRAINTS[::5],
        {"ridge": 0.2},
        {"ridge": ("smooth", 0.2), "nonnegative": True},
        {"num_iter": 7},
    ],
    ids=str,
)
def test_without_a_gram_matrix_descents_do_the_same(solver, options, rng):
    image, result = noise_pair(rng)
    want = normal_equations(image, result, (5, 5)).solve(solver=solver, **options)
    got = fitted(image, result, (5, 5), solver=solver, **options)
    # Both take a safe step, which is known to a millionth.
    assert_allclose(got.kernel, want.kernel, atol=1e-6)
    assert_allclose(got.residual_rms, want.residual_rms, rtol=1e-7)
    assert got.ridge == want.ridge
    n = min(len(got.history["objective"]), len(want.history["objective"]))
    for name in ("objective", "residual_rms"):
        assert_allclose(got.history[name][:n], want.history[name][:n], rtol=1e-5)
    assert abs(got.num_iter - want.num_iter) <= 2
    assert got.equations is None


def test_without_a_gram_matrix_workers_change_nothing(rng):
    image, result = noise_pair(rng)
    one, two = (
        fitted(image, result, (5, 5), workers=n, solver="fista", num_iter=20) for n in (1, 2)
    )
    assert_array_equal(one.kernel, two.kernel)


@pytest.mark.jit
def test_large_kernel_by_descent(rng):
    side = 65
    image = rng.standard_normal((200, 190))
    truth = np.zeros((side, side))
    truth[20:40, 25:45] = rng.random((20, 20))
    result = fftconvolve(image, truth / truth.sum(), mode="valid")
    seen = []
    fit = fitted(
        image,
        result,
        (side, side),
        callback=lambda *call: seen.append(call),
        solver="fista",
        nonnegative=True,
        unit_sum=True,
        num_iter=300,
    )
    assert_allclose(fit.kernel, truth / truth.sum(), atol=2e-3 * truth.max() / truth.sum())
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "minimum_norm"}, "need the normal equations, which are not formed"),
        ({"separable": True}, r"normal_equations\(\.\.\.\)\.solve"),
        ({"ridge": "gcv"}, r"the 4225 taps of kernel_shape \(65, 65\).*0\.1 GiB"),
        ({"nonnegative": True}, "go with solver='gradient_descent' and 'fista'"),
        ({"unit_sum": True}, "got solver='auto'"),
        ({"ridge": ("smooth", 1.0)}, "and 'fista' for the 4225 taps"),
        ({"symmetric": "even"}, "nonnegative, unit_sum, symmetric and"),
    ],
)
def test_what_needs_a_gram_matrix_says_so(options, message):
    image = np.ones((70, 70))
    with pytest.raises(ValueError, match=message):
        fitted(image, image[:6, :6], (65, 65), **options)


def test_loaded_equations_descend_the_same(rng, tmp_path):
    image, result = noise_pair(rng)
    equations = normal_equations(image, result, (5, 5))
    equations.save(tmp_path / "equations.npz")
    loaded = NormalEquations.load(tmp_path / "equations.npz")
    one, two = (e.solve(solver="fista", num_iter=30).kernel for e in (equations, loaded))
    assert_array_equal(one, two)
