"""Least absolute deviations: the linear program solved by SciPy over all points at once."""

import naive
import numba
import numpy as np
import pytest
from calls import fit_lad, pairs_of
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linprog
from shared import Slices
from skimage import data

from fastkernel import SingularFitError, estimate_kernel
from fastkernel._machine.run import Run
from fastkernel.estimation.equations import sweeps
from fastkernel.estimation.methods import lad
from fastkernel.estimation.methods import lad_points as robust
from fastkernel.estimation.methods.lad_points import choose_points

JIT_OFF = bool(numba.config.DISABLE_JIT)
EDGE = 60 if not JIT_OFF else 22


def photograph(edge=EDGE):
    return data.camera()[100 : 100 + edge, 180 : 188 + edge]


def spoiled(image, shape, share=0.05, seed=3):
    """A rounded result some of whose pixels are garbage; the clean one; the kernel."""
    rng = np.random.default_rng(seed)
    kernel = rng.random(shape)
    kernel /= kernel.sum()
    clean = np.rint(naive.convolve(image, kernel)).clip(0, 255).astype(np.uint8)
    bad = rng.random(clean.shape) < share
    result = clean.copy()
    result[bad] = rng.integers(0, 256, bad.sum())
    return result, clean, kernel


def program(x, y):
    """The least sum of u + v with X k + u - v = y, and its taps."""
    n, taps = x.shape
    scale = np.abs(x).max()
    found = linprog(
        np.concatenate([np.zeros(taps), np.ones(2 * n)]),
        A_eq=np.hstack([x / scale, np.eye(n), -np.eye(n)]),
        b_eq=y,
        bounds=[(None, None)] * taps + [(0, None)] * (2 * n),
        method="highs",
    )
    assert found.status == 0
    return found.x[:taps] / scale, found.fun


@pytest.fixture
def small_programs(monkeypatch):
    monkeypatch.setattr(lad, "_NEAR", 60)
    monkeypatch.setattr(lad, "_NEAR_A_TAP", 4)


@pytest.fixture
def many_jobs(small_tiles, monkeypatch):
    monkeypatch.setattr(sweeps, "THREADED_WORK", 0)
    monkeypatch.setattr(robust, "_BLOCK", 3)


@pytest.mark.parametrize("solver", ["linear_programming", "reweighted"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 5)])
def test_equals_the_program_over_all_pixels(shape, solver, small_programs, rng):
    image = rng.random((17, 20)) * 100
    result = rng.random((18 - shape[0], 21 - shape[1])) * 100
    x, y = naive.design_matrix(image, shape), result.ravel()
    kernel, least = program(x, y)
    points = y.size if solver == "linear_programming" else None
    fit = fit_lad(pairs_of(image, result, shape), shape, solver=solver, points=points)
    assert_allclose(fit.kernel.ravel(), kernel, rtol=0, atol=1e-6)
    assert fit.history["objective"][-1] == pytest.approx(least, rel=1e-9)
    assert np.abs(y - x @ fit.kernel.ravel()).sum() == pytest.approx(least, rel=1e-9)
    rms = np.sqrt(np.mean((y - x @ fit.kernel.ravel()) ** 2))
    assert fit.residual_rms == pytest.approx(rms, rel=1e-9)
    assert fit.converged
    assert len(fit.history["objective"]) == fit.num_iter
    assert (fit.method, fit.solver, fit.n_pixels, fit.rank) == ("lad", solver, y.size, x.shape[1])
    assert fit.equations is None
    assert fit.condition_number > 0.999
    assert np.isnan(fit.standard_errors).all()


@pytest.mark.parametrize(
    ("mode", "boundary"), [("full", None), ("same", None), *(("same", b) for b in naive.PAD_MODES)]
)
def test_every_mode_and_border(mode, boundary, small_programs, rng):
    image, shape = rng.random((11, 13)), (2, 3)
    result = rng.random(naive.convolve(image, np.ones(shape), mode).shape)
    virtual = naive.extended(
        image, shape, mode if boundary or mode == "full" else "valid", boundary
    )
    used = result if mode == "full" or boundary else naive.inside(result, shape)
    kernel, _ = program(naive.design_matrix(virtual, shape), used.ravel())
    pairs = pairs_of(image, result, shape, boundary)
    for solver in ("linear_programming", "reweighted"):
        fit = fit_lad(pairs, shape, solver=solver)
        assert_allclose(fit.kernel.ravel(), kernel, rtol=0, atol=1e-6)


