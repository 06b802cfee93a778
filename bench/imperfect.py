"""Fits of imperfect pairs: what masks and weights cost, what bars cover, what clipping leaves.

Simulated pairs are parts of a photograph, or stars, blurred and observed with known noise.
"""

import argparse
import functools
import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

import fastkernel
from fastkernel import psf
from fastkernel.estimation.methods import lstsq

from . import data, fit, measure, report
from .measure import Call

SIZES, QUICK_SIZES = [4096], [256]
REPEATS, QUICK_REPEATS = 9, 2
PAIRS, QUICK_PAIRS = 500, 4
SIDE, TAPS = 72, 5

GAUSSIAN = psf.gaussian((TAPS, TAPS), 1.0)
SHARP = np.pad([[0.0, 0.1, 0.0], [0.2, 0.5, 0.0], [0.0, 0.2, 0.0]], 1)


class Case(NamedTuple):
    """A fit whose pixels do not count alike, and how much longer than others' it may take."""

    name: str
    dtype: str
    taps: int
    rules: Callable[[data.Pair], tuple[NDArray, dict[str, NDArray]]]
    goal: float | None = None


def scattered(pair: data.Pair, share: float = 0.01) -> tuple[NDArray, dict[str, NDArray]]:
    """The result with pixels that are white, and the mask of them."""
    bad = np.random.default_rng(1).random(pair.result.shape) < share
    return np.where(bad, pair.result.dtype.type(255), pair.result), {"mask": bad}


def half(pair: data.Pair) -> tuple[NDArray, dict[str, NDArray]]:
    return scattered(pair, 0.5)


