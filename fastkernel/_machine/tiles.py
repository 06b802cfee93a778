"""Jobs on threads: the only place where fastkernel starts or stops one.

The number of jobs never depends on the number of workers and results come back in the order of
the jobs, so the answer is the same bit for bit whoever did the work.
"""

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import DTypeLike

from fastkernel._typing import AnyArray, Progress, Shape

T = TypeVar("T")
S = TypeVar("S")

MAX_THREADS = 32

_LINE_BYTES = 64

_lock = threading.Lock()
_executor: ThreadPoolExecutor | None = None


def _forget_executor() -> None:
    """Start afresh in a forked child, which inherits the pool but not its threads."""
    global _executor, _lock
    _executor, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_executor)


def _shared_executor() -> ThreadPoolExecutor:
    global _executor
    with _lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="fastkernel")
        return _executor


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def split(length: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield the half-open parts of ``range(length)`` that hold at most ``most`` each.

    Examples
    --------
    >>> list(split(5, 2))
    [(0, 2), (2, 4), (4, 5)]
    """
    for start in range(0, length, most):
        yield start, min(start + most, length)


def shares(items: Sequence[T], most: int, together: int = 1) -> list[Sequence[T]]:
    """Return ``items`` in at most ``most`` consecutive parts, of nearly one size.

    All parts but the last hold a multiple of ``together``.
    """
    size = together * max(1, -(-len(items) // (most * together)))
    return [items[start:stop] for start, stop in split(len(items), size)]


Tile: TypeAlias = tuple[int, int, int, int]


class Tiles(Sequence[Tile]):
    """The tiles of an image as ``(top, left, height, width)``, row by row, none of them stored.

    Parameters
    ----------
    shape, tile_shape : (int, int)
        Size of the image, and of its tiles but for those at the far sides.

    Examples
    --------
    >>> list(Tiles((2, 5), (2, 3)))
    [(0, 0, 2, 3), (0, 3, 2, 2)]
    """

    def __init__(self, shape: Shape, tile_shape: Shape, numbers: range | None = None) -> None:
        self._shape, self._tile_shape = shape, tile_shape
        self._across = -(-shape[1] // tile_shape[1])
        self._numbers = range(-(-shape[0] // tile_shape[0]) * self._across)
        if numbers is not None:
            self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Tile: ...
    @overload
    def __getitem__(self, index: slice) -> "Tiles": ...
    def __getitem__(self, index: int | slice) -> "Tile | Tiles":
        if isinstance(index, slice):
            return Tiles(self._shape, self._tile_shape, self._numbers[index])
        (rows, cols), (height, width) = self._shape, self._tile_shape
        row, col = divmod(self._numbers[index], self._across)
        top, left = row * height, col * width
        return top, left, min(height, rows - top), min(width, cols - left)


class Scratch:
    """The working space of one thread, made when it is first needed and used again."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, np.dtype[Any]], AnyArray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> AnyArray:
        """Return an array of ``shape`` with finite, otherwise arbitrary content."""
        key, size = (name, np.dtype(dtype)), math.prod(shape)
        found = self._arrays.get(key)
        if found is None or found.size < size:
            found = self._arrays[key] = aligned_zeros(size, key[1])
        return found[:size].reshape(shape)


class Scratches:
    """Working spaces that outlast a run, for one that follows."""

    def __init__(self) -> None:
        self._idle: list[Scratch] = []
        self._lent: list[Scratch] = []

    def lend(self) -> Scratch:
        """Return a working space that nobody else has."""
        try:
            scratch = self._idle.pop()
        except IndexError:
            scratch = Scratch()
        self._lent.append(scratch)
        return scratch

    def regain(self) -> None:
        """Take all back that were lent."""
        self._idle += self._lent
        self._lent = []


def aligned_zeros(size: int, dtype: np.dtype[Any]) -> AnyArray:
    """Return zeros that begin with a cache line, so that no vector of them lies across two."""
    spare = np.zeros(size * dtype.itemsize + _LINE_BYTES, np.uint8)
    start = -spare.__array_interface__["data"][0] % _LINE_BYTES
    return spare[start : start + size * dtype.itemsize].view(dtype)


def wait_for(call: Callable[[], T]) -> T:
    """Return ``call()``, made by another thread, so that Ctrl-C need not wait for it.

    For what others compiled and nothing can stop: interrupted, it goes on and is forgotten.
    """
    future = _shared_executor().submit(call)
    while True:
        wait([future], timeout=0.05)
        if future.done():
            return future.result()


def _never() -> bool:
    return False


def run_jobs(
    jobs: Sequence[Callable[[S, Callable[[], bool]], T]],
    make_scratch: Callable[[], S],
    workers: int,
    progress: Progress | None = None,
) -> list[T]:
    """Run ``job(scratch, stopped)`` for every job and return the results in order.

    The calling thread works too, so a pool that is busy or full slows a call and never blocks
    it. An exception in any job, Ctrl-C included, stops the others at their next look at
    ``stopped()`` and is raised here.

    Parameters
    ----------
    jobs : sequence of callable
        Called from several threads at once, each with a scratch that it has to itself.
    make_scratch : callable
        Makes the working space of one thread.
    workers : int
        Threads to use, the calling one included.
    progress : callable, optional
        Called as ``progress(done, total)`` in the calling thread.

    Returns
    -------
    list
        One result a job.
    """
    total = len(jobs)
    if min(workers, total) <= 1:
        scratch = make_scratch()
        found: list[T] = []
        for job in jobs:
            found.append(job(scratch, _never))
            if progress is not None:
                progress(len(found), total)
        return found
    queue: SimpleQueue[int] = SimpleQueue()
    for number in range(total):
        queue.put(number)
    results: dict[int, T] = {}
    stop = threading.Event()

    def take_jobs(report: Progress | None = None) -> None:
        scratch = make_scratch()
        try:
            while not stop.is_set():
                try:
                    number = queue.get_nowait()
                except Empty:
                    return
                results[number] = jobs[number](scratch, stop.is_set)
                if report is not None:
                    report(len(results), total)
        except BaseException:
            stop.set()
            raise

    pool = _shared_executor()
    helpers = [pool.submit(take_jobs) for _ in range(min(workers, total, MAX_THREADS) - 1)]
    try:
        take_jobs(progress)
    finally:
        for helper in helpers:
            helper.cancel()
        wait(helpers)
    for helper in helpers:
        if not helper.cancelled():
            helper.result()
    if progress is not None:
        progress(total, total)
    return [results[number] for number in range(total)]
