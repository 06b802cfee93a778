"""Kernels of a basis and of a symmetry, against dense least squares on their columns."""

import naive
import numpy as np
import pytest
from calls import fit_large
from constrained import GAUSS, dense, noise_pair, objective, onto_simplex, photo_pair
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg, sparse

from fastkernel import NormalEquations, SingularFitError, normal_equations
from fastkernel._images.pairs import Pair
from fastkernel._images.windows import window_of_pair
from fastkernel.estimation.solvers.bases import tap_groups
from fastkernel.estimation.solvers.options import SolverOptions as Options

DESCENTS = ["gradient_descent", "fista"]


def columns_of(shape, count, rng):
    """Smooth columns of very different lengths, none at right angles to another."""
    p, q = shape
    v, u = np.meshgrid(np.arange(q) - q // 2, np.arange(p) - p // 2)
    bell = np.exp(-(u**2 + v**2) / 6)
    powers = [u**a * v**b for a in range(3) for b in range(3)]
    columns = np.array([(bell * power).ravel() for power in powers]).T[:, :count]
    mixed = (
        columns / linalg.norm(columns, axis=0) @ (np.eye(count) + 0.3 * rng.random((count,) * 2))
    )
    return mixed * np.logspace(-3, 4, count)


def second_differences(shape):
    """One row a second difference of a kernel among zeros, along either axis."""
    rows = []
    for tap in np.eye(shape[0] * shape[1]):
        kernel = np.pad(tap.reshape(shape), 2)
        down, across = np.diff(kernel, 2, axis=0), np.diff(kernel, 2, axis=1)
        rows.append(np.concatenate([down.ravel(), across.ravel()]))
    return np.array(rows).T


def penalties(ridge, shape, weight):
    """The matrix whose rows are added to the design matrix, and 0 to the result."""
    root = second_differences(shape) if isinstance(ridge, tuple) else np.eye(shape[0] * shape[1])
    return np.sqrt(weight) * root


def best(x, y, columns):
    columns = columns / linalg.norm(columns, axis=0)
    return columns @ np.linalg.lstsq(x @ columns, y, rcond=None)[0]


def best_of_sum_one(x, y, columns):
    """One kernel of sum 1, and the best of those that add nothing to its sum."""
    columns = columns / linalg.norm(columns, axis=0)
    sums = columns.sum(axis=0)
    one, others = (
        columns @ np.linalg.pinv(sums[None])[:, 0],
        columns @ linalg.null_space(sums[None]),
    )
    return one + best(x, y - x @ one, others)


@pytest.mark.parametrize("pair", [noise_pair, photo_pair])
@pytest.mark.parametrize("shape", [(5, 5), (4, 7), (6, 3)])
@pytest.mark.parametrize("unit_sum", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 0.3, ("smooth", 0.2)], ids=str)
def test_a_basis_is_least_squares_on_its_columns(pair, shape, unit_sum, ridge, rng):
    image, result = pair(rng)
    rows, cols = (n - k + 1 for n, k in zip(image.shape, shape, strict=True))
    result = np.pad(result, 6, mode="edge")[:rows, :cols]
    x, y = dense(image, result, shape)
    columns = columns_of(shape, 7, rng)
    weight = (ridge[1] if isinstance(ridge, tuple) else ridge) * y.size
    added = penalties(ridge, shape, weight)
    tall, high = np.vstack([x, added]), np.concatenate([y, np.zeros(len(added))])
    want = (best_of_sum_one if unit_sum else best)(tall, high, columns)
    fit = normal_equations(image, result, shape).solve(
        basis=columns, unit_sum=unit_sum, ridge=ridge
    )
    assert_allclose(fit.kernel.ravel(), want, atol=1e-9 * np.abs(want).max())
    assert_allclose(fit.residual_rms, linalg.norm(x @ want - y) / np.sqrt(y.size), rtol=1e-9)
    assert (fit.solver, fit.rank) == ("cholesky", 7)


