"""Which engine is fastest where, and how far from it the library's own choice is."""

import argparse
import math
import statistics
from typing import Any
from unittest import mock

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

import fastkernel
from fastkernel.estimation.equations import gathering_cost
from fastkernel.estimation.equations import gathering_engines as library

from . import data, fit, measure, report
from .measure import Call

SIZES, QUICK_SIZES = [256, 512, 1024, 2048, 4096], [128]
KERNELS, QUICK_KERNELS = [3, 5, 7, 9, 11, 13, 15, 17, 21, 25, 31, 41, 63], [3, 9]
REPEATS, QUICK_REPEATS = 9, 2
MULTIPLY_ADDS = 10**11  # a direct engine's, beyond which a call takes seconds and is left out
REFERENCES = [fit.NUMPY, fit.SCIPY, fit.YARDSTICK]
GOAL = 1.25  # no other engine should be more times faster than the chosen one
STEADY_SIZE = 1024  # from here on what a call does once is lost in its time


def equations(
    source: NDArray,
    result: NDArray,
    taps: int,
    engine: str,
    length: int | None = None,
    workers: int = fit.WORKERS,
) -> fastkernel.NormalEquations:
    """Gather with an engine, and with transforms of a length where one is given."""
    if length is not None:
        tiling = _tilings(len(source), taps)[length]
        with mock.patch.object(library, "fft_tiling", return_value=tiling):
            return equations(source, result, taps, engine, None, workers)
    shape = (taps, taps)
    return fastkernel.normal_equations(source, result, shape, engine=engine, workers=workers)


def _tilings(size: int, taps: int) -> dict[int, gathering_cost.Tiling]:
    """The tilings that the library chooses from, by the length of their transforms."""
    return gathering_cost.fft_tilings((size - taps + 1,) * 2, (taps, taps))


def multiply_adds(taps: int) -> int:
    """Multiply-adds a pixel that the base entries of the equations need."""
    return 3 * taps**2 - 2 * taps + 1


def _contenders(size: int, dtype: str, taps: int, chosen: str, constants: bool) -> dict[str, tuple]:
    """Every contender's engine; for constants also the length of transforms, and one worker."""
    names = [name for name in gathering_cost.ENGINES if name != "integer" or dtype == "uint8"]
    if multiply_adds(taps) * size**2 > MULTIPLY_ADDS:
        names = [name for name in names if name in ("fft", chosen)]
    found: dict[str, tuple] = {name: (name,) for name in [*names, "auto"]}
    if constants:
        for length in _tilings(size, taps):
            found[f"fft {length}"] = ("fft", length)
        found = {name: (*(*how, None)[:2], 1) for name, how in found.items()}
    return found


