"""Names of the types that the whole library uses, and of the choices that its functions offer."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.float64]
AnyArray: TypeAlias = NDArray[Any]
BoolArray: TypeAlias = NDArray[np.bool_]
Shape: TypeAlias = tuple[int, int]
Images: TypeAlias = ArrayLike | Sequence[ArrayLike]
# One number a pixel of images, None for an image without.
Pixels: TypeAlias = ArrayLike | Sequence[ArrayLike | None]
Progress: TypeAlias = Callable[[int, int], object]

Boundary: TypeAlias = Literal["zero", "circular", "replicate", "symmetric", "mirror"]
# The names of other libraries that say which rule they mean; OpenCV's are numbers as well.
Border: TypeAlias = (
    Boundary
    | Literal["constant", "grid-constant", "fill", "wrap", "grid-wrap", "periodic"]
    | Literal["edge", "nearest", "extend", "symm", "grid-mirror"]
    | Literal["reflect101", "reflect_101", "BORDER_REFLECT101", "BORDER_REFLECT_101"]
    | Literal["BORDER_CONSTANT", "BORDER_REPLICATE", "BORDER_REFLECT", "BORDER_WRAP"]
    | Literal["BORDER_DEFAULT"]
    | int
)
# What restorations may take to stand around the image: nothing that is known, also.
BorderOrUnknown: TypeAlias = Border | Literal["unknown"]
Surround: TypeAlias = BorderOrUnknown | Literal["edge_taper", "auto"]
Balance: TypeAlias = float | Literal["gcv"]
Noise: TypeAlias = float | Literal["auto", "poisson"]

Mode: TypeAlias = Literal["full", "same", "valid"]
MatrixFormat: TypeAlias = Literal["csr", "coo", "dense"]
ConvolutionMethod: TypeAlias = Literal["auto", "direct", "separable", "fft"]

NanPolicy: TypeAlias = Literal["raise", "omit"]
Saturation: TypeAlias = Literal["auto"] | tuple[float | None, float | None]
Errors: TypeAlias = Literal["even", "robust"]

Method: TypeAlias = Literal["lstsq", "fft", "lad", "richardson_lucy"]
Engine: TypeAlias = Literal["auto", "integer", "float", "fft"]
LstsqSolver: TypeAlias = Literal["auto", "minimum_norm", "gradient_descent", "fista"]
LadSolver: TypeAlias = Literal["auto", "linear_programming", "reweighted"]
Solver: TypeAlias = LstsqSolver | LadSolver
Symmetry: TypeAlias = Literal["even", "rotation", "left_right", "up_down", "mirror", "square"]
BorderOrAuto: TypeAlias = Border | Literal["auto"]
BackgroundOrAuto: TypeAlias = Literal["constant", "auto"] | int
KernelShape: TypeAlias = Shape | int | Literal["auto"]
Light: TypeAlias = Literal["stored", "srgb"]
LightOrAuto: TypeAlias = Literal["stored", "srgb", "auto"]
Offset: TypeAlias = Shape | Literal["auto"]
Norm: TypeAlias = Literal["max", "sum"]
ReportFormat: TypeAlias = Literal["text", "html"]
Background: TypeAlias = Literal["constant"] | int
Ridge: TypeAlias = float | Literal["gcv"] | tuple[Literal["smooth"], float | Literal["gcv"]]

InverseMethod: TypeAlias = Literal["lstsq", "matrix", "fft"]
InverseSolver: TypeAlias = Literal[
    "auto", "cholesky", "conjugate_gradients", "gradient_descent", "fista"
]