def test_several_pairs(small_programs, rng):
    images = [rng.random((12, 14)), rng.random((17, 9))]
    results = [rng.random((10, 12)), rng.random((15, 7))]
    x = np.vstack([naive.design_matrix(image, (3, 3)) for image in images])
    kernel, _ = program(x, np.concatenate([result.ravel() for result in results]))
    pairs = pairs_of(images, results, (3, 3))
    for solver in ("linear_programming", "reweighted"):
        assert_allclose(fit_lad(pairs, (3, 3), solver=solver).kernel.ravel(), kernel, atol=1e-6)


@pytest.mark.jit
@pytest.mark.parametrize("shape", [(3, 3), (5, 5), (4, 7)])
@pytest.mark.parametrize("points", [None, 1500])
def test_both_solvers_agree_on_the_same_points(shape, points):
    image = photograph()
    result, _, _ = spoiled(image, shape)
    pairs = pairs_of(image, result, shape)
    points = points or result.size
    first, second = (
        fit_lad(pairs, shape, solver=solver, points=points)
        for solver in ("linear_programming", "reweighted")
    )
    assert first.converged
    assert second.converged
    assert_allclose(first.kernel, second.kernel, rtol=0, atol=1e-6)
    assert first.n_pixels == second.n_pixels == points
    if points == result.size:
        by_tiles = fit_lad(pairs, shape, solver="reweighted")
        assert_allclose(by_tiles.kernel, first.kernel, rtol=0, atol=1e-6)


@pytest.mark.jit
@pytest.mark.parametrize("shape", [(3, 3), (5, 5), (7, 7)])
def test_garbage_pixels_do_not_pull(shape):
    image = data.camera()[:256, :256]
    result, clean, kernel = spoiled(image, shape)
    expected = np.abs(estimate_kernel(image, clean, shape).kernel - kernel).max()
    squares = np.abs(estimate_kernel(image, result, shape).kernel - kernel).max()
    fit = fit_lad(pairs_of(image, result, shape), shape)
    error = np.abs(fit.kernel - kernel).max()
    assert fit.solver == "reweighted"
    assert fit.converged
    assert error < 3 * expected
    assert squares > 20 * expected


@pytest.mark.jit
def test_no_kernel_has_a_smaller_deviation(rng):
    image = photograph()
    result, _, _ = spoiled(image, (4, 4))
    fit = fit_lad(pairs_of(image, result, (4, 4)), (4, 4), solver="reweighted")
    x, y = naive.design_matrix(image.astype(float), (4, 4)), result.ravel()
    least = np.abs(y - x @ fit.kernel.ravel()).sum()
    # As many pixels as there are taps are met, and no step from the vertex goes down.
    assert (np.abs(y - x @ fit.kernel.ravel()) < 1e-9).sum() >= 16
    for size in (1e-8, 1e-5, 1e-2):
        for _ in range(20):
            moved = fit.kernel.ravel() + size * rng.standard_normal(16)
            assert np.abs(y - x @ moved).sum() > least


@pytest.mark.jit
def test_results_without_any_noise():
    image = data.camera()[:128, :128]
    kernel = np.array([[0.1, 0.2, 0.0], [0.0, 0.5, 0.1], [0.1, 0.0, 0.0]])
    result = naive.convolve(image, kernel)
    bad = np.random.default_rng(0).random(result.shape) < 0.05
    for spoil in (False, True):
        fit = fit_lad(pairs_of(image, np.where(bad & spoil, 7.0, result), (3, 3)), (3, 3))
        assert fit.converged
        assert_allclose(fit.kernel, kernel, atol=1e-11)


@pytest.mark.jit
def test_many_pixels_that_are_met_at_once():
    # A ninth of all rounding errors of a 3 x 3 mean are zero: no program holds them all.
    image = data.camera()[:200, :200]
    result = np.rint(naive.convolve(image, np.full((3, 3), 1 / 9)))
    fit = fit_lad(pairs_of(image, result, (3, 3)), (3, 3))
    assert fit.converged
    assert_allclose(fit.kernel, 1 / 9, atol=1e-10)


def test_a_dark_result(rng):
    image = rng.random((12, 12))
    for solver in ("linear_programming", "reweighted"):
        fit = fit_lad(pairs_of(image, np.zeros((10, 10)), (3, 3)), (3, 3), solver=solver)
        assert_array_equal(fit.kernel, np.zeros((3, 3)))
        assert fit.converged


@pytest.mark.jit
@pytest.mark.parametrize("unit", [1e-12, 1e9])
def test_units_do_not_matter(unit):
    image = photograph().astype(float)
    result, _, _ = spoiled(image, (3, 3))
    plain = fit_lad(pairs_of(image, result, (3, 3)), (3, 3), solver="reweighted")
    fit = fit_lad(pairs_of(image / unit, result * unit, (3, 3)), (3, 3), solver="reweighted")
    assert fit.converged
    assert_allclose(fit.kernel / unit**2, plain.kernel, rtol=0, atol=1e-9)


