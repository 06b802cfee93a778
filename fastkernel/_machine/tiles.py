"""Jobs on threads: the only place where fastkernel starts or stops one.

The number of jobs never depends on the number of workers and results come back in the order of
the jobs, so the answer is the same bit for bit whoever did the work.
"""

import atexit
import ctypes
import math
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import DTypeLike

from fastkernel._typing import AnyArray, Progress, Shape

T = TypeVar("T")
S = TypeVar("S")

MAX_THREADS = 32

_LINE_BYTES = 64

Call: TypeAlias = Callable[[], object]

# Threads that wait for a call, each by the queue that it waits at, and how many were started.
# No lock guards them, so none can be held by a thread that a forked child does not have.
_idle: deque[SimpleQueue[Call]] = deque()
_started: list[threading.Thread] = []

# Calls that are waited for, or were interrupted and go on.
_calling: set[threading.Thread] = set()


def _forget_threads() -> None:
    """Start afresh in a forked child, which has none of its parent's threads."""
    for kept in (_idle, _started, _calling):
        kept.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def _serve(inbox: SimpleQueue[Call]) -> None:
    while True:
        inbox.get()()
        _idle.append(inbox)


def _hand_over(call: Call) -> bool:
    """Have another thread make a call that raises nothing; tell whether one was to be had."""
    try:
        _idle.pop().put(call)
    except IndexError:
        if len(_started) >= MAX_THREADS:
            return False
        inbox: SimpleQueue[Call] = SimpleQueue()
        inbox.put(call)
        thread = threading.Thread(target=_serve, args=(inbox,), name="fastkernel", daemon=True)
        if not _start(thread):
            return False
        _started.append(thread)
    return True


def _start(thread: threading.Thread) -> bool:
    """Start a thread; tell whether the system, or the end of the interpreter, let it be."""
    try:
        thread.start()
    except RuntimeError:
        return False
    return True


@atexit.register
def _outlive_calls() -> None:
    """Keep the libraries that interrupted calls are in until they end, or the process does.

    The destructors of BLAS free what its calls work in. So either they are left out when the
    process ends, which is what ``_exit`` is for, or the calls are waited for. Those that are no
    daemons Python has waited for already, unless Ctrl-C was pressed then. Pressed here, it ends
    the process as it ends any program.
    """
    left = [thread for thread in list(_calling) if thread.is_alive()]
    if left and all(thread.daemon for thread in left) and _end_without_destructors():
        return
    try:
        for thread in left:
            thread.join()
    except KeyboardInterrupt:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)


def _end_without_destructors() -> bool:
    """Have the process end by ``_exit`` with the status it will have; tell whether it can be."""
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "on_exit"):
        return False
    # Called as ``_exit(status, None)`` after Python's own end and before any destructor.
    return bool(library.on_exit(library._exit, None) == 0)


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def told_workers() -> int | None:
    """Return how many threads the environment asks for; None if it does not.

    Raises
    ------
    ValueError
        If that is no positive integer.
    """
    told = os.environ.get("FASTKERNEL_NUM_THREADS", "").strip()
    if not told:
        return None
    if not (told.isascii() and told.isdecimal() and int(told) > 0):
        msg = f"FASTKERNEL_NUM_THREADS must be a positive integer, got {told!r}"
        raise ValueError(msg)
    return int(told)


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

    def table(self) -> AnyArray:
        """Return them all, an (n, 4) array."""
        (rows, cols), (height, width) = self._shape, self._tile_shape
        row, col = np.divmod(np.array(self._numbers), self._across)
        top, left = row * height, col * width
        sides = np.minimum(height, rows - top), np.minimum(width, cols - left)
        return np.stack([top, left, *sides], axis=1)


