"""Markdown tables and JSON, and the pages that are made from them."""

import json
import math
import re
import string
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MACHINES = "machines"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned Markdown table; the first column is text, the others are numbers."""
    widths = [max(3, *(len(row[i]) for row in [header, *rows])) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
        return "| " + " | ".join(padded) + " |"

    return "\n".join(map(line, [header, rule, *rows]))


def figures(value: float | None, digits: int = 3) -> str:
    """A few significant digits, never in powers of ten where a person reads milliseconds."""
    if value is None or not math.isfinite(value):
        return "-"
    decimals = digits - 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(0, decimals)}f}"


def milliseconds(entry: dict[str, Any] | None) -> str:
    """The median of a contender, which may have sat out."""
    return figures(1e3 * entry["median"]) if entry and "median" in entry else "-"


def mebibytes(size: int | None) -> str:
    return "-" if size is None else figures(size / 2**20)


def small(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def computer(environment: dict[str, Any]) -> str:
    versions = [f"{name} {version}" for name, version in environment["versions"].items() if version]
    parts = [
        environment["cpu"],
        f"{environment['cores']} cores",
        *environment["caches"],
        f"{environment['ram_bytes'] / 2**30:.0f} GiB",
        environment["os"],
    ]
    return f"{', '.join(parts)}. {', '.join(versions)}."


def machine(environment: dict[str, Any]) -> str:
    return f"{computer(environment)} {environment['date']}."


def save(folder: Path, result: dict[str, Any], text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    raw = json.dumps(result, indent=1, allow_nan=False)
    for ending, content in {"json": raw, "md": text}.items():
        path = folder / f"{result['suite']}.{ending}"
        path.write_text(content + "\n", encoding="utf-8", newline="\n")


def path(folder: Path, suite: str) -> Path:
    return folder / f"{suite}.json"


def load(folder: Path, suite: str, quick: bool = False) -> dict[str, Any]:
    """Read the results of a suite; those of a quick run only where ``quick``."""
    source = path(folder, suite)
    if not source.is_file():
        sys.exit(f"bench: no {source}: run `python -m bench {suite}` first")
    result = json.loads(source.read_text(encoding="utf-8"))
    if result["quick"] and not quick:
        sys.exit(f"bench: {source} is of a quick run: run `python -m bench {suite}` first")
    return result


def markers(suite: str) -> tuple[str, str]:
    return f"<!-- bench:{suite} -->", f"<!-- /bench:{suite} -->"


def part(page: Path, suite: str) -> str:
    """What stands between the suite's markers on a page."""
    opening, closing = markers(suite)
    text = page.read_text(encoding="utf-8")
    if text.count(opening) != 1 or text.count(closing) != 1:
        sys.exit(f"bench: {page} needs one {opening} and one {closing}")
    if text.index(closing) < text.index(opening):
        sys.exit(f"bench: {page} has {closing} before {opening}")
    return text.partition(opening)[2].partition(closing)[0].strip()


def rewrite(page: Path, suite: str, text: str) -> None:
    """Put ``text`` between the suite's markers on a page."""
    part(page, suite)
    opening, closing = markers(suite)
    before, _, rest = page.read_text(encoding="utf-8").partition(opening)
    new = f"{before}{opening}\n{text}\n{closing}{rest.partition(closing)[2]}"
    page.write_text(new, encoding="utf-8", newline="\n")


def publish(page: Path, suite: str, text: str, environment: dict[str, Any]) -> None:
    """Put a suite's tables on a page, and its machine into the page's list of machines.

    Every machine is described once, under a letter; one that no table names is dropped.
    """
    found = re.findall(r"^- ([A-Z]): (.*)$", part(page, MACHINES), re.MULTILINE)
    known = {description: letter for letter, description in found}
    free = (letter for letter in string.ascii_uppercase if letter not in known.values())
    here = computer(environment)
    letter = known.get(here) or next(free)
    rewrite(page, suite, f"{text}\n\nMachine {letter}, {environment['date']}.")
    named = re.findall(r"^Machine ([A-Z]), ", page.read_text(encoding="utf-8"), re.MULTILINE)
    lines = sorted(f"- {name}: {what}" for what, name in (known | {here: letter}).items())
    rewrite(page, MACHINES, "\n".join(line for line in lines if line[2] in named))


def read_table(text: str, column: str) -> list[dict[str, str]]:
    """The rows of the table that has such a column, of those that ``table`` wrote."""
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("| ")]
        header, *rows = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in lines
        ] or [[]]
        if column in header:
            return [dict(zip(header, row, strict=True)) for row in rows[1:]]
    sys.exit(f"bench: no table with a column {column!r}")