@pytest.mark.parametrize("workers", [2, 3])
def test_the_same_bits_for_any_workers(workers, many_jobs, small_programs):
    image = photograph(16)
    result, _, _ = spoiled(image, (3, 3))
    pairs = pairs_of(image, result, (3, 3))
    one, more = (fit_lad(pairs, (3, 3), solver="reweighted", workers=n) for n in (1, workers))
    assert_array_equal(one.kernel, more.kernel)
    assert_array_equal(one.history["objective"], more.history["objective"])
    kernel, _ = program(naive.design_matrix(image.astype(float), (3, 3)), result.ravel())
    assert_allclose(one.kernel.ravel(), kernel, rtol=0, atol=1e-6)


def test_safe_weights_never_raise_the_smoothed_deviation(rng):
    image, result = rng.random((15, 17)), rng.standard_cauchy((13, 15))
    images = robust.AllPixels(pairs_of(image, result, (3, 3)), (3, 3), Run())
    taps, smooth = 10 * rng.standard_normal(9), np.inf
    for _ in range(30):
        found = images.measure(taps, 0.1, True)
        assert found.smooth < smooth * (1 + 1e-12)
        smooth, taps = found.smooth, taps + 0.1 * np.linalg.solve(found.gram, found.pull)


@pytest.mark.parametrize("outside", [False, True])
def test_sums_of_images_and_of_points_are_those_of_the_definition(outside, many_jobs, rng):
    image, result, shape, delta = rng.random((13, 16)), rng.random((11, 12)), (3, 5), 0.3
    pairs = pairs_of(image, result, shape)
    taps = rng.standard_normal(15)
    x, y = naive.design_matrix(image, shape)[:, ::-1], result.ravel()
    residual = y - x @ taps
    size = np.abs(residual)
    weights = np.where(size < delta, 1.0, delta / size if outside else 0.0)
    smooth = np.where(size < delta, size**2 / (2 * delta) + delta / 2, size).sum()
    places = np.array([(0, *place) for place in np.ndindex(result.shape)])
    points = robust.Points(
        robust.design_rows(pairs, shape, places), robust.answers_at(pairs, places)
    )
    assert_allclose(points.rows, x, rtol=1e-15)
    for found in (
        robust.AllPixels(pairs, shape, Run(2)).measure(taps, delta, outside),
        points.measure(taps, delta, outside),
    ):
        assert found.total == pytest.approx(size.sum(), rel=1e-13)
        assert found.smooth == pytest.approx(smooth, rel=1e-13)
        assert found.energy == pytest.approx((size**2).sum(), rel=1e-13)
        assert found.inside == (size < delta).sum()
        assert_allclose(found.pull, x.T @ np.clip(residual / delta, -1, 1), atol=1e-11)
        assert_allclose(found.gram, (x.T * weights) @ x, atol=1e-11)
    for near in (
        robust.AllPixels(pairs, shape, Run(2)).nearest(taps, 20),
        points.nearest(taps, 20),
    ):
        assert_allclose(np.sort(np.abs(near.residual)), np.sort(size)[:20], atol=1e-13)
        far = np.argsort(size)[20:]
        assert_allclose(near.pull, np.sign(residual[far]) @ x[far], atol=1e-11)
        assert near.total == pytest.approx(size.sum(), rel=1e-13)


