"""Compilation that neither a broken cache, nor Ctrl-C, nor a fork can stop."""

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any

from fastkernel._loops._unbroken import hold_across_forks, out_of_reach

_warned = False


def _wake_numba() -> None:
    """Import Numba and have it make what it needs for its first function."""
    importlib.import_module("numba").njit(lambda: None)


out_of_reach(_wake_numba)

from llvmlite.binding import ffi  # noqa: E402
from numba import njit  # noqa: E402
from numba.core.compiler_lock import global_compiler_lock  # noqa: E402
from numba.core.errors import NumbaError  # noqa: E402

# Who compiles takes them in this order.
hold_across_forks(*filter(None, (global_compiler_lock, getattr(ffi.lib, "_lock", None))))


def _warn_once(reason: BaseException) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"fastkernel compiles its loops in memory: Numba's cache is of no use ({reason!r}); "
            "set NUMBA_CACHE_DIR to a folder of your own to keep them",
            RuntimeWarning,
            stacklevel=4,
        )


class Loop:
    """A compiled function that mends its cache, or else falls back to compiling in memory.

    Loops raise nothing themselves, so an exception that is not Numba's own verdict on the code
    comes from its disk cache: no folder to write to, a truncated or foreign file, a full disk.
    """

    def __init__(self, function: Callable[..., Any], flags: dict[str, Any]) -> None:
        self._function = function
        self._flags = flags
        functools.update_wrapper(self, function)
        try:
            self.compiled = self._dispatcher(cache=True)
        except RuntimeError as reason:  # no place for a cache
            self._compile_in_memory(reason)

    def _dispatcher(self, *, cache: bool) -> Any:
        made: Any = njit(cache=cache, **self._flags)(self._function)
        # What it calls for types that it meets for the first time; without the JIT there is none.
        compile_types = getattr(made, "compile", None)
        if compile_types is not None:
            made.compile = lambda types: out_of_reach(functools.partial(compile_types, types))
        return made

    def _mended(self, reason: BaseException) -> bool:
        """Forget what the cache holds of this loop, unless the disk itself is what fails."""
        if isinstance(reason, OSError) or not hasattr(self.compiled, "recompile"):
            return False
        try:
            fresh = self._dispatcher(cache=True)
            # Of a function that is not compiled yet, that clears the cache and does nothing else.
            fresh.recompile()
        except (OSError, RuntimeError):
            return False
        self.compiled = fresh
        return True

    def _compile_in_memory(self, reason: BaseException) -> None:
        _warn_once(reason)
        self.compiled = self._dispatcher(cache=False)

    def __call__(self, *args: Any) -> Any:
        try:
            return self.compiled(*args)
        except NumbaError:
            raise
        except Exception as reason:
            if not self._mended(reason):
                self._compile_in_memory(reason)
        try:
            return self.compiled(*args)
        except NumbaError:
            raise
        except Exception as reason:
            self._compile_in_memory(reason)
            return self.compiled(*args)


def loop(**flags: Any) -> Callable[[Callable[..., Any]], Loop]:
    """Return a decorator that compiles with ``flags``, which stand in the file of the loops."""
    return lambda function: Loop(function, flags)
