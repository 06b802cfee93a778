"""The operator equals the dense matrix, for real and for complex vectors."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fastkernel import convolution_matrix, convolution_operator

RULES = ["zero", "circular", "replicate", "symmetric", "mirror"]


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("rule", RULES)
def test_complex_vectors(mode, rule, rng):
    kernel = rng.standard_normal((3, 2))
    operator = convolution_operator(kernel, (5, 6), mode, rule)
    matrix = convolution_matrix(kernel, (5, 6), mode, rule, format="dense")
    rows, cols = matrix.shape
    x, y = (rng.standard_normal(n) + 1j * rng.standard_normal(n) for n in (cols, rows))
    for found, want in (
        (operator @ x, matrix @ x),
        (operator.matvec(x[:, None]), (matrix @ x)[:, None]),
        (operator.rmatvec(y), matrix.T @ y),
        (operator.H @ y, matrix.T @ y),
        (operator.T @ y, matrix.T @ y),
        (operator @ np.stack([x, 1j * x], 1), matrix @ np.stack([x, 1j * x], 1)),
    ):
        assert found.dtype == np.complex128
        assert found.shape == want.shape
        assert_allclose(found, want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("kernel", "vector"), [("f4", "c8"), ("f4", "c16"), ("f8", "c8")])
def test_products_have_the_precision_of_the_kernel(kernel, vector, rng):
    taps, x = rng.standard_normal((3, 3)).astype(kernel), rng.standard_normal(30).astype(vector)
    found = convolution_operator(taps, (5, 6), "same") @ (x * (1 + 2j))
    assert found.dtype == np.result_type(kernel, "c8")
    want = convolution_matrix(taps.astype(float), (5, 6), "same") @ (x * (1 + 2j))
    assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_a_complex_vector_must_be_finite():
    operator = convolution_operator(np.ones((3, 3)), (2, 2), "same")
    for bad in (complex(0, np.nan), complex(np.inf, 0)):
        with pytest.raises(ValueError, match=r"vector must be finite, got (nan|inf) at index"):
            operator @ np.array([1, bad, 0, 0])


def test_vectors_of_something_else():
    operator = convolution_operator(np.ones((3, 3)), (2, 2), "same")
    with pytest.raises(TypeError, match=r"vector must hold numbers, got dtype <U1; convert"):
        operator.matvec(np.array(["1"] * 4))
