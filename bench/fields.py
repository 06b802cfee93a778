"""Kernels that vary over the image: what they cost, and what differences of star fields leave.

Beside fastkernel stand the true kernel, one kernel for the whole field, and HOTPANTS where its
program is on the path.
"""

import argparse
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastkernel

from . import data, fit, measure, report, stars
from .measure import Call

SIZES, QUICK_SIZES = [4096], [256]
TAPS, QUICK_TAPS = [15], [5]
REPEATS, QUICK_REPEATS = 7, 2
FIELD, QUICK_FIELD = 1024, 300
SEEDS, QUICK_SEEDS = (1, 2, 3), (1,)

CONSTANT, VARYING, FIXED, PREDICTED = CONTENDERS = [
    "one kernel",
    "a kernel of degree 2",
    "convolve",
    "predict of degree 2",
]
IDEAL, OURS, ONE, HOTPANTS = JUDGED = ["true kernel", "fastkernel", "one kernel", "HOTPANTS"]


def constant(source: NDArray, result: NDArray, taps: int) -> NDArray:
    return fastkernel.estimate_kernel(source, result, taps, workers=fit.WORKERS).kernel


def varying(source: NDArray, result: NDArray, taps: int) -> fastkernel.KernelField:
    return fastkernel.estimate_kernel_field(source, result, taps, workers=fit.WORKERS)


def fixed(source: NDArray, kernel: NDArray) -> NDArray:
    return fastkernel.convolve(source, kernel, "same", dtype=float, workers=fit.WORKERS)


def predicted(field: fastkernel.KernelField, source: NDArray) -> NDArray:
    return field.predict(source, workers=fit.WORKERS)


def planted(image: NDArray, taps: int) -> tuple[NDArray, NDArray, Callable[[int, int], NDArray]]:
    """A source, its convolution with a kernel that is a polynomial of position, and that kernel."""
    source = image.astype(np.float32)
    rows, cols = source.shape
    v, u = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, cols)
    shares = 0.5 + 0.3 * u - 0.2 * v + 0.1 * u * v, 0.1 * (v * v - u * u)
    widths = taps / 10, taps / 6, taps / 8
    parts = [fastkernel.psf.gaussian(taps, width) for width in widths]
    near, far, third = (fastkernel.convolve(source, part, "same", "mirror") for part in parts)
    result = far + shares[0] * (near - far) + shares[1] * (third - far)

    def kernel(row: int, col: int) -> NDArray:
        first, second = (share[row, col] for share in shares)
        return parts[1] + first * (parts[0] - parts[1]) + second * (parts[2] - parts[1])

    return source, result.astype(np.float32), kernel


def _cell(size: int, taps: int, repeats: int, memory: bool) -> dict[str, Any]:
    measure.progress("fields", f"{size}²", f"k = {taps}")
    source, result, kernel = planted(data.photograph(size), taps)
    images = source, result, taps
    found, middle = varying(*images), fastkernel.psf.gaussian(taps, taps / 6)
    calls = {
        CONSTANT: Call(constant, images),
        VARYING: Call(varying, images),
        FIXED: Call(fixed, (source, middle)),
        PREDICTED: Call(predicted, (found, source)),
    }
    for call in calls.values():
        call()
    times = measure.interleaved(calls, repeats)
    worst = max(
        float(np.abs(found.kernel_at(*place) - kernel(*place)).max() / kernel(*place).max())
        for place in stars.places(size)
    )
    cell = {
        "size": size,
        "taps": taps,
        "dtype": "float32",
        "error": worst,
        "contenders": {
            name: {"seconds": seconds, "median": statistics.median(seconds)}
            for name, seconds in times.items()
        },
    }
    if memory:
        tiny = planted(data.photograph(fit.TINY), taps)[:2]
        cell["memory"] = measure.peak_memory(calls[VARYING], Call(varying, (*tiny, taps)))
    return cell


def by_fastkernel(truth: stars.Field) -> tuple[NDArray, NDArray]:
    match = fastkernel.match_images(
        truth.science,
        truth.reference,
        direction="reference",
        decorrelate=False,
        saturation=(None, 0.98 * stars.SATURATION),
        workers=fit.WORKERS,
    )
    places = stars.places(len(truth.science))
    return match.difference, np.array([match.field.kernel_at(*place) for place in places])


def by_one_kernel(truth: stars.Field) -> tuple[NDArray, NDArray]:
    one = fastkernel.estimate_kernel(
        truth.reference,
        truth.science,
        15,
        background=2,
        nan_policy="omit",
        saturation=(None, 0.98 * stars.SATURATION),
        sigma_clip=5,
        workers=fit.WORKERS,
    )
    source = np.where(np.isfinite(truth.reference), truth.reference, 0)
    difference = truth.science - one.predict(source, mode="same")
    return difference, np.array([one.kernel] * len(stars.places(len(source))))


