"""What a command says: how much of it, where to, in which colours, and how long each phase took."""

import argparse
import contextlib
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import TextIO

# The sixteen colours, which every terminal makes readable on its own ground.
_STYLES = {"bold": "1", "dim": "2", "red": "1;31", "green": "32", "magenta": "35"}

# Columns below which a terminal is taken for wider.
_NARROWEST = 20


def painted(text: str, style: str, stream: TextIO) -> str:
    """Return a text in a colour, where the stream is a terminal that has colours, unless NO_COLOR.

    Examples
    --------
    >>> import io
    >>> painted("believe it", "green", io.StringIO())
    'believe it'
    """
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if plain or not stream.isatty():
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def complain(message: str) -> None:
    """Print the one line of an error; file names may hold anything, but no control character."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(message.split()))
    start = "fastkernel: error:"
    text = wrapped(f"{start} {line}", sys.stderr)
    print(painted(start, "red", sys.stderr) + text[len(start) :], file=sys.stderr)


def columns() -> int:
    """Return how many characters fit on a line."""
    return max(shutil.get_terminal_size().columns, _NARROWEST)


def wrapped(line: str, stream: TextIO) -> str:
    """Return a line broken at words for a terminal; whole for a file, which tools read."""
    width = columns()
    if len(line) <= width or not stream.isatty():
        return line
    return "\n".join(
        textwrap.wrap(
            line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    )


class Voice:
    """What a command says.

    Parameters
    ----------
    options : Namespace
        ``quiet`` and ``verbose``; ``json``, with which nothing but the object is printed.
    aside : bool, optional
        Whether standard output is a file's, so that words go to standard error.
    """

    def __init__(self, options: argparse.Namespace, *, aside: bool = False) -> None:
        self._silent = options.quiet or getattr(options, "json", False)
        self._verbose = options.verbose
        self._aside = aside

    @property
    def stream(self) -> TextIO:
        """Where it speaks to."""
        return sys.stderr if self._aside else sys.stdout

    def say(self, *lines: str, style: str | None = None, whole: bool = False) -> None:
        """Print lines, broken for a terminal unless they are to stay whole."""
        if self._silent:
            return
        for line in lines:
            text = line if whole else wrapped(line, self.stream)
            print(painted(text, style, self.stream) if style else text, file=self.stream)

    def fact(self, name: str, value: str, style: str | None = None) -> None:
        """Print ``name: value``, the value in a colour."""
        if self._silent:
            return
        text = wrapped(f"{name}: {value}", self.stream)
        if style:
            text = f"{name}:{painted(text[len(name) + 1 :], style, self.stream)}"
        print(text, file=self.stream)

    def detail(self, line: str) -> None:
        """Print what is asked for by ``--verbose`` alone, on standard error."""
        if self._verbose:
            print(painted(wrapped(line, sys.stderr), "dim", sys.stderr), file=sys.stderr)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Tell how long a piece of work took, and how much processor time that was."""
        start, used = time.perf_counter(), time.process_time()
        yield
        took, used = time.perf_counter() - start, time.process_time() - used
        self.detail(f"{name}: {took:.3f} s ({used:.3f} s of processor)")
