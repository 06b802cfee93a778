"""Restoration of blurred images, beside scikit-image."""

import argparse
import bisect
import functools
import statistics
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import skimage.restoration
from numpy.typing import NDArray

import fastkernel
from fastkernel import psf

from . import data, engines, fit, measure, report
from .measure import Call

SIZES, QUICK_SIZES = [64, 256, 512, 1024, 2048], [128]
DTYPES = ["float32", "float64"]
NUM_ITER, QUICK_NUM_ITER = 10, 3
REPEATS, QUICK_REPEATS = 5, 1
NOISE = 0.01  # of images from 0 to 1
SLOWLY = 200  # plain iterations that the accelerated ones are compared with
COMPARED, QUICK_COMPARED = 512, 128  # side of the image for that, and for the border
RACE, QUICK_RACE = 1024, 128  # side of the image on which an error is to be reached
COUNTS, QUICK_COUNTS = [10, 20, 30, 50, 100], [2, 4]  # iterations, of which the best is taken
DISTANCES = 41  # of pixels from the frame whose errors are told apart
INSIDE = 64  # pixels from the frame where little is left of what borders do
WARM = 256  # side of the image that pays for imports and compilation
MEMORY_ITER = 3  # all that iterations need is there by then

UNKNOWN, QUICK_UNKNOWN = 1024, 128  # side of the image whose border is taken to be unknown
BALANCE = 0.1  # of the filters that are given a number


def _skew() -> NDArray[np.float64]:
    """Taps that are no product of a column and a row, and have no symmetry."""
    taps = data.planted_kernel(15) * psf.gaussian((15, 15), 4.0)
    return taps / taps.sum()


PSFS = {"disk": psf.disk(7.2), "gaussian": psf.gaussian((15, 15), 2.5), "skew": _skew()}
BORDERS = ["unknown", "symmetric"]
LOOKED_AT = ["disk", "gaussian"]  # of which more is told than the time

PLAIN, ACCELERATED, SKIMAGE = ITERATIVE = [
    "fastkernel, plain",
    "fastkernel, accelerated",
    "scikit-image",
]
BLURRED = "the blurred image"


def _noisy(blurred: NDArray, dtype: str) -> NDArray:
    noise = np.random.default_rng(0).normal(0.0, NOISE, blurred.shape)
    return np.clip(blurred + noise, 0, None).astype(dtype)


def _blurred(size: int, taps: NDArray, dtype: str) -> tuple[NDArray, NDArray]:
    sharp = data.photograph(size).astype(np.float64) / 255
    return sharp, _noisy(fastkernel.convolve(sharp, taps, "same", "symmetric"), dtype)


def _part_of_a_scene(size: int, taps: NDArray) -> tuple[NDArray, NDArray]:
    """The part of a photograph that can be blurred without anything made up beyond its frame."""
    scene = data.photograph(size).astype(np.float64) / 255
    margin = len(taps) // 2
    sharp = scene[margin:-margin, margin:-margin]
    return sharp, _noisy(fastkernel.convolve(scene, taps, "valid"), "float64")


def richardson_lucy(image: NDArray, taps: NDArray, num_iter: int, acceleration: bool) -> NDArray:
    return fastkernel.richardson_lucy(
        image, taps, num_iter, acceleration=acceleration, noise=None, workers=fit.WORKERS
    )


def skimage_richardson_lucy(image: NDArray, taps: NDArray, num_iter: int) -> NDArray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return skimage.restoration.richardson_lucy(
            image, taps.astype(image.dtype), num_iter, clip=False
        )


def wiener(
    image: NDArray, taps: NDArray, balance: float | str, boundary: str = "symmetric"
) -> NDArray:
    return fastkernel.wiener(image, taps, balance, boundary=boundary, workers=fit.WORKERS)


def skimage_wiener(image: NDArray, taps: NDArray, balance: float) -> NDArray:
    return skimage.restoration.wiener(image, taps, balance, clip=False)


def unsupervised_wiener(image: NDArray, taps: NDArray) -> NDArray:
    return skimage.restoration.unsupervised_wiener(image, taps, clip=False, rng=0)[0]


def _restore(who: str, image: NDArray, taps: NDArray, num_iter: int) -> Call:
    if who == SKIMAGE:
        return Call(skimage_richardson_lucy, (image, taps, num_iter))
    return Call(richardson_lucy, (image, taps, num_iter, who == ACCELERATED))