@pytest.mark.parametrize("unit_sum", [False, True])
def test_bars_of_a_basis_are_the_closed_form(unit_sum, rng):
    image, result = noise_pair(rng, (6, 5))
    x, y = dense(image, result, (6, 5))
    columns = columns_of((6, 5), 8, rng)
    fit = normal_equations(image, result, (6, 5)).solve(basis=columns, unit_sum=unit_sum)
    free = columns / linalg.norm(columns, axis=0)
    if unit_sum:
        free = free @ linalg.null_space(free.sum(axis=0)[None])
    covariance = free @ np.linalg.inv(free.T @ x.T @ x @ free) @ free.T
    left = y - x @ fit.kernel.ravel()
    variance = left @ left / (y.size - free.shape[1])
    want = np.sqrt(variance * np.diag(covariance)).reshape(6, 5)
    assert_allclose(fit.standard_errors, want, rtol=1e-7)


def test_bars_of_a_basis_hold_what_they_promise(rng):
    """Of 400 noises, planted taps are within two bars 95 times in a hundred."""
    image = rng.standard_normal((22, 24))
    columns = columns_of((5, 5), 6, rng)
    truth = columns @ (rng.standard_normal(6) / linalg.norm(columns, axis=0))
    x = naive.design_matrix(image, (5, 5))
    noise = rng.standard_normal((400, len(x)))
    gram, inside = x.T @ x, 0
    for one in noise:
        y = x @ truth + one
        fit = NormalEquations(gram, x.T @ y, y @ y, y.size, (5, 5)).solve(basis=columns)
        inside += int(
            (np.abs(fit.kernel.ravel() - truth) < 1.96 * fit.standard_errors.ravel()).sum()
        )
    assert 0.93 < inside / (400 * 25) < 0.97


def test_how_columns_are_scaled_and_ordered_changes_nothing(rng):
    image, result = noise_pair(rng)
    equations = normal_equations(image, result, (5, 5))
    columns = columns_of((5, 5), 6, rng)
    want = equations.solve(basis=columns)
    for same in (columns[:, ::-1] * 1e200, (columns * 1e-180).astype(">f8"), columns.tolist()):
        fit = equations.solve(basis=same)
        assert_allclose(fit.kernel, want.kernel, atol=1e-11)
        assert_allclose(fit.standard_errors, want.standard_errors, rtol=1e-9)
        assert_allclose(fit.condition_number, want.condition_number, rtol=10)
    ones = equations.solve(basis=np.eye(25, dtype=np.uint8))
    assert_allclose(ones.kernel, equations.solve().kernel, atol=1e-12)


def test_a_given_basis_stays_as_it_was(rng):
    columns = columns_of((3, 3), 4, rng)
    copy = columns.copy()
    Options(basis=columns)
    assert_array_equal(columns, copy)


def test_a_basis_needs_pixels_for_its_columns_alone(rng):
    image = rng.standard_normal((7, 7))
    columns = columns_of((5, 5), 9, rng)
    truth = columns @ (1 / linalg.norm(columns, axis=0))
    equations = normal_equations(image, naive.convolve(image, truth.reshape(5, 5)), (5, 5))
    with pytest.raises(SingularFitError, match="9 pixels for 25 taps"):
        equations.solve()
    fit = equations.solve(basis=columns)
    assert_allclose(fit.kernel.ravel(), truth, atol=1e-7)
    assert np.isinf(fit.standard_errors).all()
    less = normal_equations(image[:6], rng.standard_normal((2, 3)), (5, 5))
    with pytest.raises(SingularFitError, match=r"6 pixels for 9 unknowns.*or fewer columns of bas"):
        less.solve(basis=columns)


def test_a_source_that_does_not_tell_columns_apart_is_refused_in_their_terms(rng):
    stripes = np.repeat(rng.standard_normal((30, 1)), 30, axis=1)
    equations = normal_equations(stripes, stripes[2:-2, 2:-2], (5, 5))
    columns = columns_of((5, 5), 6, rng)
    with pytest.raises(SingularFitError, match=r"only 2 of its 6 unknowns apart.*fewer colum"):
        equations.solve(basis=columns)
    with pytest.raises(SingularFitError, match=r"a ridge= larger than 1\.0e-30"):
        equations.solve(basis=columns, ridge=1e-30)


