"""Inverse kernels, on a problem that was published with a loop of its own."""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.signal
from numpy.typing import NDArray

import fastkernel

from . import fit, measure, octave, report
from .measure import Call

# The published code draws its kernel; this one is drawn once, uniformly from 0 to 1.
KERNEL = np.random.default_rng(0).random((11, 7))
SIZE, DELAY = 201, (105, 103)  # of the inverse; the 1 stands in the middle of 211 by 207
STEP, NUM_ITER, QUICK_NUM_ITER = 5e-5, 50_000, 30
RIDGE = 0.03  # of the division: of 0.15, 0.03, 0.01 and less, the one of the least residual
REPEATS, QUICK_REPEATS = 5, 1
LONGEST = 150.0  # seconds for the plain descent, which takes fewer steps where it needs more
LOOP_STEPS = 200  # of loops of others, timed and then scaled

CONVOLUTIONS: dict[str, Callable[..., NDArray]] = {
    "fftconvolve": scipy.signal.fftconvolve,
    "oaconvolve": scipy.signal.oaconvolve,
    "convolve2d": scipy.signal.convolve2d,
}

# The published loop. Seconds are printed, and the residual.
OCTAVE = """
f = [{kernel}]; g = zeros({size}); h = zeros([size(f) - 1] + {size}); h({row}, {col}) = 1;
turned = f(end:-1:1, end:-1:1);
tic;
for i = 1:{steps}
  g = g - {step} * conv2(conv2(f, g, 'full') - h, turned, 'valid');
end
printf('%.9f %.17g', toc, norm(conv2(f, g, 'full') - h, 'fro'));
"""


def inverse(**options: Any) -> fastkernel.InverseFit:
    return fastkernel.inverse_kernel(KERNEL, SIZE, workers=fit.WORKERS, **options)


def least_squares(delay: tuple[int, int] | None) -> fastkernel.InverseFit:
    return inverse(delay=delay)


def division() -> fastkernel.InverseFit:
    return inverse(method="fft", ridge=RIDGE, delay=DELAY)


def plain(num_iter: int) -> fastkernel.InverseFit:
    return inverse(solver="gradient_descent", step=STEP, num_iter=num_iter, delay=DELAY)


def accelerated(num_iter: int) -> fastkernel.InverseFit:
    return inverse(solver="fista", num_iter=num_iter, delay=DELAY)


def scipy_loop(convolution: str, num_iter: int) -> NDArray:
    """The published loop by one of SciPy's convolutions."""
    convolve = CONVOLUTIONS[convolution]
    impulse, turned = np.zeros(np.add(KERNEL.shape, SIZE - 1)), KERNEL[::-1, ::-1]
    impulse[DELAY] = 1
    found = np.zeros((SIZE, SIZE))
    for _ in range(num_iter):
        residual = convolve(KERNEL, found, "full") - impulse
        found = found - STEP * convolve(residual, turned, "valid")
    return found


def octave_loop(num_iter: int) -> tuple[float, float] | None:
    """Seconds and the residual of GNU Octave's loop; None where it is missing."""
    kernel = "; ".join(" ".join(f"{tap:.17g}" for tap in row) for row in KERNEL)
    row, col = (place + 1 for place in DELAY)
    script = OCTAVE.format(kernel=kernel, size=SIZE, row=row, col=col, steps=num_iter, step=STEP)
    printed = octave.printed(script)
    if printed is None:
        return None
    seconds, residual = map(float, printed.split())
    return seconds, residual


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _plain(num_iter: int) -> tuple[fastkernel.InverseFit, float]:
    """The plain descent, as many of its steps as are worth waiting for, and seconds a step."""
    trial = min(num_iter, LOOP_STEPS)
    plain(1)
    pace = min(_seconds(lambda: plain(trial)) for _ in range(3)) / trial
    steps = min(num_iter, max(trial, int(LONGEST / pace)))
    start = time.perf_counter()
    found = plain(steps)
    return found, (time.perf_counter() - start) / steps


