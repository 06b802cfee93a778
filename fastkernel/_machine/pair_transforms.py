"""Transforms of an image and a PSF in one frame, to look at them and to filter the image.

Those of a small frame are held whole and taken at once, on one thread; of a large one the rows'
spectra are held, and panels of columns transformed whenever they are looked at.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np

from fastkernel._loops import spectra as loops
from fastkernel._loops.margins import crop_around
from fastkernel._machine.fft import (
    SmallTransforms,
    borrowed_image_column_transforms,
    borrowed_small_transforms,
)
from fastkernel._machine.image_transforms import (
    Pointwise,
    Rows,
    RowSpectra,
    invert_rows,
    row_spectra,
    transform_columns,
)
from fastkernel._machine.tiles import Scratch, run_jobs
from fastkernel._typing import AnyArray, Progress, Shape

T = TypeVar("T")

# Bytes of the pixels of a frame that is transformed at once, on one thread: all that belongs to it
# fits the caches, and threads would take longer to begin than they save.
SMALL_BYTES = 3 << 20

# Columns that stand side by side in a sample of them.
SAMPLED = 16


class Spectra(Protocol):
    """The transforms of an image and a PSF in one frame."""

    frame: Shape
    energy: float

    def columns(
        self,
        pointwise: Pointwise[T],
        progress: Progress | None = None,
        back: tuple[int, int] | None = None,
    ) -> list[T]:
        """Call a function of the columns, which changes them only if they go ``back``."""

    def sample(
        self, pointwise: Pointwise[T], share: int, progress: Progress | None = None
    ) -> list[T]:
        """Call a function of one in so many columns, some that stand side by side at a time."""

    def invert(self, out: AnyArray, left: int, progress: Progress | None = None) -> None:
        """Write pixels of the first image, whose columns were brought back."""


def _sampled(n: int, share: int) -> list[slice]:
    """Return some columns, side by side, of every so many of half a transform; or all for 1."""
    half = n // 2 + 1
    width = half if share == 1 else SAMPLED
    return [slice(i, min(i + width, half)) for i in range(0, half, width * share)]


def _sample_columns(
    images: Sequence[RowSpectra],
    pointwise: Pointwise[T],
    share: int,
    workers: int,
    progress: Progress | None,
) -> list[T]:
    """Transform some columns of images and call a function of them."""
    m, n = images[0].frame
    blocks = _sampled(n, share)
    width = blocks[0].stop

    def job(columns: slice, scratch: Scratch, stopped: Callable[[], bool]) -> T:  # noqa: ARG001
        spectra = []
        with ExitStack() as borrowed:
            for image in images:
                plan = borrowed.enter_context(
                    borrowed_image_column_transforms(m, width, image.dtype)
                )
                spectra.append(plan.lines[: columns.stop - columns.start])
                plan.panel[...] = 0
                for column in range(columns.start, columns.stop):
                    number, place = divmod(column, image.panels.shape[2])
                    into = plan.panel[: image.height, column - columns.start]
                    into[:] = image.panels[number, : image.height, place]
                plan.forward()
            return pointwise(spectra, columns, scratch)

    jobs = [partial(job, columns) for columns in blocks]
    return run_jobs(jobs, Scratch, workers, progress)


class _Panels:
    """Those of a large frame: see `transform_columns` and `invert_rows`."""

    def __init__(self, image: RowSpectra, psf: RowSpectra, workers: int) -> None:
        self.frame, self.energy = image.frame, image.energy
        self._pair, self._workers = (image, psf), workers

    def columns(
        self,
        pointwise: Pointwise[T],
        progress: Progress | None = None,
        back: tuple[int, int] | None = None,
    ) -> list[T]:
        return transform_columns(self._pair, pointwise, self._workers, progress, back=back)

    def sample(
        self, pointwise: Pointwise[T], share: int, progress: Progress | None = None
    ) -> list[T]:
        return _sample_columns(self._pair, pointwise, share, self._workers, progress)

    def invert(self, out: AnyArray, left: int, progress: Progress | None = None) -> None:
        invert_rows(self._pair[0], out, left, self._workers, progress)


class _Small:
    """Those of a small frame, transformed at once."""

    def __init__(self, plan: SmallTransforms, frame: Shape, energy: float) -> None:
        self.frame, self.energy, self._top, self._plan = frame, energy, 0, plan

    def columns(
        self,
        pointwise: Pointwise[T],
        progress: Progress | None = None,
        back: tuple[int, int] | None = None,
    ) -> list[T]:
        lines = [self._plan.lines, self._plan.tap_lines]
        found = pointwise(lines, slice(0, len(lines[0])), Scratch())
        if back is not None:
            self._top = back[0]
            self._plan.inverse()
        if progress is not None:
            progress(1, 1)
        return [found]

    def sample(
        self, pointwise: Pointwise[T], share: int, progress: Progress | None = None
    ) -> list[T]:
        lines, tap_lines, scratch = self._plan.lines, self._plan.tap_lines, Scratch()
        found = [
            pointwise([lines[columns], tap_lines[columns]], columns, scratch)
            for columns in _sampled(self.frame[1], share)
        ]
        if progress is not None:
            progress(1, 1)
        return found

    def invert(self, out: AnyArray, left: int, progress: Progress | None = None) -> None:
        m, n = self.frame
        crop_around(self._plan.rows, self._top % m, left % n, 1 / (m * n), out)
        if progress is not None:
            progress(1, 1)


def is_small(frame: Shape, dtype: np.dtype[Any]) -> bool:
    """Return whether a frame is transformed at once, on one thread."""
    return frame[0] * frame[1] * dtype.itemsize <= SMALL_BYTES


@contextmanager
def pair_spectra(
    image: Rows,
    psf: Rows,
    frame: Shape,
    dtype: np.dtype[Any],
    workers: int,
    progress: Progress | None = None,
    *,
    room: int = 0,
) -> Iterator[Spectra]:
    """Lend the transforms of an image and a PSF, to look at them and to filter the image.

    Parameters
    ----------
    image, psf : Rows
        What to read.
    frame, dtype, workers, progress, room
        As in `row_spectra`.

    Yields
    ------
    Spectra
        That of a small frame is held whole, in scratch. That of a large one holds the rows'
        spectra, and its columns are transformed whenever they are looked at.
    """
    if not is_small(frame, dtype):
        spectra = row_spectra(image, frame, dtype, workers, progress, room=room)
        yield _Panels(spectra, row_spectra(psf, frame, dtype, workers), workers)
        return
    with borrowed_small_transforms(frame, psf.height, dtype) as plan:
        image.read(0, plan.rows[: image.height])
        if image.height < frame[0]:
            plan.rows[image.height :] = 0
        energy = float(loops.sum_of_squares(plan.rows))
        psf.read(0, plan.taps)
        plan.forward()
        if progress is not None:
            progress(1, 1)
        yield _Small(plan, frame, energy)
