"""The exact fit: a kernel recovered from an image and its convolution."""

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastkernel
from fastkernel.estimation.equations.gathering_cost import choose_engine

from . import data, measure, report, rivals
from .measure import Call

SIZES, QUICK_SIZES = [256, 512, 2048, 4096], [256]
KERNELS, QUICK_KERNELS = [3, 5, 9], [5]
REPEATS, QUICK_REPEATS = 15, 3
DTYPES = ["uint8", "float32"]
TINY = 64  # side of the pair that pays for imports and compilation
MATRIX_LIMIT = 3 * 10**9  # bytes of the design matrix, beyond which it "does not fit"
WORKERS = min(2, measure.usable_cores())

OURS, ONE, NUMPY, SCIPY, SLIDING, YARDSTICK = CONTENDERS = [
    "fastkernel",
    "fastkernel, 1 worker",
    "NumPy recipe",
    f"scipy.fft recipe, {WORKERS} workers",
    "sliding windows",
    f"scipy.fft.rfft2, {WORKERS} workers",
]


def exact_fit(
    source: NDArray, result: NDArray, taps: int, workers: int, engine: str = "auto"
) -> NDArray:
    fit = fastkernel.estimate_kernel(source, result, (taps, taps), workers=workers, engine=engine)
    return fit.kernel


def chosen_engine(source: NDArray, result: NDArray, taps: int) -> str:
    window = source.shape[0] - taps + 1, source.shape[1] - taps + 1
    return choose_engine(source, result, window, (taps, taps))


def calls_on(pair: data.Pair, taps: int, engine: str = "auto") -> dict[str, Call]:
    """Every contender's call, but for the design matrix where it does not fit."""
    images = (pair.source, pair.result, taps)
    calls = {
        OURS: Call(exact_fit, (*images, WORKERS, engine)),
        ONE: Call(exact_fit, (*images, 1, engine)),
        NUMPY: Call(rivals.numpy_recipe, images),
        SCIPY: Call(rivals.scipy_recipe, (*images, WORKERS)),
        SLIDING: Call(rivals.sliding_windows, images),
        YARDSTICK: Call(rivals.scipy_rfft2, (pair.source.astype(np.float64), WORKERS)),
    }
    if rivals.design_matrix_bytes(len(pair.source), taps) > MATRIX_LIMIT:
        del calls[SLIDING]
    return calls


def cell(
    image: NDArray, dtype: str, taps: int, repeats: int, memory: bool, names: Sequence[str]
) -> dict[str, Any]:
    """Time, error and memory of the contenders named, on an image with a planted kernel."""
    pair = data.pair(image, taps, dtype)
    calls = {name: call for name, call in calls_on(pair, taps).items() if name in names}
    contenders: dict[str, dict[str, Any]] = {name: {} for name in names}
    for name, call in calls.items():
        answer = call()  # also the warm-up
        if name != YARDSTICK:
            contenders[name]["error"] = data.error(answer, pair.kernel)
        del answer  # may be a view of a whole image
    times = measure.interleaved(calls, repeats)
    ours = statistics.median(times[OURS])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        contenders[name] |= {"seconds": seconds, "median": median, "ratio": median / ours}
    if memory:
        # The tiny pair must warm the engine that the measured one will take.
        engine = chosen_engine(pair.source, pair.result, taps)
        tiny = calls_on(data.pair(data.photograph(TINY), taps, dtype), taps, engine)
        for name, call in calls.items():
            contenders[name]["memory"] = measure.peak_memory(call, tiny[name])
    return {"size": len(image), "dtype": dtype, "taps": taps, "contenders": contenders}


def run(args: argparse.Namespace) -> dict[str, Any]:
    sizes = measure.wanted(args, SIZES, QUICK_SIZES, args.sizes)
    kernels = measure.wanted(args, KERNELS, QUICK_KERNELS, args.kernels)
    repeats = measure.wanted(args, REPEATS, QUICK_REPEATS, args.repeats)
    cells = []
    for size in sizes:
        image = data.photograph(size)
        for dtype in args.dtypes or DTYPES:
            for taps in kernels:
                measure.progress("fit", f"{size}²", dtype, f"k = {taps}")
                cells.append(cell(image, dtype, taps, repeats, args.memory, CONTENDERS))
    photographs = {str(size): data.photograph_for(size) for size in sizes}
    return {"workers": WORKERS, "photographs": photographs, "cells": cells}


def label(cell: dict[str, Any]) -> str:
    return f"{cell['size']}² {cell['dtype']}, {cell['taps']}×{cell['taps']}"


def _time(entry: dict[str, Any]) -> str:
    if "median" not in entry:
        return "does not fit"
    ratio = "" if entry["ratio"] == 1 else f"{report.figures(entry['ratio'], 2)}×, "
    return f"{report.figures(1e3 * entry['median'])} ({ratio}n={len(entry['seconds'])})"


def _peak(entry: dict[str, Any]) -> str:
    return report.mebibytes(entry.get("memory", {}).get("peak"))


def _error(entry: dict[str, Any]) -> str:
    return report.small(entry.get("error"))


def tables(result: dict[str, Any]) -> str:
    def one(title: str, names: list[str], text: Callable[[dict[str, Any]], str]) -> str:
        rows = [
            [label(cell), *(text(cell["contenders"][name]) for name in names)]
            for cell in result["cells"]
        ]
        return f"### {title}\n\n{report.table(['image pair, kernel', *names], rows)}"

    photographs = ", ".join(f"{size}² {name}" for size, name in result["photographs"].items())
    return "\n\n".join(
        [
            "## Exact fit",
            f"{photographs}. fastkernel has {result['workers']} workers. "
            f"A design matrix beyond {MATRIX_LIMIT / 1e9:.0f} GB does not fit.",
            one("Median time, ms (in units of fastkernel's; repeats)", CONTENDERS, _time),
            one("Peak memory beyond the inputs, MiB", CONTENDERS, _peak),
            one("Largest error of a tap, over the largest tap", CONTENDERS[:-1], _error),
        ]
    )


def readme(result: dict[str, Any]) -> str:
    header = [
        "image pair, kernel",
        "fastkernel, ms",
        "times faster than the NumPy recipe",
        "error",
        "recipe's error",
        "memory, MiB",
        "recipe's memory, MiB",
    ]
    rows = []
    for cell in result["cells"]:
        ours, recipe = cell["contenders"][OURS], cell["contenders"][NUMPY]
        time = report.figures(1e3 * ours["median"])
        ratio = report.figures(recipe["ratio"], 2)
        pairs = [text(entry) for text in (_error, _peak) for entry in (ours, recipe)]
        rows.append([label(cell), time, ratio, *pairs])
    return f"{report.table(header, rows)}\n\nfastkernel with {result['workers']} workers."
