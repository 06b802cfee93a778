"""What is no border rule, no flag and no callback is refused by name; the rest is understood."""

from typing import get_args

import numpy as np
import pytest
from shared import ALIASES

from fastkernel import (
    convolve,
    estimate_kernel,
    inverse_filter,
    inverse_kernel,
    normal_equations,
    restore_tiled,
    richardson_lucy,
    wiener,
)
from fastkernel._images.checks import as_boundary
from fastkernel._typing import Border, Boundary

IMAGE = np.random.default_rng(0).random((12, 13))
KERNEL = np.full((3, 3), 1 / 9)


def names_of(alias):
    """The strings of a union of literals."""
    for part in get_args(alias):
        yield from [part] if isinstance(part, str) else names_of(part)


def test_types_and_aliases_name_the_same_rules():
    known = {alias for alias, _ in ALIASES if isinstance(alias, str)}
    names = set(names_of(Border))
    assert names - set(get_args(Boundary)) <= known
    assert {as_boundary(name) for name in names} == set(get_args(Boundary))
    assert {name.lower() for name in known} <= {name.lower() for name in names}


def test_numbers_are_those_of_opencv():
    cv2 = pytest.importorskip("cv2")
    pad = np.arange(30, dtype=np.uint8).reshape(5, 6) + 1
    for name in ("CONSTANT", "REPLICATE", "REFLECT", "WRAP", "REFLECT_101", "DEFAULT"):
        number = getattr(cv2, f"BORDER_{name}")
        want = cv2.copyMakeBorder(pad, 4, 4, 4, 4, number)
        for rule in (number, np.int32(number), f"BORDER_{name}"):
            found = convolve(pad, np.eye(1), "full", rule)
            assert (found == pad).all()
            delta = np.zeros((9, 9))
            delta[4, 4] = 1
            found = convolve(pad, np.ones((9, 9)), "same", rule)
            sums = np.lib.stride_tricks.sliding_window_view(want.astype(float), (9, 9))
            np.testing.assert_allclose(found, sums.sum((2, 3)), rtol=1e-12)


@pytest.mark.parametrize("value", ["reflect", "REFLECT", "Reflect"])
def test_reflect_alone_says_too_little(value):
    with pytest.raises(ValueError, match=r"say 'symmetric' .* or 'mirror'"):
        as_boundary(value)


@pytest.mark.parametrize("value", ["bounce", "", "BORDER_", "BORDER_ISOLATED", -1, 5, 16, 10**30])
def test_unknown_rules(value):
    with pytest.raises(ValueError, match=r"boundary must be one of zero, .* OpenCV's numbers"):
        as_boundary(value)


@pytest.mark.parametrize("value", [None, True, 1.0, ["zero"], b"zero"])
def test_what_can_be_no_rule(value):
    with pytest.raises(TypeError, match=r"boundary must be a string, or a number of OpenCV's"):
        as_boundary(value)


def equations():
    return normal_equations(IMAGE, IMAGE, 3)


FLAGS = {
    "nonnegative": lambda **flag: estimate_kernel(IMAGE, IMAGE, 3, **flag),
    "unit_sum": lambda **flag: estimate_kernel(IMAGE, IMAGE, 3, **flag),
    "separable": lambda **flag: estimate_kernel(IMAGE, IMAGE, 3, **flag),
    "acceleration": lambda **flag: estimate_kernel(
        IMAGE, IMAGE, 3, method="richardson_lucy", **flag
    ),
    "nonnegative ": lambda **flag: equations().solve(**flag),
    "unit_sum ": lambda **flag: equations().solve(**flag),
    "separable ": lambda **flag: equations().solve(**flag),
    "nonnegative  ": lambda **flag: estimate_kernel(IMAGE, IMAGE, 3, method="fft", **flag),
    "acceleration ": lambda **flag: richardson_lucy(IMAGE, KERNEL, 2, **flag),
    "guarded": lambda **flag: inverse_filter(IMAGE, KERNEL, **flag),
    "check_finite": lambda **flag: convolve(IMAGE, KERNEL, **flag),
}


@pytest.mark.parametrize("value", ["no", 0, 1, None, [], np.array([True])])
@pytest.mark.parametrize("name", FLAGS)
def test_flags_are_true_or_false(name, value):
    with pytest.raises(TypeError, match=rf"{name.strip()} must be True or False, got"):
        FLAGS[name](**{name.strip(): value})


@pytest.mark.parametrize("name", [name for name in FLAGS if name != "nonnegative  "])
def test_flags_of_numpy(name):
    for value in (np.True_, np.False_):
        FLAGS[name](**{name.strip(): value})


CALLBACKS = {
    "lstsq": lambda call: estimate_kernel(IMAGE, IMAGE, 3, callback=call),
    "fft": lambda call: estimate_kernel(IMAGE, IMAGE, 3, method="fft", callback=call),
    "normal_equations": lambda call: normal_equations(IMAGE, IMAGE, 3, callback=call),
    "solve": lambda call: equations().solve(callback=call),
    "inverse_kernel": lambda call: inverse_kernel(KERNEL, 3, ridge=1.0, callback=call),
    "wiener": lambda call: wiener(IMAGE, KERNEL, 0.1, callback=call),
    "inverse_filter": lambda call: inverse_filter(IMAGE, KERNEL, callback=call),
    "richardson_lucy": lambda call: richardson_lucy(IMAGE, KERNEL, 2, callback=call),
    "restore_tiled": lambda call: restore_tiled(wiener, IMAGE, KERNEL, balance=1.0, callback=call),
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_callback_can_be_called(name):
    for value in (True, "print", 0):
        with pytest.raises(TypeError, match=r"callback must be None or callable as callback\("):
            CALLBACKS[name](value)
    CALLBACKS[name](lambda done, total: None)
