"""Compilation that a broken cache cannot stop."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core.errors import NumbaError

_warned = False


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
    """A compiled function that falls back to compiling in memory.

    Loops raise nothing themselves, so an exception that is not Numba's own verdict on the code
    comes from its disk cache: no folder to write to, a truncated or foreign file, a full disk.
    """

    def __init__(self, function: Callable[..., Any], flags: dict[str, Any]) -> None:
        self._function = function
        self._flags = flags
        functools.update_wrapper(self, function)
        try:
            self.compiled = njit(cache=True, **flags)(function)
        except RuntimeError as reason:  # no place for a cache
            self._compile_in_memory(reason)

    def _compile_in_memory(self, reason: BaseException) -> None:
        _warn_once(reason)
        self.compiled = njit(**self._flags)(self._function)

    def __call__(self, *args: Any) -> Any:
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