def test_points_are_spread_and_steep():
    image = np.zeros((40, 40))
    image[:, 21:] = 9  # one edge
    image[13, 5] = 1
    pairs = pairs_of(image, np.zeros((38, 38)), (3, 3))
    places = choose_points(pairs, (3, 3), 9)
    assert places.shape == (9, 3)
    assert len({(row // 12, col // 12) for _, row, col in places}) >= 6
    at_edge = [(row, col) for _, row, col in places if 18 <= col <= 21]
    assert len(at_edge) >= 3
    assert any(abs(row - 12) <= 1 and abs(col - 4) <= 1 for _, row, col in places)
    everywhere = choose_points(pairs, (3, 3), 38 * 38)
    assert_array_equal(everywhere[:, 1:], list(np.ndindex(38, 38)))


def test_as_many_points_as_taps():
    image = photograph()
    result, _, kernel = spoiled(image, (3, 3), share=0.0)
    fit = fit_lad(pairs_of(image, result, (3, 3)), (3, 3), points=9)
    assert fit.solver == "linear_programming"
    assert fit.n_pixels == 9
    assert fit.residual_rms < 1e-9
    assert np.abs(fit.kernel - kernel).max() < 1


def test_auto_takes_the_program_where_it_is_small():
    image = photograph(14)
    result, _, _ = spoiled(image, (3, 3))
    assert fit_lad(pairs_of(image, result, (3, 3)), (3, 3)).solver == "linear_programming"


def test_images_that_are_read_by_slices():
    image = photograph(16)
    result, _, _ = spoiled(image, (3, 3))
    want = fit_lad(pairs_of(image, result, (3, 3)), (3, 3))
    got = fit_lad(pairs_of(Slices(image), Slices(result), (3, 3)), (3, 3))
    assert_array_equal(got.kernel, want.kernel)


def test_callback_reports_and_stops():
    image = photograph(16)
    result, _, _ = spoiled(image, (3, 3))
    pairs, calls = pairs_of(image, result, (3, 3)), []
    fit = fit_lad(pairs, (3, 3), solver="reweighted", callback=lambda *args: calls.append(args))
    assert calls == [(i + 1, 200) for i in range(fit.num_iter)]

    def stop(done, total):
        raise KeyboardInterrupt

    for solver in ("linear_programming", "reweighted"):
        with pytest.raises(KeyboardInterrupt):
            fit_lad(pairs, (3, 3), solver=solver, callback=stop)


@pytest.mark.parametrize("solver", ["linear_programming", "reweighted"])
def test_says_when_iterations_ran_out(solver, small_programs):
    image = photograph(22)
    result, _, _ = spoiled(image, (3, 3))
    fit = fit_lad(pairs_of(image, result, (3, 3)), (3, 3), solver=solver, num_iter=1)
    assert (fit.num_iter, fit.converged) == (1, False)
    assert np.isfinite(fit.kernel).all()


def test_a_loose_tolerance_stops_earlier():
    image = photograph(22)
    result, _, _ = spoiled(image, (3, 3))
    pairs = pairs_of(image, result, (3, 3))
    exact, loose = (fit_lad(pairs, (3, 3), solver="reweighted", tol=tol) for tol in (None, 0.01))
    assert loose.converged
    least = exact.history["objective"].min()
    assert loose.num_iter <= exact.num_iter
    assert loose.history["objective"].min() <= least * 1.01


@pytest.mark.parametrize("solver", ["linear_programming", "reweighted"])
@pytest.mark.parametrize("name", ["source", "result"])
def test_refuses_pixels_that_are_not_finite(name, solver, rng):
    images = {"source": rng.random((12, 12)), "result": rng.random((10, 10))}
    images[name][4, 5] = np.inf
    pairs = pairs_of(images["source"], images["result"], (3, 3))
    with pytest.raises(ValueError, match=rf"{name} must be finite, got inf at index \(4, 5\)"):
        fit_lad(pairs, (3, 3), solver=solver)


@pytest.mark.parametrize("solver", ["linear_programming", "reweighted"])
def test_refuses_a_flat_source(solver):
    pairs = pairs_of(np.ones((12, 12)), np.ones((10, 10)), (3, 3))
    with pytest.raises(SingularFitError, match="the source is flat"):
        fit_lad(pairs, (3, 3), solver=solver)


def test_refuses_fewer_pixels_than_taps():
    with pytest.raises(SingularFitError, match="4 pixels for 9 taps"):
        fit_lad(pairs_of(np.ones((4, 4)), np.ones((2, 2)), (3, 3)), (3, 3))


@pytest.mark.parametrize("points", [8, 101])
def test_refuses_a_number_of_points(points, rng):
    pairs = pairs_of(rng.random((12, 12)), rng.random((10, 10)), (3, 3))
    with pytest.raises(ValueError, match=r"points must be at least .* 9, and at most .* 100, got"):
        fit_lad(pairs, (3, 3), points=points)


@pytest.mark.parametrize("points", [9.5, True, "all"])
def test_refuses_points_that_are_no_number(points, rng):
    pairs = pairs_of(rng.random((12, 12)), rng.random((10, 10)), (3, 3))
    with pytest.raises(TypeError, match="points must be an integer, or None, got"):
        fit_lad(pairs, (3, 3), points=points)


def test_refuses_a_solver(rng):
    pairs = pairs_of(rng.random((12, 12)), rng.random((10, 10)), (3, 3))
    with pytest.raises(ValueError, match="solver must be one of 'auto', 'linear_programming', 'r"):
        fit_lad(pairs, (3, 3), solver="simplex")
    with pytest.raises(ValueError, match="num_iter must be a positive integer"):
        fit_lad(pairs, (3, 3), num_iter=0)
    with pytest.raises(ValueError, match="tol must be finite and at least 0"):
        fit_lad(pairs, (3, 3), tol=-1.0)
