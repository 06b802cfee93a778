"""``python -m bench [suite ...]``: run suites, all by default.

``python -m bench readme [suite ...]`` writes their tables into bench/README.md, and some rows of
these into README.md; ``python -m bench plots [figure ...]`` draws them. ``python -m bench gallery
[entry ...]`` makes pictures of what the library does, and the page that shows them.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from . import measure, report

# A suite is a module with ``run(args) -> dict`` (JSON) and ``tables(result) -> str``; one with a
# part in bench/README.md has ``readme(result) -> str`` too. All in Markdown.
SUITES = [
    "fit",
    "engines",
    "sizes",
    "convolve",
    "methods",
    "descents",
    "inverse",
    "restoration",
    "whole",
    "defaults",
    "limits",
    "company",
    "command",
    "peers",
    "belief",
    "imperfect",
    "found",
    "fields",
    "stacks",
    "dask",
    "abuse",
    "goals",
]
TASKS = ["readme", "plots", "gallery"]
FIGURES = ["engines", "sizes", "convolve", "border", "round_trip", "fields"]


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _words(text: str) -> list[str]:
    return text.split(",")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = f"suites: {', '.join(SUITES)}; figures: {', '.join(FIGURES)}"
    parser.add_argument("what", nargs="*", help=f"readme, plots, gallery, or names. {names}")
    parser.add_argument("--sizes", type=_numbers, help="sides of the images, as 512,2048")
    parser.add_argument("--kernels", type=_numbers, help="sides of the kernels (odd), as 3,5")
    parser.add_argument("--dtypes", type=_words, help="as uint8,float32")
    parser.add_argument("--repeats", type=int, help="timed calls of each contender, at most")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run?")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="times only")
    parser.add_argument(
        "--constants", action="store_true", help="engines: measure the cost rule's constants too"
    )
    parser.add_argument("--nightly", action="store_true", help="abuse: as much as fills a night")
    parser.add_argument(
        "--environment", type=Path, help="peers: folder of SFFT's Python, made if missing"
    )
    parser.add_argument("--output", type=Path, default=Path("bench/results"))
    parser.add_argument(
        "--figures", type=Path, help="for `plots`: folder to draw into, by default that of --output"
    )
    parser.add_argument(
        "--readme", type=Path, default=Path("bench/README.md"), help="for `readme`: page of tables"
    )
    args = parser.parse_args(argv)
    args.task = args.what.pop(0) if args.what[:1] in ([task] for task in TASKS) else "run"
    if args.task == "gallery":
        return args  # it knows its entries itself
    kind, known = ("figure", FIGURES) if args.task == "plots" else ("suite", SUITES)
    unknown = set(args.what) - set(known)
    if unknown:
        parser.error(f"no {kind} {', '.join(unknown)}: {', '.join(known)}")
    if any(side % 2 == 0 or side < 1 for side in args.kernels or []):
        parser.error("--kernels: only odd ones, the recipes have no centre otherwise")
    if set(args.dtypes or []) - {"uint8", "float32"}:
        parser.error("--dtypes: uint8, float32")
    return args


def _nothing_to_write(args: argparse.Namespace, name: str, suite: ModuleType) -> str | None:
    if not hasattr(suite, "readme"):
        return "it has no part on a page"
    text = args.readme.read_text(encoding="utf-8")
    if not any(marker in text for marker in report.markers(name)):
        return f"no markers in {args.readme}"
    path = report.path(args.output, name)
    return None if path.is_file() else f"no {path}"


def _rewrite(args: argparse.Namespace) -> None:
    """Rewrite the parts named, or all for which there are markers and results."""
    for name in args.what or SUITES:
        suite = importlib.import_module(f"bench.{name}")
        if not args.what and (reason := _nothing_to_write(args, name, suite)):
            print(f"bench: {name} skipped: {reason}", file=sys.stderr)
            continue
        if not hasattr(suite, "readme"):
            sys.exit(f"bench: {name} has no part on a page")
        result = report.load(args.output, name)
        report.publish(args.readme, name, suite.readme(result), result["environment"])
    importlib.import_module("bench.front").rewrite(args.readme)


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    if args.task == "readme":
        _rewrite(args)
        return
    if args.task == "plots":
        plots = importlib.import_module("bench.plots")
        folder = args.figures or args.output
        print(*plots.draw(args.what, args.output, folder, args.quick), sep="\n")
        return
    if args.task == "gallery":
        importlib.import_module("bench.gallery").main(args.what, args.figures)
        return
    environment = measure.environment()
    print(report.machine(environment), "", sep="\n")
    for name in args.what or SUITES:
        suite = importlib.import_module(f"bench.{name}")
        head = {"suite": name, "quick": args.quick, "environment": environment}
        result = head | suite.run(args)
        text = suite.tables(result)
        print(text, "", sep="\n", flush=True)
        report.save(args.output, result, f"{report.machine(environment)}\n\n{text}")


if __name__ == "__main__":
    main()
