"""A bar for what takes long, on a terminal alone."""

import sys
import time

_WIDTH = 30
_PATIENCE = 1.0  # seconds without a bar
_PAUSE = 0.1  # seconds between two states of it


class ProgressBar:
    """A callback that draws ``done`` of ``total`` on standard error, where that is a terminal."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _PATIENCE
        self._drawn = False

    def __call__(self, done: int, total: int) -> None:
        """Draw, unless it is too early."""
        now = time.monotonic()
        if now < self._next or not sys.stderr.isatty():
            return
        self._next, self._drawn = now + _PAUSE, True
        share = done / total if total else 1.0
        bar = "#" * round(_WIDTH * share)
        print(f"\r[{bar:.<{_WIDTH}}] {share:4.0%}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Wipe the bar away."""
        if self._drawn:
            print("\r" + " " * (_WIDTH + 8), end="\r", file=sys.stderr, flush=True)
            self._drawn = False
