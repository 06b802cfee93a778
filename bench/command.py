"""The command as a whole process: seconds from its start to its end, and memory."""

import argparse
import functools
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

import fastkernel
from fastkernel import psf

from . import data, fit, measure, report

SIZE = 512  # side of the images whose time is told
LARGE, QUICK_LARGE = 12_000, 512
PART = 3000  # side of the photograph that a larger image repeats
TAPS = 5
RUNS, QUICK_RUNS = 5, 1
RADIUS, BALANCE = 7.2, 0.1  # of the blur to undo, a disk of 15×15, and of `restore`

# Runs a command and tells how long it took and the most that it, or a process of its own, held.
# A process between them is needed: a new one counts what the one that starts it holds as its own.
_TOLD = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
seconds = time.perf_counter() - start
unit = 1 if sys.platform == "darwin" else 1024
print(seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit)
"""


def process(cache: Path, *words: object) -> dict[str, Any]:
    """Seconds and the peak of resident memory of one run of the command."""
    command = [sys.executable, "-m", "fastkernel", *map(str, words)]
    done = subprocess.run(
        [sys.executable, "-c", _TOLD, *command],
        cwd=measure.ROOT,
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    seconds, peak = done.stdout.split()
    return {"seconds": float(seconds), "peak": int(peak)}


def picture(size: int) -> NDArray[np.uint8]:
    """A photograph, or one that is repeated where magnifying it would take minutes."""
    if size <= PART:
        return data.photograph(size)
    times = -(-size // PART)
    return np.tile(data.photograph(PART), (times, times))[:size, :size]


def blurred(image: NDArray[np.uint8], taps: NDArray, boundary: str) -> NDArray[np.uint8]:
    found = fastkernel.convolve(image.astype(np.float32), taps, "same", boundary)
    return np.clip(np.rint(found, out=found), 0, 255, out=found).astype(np.uint8)


def write(path: Path, image: NDArray[np.uint8]) -> Path:
    """Write PNG, or TIFF without compression, which is read fastest."""
    if path.suffix == ".png":
        Image.fromarray(image).save(path)
    else:
        tifffile.imwrite(path, image)
    return path


def pair(folder: Path, size: int, ending: str) -> tuple[Path, Path]:
    """Files of an image and of its convolution with a planted kernel."""
    source = picture(size)
    result = blurred(source, data.planted_kernel(TAPS), "replicate")
    images = {"source": source, "result": result}
    first, second = (
        write(folder / f"{name}-{size}{ending}", image) for name, image in images.items()
    )
    return first, second


def _estimate(cache: Path, files: tuple[Path, Path]) -> dict[str, Any]:
    return process(cache, "estimate", *files, "-k", TAPS, "--workers", fit.WORKERS, "--quiet")


def _times(cache: Path, folder: Path, runs: int) -> list[dict[str, Any]]:
    measure.progress("command: estimate", f"{SIZE}²")
    files = pair(folder, SIZE, ".png")
    _estimate(cache, files)  # fills the cache
    seconds = [_estimate(cache, files)["seconds"] for _ in range(runs)]
    what = f"estimate, {SIZE}² PNG, {TAPS}×{TAPS}"
    return [{"what": what, "seconds": seconds, "median": statistics.median(seconds)}]


def _memory(cache: Path, folder: Path, size: int) -> list[dict[str, Any]]:
    """Peaks beyond the images, and beyond what the process has of any two images."""
    measure.progress("command: memory of estimate", f"{size}²")
    small = pair(folder, fit.TINY, ".tif")
    _estimate(cache, small)
    start = _estimate(cache, small)["peak"]
    found = _estimate(cache, pair(folder, size, ".tif"))
    images = 2 * size**2
    beyond = found["peak"] - start - images
    row = {"what": f"estimate, {TAPS}×{TAPS}", "size": size, "images": images, "start": start}
    return [row | found | {"beyond": beyond}]


def _restored(cache: Path, folder: Path, size: int) -> list[dict[str, Any]]:
    measure.progress("command: restore", f"{size}²")
    found = {}
    for side in (fit.TINY, size):  # the first fills the cache
        image = blurred(picture(side), psf.disk(RADIUS), "symmetric")
        files = write(folder / "blurred.tif", image), "--output", folder / "restored.tif", "--force"
        how = "--boundary", "unknown", "--balance", BALANCE, "--workers", fit.WORKERS, "--quiet"
        del image
        found = process(cache, "restore", f"disk:{RADIUS}", *files, *how)
    return [{"what": "restore, 15×15 disk, unknown border", "size": size, **found}]


def run(args: argparse.Namespace) -> dict[str, Any]:
    wanted = functools.partial(measure.wanted, args)
    large = wanted(LARGE, QUICK_LARGE, max(args.sizes) if args.sizes else None)
    runs = wanted(RUNS, QUICK_RUNS, args.repeats)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = folder / "numba"
        result = {"workers": fit.WORKERS, "times": _times(cache, folder, runs)}
        result["memory"] = _memory(cache, folder, large) if args.memory else []
        result["restore"] = _restored(cache, folder, large) if args.memory else []
    return result


def readme(result: dict[str, Any]) -> str:
    rows = [
        [row["what"], report.figures(row["median"]), f"{len(row['seconds'])}"]
        for row in result["times"]
    ]
    parts = [report.table(["whole process", "s", "runs"], rows)]
    large = [
        [
            f"{row['what']}, {row['size']}² uint8",
            report.figures(row["seconds"]),
            *(report.mebibytes(row.get(name)) for name in ("peak", "start", "images", "beyond")),
        ]
        for row in (*result["memory"], *result["restore"])
    ]
    if large:
        header = ["whole process", "s", "peak, MiB", f"peak with {fit.TINY}², MiB"]
        parts.append(report.table([*header, "images, MiB", "beyond both, MiB"], large))
    return "\n\n".join([*parts, f"With {result['workers']} workers and a warm cache of Numba."])


def tables(result: dict[str, Any]) -> str:
    return f"## The command\n\n{readme(result)}"