@pytest.mark.parametrize("ridge", ["gcv", ("smooth", "gcv")], ids=str)
@pytest.mark.parametrize("noise", [0.1, 3.0])
@pytest.mark.parametrize("kind", ["taps", "basis", "mirror"])
@pytest.mark.parametrize("pair", [noise_pair, photo_pair])
def test_cross_validation_finds_what_the_dense_hat_matrix_does(pair, kind, noise, ridge, rng):
    image, result = pair(rng, noise=noise)
    x, y = dense(image, result, (5, 5))
    x, y = x[::7], y[::7]
    n = y.size
    options, columns = {}, np.eye(25)
    if kind == "basis":
        columns = columns_of((5, 5), 8, rng)
        options = {"basis": columns}
    elif kind == "mirror":
        columns, options = spanned((5, 5), "mirror"), {"symmetric": "mirror"}
    z = x @ (columns / linalg.norm(columns, axis=0))
    root = penalties(ridge, (5, 5), 1.0) @ (columns / linalg.norm(columns, axis=0))

    def score(penalty):
        tall = np.vstack([z, np.sqrt(penalty * n) * root])
        hat = z @ np.linalg.pinv(tall, rcond=1e-14)[:, :n]
        return n * np.sum((y - hat @ y) ** 2) / (n - np.trace(hat)) ** 2

    fit = NormalEquations(x.T @ x, x.T @ y, y @ y, n, (5, 5)).solve(ridge=ridge, **options)
    trials = [0.0, *np.geomspace(1e-14, 1e3, 60) * np.linalg.eigvalsh(x.T @ x)[-1] / n]
    assert score(fit.ridge) <= min(map(score, trials)) * (1 + 1e-7)
    tall = np.vstack([x, penalties(ridge, (5, 5), fit.ridge * n)])
    want = best(tall, np.concatenate([y, np.zeros(len(tall) - n)]), columns)
    assert_allclose(fit.kernel.ravel(), want, atol=1e-8 * np.abs(want).max())


def test_smoothness_is_chosen_as_well_as_by_one_who_knows_the_kernel(rng):
    image, result = photo_pair(rng, noise=20.0)
    equations = normal_equations(image, result, (5, 5))
    fit = equations.solve(ridge=("smooth", "gcv"))

    def error(kernel):
        return np.abs(kernel - GAUSS).max()

    trials = [("smooth", weight) for weight in np.geomspace(1e-3, 1e6, 30)]
    assert error(fit.kernel) < 2 * min(error(equations.solve(ridge=one).kernel) for one in trials)
    assert error(fit.kernel) < 0.5 * error(equations.solve().kernel)


def test_smoothness_of_a_result_without_noise_is_none(rng):
    image = rng.standard_normal((60, 60))
    equations = normal_equations(image, naive.convolve(image, GAUSS), (5, 5))
    assert equations.solve(ridge=("smooth", "gcv")).ridge == 0
    with pytest.raises(SingularFitError, match="the source is flat"):
        normal_equations(np.zeros((9, 9)), np.ones((7, 7)), (3, 3)).solve(ridge=["smooth", "gcv"])


def test_cross_validation_of_many_taps_is_that_of_the_generalised_eigenvalues(rng):
    """More taps than pixels: SciPy diagonalises both quadratic forms."""
    shape = 23, 23
    image = rng.standard_normal((40, 38))
    x = naive.design_matrix(image, shape)
    u, v = np.mgrid[-11:12, -11:12]
    y = x @ np.exp(-(u**2 + v**2) / 18).ravel() + rng.standard_normal(len(x))
    n, root = y.size, second_differences(shape)
    values, vectors = linalg.eigh(x.T @ x, root.T @ root)
    values = np.maximum(values, 0)
    known = values > 1e-9 * values[-1]
    shares = (vectors.T @ x.T @ y)[known] / np.sqrt(values[known])
    values = values[known]

    def score(weight):
        lost = weight / (values + weight)
        return n * np.sum((lost * shares) ** 2) / np.sum(lost) ** 2

    equations = NormalEquations(x.T @ x, x.T @ y, y @ y, n, shape)
    fit = equations.solve(ridge=("smooth", "gcv"))
    assert len(values) == n < 529
    weights = np.geomspace(1e-12, 1e3, 200) * values[-1]
    assert score(fit.ridge * n) <= min(map(score, weights)) * (1 + 1e-7)
    columns = columns_of(shape, 9, rng)
    some = equations.solve(basis=columns, ridge=("smooth", "gcv"))
    tall = np.vstack([x, np.sqrt(some.ridge * n) * root])
    want = best(tall, np.concatenate([y, np.zeros(len(root))]), columns)
    assert_allclose(some.kernel.ravel(), want, atol=1e-9 * np.abs(want).max())


