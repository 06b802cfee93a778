"""What the command finds where it is told nothing: size, offset, light, background, border."""

import argparse
from collections.abc import Iterator
from dataclasses import replace

from fastkernel._images.checks import as_workers
from fastkernel._images.usable import Observed
from fastkernel._machine.run import Run
from fastkernel._typing import BoolArray
from fastkernel.cli.errors import InputError
from fastkernel.cli.files import Picture
from fastkernel.errors import SingularFitError
from fastkernel.estimation.problem import problem_of
from fastkernel.estimation.unknowns.border import BorderFound
from fastkernel.estimation.unknowns.clipping import clipped_pixels
from fastkernel.estimation.unknowns.finding import (
    LARGEST,
    Asked,
    Findings,
    Resolved,
    as_asked,
    resolve,
)
from fastkernel.estimation.unknowns.kernel_shape import KernelShapeSelection
from fastkernel.estimation.unknowns.offset import OffsetFound

_LIGHTS = {"auto": "auto", "none": "stored", "srgb": "srgb"}

# Bits of files whose levels may be those of sRGB.
_LEVELS = {8, 16}


def find_unknowns(
    source: Picture, result: Picture, options: argparse.Namespace
) -> tuple[Picture, Picture, Findings | None]:
    """Find what the options leave open, and write it down in them.

    Parameters
    ----------
    source, result : Picture
        The images.
    options : argparse.Namespace
        Its ``size``, ``background`` and ``transfer`` are told where they were not.

    Returns
    -------
    source, result : Picture
        What they have in common, of shapes that go with the size.
    findings : Findings or None
        What was found; None where nothing was asked for.

    Raises
    ------
    InputError
        If the images do not go together, or with what was told.
    SingularFitError
        If the source determines no kernel.
    """
    asked = _asked(source, result, options)
    if asked is None:
        return source, result, None
    axis = -1 if source.pixels.ndim == 3 else None
    try:
        problem = problem_of(source.pixels, result.pixels, None, None, None, axis)
        found = resolve(problem, asked, Run(as_workers(options.workers)))
    except SingularFitError:
        raise
    except (TypeError, ValueError) as problem:
        msg = f"{options.source!r} and {options.result!r} cannot be fitted: {problem}"
        raise InputError(msg) from problem
    options.size = found.problem.kernel_shape
    if options.background in (None, "auto"):
        options.background = found.problem.background
    if found.findings.light is not None:
        options.transfer = "srgb" if found.light == "srgb" else "none"
    return *_cropped(source, result, found), found.findings


def _asked(source: Picture, result: Picture, options: argparse.Namespace) -> Asked | None:
    """Return what is to be found: all that was not told where no size was; else what is named."""
    free = options.size is None
    background, offset = options.background, options.offset
    if free and background is None and options.method == "lstsq" and options.transfer != "srgb":
        background = "auto"
    if free and offset is None and options.boundary is None:
        offset = "auto"
    if not free and offset is None and background != "auto":
        return None
    levels = {source.bits, result.bits} <= _LEVELS
    told = options.background not in (None, "auto")
    light = "auto" if levels and not told else "stored"
    if levels and options.transfer != "auto":
        light = _LIGHTS[options.transfer]
    try:
        return as_asked(
            options.size or "auto", options.boundary or "auto", background, offset, light
        )
    except ValueError as problem:
        raise InputError(str(problem)) from problem


def _cropped(source: Picture, result: Picture, found: Resolved) -> tuple[Picture, Picture]:
    before, after = source.pixels, result.pixels
    # All channels are cropped alike.
    for crop in found.crops[0]:
        before, after = before[crop.source], after[crop.result]
    return replace(source, pixels=before), replace(result, pixels=after)


def clipped(result: Picture) -> BoolArray | None:
    """Return which pixels of a file's levels may be clipped; None where that says nothing.

    A fit of levels sees these itself; one of light does not.
    """
    if result.bits not in _LEVELS:
        return None
    return clipped_pixels(Observed(result.pixels, result.pixels))


def told(found: Findings) -> Iterator[str]:
    """Yield in plain words what was found."""
    if found.kernel_shape is not None:
        yield f"size: found; {_size(found.kernel_shape)}"
    if found.offset is not None:
        yield f"offset: {_offset(found.offset)}"
    if found.background is not None and found.background.degree is not None:
        kind = ("a level", "a plane", "a polynomial of degree 2")[found.background.degree]
        less = f"without it {found.background.gain:.3g} times as much would be left"
        yield f"beside the convolution: {kind}, found; {less}"
    if found.boundary is not None and found.boundary.rim_rms:
        yield f"border: {_border(found.boundary)}"


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