def _error(found: NDArray, sharp: NDArray) -> float:
    return float(np.sqrt(np.mean(np.square(found - sharp))))


def _inside(found: NDArray, sharp: NDArray) -> float:
    """The error of what stands away from the frame."""
    margin = min(INSIDE, len(sharp) // 4)
    middle = slice(margin, -margin), slice(margin, -margin)
    return _error(found[middle], sharp[middle])


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
    for name in LOOKED_AT:
        taps = PSFS[name]
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


def _fewest(error_of: Callable[[int], float], goal: float, most: int) -> int | None:
    """The fewest iterations to an error of at most ``goal``, None where ``most`` do not do.

    The error falls and then rises, as noise is sharpened too; so the steps are small enough not to
    leap over the valley.
    """
    last, count = 0, 1
    while error_of(count) > goal:
        if count >= most:
            return None
        last, count = count, min(most, count + (count + 1) // 2)
    between = range(last + 1, count)
    return last + 1 + bisect.bisect_left(between, True, key=lambda n: error_of(n) <= goal)


def _race(size: int, counts: list[int], repeats: int) -> dict[str, Any]:
    """What it takes to be as near to the truth as scikit-image comes."""
    taps = PSFS["disk"]
    sharp, image = _blurred(size, taps, "float32")

    @functools.cache
    def error_of(who: str, num_iter: int) -> float:
        return _inside(_restore(who, image, taps, num_iter)(), sharp)

    measure.progress("restoration: time to an error", f"{size}²")
    goal = min(error_of(SKIMAGE, count) for count in counts)
    needed = {who: _fewest(functools.partial(error_of, who), goal, counts[-1]) for who in ITERATIVE}
    calls = {who: _restore(who, image, taps, count) for who, count in needed.items() if count}
    times = measure.interleaved(calls, repeats)
    contenders = {
        who: {
            "needed": needed[who],
            "median": statistics.median(times[who]),
            "error": error_of(who, needed[who]),
            "whole": _error(call(), sharp),
        }
        for who, call in calls.items()
    }
    before = {"needed": 0, "error": _inside(image, sharp), "whole": _error(image, sharp)}
    return {
        "size": size,
        "counts": counts,
        "goal": goal,
        "contenders": {BLURRED: before} | contenders,
    }


def _profile(found: NDArray, sharp: NDArray) -> list[float]:
    """The error of pixels by their distance to the frame, 0 for those at it."""
    lines = [np.minimum(np.arange(n), np.arange(n)[::-1]) for n in sharp.shape]
    distance = np.minimum.outer(*lines).ravel()
    squares = np.bincount(distance, np.square(found - sharp).ravel())
    return np.sqrt(squares / np.bincount(distance))[:DISTANCES].tolist()


def _border(size: int, counts: list[int]) -> list[dict[str, Any]]:
    """Error against the distance to the frame, after the iterations that are best inside.

    That is many for scikit-image, whose borders suffer from each: so it has few of them too.
    """
    rows = []
    for name in LOOKED_AT:
        taps = PSFS[name]
        measure.progress("restoration: border", name)
        sharp, image = _part_of_a_scene(size, taps)
        curves = [{"who": BLURRED, "num_iter": 0, "profile": _profile(image, sharp)}]
        for who in (ACCELERATED, SKIMAGE):
            answers = {count: _restore(who, image, taps, count)() for count in counts}
            best = min(counts, key=lambda count: _inside(answers[count], sharp))
            curves += [
                {"who": who, "num_iter": count, "profile": _profile(answers[count], sharp)}
                for count in ([best] if who == ACCELERATED else sorted({counts[0], best}))
            ]
        rows.append({"psf": name, "size": len(sharp), "counts": counts, "curves": curves})
    return rows


def _filter_calls(image: NDArray, taps: NDArray) -> dict[str, Call]:
    return {
        "wiener, gcv": Call(wiener, (image, taps, "gcv")),
        "wiener, a number": Call(wiener, (image, taps, BALANCE)),
        "skimage wiener, a number": Call(skimage_wiener, (image, taps, BALANCE)),
        "skimage unsupervised_wiener": Call(unsupervised_wiener, (image, taps)),
    }


def _memory(size: int, dtype: str) -> dict[str, Any]:
    """Peaks of all contenders."""
    taps, calls = PSFS["disk"], {}
    for side in (WARM, size):
        _, image = _blurred(side, taps, dtype)
        calls[side] = {
            f"richardson_lucy: {who}": _restore(who, image, taps, MEMORY_ITER) for who in ITERATIVE
        } | _filter_calls(image, taps)
    peaks = {}
    for name, call in calls[size].items():
        measure.progress("restoration: memory", f"{size}²", dtype, name)
        peaks[name] = measure.peak_memory(call, calls[WARM][name])
    return {"size": size, "dtype": dtype, "image": image.nbytes, "contenders": peaks}


def _filters(size: int, dtype: str, repeats: int) -> dict[str, Any]:
    measure.progress("restoration: wiener", f"{size}²", dtype)
    taps = PSFS["gaussian"]
    sharp, image = _blurred(size, taps, dtype)
    calls = _filter_calls(image, taps)
    errors = {name: _error(call(), sharp) for name, call in calls.items()}
    times = measure.interleaved(calls, repeats)
    return {
        "size": size,
        "dtype": dtype,
        "contenders": {
            name: {"median": statistics.median(times[name]), "error": errors[name]}
            for name in calls
        },
    }


def _unknown(size: int, dtype: str, repeats: int, memory: bool) -> dict[str, Any]:
    """What it costs to assume nothing beyond the frame, beside a mirror image there."""
    measure.progress("restoration: unknown border", f"{size}²", dtype)
    taps, calls = PSFS["disk"], {}
    for side in (WARM, size):
        _, image = _blurred(side, taps, dtype)
        calls[side] = {
            boundary: Call(wiener, (image, taps, BALANCE, boundary)) for boundary in BORDERS
        }
    contenders: dict[str, dict[str, Any]] = engines.medians(calls[size], repeats)
    if memory:
        for boundary, entry in contenders.items():
            entry["memory"] = measure.peak_memory(calls[size][boundary], calls[WARM][boundary])
    return {"size": size, "dtype": dtype, "image": image.nbytes, "contenders": contenders}


def run(args: argparse.Namespace) -> dict[str, Any]:
    wanted = functools.partial(measure.wanted, args)
    sizes = wanted(SIZES, QUICK_SIZES, args.sizes)
    num_iter = wanted(NUM_ITER, QUICK_NUM_ITER)
    repeats = wanted(REPEATS, QUICK_REPEATS, args.repeats)
    counts = wanted(COUNTS, QUICK_COUNTS)
    dtypes, largest = wanted(DTYPES, DTYPES[:1]), max(sizes)
    return {
        "workers": fit.WORKERS,
        "iterations": [
            row for dtype in dtypes for row in _iterations(largest, dtype, num_iter, repeats)
        ],
        "race": _race(wanted(RACE, QUICK_RACE), counts, repeats),
        "convergence": [] if args.quick else _convergence(COMPARED),
        "border": _border(wanted(COMPARED, QUICK_COMPARED), counts),
        "filters": [_filters(size, dtype, repeats) for size in sizes for dtype in dtypes],
        "unknown": [
            _unknown(wanted(UNKNOWN, QUICK_UNKNOWN), dtype, repeats, args.memory)
            for dtype in dtypes
        ],
        "memory": [_memory(largest, dtype) for dtype in dtypes * args.memory],
    }


def _iteration_table(result: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['size']}² {row['dtype']}, 15×15 {row['psf']}",
            *(report.figures(1e3 * row["seconds"][who]) for who in row["seconds"]),
            report.figures(row["seconds"]["skimage"] / row["seconds"]["plain"]),
        ]
        for row in result["iterations"]
    ]
    header = ["ms an iteration", "plain", "accelerated", "scikit-image", "times faster"]
    return report.table(header, rows)


