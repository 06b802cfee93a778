"""Every PSF is the integral that its documentation says, in any size and position."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, ndimage

from fastkernel import psf

RADII = [0.2, 0.5, 0.6, 1, 1.5, 2, math.sqrt(5), 3.3, 7.3, 40.25]
LENGTHS = [0.4, 1, 2, 2.5, 3, 4, 8.7, 15, 60.3]
ANGLES = [0, 1, 30, 45, 60, 77.7, 90, 135, 179, -20, 400]


def definition_of_gaussian(shape, sigma, centre):
    rows, cols = np.indices(shape)
    r2 = ((rows - centre[0]) / sigma[0]) ** 2 + ((cols - centre[1]) / sigma[1]) ** 2
    found = np.exp(-r2 / 2)
    return found / found.sum()


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 5), (4, 4), (9, 6)])
@pytest.mark.parametrize("sigma", [0.7, 2.0, (3.0, 0.6)])
def test_gaussian(shape, sigma):
    middle = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    want = definition_of_gaussian(shape, np.broadcast_to(sigma, 2), middle)
    got = psf.gaussian(shape, sigma)
    assert got.dtype == np.float64
    assert_allclose(got, want, rtol=1e-13)
    assert_allclose(got, got[::-1, ::-1], rtol=1e-15)
    assert_allclose(got.sum(), 1, rtol=1e-14)


def test_gaussian_off_centre():
    want = definition_of_gaussian((5, 7), (1.2, 1.2), (1.25, 4.5))
    assert_allclose(psf.gaussian((5, 7), 1.2, centre=(1.25, 4.5)), want, rtol=1e-13)


def test_gaussian_far_from_a_narrow_peak_is_its_nearest_pixel():
    assert_array_equal(psf.gaussian(3, 1e-3, centre=(-9, 1)), [[0, 1, 0], [0, 0, 0], [0, 0, 0]])
    assert_allclose(psf.gaussian((1, 4), 1e-200), [[0, 0.5, 0.5, 0]])


@pytest.mark.parametrize(("rows", "cols"), [(40, 60), (33, 20)])
def test_gaussian_of_the_published_form(rows, cols):
    """``exp(-r**2 / radius)`` on Python 2's ``mgrid[-n/2:n/2]``, whose division rounded down."""
    radius = 30.0
    x, y = np.mgrid[-rows // 2 : rows // 2, -cols // 2 : cols // 2]
    want = np.exp(-(x**2 / radius + y**2 / radius))
    peak = -(-rows // 2), -(-cols // 2)
    got = psf.gaussian(want.shape, math.sqrt(radius / 2), centre=peak)
    assert_allclose(got, want / want.sum(), rtol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (4, 7)])
@pytest.mark.parametrize(("fwhm", "beta"), [(2.6, 3.0), (4.0, 0.8), (1.5, 40.0)])
def test_moffat(shape, fwhm, beta):
    rows, cols = (n - (length - 1) / 2 for n, length in zip(np.indices(shape), shape, strict=True))
    alpha = fwhm / 2 / math.sqrt(2 ** (1 / beta) - 1)
    want = (1 + (rows**2 + cols**2) / alpha**2) ** -beta
    assert_allclose(psf.moffat(shape, fwhm, beta), want / want.sum(), rtol=1e-12)


def test_moffat_is_half_as_high_at_half_its_width_and_a_gaussian_in_the_end():
    found = psf.moffat(9, 6, 2.5)
    assert found[4, 7] == pytest.approx(found[4, 4] / 2, rel=1e-12)
    width = 3 / math.sqrt(8 * math.log(2))
    assert_allclose(psf.moffat(9, 3, 1e12), psf.gaussian(9, width), rtol=1e-9)


@pytest.mark.parametrize("beta", [0.1, 3, 1e300])
def test_moffat_of_any_width(beta):
    """Flat where it is wide, a power of the distance where it is narrow."""
    assert_allclose(psf.moffat(4, 1e308, beta), np.full((4, 4), 1 / 16), rtol=1e-12)
    squares = np.add.outer(*2 * [np.array([1.5, 0.5, 0.5, 1.5]) ** 2])
    want = (squares / squares.min()) ** -beta
    assert_allclose(psf.moffat(4, 1e-300, beta), want / want.sum(), rtol=1e-9)


def test_airy_is_the_power_of_the_apertures_transform():
    """Of a round aperture of radius ``a`` in a frame of ``n``: dark at 0.61 n / a."""
    n, a = 2048, 100.0
    place = np.arange(n) - n // 2
    aperture = np.hypot(place[:, None], place) < a
    field = np.abs(np.fft.fftshift(np.fft.fft2(aperture))) ** 2
    part = field[n // 2 - 20 : n // 2 + 21, n // 2 - 20 : n // 2 + 21]
    found = psf.airy(41, 1.21967 / 2 * n / a)
    assert_allclose(found, part / part.sum(), atol=2e-3 * found.max())


def test_airy_is_dark_on_its_ring():
    found = psf.airy((1, 9), 4)[0]
    assert abs(found[[0, 8]]).max() < 1e-25
    assert found.sum() == pytest.approx(1, rel=1e-14)
    assert_allclose(found, found[::-1], rtol=1e-14)


def area_of_disk(radius, i, j):
    """Area of the disk inside the pixel (i, j) from its centre, by quadrature."""

    def height(u):
        reach = math.sqrt(max(radius**2 - u**2, 0.0))
        return max(min(i + 0.5, reach) - max(i - 0.5, -reach), 0.0)

    kinks = [math.sqrt(max(radius**2 - v**2, 0.0)) for v in (i - 0.5, i + 0.5)]
    points = sorted(s * k for s in (-1, 1) for k in (*kinks, radius) if abs(s * k - j) < 0.5)
    return integrate.quad(height, j - 0.5, j + 0.5, points=points or None, epsabs=1e-12)[0]


@pytest.mark.filterwarnings("ignore:The occurrence of roundoff")
@pytest.mark.parametrize("radius", RADII)
def test_disk_is_the_area_inside_every_pixel(radius, rng):
    got = psf.disk(radius)
    n = got.shape[0] // 2
    assert got.shape == (2 * n + 1, 2 * n + 1)
    assert n - 0.5 < radius <= n + 0.5 or n == 0
    assert got.min() >= 0
    assert_allclose(got.sum(), 1, rtol=1e-14)
    for turned in (got.T, got[::-1], got[:, ::-1]):
        assert_allclose(turned, got, rtol=1e-12, atol=1e-15)
    places = rng.integers(-n, n + 1, (60, 2)) if n > 4 else np.argwhere(got >= 0) - n
    for i, j in places:
        want = area_of_disk(radius, i, j) / (math.pi * radius**2)
        assert_allclose(got[i + n, j + n], want, rtol=0, atol=1e-9)


def thin_line(length, angle, shape):
    """The share of a line's points inside every pixel."""
    along = (np.arange(200000) + 0.5) / 200000 - 0.5
    i = -along * length * math.sin(math.radians(angle)) + (shape[0] - 1) / 2
    j = along * length * math.cos(math.radians(angle)) + (shape[1] - 1) / 2
    bins = [np.arange(n + 1) - 0.5 for n in shape]
    return np.histogram2d(i, j, bins)[0] / 200000


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("length", LENGTHS)
def test_motion_is_the_length_inside_every_pixel(length, angle):
    got = psf.motion(length, angle)
    assert got.min() >= 0
    assert_allclose(got.sum(), 1, rtol=1e-13)
    assert_array_equal(got, got[::-1, ::-1])
    reach = length * abs(math.sin(math.radians(angle))), length * abs(math.cos(math.radians(angle)))
    for n, r in zip(got.shape, reach, strict=True):
        assert n - 2 < r + 1e-6
        assert n > r - 1e-6
    want = thin_line(length, angle, got.shape)
    assert_allclose(got, want, rtol=0, atol=2e-5)


@pytest.mark.parametrize("length", LENGTHS)
def test_motion_turned(length):
    assert_allclose(psf.motion(length, 90), psf.motion(length).T, rtol=1e-14)
    assert_allclose(psf.motion(length, -1e-20), psf.motion(length), rtol=1e-14)
    assert_allclose(psf.motion(length, 210), psf.motion(length, 30), rtol=1e-12, atol=1e-15)
    for angle in (20, 45, 70):
        want = psf.motion(length, angle)
        assert_allclose(psf.motion(length, -angle), want[::-1], rtol=1e-9, atol=1e-15)
        assert_allclose(psf.motion(length, 90 - angle), want.T[::-1, ::-1], rtol=1e-9, atol=1e-15)


def test_motion_rises_to_the_right():
    line = psf.motion(20, 30)
    assert line[-1, 0] > 0
    assert line[0, -1] > 0
    assert line[0, 0] == line[-1, -1] == 0


@pytest.mark.parametrize("length", [4, 10])
def test_motion_of_the_published_form(length):
    size = 31
    want = np.zeros((size, size))
    want[size // 2 : size // 2 + 1, size // 2 - length // 2 : size // 2 + length // 2] = 1
    row, cols = size // 2, np.flatnonzero(want.any(axis=0))
    assert_allclose(psf.motion(length)[0], want[row, cols] / want.sum(), rtol=1e-15)
    assert psf.motion(length).shape == (1, length)


@pytest.mark.parametrize(
    "blur",
    [psf.gaussian(9, 1.3), psf.disk(3.4), psf.motion(9.2, 33), psf.motion(7), psf.box((3, 5))],
)
def test_nothing_moves(blur):
    assert_allclose(ndimage.center_of_mass(blur), [(n - 1) / 2 for n in blur.shape], atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (4, 4)])
def test_box(shape):
    assert_allclose(psf.box(shape), np.full(shape, 1 / (shape[0] * shape[1])), rtol=1e-15)


def test_one_number_stands_for_both():
    assert psf.box(3).shape == psf.gaussian(np.int64(3), np.float32(1)).shape == (3, 3)


SHAPE = r"shape must be two positive integers \(rows, cols\), got "
CASES = {
    "box of nothing": (lambda: psf.box(0), ValueError, SHAPE + "0"),
    "half a row": (lambda: psf.box((1.5, 2)), ValueError, SHAPE + r"\(1\.5, 2\)"),
    "three sizes": (lambda: psf.gaussian((3, 3, 3), 1), ValueError, SHAPE),
    "truth": (lambda: psf.box((True, 2)), ValueError, SHAPE),
    "no width": (lambda: psf.gaussian(3, 0), ValueError, "sigma must be greater than 0, got 0"),
    "endless width": (lambda: psf.gaussian(3, np.inf), ValueError, "sigma must be finite, got inf"),
    "width in words": (
        lambda: psf.gaussian(3, None),
        TypeError,
        r"sigma must be one number or two, \(rows, cols\), got None",
    ),
    "three widths": (lambda: psf.gaussian(3, (1, 2, 3)), TypeError, "sigma must be one number or"),
    "complex width": (lambda: psf.gaussian(3, 1j), TypeError, "sigma must be one number or two"),
    "true width": (lambda: psf.gaussian(3, True), TypeError, "sigma must be a number, got True"),
    "half a size": (lambda: psf.box(2.0), ValueError, SHAPE + r"2\.0"),
    "complex length": (lambda: psf.motion(1j), TypeError, "length must be a number, got 1j"),
    "endless line": (lambda: psf.motion(np.inf), ValueError, "length must be finite, got inf"),
    "lengths": (lambda: psf.motion([3]), TypeError, r"length must be a number, got \[3\]"),
    "complex radius": (lambda: psf.disk(1j), TypeError, "radius must be a number, got 1j"),
    "endless disk": (lambda: psf.disk(np.inf), ValueError, "radius must be finite, got inf"),
    "a word": (lambda: psf.gaussian(3, "ab"), TypeError, "sigma must be a number, got 'a'"),
    "centre": (
        lambda: psf.gaussian(3, 1, centre=(0, np.nan)),
        ValueError,
        "centre must be finite, got nan",
    ),
    "length": (lambda: psf.motion(-3), ValueError, "length must be greater than 0, got -3"),
    "angle": (lambda: psf.motion(3, np.nan), ValueError, "angle must be finite, got nan"),
    "angle in words": (lambda: psf.motion(3, "up"), TypeError, "angle must be a number, got 'up'"),
    "no seeing": (lambda: psf.moffat(3, 0, 3), ValueError, "fwhm must be greater than 0, got 0"),
    "no wings": (lambda: psf.moffat(3, 2, np.nan), ValueError, "beta must be finite, got nan"),
    "seeing": (lambda: psf.moffat(3, "2", 3), TypeError, "fwhm must be a number, got '2'"),
    "aperture": (lambda: psf.airy(3, -1), ValueError, "radius must be greater than 0, got -1"),
    "dark": (lambda: psf.airy(4, 1e-200), ValueError, "so large that light falls on a pixel's"),
    "radius": (lambda: psf.disk(0.0), ValueError, r"radius must be greater than 0, got 0\.0"),
    "radius NaN": (lambda: psf.disk(np.nan), ValueError, "radius must be finite, got nan"),
}


@pytest.mark.parametrize(("call", "error", "message"), CASES.values(), ids=CASES)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_module_shows_its_functions_alone():
    found = {}
    exec("from fastkernel.psf import *", found)
    names = {name for name in found if name != "__builtins__"}
    assert names == set(dir(psf)) == set(psf.__all__)
    assert all(callable(getattr(psf, name)) and name[0] != "_" for name in names)
