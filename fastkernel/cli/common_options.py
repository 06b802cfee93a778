"""Options that several commands share."""

import argparse

from fastkernel.cli import values


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add what commands share that read images."""
    add = parser.add_argument
    add("--drop-alpha", action="store_true", help="ignore the alpha channel of the files")
    add(
        "--page",
        type=values.count,
        metavar="N",
        help="which image of a TIFF, GIF or WebP file that holds several, from 1",
    )
    add("--workers", type=values.count, metavar="N", help="threads (all cores)")
    add(
        "--max-pixels",
        type=values.count,
        default=2**28,
        metavar="N",
        help="refuse larger images before decoding them (%(default)s)",
    )


def add_words(parser: argparse.ArgumentParser) -> None:
    """Add how much every command says."""
    loud = parser.add_mutually_exclusive_group()
    loud.add_argument("-q", "--quiet", action="store_true", help="say nothing but what went wrong")
    loud.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="say what was used and how long each phase took",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")


def add_kernel(parser: argparse.ArgumentParser) -> None:
    """Add the kernel in the place of the first argument, where a command takes others after it."""
    parser.add_argument(
        "--kernel",
        metavar="KERNEL",
        help="the kernel, in the place of the first argument, all of which are images then",
    )
