"""LAPACK by pointer is LAPACK by wrappers; Ctrl-C is heard meanwhile, and nothing crashes."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg

from fastkernel._machine import lapack


@pytest.fixture(params=[False, True], ids=["small", "large"])
def by_pointer(request, monkeypatch):
    names = ("_FEW", "_MANY", "_ONE_THREAD", "_OWN") if request.param else ("_OWN",)
    for name in names:
        monkeypatch.setattr(lapack, name, 0)
    if not request.param:
        monkeypatch.setattr(lapack, "_ONE_THREAD", 512)


@pytest.mark.usefixtures("by_pointer")
@pytest.mark.parametrize("n", [1, 2, 41, 130])
class TestSameAsWrappers:
    def matrix(self, n):
        rng = np.random.default_rng(n)
        other = rng.standard_normal((n, n))
        return other @ other.T + np.eye(n), rng

    def test_cholesky(self, n):
        matrix, _ = self.matrix(n)
        given = matrix.copy()
        lower, info = lapack.cholesky(matrix)
        assert info == 0
        assert np.array_equal(lower, linalg.cholesky(matrix, lower=True))
        assert np.array_equal(given, matrix)
        assert lapack.cholesky(-matrix)[1] == 1

    def test_triangles(self, n):
        matrix, rng = self.matrix(n)
        lower, right = linalg.cholesky(matrix, lower=True), rng.standard_normal((n, 7))
        assert np.array_equal(
            lapack.inverse_of_lower(lower), linalg.lapack.dtrtri(lower, lower=1)[0]
        )
        want = linalg.solve_triangular(lower, right, lower=True)
        assert np.array_equal(lapack.solve_lower(lower, right), want)

    def test_eigenvalues(self, n):
        matrix, _ = self.matrix(n)
        values, vectors = linalg.eigh(matrix)
        found = lapack.eigenvectors(matrix)
        assert np.array_equal(found[0], values)
        assert np.array_equal(found[1], vectors)
        assert np.array_equal(lapack.eigenvalues(matrix), linalg.eigvalsh(matrix))

    def test_singular_values(self, n):
        _, rng = self.matrix(n)
        given = rng.standard_normal((n, n))
        for found, want in zip(lapack.singular_values(given), linalg.svd(given), strict=True):
            assert np.array_equal(found, want)

    def test_rank(self, n):
        _, rng = self.matrix(n)
        tall = rng.standard_normal((n, (n + 1) // 2))
        assert lapack.rank(tall @ tall.T, 1e-9) == (n + 1) // 2

    def test_product(self, n):
        matrix, rng = self.matrix(n)
        other = rng.standard_normal((n, 5))
        assert np.array_equal(lapack.product(matrix, other), matrix @ other)


@pytest.mark.parametrize("n", [*range(1, 10), 130, 243])
def test_own_factors(n, monkeypatch, rng):
    monkeypatch.setattr(lapack, "_ONE_THREAD", 0)
    other = rng.standard_normal((n, n))
    matrix = other @ other.T + np.eye(n)
    given = matrix.copy()
    lower, info = lapack.cholesky(matrix)
    assert info == 0
    assert_allclose(lower, linalg.cholesky(matrix, lower=True), rtol=0, atol=1e-13 * n)
    assert_array_equal(lower, np.tril(lower))
    assert lower.flags.f_contiguous
    assert_array_equal(given, matrix)
    for wrong in (-1.0, np.nan):
        matrix[n // 2, n // 2] = wrong
        assert lapack.cholesky(matrix)[1] == n // 2 + 1


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("n", [1, 2, 40, 130])
def test_what_a_factor_tells(n, own, monkeypatch, rng):
    monkeypatch.setattr(lapack, "_SOLVED", 0 if own else n)
    tall = rng.standard_normal((n + 9, n)) * np.logspace(0, 3, n)
    matrix, right = tall.T @ tall, rng.standard_normal(n)
    lower, _ = lapack.cholesky(matrix)
    found, given = lapack.solve_factored(lower, right), right.copy()
    assert_allclose(tall.T @ (tall @ found), right, rtol=0, atol=1e-9)
    assert_array_equal(right, given)
    both = lapack.solve_factored(lower, np.stack([right, right], axis=1))
    assert_allclose(both, np.stack([found, found], axis=1), rtol=1e-9)
    y = rng.standard_normal(n + 9)
    left = lapack.residual_energy(matrix, tall.T @ y, y @ y, found)
    assert_allclose(left, np.sum((y - tall @ found) ** 2), rtol=1e-9)
    reciprocal = lapack.reciprocal_condition(matrix, lower)
    expected, info = linalg.lapack.dpocon(lower, np.linalg.norm(matrix, 1), uplo="L")
    assert info == 0
    assert_allclose(reciprocal, expected, rtol=1e-9)
    # An estimate of the inverse's norm is no more than that, and seldom a tenth of it.
    assert 1 <= reciprocal * np.linalg.cond(matrix, 1) * (1 + 1e-9) < 10


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (21, 15, 3375), (700, 700, 3), (0, 4, 2)])
def test_products_of_narrow_matrices(m, k, n, rng):
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    assert_allclose(lapack.narrow_product(a, b), np.einsum("ik,kj->ij", a, b), rtol=0, atol=1e-11)


INSIDE = """
import sys, time
import numpy as np
from fastkernel._machine import lapack

other = np.random.default_rng(0).standard_normal(({n}, {n}))
matrix = other @ other.T
print("in", flush=True)
try:
    lapack.{routine}(matrix)
    print("finished", flush=True)
except KeyboardInterrupt:
    print(time.time(), flush=True)
sys.exit(7)
"""


@pytest.mark.jit
@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
@pytest.mark.parametrize(
    ("routine", "n"), [("eigenvectors", 1800), ("singular_values", 1500), ("cholesky", 4500)]
)
def test_ctrl_c_is_heard_inside_and_the_process_ends_as_it_says(routine, n):
    code = INSIDE.format(routine=routine, n=n)
    # Pressed by another process: a thread of its own would wait for the GIL as well.
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        child.stdout.readline()
        time.sleep(0.3)
        pressed = time.time()
        child.send_signal(signal.SIGINT)
        heard = child.communicate(timeout=60)[0].strip()
    finally:
        child.kill()
    assert heard != "finished", "give it more work"
    assert float(heard) - pressed < 1
    assert child.returncode == 7
