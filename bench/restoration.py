"""Restoration of blurred images, beside scikit-image."""

import argparse
import statistics
import warnings
from typing import Any

import numpy as np
import skimage.restoration
from numpy.typing import NDArray

import fastkernel
from fastkernel import psf

from . import data, fit, measure, report
from .measure import Call

SIZES, QUICK_SIZES = [256, 1024, 2048], [128]
NUM_ITER, QUICK_NUM_ITER = 10, 3
REPEATS, QUICK_REPEATS = 5, 1
NOISE = 0.01  # of images from 0 to 1
SLOWLY = 200  # plain iterations that the accelerated ones are compared with
COMPARED = 512  # side of the image for that

PSFS = {"disk": psf.disk(7.2), "gaussian": psf.gaussian((15, 15), 2.5)}


def _blurred(size: int, taps: NDArray, dtype: str) -> tuple[NDArray, NDArray]:
    sharp = data.photograph(size).astype(np.float64) / 255
    blurred = fastkernel.convolve(sharp, taps, "same", "symmetric")
    noise = np.random.default_rng(0).normal(0.0, NOISE, blurred.shape)
    return sharp, np.clip(blurred + noise, 0, None).astype(dtype)


def richardson_lucy(image: NDArray, taps: NDArray, num_iter: int, acceleration: bool) -> NDArray:
    return fastkernel.richardson_lucy(
        image, taps, num_iter, acceleration=acceleration, workers=fit.WORKERS
    )


def skimage_richardson_lucy(image: NDArray, taps: NDArray, num_iter: int) -> NDArray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return skimage.restoration.richardson_lucy(
            image, taps.astype(image.dtype), num_iter, clip=False
        )


def wiener(image: NDArray, taps: NDArray, balance: float | str) -> NDArray:
    return fastkernel.wiener(image, taps, balance, workers=fit.WORKERS)


def skimage_wiener(image: NDArray, taps: NDArray, balance: float) -> NDArray:
    return skimage.restoration.wiener(image, taps, balance, clip=False)


def unsupervised_wiener(image: NDArray, taps: NDArray) -> NDArray:
    return skimage.restoration.unsupervised_wiener(image, taps, clip=False, rng=0)[0]


def _error(found: NDArray, sharp: NDArray) -> float:
    return float(np.sqrt(np.mean(np.square(found - sharp))))


