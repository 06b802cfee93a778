"""``fastkernel restore``: image files with a known blur undone."""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from fastkernel._typing import AnyArray
from fastkernel.cli.errors import UsageError
from fastkernel.cli.images import remake_files
from fastkernel.cli.kernels import read_kernel_file, unit_sum
from fastkernel.cli.progress import ProgressBar
from fastkernel.cli.words import BOUNDARIES

# The options that each method takes, by the names of its arguments.
_TAKES = {
    "wiener": ("balance", "boundary"),
    "richardson_lucy": ("num_iter", "tol", "damping", "noise", "acceleration", "boundary"),
    "inverse": ("epsilon", "guarded", "boundary"),
}
_FLAGS = {"acceleration": "--no-acceleration"}

# What may stand beyond the border.
_DIVIDED = ("circular", "symmetric", "edge_taper", "unknown")
_BORDERS = {
    "wiener": _DIVIDED,
    "richardson_lucy": ("unknown", *BOUNDARIES),
    "inverse": _DIVIDED,
}


def run(options: argparse.Namespace) -> None:
    """Read, restore, write."""
    import fastkernel

    functions: dict[str, Callable[..., AnyArray]] = {
        "wiener": fastkernel.wiener,
        "richardson_lucy": fastkernel.richardson_lucy,
        "inverse": fastkernel.inverse_filter,
    }
    tuning = _tuning(options)
    notes: list[str] = []
    found, bar = read_kernel_file(options.kernel, notes.append), ProgressBar(quiet=options.quiet)
    psf = found.taps
    if not options.keep_sum:
        psf = unit_sum(psf, options.kernel, notes.append)
    if found.background:
        notes.append(f"background: {found.background:.4g}, found beside the kernel, is taken off")

    def restored(image: AnyArray, channel_axis: int | None) -> AnyArray:
        if found.background:
            image = image - np.float64(found.background)
        return functions[options.method](
            image,
            psf,
            channel_axis=channel_axis,
            workers=options.workers,
            callback=bar,
            **tuning,
        )

    remake_files(options, found, restored, "restored", notes, bar)


def _tuning(options: argparse.Namespace) -> dict[str, Any]:
    """Return what was given for the method, or say that it takes no such option."""
    known = {name for names in _TAKES.values() for name in names}
    given = {name: value for name in known if (value := getattr(options, name)) is not None}
    for name in sorted(given):
        if name not in _TAKES[options.method]:
            methods = " or ".join(method for method, names in _TAKES.items() if name in names)
            flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
            msg = f"{flag} goes with --method {methods}, not with {options.method}"
            raise UsageError(msg)
    boundary, borders = given.get("boundary"), _BORDERS[options.method]
    if boundary is not None and boundary not in borders:
        msg = f"--boundary {boundary} does not go with --method {options.method}: {_list(borders)}"
        raise UsageError(msg)
    if options.method == "inverse" and boundary == "unknown" and not given.get("guarded"):
        msg = "--boundary unknown goes with --method inverse --guarded"
        raise UsageError(msg)
    return given


def _list(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
