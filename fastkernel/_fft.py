"""Plans of FFTW: the only place where pyFFTW is used.

FFTW's planner is not thread-safe and pyFFTW's own lock has holes, so one lock of ours is held
while plans are made or destroyed, and across a fork. A plan runs on scratch of its own, by one
borrower at a time, on one thread: the caller's arrays are never handed to FFTW.

Plans are estimated, not measured: measuring gains up to a third of a transform, but takes time,
picks a bad plan when the machine is disturbed, and makes results differ in the last bits from
process to process. On one machine an estimated plan is the same in every process.
"""

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyfftw

_MAX_IDLE = 8

_lock = threading.RLock()
_idle: deque["RowTransforms"] = deque()


def _new_lock() -> None:
    """Start with a free lock in a forked child: its holder may not exist there."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _lock.acquire(),
        after_in_parent=lambda: _lock.release(),
        after_in_child=_new_lock,
    )


class RowTransforms:
    """A plan, with its scratch, for the spectra of rows.

    Attributes
    ----------
    key : (int, int)
        Length of the rows, and how many there are.
    rows : (n, length) float64 array
        What `transform` reads.
    spectra : (n, m) complex128 array
        What it writes, in the first ``length // 2 + 1`` columns; zeros fill whole vectors.
    """

    def __init__(self, key: tuple[int, int]) -> None:
        length, n = self.key = key
        half = length // 2 + 1
        self.rows = pyfftw.empty_aligned((n, length), np.float64)
        self.spectra = pyfftw.zeros_aligned((n, -(-half // 4) * 4), np.complex128)
        self.transform = pyfftw.FFTW(
            self.rows, self.spectra[:, :half], axes=(1,), flags=("FFTW_ESTIMATE",), threads=1
        ).execute


@contextmanager
def borrowed_row_transforms(length: int, n: int) -> Iterator[RowTransforms]:
    """Lend a plan with its scratch, of arbitrary content, to one caller at a time."""
    key = (length, n)
    with _lock:
        found = next((idle for idle in _idle if idle.key == key), None)
        if found is None:
            found = RowTransforms(key)
        else:
            _idle.remove(found)
    try:
        yield found
    finally:
        with _lock:
            _idle.append(found)
            del found
            while len(_idle) > _MAX_IDLE:
                _idle.popleft()
