"""Interleaved timing, peak memory in a fresh process, and the machine it was done on."""

import argparse
import datetime as dt
import gc
import importlib.metadata
import math
import os
import pickle
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]
SECONDS_TIMED = 0.01  # a shorter call is repeated until about this much time has passed
SECONDS_EACH = 4.0  # a slow contender stops repeating near this, but not before three repeats
VERSIONS = ["numpy", "scipy", "numba", "llvmlite", "pyfftw", "scikit-image", "fastkernel"]


def wanted(args: argparse.Namespace, full: T, quick: T, asked: T | None = None) -> T:
    """Return what a run was asked for, or a suite's own choice."""
    return asked if asked is not None else quick if args.quick else full


class Call(NamedTuple):
    """A function and its arguments, importable and picklable: a child process repeats it."""

    function: Callable[..., Any]
    args: tuple

    def __call__(self) -> Any:
        return self.function(*self.args)


def _seconds(call: Call, number: int = 1) -> float:
    """Seconds a call, over ``number`` calls in a row after one that warms the caches again."""
    gc.collect()
    gc.disable()
    try:
        if number > 1:
            call()
        start = time.perf_counter()
        for _ in range(number):
            answer = call()
        seconds = (time.perf_counter() - start) / number
        del answer  # kept until here: giving its pages back is not part of the work
    finally:
        gc.enable()
    return seconds


def interleaved(calls: dict[str, Call], repeats: int) -> dict[str, list[float]]:
    """Time warm calls in turns, A B C A B C, so that all meet the same weather.

    An untimed round tells how long each takes. Short calls are then timed several in a row, and a
    slow contender sits out rounds, evenly.
    """
    firsts = {name: max(_seconds(call), 1e-9) for name, call in calls.items()}
    numbers = {name: max(1, int(SECONDS_TIMED / first)) for name, first in firsts.items()}
    counts = {
        name: min(repeats, max(3, math.ceil(SECONDS_EACH / first)))
        for name, first in firsts.items()
    }
    times = {name: [_seconds(call, numbers[name])] for name, call in calls.items()}
    for turn in range(1, repeats):
        for name, call in calls.items():
            count = counts[name] - 1
            if turn * count // (repeats - 1) > (turn - 1) * count // (repeats - 1):
                times[name].append(_seconds(call, numbers[name]))
    return times


def peak_memory(call: Call, warm: Call, mapped: bool = False) -> dict[str, int]:
    """Bytes that one call needs beyond its arguments, measured in a fresh process.

    ``warm`` is the same call on a tiny input, made first, so that imports and compilation are
    paid. What it leaves behind (code, pools) is told as ``held``, the rise of the measured call
    over it as ``peak``. Pages of mapped files, which the system may drop at any time, do not
    count where ``mapped``.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "call.pickle")
        with path.open("wb") as file:
            pickle.dump((call, warm, mapped), file, protocol=5)
        done = subprocess.run(
            [sys.executable, "-m", "bench.measure", str(path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
    held, peak = map(int, done.stdout.split()[-2:])
    return {"held": held, "peak": peak}


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def resident() -> int:
    return psutil.Process().memory_info().rss


def _resident_without_files() -> int:
    try:
        return _status("RssAnon")
    except (OSError, LookupError):
        return psutil.Process().memory_full_info().uss


def _rise_of_high_water(call: Callable[[], Any]) -> int:
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls to what is resident
    before = _status("VmHWM")
    call()
    return _status("VmHWM") - before


def _rise_of_samples(call: Callable[[], Any], used: Callable[[], int]) -> int:
    stop, before = threading.Event(), used()
    highest = before

    def watch() -> None:
        nonlocal highest
        while not stop.wait(0.001):
            highest = max(highest, used())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        answer = call()
        highest = max(highest, used())  # a call may never let go of the GIL
        del answer
    finally:
        stop.set()
        thread.join()
    return highest - before


def rise(call: Callable[[], Any]) -> int:
    """Return by how many bytes a call raises this process's peak of resident memory."""
    try:
        return _rise_of_high_water(call)
    except (OSError, LookupError):
        return _rise_of_samples(call, resident)


def rise_without_files(call: Callable[[], Any]) -> int:
    """Return by how many bytes a call raises what of this process is no mapped file."""
    return _rise_of_samples(call, _resident_without_files)


def _child(path: str) -> None:
    with Path(path).open("rb") as file:
        call, warm, mapped = pickle.load(file)
    before = resident()
    warm()
    gc.collect()
    held = resident() - before
    peak = (rise_without_files if mapped else rise)(call)
    print(max(held, 0), max(peak, 0))


def usable_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    if sys.platform == "darwin":
        brand = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(brand, capture_output=True, text=True, check=False).stdout.strip()
    return platform.processor() or platform.machine()


def _caches() -> list[str]:
    folders = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"))
    texts = [[(f / n).read_text().strip() for n in ("level", "type", "size")] for f in folders]
    return [f"L{level} {kind.lower()} {size}" for level, kind, size in texts]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _operating_system() -> str:
    release = re.match(r"\d+(\.\d+)?", platform.release())
    name = f"{platform.system()} {release[0] if release else ''}".strip()
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {name}"
    except (OSError, KeyError):
        return name


def environment() -> dict[str, Any]:
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "caches": _caches(),
        "ram_bytes": psutil.virtual_memory().total,
        "os": _operating_system(),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in VERSIONS},
        },
    }


def progress(*texts: str) -> None:
    print("bench:", *texts, file=sys.stderr, flush=True)


if __name__ == "__main__":
    _child(sys.argv[1])
