"""What the library is meant to reach, beside what the latest runs of the other suites reached.

Measures nothing itself: the suites of ``SOURCES`` are to be run before.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

from . import command, company, convolve, engines, fit, limits, report, restoration, whole

Row = dict[str, Any]

SFFT, GWYDDION = "SFFT on the CPU", "Gwyddion, windowed"

SHARES = [("uint8", 3), ("uint8", 5), ("float32", 3), ("float32", 5)]
GAINS = [("uint8", 3), ("uint8", 5), ("uint8", 9)]
GAINS += [("float32", 3), ("float32", 5), ("float32", 9), ("float32", 31)]
# Seconds of the first fit, with a warm cache and with an empty one.
FIRST_FITS = {"first fit, 512² float32, 5×5": (0.4, 2.0)}
OTHER_FIRST_FITS = (0.6, 5.0)

_NUMBA = "Numba takes 0.5 s to be imported and 0.4 s for what it knows of types, before any loop"
_COMPILED = "four loops are compiled, which takes 3.5 s of it"
_SHARED = (
    "a worker's sums take 10 to 20 % longer when two work, and 2 to 3 ms are done by one; 1.3 to "
    "2.0 in the runs of two days"
)

_SMALL_GCV = (
    "with a number it is faster, see its table; a third of the search for a balance looks for what "
    "the image was stored with, steps and the blocks of JPEG, the rest is some 300 calls"
)
_MARGINS = (
    "six arrays of a torus with margins of two PSFs, a ninth larger than the image, and what rows "
    "and columns are transformed in"
)

_SMALL_SEPARABLE = (
    "of 180 µs compiled loops take 70, as much as all of OpenCV's, the rest are calls from Python "
    "and the search for the two factors"
)

# What stands between a goal and what is reached, where that is known.
REASONS = {
    "4096² float32, 9×9: over scipy.fft.rfft2": (
        "226 multiply-adds a pixel; the share of the limit is in the table of `limits`"
    ),
    "4096² float32, 31×31: over scipy.fft.rfft2": (
        "three transforms of rows, where the yardstick has one transform of both axes, and 124 "
        "multiply-adds of their spectra a pixel, which alone take half of the goal here; "
        "transforms down the columns too were tried, and are no faster below 61×61"
    ),
    "4096² uint8, 3×3: share of the limit, %": (
        "on a machine of half the speed, of 18 ms of one worker products took 10, casts to 16 bits "
        "4, the squares of the result 2, and Python with the rim 3"
    ),
    "4096² uint8, 5×5: share of the limit, %": "as of 3×3",
    "4096² float32, 3×3: share of the limit, %": (
        "as of uint8; a tile of both images takes 1 MiB in float64, as much as a second cache has"
    ),
    "first fit, 512² uint8, 5×5, warm cache, s": _NUMBA,
    "first fit, 512² float32, 5×5, warm cache, s": _NUMBA,
    "first fit, 512² float32, 31×31, warm cache, s": _NUMBA,
    "first fit, 512² uint8, 5×5, empty cache, s": _COMPILED,
    "first fit, 512² float32, 5×5, empty cache, s": _COMPILED,
    "first fit, 512² float32, 31×31, empty cache, s": (
        "half of it is the loop that transforms and correlates rows, whose passes are compiled for "
        "every radix; with a cache it starts sooner than FFTW did"
    ),
    "4096² uint8, 3×3: 2 workers over 1": _SHARED,
    "4096² uint8, 5×5: 2 workers over 1": _SHARED,
    "4096² uint8, 9×9: 2 workers over 1": _SHARED,
    "4096² float32, 3×3: 2 workers over 1": _SHARED,
    "4096² float32, 9×9: 2 workers over 1": _SHARED,
    "4096² float32, 31×31: 2 workers over 1": _SHARED,
    "4096² float32, 31×31, beside 2 busy processes: over scipy.fft.rfft2": (
        "nothing is lost in company: alone it is a larger multiple, see the row of 31×31"
    ),
    "wiener: over its transforms": (
        "a small image is transformed on one thread, where the yardstick has two; why single rows "
        "of larger ones take 1.3 to 1.7 in some runs is not known"
    ),
    "inverse_filter: over its transforms": "as of wiener",
    "convolve 9×9 on 256²: times cv2.filter2D": (
        "0.9 to 1.0: of 185 µs a compiled loop takes 110, the rest are calls from Python"
    ),
    "convolve 9×9 on 256²: times cv2.sepFilter2D": _SMALL_SEPARABLE,
    "convolve by columns and rows: times cv2.sepFilter2D": (
        f"at 4096² and 8192² 1.1 to 7.7 times; at 1024² 0.5 to 0.95, where a second thread gains "
        f"little; at 256²: {_SMALL_SEPARABLE}"
    ),
    "estimate, 5×5 of 12000² files: MiB beyond images and start": (
        "24, 64 and 80 in three runs; why they differ is not known"
    ),
    "estimate, 512² PNG, 5×5, whole process, s": (
        "as the first fit; and Pillow, and the loops that look for sRGB and measure the residual"
    ),
    "richardson_lucy, 2048² float64, 15×15 skew: times scikit-image an iteration": (
        "tiles of twice the bytes of float32, beside a second-level cache of half a megabyte"
    ),
    "wiener, 64² float32, gcv: over scikit-image's with a number": _SMALL_GCV,
    "wiener, 64² float64, gcv: over scikit-image's with a number": _SMALL_GCV,
    "wiener, 1024² float32, unknown border: memory, images": _MARGINS,
    "wiener, 1024² float64, unknown border: memory, images": _MARGINS,
    "method fft: over its transforms": (
        "float32 images are transformed in float64, as the answer is; the noise is taken from a "
        "quarter of all columns, transformed once more, and the residual of the cropped kernel is "
        "a convolution"
    ),
    "4096² float32, 15×15: times SFFT": "SFFT took 19 s where the goal was set, and less here",
    "4096² float32, 15×15: times Gwyddion": "Gwyddion took up to 1.5 s there, and less here",
}


def _all(rows: list[Row], **named: Any) -> list[Row]:
    """The rows that have these values; an older run may lack them."""
    found = [row for row in rows if all(row[key] == value for key, value in named.items())]
    if not found:
        raise KeyError(", ".join(f"{key} {value}" for key, value in named.items()))
    return found


def _one(rows: list[Row], **named: Any) -> Row:
    return _all(rows, **named)[0]


def _cell(result: Row, size: int, dtype: str, taps: int) -> Row:
    return _one(result["cells"], size=size, dtype=dtype, taps=taps)["contenders"]


def _ratio(contenders: Row, top: str, bottom: str) -> float:
    return float(contenders[top]["median"] / contenders[bottom]["median"])


def _fits(result: Row) -> Iterator[Row]:
    for size, goal in ((4096, 40.0), (256, 8.0)):
        name = f"{size}² uint8, 5×5: times the NumPy recipe"
        yield _least(name, goal, _ratio(_cell(result, size, "uint8", 5), fit.NUMPY, fit.OURS))
    for taps, goal in ((5, 0.6), (9, 1.2)):
        name = f"4096² float32, {taps}×{taps}: over scipy.fft.rfft2"
        cell = _cell(result, 4096, "float32", taps)
        yield _most(name, goal, _ratio(cell, fit.OURS, fit.YARDSTICK))


def _engines(result: Row) -> Iterator[Row]:
    reference = _one(result["references"], size=4096, dtype="float32")["contenders"]
    ours = _cell(result, 4096, "float32", 31)["auto"]
    ratio = ours["median"] / reference[fit.YARDSTICK]["median"]
    yield _most("4096² float32, 31×31: over scipy.fft.rfft2", 0.8, ratio)
    losses = [engines.loss_of(cell)[1] for cell in result["cells"]]
    yield _most("loss by the choice of engine", 1.25, max(losses))


def _limits(result: Row) -> Iterator[Row]:
    rows = {
        (dtype, taps): _one(result["rows"], size=4096, dtype=dtype, taps=taps)
        for dtype, taps in dict.fromkeys(SHARES + GAINS)
    }
    for row in map(rows.__getitem__, SHARES):
        share = 100 * limits.share_of_limit(result, row)
        yield _least(f"{fit.label(row)}: share of the limit, %", 50, share)
    for row in map(rows.__getitem__, GAINS):
        name = f"{fit.label(row)}: {result['workers']} workers over 1"
        yield _least(name, 1.8, limits.gain(result, row))
    peaks = [cell["peak"] / 2**20 for cell in _all(result["memory"], size=8192, taps=31)]
    yield _most("8192², 31×31: MiB beyond the inputs", 64, max(peaks))
    share = limits.share_of_memory(result)
    yield _most("memory of fits over what the documentation says", 1.15, share)
    for row in result["starts"]:
        cold, warm = (sorted(row[cache]) for cache in ("empty cache", "warm cache"))
        if row["what"].startswith("import"):
            yield _most("import, ms over NumPy", 60, 1e3 * warm[len(warm) // 2])
            continue
        soon, late = FIRST_FITS.get(row["what"], OTHER_FIRST_FITS)
        yield _most(f"{row['what']}, warm cache, s", soon, warm[len(warm) // 2])
        yield _most(f"{row['what']}, empty cache, s", late, cold[len(cold) // 2])


def _company(result: Row) -> Iterator[Row]:
    row = _one(result["rows"], what="4096² float32, 31×31")
    name = f"{row['what']}, beside {result['others']} busy processes: over scipy.fft.rfft2"
    yield _most(name, 1.4, company.ratio(result, row, "beside"))


def _command(result: Row) -> Iterator[Row]:
    for row in result["times"]:
        yield _most(f"{row['what']}, whole process, s", 0.6, row["median"])
    size = command.LARGE
    row = _one(result["memory"], size=size)
    name = f"{row['what']} of {size}² files: MiB beyond images and start"
    yield _most(name, 64, row["beyond"] / 2**20)
    row = _one(result["restore"], size=size)
    took = f"in {report.figures(row['seconds'])} s"
    name = f"restore of a {size}² file, unknown border: peak, GB"
    yield _most(name, 2, row["peak"] / 1e9, took)


def _convolve(result: Row) -> Iterator[Row]:
    cells = result["cells"]
    for kind, theirs in (("random", convolve.FILTER_2D), ("separable", convolve.SEP_FILTER_2D)):
        cell = _one(cells, size=256, taps=9, kind=kind)["contenders"]
        yield _least(f"convolve 9×9 on 256²: times {theirs}", 1, cell[theirs]["ratio"])
    for size in convolve.OTHER_SIZES:
        for taps, kind in convolve.other_kernels(size):
            _one(cells, size=size, taps=taps, kind=kind)
    ratios = {
        convolve.label(cell): cell["contenders"][convolve.SEP_FILTER_2D]["ratio"]
        for cell in _all(cells, kind="separable")
        if "slow" not in cell["contenders"][convolve.SEP_FILTER_2D]
    }
    worst = min(ratios, key=ratios.__getitem__)
    name = f"convolve by columns and rows: times {convolve.SEP_FILTER_2D}"
    yield _least(name, 1, ratios[worst], f"at worst, {worst}")


def _restoration(result: Row) -> Iterator[Row]:
    for dtype in restoration.DTYPES:
        row = _one(result["iterations"], size=2048, dtype=dtype, psf="skew")
        name = f"richardson_lucy, 2048² {dtype}, 15×15 skew: times scikit-image an iteration"
        yield _least(name, 15, row["seconds"]["skimage"] / row["seconds"]["plain"])
    for dtype in restoration.DTYPES:
        cell = _one(result["filters"], size=64, dtype=dtype)["contenders"]
        name = f"wiener, 64² {dtype}, gcv: over scikit-image's with a number"
        yield _most(name, 1, _ratio(cell, "wiener, gcv", "skimage wiener, a number"))
    for dtype in restoration.DTYPES:
        row = _one(result["unknown"], size=1024, dtype=dtype)
        name = f"wiener, 1024² {dtype}, unknown border"
        yield _most(f"{name}: over symmetric", 20, restoration.times_longer(row))
        yield _most(f"{name}: memory, images", 6, restoration.images_held(row))


def _whole(result: Row) -> Iterator[Row]:
    for size, dtype in itertools.product(whole.SIZES, whole.DTYPES):
        _one(result["rows"], size=size, dtype=dtype)
    for method in whole.METHODS:
        row = max(_all(result["rows"], method=method), key=whole.ratio)
        worst = f"at worst, {whole.label(row)}"
        yield _most(f"{method}: over its transforms", 1.3, whole.ratio(row), worst)


def _peers(result: Row) -> Iterator[Row]:
    contenders = _cell(result, 4096, "float32", 15)
    for peer, goal in ((SFFT, 150.0), (GWYDDION, 10.0)):
        found = next((name for name in contenders if name.startswith(peer)), None)
        if found and "median" in contenders[found]:
            name = f"4096² float32, 15×15: times {peer.split(',')[0].split()[0]}"
            yield _least(name, goal, _ratio(contenders, found, fit.OURS))
    yield _most("4096² float32, 15×15: error", 1e-6, contenders[fit.OURS]["error"])


def _row(name: str, goal: str, reached: float, kept: bool, note: str) -> Row:
    return {"name": name, "goal": goal, "reached": reached, "kept": kept, "note": note}


def _least(name: str, goal: float, reached: float, note: str = "") -> Row:
    return _row(name, f"≥ {goal:g}", reached, reached >= goal, note)


def _most(name: str, goal: float, reached: float, note: str = "") -> Row:
    return _row(name, f"≤ {goal:g}", reached, reached <= goal, note)


SOURCES: dict[str, Callable[[Row], Iterator[Row]]] = {
    "fit": _fits,
    "engines": _engines,
    "limits": _limits,
    "company": _company,
    "command": _command,
    "convolve": _convolve,
    "restoration": _restoration,
    "whole": _whole,
    "peers": _peers,
}


def _read(suite: str, result: Row) -> list[Row]:
    """The rows of a suite, whose results may be of before it measured what is asked for."""
    try:
        return list(SOURCES[suite](result))
    except KeyError as error:
        missing = f"the results of {suite} lack {error.args[0]}"
        sys.exit(f"bench: {missing}: run `python -m bench {suite}` again")


def run(args: argparse.Namespace) -> Row:
    """Read the other suites' results, which must be of full runs; tell which have none."""
    rows: list[Row] = []
    if args.quick:  # whose results have other sizes
        return {"rows": rows, "missing": []}
    missing = [suite for suite in SOURCES if not report.path(args.output, suite).is_file()]
    for suite in SOURCES:
        if suite not in missing:
            rows += _read(suite, report.load(args.output, suite))
    return {"rows": rows, "missing": missing}


def _what(row: Row) -> str:
    return f"{row['name']} ({row['note']})" if row["note"] else row["name"]


def tables(result: Row) -> str:
    """Markdown: goals, what was reached, and what stands between."""
    rows = [
        [
            _what(row),
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
    if result["missing"]:
        parts.append(f"Left out, as they were not run: {', '.join(result['missing'])}.")
    return "\n\n".join(parts)


readme = tables
