"""The images of a fit, for as long as somebody else holds them."""

import weakref
from typing import Any

import numpy as np

from fastkernel._typing import AnyArray

# Pixels that tell whether an image was overwritten, along each of its sides.
_SAMPLED = 8


class WeakImages:
    """A source and a result, which may be gone when they are asked for.

    Parameters
    ----------
    source, result : arrays, optional
        What was fitted; what is read by slices is not remembered.

    Notes
    -----
    Copies that do not share it, and pickles, remember nothing.
    """

    def __init__(self, source: Any = None, result: Any = None) -> None:
        self._source, self._result = _weak(source), _weak(result)

    def recalled(self) -> tuple[AnyArray, AnyArray] | None:
        """Return source and result; None if one is gone, or holds something else now."""
        if self._source is None or self._result is None:
            return None
        source, result = self._source.recalled(), self._result.recalled()
        return None if source is None or result is None else (source, result)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


def _weak(image: Any) -> "_WeakArray | None":
    image = getattr(image, "image", image)  # of one whose bad pixels are read as zeros
    return _WeakArray(image) if isinstance(image, np.ndarray) else None


class _WeakArray:
    """An array that may be gone.

    Parameters
    ----------
    array : array
        A view lives as long as the array that it is of: ``image[10:90]`` has no life of its own.
    """

    __slots__ = ("_owner", "_places", "_sample")

    def __init__(self, array: AnyArray) -> None:
        owner, self._places = array, None
        if type(array) is np.ndarray and isinstance(array.base, np.ndarray):
            owner = array.base
            # NumPy moves the memory of no array that is weakly referenced.
            self._places = array.__array_interface__
        self._owner = weakref.ref(owner)
        self._sample = _sample(array)

    def recalled(self) -> AnyArray | None:
        """Return the array; None if it is gone, or holds something else now."""
        array: AnyArray | None = self._owner()
        if array is not None and self._places is not None:
            array = np.asarray(_View(array, self._places))
        return array if array is not None and _sample(array) == self._sample else None


class _View:
    """A part of an array's memory, which the array keeps alive."""

    def __init__(self, owner: AnyArray, places: dict[str, Any]) -> None:
        self.owner, self.__array_interface__ = owner, places


def _sample(image: AnyArray) -> bytes:
    """Return some pixels of an image."""
    rows, cols = image.shape
    part = image[
        rows // (2 * _SAMPLED) :: -(-rows // _SAMPLED),
        cols // (2 * _SAMPLED) :: -(-cols // _SAMPLED),
    ]
    return part.tobytes()
