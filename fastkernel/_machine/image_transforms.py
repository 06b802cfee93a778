"""Discrete Fourier transforms of whole real images, and filters between one and its inverse.

A transform is taken along the rows, then down the columns, some of them at a time in scratch that
fits the cache. Between the two passes the rows' spectra stand in panels of a few columns, so that
both passes read and write memory in long runs. A filter transforms a panel down, changes it and
transforms it back while it is in the cache.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from fastkernel._loops import spectra as loops
from fastkernel._machine.fft import (
    ImageRowTransforms,
    borrowed_image_column_transforms,
    borrowed_image_row_transforms,
)
from fastkernel._machine.tiles import Scratch, run_jobs, split
from fastkernel._typing import AnyArray, FloatArray, Progress, Shape

T = TypeVar("T")

# Bytes of the rows, or of the panel of every image, that a job transforms: with what belongs to
# them a few second-level caches of 2 MB. Smaller panels would be copied in too short runs.
JOB_BYTES = 512 << 10

Pointwise: TypeAlias = Callable[[Sequence[AnyArray], slice, Scratch], T]


class Rows(NamedTuple):
    """The rows of a real image, read when they are needed.

    Attributes
    ----------
    read : callable
        ``read(top, out)`` fills ``out``, (k, n), with the rows from ``top`` on; from several
        threads at once.
    height : int
        Rows of the image, at most those of the frame; zeros follow.
    """

    read: Callable[[int, AnyArray], object]
    height: int


class RowSpectra(NamedTuple):
    """The spectra of an image's rows: half of its own transform.

    Attributes
    ----------
    panels : (n_panels, rows, width) complex array
        ``panels[i, r, j]`` belongs to row ``r`` and frequency ``i * width + j``. What stands
        beyond frequency ``n // 2`` means nothing.
    height : int
        Rows that hold the image's; the rest of the frame is zero.
    frame : (int, int)
        Rows ``m`` and columns ``n`` that are transformed.
    energy : float
        Sum of the squared pixels; not finite where a pixel is not.
    """

    panels: AnyArray
    height: int
    frame: Shape
    energy: float

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the image: float32 or float64."""
        return self.panels.real.dtype