def test_a_sum_alone_tells_the_one_kernel_of_a_basis(rng):
    image, result = noise_pair(rng)
    column = rng.random((25, 1))
    fit = normal_equations(image, result, (5, 5)).solve(basis=column, unit_sum=True)
    assert_allclose(fit.kernel.ravel(), column[:, 0] / column.sum(), rtol=1e-13)
    assert_array_equal(fit.standard_errors, np.zeros((5, 5)))


def test_shortest_kernel_of_a_basis_is_the_pseudo_inverse(rng):
    image = np.add.outer(rng.standard_normal(30), rng.standard_normal(30))
    result = rng.standard_normal((26, 26))
    x, y = dense(image, result, (5, 5))
    columns = columns_of((5, 5), 9, rng)
    ortho = linalg.orth(columns / linalg.norm(columns, axis=0))
    want = ortho @ np.linalg.lstsq(x @ ortho, y, rcond=1e-10)[0]
    equations = normal_equations(image, result, (5, 5))
    fit = equations.solve(solver="minimum_norm", basis=columns)
    assert_allclose(fit.kernel.ravel(), want, atol=1e-9)
    assert fit.rank == np.linalg.matrix_rank(x @ ortho, tol=1e-6) < 9
    descended = equations.solve(solver="fista", basis=columns, tol=1e-12)
    assert_allclose(descended.kernel.ravel(), want, atol=1e-7)
    assert (descended.rank, descended.condition_number) == (fit.rank, np.inf)


@pytest.mark.parametrize("solver", DESCENTS)
@pytest.mark.parametrize("unit_sum", [False, True])
@pytest.mark.parametrize("ridge", [0.0, ("smooth", 0.3)], ids=str)
def test_descents_of_a_basis_end_where_the_direct_solver_does(solver, unit_sum, ridge, rng):
    image, result = noise_pair(rng)
    columns = columns_of((5, 5), 6, rng)
    equations = normal_equations(image, result, (5, 5))
    options = {"basis": columns, "unit_sum": unit_sum, "ridge": ridge}
    fit, want = (equations.solve(solver=one, **options) for one in (solver, "auto"))
    assert fit.converged
    assert_allclose(fit.kernel, want.kernel, atol=1e-7)
    assert fit.rank == 6
    if not unit_sum:
        assert_allclose(fit.condition_number, want.condition_number)
    if unit_sum:
        assert_allclose(fit.kernel.sum(), 1, rtol=1e-13)


def test_every_iterate_within_a_basis_is_the_projected_step(rng):
    image, result = noise_pair(rng)
    x, y = dense(image, result, (5, 5))
    columns = columns_of((5, 5), 5, rng)
    ortho = linalg.orth(columns / linalg.norm(columns, axis=0))
    step, taps, want = 0.5 / np.linalg.eigvalsh(x.T @ x)[-1], np.zeros(25), []
    for _ in range(11):
        want.append(objective(x, y, taps))
        taps = ortho @ (ortho.T @ (taps - step * x.T @ (x @ taps - y)))
    fit = normal_equations(image, result, (5, 5)).solve(
        solver="gradient_descent", basis=columns, step=step, num_iter=10
    )
    assert_allclose(fit.history["objective"], want, rtol=1e-10)


