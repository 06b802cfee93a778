"""Sums over all pixels with polynomials for weights, against a matrix product."""

import numpy as np
import pytest
import varying
from numpy.testing import assert_allclose, assert_array_equal

from fastkernel import estimate_kernel_field
from fastkernel._images.borders import load
from fastkernel._images.pairs import Pair
from fastkernel._images.windows import Within, window_of_pair
from fastkernel._machine.run import Run
from fastkernel.estimation.equations.background import terms_of
from fastkernel.estimation.fields import correction, weighted_lags
from fastkernel.estimation.fields.frame import Frame
from fastkernel.estimation.fields.whole_sums import sums_are_whole, whole_sums
from fastkernel.estimation.polynomial import lines_of


def pair_of(rng, sides, kernel, boundary, dtype=np.float64):
    """A pair of images that are bright, so that digits would be seen to be lost."""
    inside = tuple(n - k + 1 for n, k in zip(sides, kernel, strict=True))
    source = (rng.normal(size=sides) * 20 + 100).astype(dtype)
    result = rng.normal(size=sides if boundary else inside) + 3
    return Pair(source, result, window_of_pair(sides, result.shape, kernel, boundary))


def rows_of(pair, kernel, degree):
    """The design matrix by shift, with the background and the result, pixel by pixel."""
    (p, q), (m, n), window = kernel, pair.window.shape, pair.window
    source, result = np.empty((m + p - 1, n + q - 1)), np.empty((m, n))
    load(pair.source, window.source_origin, window.boundary, source)
    load(pair.result, window.result_origin, window.boundary, result)
    columns = [source[i : i + m, j : j + n] for i in range(p) for j in range(q)]
    if degree is not None:
        down, across = lines_of(pair.within, (m, n), degree)
        terms = zip(*terms_of(degree), strict=True)
        columns += [np.outer(down[:, i], across[:, j]) for i, j in terms]
    return np.stack([*columns, result], axis=-1).reshape(m * n, -1)


def assert_sums_of(pair, kernel, frame, degree, run=None):
    sums = whole_sums(pair, kernel, frame, degree, run or Run(2))
    rows, taps = rows_of(pair, kernel, degree), kernel[0] * kernel[1]
    places = np.indices(pair.window.shape) + np.reshape(pair.window.result_origin, (2, 1, 1))
    values = frame.values(*places).reshape(frame.terms, -1)
    sizes = np.sqrt(np.sum(rows**2, axis=0))
    close = {"rtol": 0, "atol": 1e-13}
    for number, (j, k) in enumerate(zip(*np.triu_indices(frame.terms), strict=True)):
        dense = rows.T @ ((values[j] * values[k])[:, None] * rows) / np.outer(sizes, sizes)
        found = sums.mixed[number] / np.outer(sizes, sizes)
        assert_allclose(np.triu(found)[:taps, :taps], np.triu(dense)[:taps, :taps], **close)
        if j == 0:
            assert_allclose(found[:taps, taps:], dense[:taps, taps:], **close)
        if number == 0:
            assert_allclose(np.triu(found), np.triu(dense), **close)
    assert (sums.n_pixels, sums.total_weight) == (pair.n_pixels, pair.n_pixels)
    assert sums.places is None


@pytest.mark.parametrize("boundary", [None, "zero", "circular", "mirror"])
@pytest.mark.parametrize("degree", [0, 2])
def test_every_border(boundary, degree, rng):
    pair = pair_of(rng, (40, 33), (3, 4), boundary)
    assert_sums_of(pair, (3, 4), Frame(pair.result.shape, degree), None)


@pytest.mark.parametrize("kernel", [(1, 1), (1, 5), (5, 1), (2, 2), (4, 9)])
@pytest.mark.parametrize("background", [None, 0, 2])
def test_every_shape(kernel, background, rng):
    pair = pair_of(rng, (31, 45), kernel, "mirror", np.float32)
    assert_sums_of(pair, kernel, Frame(pair.result.shape, 1), background)


