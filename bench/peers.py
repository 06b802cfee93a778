"""The exact fit beside other programs that fit a kernel to two images."""

import argparse
import contextlib
import ctypes.util
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np

from . import data, fit, measure, peers_gwyddion, report
from .measure import Call
from .worker import UnavailableError, Worker

SIZES, QUICK_SIZES = [4096], [128]
KERNELS, QUICK_KERNELS = [15], [5]
REPEATS, QUICK_REPEATS = 7, 2
SFFT_PACKAGES = ["sfft==1.7.*", "numpy<2", "psutil"]
OURS, SFFT, GWYDDION = fit.OURS, "SFFT on the CPU", "Gwyddion, windowed"


def _has_sfft(python: Path) -> bool:
    command = [python, "-c", "import sfft.sfftcore, psutil"]
    return python.is_file() and not subprocess.run(command, capture_output=True).returncode


def sfft_python(args: argparse.Namespace) -> Path:
    """The Python of SFFT's environment, which is made where it is missing."""
    folder = args.environment or args.output / "sfft"
    python = folder.absolute() / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if _has_sfft(python):
        return python
    if args.quick:
        reason = "not installed, and a quick run installs nothing"
        raise UnavailableError(reason)
    measure.progress("peers: installing", *SFFT_PACKAGES, f"in {folder}")
    try:
        venv.create(folder, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", *SFFT_PACKAGES]
        subprocess.run(install, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as problem:
        said = (getattr(problem, "stderr", None) or str(problem)).strip()
        reason = f"cannot be installed: {said.splitlines()[-1]}"
        raise UnavailableError(reason) from problem
    return python


def _gwyddion_python(_: argparse.Namespace) -> Path:
    if not ctypes.util.find_library(peers_gwyddion.LIBRARY):
        reason = f"no library {peers_gwyddion.LIBRARY} here (Debian: libgwyddion2-0)"
        raise UnavailableError(reason)
    return Path(sys.executable)


PEERS = {
    SFFT: (sfft_python, "bench.peers_sfft"),
    GWYDDION: (_gwyddion_python, "bench.peers_gwyddion"),
}


def _cell(size: int, taps: int, repeats: int, pythons: dict[str, Path | str]) -> dict[str, Any]:
    """Time, error and memory of everybody; a string in place of a Python says why not."""
    pair = data.pair(data.photograph(size), taps, "float32")
    ours = fit.calls_on(pair, taps)[OURS]
    contenders: dict[str, dict[str, Any]] = {OURS: {"error": data.error(ours(), pair.kernel)}}
    calls = {OURS: ours}
    engine = fit.chosen_engine(pair.source, pair.result, taps)
    tiny = data.pair(data.photograph(fit.TINY), taps, "float32")
    memory = measure.peak_memory(ours, fit.calls_on(tiny, taps, engine)[OURS])
    contenders[OURS]["memory"] = memory
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("source", "result"):
            np.save(folder / f"{name}.npy", getattr(pair, name))
        for name, (_, module) in PEERS.items():
            python = pythons[name]
            if isinstance(python, str):
                contenders[name] = {"skipped": python}
                continue
            measure.progress("peers:", name, f"{size}²", f"k = {taps}")
            worker = stack.enter_context(Worker(python, module, folder, taps, fit.WORKERS))
            try:
                told = worker.read()
            except UnavailableError as reason:
                contenders[name] = {"skipped": str(reason)}
                continue
            error = data.error(np.load(folder / "kernel.npy"), pair.kernel)
            memory = {"peak": told["peak"]}
            contenders[name] = {"error": error, "memory": memory, "version": told["version"]}
            calls[name] = Call(worker.fit, ())
        times = measure.interleaved(calls, repeats)
    for name, seconds in times.items():
        contenders[name] |= {"seconds": seconds, "median": statistics.median(seconds)}
    return {"size": size, "dtype": "float32", "taps": taps, "contenders": contenders}


def run(args: argparse.Namespace) -> dict[str, Any]:
    repeats = measure.wanted(args, REPEATS, QUICK_REPEATS, args.repeats)
    pythons: dict[str, Path | str] = {}
    for name, (find, _) in PEERS.items():
        try:
            pythons[name] = find(args)
        except UnavailableError as reason:
            pythons[name] = str(reason)
    cells = [
        _cell(size, taps, repeats, pythons)
        for size in measure.wanted(args, SIZES, QUICK_SIZES, args.sizes)
        for taps in measure.wanted(args, KERNELS, QUICK_KERNELS, args.kernels)
    ]
    return {"workers": fit.WORKERS, "cells": cells}


def readme(result: dict[str, Any]) -> str:
    header = ["who", "images, kernel", "ms", "fastkernel faster by", "error", "memory, MiB"]
    rows, skipped = [], {}
    for cell in result["cells"]:
        ours = cell["contenders"][OURS]["median"]
        for name, entry in cell["contenders"].items():
            if "skipped" in entry:
                skipped[name] = entry["skipped"]
                continue
            ratio = "" if name == OURS else f"{report.figures(entry['median'] / ours)}×"
            label = f"{name} {entry['version']}" if "version" in entry else name
            numbers = [report.milliseconds(entry), ratio]
            numbers += [report.small(entry["error"]), report.mebibytes(entry["memory"]["peak"])]
            rows.append([label, fit.label(cell), *numbers])
    notes = [f"{name}: {reason}." for name, reason in skipped.items()]
    workers = f"All have {result['workers']} workers."
    return f"{report.table(header, rows)}\n\n{' '.join([workers, *notes])}"


def tables(result: dict[str, Any]) -> str:
    return f"## Peers\n\n{readme(result)}"
