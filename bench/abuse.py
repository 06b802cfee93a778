"""Calls that are interrupted, forked beside, starved, fed damaged files and asked at the edge.

Every trial counts how many ended as they should; nothing is timed but how soon Ctrl-C is heard.
Whatever may hang or crash runs in processes of its own, with a time limit.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastkernel
from fastkernel.estimation.errors import SingularFitError

from . import abuse_children, report

EPS = float(np.finfo(np.float64).eps)

# Seconds that a child has, and how many run at a time.
PATIENCE, AT_ONCE = 120, 2


def _command(name: str, *args: Any) -> list[str]:
    """What starts a child."""
    return [sys.executable, "-W", "ignore", "-m", "bench.abuse_children", name, *map(str, args)]


def child(
    name: str, *args: Any, env: dict[str, str] | None = None, patience: float = PATIENCE
) -> tuple[int | str, str]:
    """Run a child of `abuse_children` to its end: how it ended, and what it printed last."""
    try:
        done = subprocess.run(
            _command(name, *args),
            capture_output=True,
            text=True,
            timeout=patience,
            check=False,
            env={**os.environ, **(env or {})},
        )
    except subprocess.TimeoutExpired:
        return "hung", ""
    lines = done.stdout.strip().splitlines()
    return done.returncode, lines[-1] if lines else done.stderr.strip()[-200:]


def _counted(what: str, ends: list[tuple[int | str, str]]) -> dict[str, Any]:
    """A row of trials that each printed "right", or did not."""
    right = sum(end == (0, "right") for end in ends)
    others = sorted({f"{code}: {told}" for code, told in ends if (code, told) != (0, "right")})
    row = {"what": what, "goal": f"{len(ends)} of {len(ends)}", "kept": right == len(ends)}
    return row | {"reached": f"{right} of {len(ends)}", "others": others}


def _at_most(what: str, goal: float, reached: float) -> dict[str, Any]:
    found = {"what": what, "goal": f"≤ {goal:.3g}", "reached": f"{reached:.3g}"}
    return found | {"kept": reached <= goal, "others": []}


def first_calls(n: int) -> Iterator[dict[str, Any]]:
    """Ctrl-C at random times of a first call, loops in the cache or still to be compiled."""
    rng = random.Random(0)

    def pressed(delay: float, cache: str | None) -> tuple[int | str, str]:
        env = os.environ | ({"NUMBA_CACHE_DIR": cache} if cache else {})
        with subprocess.Popen(
            _command("first_call"), stdout=-1, stderr=-1, text=True, env=env
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            try:
                told, errors = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                return "hung", ""
        lines = (told or errors).strip().splitlines()
        return process.returncode, lines[-1] if lines else ""

    with ThreadPoolExecutor(AT_ONCE) as pool:
        delays = [1.2 * rng.random() for _ in range(n // 2)]
        yield _counted(
            "first calls interrupted, loops cached", [*pool.map(pressed, delays, [None] * n)]
        )
    with ThreadPoolExecutor(AT_ONCE) as pool, tempfile.TemporaryDirectory() as folder:
        caches = [str(Path(folder) / str(i)) for i in range(n - n // 2)]
        delays = [4 * rng.random() for _ in caches]
        yield _counted(
            "first calls interrupted, loops to compile", [*pool.map(pressed, delays, caches)]
        )


def forks(n: int) -> Iterator[dict[str, Any]]:
    """Children forked beside threads that compute, plan transforms, import or compile."""
    for what, share in (("convolve", 0.5), ("inverse", 0.3), ("first", 0.2)):
        count = max(1, round(n * share))
        # A process has one first call: a few children each.
        runs = [count] if what != "first" else [5] * (count // 5 or 1)
        ends = [child("forks", what, many) for many in runs]
        yield _counted(f"{sum(runs)} forks beside {what}, runs", ends)


def presses(n: int) -> Iterator[dict[str, Any]]:
    """How soon Ctrl-C ends calls that take long, pressed by another process."""
    rng, every = random.Random(1), []
    for what in abuse_children.LONG:
        late = []
        with subprocess.Popen(_command("long", what, n), stdout=-1, text=True) as process:
            assert process.stdout is not None
            for _ in range(n):
                process.stdout.readline()
                time.sleep(0.05 + (10 if what == "inverse" else 1) * rng.random())
                pressed = time.time()
                process.send_signal(signal.SIGINT)
                late.append(float(process.stdout.readline()) - pressed)
        yield _at_most(f"Ctrl-C ends `{what}` after, at worst, s", 1, max(late))
        every += late
    yield _at_most(
        "Ctrl-C ends them after, 95 of 100, s", 0.25, sorted(every)[int(0.95 * len(every))]
    )


def damaged_files(n: int) -> Iterator[dict[str, Any]]:
    """Images and equations with bits flipped, cut short, or with other numbers in the header."""
    for what in ("png", "tif", "npy", "equations"):
        size = max(min(25, n), n // 80)
        batches = max(1, n // 4 // size)
        ends = [child("damaged", what, seed, size) for seed in range(batches)]
        yield _counted(f"{batches * size} damaged files, {what}, by batches", ends)


def _convolved(image: NDArray, kernel: NDArray) -> NDArray:
    """A periodic convolution, in more digits than float64 has, rounded at the end."""
    wide, (p, q) = image.astype(np.longdouble), kernel.shape
    moves = ((i, j, (i - p // 2, j - q // 2)) for i, j in np.ndindex(p, q))
    return np.asarray(sum(kernel[i, j] * np.roll(wide, by, (0, 1)) for i, j, by in moves), float)


def conditions(n: int) -> Iterator[dict[str, Any]]:
    """Errors of kernels and of images over what the condition of their equations allows."""
    rng, worst, refused, highest = np.random.default_rng(3), 0.0, 0, 0.0
    rows, cols = np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)
    for strength in np.linspace(0, 60, n):
        # The smoother the source, the nearer to each other are the shifts of it.
        spectrum = np.fft.rfft2(rng.normal(size=(64, 64))) * np.exp(-strength * (rows**2 + cols**2))
        source, kernel = np.fft.irfft2(spectrum, (64, 64)), rng.random((5, 5))
        try:
            fit = fastkernel.estimate_kernel(
                source, _convolved(source, kernel), 5, boundary="circular"
            )
        except SingularFitError:
            refused += 1
            continue
        condition = float(np.sqrt(fit.condition_number))
        error = np.linalg.norm(fit.kernel - kernel) / np.linalg.norm(kernel)
        worst, highest = max(worst, float(error / (EPS * condition))), max(highest, condition)
    what = f"error of a kernel over eps times condition, up to {highest:.0e}, {refused} refused"
    yield _at_most(what, 10, worst)
    worst = 0.0
    for condition in np.logspace(0, 14, n):
        side = (1 - 1 / condition) / 4
        psf, image = np.array([[side, 1 - 2 * side, side]]), rng.normal(size=(64, 64))
        found = fastkernel.inverse_filter(_convolved(image, psf), psf, 0)
        error = np.linalg.norm(found - image) / np.linalg.norm(image)
        worst = max(worst, float(error / (EPS * condition)))
    yield _at_most("error of inverse_filter over eps times condition, up to 1e14", 10, worst)


def accuracy(n: int) -> Iterator[dict[str, Any]]:
    """Errors of convolutions of random shapes, in the norm, against sums in more digits."""
    for dtype, finer, goal in (("float32", "float64", 6e-7), ("float64", "longdouble", 1.5e-15)):
        rng, worst = np.random.default_rng(2), 0.0
        for _ in range(n):
            image = rng.normal(size=rng.integers(1, 65, 2)).astype(dtype)
            kernel = rng.normal(size=rng.integers(1, 10, 2)).astype(dtype)
            (m, p), (k, q) = image.shape, kernel.shape
            true = np.zeros((m + k - 1, p + q - 1), finer)
            for i, j in np.ndindex(k, q):
                true[i : i + m, j : j + p] += image.astype(finer) * kernel[i, j].astype(finer)
            for method in ("direct", "fft"):
                off = fastkernel.convolve(image, kernel, method=method) - true
                size = np.linalg.norm(true.astype(np.float64))
                worst = max(worst, float(np.linalg.norm(off.astype(np.float64)) / size))
        yield _at_most(f"error of convolve in the norm, {dtype}, {n} shapes", goal, worst)


def threads(n: int) -> Iterator[dict[str, Any]]:
    """Mixed calls from eight threads at once, the same bits as from one."""
    yield _counted(f"8 threads, {n} mixed calls each, to the bit", [child("threads", n)])


def soak(n: int) -> Iterator[dict[str, Any]]:
    """The same for a time, without more and more memory."""
    ends = [child("soak", n, patience=n + PATIENCE)]
    yield _counted(f"8 threads, mixed calls for {n} s, to the bit, no memory lost", ends)


def memory(n: int) -> Iterator[dict[str, Any]]:
    """Calls in address spaces of growing size: an answer or an error, and the next is right."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ends = [*pool.map(lambda level: child("memory", 8 * level), range(1, n + 1))]
    yield _counted(f"calls with 8 to {8 * n} MiB left, and the next", ends)


