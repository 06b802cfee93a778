"""The options of the command, as argparse reads them."""

import argparse
import math
import re
from collections.abc import Sequence
from typing import NoReturn

from fastkernel import __version__
from fastkernel.cli.errors import UsageError

BOUNDARIES = ("zero", "circular", "replicate", "symmetric", "mirror")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        msg = f"{message}; see '{self.prog} --help'"
        raise UsageError(msg)


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the options; raise `UsageError` where they are wrong."""
    parser = _Parser(
        prog="fastkernel",
        description="Recover the convolution kernel that turned one image into another.",
    )
    parser.add_argument("--version", action="version", version=f"fastkernel {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_estimate(commands.add_parser("estimate", help="fit the kernel between two image files"))
    _add_demo(commands.add_parser("demo", help="blur a drawn picture, then recover the kernel"))
    doctor = commands.add_parser("doctor", help="show versions, processor, cache and licences")
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="show tracebacks of errors")
        command.description = command.description or command.prog
    doctor.description = "Show what a bug report needs."
    return parser.parse_args(argv)


def _add_estimate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Fit the kernel that turns SOURCE into RESULT by convolution, and say how far to believe "
        "it. RESULT has the size of SOURCE, or is smaller ('valid') or larger ('full') by the "
        "kernel's size minus one. Files: PNG, JPEG, TIFF (8 and 16 bits, float) and .npy."
    )
    add = parser.add_argument
    add("source", metavar="SOURCE", help="image before the convolution")
    add("result", metavar="RESULT", help="image after it")
    add(
        "--size",
        type=_size,
        required=True,
        metavar="P[xQ]",
        help="kernel size in taps: 5, or rows x columns as in 7x9",
    )
    add(
        "-o",
        "--output",
        metavar="FILE",
        help="write the kernel: .npy, .csv (full precision) or .png (enlarged, to look at)",
    )
    add("--force", action="store_true", help="overwrite the output file")
    add("--normalize", action="store_true", help="divide the kernel by the sum of its taps")
    add(
        "--correlation",
        action="store_true",
        help="flip the kernel both ways, as GIMP, OpenCV and other correlating tools take it",
    )
    add(
        "--transfer",
        choices=("auto", "none", "srgb"),
        default="auto",
        help="fit the stored values (none), light decoded from sRGB (srgb), or whichever "
        "explains 8 and 16 bit files better (auto, the default)",
    )
    add(
        "--boundary",
        choices=BOUNDARIES,
        help="how pixels beyond the border were made; without it, results of SOURCE's size are "
        "fitted where no border rule matters",
    )
    add("--ridge", type=_penalty, default=0.0, metavar="X", help="penalty on large taps (0)")
    add("--drop-alpha", action="store_true", help="ignore the alpha channel of the files")
    add("--workers", type=_count, metavar="N", help="threads (all cores)")
    add(
        "--max-pixels",
        type=_count,
        default=2**28,
        metavar="N",
        help="refuse larger images before decoding them (%(default)s)",
    )


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Draw a picture of overlapping discs, blur it by a known kernel, round it to 8 bits, "
        "recover the kernel, and write everything to a folder."
    )
    add = parser.add_argument
    add("-o", "--output", default="fastkernel-demo", metavar="FOLDER", help="(%(default)s)")
    add("--size", type=_count, default=512, metavar="N", help="pixels along a side (%(default)s)")
    add("--seed", type=_seed, default=0, metavar="N", help="of the picture (%(default)s)")
    add("--force", action="store_true", help="overwrite the files of an earlier demo")


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})(?:[xX×]([1-9]\d{0,4}))?", text, re.ASCII)
    if match is None:
        msg = f"expected taps as in 5, or rows x columns as in 7x9, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    rows, cols = match.groups()
    return int(rows), int(cols or rows)


def _count(text: str) -> int:
    if re.fullmatch(r"0*[1-9]\d{0,17}", text, re.ASCII) is None:
        msg = f"expected a whole number of at least 1, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _seed(text: str) -> int:
    if re.fullmatch(r"\d{1,18}", text, re.ASCII) is None:
        msg = f"expected a whole number of at least 0, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _penalty(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        msg = f"expected a number of at least 0, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return value
