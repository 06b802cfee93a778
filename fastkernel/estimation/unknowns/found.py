"""What a problem leaves open, found."""

from fastkernel._machine.run import Run
from fastkernel._typing import Shape
from fastkernel.estimation.problem import Problem

# Taps along a side of the largest kernel that is looked for.
LARGEST = 15


def found_shape(problem: Problem, run: Run) -> Shape:
    """Return the kernel's shape: what the images' shapes tell, or the smallest that explains."""
    # Most fits know the size of their kernel, and need not wait for what finds it.
    from fastkernel.estimation.unknowns.kernel_shape import selected
    from fastkernel.estimation.unknowns.matching import largest_shape, told_shape

    told = told_shape(problem.images[0])
    if told is not None:
        return told
    largest = largest_shape(problem.images, LARGEST)
    return selected(problem.images, largest, problem.boundary, run.silent).shape