# What a kernel of each symmetry equals.
IMAGES = {
    "even": [lambda k: k[::-1, ::-1]],
    "rotation": [np.rot90],
    "left_right": [lambda k: k[:, ::-1]],
    "up_down": [lambda k: k[::-1]],
    "mirror": [lambda k: k[:, ::-1], lambda k: k[::-1]],
    "square": [lambda k: k[:, ::-1], lambda k: k[::-1], np.transpose],
}
MIRRORS = ["left_right", "up_down", "mirror", "square"]


def spanned(shape, symmetric):
    """Orthonormal kernels that solve ``k - image(k) = 0`` for every image."""
    taps = np.eye(shape[0] * shape[1])
    wrong = [
        [(tap.reshape(shape) - image(tap.reshape(shape))).ravel() for tap in taps]
        for image in IMAGES[symmetric]
    ]
    return linalg.null_space(np.vstack([np.array(one).T for one in wrong]))


@pytest.mark.parametrize("symmetric", IMAGES)
@pytest.mark.parametrize("shape", [(5, 5), (4, 4), (4, 7)], ids=str)
def test_symmetries_are_least_squares_on_the_kernels_that_have_them(symmetric, shape, rng):
    image, result = noise_pair(rng, shape)
    equations = normal_equations(image, result, shape)
    if symmetric in ("rotation", "square") and shape[0] != shape[1]:
        with pytest.raises(ValueError, match=rf"'{symmetric}' needs a square kernel.*'mirror'"):
            equations.solve(symmetric=symmetric)
        return
    columns = spanned(shape, symmetric)
    x, y = dense(image, result, shape)
    want = best(x, y, columns)
    for solver in ("auto", "fista"):
        kernel = equations.solve(symmetric=symmetric, solver=solver).kernel
        assert_allclose(kernel.ravel(), want, atol=1e-10 if solver == "auto" else 1e-7)
        for mirrored in IMAGES[symmetric]:
            assert_array_equal(kernel, mirrored(kernel))
    one = equations.solve(symmetric=symmetric, unit_sum=True).kernel
    assert_allclose(one.ravel(), best_of_sum_one(x, y, columns), atol=1e-10)


@pytest.mark.parametrize("symmetric", IMAGES)
def test_planted_kernels_of_a_symmetry_come_back_from_few_pixels(symmetric, rng):
    columns = spanned((7, 7), symmetric)
    truth = (columns @ rng.standard_normal(columns.shape[1])).reshape(7, 7)
    image = rng.standard_normal((12, 12))
    fit = normal_equations(image, naive.convolve(image, truth), (7, 7)).solve(symmetric=symmetric)
    assert_allclose(fit.kernel, truth, atol=1e-9)


@pytest.mark.parametrize(
    ("symmetric", "count"),
    [("left_right", 28), ("up_down", 28), ("mirror", 16), ("square", 10)],
)
def test_mirrors_leave_as_many_unknowns_as_are_known_of_them(symmetric, count):
    """Of 2n + 1 taps a side: (2n + 1)(n + 1), (n + 1)^2, (n + 1)(n + 2) / 2."""
    assert tap_groups((7, 7), symmetric).max() + 1 == count


@pytest.mark.parametrize("symmetric", MIRRORS)
def test_mirrors_go_with_signs_and_a_sum(symmetric, rng):
    image, result = noise_pair(rng, (4, 4))
    x, y = dense(image, result, (4, 4))
    columns = spanned((4, 4), symmetric)
    gram, moments, taps = x.T @ x, x.T @ y, np.full(16, 1 / 16)
    step = 1 / np.linalg.eigvalsh(gram)[-1]
    for _ in range(3000):
        taps = onto_simplex(columns @ (columns.T @ (taps - step * (gram @ taps - moments))))
    equations = normal_equations(image, result, (4, 4))
    for solver in ("auto", "fista"):
        fit = equations.solve(symmetric=symmetric, nonnegative=True, unit_sum=True, solver=solver)
        assert_allclose(fit.kernel.ravel(), taps, atol=1e-7)
        for mirrored in IMAGES[symmetric]:
            assert_array_equal(fit.kernel, mirrored(fit.kernel))


