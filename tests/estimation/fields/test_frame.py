import itertools

import numpy as np
import pytest
import varying
from numpy.testing import assert_allclose, assert_array_equal

from fastkernel.estimation.fields.frame import Frame

FRAMES = [(0, None), (1, None), (3, None), (2, (1, 1)), (2, (3, 2)), (0, (1, 4))]


@pytest.fixture(params=FRAMES, ids=str)
def frame(request):
    return Frame((17, 23), *request.param)


def test_equals_the_definition(frame):
    expected = varying.functions(frame.shape, frame.degree, frame.grid)
    found = frame.values(np.arange(17.0)[:, None], np.arange(23.0))
    assert_allclose(found, expected, rtol=0, atol=1e-14)
    assert frame.terms == len(expected)
    assert_allclose(frame.values(4, 6.0), expected[:, 4, 6], rtol=0, atol=1e-14)
    flat = expected.reshape(len(expected), -1)
    assert_allclose(frame.products(), flat @ flat.T / (17 * 23), rtol=0, atol=1e-14)
    assert_allclose(frame.unit @ flat, 1, rtol=0, atol=1e-14)


def test_cells_keep_their_kernels_beyond_the_last_middles():
    frame = Frame((40, 40), 0, (2, 2))
    assert_allclose(frame.values(-30, 100), [0, 1, 0, 0])
    assert_allclose(frame.values(9.5, 9.5), [1, 0, 0, 0])
    assert_allclose(frame.values(19.5, 9.5), [0.5, 0, 0.5, 0])


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_scales_are_polynomials(degree, frame):
    rows = frame.polynomials(degree)
    known = varying.polynomials(frame.grid or frame.shape, degree).reshape(-1)
    known = known.reshape((degree + 1) * (degree + 2) // 2, -1)
    # Of cells their middles; of polynomials all places.
    values = (
        rows
        if frame.grid
        else rows @ varying.polynomials((17, 23), frame.degree).reshape(frame.terms, -1)
    )
    if frame.grid is None and degree > frame.degree:
        known = values
    assert np.linalg.matrix_rank(known) == len(rows)
    assert_array_equal(np.linalg.matrix_rank(np.vstack([known, values]), tol=1e-9), len(rows))


def test_functions_are_zero_beyond_cuts(frame):
    values = varying.functions(frame.shape, frame.degree, frame.grid)
    (rows, cols) = (frame.cuts(axis) for axis in (0, 1))
    assert rows[0] == cols[0] == 0
    assert (rows[-1], cols[-1]) == frame.shape
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(cols):
            part = values[:, top:bottom, left:right]
            assert (part.any(axis=(1, 2))).sum() <= (4 if frame.grid else frame.terms)
