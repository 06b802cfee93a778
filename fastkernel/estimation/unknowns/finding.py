"""All that is to be found before a fit, one thing after the other."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Literal, TypeAlias, get_args

from fastkernel._images.checks import as_boundary, as_choice, as_degree, as_kernel_shape
from fastkernel._machine.run import Run
from fastkernel._typing import Boundary, Shape
from fastkernel.estimation.problem import Problem
from fastkernel.estimation.unknowns.background import BackgroundFound, find_background
from fastkernel.estimation.unknowns.border import BorderFound, find_border
from fastkernel.estimation.unknowns.clipping import without_clipped
from fastkernel.estimation.unknowns.kernel_shape import KernelShapeSelection, has_room, selected
from fastkernel.estimation.unknowns.light import LightFound, decoded, find_light
from fastkernel.estimation.unknowns.matching import Crop, crops_of, fitted_to, largest_shape, moved
from fastkernel.estimation.unknowns.offset import OffsetFound, find_offset

Auto: TypeAlias = Literal["auto"]
Light: TypeAlias = Literal["stored", "srgb", "auto"]

LIGHTS: tuple[Light, ...] = get_args(Light)

# The longest side of kernels that are looked for where nothing is said of it.
LARGEST = 15


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
    light: Light = "stored"

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

    def unless_auto(value: Any, check: Callable[[Any], Any]) -> Any:
        return value if value is None or _is_auto(value) else check(value)

    asked = Asked(
        unless_auto(kernel_shape, as_kernel_shape),
        unless_auto(boundary, as_boundary),
        unless_auto(background, as_degree),
        unless_auto(offset, as_offset),
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


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == "auto"


@dataclass(frozen=True, slots=True)
class Findings:
    """What was looked for, and how surely it was found; None for what was not.

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


@dataclass(frozen=True, slots=True)
class Resolved:
    """A problem with nothing left to be found.

    Attributes
    ----------
    problem : Problem
        Of images in the light that was chosen, cropped to what they have in common.
    offset : (int, int)
        By how much the results were moved.
    light : {"stored", "srgb"}
        What levels were read as.
    findings : Findings
        How that is known.
    crops : list of list of Crop
        What was done to every pair, step by step.
    """

    problem: Problem
    offset: Shape
    light: str
    findings: Findings
    crops: list[list[Crop]]

    def origin(self, index: int) -> Shape:
        """Return where the first pixel that is left of a result stood in the one given."""
        places = [crop.origin for crop in self.crops[index]]
        return sum(row for row, _ in places), sum(col for _, col in places)


def resolve(problem: Problem, asked: Asked, run: Run, *, most: int = LARGEST) -> Resolved:
    """Find what is asked for.

    Parameters
    ----------
    problem : Problem
        The pairs, made alike, as they were given.
    asked : Asked
        What is known of them, and what not.
    run : Run
        How.
    most : int, optional
        Longest side of kernels that are looked for.

    Returns
    -------
    Resolved
        The offset is found first, in the light of the files, then the light, the kernel's shape,
        what stands beside it, and the rule of the border.

    Raises
    ------
    SingularFitError
        If the source determines no kernel.
    ValueError
        If images do not hold levels that can be decoded, or have nothing in common.
    """
    search = _Search(problem, asked, run, most)
    search.find_offset()
    search.find_light()
    search.find_shape()
    search.find_background()
    search.find_border()
    return search.resolved()


class _Search:
    """What is found one after the other: each step takes what those before it found."""

    def __init__(self, problem: Problem, asked: Asked, run: Run, most: int) -> None:
        self._problem, self._parts = problem, problem.images
        self._asked, self._run, self._most = asked, run, most
        self._findings = Findings()
        self._shape = _unless_auto(asked.kernel_shape)
        self._rule = _unless_auto(asked.boundary)
        self._degree = _unless_auto(asked.background)
        self._offset, self._light = _unless_auto(asked.offset) or (0, 0), "stored"

    @property
    def _largest(self) -> Shape:
        return self._shape or largest_shape(self._parts, self._most)

    def find_offset(self) -> None:
        if self._asked.offset == "auto":
            found = find_offset(self._parts, self._shape, self._largest, self._run)
            self._offset, self._findings = found.offset, replace(self._findings, offset=found)
        if self._offset != (0, 0):
            self._parts = [moved(pair, self._offset) for pair in self._parts]
            self._rule = None

    def find_light(self) -> None:
        self._light = self._asked.light
        if self._light == "auto":
            found = find_light(self._parts, self._largest, self._run)
            self._light, self._findings = found.light, replace(self._findings, light=found)
        if self._light == "srgb":
            if self._problem.may_be_clipped:  # light has no level at which it would be seen
                self._parts = [without_clipped(pair) or pair for pair in self._parts]
            self._parts = [decoded(pair) for pair in self._parts]

    def find_shape(self) -> None:
        if self._asked.kernel_shape == "auto":
            found = selected(self._parts, self._roomy(), self._rule, self._run)
            self._shape, self._findings = found.shape, replace(self._findings, kernel_shape=found)
            self._parts = [fitted_to(pair, found.shape) for pair in self._parts]

    def _roomy(self) -> Shape:
        """Return the largest kernel of which masks leave enough pixels."""
        rows, cols = self._largest
        while max(rows, cols) > 1 and not all(
            has_room(pair, (rows, cols), self._rule) for pair in self._parts
        ):
            rows, cols = (max(1, k - 2) for k in (rows, cols))
        return rows, cols

    def find_background(self) -> None:
        # A level beside the convolution of levels is none beside that of light.
        if self._asked.background == "auto" and self._light == "stored":
            found = find_background(self._parts, self._known_shape, self._rule, self._run)
            self._degree, self._findings = found.degree, replace(self._findings, background=found)

    def find_border(self) -> None:
        if self._asked.boundary == "auto":
            found = BorderFound(None)
            if self._offset == (0, 0):
                found = find_border(self._parts, self._known_shape, self._degree, self._run)
            self._rule, self._findings = found.boundary, replace(self._findings, boundary=found)

    @property
    def _known_shape(self) -> Shape:
        """The kernel's; ValueError if it is that of the images."""
        return self._shape or as_kernel_shape(self._shape)

    def resolved(self) -> Resolved:
        problem = replace(
            self._problem,
            images=self._parts,
            kernel_shape=self._shape,
            boundary=self._rule,
            background=self._degree,
        )
        return Resolved(problem, self._offset, self._light, self._findings, self._crops())

    def _crops(self) -> list[list[Crop]]:
        """Return how every pair was cropped, step by step."""
        fit = self._shape if self._asked.kernel_shape == "auto" else None
        return [
            crops_of(pair.source.shape, pair.result.shape, self._offset, fit)
            for pair in self._problem.images
        ]


def _unless_auto(value: Any) -> Any:
    return None if _is_auto(value) else value
