"""Units: a power of two changes no kernel, or is refused by name."""

import re

import numpy as np
import pytest

from fastkernel import convolve, estimate_kernel, estimate_kernel_field, estimate_kernels

RNG = np.random.default_rng(0)
SOURCE = RNG.random((40, 40)) + 0.1
KERNEL = RNG.random((3, 3))
RESULT = convolve(SOURCE, KERNEL, "same", "mirror")

ASKED = {
    "plain": {},
    "nonnegative": {"nonnegative": True},
    "unit_sum": {"unit_sum": True},
    "ridge": {"ridge": "gcv"},
    "smooth": {"ridge": ("smooth", "gcv")},
    "descent": {"solver": "gradient_descent", "num_iter": 20},
    "fista": {"solver": "fista", "num_iter": 20},
    "separable": {"separable": True},
    "lad": {"method": "lad"},
    "richardson_lucy": {"method": "richardson_lucy", "num_iter": 20},
    "fft": {"method": "fft"},
}


@pytest.mark.parametrize("power", [-1000, -530, -500, -300, -150, 150, 300, 500, 1000])
@pytest.mark.parametrize("name", ASKED)
def test_another_unit_changes_no_kernel_or_is_refused(name, power):
    want = estimate_kernel(SOURCE, RESULT, 3, **ASKED[name]).kernel
    kernel, refusal = fitted_or_refused(SOURCE * 2.0**power, RESULT * 2.0**power, ASKED[name])
    if refusal is None:
        np.testing.assert_allclose(kernel, want, rtol=1e-9, atol=1e-12)
    else:
        assert abs(power) >= 300
        told = "sum of squares|overflow float64|do not determine|largest pixel|must be finite"
        assert re.search(told, refusal)


def fitted_or_refused(source, result, asked):
    try:
        return estimate_kernel(source, result, 3, **asked).kernel, None
    except ValueError as reason:
        return None, str(reason)


def test_the_image_and_its_size_are_named():
    with pytest.raises(
        ValueError, match=r"source must have a sum of squares from 4e-121 to 3e\+120"
    ):
        estimate_kernel(SOURCE * 1e100, RESULT, 3, ridge="gcv")
    with pytest.raises(ValueError, match=r"result must have a sum of squares .* another unit"):
        estimate_kernel(SOURCE, RESULT * 1e-100, 3, solver="fista")


def test_a_field_of_overflowing_sums_is_refused():
    for huge in (2.0**510, 2.0**600):
        with pytest.raises(ValueError, match="overflow float64"):
            estimate_kernel_field(SOURCE * huge, RESULT * huge, 3, degree=1, tile=8)


def test_of_a_stack_one_pair_is_refused():
    pairs = np.stack([SOURCE, SOURCE * 1e100]), np.stack([RESULT, RESULT * 1e100])
    stack = estimate_kernels(*pairs, 3, ridge="gcv")
    assert stack.refused.tolist() == [False, True]
    assert "no number of float64" in stack.reasons[1]
