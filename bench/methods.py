"""Every way to estimate a kernel, on the same pairs with the same planted kernel."""

import argparse
import io
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

import fastkernel

from . import data, fit, measure, report
from .measure import Call

SIZE, QUICK_SIZE = 512, 128
KERNEL, QUICK_KERNEL = 9, 5
DIVIDED, QUICK_DIVIDED = 4096, 256
REPEATS, QUICK_REPEATS = 5, 1
GARBAGE, NOISE, QUALITY = 0.05, 2.0, 90

# What `estimate_kernel` is asked for.
METHODS: dict[str, dict[str, Any]] = {
    "lstsq": {},
    "lstsq, nonnegative and unit sum": {"nonnegative": True, "unit_sum": True},
    "lstsq, ridge='gcv'": {"ridge": "gcv"},
    "lstsq, gradient_descent": {"solver": "gradient_descent", "num_iter": 1000},
    "lstsq, fista": {"solver": "fista"},
    "lad": {"method": "lad"},
    "richardson_lucy": {"method": "richardson_lucy"},
    "fft, plain division": {"method": "fft", "epsilon": 0.0},
    "fft": {"method": "fft"},
    "fft, taper=0.1": {"method": "fft", "taper": 0.1},
}


def _jpeg(levels: NDArray) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(_rounded(levels)).save(file, "JPEG", quality=QUALITY)
    return np.asarray(Image.open(file))


def _rounded(levels: NDArray) -> NDArray[np.uint8]:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _noisy(levels: NDArray) -> NDArray[np.float64]:
    return np.maximum(levels + np.random.default_rng(1).normal(0.0, NOISE, levels.shape), 0.0)


def _spoilt(levels: NDArray) -> NDArray[np.uint8]:
    rng = np.random.default_rng(2)
    bad = rng.random(levels.shape) < GARBAGE
    return np.where(bad, rng.integers(0, 256, levels.shape), _rounded(levels)).astype(np.uint8)


# What becomes of the convolution before anyone sees it. The first is periodic, as "fft" takes
# images to be; the others have replicated edges.
PAIRS: dict[str, tuple[str, Callable[[NDArray], NDArray]]] = {
    "periodic, exact": ("wrap", lambda levels: levels),
    "exact": ("nearest", lambda levels: levels),
    "8 bits": ("nearest", _rounded),
    f"JPEG {QUALITY}": ("nearest", _jpeg),
    f"noise {NOISE:g}": ("nearest", _noisy),
    f"{GARBAGE:.0%} garbage": ("nearest", _spoilt),
}


def _pairs(size: int, taps: int) -> tuple[NDArray, NDArray, dict[str, NDArray]]:
    image = data.photograph(size).astype(np.float64)
    kernel = data.planted_kernel(taps)
    results = {
        name: spoil(ndimage.convolve(image, kernel, mode=mode))
        for name, (mode, spoil) in PAIRS.items()
    }
    return image, kernel, results


def run(args: argparse.Namespace) -> dict[str, Any]:
    size = measure.wanted(args, SIZE, QUICK_SIZE)
    taps = measure.wanted(args, KERNEL, QUICK_KERNEL)
    repeats = measure.wanted(args, REPEATS, QUICK_REPEATS, args.repeats)
    image, kernel, results = _pairs(size, taps)
    cells = []
    for name, result in results.items():
        measure.progress("methods", name)
        calls, fits = {}, {}
        for method, options in METHODS.items():
            call = Call(_fit, (image, result, taps, options))
            fits[method] = call()
            calls[method] = call
        times = measure.interleaved(calls, repeats)
        contenders = {
            method: {
                "error": data.error(found.kernel, kernel),
                "num_iter": found.num_iter,
                "converged": found.converged,
                "seconds": times[method],
                "median": statistics.median(times[method]),
            }
            for method, found in fits.items()
        }
        cells.append({"pair": name, "contenders": contenders})
    division = _division(measure.wanted(args, DIVIDED, QUICK_DIVIDED), repeats)
    return {
        "size": size,
        "taps": taps,
        "workers": fit.WORKERS,
        "cells": cells,
        "division": division,
    }


def _division(size: int, repeats: int) -> dict[str, Any]:
    """The plain division of whole spectra in float64, beside the same through SciPy."""
    measure.progress("methods: division", f"{size}²")
    source = data.photograph(size).astype(np.float64)
    result = ndimage.convolve(source, data.planted_kernel(5), mode="wrap")
    calls = {
        "fastkernel": Call(divide, (source, result)),
        "scipy.fft": Call(scipy_division, (source, result)),
    }
    found = [call() for call in calls.values()]
    times = measure.interleaved(calls, repeats)
    return {
        "size": size,
        "medians": {name: statistics.median(times[name]) for name in calls},
        "difference": float(np.abs(found[0] - found[1]).max()),
    }


def divide(source: NDArray, result: NDArray) -> NDArray:
    fitted = fastkernel.estimate_kernel(
        source, result, None, method="fft", epsilon=0.0, workers=fit.WORKERS
    )
    return fitted.kernel


def scipy_division(source: NDArray, result: NDArray) -> NDArray:
    with scipy.fft.set_workers(fit.WORKERS):
        spectrum = scipy.fft.rfft2(result) / scipy.fft.rfft2(source)
        return np.fft.fftshift(scipy.fft.irfft2(spectrum, s=source.shape))


def _fit(
    source: NDArray, result: NDArray, taps: int, options: dict[str, Any]
) -> fastkernel.KernelFit:
    return fastkernel.estimate_kernel(source, result, (taps, taps), **options, workers=fit.WORKERS)


def tables(result: dict[str, Any]) -> str:
    """Markdown: errors by pair, and the time and iterations on the rounded one."""
    cells = {cell["pair"]: cell["contenders"] for cell in result["cells"]}
    rows = []
    for method in METHODS:
        rounded = cells["8 bits"][method]
        errors = [_error(cell, method) for cell in cells.values()]
        iterations = str(rounded["num_iter"]) if rounded["num_iter"] else "-"
        rows.append([method, *errors, report.milliseconds(rounded), iterations])
    header = ["method", *(f"{name}" for name in cells), "ms", "iterations"]
    about = (
        f"Errors, `max|found - planted| / max|planted|`, of a {result['taps']}×{result['taps']} "
        f"kernel on a {result['size']}² photograph; the least of a pair in bold. Time and "
        "iterations are those of the pair of 8 bits."
    )
    divided = result["division"]
    ours, theirs = divided["medians"].values()
    division = (
        f"The plain division of whole {divided['size']}² spectra in float64 takes "
        f"{report.figures(1e3 * ours)} ms, the same through `scipy.fft` on {result['workers']} "
        f"workers {report.figures(1e3 * theirs)} ms."
    )
    return f"{report.table(header, rows)}\n\n{about} {division}"


def _error(cell: dict[str, Any], method: str) -> str:
    errors = [entry["error"] for entry in cell.values() if entry["error"] is not None]
    found = cell[method]["error"]
    text = report.small(found)
    return f"**{text}**" if found is not None and found <= min(errors) else text


readme = tables
