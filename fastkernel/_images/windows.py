"""What a pair of shapes says: which pixels of source and result belong together."""

from dataclasses import dataclass
from typing import NamedTuple, get_args

from fastkernel._typing import Boundary, Mode, Shape

MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class Window:
    """A pair of images as a "valid" problem on a virtually extended source.

    Output pixel ``t`` of the window is ``result[t + result_origin]`` and is made of the source's
    pixels ``t + source_origin + (i, j)`` with ``0 <= i < p`` and ``0 <= j < q``.

    Attributes
    ----------
    source_origin : (int, int)
        Where the virtual source begins, in pixels of the source; negative where it is extended.
    result_origin : (int, int)
        The first pixel of the result that is used.
    shape : (int, int)
        Size of the window, in pixels.
    boundary : str
        What stands beyond the source's frame.
    fill_value : float
        What stands there in place of the zeros of "zero", in units of the source.
    """

    source_origin: Shape
    result_origin: Shape
    shape: Shape
    boundary: Boundary
    fill_value: float = 0.0

    def source_pixel(self, row: int, col: int) -> Shape:
        """Return where a pixel of the virtual source stands in the source."""
        return self.source_origin[0] + row, self.source_origin[1] + col

    def result_pixel(self, row: int, col: int) -> Shape:
        """Return where a pixel of the window stands in the result."""
        return self.result_origin[0] + row, self.result_origin[1] + col

    @property
    def n_pixels(self) -> int:
        """Number of output pixels."""
        return self.shape[0] * self.shape[1]


class Within(NamedTuple):
    """Where a window stands in that of a whole image, of which it is a part.

    Attributes
    ----------
    origin : (int, int)
        Its first pixel, counted from the first of the whole's window.
    shape : (int, int)
        Rows and columns of the whole's window.
    """

    origin: Shape
    shape: Shape


def centre(kernel_shape: Shape) -> Shape:
    """Return the centre tap of "same": the middle one, the earlier of two."""
    return (kernel_shape[0] - 1) // 2, (kernel_shape[1] - 1) // 2


def window_of_mode(
    mode: Mode,
    source_shape: Shape,
    kernel_shape: Shape,
    boundary: Boundary | None,
    *,
    flipped: bool = True,
) -> Window:
    """Return the window of ``mode`` ("valid", "same" or "full"); None leaves the border out.

    The window is that of a convolution, or where the kernel is not ``flipped`` of a correlation:
    in "same" with an even size the centre tap then stands elsewhere.
    """
    (m, n), (p, q), (i, j) = source_shape, kernel_shape, centre(kernel_shape)
    rim = (p - 1 - i, q - 1 - j) if flipped else (i, j)
    if mode == "full":
        return Window((1 - p, 1 - q), (0, 0), (m + p - 1, n + q - 1), boundary or "zero")
    if mode == "same" and boundary is not None:
        return Window((-rim[0], -rim[1]), (0, 0), (m, n), boundary)
    return Window((0, 0), rim if mode == "same" else (0, 0), (m - p + 1, n - q + 1), "zero")


def window_of_pair(
    source_shape: tuple[int, ...],
    result_shape: tuple[int, ...],
    kernel_shape: Shape,
    boundary: Boundary | None,
) -> Window:
    """Return the window of a pair of images, told by their shapes.

    Raises
    ------
    ValueError
        If the shapes fit no mode, or the kernel is larger than the source where no pixel beyond
        its frame is known, or a border rule contradicts a "full" result.
    """
    (m, n), (p, q) = source_shape, kernel_shape
    shapes: dict[Mode, Shape] = {
        "same": (m, n),
        "valid": (m - p + 1, n - q + 1),
        "full": (m + p - 1, n + q - 1),
    }
    modes = [mode for mode, shape in shapes.items() if shape == result_shape]
    extended = "full" in modes or ("same" in modes and boundary is not None)
    if (p > m or q > n) and not extended:
        msg = (
            f"kernel_shape must fit inside source: got {kernel_shape} for source {source_shape}; "
            f"use at most {source_shape}"
        )
        raise ValueError(msg)
    if not modes:
        msg = (
            f"result must have one of three shapes for source {source_shape} and kernel_shape "
            f"{kernel_shape}: {shapes['same']} (same), {shapes['valid']} (valid) or "
            f"{shapes['full']} (full); got {result_shape}"
        )
        raise ValueError(msg)
    if modes[0] == "full" and boundary not in (None, "zero"):
        msg = (
            f"boundary must be None or 'zero' for a result of full shape {result_shape}, which "
            f"knows zeros beyond the source's frame; got {boundary!r}"
        )
        raise ValueError(msg)
    return window_of_mode(modes[0], (m, n), kernel_shape, boundary)