def _iterations(size: int, dtype: str, num_iter: int, repeats: int) -> list[dict[str, Any]]:
    """Time per iteration: longer calls less shorter ones, so that what is done once is not in."""
    rows = []
    for name, taps in PSFS.items():
        measure.progress("restoration", f"{size}²", dtype, name)
        _, image = _blurred(size, taps, dtype)
        calls = {}
        for steps in (num_iter, 3 * num_iter):
            calls[f"plain {steps}"] = Call(richardson_lucy, (image, taps, steps, False))
            calls[f"accelerated {steps}"] = Call(richardson_lucy, (image, taps, steps, True))
        few = max(1, num_iter // 5)
        for steps in (few, 2 * few):
            calls[f"skimage {steps}"] = Call(skimage_richardson_lucy, (image, taps, steps))
        times = {
            key: statistics.median(found)
            for key, found in measure.interleaved(calls, repeats).items()
        }
        seconds = {
            who: (times[f"{who} {3 * num_iter}"] - times[f"{who} {num_iter}"]) / (2 * num_iter)
            for who in ("plain", "accelerated")
        }
        seconds["skimage"] = (times[f"skimage {2 * few}"] - times[f"skimage {few}"]) / few
        rows.append({"size": size, "dtype": dtype, "psf": name, "seconds": seconds})
    return rows


def _convergence(size: int) -> list[dict[str, Any]]:
    """How many accelerated iterations reach the likelihood of many plain ones, and the error."""
    rows = []
    for name, taps in PSFS.items():
        measure.progress("restoration: convergence", name)
        sharp, image = _blurred(size, taps, "float64")

        def likelihood(found: NDArray, taps: NDArray = taps, image: NDArray = image) -> float:
            model = fastkernel.convolve(found, taps, "same", "symmetric")[16:-16, 16:-16]
            counts = image[16:-16, 16:-16]
            return float(np.sum(counts * np.log(np.maximum(model, 1e-12)) - model))

        goal = likelihood(richardson_lucy(image, taps, SLOWLY, False))
        needed = next(
            (
                n
                for n in range(5, SLOWLY)
                if likelihood(richardson_lucy(image, taps, n, True)) >= goal
            ),
            SLOWLY,
        )
        found = richardson_lucy(image, taps, needed, True)
        theirs = skimage_richardson_lucy(image, taps, SLOWLY)
        rim = np.ones(sharp.shape, bool)
        rim[16:-16, 16:-16] = False
        rows.append(
            {
                "psf": name,
                "needed": needed,
                "border": _error(found[rim], sharp[rim]) / _error(found[~rim], sharp[~rim]),
                "skimage border": _error(theirs[rim], sharp[rim])
                / _error(theirs[~rim], sharp[~rim]),
            }
        )
    return rows


def _filters(size: int, repeats: int) -> dict[str, Any]:
    measure.progress("restoration: wiener", f"{size}²")
    taps = PSFS["gaussian"]
    sharp, image = _blurred(size, taps, "float64")
    calls = {
        "wiener, gcv": Call(wiener, (image, taps, "gcv")),
        "wiener, a number": Call(wiener, (image, taps, 0.1)),
        "skimage wiener, a number": Call(skimage_wiener, (image, taps, 0.1)),
        "skimage unsupervised_wiener": Call(unsupervised_wiener, (image, taps)),
    }
    errors = {name: _error(call(), sharp) for name, call in calls.items()}
    times = measure.interleaved(calls, repeats)
    return {
        "size": size,
        "contenders": {
            name: {"median": statistics.median(times[name]), "error": errors[name]}
            for name in calls
        },
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    sizes = measure.wanted(args, SIZES, QUICK_SIZES, args.sizes)
    num_iter = measure.wanted(args, NUM_ITER, QUICK_NUM_ITER)
    repeats = measure.wanted(args, REPEATS, QUICK_REPEATS, args.repeats)
    iterations = [
        row
        for dtype in ("float32", "float64")
        for row in _iterations(sizes[-1], dtype, num_iter, repeats)
    ]
    convergence = [] if args.quick else _convergence(COMPARED)
    filters = [_filters(size, repeats) for size in sizes]
    return {
        "workers": fit.WORKERS,
        "iterations": iterations,
        "convergence": convergence,
        "filters": filters,
    }


def tables(result: dict[str, Any]) -> str:
    """Markdown: Richardson-Lucy by iteration, its convergence, and the filters."""
    iterations = [
        [
            f"{row['size']}² {row['dtype']}, 15×15 {row['psf']}",
            *(report.figures(1e3 * row["seconds"][who]) for who in row["seconds"]),
            report.figures(row["seconds"]["skimage"] / row["seconds"]["plain"]),
        ]
        for row in result["iterations"]
    ]
    header = ["ms an iteration", "plain", "accelerated", "scikit-image", "times faster"]
    parts = [report.table(header, iterations)]
    if result["convergence"]:
        rows = [
            [
                row["psf"],
                str(row["needed"]),
                report.figures(row["border"]),
                report.figures(row["skimage border"]),
            ]
            for row in result["convergence"]
        ]
        header = [
            f"{COMPARED}² float64, noise {NOISE:g}",
            f"accelerated iterations to the likelihood of {SLOWLY} plain ones",
            "border error over that inside",
            "scikit-image's",
        ]
        parts.append(report.table(header, rows))
    names = list(result["filters"][0]["contenders"])
    rows = [
        [
            f"{row['size']}²",
            *(
                f"{report.milliseconds(row['contenders'][name])}, "
                f"{report.figures(row['contenders'][name]['error'])}"
                for name in names
            ),
        ]
        for row in result["filters"]
    ]
    parts.append(report.table(["ms, and root mean square error", *names], rows))
    return "\n\n".join(parts)


readme = tables
