"""The options of the command, as argparse reads them."""

import argparse
import os
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from fastkernel import __version__
from fastkernel.cli import values
from fastkernel.cli.common_options import add_words
from fastkernel.cli.errors import UsageError
from fastkernel.cli.estimate_options import add_estimate
from fastkernel.cli.making_options import add_apply, add_invert, add_restore
from fastkernel.cli.match_options import add_match
from fastkernel.cli.words import BLURS, SHELLS

# Columns below which the help of an option stands on lines of its own.
_NARROW = 60

# How surely a file is a kernel, by its suffix.
_KERNEL_SUFFIXES = {".npz": 3, ".csv": 3, ".npy": 2}


class _Help(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        columns = shutil.get_terminal_size().columns
        narrow = columns < _NARROW
        self._columns = max(columns - 2, 20)
        super().__init__(prog, max_help_position=6 if narrow else 24, width=self._columns)

    def add_usage(self, usage: str | None, *rest: Any, **named: Any) -> None:
        """Add the usage, which argparse leaves whole where it is told, broken at words."""
        if usage is not None and usage is not argparse.SUPPRESS:
            start = "usage: "
            line = start + usage % {"prog": self._prog}
            broken = textwrap.fill(
                line, self._columns, subsequent_indent="  ", break_on_hyphens=False
            )
            usage = broken[len(start) :].replace("%", "%%")
        super().add_usage(usage, *rest, **named)


class _Parser(argparse.ArgumentParser):
    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs | {"formatter_class": _Help})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        msg = f"{message}; see '{self.prog} --help'"
        raise UsageError(msg)


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the options; raise `UsageError` where they are wrong."""
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # the shell asks what may stand next, and Python ends here
        from fastkernel.cli.completion import complete

        complete(parser)
    # Images may stand on both sides of an option, which argparse does not join by itself.
    options, others = parser.parse_known_args(argv)
    many = hasattr(options, "others")
    unknown = [text for text in others if not many or (text[:1] == "-" and text != "-")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if many:
        options.others += others
        _take_kernel(options)
    return options


def _parser() -> _Parser:
    parser = _Parser(
        prog="fastkernel",
        description="Recover the convolution kernel that turned one image into another; apply, "
        "undo and invert kernels.",
    )
    parser.add_argument("--version", action="version", version=f"fastkernel {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_estimate(commands.add_parser("estimate", help="fit the kernel between two image files"))
    _add_demo(commands.add_parser("demo", help="blur a drawn picture, then recover the kernel"))
    add_apply(commands.add_parser("apply", help="convolve image files with a kernel"))
    add_restore(commands.add_parser("restore", help="undo a known blur of image files"))
    add_invert(commands.add_parser("invert", help="find the kernel that undoes another"))
    add_match(commands.add_parser("match", help="subtract two image files of one scene"))
    doctor = commands.add_parser("doctor", help="show versions, processor, cache and licences")
    doctor.description = "Show what a bug report needs."
    _add_completion(commands.add_parser("completion", help="print what a shell completes by"))
    for command in commands.choices.values():
        add_words(command)
        command.description = command.description or command.prog
    return parser


def _take_kernel(options: argparse.Namespace) -> None:
    """Part the kernel, which stands first unless an option names it, from the images.

    Of two files the one that is surely the kernel may stand last. ``in_doubt`` says that nothing
    but the place told which of two files is the kernel.
    """
    names: list[str] = [options.first, *options.others]
    options.in_doubt = False
    if options.kernel is None:
        if len(names) < 2:
            msg = (
                f"KERNEL and IMAGE are needed, got {names[0]!r} alone: "
                f"fastkernel {options.command} KERNEL IMAGE... -o FILE"
            )
            raise UsageError(msg)
        if len(names) == 2 and "-" not in names:
            ranks = [_likely_kernel(name) for name in names]
            names = names[::-1] if ranks[1] > ranks[0] else names
            options.in_doubt = 3 not in ranks
        options.kernel, *names = names
    options.images = names
    if "-" in names and (options.kernel == "-" or names.count("-") > 1):
        msg = "standard input can be read once; give '-' in one place"
        raise UsageError(msg)


def _likely_kernel(name: str) -> int:
    if name.partition(":")[0] in BLURS and ":" in name:
        return 3
    return _KERNEL_SUFFIXES.get(os.path.splitext(name)[1].lower(), 0)  # noqa: PTH122


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [OPTION...]"
    parser.description = (
        "Draw a picture of overlapping discs, blur it by a known kernel, round it to 8 bits, "
        "recover the kernel, and write everything to a folder."
    )
    add = parser.add_argument
    add(
        "-o", "--output", default="fastkernel-demo", metavar="FOLDER", help="where to (%(default)s)"
    )
    add(
        "--size",
        type=values.count,
        default=512,
        metavar="N",
        help="pixels along a side (%(default)s)",
    )
    add(
        "--seed",
        type=values.seed,
        default=0,
        metavar="N",
        help="draws another picture (%(default)s)",
    )
    add("--force", action="store_true", help="overwrite the files of an earlier demo")


def _add_completion(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print what makes a shell complete commands, options, their values and files. For bash or "
        'zsh: eval "$(fastkernel completion bash)" in ~/.bashrc or ~/.zshrc; for fish: '
        "fastkernel completion fish > ~/.config/fish/completions/fastkernel.fish"
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
