"""The parts of a match against what was planted: widths, noise, sky, reach, whitening."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import signal

from fastkernel.estimation.difference.chosen_pixels import reached, sticking_out
from fastkernel.estimation.difference.direction import widths_of
from fastkernel.estimation.difference.exposures import exposures_of, local_sky
from fastkernel.estimation.difference.noise import NoiseModel, variance_of_sky
from fastkernel.estimation.difference.sky import fitted_background
from tests.shared import gaussian
from tests.weighted import reached as reached_by_definition


def exposures(science, reference=None):
    """Two images made ready, of which nothing is told."""
    second = science if reference is None else reference
    return exposures_of((science, second), (None, None), (None, None), None)


def stars(rng, shape, count, sigma, flux=3000.0):
    points = np.zeros(shape)
    points.flat[rng.choice(points.size, count, replace=False)] = rng.uniform(0.2, 1, count) * flux
    return signal.fftconvolve(points, gaussian(25, sigma), "same")


def test_widths_are_those_of_the_point_spread_functions(rng):
    state = rng.bit_generator.state
    images = []
    for sigma in (2.0, 1.5):
        rng.bit_generator.state = state
        images.append(stars(rng, (160, 160), 150, sigma))
    widths = widths_of(*exposures(*[x + rng.standard_normal(x.shape) for x in images]))
    assert_allclose((widths.science, widths.reference), (2.0, 1.5), rtol=0.04)
    assert_allclose(widths.kernel_width(), np.sqrt(2.0**2 - 1.5**2), rtol=0.06)
    assert widths.sharper == "reference"


def test_noise_has_no_width(rng):
    widths = widths_of(*exposures(rng.standard_normal((90, 90))))
    assert np.isnan(widths.difference)
    assert widths.sharper == "reference"


@pytest.mark.parametrize("count", [0, 300])
def test_the_sky_tells_its_noise_beside_stars_and_gradients(rng, count):
    slope = np.linspace(0, 40, 200)
    image = stars(rng, (200, 200), count, 1.4) + slope + 3 * rng.standard_normal((200, 200))
    assert_allclose(variance_of_sky(exposures(image)[0]), 9.0, rtol=0.1)


def test_noise_follows_light_and_never_vanishes():
    model = NoiseModel(4.0, 0.5)
    assert_array_equal(model.variance(np.array([0.0, 10.0, -100.0])), [4.0, 9.0, 2.0])


def test_the_local_sky_follows_a_gradient_and_not_stars(rng):
    slope = np.linspace(-20, 20, 256)
    image = np.broadcast_to(slope, (256, 256)) + stars(rng, (256, 256), 150, 1.4)
    found = local_sky(exposures(image + rng.standard_normal(image.shape))[0])
    assert_allclose(found[:, 40:-40].mean(axis=0), slope[40:-40], atol=3)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_a_background_is_that_of_least_squares_over_what_does_not_stick_out(rng, degree):
    m, n = 30, 41
    y, x = np.meshgrid(np.linspace(-1, 1, m), np.linspace(-1, 1, n), indexing="ij")
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    columns = np.array([(y**i * x**j).ravel() for i, j in powers]).T
    planted = columns @ rng.standard_normal(len(powers))
    image = (planted + 0.01 * rng.uniform(-1, 1, m * n)).reshape(m, n)
    good = rng.random((m, n)) < 0.8
    image[3, 5] = 1000.0
    left_out = good.copy()
    left_out[3, 5] = False
    wanted = np.linalg.lstsq(columns[left_out.ravel()], image[left_out], rcond=None)[0]
    found = fitted_background(image, good, 1.0, degree)
    made = np.polynomial.legendre.leggrid2d(y[:, 0], x[0], found)
    assert_allclose(made.ravel(), columns @ wanted, atol=1e-10)


@pytest.mark.parametrize("shape", [(3, 3), (4, 5), (1, 2), (6, 4)])
def test_a_bad_pixel_reaches_the_results_that_it_has_a_part_in(rng, shape):
    bad = rng.random((20, 23)) < 0.02
    p, q = shape
    top, left = p // 2, q // 2
    inside = slice(top, top + 20 - p + 1), slice(left, left + 23 - q + 1)
    wanted = reached_by_definition(bad, shape).reshape(20 - p + 1, 23 - q + 1)
    assert_array_equal(reached(bad, shape)[inside], wanted)


def test_pixels_stick_out_with_those_beside_them_and_not_for_a_share_of_the_light():
    residual = np.zeros((5, 9))
    residual[2, 2:5] = 4.0, 6.0, 2.0
    residual[2, 7] = 6.0
    light = np.zeros((5, 9))
    light[2, 7] = 1000.0
    residual[0, 0] = np.nan
    out = sticking_out(residual, light, np.ones((5, 9)))
    assert_array_equal(np.argwhere(out), [[2, 2], [2, 3]])