TWICE = np.array([[1.0, 2.0, 0.0], [2.0, 4.0, 1.0], [0.0, 0.0, 5.0], [1.0, 2.0, 7.0]])
REFUSED = {
    "complex": ({"basis": np.eye(4) * 1j}, TypeError, "real numbers, got dtype complex128"),
    "objects": ({"basis": [["a"], ["b"]]}, TypeError, "real numbers, got dtype <U1"),
    "sparse": ({"basis": sparse.eye_array(4)}, TypeError, r"got a dia_array; pass basis.toarray"),
    "masked": ({"basis": np.ma.masked_less(np.eye(4), 1)}, TypeError, "must not be masked"),
    "stack": ({"basis": np.ones((2, 2, 2))}, ValueError, r"got shape \(2, 2, 2\); kernels stacked"),
    "line": ({"basis": np.ones(4)}, ValueError, r"must have shape \(p \* q, b\)"),
    "no column": ({"basis": np.ones((4, 0))}, ValueError, r"got shape \(4, 0\)"),
    "nan": (
        {"basis": [[1.0, 2.0], [3.0, np.nan]]},
        ValueError,
        r"basis must be finite, got nan at index \(1, 1\); leave that column out",
    ),
    "twice": (
        {"basis": TWICE},
        ValueError,
        r"independent columns; 1 of its 3 are sums of the others to rounding \(numbers [01]\)",
    ),
    "zero": ({"basis": [[1.0, 0.0], [2.0, 0.0]]}, ValueError, r"\(numbers 1\): leave them out"),
    "wide": ({"basis": np.ones((2, 9))}, ValueError, r"8 of its 9 .*\(numbers 1, 2, 3, 4, 5, \.\."),
    "signs": (
        {"basis": np.eye(4), "nonnegative": True},
        ValueError,
        "unit_sum, ridge and every solver, got nonnegative beside it",
    ),
    "symmetry": (
        {"basis": np.eye(4), "symmetric": "even"},
        ValueError,
        "got symmetric beside it; leave one out",
    ),
    "product": ({"basis": np.eye(4), "separable": True}, ValueError, "got separable beside it"),
    "no sum": (
        {"basis": [[1.0], [0.0], [-1.0], [0.0]], "unit_sum": True},
        ValueError,
        "unit_sum=True needs a basis some column of which has a sum other than 0",
    ),
    "smooth word": (
        {"ridge": ("smooth", "lcurve")},
        TypeError,
        r"'gcv', \('smooth', number\) or \('smooth', 'gcv'\), got \('smooth', 'lcurve'\)",
    ),
    "mirror": ({"symmetric": "mirrors"}, ValueError, "'left_right', 'up_down', 'mirror', 'square'"),
    "shortest": (
        {"solver": "minimum_norm", "ridge": ("smooth", "gcv")},
        ValueError,
        "goes with symmetric and basis alone",
    ),
}


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals(arguments, error, message):
    with pytest.raises(error, match=message):
        Options(**arguments)
    with pytest.raises(error, match=message):
        NormalEquations.zero((2, 2)).solve(**arguments)


def test_a_basis_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"one row a tap, 9 of kernel_shape \(3, 3\) .*\(4, 2\)"):
        NormalEquations.zero((3, 3)).solve(basis=np.eye(4)[:, :2])


@pytest.mark.parametrize("solver", ["auto", "fista"])
@pytest.mark.parametrize("options", [{"basis": np.eye(4225, 2)}, {"ridge": ("smooth", "gcv")}])
def test_what_needs_a_gram_matrix_says_so(options, solver):
    image = np.ones((70, 70))
    pairs = [
        Pair(image, image[:6, :6], window_of_pair(image.shape, image[:6, :6].shape, (65, 65), None))
    ]
    asked = Options(solver=solver, **options)
    with pytest.raises(ValueError, match="basis and a ridge that 'gcv' chooses need the normal eq"):
        fit_large(pairs, (65, 65), 0.0, 1, options=asked)
