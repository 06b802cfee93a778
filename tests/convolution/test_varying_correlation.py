"""Kernels that are blended by functions of the row and the column, against one after the other."""

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastkernel._images.windows import Window
from fastkernel.convolution import varying_correlation
from fastkernel.convolution.varying_correlation import VaryingCorrelation

SIDES, KERNEL, TERMS = (90, 131), (4, 5), 3


def blend(image, rng, terms=TERMS, rule="mirror"):
    """The correlation with some kernels over a part of a result, and what it comes to."""
    taps = 1e-3 * rng.standard_normal((terms, *KERNEL))
    down, across = rng.standard_normal((terms, 70)), rng.standard_normal((terms, 120))
    # The part begins at pixel (3, 7) of the result, of which (0, 0) is made of pixel (-2, -2) on.
    window = Window((1, 5), (3, 7), (70, 120), rule)
    work = VaryingCorrelation(image, taps, down, across, window)
    around = np.pad(image.astype(float), 2, {"mirror": "reflect", "zero": "constant"}[rule])
    made = [naive.convolve(around, kernel[::-1, ::-1])[3:73, 7:127] for kernel in taps]
    return work, np.einsum("kr,kc,krc->rc", down, across, made)


@pytest.mark.parametrize("engine", ["auto", "direct", "fft"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, float])
@pytest.mark.parametrize("terms", [1, TERMS])
def test_equals_one_kernel_after_the_other(engine, dtype, terms, monkeypatch, rng):
    monkeypatch.setattr(varying_correlation, "_TILE_SHAPE", (16, 48))
    image = (100 * rng.random((SIDES[1], SIDES[0]))).astype(dtype).T
    work, expected = blend(image, rng, terms)
    outs = [np.full((80, 140), 2.0) for _ in range(2)]
    for out, workers in zip(outs, (1, 3), strict=True):
        assert work.add_to(out, engine, workers)
    assert_array_equal(*outs)
    assert_allclose(outs[0][3:73, 7:127] - 2, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    outs[0][3:73, 7:127] = 2
    assert (outs[0] == 2).all()


def test_transforms_tell_of_what_they_cannot_take(rng):
    image = rng.random(SIDES)
    image[60:63, 80] = 1e308
    work, expected = blend(image, rng, rule="zero")
    out = np.zeros((80, 140))
    assert not work.add_to(out, "fft", 2)
    out.fill(0)
    assert work.add_to(out, "direct", 2)
    near = np.abs(expected) > 1e200
    assert_allclose(out[3:73, 7:127][~near], expected[~near], rtol=0, atol=1e-11)
