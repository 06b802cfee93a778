"""Descents on problems that were published with loops of their own."""

import argparse
import statistics
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastkernel

from . import fit, measure, octave, report
from .measure import Call

STEP, NUM_ITER, QUICK_NUM_ITER = 2e-6, 3000, 30
REPEATS, QUICK_REPEATS = 5, 1
OCTAVE_STEPS = 30  # timed, then scaled: a whole loop takes a minute and more

# The gradient of the squared residual by two "valid" convolutions, as it is published.
OCTAVE = """
x = zeros(200); x(86:115, 86:115) = 1;
[c, r] = meshgrid(-25:25); h = exp(-(r .^ 2 + c .^ 2) / 32); h = h / sum(h(:));
y = conv2(x, h, 'valid'); k = zeros(51); turned = x(end:-1:1, end:-1:1);
tic;
for i = 1:{steps}
  k = k - {step} * conv2(turned, conv2(x, k, 'valid') - y, 'valid');
end
printf('%.9f', toc);
"""


def problem() -> tuple[NDArray, NDArray, NDArray]:
    """The source, the kernel and the "valid" result."""
    source = np.zeros((200, 200))
    source[85:115, 85:115] = 1
    line = np.exp(-(np.arange(-25.0, 26) ** 2) / 32)
    kernel = np.outer(line, line) / line.sum() ** 2
    return source, kernel, fastkernel.convolve(source, kernel, "valid", method="direct")


def direct(source: NDArray, result: NDArray) -> fastkernel.KernelFit:
    return fastkernel.estimate_kernel(source, result, (51, 51), workers=fit.WORKERS)


def plain(source: NDArray, result: NDArray, num_iter: int) -> fastkernel.KernelFit:
    return fastkernel.estimate_kernel(
        source,
        result,
        (51, 51),
        solver="gradient_descent",
        step=STEP,
        num_iter=num_iter,
        workers=fit.WORKERS,
    )


def accelerated(source: NDArray, result: NDArray, num_iter: int) -> fastkernel.KernelFit:
    return fastkernel.estimate_kernel(
        source, result, (51, 51), solver="fista", num_iter=num_iter, workers=fit.WORKERS
    )


def numpy_loop(source: NDArray, result: NDArray, num_iter: int) -> NDArray:
    """The published loop with SciPy's fastest convolution."""
    from scipy.signal import oaconvolve

    kernel, turned = np.zeros((51, 51)), source[::-1, ::-1]
    for _ in range(num_iter):
        residual = oaconvolve(source, kernel, "valid") - result
        kernel = kernel - STEP * oaconvolve(turned, residual, "valid")
    return kernel


def octave_seconds(num_iter: int) -> float | None:
    """What GNU Octave takes for the loop, from fewer steps of it; None where it is missing."""
    steps = min(OCTAVE_STEPS, num_iter)
    printed = octave.printed(OCTAVE.format(steps=steps, step=STEP))
    return None if printed is None else float(printed) / steps * num_iter


def run(args: argparse.Namespace) -> dict[str, Any]:
    num_iter = measure.wanted(args, NUM_ITER, QUICK_NUM_ITER)
    repeats = measure.wanted(args, REPEATS, QUICK_REPEATS, args.repeats)
    measure.progress("descents", f"{num_iter} steps")
    source, kernel, result = problem()
    found = plain(source, result, num_iter)
    assert found.history is not None
    goal = float(found.history["objective"][-1])
    history = accelerated(source, result, num_iter).history
    assert history is not None
    needed = int(np.argmax(history["objective"] <= goal))
    calls = {
        "direct": Call(direct, (source, result)),
        "gradient_descent": Call(plain, (source, result, num_iter)),
        "fista, to the same residual": Call(accelerated, (source, result, needed)),
    }
    times = measure.interleaved(calls, repeats)
    rows = [
        {"name": name, "num_iter": steps, "median": statistics.median(times[name])}
        for name, steps in zip(calls, (0, num_iter, needed), strict=True)
    ]
    steps = max(1, num_iter // 30)
    start = time.perf_counter()
    numpy_loop(source, result, steps)
    seconds = (time.perf_counter() - start) / steps * num_iter
    rows.append({"name": "SciPy loop", "num_iter": num_iter, "median": seconds})
    measure.progress("descents: Octave")
    seconds_there = octave_seconds(num_iter)
    rows.append({"name": "GNU Octave loop", "num_iter": num_iter, "median": seconds_there})
    error = float(np.abs(direct(source, result).kernel - kernel).max() / kernel.max())
    return {"rows": rows, "error": error, "workers": fit.WORKERS}


def tables(result: dict[str, Any]) -> str:
    """Markdown: seconds, and how many times faster than Octave each is."""
    theirs = next(row["median"] for row in result["rows"] if "Octave" in row["name"])
    rows = [
        [
            row["name"],
            str(row["num_iter"] or "-"),
            report.figures(row["median"]) if row["median"] else "not installed",
            report.figures(theirs / row["median"]) if theirs and row["median"] else "-",
        ]
        for row in result["rows"]
    ]
    about = (
        "A 51×51 kernel from a 200² image with a square in it, valid support, by the published "
        f"iteration. The direct answer's error is {result['error']:.1e}. Loops of others are "
        "timed over fewer steps, and scaled."
    )
    header = ["what", "steps", "s", "times faster than Octave"]
    return f"{report.table(header, rows)}\n\n{about}"


readme = tables
