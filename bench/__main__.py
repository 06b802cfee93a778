"""``python -m bench [suite]``: run the suites, or rewrite README.md from their results."""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from . import measure, report

# A suite is a module with ``run(args) -> dict`` (JSON), ``tables(result) -> str`` and
# ``readme(result) -> str``, all in Markdown.
SUITES = ["fit"]


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _words(text: str) -> list[str]:
    return text.split(",")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=["all", *SUITES, "readme"])
    parser.add_argument("--sizes", type=_numbers, help="sides of the images, as 512,2048")
    parser.add_argument("--kernels", type=_numbers, help="sides of the kernels (odd), as 3,5")
    parser.add_argument("--dtypes", type=_words, help="as uint8,float32")
    parser.add_argument("--repeats", type=int, help="timed calls of each contender, at most")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run?")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="times only")
    parser.add_argument("--output", type=Path, default=Path("bench/results"))
    parser.add_argument("--readme", type=Path, default=Path("README.md"), help="for `readme`")
    args = parser.parse_args(argv)
    if any(side % 2 == 0 or side < 1 for side in args.kernels or []):
        parser.error("--kernels: only odd ones, the recipes have no centre otherwise")
    if set(args.dtypes or []) - {"uint8", "float32"}:
        parser.error("--dtypes: uint8, float32")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    if args.what == "readme":
        for name in SUITES:
            result = report.load(args.output, name)
            text = importlib.import_module(f"bench.{name}").readme(result)
            origin = f"Written by `python -m bench`: {report.machine(result['environment'])}"
            report.rewrite(args.readme, name, f"{text} {origin}")
        return
    environment = measure.environment()
    print(report.machine(environment), "", sep="\n")
    for name in SUITES if args.what == "all" else [args.what]:
        suite = importlib.import_module(f"bench.{name}")
        head = {"suite": name, "quick": args.quick, "environment": environment}
        result = head | suite.run(args)
        text = suite.tables(result)
        print(text, flush=True)
        report.save(args.output, result, f"{report.machine(environment)}\n\n{text}")


if __name__ == "__main__":
    main()
