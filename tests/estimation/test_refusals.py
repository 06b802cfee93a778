"""Every wrong argument has its own message: the name, the rule, what came, what to try."""

import numpy as np
import pytest
from shared import ALIASES

from fastkernel import KernelFit, estimate_kernel, normal_equations

IMAGE = np.random.default_rng(5).random((20, 30))
VALID = IMAGE[:16, :26]
NAN = IMAGE.copy()
NAN[7, 9] = np.nan
HUGE = np.full((20, 30), 1e200)


def call(source=IMAGE, result=VALID, kernel_shape=(5, 5), **options):
    return estimate_kernel(source, result, kernel_shape, **options)


CASES = {
    "complex source": (
        {"source": IMAGE + 1j},
        TypeError,
        r"source must hold real numbers, got dtype complex128; take \.real or \.imag",
    ),
    "object result": (
        {"result": VALID.astype(object)},
        TypeError,
        r"result must hold real numbers, got dtype object; convert it with \.astype",
    ),
    "text": ({"source": [["a"]]}, TypeError, r"source must hold real numbers, got dtype <U1"),
    "source of masked rows": (
        {"source": list(np.ma.masked_less(IMAGE, 0.5))},
        TypeError,
        r"source must not be masked, got .* set at \d+ pixels .*; crop to pixels that are good",
    ),
    "masks and a method that leaves no pixel out": (
        {"source": np.ma.masked_less(IMAGE, 0.5), "result": IMAGE, "method": "fft"},
        ValueError,
        r"source must not be masked for method='fft', which cannot leave a pixel out, got .* at "
        r"\d+ pixels; use method='lstsq' or 'lad', or crop to pixels that are good",
    ),
    "colour without channel_axis": (
        {"source": np.zeros((20, 30, 3))},
        ValueError,
        r"source must have 2 dimensions, \(rows, cols\), got shape \(20, 30, 3\); .* channel_axis=",
    ),
    "grey with channel_axis": (
        {"channel_axis": -1},
        ValueError,
        r"source must have 3 dimensions, \(rows, cols\) and one channel axis, got shape \(20, 30\)",
    ),
    "no such channel_axis": (
        {"source": np.zeros((4, 4, 3)), "result": np.zeros((4, 4, 3)), "channel_axis": 3},
        ValueError,
        r"channel_axis must be an axis of a 3-dimensional image, got 3",
    ),
    "channels differ": (
        {"source": np.ones((9, 9, 3)), "result": np.ones((9, 9, 4)), "channel_axis": 2},
        ValueError,
        r"source and result must have the same number of channels, got 3 and 4",
    ),
    "empty": (
        {"source": np.zeros((0, 4))},
        ValueError,
        r"source must have at least one pixel, got shape \(0, 4\)",
    ),
    "sequences differ in length": (
        {"source": [IMAGE, IMAGE], "result": [VALID]},
        ValueError,
        r"source and result must hold the same number of images, got 2 and 1",
    ),
    "a sequence and an image": (
        {"source": [IMAGE]},
        ValueError,
        r"must both be images or both be sequences of images, got list and ndarray",
    ),
    "bad image in a sequence": (
        {"source": [IMAGE, IMAGE + 1j], "result": [VALID, VALID]},
        TypeError,
        r"source\[1\] must hold real numbers",
    ),
    "kernel larger than the image": (
        {"kernel_shape": (21, 5)},
        ValueError,
        r"kernel_shape must fit inside source: got \(21, 5\) for source \(20, 30\); "
        r"use at most \(20, 30\)",
    ),
    "kernel larger than a same pair": (
        {"result": IMAGE, "kernel_shape": (3, 31)},
        ValueError,
        r"kernel_shape must fit inside source: got \(3, 31\)",
    ),
    "shapes of no mode": (
        {"result": IMAGE[:19]},
        ValueError,
        r"result must have one of three shapes for source \(20, 30\) and kernel_shape \(5, 5\): "
        r"\(20, 30\) \(same\), \(16, 26\) \(valid\) or \(24, 34\) \(full\); got \(19, 30\)",
    ),
    "a border rule that contradicts full": (
        {"result": np.zeros((24, 34)), "boundary": "mirror"},
        ValueError,
        r"boundary must be None or 'zero' for a result of full shape \(24, 34\).*got 'mirror'",
    ),
    "NaN in the source": (
        {"source": NAN},
        ValueError,
        r"source must be finite, got nan at index \(7, 9\); nan_policy='omit' leaves",
    ),
    "infinity in the result": (
        {"result": np.where(np.isnan(NAN), -np.inf, IMAGE), "boundary": "zero"},
        ValueError,
        r"result must be finite, got -inf at index \(7, 9\)",
    ),
    "NaN in the second pair": (
        {"source": [IMAGE, NAN], "result": [VALID, VALID]},
        ValueError,
        r"source\[1\] must be finite, got nan at index \(7, 9\)",
    ),
    "overflow": (
        {"source": HUGE},
        ValueError,
        r"source and result hold numbers whose products overflow float64; divide both",
    ),
    "kernel_shape of zero": (
        {"kernel_shape": (0, 3)},
        ValueError,
        r"kernel_shape must be two positive integers \(rows, cols\), got \(0, 3\)",
    ),
    "kernel_shape of floats": ({"kernel_shape": (3.0, 3)}, ValueError, r"got \(3\.0, 3\)"),
    "kernel_shape of three": ({"kernel_shape": (3, 3, 3)}, ValueError, r"got \(3, 3, 3\)"),
    "kernel_shape of None": ({"kernel_shape": None}, ValueError, r"got None"),
    "reflect": (
        {"result": IMAGE, "boundary": "reflect"},
        ValueError,
        r"repeats the edge pixel in SciPy and does not in NumPy; say 'symmetric' .* or 'mirror'",
    ),
    "unknown border rule": (
        {"boundary": "bounce"},
        ValueError,
        r"boundary must be one of zero, circular, replicate, symmetric, mirror, got 'bounce'",
    ),
    "negative ridge": ({"ridge": -1.0}, ValueError, r"ridge must be finite and at least 0, got -1"),
    "infinite ridge": ({"ridge": np.inf}, ValueError, r"ridge must be finite and at least 0"),
    "ridge of text": ({"ridge": "large"}, TypeError, r"ridge must be .*, got 'large'"),
    "no workers": (
        {"workers": 0},
        ValueError,
        r"workers must be a positive integer, or None for every usable core, got 0",
    ),
    "half a worker": ({"workers": 0.5}, ValueError, r"workers must be .*got 0\.5"),
    "unknown engine": (
        {"engine": "steam"},
        ValueError,
        r"engine must be 'auto', 'integer', 'float', 'fft', got 'steam'",
    ),
    "integers of real numbers": (
        {"engine": "integer"},
        ValueError,
        r"engine='integer' needs images of at most 8 bits, got float64 and float64; use 'auto'",
    ),
    "unknown method": (
        {"method": "magic"},
        ValueError,
        r"method must be one of 'lstsq', .*, got 'magic'",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_message(case):
    options, error, message = CASES[case]
    with pytest.raises(error, match=message):
        call(**options)


def test_pixels_that_no_rule_can_touch_are_the_only_ones_looked_at():
    """Many programs leave NaN where they know no border; a same pair does not read it."""
    result = np.pad(VALID, 2, constant_values=np.nan)
    assert isinstance(call(result=result), KernelFit)


@pytest.mark.parametrize(("alias", "rule"), ALIASES)
def test_aliases_of_other_libraries(alias, rule):
    got, want = (normal_equations(IMAGE, IMAGE, 3, boundary=name) for name in (alias, rule))
    assert (got.gram == want.gram).all()


def test_predict_refuses():
    fit = call()
    with pytest.raises(ValueError, match=r"mode must be 'valid', 'same' or 'full', got 'all'"):
        fit.predict(IMAGE, mode="all")
    with pytest.raises(
        ValueError, match=r"source must be at least as large as the kernel \(5, 5\)"
    ):
        fit.predict(IMAGE[:4])
    with pytest.raises(ValueError, match=r"result must have one of three shapes"):
        fit.residual(IMAGE, IMAGE[1:])
