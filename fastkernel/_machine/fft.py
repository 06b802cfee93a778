"""Plans of FFTW: the only place where pyFFTW is used.

FFTW's planner is not thread-safe and pyFFTW's own lock has holes, so one lock of ours is held
while plans are made or destroyed, and across a fork. A plan runs on scratch of its own, by one
borrower at a time, on one thread: the caller's arrays are never handed to FFTW.

Plans are estimated, not measured: measuring gains up to a third of a transform, but takes time,
picks a bad plan when the machine is disturbed, and makes results differ in the last bits from
process to process. On one machine an estimated plan is the same in every process.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np

from fastkernel._loops._unbroken import hold_across_forks, import_whole
from fastkernel._typing import AnyArray, Shape


@cache
def _fftw() -> Any:
    """Return pyFFTW, imported with the first plan: that takes as long as Numba, or three times.

    Its interfaces import SciPy's, and Dask where that is installed. Most fits need none.
    """
    return import_whole("pyfftw")


_MAX_IDLE = 24
_MAX_IDLE_BYTES = 32 << 20

_lock = threading.RLock()
hold_across_forks(_lock)
_idle: deque["TileTransforms | ImageRowTransforms | ImageColumnTransforms | SmallTransforms"] = (
    deque()
)
_idle_bytes = 0

# What is left of plans that nobody refers to any more, until somebody holds the lock.
_dropped: deque[dict[str, Any]] = deque()


class _Plans:
    """Plans that are destroyed by whoever holds the lock next, whoever lets go of them last.

    That may be anyone: the traceback of an interrupted call keeps what the call had borrowed.
    """

    # The default outlives the module's names, which are gone when the interpreter ends.
    def __del__(self, dropped: deque[dict[str, Any]] = _dropped) -> None:
        dropped.append(self.__dict__)


def _there_and_back(
    given: AnyArray, spectrum: AnyArray, axes: tuple[int, ...]
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return the plan from an array to its spectrum, and the one back, which destroys that."""
    plan = partial(_fftw().FFTW, axes=axes, threads=1)
    forward = plan(given, spectrum, flags=("FFTW_ESTIMATE",))
    flags = ("FFTW_ESTIMATE", "FFTW_DESTROY_INPUT")
    inverse = plan(spectrum, given, direction="FFTW_BACKWARD", flags=flags)
    return forward.execute, inverse.execute


