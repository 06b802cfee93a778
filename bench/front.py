"""The rows of README.md that tell how fast it is: picked from the tables of bench/README.md."""

import sys
from pathlib import Path
from typing import NamedTuple

from . import report

PART = "speed"


class Row(NamedTuple):
    """One row of README.md, and the row of a suite's table that it is made from."""

    work: str
    suite: str
    named: dict[str, str]  # how the cells start by which the row is found
    ours: str | tuple[str, str]  # the column of our time, or the cell that names our row, and it
    unit: str
    whom: str
    ratio: str  # the column that tells how many times longer the other takes


PEERS = "fastkernel faster by"
ROWS = [
    Row(
        "fit 5×5, 4096² uint8",
        "fit",
        {"image pair, kernel": "4096² uint8, 5×5"},
        "fastkernel, ms",
        "ms",
        "the NumPy recipe",
        "times faster than the NumPy recipe",
    ),
    Row(
        "fit 15×15, 4096² float32",
        "peers",
        {"who": "SFFT on the CPU"},
        ("who", "ms"),
        "ms",
        "SFFT",
        PEERS,
    ),
    Row(
        "10 000 fits 5×5, 32² uint8",
        "stacks",
        {"10000 pairs of 32² uint8, 5×5": "a loop of the NumPy recipe"},
        ("10000 pairs of 32² uint8, 5×5", "µs a pair"),
        "µs each",
        "the NumPy recipe",
        "times estimate_kernels",
    ),
    Row(
        "`convolve` 15×15, 4096² float32",
        "convolve",
        {"image, kernel": "4096², 15×15 random"},
        "fastkernel, ms",
        "ms",
        "`cv2.filter2D`",
        "times faster than cv2.filter2D",
    ),
    Row(
        "`richardson_lucy` 15×15, 2048² float32",
        "restoration",
        {"ms an iteration": "2048² float32, 15×15 disk"},
        "plain",
        "ms a step",
        "scikit-image",
        "times faster",
    ),
]
OURS = ("fastkernel", "estimate_kernels")


def table(page: Path) -> str:
    """The rows, in Markdown."""
    header = ["work", "fastkernel", "beside", "times as fast"]
    return report.table(header, [_cells(row, page) for row in ROWS])


def _cells(row: Row, page: Path) -> list[str]:
    rows = report.read_table(report.part(page, row.suite), row.ratio)
    (named,) = row.named.items()
    other = _row(rows, *named)
    if isinstance(row.ours, str):
        time = other[row.ours]
    else:
        name, column = row.ours
        time = next(cells[column] for cells in rows if cells[name] in OURS)
    return [row.work, f"{time} {row.unit}", row.whom, other[row.ratio].rstrip("×")]


def _row(rows: list[dict[str, str]], column: str, start: str) -> dict[str, str]:
    for cells in rows:
        if cells[column].startswith(start):
            return cells
    sys.exit(f"bench: no row {start!r} under {column!r}, which README.md shows")


def rewrite(page: Path) -> None:
    """Bring README.md up to date with the page of tables in the folder below it, if it has one."""
    front = page.resolve().parents[1] / "README.md"
    if front.is_file():
        report.rewrite(front, PART, table(page))