def block(pair: data.Pair) -> tuple[NDArray, dict[str, NDArray]]:
    """A fifth of the result, in one piece, that is white."""
    bad = np.zeros(pair.result.shape, bool)
    bad[: len(bad) // 5] = True
    return np.where(bad, pair.result.dtype.type(255), pair.result), {"mask": bad}


def weighed(pair: data.Pair) -> tuple[NDArray, dict[str, NDArray]]:
    """The inverse variances of counts, for an exact result."""
    return pair.result, {"weights": 1 / (pair.result + np.float32(10))}


def noisy(pair: data.Pair) -> tuple[NDArray, dict[str, NDArray]]:
    """The same for a result with noise of these variances."""
    _, rules = weighed(pair)
    noise = np.random.default_rng(2).standard_normal(pair.result.shape, np.float32)
    return pair.result + noise / np.sqrt(rules["weights"]), rules


CASES = [
    Case("1 % scattered", "uint8", 7, scattered, 3),
    Case("1 % scattered", "float32", 15, scattered),
    Case("a block of a fifth", "uint8", 7, block),
    Case("half of them", "uint8", 7, half),
    Case("weights, exact result", "float32", 15, weighed, 12),
    Case("weights, noise", "float32", 15, noisy, 12),
]
QUICK_CASES = [case._replace(taps=5) for case in (CASES[0], CASES[-1])]


def fitted(source: NDArray, result: NDArray, taps: int, rules: dict[str, NDArray]) -> NDArray:
    return fastkernel.estimate_kernel(source, result, taps, workers=fit.WORKERS, **rules).kernel


def by_all_rows(*images: Any) -> NDArray:
    """The same by the rows of all pixels, with no corrections of what some say."""
    with mock.patch.object(lstsq, "share_of_rows", return_value=1.0):
        return fitted(*images)


EVEN, OURS, ALL_ROWS = "all pixels alike", "fastkernel", "all rows"


def _calls(image: NDArray, case: Case) -> tuple[data.Pair, dict[str, Call]]:
    pair = data.pair(image, case.taps, case.dtype)
    result, rules = case.rules(pair)
    images = (pair.source, result, case.taps, rules)
    return pair, {
        EVEN: Call(fitted, (pair.source, pair.result, case.taps, {})),
        OURS: Call(fitted, images),
        ALL_ROWS: Call(by_all_rows, images),
    }


def _cell(size: int, case: Case, repeats: int, memory: bool) -> dict[str, Any]:
    """Times of a case beside those of a fit in which all pixels count alike."""
    measure.progress("imperfect", f"{size}²", case.dtype, f"k = {case.taps}", case.name)
    pair, calls = _calls(data.photograph(size), case)
    rows = calls.pop(ALL_ROWS)
    reference, found = rows(), calls[OURS]()  # also the warm-up
    cell = {
        "name": case.name,
        "size": size,
        "dtype": case.dtype,
        "taps": case.taps,
        "goal": case.goal,
        "error": data.error(found, pair.kernel),
        "difference": data.error(found, reference),
        "all_rows": measure.interleaved({ALL_ROWS: rows}, 1)[ALL_ROWS],
    }
    times = measure.interleaved(calls, repeats)
    cell["contenders"] = {
        name: {"seconds": seconds, "median": statistics.median(seconds)}
        for name, seconds in times.items()
    }
    if memory:
        _, warm = _calls(data.photograph(fit.TINY), case)
        cell["memory"] = measure.peak_memory(calls[OURS], warm[OURS])
    return cell


Observed = tuple[NDArray, NDArray, dict[str, Any]]


def _part(rng: np.random.Generator, kernel: NDArray) -> tuple[NDArray, NDArray]:
    top, left = rng.integers(0, 512 - SIDE, 2)
    source = data.camera()[top : top + SIDE, left : left + SIDE] + 2
    return source, fastkernel.convolve(source, kernel, "valid")


def _stars(rng: np.random.Generator, kernel: NDArray) -> tuple[NDArray, NDArray]:
    source = np.full((SIDE, SIDE), 20.0)
    np.add.at(source, tuple(rng.integers(8, SIDE - 8, (2, 30))), rng.exponential(3000, 30))
    source = ndimage.gaussian_filter(source, 1)
    return source, fastkernel.convolve(source, kernel, "valid")


def even(rng: np.random.Generator, x: NDArray, y: NDArray) -> Observed:
    return x, y + 2 * rng.standard_normal(y.shape), {}


def counts(rng: np.random.Generator, x: NDArray, y: NDArray) -> Observed:
    return x, 2.0 * rng.poisson(y / 2), {"weights": 1 / (2 * y)}


def rounded(_: np.random.Generator, x: NDArray, y: NDArray) -> Observed:
    return x, np.rint(y), {}


def smooth(rng: np.random.Generator, x: NDArray, y: NDArray) -> Observed:
    return x, y + 5 * ndimage.gaussian_filter(rng.standard_normal(y.shape), 1), {}


def grainy(rng: np.random.Generator, x: NDArray, y: NDArray) -> Observed:
    grain = rng.standard_normal(y.shape)
    return x, y + 3 * (grain - ndimage.gaussian_filter(grain, 0.8)), {}


def in_both(rng: np.random.Generator, x: NDArray, y: NDArray) -> Observed:
    noise = 2 * rng.standard_normal(x.shape), rng.standard_normal(y.shape)
    return x + noise[0], y + noise[1], {"source_variance": 4.0}


class Setting(NamedTuple):
    """How pairs are made, and what is asked beyond what is known of their pixels."""

    name: str
    observe: Callable[[np.random.Generator, NDArray, NDArray], Observed]
    asked: dict[str, Any]
    known: bool = True
    scene: Callable[[np.random.Generator, NDArray], tuple[NDArray, NDArray]] = _part
    kernel: NDArray = GAUSSIAN


KINDS = ("asked", "plain")
ROBUST = {"errors": "robust"}
SETTINGS = [
    Setting("even", even, {}),
    Setting("even, robust", even, ROBUST),
    Setting("counts, weights", counts, {}),
    Setting("counts, absolute_sigma", counts, {"absolute_sigma": True}),
    Setting("counts, robust", counts, ROBUST, known=False),
    Setting("counts of stars, weights", counts, {}, scene=_stars),
    Setting("counts of stars, robust", counts, ROBUST, known=False, scene=_stars),
    Setting("rounding", rounded, {}),
    Setting("smooth noise, robust", smooth, ROBUST),
    Setting("grainy noise, robust", grainy, ROBUST),
    Setting("noise in both", in_both, {}),
    Setting("noise in both, sharp kernel", in_both, {}, kernel=SHARP),
    Setting("noise in both, stars", in_both, {}, scene=_stars),
]


def _simulated(setting: Setting, pairs: int) -> Iterator[Observed]:
    rng = np.random.default_rng(14)
    for _ in range(pairs):
        yield setting.observe(rng, *setting.scene(rng, setting.kernel))


def _coverage(setting: Setting, pairs: int) -> dict[str, Any]:
    """How often planted taps are within two bars, and how far off they are."""
    measure.progress("imperfect: bars,", setting.name)
    found: dict[str, list[tuple[NDArray, NDArray]]] = {kind: [] for kind in KINDS}
    for source, result, known in _simulated(setting, pairs):
        asked = (known if setting.known else {}) | setting.asked
        for kind, options in zip(KINDS, (asked, {}), strict=True):
            one = fastkernel.estimate_kernel(source, result, TAPS, **options)
            off = one.kernel - setting.kernel
            found[kind].append((off, np.abs(off) <= 2 * one.standard_errors))
    row: dict[str, Any] = {"name": setting.name, "pairs": pairs}
    for name, parts in found.items():
        off, hit = (np.array(part) for part in zip(*parts, strict=True))
        sizes = np.sqrt(np.mean(off**2, axis=(1, 2)))
        row[name] = {
            "covered": float(hit.mean()),
            "least": float(hit.mean(axis=0).min()),
            "error": float(np.median(sizes)),
            "worst": float(sizes.max()),
        }
    return row


OUTLIERS = {"faint": 10.0, "clear": 50.0, "wild": 1e9}  # standard deviations
CLIP = 4.0


def _clipping(size: float, pairs: int) -> dict[str, Any]:
    """What 2 % of wrong pixels do to kernels, and how many of them are found."""
    rng, found, wrong, right = np.random.default_rng(15), {}, [], []
    for source, result, _ in _simulated(SETTINGS[0], pairs):
        bad = rng.random(result.shape) < 0.02
        spoilt = result + bad * 2 * size * rng.choice([-1, 1], result.shape)
        for name, options in {
            "plain": {},
            "clipped": {"sigma_clip": CLIP},
            "told": {"mask": bad},
        }.items():
            one = fastkernel.estimate_kernel(source, spoilt, TAPS, **options)
            found.setdefault(name, []).append(one.kernel - GAUSSIAN)
            if name == "clipped":
                wrong.append((~one.used)[bad].mean())
                right.append((~one.used)[~bad].mean())
    return {
        "rms": {name: float(np.sqrt(np.mean(np.square(off)))) for name, off in found.items()},
        "found": float(np.mean(wrong)),
        "lost": float(np.mean(right)),
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    wanted = functools.partial(measure.wanted, args)
    pairs = wanted(PAIRS, QUICK_PAIRS)
    return {
        "workers": fit.WORKERS,
        "cells": [
            _cell(size, case, wanted(REPEATS, QUICK_REPEATS, args.repeats), args.memory)
            for size in wanted(SIZES, QUICK_SIZES, args.sizes)
            for case in wanted(CASES, QUICK_CASES)
        ],
        "coverage": [_coverage(setting, pairs) for setting in SETTINGS],
        "clipping": {name: _clipping(size, pairs) for name, size in OUTLIERS.items()},
    }


def ratio(cell: dict[str, Any]) -> float:
    """How many times longer it takes than where all pixels count alike."""
    contenders = cell["contenders"]
    return contenders[OURS]["median"] / contenders[EVEN]["median"]


def _times(result: dict[str, Any]) -> str:
    head = ["pixels", "ms", EVEN, "times that", "goal", "MiB", "error", "off all rows", ALL_ROWS]
    rows = [
        [
            f"{fit.label(cell)}, {cell['name']}",
            report.milliseconds(cell["contenders"][OURS]),
            report.milliseconds(cell["contenders"][EVEN]),
            report.figures(ratio(cell)),
            "-" if cell["goal"] is None else f"≤ {cell['goal']:g}",
            report.mebibytes(cell.get("memory", {}).get("peak")),
            report.small(cell["error"]),
            report.small(cell["difference"]),
            report.figures(1e3 * cell["all_rows"][0]),
        ]
        for cell in result["cells"]
    ]
    return report.table(head, rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _bars(result: dict[str, Any]) -> str:
    head = ["noise", "covered", "least tap", "plain bars", "least tap"]
    head += ["error", "worst", "plain fit's", "worst"]
    rows = [
        [
            row["name"],
            *(_percent(row[kind][key]) for kind in KINDS for key in ("covered", "least")),
            *(report.small(row[kind][key]) for kind in KINDS for key in ("error", "worst")),
        ]
        for row in result["coverage"]
    ]
    return report.table(head, rows)


def _clips(result: dict[str, Any]) -> str:
    head = ["2 % wrong by", "error", "sigma_clip=4", "told which", "found", "others lost"]
    rows = [
        [
            f"{OUTLIERS[name]:g} deviations",
            *(report.small(row["rms"][key]) for key in ("plain", "clipped", "told")),
            _percent(row["found"]),
            f"{100 * row['lost']:.4f} %",
        ]
        for name, row in result["clipping"].items()
    ]
    return report.table(head, rows)


def tables(result: dict[str, Any]) -> str:
    pairs = result["coverage"][0]["pairs"]
    return (
        f"## Pixels that do not count alike, {fit.WORKERS} workers\n\n{_times(result)}\n\n"
        f"## Planted taps within two bars, {pairs} pairs of {SIDE}², {TAPS}×{TAPS}\n\n"
        f"{_bars(result)}\n\n## Clipping, {pairs} pairs\n\n{_clips(result)}"
    )


def readme(result: dict[str, Any]) -> str:
    head = ["pixels that do not count alike", "times those that do", "goal", "MiB", "off all rows"]
    rows = [
        [
            f"{fit.label(cell)}, {cell['name']}",
            report.figures(ratio(cell)),
            "-" if cell["goal"] is None else f"≤ {cell['goal']:g}",
            report.mebibytes(cell.get("memory", {}).get("peak")),
            report.small(cell["difference"]),
        ]
        for cell in result["cells"]
    ]
    covered = ", ".join(
        f"{row['name']} {_percent(row['asked']['covered'])}" for row in result["coverage"]
    )
    pairs = result["coverage"][0]["pairs"]
    return (
        f"{report.table(head, rows)}\n\nPlanted taps within two error bars, {pairs} pairs of each "
        f"kind of noise: {covered}."
    )
