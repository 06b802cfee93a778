"""Ctrl-C ends whatever takes long, at once, and the next call is right."""

import subprocess
import sys

import pytest

CTRL_C = """
import _thread, threading, time
import numpy as np
import fastkernel
from fastkernel import estimate_kernel

rng = np.random.default_rng(0)
image = rng.random(({side}, {side}))
result = np.abs(np.roll(image, 1, axis=0) + 0.1 * rng.standard_normal(image.shape))

def call(image, result, shape, **options):
    {call}

call(image[:60, :60], result[:60, :60], 3, **{few})  # what is compiled once is not timed

def press():
    global pressed
    pressed = time.perf_counter()
    _thread.interrupt_main()

threading.Timer({patience}, press).start()
try:
    call(image, result, {taps}, **{options})
    raise SystemExit("finished before it was stopped: give it more work")
except KeyboardInterrupt:
    print(time.perf_counter() - pressed)
found = estimate_kernel(image[:40, :40], image[:40, :40], 3).kernel
assert abs(found[1, 1] - 1) < 1e-9
import os; os._exit(0)  # not after what cannot be stopped
"""

ESTIMATE = "return estimate_kernel(image, result, shape, **options)"

CASES = {
    "gradient_descent": (ESTIMATE, 400, 21, {"solver": "gradient_descent", "num_iter": 10**7}),
    "fista": (ESTIMATE, 400, 21, {"solver": "fista", "num_iter": 10**7, "nonnegative": True}),
    "descent without equations": (
        ESTIMATE,
        300,
        71,
        {"solver": "gradient_descent", "num_iter": 10**7},
    ),
    "richardson_lucy": (
        ESTIMATE,
        800,
        9,
        {"method": "richardson_lucy", "num_iter": 10**6, "tol": 0.0},
    ),
    "lad": (ESTIMATE, 700, 15, {"method": "lad", "solver": "reweighted"}),
    "linear program": (ESTIMATE, 400, 15, {"method": "lad", "solver": "linear_programming"}),
    "restoration": (
        "return fastkernel.richardson_lucy(image, np.ones((shape, shape)), **options)",
        800,
        9,
        {"num_iter": 10**6, "noise": None},
    ),
    "inverse": (
        "return fastkernel.inverse_kernel(result[:5, :5], 16 * shape, **options)",
        60,
        13,
        {"solver": "gradient_descent", "num_iter": 10**7},
    ),
    "design matrix": (
        "for _ in range(shape): found = fastkernel.design_matrix(image, min(shape, 31), **options)",
        400,
        1000,
        {"workers": 2},
    ),
    "disk": (
        "for _ in range(shape**2): found = fastkernel.psf.disk(shape**3, **options)",
        20,
        15,
        {},
    ),
}


@pytest.mark.jit
@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize("case", CASES)
def test_ctrl_c_stops_at_once(case):
    call, side, taps, options = CASES[case]
    few = options | ({"num_iter": 2} if "num_iter" in options else {})
    script = CTRL_C.format(call=call, side=side, taps=taps, options=options, few=few, patience=0.6)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1
