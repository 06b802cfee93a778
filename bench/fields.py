"""Kernels that vary over the image: what they cost, and what differences of star fields leave.

Beside fastkernel stand the true kernel, one kernel for the whole field, and HOTPANTS where its
program is on the path.
"""

import argparse
import functools
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
from scipy import ndimage

import fastkernel

from . import data, fit, measure, peers, report, stars
from .measure import Call
from .worker import UnavailableError

SIZES, QUICK_SIZES = [4096], [256]
TAPS, QUICK_TAPS = [15], [5]
# Of the result, in grey levels.
NOISES = (0.0, 2.0)
REPEATS, QUICK_REPEATS = 5, 2
FIELD, QUICK_FIELD = 1024, 300
SEEDS, QUICK_SEEDS = (1, 2, 3), (1,)

CONSTANT, VARYING, FIXED, PREDICTED = CONTENDERS = [
    "one kernel",
    "a kernel of degree 2",
    "convolve",
    "predict of degree 2",
]
IDEAL, OURS, ONE, HOTPANTS, SFFT = JUDGED = [
    "true kernel",
    "fastkernel",
    "one kernel",
    "HOTPANTS",
    "SFFT",
]


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


def _cell(size: int, taps: int, noise: float, repeats: int, memory: bool) -> dict[str, Any]:
    measure.progress("fields", f"{size}²", f"k = {taps}", f"noise {noise:g}")
    source, result, kernel = planted(data.photograph(size), taps)
    if noise:
        rng = np.random.default_rng(1)
        result += np.float32(noise) * rng.standard_normal(result.shape, np.float32)
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
        "noise": noise,
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


def _without_sky(image: NDArray, bad: NDArray) -> NDArray:
    """An image less what its blocks of 64 pixels have in the middle, with zeros where it is bad."""
    blocks = max(len(image) // 64, 1)
    good = np.where(bad, np.nan, image)
    rows = (np.array_split(row, blocks, axis=1) for row in np.array_split(good, blocks))
    levels = np.array([[np.nanmedian(block) for block in row] for row in rows])
    sky = ndimage.zoom(levels, len(image) / blocks, order=1, mode="nearest", grid_mode=True)
    return np.where(bad, 0, image - sky)


def by_sfft(python: Path, truth: stars.Field) -> tuple[NDArray, NDArray, float]:
    """Its customised packet on stars that no bad pixel comes near, as its pipelines choose them."""
    images = {"reference": truth.reference, "science": truth.science}
    bad = [~(image < 0.98 * stars.SATURATION) for image in images.values()]
    made = {
        name: _without_sky(image, spoilt)
        for (name, image), spoilt in zip(images.items(), bad, strict=True)
    }
    near = ndimage.binary_dilation(bad[0] | bad[1], np.ones((15, 15), bool))
    lit = made["science"] > 5 * np.sqrt(np.median(truth.variances[1]))
    chosen = ndimage.binary_dilation(lit, iterations=4) & ~near
    with tempfile.TemporaryDirectory() as folder:
        places = np.array(stars.places(len(truth.science)), float)
        np.savez(Path(folder) / "fields.npz", **made, chosen=chosen, places=places)
        command = [str(python), "-m", "bench.peers_sfft_field", folder, str(fit.WORKERS)]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=measure.ROOT, check=False
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no word"])[-1]
            raise UnavailableError(reason)
        difference = np.load(Path(folder) / "difference.npy")
        kernels = np.load(Path(folder) / "kernels.npy")
    reached = ndimage.binary_dilation(bad[0], np.ones((15, 15), bool)) | bad[1]
    # Without the start of its process, and its files.
    return np.where(reached, np.nan, difference), kernels, float(done.stdout.split()[-1])


Maker = Callable[[stars.Field], tuple[NDArray, NDArray | None] | tuple[NDArray, NDArray, float]]


def makers(args: argparse.Namespace | None = None) -> tuple[dict[str, Maker], list[str]]:
    """Who can be run here, by name, and why others cannot."""
    found: dict[str, Maker] = {OURS: by_fastkernel, ONE: by_one_kernel}
    absent = []
    if shutil.which("hotpants"):
        found[HOTPANTS] = by_hotpants
    else:
        absent.append("HOTPANTS: no program of that name here")
    if args is not None:
        try:
            found[SFFT] = functools.partial(by_sfft, peers.sfft_python(args))
        except UnavailableError as reason:
            absent.append(f"SFFT: {reason}")
    return found, absent


def differences(
    truth: stars.Field, who: dict[str, Maker]
) -> dict[str, tuple[NDArray, NDArray | None, float]]:
    """Everyone's difference, kernels at `stars.places` if they are told, and seconds."""
    found: dict[str, tuple[NDArray, NDArray | None, float]] = {IDEAL: (truth.ideal, None, 0.0)}
    for name, make in who.items():
        start = time.perf_counter()
        difference, kernels, *seconds = make(truth)
        took = time.perf_counter() - start
        found[name] = difference, kernels, seconds[0] if seconds else took
    return found


def _judged(kind: stars.Kind, size: int, seed: int, who: dict[str, Maker]) -> dict[str, Any]:
    measure.progress("fields", kind.name, f"seed {seed}")
    truth, row = stars.field(kind, size, seed), {"name": kind.name, "seed": seed}
    figures: dict[str, Any] = {}
    for name, (difference, kernels, seconds) in differences(truth, who).items():
        figures[name] = stars.judged(truth, difference)
        if seconds:
            figures[name]["seconds"] = seconds
        if kernels is not None:
            figures[name] |= stars.error_of_kernels(truth, kernels)
    return row | {"who": figures}


def run(args: argparse.Namespace) -> dict[str, Any]:
    def wanted(full: Any, quick: Any, asked: Any = None) -> Any:
        return measure.wanted(args, full, quick, asked)

    who, absent = makers(args)
    return {
        "workers": fit.WORKERS,
        "absent": absent,
        "cells": [
            _cell(size, taps, noise, wanted(REPEATS, QUICK_REPEATS, args.repeats), args.memory)
            for noise in NOISES
            for size in wanted(SIZES, QUICK_SIZES, args.sizes)
            for taps in wanted(TAPS, QUICK_TAPS, args.kernels)
        ],
        "fields": [
            _judged(kind, wanted(FIELD, QUICK_FIELD), seed, who)
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
                fit.label(cell) + (f", noise {cell['noise']:g}" if cell["noise"] else ", exact"),
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
    absent = "".join(f" {reason}." for reason in result["absent"])
    return (
        f"{_times(result)}\n\n{_figures(result)}\n\nFields of {FIELD}² pixels; noise over that of "
        f"the truth (1 is ideal), detections of what is not there above {stars.DETECTED:g} "
        f"deviations, the worst of {len(SEEDS)} fields each.{absent}"
    )


def tables(result: dict[str, Any]) -> str:
    return f"## Kernels that vary\n\n{readme(result)}"
