"""All that is to be found before a fit, one thing after the other."""

from dataclasses import dataclass, replace

from fastkernel._images.checks import as_kernel_shape
from fastkernel._images.crops import Crop, crop_of, fitted_to, largest_shape, moved
from fastkernel._images.levels import decoded
from fastkernel._machine.run import Run
from fastkernel._typing import Light, Shape
from fastkernel.estimation.fit import KernelFit
from fastkernel.estimation.problem import Problem
from fastkernel.estimation.unknowns.asked import Asked, unless_auto
from fastkernel.estimation.unknowns.background import find_background
from fastkernel.estimation.unknowns.border import BorderFound, find_border
from fastkernel.estimation.unknowns.clipping import without_clipped
from fastkernel.estimation.unknowns.findings import Findings
from fastkernel.estimation.unknowns.kernel_shape import LARGEST, has_room, selected
from fastkernel.estimation.unknowns.light import find_light
from fastkernel.estimation.unknowns.offset import find_offset


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
    crops : list of Crop
        What is left of every pair.
    """

    problem: Problem
    offset: Shape
    light: Light
    findings: Findings
    crops: list[Crop]

    def of_whole(self, fit: KernelFit, given: Problem) -> KernelFit:
        """Return a fit of this problem as one of the images that were given."""
        # Of all pairs or, where a method keeps no account of pixels, of none.
        parts = zip(fit._fitted, given.images, self.crops, strict=bool(fit._fitted))
        fitted = (
            part.of_whole(images.source, images.result, crop.whole(part.window))
            for part, images, crop in parts
        )
        return replace(
            fit,
            offset=self.offset,
            boundary=self.problem.boundary,
            light=self.light,
            found=self.findings if self.findings.any else None,
            _fitted=tuple(fitted),
            _shape_found=self.findings.kernel_shape is not None,
        )


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
        self._shape = unless_auto(asked.kernel_shape)
        self._rule = unless_auto(asked.boundary)
        self._degree = unless_auto(asked.background)
        self._offset: Shape = unless_auto(asked.offset) or (0, 0)
        self._light: Light = "stored"

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
        if self._asked.light == "auto":
            found = find_light(self._parts, self._largest, self._run)
            self._light, self._findings = found.light, replace(self._findings, light=found)
        else:
            self._light = self._asked.light
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

    def _crops(self) -> list[Crop]:
        fit = self._shape if self._asked.kernel_shape == "auto" else None
        return [
            crop_of(pair.source.shape, pair.result.shape, self._offset, fit)
            for pair in self._problem.images
        ]
