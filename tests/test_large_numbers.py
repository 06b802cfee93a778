"""Numbers that no float64 and no index of an array can hold are refused by name."""

import re

import numpy as np
import pytest

import fastkernel as fk

HUGE = 10**400
IMAGE = np.random.default_rng(0).random((20, 20))
PSF = np.ones((3, 3)) / 9

CALLS = {
    "ridge": lambda: fk.estimate_kernel(IMAGE, IMAGE, 3, ridge=HUGE),
    "step": lambda: fk.estimate_kernel(IMAGE, IMAGE, 3, solver="fista", step=HUGE),
    "tol": lambda: fk.estimate_kernel(IMAGE, IMAGE, 3, solver="fista", tol=HUGE),
    "num_iter": lambda: fk.estimate_kernel(IMAGE, IMAGE, 3, solver="fista", num_iter=HUGE),
    "sigma_clip": lambda: fk.estimate_kernel(IMAGE, IMAGE, 3, sigma_clip=HUGE),
    "saturation": lambda: fk.estimate_kernel(IMAGE, IMAGE, 3, saturation=(0, HUGE)),
    "workers": lambda: fk.estimate_kernel(IMAGE, IMAGE, 3, workers=HUGE),
    "kernel_shape": lambda: fk.estimate_kernel(IMAGE, IMAGE, HUGE),
    "epsilon": lambda: fk.inverse_filter(IMAGE, PSF, HUGE),
    "balance": lambda: fk.wiener(IMAGE, PSF, HUGE),
    "num_iter ": lambda: fk.richardson_lucy(IMAGE, PSF, HUGE),
    "fill_value": lambda: fk.convolve(IMAGE, PSF, "same", fill_value=HUGE),
    "shape": lambda: fk.inverse_kernel(PSF, HUGE),
    "sigma": lambda: fk.psf.gaussian(3, HUGE),
    "shape ": lambda: fk.psf.box(HUGE),
    "length": lambda: fk.psf.motion(HUGE),
    "angle": lambda: fk.psf.motion(5, HUGE),
    "radius": lambda: fk.psf.disk(HUGE),
    "fwhm": lambda: fk.psf.moffat(3, HUGE, 2),
    "tile": lambda: fk.estimate_kernel_field(IMAGE, IMAGE, 3, tile=HUGE),
    "grid": lambda: fk.estimate_kernel_field(IMAGE, IMAGE, 3, grid=HUGE),
    "row": lambda: fk.estimate_kernel_field(IMAGE, IMAGE, 3, degree=0).kernel_at(HUGE, 0),
    "image_shape": lambda: fk.convolution_matrix(PSF, (HUGE, 20)),
    "boundary": lambda: fk.convolve(IMAGE, PSF, "same", HUGE),
    "background": lambda: fk.estimate_kernel(IMAGE, IMAGE, 3, background=HUGE),
}


@pytest.mark.parametrize("name", CALLS)
def test_huge_numbers_are_refused_by_name(name):
    with pytest.raises((TypeError, ValueError), match=name.strip()):
        CALLS[name]()


def test_shifts_may_be_as_large_as_they_like():
    assert (
        fk.circshift(IMAGE, (HUGE, -HUGE)) == np.roll(IMAGE, (HUGE % 20, -HUGE % 20), (0, 1))
    ).all()


UNITS = [2.0**-532, 2.0**-300, 2.0**-150, 2.0**150, 2.0**400, 2.0**508]


@pytest.mark.jit
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ridge": "gcv"},
        {"solver": "gradient_descent"},
        {"solver": "fista"},
        {"method": "lad"},
        {"method": "fft"},
        {"method": "richardson_lucy"},
    ],
    ids=str,
)
def test_other_units_change_nothing_or_are_refused_by_name(unit, options, rng):
    """Units that are powers of two: every digit stays."""
    source, kernel = rng.random((40, 40)) + 0.1, rng.random((3, 3))
    result = fk.convolve(source, kernel, "same", "mirror") + 0.01 * rng.random((40, 40))
    want = fk.estimate_kernel(source, result, 3, **options).kernel
    told = None
    try:
        found = fk.estimate_kernel(source * unit, result * unit, 3, **options).kernel
    except ValueError as refused:
        told = str(refused)
    if told is None:
        np.testing.assert_array_equal(found, want)
    else:
        assert re.match("(source|result)( and result)? (must have|hold)", told)
        assert not 2.0**-150 <= unit <= 2.0**150