@pytest.mark.parametrize("degree", [1, pytest.param(4, marks=pytest.mark.jit)])
@pytest.mark.parametrize("sides", [(30, 12), (12, 30)])
def test_parts_that_are_narrower_than_the_kernel(sides, degree, rng):
    pair = pair_of(rng, sides, (9, 9), None)
    assert_sums_of(pair, (9, 9), Frame((100, 90), degree), None)


def test_a_frame_that_is_larger_than_the_window(rng):
    pair = pair_of(rng, (40, 33), (3, 4), "zero")
    window = window_of_pair((40, 33), (40, 33), (3, 4), None)
    pair = pair._replace(window=window)
    assert window.shape < pair.result.shape
    assert_sums_of(pair, (3, 4), Frame(pair.result.shape, 2), 1)


def test_a_part_has_the_background_of_the_whole(rng):
    pair = pair_of(rng, (24, 33), (3, 4), "zero")._replace(part_of=Within((20, 5), (70, 50)))
    assert_sums_of(pair, (3, 4), Frame(pair.result.shape, 1), 2)


@pytest.mark.jit
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4"])
def test_many_tiles(dtype, monkeypatch, rng):
    monkeypatch.setattr(weighted_lags, "_ROWS", 8)
    monkeypatch.setattr(weighted_lags, "_tiling", lambda window, kernel: (64, (0, 17)))
    pair = pair_of(rng, (70, 90), (4, 5), "mirror", dtype)
    frame = Frame(pair.result.shape, 2)
    assert_sums_of(pair, (4, 5), frame, None)
    once, *others = (whole_sums(pair, (4, 5), frame, 1, Run(n)).mixed for n in (1, 2, 5))
    for other in others:
        assert_array_equal(other, once)


def test_refuses_what_is_not_finite(rng):
    pair = pair_of(rng, (40, 33), (3, 4), None)
    pair.source[11, 7] = np.nan
    with pytest.raises(ValueError, match=r"source must be finite.*\(11, 7\)"):
        whole_sums(pair, (3, 4), Frame(pair.result.shape, 1), None, Run())


def test_other_pixels_and_functions_are_left_to_tiles(rng):
    pair = pair_of(rng, (40, 33), (3, 4), None)
    frame = Frame(pair.result.shape, 2)
    assert sums_are_whole(pair, (3, 4), frame, 2)
    for other in (Frame(pair.result.shape, 2, (2, 2)), Frame(pair.result.shape, 0)):
        assert not sums_are_whole(pair, (3, 4), other, None)
    every = np.ones(pair.window.shape)
    for other in ({"used": every > 0}, {"weights": every}, {"source_variance": pair.source}):
        assert not sums_are_whole(pair._replace(**other), (3, 4), frame, None)
    low = pair_of(rng, (6, 33), (3, 4), None)
    assert sums_are_whole(low, (3, 4), Frame(low.result.shape, 2), 1)
    assert not sums_are_whole(low, (3, 4), Frame(low.result.shape, 2), 2)
    assert not sums_are_whole(low, (5, 4), Frame(low.result.shape, 1), None)


@pytest.mark.parametrize("degree", [1, pytest.param(3, marks=pytest.mark.jit)])
def test_no_pass_is_needed_where_noise_hides_rounding(degree, monkeypatch, rng):
    source = rng.normal(size=(52, 47)) + 2
    phi = varying.functions((50, 44), degree, None)
    clean = varying.convolve(source, phi, rng.normal(size=(len(phi), 3, 4)))
    result = clean + 1e-6 * rng.normal(size=clean.shape)
    passes = []
    left = correction.PairReader.left

    def counted(self, *args, **options):
        passes.append(args)
        return left(self, *args, **options)

    monkeypatch.setattr(correction.PairReader, "left", counted)
    asked = {"degree": degree, "scale_degree": degree}
    field = estimate_kernel_field(source, result, (3, 4), **asked)
    assert not passes
    rows = varying.rows_of(source, phi, (3, 4))
    taps = np.linalg.lstsq(rows, result.ravel(), rcond=None)[0]
    assert_allclose(field.coefficients.ravel(), taps, rtol=0, atol=1e-11)
    # Without noise one looks at what is left.
    estimate_kernel_field(source, clean, (3, 4), **asked)
    assert passes
