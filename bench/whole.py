"""Methods that take whole images, over the transforms that they cannot avoid."""

import argparse
import functools
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

import fastkernel

from . import data, engines, fit, measure, report, restoration
from .measure import Call

SIZES, QUICK_SIZES = [512, 1024, 2048, 4096, 8192], [128]
DTYPES = ["float32", "float64"]
TAPS = 15
REPEATS, QUICK_REPEATS = 9, 2
BALANCE = 0.1  # of `wiener`

OURS, TRANSFORMS = "fastkernel", "transforms"
METHODS = FFT, WIENER, INVERSE = ["method fft", "wiener", "inverse_filter"]


def fft_fit(source: NDArray, result: NDArray) -> NDArray:
    fitted = fastkernel.estimate_kernel(source, result, TAPS, method="fft", workers=fit.WORKERS)
    return fitted.kernel


def wiener(image: NDArray, taps: NDArray) -> NDArray:
    return fastkernel.wiener(image, taps, BALANCE, boundary="circular", workers=fit.WORKERS)


def inverse_filter(image: NDArray, taps: NDArray) -> NDArray:
    return fastkernel.inverse_filter(image, taps, boundary="circular", workers=fit.WORKERS)


def forward(*images: NDArray) -> list[NDArray]:
    """The transforms of a fit: one of each image."""
    return [scipy.fft.rfft2(image, workers=fit.WORKERS) for image in images]


def there_and_back(image: NDArray) -> NDArray:
    """The transforms of a filter: of the image, and of what is returned."""
    spectrum = scipy.fft.rfft2(image, workers=fit.WORKERS)
    return scipy.fft.irfft2(spectrum, image.shape, workers=fit.WORKERS)


def _calls(image: NDArray[np.uint8], dtype: str) -> dict[str, dict[str, Call]]:
    taps = restoration.PSFS["disk"]
    source = image.astype(dtype)
    blurred = fastkernel.convolve(source, taps, "same", "circular").astype(dtype, copy=False)
    both_ways = Call(there_and_back, (blurred,))
    return {
        FFT: {
            OURS: Call(fft_fit, (source, blurred)),
            TRANSFORMS: Call(forward, (source, blurred)),
        },
        WIENER: {OURS: Call(wiener, (blurred, taps)), TRANSFORMS: both_ways},
        INVERSE: {OURS: Call(inverse_filter, (blurred, taps)), TRANSFORMS: both_ways},
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    wanted = functools.partial(measure.wanted, args)
    repeats = wanted(REPEATS, QUICK_REPEATS, args.repeats)
    rows = []
    for size in wanted(SIZES, QUICK_SIZES, args.sizes):
        image = data.photograph(size)
        for dtype in DTYPES:
            for method, calls in _calls(image, dtype).items():
                measure.progress("whole", f"{size}²", dtype, method)
                row = {"size": size, "dtype": dtype, "method": method}
                rows.append(row | {"contenders": engines.medians(calls, repeats)})
    return {"workers": fit.WORKERS, "rows": rows}


def label(row: dict[str, Any]) -> str:
    return f"{row['size']}² {row['dtype']}"


def ratio(row: dict[str, Any]) -> float:
    """How many times longer than its transforms a method takes."""
    ours, transforms = (row["contenders"][name]["median"] for name in (OURS, TRANSFORMS))
    return float(ours / transforms)


def readme(result: dict[str, Any]) -> str:
    rows = [
        [
            f"{label(row)}, {row['method']}",
            *(report.milliseconds(row["contenders"][name]) for name in (OURS, TRANSFORMS)),
            f"{report.figures(ratio(row))}×",
        ]
        for row in result["rows"]
    ]
    header = ["images, method", "fastkernel, ms", "its transforms, ms", "in units of these"]
    return f"{report.table(header, rows)}\n\nBoth with {result['workers']} workers."


def tables(result: dict[str, Any]) -> str:
    return f"## Whole images\n\n{readme(result)}"
