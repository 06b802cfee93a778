"""Names of the types that the whole library uses."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.float64]
AnyArray: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, int]
Images: TypeAlias = ArrayLike | Sequence[ArrayLike]
Boundary: TypeAlias = Literal["zero", "circular", "replicate", "symmetric", "mirror"]
Progress: TypeAlias = Callable[[int, int], object]
