"""What was found before a fit, and the words for it."""

from dataclasses import dataclass, fields

from fastkernel.estimation.unknowns.background import BackgroundFound
from fastkernel.estimation.unknowns.border import BorderFound
from fastkernel.estimation.unknowns.kernel_shape import LARGEST, KernelShapeSelection
from fastkernel.estimation.unknowns.light import LightFound
from fastkernel.estimation.unknowns.offset import OffsetFound


@dataclass(frozen=True, slots=True)
class Findings:
    """What was looked for, and how surely it was found; None for what was not.

    Each holds the numbers that it rests on.

    Attributes
    ----------
    kernel_shape : KernelShapeSelection or None
    boundary : BorderFound or None
    background : BackgroundFound or None
    offset : OffsetFound or None
    light : LightFound or None
    """

    kernel_shape: KernelShapeSelection | None = None
    boundary: BorderFound | None = None
    background: BackgroundFound | None = None
    offset: OffsetFound | None = None
    light: LightFound | None = None

    @property
    def any(self) -> bool:
        """Whether anything was looked for."""
        return any(getattr(self, field.name) is not None for field in fields(self))

    def lines(self) -> dict[str, str]:
        """Return in plain words what was found, by the name of what it is."""
        lines = {}
        if self.kernel_shape is not None:
            lines["size"] = f"found; {_size(self.kernel_shape)}"
        if self.offset is not None:
            lines["offset"] = _offset(self.offset)
        if self.light is not None and self.light.light == "srgb":
            more = f"stored values would leave {self.light.ratio:.3g} times as much"
            lines["light"] = f"linear (sRGB decoded), found; {more}"
        if self.background is not None and self.background.degree is not None:
            kind = ("a level", "a plane", "a polynomial of degree 2")[self.background.degree]
            less = f"without it {self.background.gain:.3g} times as much would be left"
            lines["beside the convolution"] = f"{kind}, found; {less}"
        if self.boundary is not None and self.boundary.rim_rms:
            lines["border"] = _border(self.boundary)
        return lines


def _size(selection: KernelShapeSelection) -> str:
    if selection.shape == (1, 1):
        return "a single tap explains as much as any kernel"
    more = f"{selection.gain:.3g} times as much" if selection.gain >= 1.005 else "hardly more"
    # Where the shapes of the files tell the largest it cannot be larger.
    limit = "; the largest that was tried, so it may be larger" * (
        selection.at_limit and max(selection.largest) == LARGEST
    )
    return f"smaller ones leave {more}{limit}"


def _offset(place: OffsetFound) -> str:
    if not place.matches:
        return "not found: nothing in the result clearly goes with the source"
    if place.offset == (0, 0):
        return "none"
    row, col = place.offset
    surely = "" if place.sure else ", not surely"
    down, right = "down" if row >= 0 else "up", "right" if col >= 0 else "left"
    return (
        f"found{surely}: the result was moved {down} by {abs(row)} and to the {right} by "
        f"{abs(col)}; what both have in common was fitted"
    )


def _border(border: BorderFound) -> str:
    if border.boundary is None:
        return "made by none of the rules that are known"
    return f"{' or '.join(border.alike)}, found{'' if border.sure else ', not surely'}"
