"""What a problem leaves open, found."""

from collections.abc import Sequence
from dataclasses import replace

from fastkernel._machine.run import Run
from fastkernel._typing import Shape
from fastkernel.estimation.problem import Problem

# Taps along a side of the largest kernel that is looked for.
LARGEST = 15


def with_found(problem: Problem, wanted: Sequence[bool], run: Run) -> Problem:
    """Return a problem with what is wanted of the kernel's shape, the border, the background."""
    # Most fits know all of this, and need not wait for what finds it.
    from fastkernel.estimation.unknowns.background import find_background
    from fastkernel.estimation.unknowns.border import find_border

    run, (shape, border, background) = run.silent, wanted
    if shape:
        problem = replace(problem, kernel_shape=_found_shape(problem, run))
    images = problem.images
    if background:
        found = find_background(images, problem.shape, problem.boundary, run)
        problem = replace(problem, background=found.degree)
    if border:
        rule = find_border(images, problem.shape, problem.background, run).boundary
        problem = replace(problem, boundary=rule)
    return problem


def _found_shape(problem: Problem, run: Run) -> Shape:
    """Return the kernel's shape: what the images' shapes tell, or the smallest that explains."""
    from fastkernel.estimation.unknowns.kernel_shape import selected
    from fastkernel.estimation.unknowns.matching import largest_shape, told_shape

    told = told_shape(problem.images[0])
    if told is not None:
        return told
    return selected(
        problem.images, largest_shape(problem.images, LARGEST), problem.boundary, run
    ).shape
