"""A bar for what takes long, on a terminal alone: one for all that a command does."""

import shutil
import sys
import time

_WIDTH = 30
_PATIENCE = 1.0  # seconds without a bar
_PAUSE = 0.1  # seconds between two states of it


class ProgressBar:
    """A callback that draws ``done`` of ``total`` on standard error, where that is a terminal.

    It never goes back: pieces of work take their shares of it one after the other.

    Parameters
    ----------
    quiet : bool, optional
        Whether it draws nothing.

    Examples
    --------
    >>> bar = ProgressBar()
    >>> bar.over("reading", 0.0, 0.2)
    >>> bar(5, 10)
    >>> bar.share
    0.1
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.share = 0.0
        self._span, self._label = (0.0, 1.0), ""
        self._next = time.monotonic() + _PATIENCE
        self._quiet = quiet
        self._drawn = 0

    def over(self, label: str, start: float, end: float) -> None:
        """Begin a piece of work, which takes the bar from one share of it to another."""
        self._label, self._span = label, (start, end)
        self(0, 1)

    def __call__(self, done: int, total: int) -> None:
        """Draw, unless it is too early."""
        start, end = self._span
        share = start + (end - start) * (min(done / total, 1.0) if total else 1.0)
        self.share = max(self.share, share)
        now = time.monotonic()
        if self._quiet or now < self._next or not sys.stderr.isatty():
            return
        self._next = now + _PAUSE
        columns = shutil.get_terminal_size().columns
        width = max(4, min(_WIDTH, columns // 2 - 4))
        # Less the brackets, the percentage, and the last column, which some terminals break after.
        label = self._label[: max(0, columns - width - 9)]
        bar = "#" * round(width * self.share)
        line = f"[{bar:.<{width}}] {self.share:4.0%} {label}".rstrip()
        print(f"\r{line:<{self._drawn}}", end="", file=sys.stderr, flush=True)
        self._drawn = len(line)

    def clear(self) -> None:
        """Wipe the bar away."""
        if self._drawn:
            print("\r" + " " * self._drawn, end="\r", file=sys.stderr, flush=True)
            self._drawn = 0