def by_hotpants(truth: stars.Field) -> tuple[NDArray, None]:
    """The program as its users call it, told what is known of the images."""
    from astropy.io import fits

    with tempfile.TemporaryDirectory() as folder:
        names = {}
        for name, image in (("inim", truth.science), ("tmplim", truth.reference)):
            names[name] = Path(folder) / f"{name}.fits"
            fits.writeto(names[name], np.nan_to_num(image, nan=-1e4).astype(np.float32))
        out = Path(folder) / "out.fits"
        options = {"iu": 0.98 * stars.SATURATION, "tu": 0.98 * stars.SATURATION, "il": -100}
        options |= {"tl": -100, "ig": stars.GAIN, "tg": stars.GAIN, "ir": stars.READ_NOISE}
        options |= {"tr": stars.READ_NOISE, "r": 7, "ko": 2, "bgo": 2, "c": "t", "n": "i", "v": 0}
        words = [f"-{word}" for name in names for word in (name,)]
        files = [str(part) for pair in zip(words, names.values(), strict=True) for part in pair]
        told = [str(part) for name, value in options.items() for part in (f"-{name}", value)]
        command = ["hotpants", *files, "-outim", str(out), *told]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        difference = fits.getdata(out).astype(float)
    difference[~np.isfinite(truth.science) | (np.abs(difference) < 1e-20)] = np.nan
    return difference, None


Maker = Callable[[stars.Field], tuple[NDArray, NDArray | None]]


def makers() -> dict[str, Maker]:
    """Who can be run here, by name."""
    found: dict[str, Maker] = {OURS: by_fastkernel, ONE: by_one_kernel}
    if shutil.which("hotpants"):
        found[HOTPANTS] = by_hotpants
    return found


def differences(truth: stars.Field) -> dict[str, tuple[NDArray, NDArray | None, float]]:
    """Everyone's difference, kernels at `stars.places` if they are told, and seconds."""
    found: dict[str, tuple[NDArray, NDArray | None, float]] = {IDEAL: (truth.ideal, None, 0.0)}
    for name, make in makers().items():
        start = time.perf_counter()
        difference, kernels = make(truth)
        found[name] = difference, kernels, time.perf_counter() - start
    return found


def _judged(kind: stars.Kind, size: int, seed: int) -> dict[str, Any]:
    measure.progress("fields", kind.name, f"seed {seed}")
    truth, row = stars.field(kind, size, seed), {"name": kind.name, "seed": seed}
    who: dict[str, Any] = {}
    for name, (difference, kernels, seconds) in differences(truth).items():
        who[name] = stars.judged(truth, difference)
        if seconds:
            who[name]["seconds"] = seconds
        if kernels is not None:
            who[name] |= stars.error_of_kernels(truth, kernels)
    return row | {"who": who}


def run(args: argparse.Namespace) -> dict[str, Any]:
    def wanted(full: Any, quick: Any, asked: Any = None) -> Any:
        return measure.wanted(args, full, quick, asked)

    return {
        "workers": fit.WORKERS,
        "cells": [
            _cell(size, taps, wanted(REPEATS, QUICK_REPEATS, args.repeats), args.memory)
            for size in wanted(SIZES, QUICK_SIZES, args.sizes)
            for taps in wanted(TAPS, QUICK_TAPS, args.kernels)
        ],
        "fields": [
            _judged(kind, wanted(FIELD, QUICK_FIELD), seed)
            for kind in wanted(stars.KINDS, stars.KINDS[1:2])
            for seed in wanted(SEEDS, QUICK_SEEDS)
        ],
    }


def _times(result: dict[str, Any]) -> str:
    head = ["images, kernel", *(f"{name}, ms" for name in CONTENDERS), "fit", "predict"]
    head += ["MiB", "error of the largest tap"]
    rows = []
    for cell in result["cells"]:
        took = {name: cell["contenders"][name]["median"] for name in CONTENDERS}
        rows.append(
            [
                fit.label(cell),
                *(report.milliseconds(cell["contenders"][name]) for name in CONTENDERS),
                f"{report.figures(took[VARYING] / took[CONSTANT])}×",
                f"{report.figures(took[PREDICTED] / took[FIXED])}×",
                report.mebibytes(cell.get("memory", {}).get("peak")),
                report.small(cell["error"]),
            ]
        )
    return report.table(head, rows)


def _figures(result: dict[str, Any]) -> str:
    head = ["field", "kernel", "noise", "on stars", "false", "PSF error", "scale", "s"]
    rows = []
    for name in dict.fromkeys(row["name"] for row in result["fields"]):
        for who in JUDGED:
            of = [
                row["who"][who]
                for row in result["fields"]
                if row["name"] == name and who in row["who"]
            ]
            if of:
                rows.append([name, who, *_row(of)])
    return report.table(head, rows)


def _row(of: list[dict[str, Any]]) -> list[str]:
    """The worst of several fields, and the median time."""
    psf = max((figures["psf"] for figures in of if "psf" in figures), default=None)
    scale = max((abs(figures["scale"]) for figures in of if "scale" in figures), default=None)
    seconds = [figures["seconds"] for figures in of if "seconds" in figures]
    return [
        f"{max(figures['all'] for figures in of):.4f}",
        f"{max(figures['stars'] for figures in of):.4f}",
        f"{max(figures['false'] for figures in of)}",
        *("-" if share is None else f"{share:.2%}" for share in (psf, scale)),
        f"{statistics.median(seconds):.2f}" if seconds else "-",
    ]


def readme(result: dict[str, Any]) -> str:
    absent = (
        ""
        if any(HOTPANTS in row["who"] for row in result["fields"])
        else (" HOTPANTS was not there to be run.")
    )
    return (
        f"{_times(result)}\n\n{_figures(result)}\n\nFields of {FIELD}² pixels; noise over that of "
        f"the truth (1 is ideal), detections of what is not there above {stars.DETECTED:g} "
        f"deviations, the worst of {len(SEEDS)} fields each.{absent}"
    )


def tables(result: dict[str, Any]) -> str:
    return f"## Kernels that vary\n\n{readme(result)}"