def medians(calls: dict[str, Call], repeats: int) -> dict[str, Any]:
    for call in calls.values():
        call()
    times = measure.interleaved(calls, repeats)
    return {
        name: {"seconds": seconds, "median": statistics.median(seconds)}
        for name, seconds in times.items()
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    sizes = measure.wanted(args, SIZES, QUICK_SIZES, args.sizes)
    kernels = measure.wanted(args, KERNELS, QUICK_KERNELS, args.kernels)
    repeats = measure.wanted(args, REPEATS, QUICK_REPEATS, args.repeats)
    cells, references = [], []
    for size in sizes:
        image = data.photograph(size)
        for dtype in args.dtypes or fit.DTYPES:
            source = image.astype(dtype)
            # What the result shows changes no engine's time, and a true one takes minutes.
            pair = data.Pair(source, np.ascontiguousarray(source[::-1, ::-1]), np.empty(0))
            for taps in kernels:
                measure.progress("engines", f"{size}²", dtype, f"k = {taps}")
                images = (pair.source, pair.result, taps)
                chosen = fit.chosen_engine(*images)
                found = _contenders(size, dtype, taps, chosen, args.constants)
                calls = {name: Call(equations, (*images, *how)) for name, how in found.items()}
                cell = {"size": size, "dtype": dtype, "taps": taps}
                cells.append(cell | {"chosen": chosen, "contenders": medians(calls, repeats)})
            if size == max(sizes):  # for `plots`; a recipe's time does not depend on the kernel
                calls = fit.calls_on(pair, kernels[0])
                timed = medians({name: calls[name] for name in REFERENCES}, repeats)
                references.append({"size": size, "dtype": dtype, "contenders": timed})
    result = {"workers": fit.WORKERS, "cells": cells, "references": references}
    return result | ({"constants": _constants(result)} if args.constants else {})


def _terms(name: str, size: int, taps: int) -> dict[str, float]:
    """What the cost rule's constants of a contender multiply."""
    engine, _, length = name.partition(" ")
    if engine != "fft":
        return {"pixel": 1, "multiply-add": multiply_adds(taps)}
    window, kernel_shape = (size - taps + 1,) * 2, (taps, taps)
    terms = gathering_cost.fft_terms(window, kernel_shape, _tilings(size, taps)[int(length)])
    pixels, products, transformed = (term / math.prod(window) for term in terms)
    return {"pixel": pixels, "multiply-add": products, length: transformed}


def _constants(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The cost rule's constants by engine, in nanoseconds of one worker."""
    rows: dict[str, list[dict[str, float]]] = {}
    largest = max(cell["size"] for cell in result["cells"])
    for cell in result["cells"]:
        size, taps = cell["size"], cell["taps"]
        for name, entry in cell["contenders"].items():
            if name not in ("auto", "fft") and size >= min(STEADY_SIZE, largest):
                time = 1e9 * entry["median"] / (size - taps + 1) ** 2
                # Errors are relative, so that a small kernel counts as much as a large one.
                row = {term: value / time for term, value in _terms(name, size, taps).items()}
                rows.setdefault(name.partition(" ")[0], []).append(row)
    found = {}
    for engine, weighted in rows.items():
        terms = list(dict.fromkeys(term for row in weighted for term in row))
        matrix = np.array([[row.get(term, 0.0) for term in terms] for row in weighted])
        values, _ = scipy.optimize.nnls(matrix, np.ones(len(matrix)))
        found[engine] = dict(zip(terms, values.tolist(), strict=True))
    return found


def loss_of(cell: dict[str, Any]) -> tuple[str, float]:
    """The fastest engine, and how many times faster it is than the chosen one."""
    times = {name: cell["contenders"][name]["median"] for name in _engines(cell)}
    fastest = min(times, key=times.__getitem__)
    return fastest, times[cell["chosen"]] / times[fastest]


def _engines(cell: dict[str, Any]) -> list[str]:
    return [name for name in gathering_cost.ENGINES if name in cell["contenders"]]


def tables(result: dict[str, Any]) -> str:
    names = [*gathering_cost.ENGINES, "auto"]
    rows = []
    for cell in result["cells"]:
        fastest, loss = loss_of(cell)
        times = (report.milliseconds(cell["contenders"].get(name)) for name in names)
        rows.append([fit.label(cell), *times, cell["chosen"], fastest, report.figures(loss)])
    header = ["images, kernel", *(f"{name}, ms" for name in names), "chosen", "fastest", "loss"]
    parts = ["## Engines", report.table(header, rows), _worst(result)]
    if "constants" in result:
        parts.append(_cost_rule(result["constants"]))
    return "\n\n".join(parts)


def _worst(result: dict[str, Any]) -> str:
    loss, cell = max(((loss_of(cell)[1], cell) for cell in result["cells"]), key=lambda one: one[0])
    over = sum(loss_of(cell)[1] > GOAL for cell in result["cells"])
    return (
        f"At worst another engine is {report.figures(loss)} times faster than the chosen one "
        f"({fit.label(cell)}); more than {GOAL} times in {over} of {len(result['cells'])} cells."
    )


def _cost_rule(constants: dict[str, dict[str, float]]) -> str:
    """The constants as `fastkernel/estimation/equations/gathering_cost.py` writes them."""
    values = {
        engine: {term: report.figures(value, 2) for term, value in terms.items()}
        for engine, terms in constants.items()
    }
    pairs = {
        name: f"({terms.pop('pixel')}, {terms.pop('multiply-add')})"
        for name, terms in values.items()
    }
    direct = ", ".join(f'"{name}": {pair}' for name, pair in pairs.items() if name != "fft")
    transforms = ", ".join(f"{length}: {value}" for length, value in values["fft"].items())
    lines = [f"_DIRECT = {{{direct}}}", f"_FFT = {pairs['fft']}", f"_TRANSFORM = {{{transforms}}}"]
    return "\n".join(
        [
            "Constants of the cost rule, ns of one worker:",
            "",
            *(f"    {line}" for line in lines),
        ]
    )


def readme(result: dict[str, Any]) -> str:
    return _worst(result)
