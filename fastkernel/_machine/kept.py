"""Attributes that are computed when they are first asked for, and kept."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


if TYPE_CHECKING:
    # For what checks types, one like any other.
    kept_property = property
else:

    class kept_property(Generic[T]):  # noqa: N801 (a decorator, as `property` is)
        """A property that is computed once and kept in the instance's ``__dict__``.

        `functools.cached_property` of Python 3.11 holds a lock while it computes, one for all
        instances of a class: a child that is forked meanwhile would wait for it for ever. This
        one takes none. Threads that ask at once may all compute, and all get what the first of
        them kept.
        """

        def __init__(self, compute: Callable[[Any], T]) -> None:
            self._compute, self._name = compute, compute.__name__
            self.__doc__ = compute.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self._name = name

        @overload
        def __get__(self, instance: None, owner: type | None = None) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: type | None = None) -> T: ...
        def __get__(self, instance: object | None, owner: type | None = None) -> "Self | T":
            if instance is None:
                return self
            found: T = instance.__dict__.setdefault(self._name, self._compute(instance))
            return found