def _steps_to(goal: float, most: int) -> int:
    """How many accelerated steps reach the objective of ``most`` plain ones."""
    steps = min(most, 100)
    while True:
        history = accelerated(steps).history
        assert history is not None
        reached = history["objective"] <= goal
        if reached.any() or steps == most:
            return int(np.argmax(reached)) if reached.any() else most
        steps = min(most, 4 * steps)


def _row(
    name: str, steps: int, seconds: float | None, found: fastkernel.InverseFit | None
) -> dict[str, Any]:
    row = {"name": name, "num_iter": steps, "median": seconds}
    if found is not None:
        row |= {"residual": found.residual, "max_deviation": found.max_deviation}
    return row


def run(args: argparse.Namespace) -> dict[str, Any]:
    num_iter = measure.wanted(args, NUM_ITER, QUICK_NUM_ITER)
    repeats = measure.wanted(args, REPEATS, QUICK_REPEATS, args.repeats)
    measure.progress("inverse: gradient descent", f"{num_iter} steps")
    descent, seconds = _plain(num_iter)
    assert descent.history is not None
    measure.progress("inverse: the others")
    needed = _steps_to(float(descent.history["objective"][-1]), descent.num_iter)
    calls = {
        "lstsq": Call(least_squares, (None,)),
        "lstsq, the 1 in the middle": Call(least_squares, (DELAY,)),
        f"fft, ridge={RIDGE:g}": Call(division, ()),
        "fista, to the same objective": Call(accelerated, (needed,)),
    }
    times = measure.interleaved(calls, repeats)
    found = {name: call() for name, call in calls.items()}
    rows = [
        _row(name, one.num_iter, statistics.median(times[name]), one) for name, one in found.items()
    ]
    rows.insert(-1, _row("gradient_descent", num_iter, num_iter * seconds, descent))
    measure.progress("inverse: loops of others")
    steps = min(num_iter, LOOP_STEPS)
    trials = {
        name: min(_seconds(Call(scipy_loop, (name, 1))) for _ in range(3)) for name in CONVOLUTIONS
    }
    fastest = min(trials, key=trials.__getitem__)
    start = time.perf_counter()
    taps = scipy_loop(fastest, steps)
    scaled = (time.perf_counter() - start) / steps * num_iter
    rows.append(_row(f"SciPy loop, {fastest}", num_iter, scaled, None))
    theirs = octave_loop(steps)
    scaled = None if theirs is None else theirs[0] / steps * num_iter
    rows.append(_row("GNU Octave loop", num_iter, scaled, None))
    same = plain(steps)
    differences = {"SciPy": float(np.abs(taps - same.kernel).max() / np.abs(same.kernel).max())}
    if theirs is not None:
        differences["Octave"] = abs(theirs[1] / same.residual - 1)
    return {
        "workers": fit.WORKERS,
        "taken": descent.num_iter,
        "loop_steps": steps,
        "differences": differences,
        "rows": rows,
    }


def tables(result: dict[str, Any]) -> str:
    """Markdown: seconds, how many times faster than Octave each is, and how good."""
    theirs = next(row["median"] for row in result["rows"] if "Octave" in row["name"])
    rows = [
        [
            row["name"],
            str(row["num_iter"] or "-"),
            report.figures(row["median"]) if row["median"] else "not installed",
            report.figures(theirs / row["median"]) if theirs and row["median"] else "-",
            report.figures(row.get("residual")),
            report.figures(row.get("max_deviation")),
        ]
        for row in result["rows"]
    ]
    num_iter = next(row["num_iter"] for row in result["rows"] if row["name"] == "gradient_descent")
    fewer = f" It took {result['taken']}, scaled too: residuals to match are those after these."
    fewer = "" if result["taken"] == num_iter else fewer
    about = (
        f"A {SIZE}×{SIZE} inverse of an 11×7 kernel of random numbers from 0 to 1, with the "
        f"published step of {STEP:g}. fastkernel has {result['workers']} workers. Loops of others "
        f"take the same steps; they are timed over {result['loop_steps']} of them, and scaled. "
        f"They differ by {report.small(max(result['differences'].values()))} at most from what "
        f"gradient_descent has there.{fewer}"
    )
    header = ["what", "steps", "s", "times faster than Octave", "residual", "largest deviation"]
    return f"{report.table(header, rows)}\n\n{about}"


readme = tables
