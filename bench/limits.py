"""How near the fit comes to what the machine can do, in time, threads, memory and start-up."""

import argparse
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastkernel._loops import lags
from fastkernel.estimation.equations.gathering_engines import TILE_SHAPES
from fastkernel.estimation.equations.row_jobs import row_length

from . import data, engines, fit, measure, report
from .measure import Call

ROWS = [("uint8", 3), ("uint8", 5), ("uint8", 9)]
ROWS += [("float32", 3), ("float32", 5), ("float32", 9), ("float32", 15), ("float32", 31)]
QUICK_ROWS = [("uint8", 3), ("float32", 5)]
SIZES, QUICK_SIZES = [4096], [256]
REPEATS, QUICK_REPEATS = 15, 2
MEMORY_SIZES, QUICK_MEMORY_SIZES = [512, 1024, 2048, 4096, 8192], [128]
MEMORY_KERNELS, QUICK_MEMORY_KERNELS = [9, 31], [5]
STARTS, QUICK_STARTS = 5, 1
FIRST_CALLS = [("uint8", 5), ("float32", 5), ("float32", 31)]
QUICK_FIRST_CALLS = FIRST_CALLS[:1]
READ, QUICK_READ = 256 * 2**20, 2**22  # bytes, far beyond any cache
BEST_OF = 5
PEAK_KERNELS = [5, 10, 15]  # multiples of the lags that one pass takes
PEAK_SECONDS, QUICK_PEAK_SECONDS = 0.2, 0.01
DTYPES = {"integer": np.int16, "float": np.float64}

