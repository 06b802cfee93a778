"""``fastkernel restore``: an image file with a known blur undone."""

import argparse
from collections.abc import Callable
from typing import Any

from fastkernel._typing import AnyArray
from fastkernel.cli.errors import UsageError
from fastkernel.cli.images import remake_file
from fastkernel.cli.kernels import read_kernel, unit_sum
from fastkernel.cli.options import BOUNDARIES
from fastkernel.cli.progress import ProgressBar

# The options that each method takes, by the names of its arguments.
_TAKES = {
    "wiener": ("balance", "boundary"),
    "richardson-lucy": ("num_iter", "tol", "damping", "noise", "acceleration", "boundary"),
    "inverse": ("epsilon", "guarded", "boundary"),
}
_FLAGS = {"acceleration": "--no-acceleration"}

# What may stand beyond the border.
_DIVIDED = ("circular", "symmetric", "edge_taper", "unknown")
_BORDERS = {
    "wiener": _DIVIDED,
    "richardson-lucy": ("unknown", *BOUNDARIES),
    "inverse": _DIVIDED,
}


def run(options: argparse.Namespace) -> None:
    """Read, restore, write."""
    import fastkernel

    functions: dict[str, Callable[..., AnyArray]] = {
        "wiener": fastkernel.wiener,
        "richardson-lucy": fastkernel.richardson_lucy,
        "inverse": fastkernel.inverse_filter,
    }
    tuning = _tuning(options)
    notes: list[str] = []
    psf, bar = read_kernel(options.kernel, notes.append), ProgressBar()
    if not options.keep_sum:
        psf = unit_sum(psf, options.kernel, notes.append)

    def restored(image: AnyArray, channel_axis: int | None) -> AnyArray:
        function = functions[options.method]
        try:
            return function(
                image,
                psf,
                channel_axis=channel_axis,
                workers=options.workers,
                callback=bar,
                **tuning,
            )
        finally:
            bar.clear()

    remake_file(options, options.kernel, restored, "restored", notes)


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