class Scratch:
    """The working space of one thread, made when it is first needed and used again."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, np.dtype[Any]], AnyArray] = {}
        self._last: tuple[Any, Any] = None, None

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> AnyArray:
        """Return an array of ``shape`` with arbitrary content, of a bad image maybe NaN."""
        key, size = (name, np.dtype(dtype)), math.prod(shape)
        found = self._arrays.get(key)
        if found is None or found.size < size:
            found = self._arrays[key] = aligned_zeros(size, key[1])
        return found[:size].reshape(shape)

    def rows(
        self, name: str, shape: tuple[int, ...], cols: int, dtype: DTypeLike = np.float64
    ) -> AnyArray:
        """Return rows for ``cols`` pixels, arbitrary there and zero beyond, where vectors reach."""
        found = self.array(name, shape, dtype)
        found[..., cols:] = 0
        return found

    def again(self, key: object, make: Callable[[], T]) -> T:
        """Return what ``make()`` made of this space, kept while the same ``key`` comes again."""
        if self._last[0] != key:
            self._last = key, make()
        found: T = self._last[1]
        return found


_own = threading.local()


def own_scratch() -> Scratch:
    """Return a working space that the calling thread keeps for as long as it lives."""
    try:
        found: Scratch = _own.scratch
    except AttributeError:
        found = _own.scratch = Scratch()
    return found


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


def wait_for(call: Callable[[], T], *, abandon: bool = False) -> T:
    """Return ``call()``, made by another thread, so that Ctrl-C need not wait for it.

    For what others compiled and nothing can stop: interrupted, it goes on and is forgotten. The
    end of the process waits for it, unless it may ``abandon`` it: what is plain C and Fortran
    can be left at any point, which C++ cannot. The call has to release the GIL. Only the main
    thread hears Ctrl-C, so any other makes the call itself, as this one does where the system
    has no thread left.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    found: list[T] = []
    raised: list[BaseException] = []
    done = threading.Event()

    def make() -> None:
        try:
            found.append(call())
        except BaseException as error:  # raised below
            raised.append(error)
        finally:
            _calling.discard(threading.current_thread())
            done.set()

    thread = threading.Thread(target=make, name="fastkernel call", daemon=abandon)
    _calling.add(thread)
    if not _start(thread):
        _calling.discard(thread)
        return call()
    # On some systems only a wait of limited time hears Ctrl-C.
    while not done.wait(0.05):
        pass
    if raised:
        raise raised.pop()
    return found.pop()


def never() -> bool:
    """Say that nobody has stopped a job."""
    return False


class _Crew:
    """The helpers of one run: each comes in, works and leaves; nobody waits for one outside."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop, self._lock, self._left = stop, threading.Lock(), threading.Event()
        self._closed, self._inside = False, 0
        self.errors: list[BaseException] = []

    def help(self, work: Call) -> None:
        """Do the work of a helper, unless the run is over."""
        with self._lock:
            if self._closed:
                return
            self._inside += 1
        try:
            work()
        except BaseException as error:  # raised by the thread that waits
            self.errors.append(error)
        finally:
            with self._lock:
                self._inside -= 1
                if self._closed and not self._inside:
                    self._left.set()

    def dismiss(self) -> None:
        """Let nobody in any more, and wait until all have left, however often Ctrl-C is pressed."""
        pressed: BaseException | None = None
        while True:
            try:
                with self._lock:
                    self._closed = True
                    if not self._inside:
                        break
                self._left.wait()
                break
            except BaseException as error:  # raised below
                self._stop.set()
                pressed = error
        if pressed is not None:
            raise pressed


def run_jobs(
    jobs: Sequence[Callable[[S, Callable[[], bool]], T]],
    make_scratch: Callable[[], S],
    workers: int,
    progress: Progress | None = None,
) -> list[T]:
    """Run ``job(scratch, stopped)`` for every job and return the results in order.

    The calling thread works too, so a lack of threads, be they busy, not allowed by the system,
    or refused because the interpreter ends, slows a call and never blocks or fails it. An
    exception in any job, Ctrl-C included, stops the others at their next look at ``stopped()``
    and is raised here once they have stopped: nothing is written to after that.

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
            found.append(job(scratch, never))
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

    crew = _Crew(stop)
    try:
        try:
            for _ in range(min(workers, total, MAX_THREADS) - 1):
                if not _hand_over(partial(crew.help, take_jobs)):
                    break
            take_jobs(progress)
        except BaseException:
            stop.set()
            raise
        finally:
            crew.dismiss()
    except BaseException:
        # Ctrl-C between two lines of the above.
        stop.set()
        raise
    finally:
        crew.dismiss()
    if crew.errors:
        raise crew.errors[0]
    if progress is not None:
        progress(total, total)
    return [results[number] for number in range(total)]