def _race_table(result: dict[str, Any]) -> str:
    race = result["race"]
    theirs = race["contenders"][SKIMAGE]["median"]
    rows = [
        [
            who,
            str(entry["needed"] or "-"),
            report.milliseconds(entry),
            report.figures(theirs / entry["median"]) if "median" in entry else "-",
            report.figures(entry["error"]),
            report.figures(entry["whole"]),
        ]
        for who, entry in race["contenders"].items()
    ]
    header = [f"{race['size']}² float32, 15×15 disk, noise {NOISE:g}", "iterations", "ms"]
    header += ["times faster", "error inside", "error of the whole image"]
    return report.table(header, rows)


def _convergence_table(result: dict[str, Any]) -> str:
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
    return report.table(header, rows)


def _border_table(result: dict[str, Any]) -> str:
    distances = [0, 2, 5, 10, 20, 40]
    rows = [
        [
            f"{row['psf']}, {curve['who']}",
            str(curve["num_iter"] or "-"),
            *(report.figures(_at(curve["profile"], distance), 2) for distance in distances),
        ]
        for row in result["border"]
        for curve in row["curves"]
    ]
    header = ["error by pixels from the frame", "iterations", *map(str, distances)]
    return report.table(header, rows)


def _at(profile: list[float], distance: int) -> float | None:
    return profile[distance] if distance < len(profile) else None


