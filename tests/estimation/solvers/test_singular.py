"""Sources that tell too little, and what is said of them; minima that are known all the same."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import nnls

from fastkernel import SingularFitError, design_matrix, estimate_kernel, psf
from fastkernel.estimation.solvers.direct import factorise

RAMP = np.add.outer(np.arange(20.0), np.arange(24.0))


@pytest.mark.parametrize("source", [np.ones((20, 24)), np.zeros((20, 24)), RAMP])
@pytest.mark.parametrize(
    "options",
    [{"nonnegative": True}, {"nonnegative": True, "unit_sum": True}, {"unit_sum": True}],
)
def test_refuses_sources_with_many_best_kernels(source, options):
    with pytest.raises(SingularFitError, match="do not determine the kernel: the source"):
        estimate_kernel(source, source, 3, **options)


def test_a_bound_may_determine_what_the_source_does_not():
    """Only one mean of places is a corner: the corner itself."""
    fit = estimate_kernel(RAMP, RAMP[2:, 2:], 3, nonnegative=True)
    want = np.zeros((3, 3))
    want[0, 0] = 1
    assert_allclose(fit.kernel, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [7, 11, 15])
def test_nonnegative_stamps_reach_the_residual_of_nnls(size):
    narrow, wide = psf.gaussian(31, 2.0), psf.gaussian(31, 3.0)
    norm = nnls(design_matrix(narrow, (size, size), "same", "zero"), wide.ravel(), maxiter=10000)[1]
    fit = estimate_kernel(narrow, wide, size, boundary="zero", nonnegative=True)
    assert fit.kernel.min() >= 0
    assert fit.residual_rms * 31 < max(1.01 * norm, 4e-8 * np.linalg.norm(wide))


def test_a_matrix_of_full_rank_is_called_too_close_to_singular():
    n = 40
    diagonal = np.full(n, 1.0)
    diagonal[0] = 1.2 * n * np.finfo(float).eps
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))[0]
    with pytest.raises(SingularFitError, match="too close to singular, with a condition number"):
        factorise((turn * diagonal) @ turn.T)


def test_who_asked_for_a_ridge_is_told_of_a_larger_one():
    with pytest.raises(SingularFitError, match=r"or a ridge= larger than 1\.0e-30"):
        estimate_kernel(RAMP, RAMP, 3, ridge=1e-30)
