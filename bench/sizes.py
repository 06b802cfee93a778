"""The exact fit against the size of the image; `plots` draws it."""

import argparse
from typing import Any

from . import data, fit, measure, report

SIZES, QUICK_SIZES = [256, 512, 1024, 2048, 4096, 8192, 16384], [64, 128]
KERNELS, QUICK_KERNELS = [9], [5]
REPEATS, QUICK_REPEATS = 11, 2
REFERENCES = [fit.NUMPY, fit.SCIPY, fit.YARDSTICK]
REFERENCE_SIZE = 8192  # beyond it the recipes need more memory than most machines have


def run(args: argparse.Namespace) -> dict[str, Any]:
    repeats = measure.wanted(args, REPEATS, QUICK_REPEATS, args.repeats)
    cells = []
    for size in measure.wanted(args, SIZES, QUICK_SIZES, args.sizes):
        image = data.photograph(size)
        names = [fit.OURS, *(REFERENCES if size <= REFERENCE_SIZE else [])]
        for dtype in args.dtypes or fit.DTYPES:
            for taps in measure.wanted(args, KERNELS, QUICK_KERNELS, args.kernels):
                measure.progress("sizes", f"{size}²", dtype, f"k = {taps}")
                cells.append(fit.cell(image, dtype, taps, repeats, False, names))
    return {"workers": fit.WORKERS, "cells": cells}


def tables(result: dict[str, Any]) -> str:
    names = [fit.OURS, *REFERENCES]
    rows = [
        [fit.label(cell), *(report.milliseconds(cell["contenders"].get(name)) for name in names)]
        for cell in result["cells"]
    ]
    header = ["image pair, kernel", *(f"{name}, ms" for name in names)]
    return f"## Against the size of the image\n\n{report.table(header, rows)}"
