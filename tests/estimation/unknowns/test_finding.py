"""All unknowns of a pair at once."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fastkernel import psf
from fastkernel._images.usable import PixelRules
from fastkernel._machine.run import Run
from fastkernel.estimation.methods import lstsq
from fastkernel.estimation.problem import problem_of
from fastkernel.estimation.unknowns.asked import Asked, as_asked
from fastkernel.estimation.unknowns.finding import resolve
from fastkernel.estimation.unknowns.findings import Findings
from tests import naive

EVERYTHING = Asked("auto", "auto", "auto", "auto", "auto")
KERNEL = psf.gaussian((3, 5), 1.0)


@pytest.fixture
def source(rng):
    return rng.integers(10, 200, (90, 84)).astype(np.uint8)


def resolved(source, result, asked=EVERYTHING, **options):
    problem = problem_of(source, result, None, None, None, None, PixelRules())
    return resolve(problem, asked, Run(), most=7, **options)


def rounded(image):
    return np.rint(image).astype(np.uint8)


def test_finds_everything(source):
    result = rounded(0.8 * naive.filtered(source, KERNEL, "same", "circular") + 20)
    found = resolved(source, result)
    problem = found.problem
    assert (problem.kernel_shape, problem.boundary, problem.background) == ((3, 5), "circular", 0)
    assert (found.offset, found.light, found.crops[0].origin) == ((0, 0), "stored", (0, 0))
    said = found.findings
    assert said.kernel_shape.shape == (3, 5)
    assert said.offset.matches
    assert said.light.sure
    assert said.background.gain > 2
    assert said.boundary.sure
    fit = lstsq.fit(problem, lstsq.Options(), Run())
    assert_allclose(fit.kernel, 0.8 * KERNEL, atol=2e-3)
    assert fit.n_pixels == result.size


@pytest.mark.jit
def test_a_moved_result_has_no_rule(source):
    after = naive.filtered(source, KERNEL, "same", "circular")
    found = resolved(source[10:, :-7], rounded(after)[:-10, 7:])
    assert found.offset == (10, -7)
    assert found.problem.boundary is None
    assert found.findings.boundary.boundary is None
    assert found.problem.kernel_shape == (3, 5)
    assert found.crops[0].origin == (10, 0)
    fit = lstsq.fit(found.problem, lstsq.Options(), Run())
    assert_allclose(fit.kernel, KERNEL, atol=2e-3)


@pytest.mark.jit
@pytest.mark.parametrize("mode", ["valid", "full"])
def test_shapes_of_a_larger_kernel(source, mode):
    result = naive.convolve(source, np.pad(KERNEL, 1), mode)
    found = resolved(source, result, Asked("auto"))
    assert found.problem.kernel_shape == (3, 5)
    assert found.crops[0].origin == ((0, 0) if mode == "valid" else (1, 1))
    fit = lstsq.fit(found.problem, lstsq.Options(), Run())
    assert_allclose(fit.kernel, KERNEL, atol=1e-9)


def test_light_is_decoded(source):
    found = resolved(source, source, Asked((3, 3), light="srgb"))
    assert found.problem.images[0].source.dtype == np.float32
    assert found.findings == Findings()
    assert found.problem.may_be_clipped
    assert (found.light, found.problem.kernel_shape) == ("srgb", (3, 3))
    # A level beside levels is none beside light.
    assert (
        resolved(source, source, Asked((3, 3), None, "auto", light="srgb")).problem.background
        is None
    )


def test_light_that_was_clipped_is_left_out(source):
    result = np.where(source > 120, np.uint8(255), source)
    found = resolved(source, result, Asked((1, 1), light="srgb"))
    assert np.array_equal(found.problem.images[0].result_bad, result == 255)


def test_masks_leave_room_for_smaller_kernels(source, rng):
    bad = rng.random(source.shape) < 0.12
    result = naive.filtered(source, np.full((3, 1), 1 / 3), "same", "mirror")
    masked = np.ma.array(source, mask=bad)
    assert resolved(masked, result, Asked("auto")).problem.kernel_shape == (3, 1)


def test_what_is_known_is_kept(source):
    asked = as_asked(3, "wrap", "constant", None, "stored")
    assert asked == Asked((3, 3), "circular", 0)
    assert asked.plain
    found = resolved(source, source, asked)
    assert found.problem.images[0].source is source
    assert (found.problem.boundary, found.problem.background) == ("circular", 0)
    assert not EVERYTHING.plain
    assert not as_asked(3, None, None, (0, 1), "stored").plain


def test_a_given_offset_is_taken(source):
    found = resolved(source, np.roll(source, (3, -2), (0, 1)), Asked((1, 1), offset=(3, -2)))
    (pair,) = found.problem.images
    assert np.array_equal(pair.source, pair.result)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3, None, None, 5, "stored"), ValueError, r"offset must be None, 'auto' or two integers"),
        ((3, None, None, (1.5, 0), "stored"), ValueError, r"two integers \(rows, cols\)"),
        ((3, None, None, (True, 0), "stored"), ValueError, r"two integers \(rows, cols\)"),
        ((3, "wrap", None, (1, 0), "stored"), ValueError, r"boundary must be None for offset=\(1"),
        ((3, None, None, None, "linear"), ValueError, r"light must be one of 'stored', 'srgb'"),
        ((0, None, None, None, "stored"), ValueError, "kernel_shape must be two positive"),
        ((3, "sym", None, None, "stored"), ValueError, "boundary must be one of"),
    ],
)
def test_refusals(arguments, error, message):
    with pytest.raises(error, match=message):
        as_asked(*arguments)


def test_a_border_needs_a_kernel_shape(source):
    with pytest.raises(ValueError, match="kernel_shape must be two positive integers"):
        resolved(source, source, Asked(None, "auto"))
