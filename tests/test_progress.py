"""What a callback hears: one total for a whole call, and never less done than before."""

import numpy as np
import pytest

import fastkernel as fk

RNG = np.random.default_rng(0)
SOURCE = RNG.random((90, 80)) + 0.1
KERNEL = RNG.random((3, 3)) / 5
RESULT = fk.convolve(SOURCE, KERNEL, "same", "mirror") + RNG.normal(0, 0.01, SOURCE.shape)
BAD = 0.99 * RESULT.max() < RESULT

FITS = {
    "plain": {},
    "background": {"background": 2},
    "mask": {"mask": BAD},
    "weights": {"weights": 1.0 + BAD},
    "sigma_clip": {"sigma_clip": 3},
    "robust": {"errors": "robust"},
    "source_variance": {"source_variance": 1e-4},
    "gcv": {"ridge": "gcv"},
    "gradient_descent": {"solver": "gradient_descent", "num_iter": 7},
    "fista": {"solver": "fista", "num_iter": 7, "mask": BAD},
    "clipped descent": {"solver": "fista", "num_iter": 7, "sigma_clip": 3},
    "separable": {"separable": True, "num_iter": 7},
    "lad": {"method": "lad"},
    "richardson_lucy": {"method": "richardson_lucy", "num_iter": 7},
    "fft": {"method": "fft"},
    "auto": {"boundary": "auto", "background": "auto", "offset": "auto"},
}
# These may be done before all the steps that they were allowed.
EARLY = {"lad", "richardson_lucy", "restoration"}

CALLS = {
    name: lambda heard, options=options: fk.estimate_kernel(
        SOURCE, RESULT, 3, callback=heard, **options
    )
    for name, options in FITS.items()
}
CALLS |= {
    "equations": lambda heard: fk.normal_equations(SOURCE, RESULT, 3, callback=heard),
    "field": lambda heard: fk.estimate_kernel_field(SOURCE, RESULT, 3, tile=16, callback=heard),
    "stack": lambda heard: fk.estimate_kernels(
        SOURCE.reshape(9, 10, 80), RESULT.reshape(9, 10, 80), 3, callback=heard
    ),
    "inverse": lambda heard: fk.inverse_kernel(
        KERNEL, 9, solver="fista", num_iter=7, callback=heard
    ),
    "restoration": lambda heard: fk.richardson_lucy(RESULT, KERNEL, 7, callback=heard),
}


@pytest.mark.parametrize("name", CALLS)
def test_one_total_and_never_less(name):
    seen = []
    CALLS[name](lambda *step: seen.append(step))
    done, totals = zip(*seen, strict=True)
    assert len(set(totals)) == 1
    assert list(done) == sorted(done)
    assert done[-1] == totals[-1] or (name in EARLY and done[-1] < totals[-1])
