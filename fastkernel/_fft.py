"""Plans of FFTW: the only place where pyFFTW is used.

FFTW's planner is not thread-safe and pyFFTW's own lock has holes, so one lock of ours is held
while plans are made or destroyed, and across a fork. A plan runs on scratch of its own, by one
borrower at a time, on one thread: the caller's arrays are never handed to FFTW.

Plans are estimated, not measured: measuring gains a tenth, takes time, picks a bad plan when the
machine is disturbed, and makes results differ in the last bits from process to process. On one
machine an estimated plan is the same in every process.
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
    """Plans and scratch for the spectra of the rows of two tiles.

    Rows of spectra are padded with zeros to whole vectors.

    Attributes
    ----------
    key : (int, int, int)
        Length of the transforms, rows of the wide tile, rows of the core tile.
    wide, core : (rows, length) float64 arrays
        What `transform_wide` and `transform_core` read.
    wide_spectra, core_spectra : (rows, n) complex128 arrays
        What they write, in the first ``length // 2 + 1`` columns.
    """

    def __init__(self, key: tuple[int, int, int]) -> None:
        length, *heights = self.key = key
        half = length // 2 + 1
        padded = -(-half // 4) * 4
        self.wide, self.core = (pyfftw.empty_aligned((n, length), np.float64) for n in heights)
        self.wide_spectra, self.core_spectra = (
            pyfftw.zeros_aligned((n, padded), np.complex128) for n in heights
        )
        self.transform_wide, self.transform_core = (
            pyfftw.FFTW(
                rows, spectra[:, :half], axes=(1,), flags=("FFTW_ESTIMATE",), threads=1
            ).execute
            for rows, spectra in ((self.wide, self.wide_spectra), (self.core, self.core_spectra))
        )


@contextmanager
def borrowed_row_transforms(length: int, wide_rows: int, core_rows: int) -> Iterator[RowTransforms]:
    """Lend plans with their scratch, of arbitrary content, to one caller at a time."""
    key = (length, wide_rows, core_rows)
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
