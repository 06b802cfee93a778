"""Many small pairs, a kernel for each: one call beside loops over them."""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastkernel

from . import fit, measure, report, rivals
from .measure import Call

PAIRS, QUICK_PAIRS = 10_000, 300
SIDE, TAPS = 32, 5
REPEATS, QUICK_REPEATS = 7, 2
# Pairs that loops take, whose time is stretched to all.
LOOPED = 500

OURS, ONE, SINGLE, RECIPE, WINDOWS = CONTENDERS = [
    "estimate_kernels",
    "estimate_kernels, 1 worker",
    "a loop of estimate_kernel",
    "a loop of the NumPy recipe",
    "a loop of sliding windows",
]


def stacks(pairs: int) -> tuple[NDArray, NDArray, NDArray]:
    """Sources of noise, kernels of sum 1, and what these make of those, as uint8."""
    rng = np.random.default_rng(0)
    sources = rng.integers(0, 256, (pairs, SIDE, SIDE), dtype=np.uint8)
    kernels = rng.random((pairs, TAPS, TAPS))
    kernels /= kernels.sum(axis=(1, 2), keepdims=True)
    results = np.empty_like(sources)
    for source, kernel, result in zip(sources, kernels, results, strict=True):
        result[:] = np.rint(fastkernel.convolve(source, kernel, "same", "circular", dtype=float))
    return sources, results, kernels


def together(sources: NDArray, results: NDArray, workers: int) -> NDArray:
    return fastkernel.estimate_kernels(sources, results, TAPS, workers=workers).kernels


def looped(fitted: Callable[..., NDArray], sources: NDArray, results: NDArray) -> NDArray:
    return np.array([fitted(*pair, TAPS) for pair in zip(sources, results, strict=True)])


def single(source: NDArray, result: NDArray, taps: int) -> NDArray:
    return fastkernel.estimate_kernel(source, result, taps, workers=1).kernel


def run(args: argparse.Namespace) -> dict[str, Any]:
    pairs = measure.wanted(args, PAIRS, QUICK_PAIRS)
    measure.progress("stacks", f"{pairs} pairs")
    sources, results, kernels = stacks(pairs)
    part = sources[:LOOPED], results[:LOOPED]
    calls = {
        OURS: Call(together, (sources, results, fit.WORKERS)),
        ONE: Call(together, (sources, results, 1)),
        SINGLE: Call(looped, (single, *part)),
        RECIPE: Call(looped, (rivals.numpy_recipe, *part)),
        WINDOWS: Call(looped, (rivals.sliding_windows, *part)),
    }
    found = {name: call() for name, call in calls.items()}
    times = measure.interleaved(calls, measure.wanted(args, REPEATS, QUICK_REPEATS, args.repeats))
    contenders = {}
    for name, seconds in times.items():
        count = len(found[name])
        off = np.abs(found[name] - kernels[:count]).max(axis=(1, 2))
        contenders[name] = {
            "seconds": seconds,
            "each": statistics.median(seconds) / count,
            "error": float(np.median(off / kernels[:count].max(axis=(1, 2)))),
        }
    return {"pairs": pairs, "workers": fit.WORKERS, "contenders": contenders}


def readme(result: dict[str, Any]) -> str:
    ours = result["contenders"][OURS]["each"]
    rows = [
        [
            name,
            report.figures(1e6 * entry["each"]),
            f"{report.figures(entry['each'] / ours)}×",
            report.small(entry["error"]),
        ]
        for name, entry in result["contenders"].items()
    ]
    head = [f"{result['pairs']} pairs of {SIDE}² uint8, {TAPS}×{TAPS}", "µs a pair"]
    table = report.table([*head, "times estimate_kernels", "error, the pair in the middle"], rows)
    return f"{table}\n\n`estimate_kernels` on {result['workers']} workers unless one is said."


def tables(result: dict[str, Any]) -> str:
    return f"## Stacks, {result['workers']} workers\n\n{readme(result)}"