def _filter_table(result: dict[str, Any]) -> str:
    names = list(result["filters"][0]["contenders"])
    rows = [
        [
            f"{row['size']}² {row['dtype']}",
            *(
                f"{report.milliseconds(row['contenders'][name])}, "
                f"{report.figures(row['contenders'][name]['error'])}"
                for name in names
            ),
        ]
        for row in result["filters"]
    ]
    return report.table(["ms, and root mean square error", *names], rows)


def times_longer(row: dict[str, Any]) -> float:
    """How many times longer a filter takes that assumes nothing beyond the frame."""
    unknown, mirrored = (row["contenders"][boundary]["median"] for boundary in BORDERS)
    return float(unknown / mirrored)


def images_held(row: dict[str, Any]) -> float:
    """Its peak of memory beyond the image, in images."""
    return float(row["contenders"]["unknown"]["memory"]["peak"] / row["image"])


def _unknown_table(result: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['size']}² {row['dtype']}, 15×15 disk",
            *(report.milliseconds(row["contenders"][boundary]) for boundary in BORDERS),
            report.figures(times_longer(row)),
            report.figures(images_held(row)) if "memory" in row["contenders"]["unknown"] else "-",
        ]
        for row in result["unknown"]
    ]
    header = ["wiener, a number", "unknown border, ms", "symmetric, ms", "times longer"]
    return report.table([*header, "memory of unknown, images"], rows)


def _memory_table(result: dict[str, Any]) -> str:
    cells = result["memory"]
    rows = [
        [name, *(report.mebibytes(cell["contenders"][name]["peak"]) for cell in cells)]
        for name in cells[0]["contenders"]
    ]
    header = [f"MiB beyond the image, {cells[0]['size']}²"]
    header += [f"{cell['dtype']}, itself {report.mebibytes(cell['image'])}" for cell in cells]
    return report.table(header, rows)


def _about(result: dict[str, Any]) -> str:
    counts = ", ".join(map(str, result["race"]["counts"]))
    return (
        f"fastkernel has {result['workers']} workers. Errors are root mean squares, of images from "
        f"0 to 1; inside is what stands {INSIDE} pixels and more from the frame. The error to be "
        f"reached is the least that scikit-image has inside after {counts} iterations; each takes "
        "the fewest that reach it, and is left out where no such number does."
    )


def tables(result: dict[str, Any]) -> str:
    """Markdown: Richardson-Lucy, what it makes of the border, the filters, and memory."""
    parts = {
        "## Restoration": _about(result),
        "### Richardson-Lucy, an iteration": _iteration_table(result),
        "### Richardson-Lucy, time to an error": _race_table(result),
        "### Richardson-Lucy, convergence": result["convergence"] and _convergence_table(result),
        "### Richardson-Lucy, the border": _border_table(result),
        "### Wiener filters, 15×15 gaussian": _filter_table(result),
        "### Wiener filter, nothing assumed beyond the frame": _unknown_table(result),
        "### Peak memory": result["memory"] and _memory_table(result),
    }
    return "\n\n".join(f"{title}\n\n{text}" for title, text in parts.items() if text)


def readme(result: dict[str, Any]) -> str:
    parts = [_iteration_table(result), _race_table(result), _filter_table(result)]
    parts.append(_unknown_table(result))
    if result["memory"]:
        parts.append(_memory_table(result))
    return "\n\n".join([*parts, _about(result)])
