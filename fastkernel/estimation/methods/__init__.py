"""The methods of `estimate_kernel`: one module each, named after what ``method=`` says.

A method is a module with two names. ``Options`` is the dataclass of the arguments that it takes:
its fields carry their defaults and its refusals stand in ``__post_init__``; ``of_problem`` names
the arguments that say what is fitted which it can serve. ``fit(problem, options, run)`` returns a
`KernelFit`, made by `fit.fit_of` alone.

Comes in: a `Problem`, the options, a `Run`. Goes out: a `KernelFit`. May import: `equations`,
`solvers`, `fit`, `problem`, and every floor below.
"""

from functools import cache
from types import ModuleType
from typing import get_args

from fastkernel._loops._unbroken import import_whole
from fastkernel._typing import Method

# A method is imported when it is asked for: least squares need not wait for the others.
METHODS: tuple[Method, ...] = get_args(Method)


@cache
def method_of(name: str) -> ModuleType:
    """Return the module of a method."""
    return import_whole(f"fastkernel.estimation.methods.{name}")
