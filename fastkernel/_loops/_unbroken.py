"""What neither Ctrl-C nor a fork may break off: a forked child has no thread to go on with it."""

import importlib
import logging  # noqa: F401  # what it does before a fork has to be registered before ours
import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")

# An import takes locks of others, logging's and the compiler's. So a fork takes this one before
# all of them: whoever waits for an import to end must hold nothing that the import may wait for.
_importing = threading.RLock()
_locks: list[AbstractContextManager[Any]] = [_importing]


def hold_across_forks(*locks: AbstractContextManager[Any]) -> None:
    """Hold locks while a process forks, so that they are free in the child.

    Parameters
    ----------
    *locks : context manager
        Reentrant locks, in the order in which they are taken elsewhere. A fork takes them before
        those that came earlier.
    """
    # A fork that waits for the import that calls this finds them next.
    _locks[1:1] = locks


# By thread: locks may come to be held across forks while another thread forks, which then has
# none of them to let go of.
_held: dict[int, list[AbstractContextManager[Any]]] = {}


def _hold() -> None:
    mine = _held[threading.get_ident()] = []
    pressed: KeyboardInterrupt | None = None
    for lock in _locks:
        while True:
            try:
                lock.__enter__()
                mine.append(lock)
                break
            except KeyboardInterrupt as error:  # raised when all are held
                pressed = error
    if pressed is not None:
        raise pressed


def _let_go() -> None:
    for lock in reversed(_held.pop(threading.get_ident(), [])):
        lock.__exit__(None, None, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_let_go)


def import_whole(name: str) -> ModuleType:
    """Import a module that neither Ctrl-C nor a fork cuts in two.

    Parameters
    ----------
    name : str
        Its whole name.
    """

    def load() -> ModuleType:
        with _importing:
            return importlib.import_module(name)

    return out_of_reach(load)


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
