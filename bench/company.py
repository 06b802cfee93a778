"""Fits beside other processes that keep every core busy."""

import argparse
import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import data, engines, fit, measure, report, rivals
from .measure import Call

SIZE, QUICK_SIZE = 4096, 256
FITS, QUICK_FITS = [("float32", 31), ("uint8", 5)], [("float32", 5), ("uint8", 5)]
REPEATS, QUICK_REPEATS = 15, 2
OTHERS = 2  # processes, each of which would have a core to itself

# Ends with its parent, should that be killed. The array stays in cache: cores are shared, and
# not the memory's bandwidth.
_BUSY = """
import os, sys
import numpy as np
parent, pixels = int(sys.argv[1]), np.ones(2**14)
print("busy", flush=True)
while os.getppid() == parent:
    pixels.sum()
"""


@contextlib.contextmanager
def others(count: int) -> Iterator[list[subprocess.Popen]]:
    """Other processes that never rest, from when all of them are busy."""
    command = [sys.executable, "-c", _BUSY, str(os.getpid())]
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            found.append(stack.enter_context(other))
            stack.callback(other.kill)
        for other in found:
            if other.stdout is None or other.stdout.readline() != "busy\n":
                sys.exit("bench: company: a busy process did not start")
        yield found


def _calls(size: int, fits: list[tuple[str, int]]) -> dict[str, Call]:
    image = data.photograph(size)
    calls = {}
    for dtype, taps in fits:
        source = image.astype(dtype)
        # What the result shows changes no sum's time, and a true one takes minutes.
        images = source, np.ascontiguousarray(source[::-1, ::-1])
        name = fit.label({"size": size, "dtype": dtype, "taps": taps})
        calls[name] = Call(engines.equations, (*images, taps, "auto", None, fit.WORKERS))
    calls[fit.YARDSTICK] = Call(rivals.scipy_rfft2, (image.astype(np.float64), fit.WORKERS))
    return calls


def run(args: argparse.Namespace) -> dict[str, Any]:
    wanted = functools.partial(measure.wanted, args)
    size = wanted(SIZE, QUICK_SIZE, max(args.sizes) if args.sizes else None)
    repeats = wanted(REPEATS, QUICK_REPEATS, args.repeats)
    calls = _calls(size, wanted(FITS, QUICK_FITS))
    measure.progress("company: alone", f"{size}²")
    alone = engines.medians(calls, repeats)
    measure.progress("company: beside others", f"{size}²")
    with others(OTHERS):
        beside = engines.medians(calls, repeats)
    names = [name for name in calls if name != fit.YARDSTICK]
    return {
        "workers": fit.WORKERS,
        "others": OTHERS,
        "yardstick": {"alone": alone[fit.YARDSTICK], "beside": beside[fit.YARDSTICK]},
        "rows": [{"what": name, "alone": alone[name], "beside": beside[name]} for name in names],
    }


def ratio(result: dict[str, Any], row: dict[str, Any], where: str) -> float:
    """How many times longer than the yardstick a fit takes, both in the same company."""
    return float(row[where]["median"] / result["yardstick"][where]["median"])


def readme(result: dict[str, Any]) -> str:
    places = ("alone", "beside")
    rows = [
        [
            row["what"],
            *(report.milliseconds(row[where]) for where in places),
            *(report.figures(ratio(result, row, where)) for where in places),
        ]
        for row in result["rows"]
    ]
    times = [report.milliseconds(result["yardstick"][where]) for where in places]
    rows.append([fit.YARDSTICK, *times, "1", "1"])
    header = ["what", "alone, ms", "in company, ms", "alone over the yardstick"]
    header.append("in company over the yardstick in company")
    text = f"fastkernel with {result['workers']} workers, beside {result['others']} busy processes."
    return f"{report.table(header, rows)}\n\n{text}"


def tables(result: dict[str, Any]) -> str:
    return f"## In company\n\n{readme(result)}"