class TileTransforms(_Plans):
    """Plans, with their scratch, for the spectrum of a tile and back.

    Attributes
    ----------
    key : (int, int, dtype)
        Rows and columns of the tile, and whether it is float32 or float64.
    tile : (rows, cols) array
        What `forward` reads and `inverse` writes, times the number of its pixels.
    spectrum : (rows, cols // 2 + 1) complex array
        What `forward` writes; `inverse` destroys it.
    """

    def __init__(self, key: tuple[int, int, np.dtype[Any]]) -> None:
        rows, cols, dtype = self.key = key
        self.tile = _fftw().empty_aligned((rows, cols), dtype)
        complex_dtype = np.result_type(dtype, np.complex64)
        self.spectrum = _fftw().empty_aligned((rows, cols // 2 + 1), complex_dtype)
        self.forward, self.inverse = _there_and_back(self.tile, self.spectrum, (0, 1))

    @property
    def nbytes(self) -> int:
        """Bytes of the scratch."""
        return int(self.tile.nbytes + self.spectrum.nbytes)


class ImageRowTransforms(_Plans):
    """Plans, with their scratch, for the spectra of some rows of a whole image and back.

    Attributes
    ----------
    key : (int, int, int, dtype)
        Length ``n`` of the rows, how many there are, columns of the spectra (the last may be
        more than are used), and whether the rows are float32 or float64.
    rows : (k, n) array
        What `forward` reads and `inverse` writes, times ``n``.
    spectra : (k, wide) complex array
        What `forward` writes, in the first ``n // 2 + 1`` columns; `inverse` destroys these.
    """

    def __init__(self, key: tuple[int, int, int, np.dtype[Any]]) -> None:
        length, count, wide, dtype = self.key = key
        self.rows = _fftw().empty_aligned((count, length), dtype)
        self.spectra = _fftw().zeros_aligned((count, wide), np.result_type(dtype, np.complex64))
        self.forward, self.inverse = _there_and_back(
            self.rows, self.spectra[:, : length // 2 + 1], (1,)
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the scratch."""
        return int(self.rows.nbytes + self.spectra.nbytes)


class ImageColumnTransforms(_Plans):
    """Plans, with their scratch, for the spectra of some columns of a whole image and back.

    Attributes
    ----------
    key : (int, int, dtype)
        Length ``m`` of the columns, how many there are, and whether the image is float32 or
        float64.
    panel : (m, k) complex array
        What `forward` reads and `inverse` writes, times ``m``.
    lines : (k, m) complex array
        What `forward` writes: a column is contiguous here. `inverse` destroys it.
    """

    def __init__(self, key: tuple[int, int, np.dtype[Any]]) -> None:
        length, count, dtype = self.key = key
        complex_dtype = np.result_type(dtype, np.complex64)
        self.panel = _fftw().empty_aligned((length, count), complex_dtype)
        self.lines = _fftw().empty_aligned((count, length), complex_dtype)
        self.forward, self.inverse = _there_and_back(self.panel, self.lines.T, (0,))

    @property
    def nbytes(self) -> int:
        """Bytes of the scratch."""
        return int(self.panel.nbytes + self.lines.nbytes)


class SmallTransforms(_Plans):
    """Plans, with their scratch, for the spectra of a small image and of a PSF, and back.

    Attributes
    ----------
    key : (int, int, int, dtype)
        Rows ``m`` and columns ``n`` of the frame, rows of the PSF, and whether both are float32
        or float64.
    rows : (m, n) array
        What `forward` reads; `inverse` writes it times ``m * n``.
    taps : (p, n) array
        The rows of the PSF, which `forward` reads too; zeros follow.
    lines, tap_lines : (n // 2 + 1, m) complex arrays
        What `forward` writes: a column is contiguous here. `inverse` destroys the first.
    """

    def __init__(self, key: tuple[int, int, int, np.dtype[Any]]) -> None:
        m, n, p, dtype = self.key = key
        half, complex_dtype = n // 2 + 1, np.result_type(dtype, np.complex64)
        self.rows = _fftw().empty_aligned((m, n), dtype)
        self.taps = _fftw().empty_aligned((p, n), dtype)
        panels = _fftw().zeros_aligned((2, m, half), complex_dtype)
        self.lines = _fftw().empty_aligned((half, m), complex_dtype)
        self.tap_lines = _fftw().empty_aligned((half, m), complex_dtype)
        across = _there_and_back(self.rows, panels[0], (1,))
        down = _there_and_back(panels[0], self.lines.T, (0,))
        taps_across, _ = _there_and_back(self.taps, panels[1, :p], (1,))
        taps_down, _ = _there_and_back(panels[1], self.tap_lines.T, (0,))
        self._forward = across[0], down[0], taps_across, taps_down
        self._inverse = down[1], across[1]
        arrays = self.rows, self.taps, panels, self.lines, self.tap_lines
        self.nbytes = sum(array.nbytes for array in arrays)

    def forward(self) -> None:
        """Transform the rows of both, then the columns."""
        for execute in self._forward:
            execute()

    def inverse(self) -> None:
        """Transform the image's columns back, then its rows."""
        for execute in self._inverse:
            execute()


Plan = TypeVar(
    "Plan",
    TileTransforms,
    ImageRowTransforms,
    ImageColumnTransforms,
    SmallTransforms,
)


@contextmanager
def _borrowed(make: type[Plan], key: Any) -> Iterator[Plan]:
    """Lend a plan with its scratch, of arbitrary content, to one caller at a time."""
    global _idle_bytes
    _fftw()  # whoever waits for an import must hold no lock
    with _lock:
        _dropped.clear()
        found = next((idle for idle in _idle if type(idle) is make and idle.key == key), None)
        if found is None:
            found = make(key)
        else:
            _idle.remove(found)
            _idle_bytes -= found.nbytes
    try:
        yield found
    finally:
        with _lock:
            _idle.append(found)
            _idle_bytes += found.nbytes
            del found
            while len(_idle) > _MAX_IDLE or _idle_bytes > _MAX_IDLE_BYTES:
                _idle_bytes -= _idle.popleft().nbytes
            _dropped.clear()


def borrowed_tile_transforms(
    shape: Shape, dtype: np.dtype[Any]
) -> AbstractContextManager[TileTransforms]:
    """Lend the plans for tiles of ``shape``."""
    return _borrowed(TileTransforms, (*shape, dtype))


def borrowed_image_row_transforms(
    length: int, count: int, wide: int, dtype: np.dtype[Any]
) -> AbstractContextManager[ImageRowTransforms]:
    """Lend the plans for ``count`` rows of ``length``, their spectra in ``wide`` columns."""
    return _borrowed(ImageRowTransforms, (length, count, wide, dtype))


def borrowed_image_column_transforms(
    length: int, count: int, dtype: np.dtype[Any]
) -> AbstractContextManager[ImageColumnTransforms]:
    """Lend the plans for ``count`` columns of ``length``."""
    return _borrowed(ImageColumnTransforms, (length, count, dtype))


def borrowed_small_transforms(
    frame: Shape, taps: int, dtype: np.dtype[Any]
) -> AbstractContextManager[SmallTransforms]:
    """Lend the plans for a small image and a PSF of ``taps`` rows in a frame."""
    return _borrowed(SmallTransforms, (*frame, taps, dtype))
