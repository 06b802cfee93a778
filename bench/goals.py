"""What fits are meant to reach, beside what the latest runs of the other suites reached.

Measures nothing itself: ``fit``, ``engines``, ``limits`` and ``peers`` are to be run before.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

from . import engines, fit, report

SFFT, GWYDDION = "SFFT on the CPU", "Gwyddion, windowed"

# What stands between a goal and what is reached, where that is known.
REASONS = {
    "256² uint8, 5×5: times the NumPy recipe": (
        "arithmetic takes a quarter of the call and reading a tenth; the rest is about thirty "
        "small calls from Python, a few microseconds each, more where caches are cold"
    ),
    "4096² float32, 9×9: over scipy.fft.rfft2": (
        "226 multiply-adds a pixel; the share of the limit is in the table of `limits`"
    ),
    "4096² float32, 31×31: over scipy.fft.rfft2": (
        "three transforms of rows, 7 ns a pixel and worker in cache, and 124 multiply-adds of "
        "their spectra a pixel, where the yardstick has one transform"
    ),
    "2 workers over 1": (
        "of small kernels, a fifth of one worker's time is Python between tiles, which one "
        "thread runs at a time"
    ),
    "first fit, 512² float32, 31×31, warm cache, s": (
        "Numba and pyFFTW take two thirds of it to be imported, before anything of this library is"
    ),
    "4096² float32, 15×15: times SFFT": "SFFT took 19 s where the goal was set, and less here",
    "4096² float32, 15×15: times Gwyddion": "Gwyddion took up to 1.5 s there, and less here",
}


def _cells(result: dict[str, Any]) -> dict[tuple[int, str, int], dict[str, Any]]:
    return {
        (cell["size"], cell["dtype"], cell["taps"]): cell["contenders"] for cell in result["cells"]
    }


def _ratio(contenders: dict[str, Any], top: str, bottom: str) -> float:
    return float(contenders[top]["median"] / contenders[bottom]["median"])


def _fits(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cells = _cells(result)
    for size, goal in ((4096, 40.0), (256, 8.0)):
        name = f"{size}² uint8, 5×5: times the NumPy recipe"
        yield _least(name, goal, _ratio(cells[size, "uint8", 5], fit.NUMPY, fit.OURS))
    for taps, goal in ((5, 0.6), (9, 1.2)):
        name = f"4096² float32, {taps}×{taps}: over scipy.fft.rfft2"
        yield _most(name, goal, _ratio(cells[4096, "float32", taps], fit.OURS, fit.YARDSTICK))


def _engines(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    reference = next(
        row["contenders"]
        for row in result["references"]
        if (row["size"], row["dtype"]) == (4096, "float32")
    )
    ours = _cells(result)[4096, "float32", 31]["auto"]
    ratio = ours["median"] / reference[fit.YARDSTICK]["median"]
    yield _most("4096² float32, 31×31: over scipy.fft.rfft2", 1.5, ratio)
    losses = [engines.loss_of(cell)[1] for cell in result["cells"]]
    yield _most("loss by the choice of engine", 1.25, max(losses))


def _limits(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for size, taps, goal in ((8192, 31, 64.0),):
        peaks = [
            cell["peak"] / 2**20
            for cell in result["memory"]
            if (cell["size"], cell["taps"]) == (size, taps)
        ]
        yield _most(f"{size}², {taps}×{taps}: MiB beyond the inputs", goal, max(peaks))
    gains = [
        row["workers"]["1"]["median"] / row["workers"][str(fit.WORKERS)]["median"]
        for row in result["rows"]
    ]
    yield _least(f"{fit.WORKERS} workers over 1", 1.8, min(gains))
    for row in result["starts"]:
        cold, warm = (sorted(row[cache]) for cache in ("empty cache", "warm cache"))
        if row["what"].startswith("import"):
            yield _most("import, ms over NumPy", 60, 1e3 * warm[len(warm) // 2])
        else:
            yield _most(f"{row['what']}, warm cache, s", 0.6, warm[len(warm) // 2])
            yield _most(f"{row['what']}, empty cache, s", 5.0, cold[len(cold) // 2])


def _peers(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    contenders = _cells(result)[4096, "float32", 15]
    for peer, goal in ((SFFT, 150.0), (GWYDDION, 10.0)):
        found = next((name for name in contenders if name.startswith(peer)), None)
        if found and "median" in contenders[found]:
            name = f"4096² float32, 15×15: times {peer.split(',')[0].split()[0]}"
            yield _least(name, goal, _ratio(contenders, found, fit.OURS))
    yield _most("4096² float32, 15×15: error", 1e-6, contenders[fit.OURS]["error"])


def _row(name: str, sign: str, goal: float, reached: float, kept: bool) -> dict[str, Any]:
    return {"name": name, "goal": f"{sign} {goal:g}", "reached": reached, "kept": kept}


def _least(name: str, goal: float, reached: float) -> dict[str, Any]:
    return _row(name, "≥", goal, reached, reached >= goal)


def _most(name: str, goal: float, reached: float) -> dict[str, Any]:
    return _row(name, "≤", goal, reached, reached <= goal)


SOURCES: dict[str, Callable[[dict[str, Any]], Iterator[dict[str, Any]]]] = {
    "fit": _fits,
    "engines": _engines,
    "limits": _limits,
    "peers": _peers,
}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Read the other suites' results, which must be of full runs."""
    rows: list[dict[str, Any]] = []
    if args.quick:  # whose results have other sizes
        return {"rows": rows}
    for suite, read in SOURCES.items():
        rows += list(read(report.load(args.output, suite)))
    return {"rows": rows}


def tables(result: dict[str, Any]) -> str:
    """Markdown: goals, what was reached, and what stands between."""
    rows = [
        [
            row["name"],
            row["goal"],
            f"{row['reached']:.3g}",
            "yes" if row["kept"] else "no",
        ]
        for row in result["rows"]
    ]
    missed = [row["name"] for row in result["rows"] if not row["kept"]]
    reasons = [f"- {name}: {REASONS.get(name, 'not known')}." for name in missed]
    parts = [report.table(["what", "goal", "reached", "kept"], rows)]
    if reasons:
        parts.append("What stands between:\n\n" + "\n".join(reasons))
    return "\n\n".join(parts)


readme = tables