def stages(progress: Progress | None, n: int) -> Iterator[Progress | None]:
    """Yield ``n`` reports of runs that take about the same time, as one report of all."""
    for stage in range(n):
        if progress is None:
            yield None
        else:

            def report(done: int, total: int, stage: int = stage) -> None:
                progress(100 * stage + 100 * done // total, 100 * n)

            yield report


@lru_cache(8)
def columns_of(n: int) -> FloatArray:
    """Return for how many frequencies each column of half a transform stands."""
    counts = np.full(n // 2 + 1, 2.0)
    counts[0] = 1
    if n % 2 == 0:
        counts[-1] = 1
    counts.flags.writeable = False
    return counts


def _at_a_time(count: int, length: int, itemsize: int) -> int:
    """Return how many of ``count`` lines a job takes."""
    return max(1, min(count, JOB_BYTES // (length * itemsize)))


def _empty_panels(rows: int, frame: Shape, dtype: np.dtype[Any]) -> AnyArray:
    half = frame[1] // 2 + 1
    width = _at_a_time(half, frame[0], 2 * dtype.itemsize)
    return np.empty((-(-half // width), rows, width), np.result_type(dtype, np.complex64))


def _over_rows(
    work: Callable[[ImageRowTransforms, AnyArray, slice], T],
    spectra: tuple[AnyArray, int, Shape],
    workers: int,
    progress: Progress | None,
) -> list[T]:
    """Call ``work(plan, its spectra by panel, rows)`` for some rows at a time."""
    panels, rows, (_, cols) = spectra
    n_panels, _, width = panels.shape
    dtype = panels.real.dtype
    count = _at_a_time(rows, cols, dtype.itemsize)

    def job(bounds: Shape, _: None, stopped: Callable[[], bool]) -> T:  # noqa: ARG001
        part = slice(*bounds)
        key = cols, count, n_panels * width, dtype
        with borrowed_image_row_transforms(*key) as plan:
            by_panel = plan.spectra.reshape(count, n_panels, width).transpose(1, 0, 2)
            return work(plan, by_panel[:, : part.stop - part.start], part)

    jobs = [partial(job, bounds) for bounds in split(rows, count)]
    return run_jobs(jobs, lambda: None, workers, progress)


def row_spectra(
    image: Rows,
    frame: Shape,
    dtype: np.dtype[Any],
    workers: int,
    progress: Progress | None = None,
    *,
    room: int = 0,
) -> RowSpectra:
    """Transform the rows of a real image: the first half of its transform.

    Parameters
    ----------
    image : Rows
        What to read.
    frame : (int, int)
        Rows and columns to transform; rows that the image lacks are zero.
    dtype : dtype
        float32 or float64: what the pixels are cast to.
    workers : int
        Threads to use. The answer is the same bit for bit.
    progress : callable, optional
        Called as ``progress(done, total)``.
    room : int, optional
        Rows that the panels have at least, for those that `transform_columns` brings back.

    Returns
    -------
    RowSpectra
        About as large as the image in ``dtype``.
    """
    panels = _empty_panels(max(image.height, room), frame, dtype)

    def work(plan: ImageRowTransforms, by_panel: AnyArray, part: slice) -> float:
        rows = plan.rows[: part.stop - part.start]
        image.read(part.start, rows)
        plan.rows[len(rows) :] = 0
        plan.forward()
        np.copyto(panels[:, part], by_panel)
        with np.errstate(over="ignore"):
            return float(loops.sum_of_squares(rows))

    energies = _over_rows(work, (panels, image.height, frame), workers, progress)
    return RowSpectra(panels, image.height, frame, sum(energies))


def transform_columns(
    images: Sequence[RowSpectra],
    pointwise: Pointwise[T],
    workers: int,
    progress: Progress | None = None,
    *,
    first: int = 0,
    back: tuple[int, int] | None = None,
) -> list[T]:
    """Transform columns of images, call a function of them, and transform the first's back.

    Parameters
    ----------
    images : sequence of RowSpectra
        Of one frame (m, n) and dtype. They can be transformed again, except as ``back`` says.
        One without rows is not transformed: its spectra are for ``pointwise`` to write.
    pointwise : callable
        ``pointwise(spectra, columns, scratch)``, called from several threads at once, with a
        list of one (k, m) complex array an image: ``spectra[i][j]`` is column
        ``columns.start + j`` of ``scipy.fft.rfft2`` of image ``i``. They may be overwritten.
        ``scratch.array`` lends working space of the thread.
    workers : int
        Threads to use. The answer is the same bit for bit.
    progress : callable, optional
        Called as ``progress(done, total)``.
    first : int, optional
        Leave out columns before this one, as far as they stand in panels of their own.
    back : (int, int), optional
        ``(top, count)``: transform what ``pointwise`` leaves in ``spectra[0]`` back, without
        scale, and write the rows from ``top`` on, counted around, to the rows from 0 on of the
        first image's panels. Nothing is written when None.

    Returns
    -------
    list
        What ``pointwise`` returned, in the order of the columns.
    """
    (m, n), dtype = images[0].frame, images[0].dtype
    n_panels, _, width = images[0].panels.shape

    def job(number: int, scratch: Scratch, stopped: Callable[[], bool]) -> T:  # noqa: ARG001
        start = number * width
        columns = slice(start, min(start + width, n // 2 + 1))
        with ExitStack() as borrowed:
            plans = [
                borrowed.enter_context(borrowed_image_column_transforms(m, width, dtype))
                for _ in images
            ]
            for plan, image in zip(plans, images, strict=True):
                if image.height:
                    plan.panel[: image.height] = image.panels[number, : image.height]
                    plan.panel[image.height :] = 0
                    plan.forward()
            size = columns.stop - columns.start
            found = pointwise([plan.lines[:size] for plan in plans], columns, scratch)
            if back is not None:
                plans[0].inverse()
                for here, there in _around(*back, m):
                    images[0].panels[number, here] = plans[0].panel[there]
        return found

    jobs = [partial(job, number) for number in range(first // width, n_panels)]
    return run_jobs(jobs, Scratch, workers, progress)


def _around(start: int, count: int, length: int) -> Iterator[tuple[slice, slice]]:
    """Yield the parts of a line counted around: where they go, and where they stand.

    Examples
    --------
    >>> list(_around(-1, 3, 4))
    [(slice(0, 1, None), slice(3, 4, None)), (slice(1, 3, None), slice(0, 2, None))]
    """
    done = 0
    while done < count:
        there = (start + done) % length
        size = min(count - done, length - there)
        yield slice(done, done + size), slice(there, there + size)
        done += size


def invert_rows(
    image: RowSpectra,
    out: AnyArray,
    left: int,
    workers: int,
    progress: Progress | None = None,
) -> None:
    """Transform rows that `transform_columns` brought back to pixels.

    Parameters
    ----------
    image : RowSpectra
        Its panels' first rows are read.
    out : (rows, cols) array
        Overwritten with these rows from column ``left`` on, counted around.
    left : int
        May be negative.
    workers : int
        Threads to use. The answer is the same bit for bit.
    progress : callable, optional
        Called as ``progress(done, total)``.
    """
    m, n = image.frame
    scale = image.dtype.type(1 / (m * n))

    def work(plan: ImageRowTransforms, by_panel: AnyArray, part: slice) -> None:
        np.copyto(by_panel, image.panels[:, part])
        plan.inverse()
        for here, there in _around(left, out.shape[1], n):
            np.multiply(plan.rows[: by_panel.shape[1], there], scale, out=out[part, here])

    _over_rows(work, (image.panels, len(out), image.frame), workers, progress)


def change_rows(
    image: RowSpectra,
    change: Callable[[AnyArray, slice], T],
    count: int,
    workers: int,
) -> list[T]:
    """Transform rows that `transform_columns` brought back to pixels, change them, and back again.

    Parameters
    ----------
    image : RowSpectra
        Its panels' first rows are read and overwritten.
    change : callable
        ``change(pixels, rows)``, called from several threads at once: ``pixels``, (k, n), times
        the number of the frame's pixels, are to be changed in place.
    count : int
        How many rows.
    workers : int
        Threads to use. The answer is the same bit for bit.

    Returns
    -------
    list
        What it returns of the rows, in order.
    """

    def work(plan: ImageRowTransforms, by_panel: AnyArray, part: slice) -> T:
        np.copyto(by_panel, image.panels[:, part])
        plan.inverse()
        found = change(plan.rows[: by_panel.shape[1]], part)
        plan.forward()
        np.copyto(image.panels[:, part], by_panel)
        return found

    return _over_rows(work, (image.panels, count, image.frame), workers, None)


def filter_spectra(
    images: Sequence[Rows],
    pointwise: Pointwise[T],
    frame: Shape,
    out: AnyArray,
    *,
    origin: Shape = (0, 0),
    workers: int = 1,
    progress: Progress | None = None,
) -> list[T]:
    r"""Write a filter's output: the inverse transform of a function of images' transforms.

    Parameters
    ----------
    images : sequence of Rows
        Real images in one frame, for instance an image and a PSF.
    pointwise : callable
        The function, a panel of columns at a time: see `transform_columns`. What it leaves in
        ``spectra[0]`` is transformed back.
    frame : (int, int)
        Rows ``m`` and columns ``n`` of the transforms, of any size; those with small prime
        factors take least.
    out : (rows, cols) float32 or float64 array
        Overwritten. Its dtype is that of the transforms.
    origin : (int, int), optional
        Where ``out[0, 0]`` stands in the inverse transform, counted around: shifts and crops
        cost nothing, and rows that are not asked for are not transformed back.
    workers : int, optional
        Threads to use. The answer is the same bit for bit.
    progress : callable, optional
        Called as ``progress(done, total)`` in the calling thread; an exception stops the work.

    Returns
    -------
    list
        What ``pointwise`` returned, in the order of the columns.

    Notes
    -----
    Rows of every image forward; of each panel the columns forward, the function, the columns
    back; rows back. Memory: about that of every image in ``out``'s dtype, and scratch.

    Examples
    --------
    >>> import numpy as np
    >>> image, out = np.eye(4), np.empty((4, 4))
    >>> def double(spectra, columns, scratch):
    ...     spectra[0] *= 2
    >>> def read(top, rows):
    ...     rows[:] = image[top : top + len(rows)]
    >>> filter_spectra([Rows(read, 4)], double, (4, 4), out, origin=(1, 0))
    [None]
    >>> out.round(12).argmax(axis=1).tolist()
    [1, 2, 3, 0]
    """
    steps = stages(progress, len(images) + 2)
    halves = [
        row_spectra(image, frame, out.dtype, workers, next(steps), room=len(out) if i == 0 else 0)
        for i, image in enumerate(images)
    ]
    back = origin[0], len(out)
    found = transform_columns(halves, pointwise, workers, next(steps), back=back)
    invert_rows(halves[0], out, origin[1], workers, next(steps))
    return found


def forward(image: AnyArray, workers: int) -> AnyArray:
    """Return the transform of a real image, as ``scipy.fft.rfft2`` does.

    Parameters
    ----------
    image : (m, n) array
        Of real numbers, any layout. Transformed in float32 if it is that, else in float64.
    workers : int
        Threads to use. The answer is the same bit for bit.

    Returns
    -------
    (m, n // 2 + 1) complex64 or complex128 array
        ``X[k, l]``, the sum over pixels of ``x[r, c] * exp(-2j * pi * (k * r / m + l * c / n))``.
    """
    frame = image.shape[0], image.shape[1]
    dtype = np.dtype(np.float32 if image.dtype.type is np.float32 else np.float64)

    def load(top: int, rows: AnyArray) -> None:
        np.copyto(rows, image[top : top + len(rows)], casting="unsafe")

    half = row_spectra(Rows(load, frame[0]), frame, dtype, workers)
    out = np.empty((frame[0], frame[1] // 2 + 1), half.panels.dtype)

    def write(spectra: Sequence[AnyArray], columns: slice, _: Scratch) -> None:
        out[:, columns] = spectra[0].T

    transform_columns([half], write, workers)
    return out


def inverse(spectrum: AnyArray, shape: Shape, workers: int) -> AnyArray:
    """Return the real image of a transform, as ``scipy.fft.irfft2`` does.

    Parameters
    ----------
    spectrum : (m, n // 2 + 1) complex64 or complex128 array
        What `forward` returns, or a function of it.
    shape : (int, int)
        ``(m, n)``: the spectrum does not tell whether ``n`` is odd.
    workers : int
        Threads to use. The answer is the same bit for bit.

    Returns
    -------
    (m, n) float32 or float64 array
        The image.
    """
    dtype = spectrum.real.dtype
    out = np.empty(shape, dtype)
    empty = RowSpectra(_empty_panels(shape[0], shape, dtype), 0, shape, 0.0)

    def read(spectra: Sequence[AnyArray], columns: slice, _: Scratch) -> None:
        spectra[0][:] = spectrum[:, columns].T

    transform_columns([empty], read, workers, back=(0, shape[0]))
    invert_rows(empty, out, 0, workers)
    return out