def large(n: int) -> Iterator[dict[str, Any]]:
    """An image of more than 2**32 pixels, mapped from a sparse file."""
    side = 65537 if n > 1 else 5000
    yield _counted(
        f"the sums of a mapped file of {side}² pixels, within 200 MB", [child("large", side)]
    )


def caches(n: int) -> Iterator[dict[str, Any]]:
    """Eight processes that start at once, with an empty cache between them."""
    ends = []
    for _ in range(n):
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(8) as pool:
            env = {"NUMBA_CACHE_DIR": folder}
            ends += pool.map(lambda _, env=env: child("cold", env=env), range(8))
    yield _counted("8 processes that share an empty cache", ends)


class Counts(NamedTuple):
    """How many of a trial there are: of a run, of a quick one, and of one that lasts a night."""

    full: int
    quick: int
    nightly: int


TRIALS: dict[Callable[[int], Iterator[dict[str, Any]]], Counts] = {
    first_calls: Counts(150, 2, 150),
    forks: Counts(300, 10, 300),
    presses: Counts(20, 1, 20),
    damaged_files: Counts(2000, 100, 20_000),
    conditions: Counts(141, 5, 141),
    accuracy: Counts(2000, 20, 2000),
    threads: Counts(200, 5, 200),
    soak: Counts(60, 2, 1800),
    memory: Counts(20, 2, 20),
    large: Counts(2, 1, 2),
    caches: Counts(5, 1, 20),
}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Make every trial."""
    rows = []
    for trial, counts in TRIALS.items():
        n = counts.quick if args.quick else counts.nightly if args.nightly else counts.full
        for row in trial(n):
            print(f"{row['what']}: {row['reached']}", *row["others"], sep="\n  ", file=sys.stderr)
            rows.append(row)
    return {"rows": rows}


def tables(result: dict[str, Any]) -> str:
    """Markdown: what was tried, what was asked for and what was reached."""
    rows = [
        [row["what"], row["goal"], row["reached"], "yes" if row["kept"] else "no"]
        for row in result["rows"]
    ]
    ends = [
        f"- {row['what']}: {'; '.join(row['others'])}" for row in result["rows"] if row["others"]
    ]
    parts = [report.table(["what", "goal", "reached", "kept"], rows)]
    return "\n\n".join([*parts, *(["Other ends:\n\n" + "\n".join(ends)] if ends else [])])


readme = tables
