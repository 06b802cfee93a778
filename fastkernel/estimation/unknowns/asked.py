"""What is known before a fit, and what it is to find."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, TypeAlias, get_args

from fastkernel._images.checks import as_boundary, as_choice, as_degree, as_kernel_shape
from fastkernel._typing import Boundary, LightOrAuto, Shape

Auto: TypeAlias = Literal["auto"]

LIGHTS: tuple[LightOrAuto, ...] = get_args(LightOrAuto)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known before a fit, and what is to be found: "auto".

    Attributes
    ----------
    kernel_shape : (int, int), "auto" or None
        Rows and columns of the kernel; None for those of the images.
    boundary : str, "auto" or None
        What stands beyond the source's frame; None where that is not known.
    background : int, "auto" or None
        Degree of what stands beside the convolution.
    offset : (int, int), "auto" or None
        By how much the result was moved.
    light : {"stored", "srgb", "auto"}
        What levels stand for.
    """

    kernel_shape: Shape | Auto | None
    boundary: Boundary | Auto | None = None
    background: int | Auto | None = None
    offset: Shape | Auto | None = None
    light: LightOrAuto = "stored"

    @property
    def plain(self) -> bool:
        """Whether there is nothing to be found, moved or decoded."""
        found = "auto" in (self.kernel_shape, self.boundary, self.background, self.light)
        return not found and self.offset in (None, (0, 0)) and self.light == "stored"


def as_asked(kernel_shape: Any, boundary: Any, background: Any, offset: Any, light: Any) -> Asked:
    """Return the arguments of `estimate_kernel` that may be "auto", checked one by one.

    Raises
    ------
    TypeError, ValueError
        If one is out of its range, or a result that was moved is to have a border rule.
    """

    def checked(value: Any, check: Callable[[Any], Any]) -> Any:
        return value if unless_auto(value) is None else check(value)

    asked = Asked(
        checked(kernel_shape, as_kernel_shape),
        checked(boundary, as_boundary),
        checked(background, as_degree),
        checked(offset, as_offset),
        as_choice(light, "light", LIGHTS),
    )
    if asked.offset not in (None, "auto", (0, 0)) and asked.boundary not in (None, "auto"):
        msg = (
            f"boundary must be None for offset={asked.offset}: the frame of a result that was "
            f"moved is not that of its source; got {boundary!r}"
        )
        raise ValueError(msg)
    return asked


def as_offset(value: Any) -> Shape:
    """Return ``value`` as the rows and columns by which a result was moved."""
    whole = isinstance(value, tuple | list) and len(value) == 2
    if not whole or not all(isinstance(i, Integral) and not isinstance(i, bool) for i in value):
        msg = (
            "offset must be None, 'auto' or two integers (rows, cols), by which the result was "
            f"moved down and to the right, got {value!r}"
        )
        raise ValueError(msg)
    return int(value[0]), int(value[1])


def unless_auto(value: Any) -> Any:
    """Return what is known: ``value``, None where it says that something is to be found."""
    return None if isinstance(value, str) and value == "auto" else value
