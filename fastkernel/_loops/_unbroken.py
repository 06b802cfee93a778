"""What neither Ctrl-C nor a fork may break off: a forked child has no thread to go on with it."""

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

T = TypeVar("T")


def hold_across_forks(*locks: AbstractContextManager[Any]) -> None:
    """Hold locks while a process forks, so that they are free in the child.

    Parameters
    ----------
    *locks : context manager
        Reentrant locks, in the order in which they are taken elsewhere.
    """
    # By thread: locks may come to be held across forks while another thread forks, which then
    # has none of them to let go of.
    held: dict[int, list[AbstractContextManager[Any]]] = {}

    def hold() -> None:
        mine = held[threading.get_ident()] = []
        pressed: KeyboardInterrupt | None = None
        for lock in locks:
            while True:
                try:
                    lock.__enter__()
                    mine.append(lock)
                    break
                except KeyboardInterrupt as error:  # raised when all are held
                    pressed = error
        if pressed is not None:
            raise pressed

    def let_go() -> None:
        for lock in reversed(held.pop(threading.get_ident(), [])):
            lock.__exit__(None, None, None)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=hold, after_in_parent=let_go, after_in_child=let_go)


def out_of_reach(call: Callable[[], T]) -> T:
    """Return ``call()``, made out of reach of Ctrl-C, which leaves compilers and imports in pieces.

    Only the main thread hears Ctrl-C, so another one makes the call. The main thread waits, and
    may be interrupted; the call then goes on to its end. Where no other thread is to be had the
    main one makes it, and hears of Ctrl-C afterwards.
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
            done.set()

    try:
        # Not a daemon: the interpreter is not taken down around it.
        threading.Thread(target=make, name="fastkernel first call", daemon=False).start()
    except RuntimeError:  # a limit of threads, or the end of the interpreter
        return _held_back(call)
    # On some systems only a wait of limited time hears Ctrl-C.
    while not done.wait(0.05):
        pass
    if raised:
        raise raised.pop()
    return found.pop()


def _held_back(call: Callable[[], T]) -> T:
    """Return ``call()``, made by the main thread, which hears of Ctrl-C when it is done."""
    import signal  # a millisecond of every import of the package, for what is hardly ever needed

    heard = signal.getsignal(signal.SIGINT)
    if not callable(heard):  # nothing in Python hears it
        return call()
    pressed: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        return call()
    finally:
        signal.signal(signal.SIGINT, heard)
        if pressed:
            signal.raise_signal(signal.SIGINT)