# Passes over an array by loops that are no part of fastkernel; each moves all of its bytes.
PASSES: dict[str, Callable[[NDArray], Any]] = {
    "sum": np.sum,
    "max": np.max,
    "or": lambda part: np.bitwise_or.reduce(part.view(np.uint64)),
    "copy": lambda part: np.copyto(*np.split(part, 2)),
}


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _bandwidth(n_bytes: int, threads: int) -> dict[str, float]:
    """Bytes a second, by kind of pass."""
    parts = [np.ones(n_bytes // (16 * threads) * 2) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:

        def best(one: Callable[[NDArray], Any]) -> float:
            return min(_seconds(lambda: list(pool.map(one, parts))) for _ in range(BEST_OF))

        return {name: n_bytes / best(one) for name, one in PASSES.items()}


def _multiply_adds(engine: str, taps: int, threads: int, seconds: float) -> float:
    """Multiply-adds a second of the innermost loop, on one tile a thread that stays in cache."""
    dtype = np.dtype(DTYPES[engine])
    height, width = TILE_SHAPES[engine]

    def add_tiles(count: int) -> None:
        x = np.ones((height + taps - 1, row_length(width, taps - 1, dtype)), dtype)
        y = np.ones((height, row_length(width, 0, dtype)), dtype)
        sums = np.empty(lags.sums_shape((taps, taps), dtype), lags.sums_dtype(dtype))
        out = np.zeros((lags.KINDS, taps, taps))
        for _ in range(count):
            lags.add_tiles(x[None], y[None], (height, width), True, sums, out[None])

    add_tiles(1)
    count = max(1, round(seconds / _seconds(lambda: add_tiles(2)) * 2))
    with ThreadPoolExecutor(threads) as pool:
        best = min(
            _seconds(lambda: list(pool.map(add_tiles, [count] * threads))) for _ in range(BEST_OF)
        )
    return threads * count * height * width * (3 * taps**2 - taps) / best


def _rows(size: int, rows: list[tuple[str, int]], repeats: int) -> list[dict[str, Any]]:
    image, found = data.photograph(size), []
    for dtype, taps in rows:
        measure.progress("limits", f"{size}²", dtype, f"k = {taps}")
        source = image.astype(dtype)
        images = (source, np.ascontiguousarray(source[::-1, ::-1]), taps)
        calls = {
            str(workers): Call(engines.equations, (*images, "auto", None, workers))
            for workers in (1, fit.WORKERS)
        }
        row = {"size": size, "dtype": dtype, "taps": taps, "bytes": 2 * source.nbytes}
        row["multiply_adds"] = engines.multiply_adds(taps) * (size - taps + 1) ** 2
        row["direct"] = "integer" if dtype == "uint8" else "float"
        row["engine"] = fit.chosen_engine(*images)
        found.append(row | {"workers": engines.medians(calls, repeats)})
    return found


def fit_files(source: Path, result: Path, taps: int, engine: str) -> NDArray:
    """The fit of two mapped files."""
    images = (np.load(path, mmap_mode="r") for path in (source, result))
    return fit.exact_fit(*images, taps, fit.WORKERS, engine)


def _memory(image: NDArray, taps: int, folder: Path) -> list[dict[str, Any]]:
    """Peaks of one fit of arrays of both dtypes and of mapped files."""
    found, tiny = [], data.photograph(fit.TINY)
    for dtype, mapped in (("uint8", False), ("float32", False), ("float32", True)):
        measure.progress("limits: memory", f"{len(image)}²", dtype, f"k = {taps}")
        source = image.astype(dtype)
        engine = fit.chosen_engine(source, source, taps)
        calls = []
        for name, pixels in (("call", source), ("warm", tiny.astype(dtype))):
            pair = (pixels, np.roll(pixels, 1, axis=1))
            if mapped:
                paths = [folder / f"{name}-{i}.npy" for i in range(2)]
                for path, array in zip(paths, pair, strict=True):
                    np.save(path, array)
                calls.append(Call(fit_files, (*paths, taps, engine)))
            else:
                calls.append(Call(fit.exact_fit, (*pair, taps, fit.WORKERS, engine)))
        cell = {"size": len(image), "dtype": dtype, "taps": taps, "mapped": mapped}
        found.append(cell | measure.peak_memory(*calls, mapped=mapped))
    return found


def share_of_memory(result: dict[str, Any]) -> float:
    """The largest peak of a fit over what the documentation says it holds beside the images."""

    def most(cell: dict[str, Any]) -> float:
        taps, lines = cell["taps"] ** 2, 2 * cell["taps"] * 2 * cell["size"]
        return 16 * taps**2 + 48 * lines + result["workers"] * (3 * 2**20 + 6 * 2**10 * taps)

    return float(max(cell["peak"] / most(cell) for cell in result["memory"]))


_IMPORT = """
import time, numpy as np
start = time.perf_counter()
import fastkernel
"""
_FIRST_CALL = """
source = np.random.default_rng(0).integers(0, 256, (512, 512)).astype("{dtype}")
fastkernel.estimate_kernel(source, source, {taps})
"""
_TOLD = "print(time.perf_counter() - start)"


def _fresh(code: str, cache: Path) -> float:
    """Seconds that a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT + code + _TOLD],
        cwd=measure.ROOT,
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return float(done.stdout)


def _starts(count: int, first_calls: list[tuple[str, int]], folder: Path) -> list[dict[str, Any]]:
    """Seconds from after ``import numpy`` to the end of the import, or of the first fit."""
    works = {"import fastkernel": ""} | {
        f"first fit, 512² {dtype}, {taps}×{taps}": _FIRST_CALL.format(dtype=dtype, taps=taps)
        for dtype, taps in first_calls
    }
    found = []
    for number, (name, code) in enumerate(works.items()):
        measure.progress("limits:", name)
        caches = [folder / f"numba-{number}-{turn}" for turn in range(count)]
        ever = [_fresh(code, cache) for cache in caches]
        warm = [_fresh(code, cache) for cache in caches]
        found.append({"what": name, "empty cache": ever, "warm cache": warm})
    return found


def run(args: argparse.Namespace) -> dict[str, Any]:
    wanted = functools.partial(measure.wanted, args)
    repeats = wanted(REPEATS, QUICK_REPEATS, args.repeats)
    threads = sorted({1, fit.WORKERS})
    seconds = wanted(PEAK_SECONDS, QUICK_PEAK_SECONDS)
    measure.progress("limits: what the machine can do")
    result: dict[str, Any] = {
        "workers": fit.WORKERS,
        "bandwidth": {str(n): _bandwidth(wanted(READ, QUICK_READ), n) for n in threads},
        "peak": {
            name: {
                str(taps): _multiply_adds(name, taps, fit.WORKERS, seconds) for taps in PEAK_KERNELS
            }
            for name in DTYPES
        },
    }
    result["rows"] = [
        row
        for size in wanted(SIZES, QUICK_SIZES, args.sizes)
        for row in _rows(size, wanted(ROWS, QUICK_ROWS), repeats)
    ]
    sizes = wanted(MEMORY_SIZES, QUICK_MEMORY_SIZES)
    with tempfile.TemporaryDirectory() as folder:
        result["memory"] = [
            cell
            for image in map(data.photograph, sizes * args.memory)
            for taps in wanted(MEMORY_KERNELS, QUICK_MEMORY_KERNELS)
            for cell in _memory(image, taps, Path(folder))
        ]
        count, first_calls = wanted(STARTS, QUICK_STARTS), wanted(FIRST_CALLS, QUICK_FIRST_CALLS)
        result["starts"] = _starts(count, first_calls, Path(folder))
    return result


def bound(result: dict[str, Any], row: dict[str, Any]) -> float:
    """Seconds that a direct engine needs at least, on all workers."""
    bandwidth = max(result["bandwidth"][str(result["workers"])].values())
    peak = max(result["peak"][row["direct"]].values())
    return max(row["bytes"] / bandwidth, row["multiply_adds"] / peak)


def share_of_limit(result: dict[str, Any], row: dict[str, Any]) -> float:
    """Return by how much of its least time a fit's equations are gathered, 1 if in no more."""
    return float(bound(result, row) / row["workers"][str(result["workers"])]["median"])


def gain(result: dict[str, Any], row: dict[str, Any]) -> float:
    """How many times faster all workers are than one."""
    alone, together = (row["workers"][str(count)]["median"] for count in (1, result["workers"]))
    return float(alone / together)


def _threads(count: int | str) -> str:
    return "one thread" if int(count) == 1 else f"{count} threads"


def _machine(result: dict[str, Any]) -> str:
    lines = []
    for threads, passes in result["bandwidth"].items():
        number = report.figures(max(passes.values()) / 1e9)
        lines.append(f"- memory read by {_threads(threads)}: {number} GB/s")
    for engine, by_taps in result["peak"].items():
        number = report.figures(max(by_taps.values()) / 1e9)
        lines.append(
            f"- multiply-adds of {np.dtype(DTYPES[engine])} in cache, "
            f"{_threads(result['workers'])}: {number} thousand million a second"
        )
    return "\n".join(lines)


def _roofline(result: dict[str, Any]) -> str:
    many = str(result["workers"])
    header = ["images, kernel", "engine", "ms", "least for a direct engine, ms", "share of limit"]
    header += ["one worker, ms", f"{many} workers faster by"]
    rows = []
    for row in result["rows"]:
        reached, alone = (row["workers"][workers]["median"] for workers in (many, "1"))
        least = bound(result, row)
        times = [report.figures(1e3 * value) for value in (reached, least)]
        share = f"{100 * share_of_limit(result, row):.0f} %"
        last = [report.figures(1e3 * alone), f"{report.figures(gain(result, row))}×"]
        rows.append([fit.label(row), row["engine"], *times, share, *last])
    return report.table(header, rows)


def _peaks(result: dict[str, Any]) -> str:
    kinds: dict[str, dict[int, int]] = {}
    for cell in result["memory"]:
        mapped = ", mapped file" if cell["mapped"] else ""
        name = f"{cell['dtype']}{mapped}, {cell['taps']}×{cell['taps']}"
        kinds.setdefault(name, {})[cell["size"]] = cell["peak"]
    sizes = sorted({cell["size"] for cell in result["memory"]})
    header = ["images, kernel", *(f"{size}²" for size in sizes)]
    rows = [
        [name, *(report.mebibytes(peaks.get(size)) for size in sizes)]
        for name, peaks in kinds.items()
    ]
    told = (
        f"At most {report.figures(share_of_memory(result))} of what the documentation says is held."
    )
    return f"{report.table(header, rows)}\n\n{told}"


def _first_calls(result: dict[str, Any]) -> str:
    rows = []
    for start in result["starts"]:
        times = (start["empty cache"], start["warm cache"])
        rows.append(
            [start["what"], *(report.figures(1e3 * statistics.median(part)) for part in times)]
        )
    return report.table(["in a fresh process", "cache empty, ms", "cache warm, ms"], rows)


def tables(result: dict[str, Any]) -> str:
    parts = {
        "## Limits": _machine(result),
        "### Time, beside the least that a direct engine needs": _roofline(result),
        "### Peak memory of a fit beyond the inputs, MiB": _peaks(result),
        "### First call and import, over `import numpy`": _first_calls(result),
    }
    if not result["memory"]:
        del parts["### Peak memory of a fit beyond the inputs, MiB"]
    return "\n\n".join(f"{title}\n\n{text}" for title, text in parts.items())


def readme(result: dict[str, Any]) -> str:
    memory = f"{_peaks(result)}\n\n" if result["memory"] else ""
    return f"{_machine(result)}\n\n{_roofline(result)}\n\n{memory}{_first_calls(result)}\n\n"
