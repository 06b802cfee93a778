"""Numbers that no float64 and no index of an array can hold are refused by name."""

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
