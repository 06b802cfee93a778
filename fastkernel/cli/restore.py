"""``fastkernel restore``: an image file with a known blur undone."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fastkernel._typing import AnyArray
from fastkernel.cli.errors import InputError, UsageError
from fastkernel.cli.files import read_picture
from fastkernel.cli.images import check_image_target, image_bytes, remake
from fastkernel.cli.kernels import read_kernel
from fastkernel.cli.output import write_file
from fastkernel.cli.progress import ProgressBar

# The options that each method takes, by the names of its arguments.
_TAKES = {
    "wiener": ("balance", "boundary"),
    "richardson-lucy": ("num_iter", "tol", "damping", "boundary"),
    "inverse": ("epsilon", "boundary"),
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
    psf = read_kernel(options.kernel)
    picture = read_picture(
        options.image, max_pixels=options.max_pixels, drop_alpha=options.drop_alpha
    )
    inputs = options.image, options.kernel
    target = check_image_target(options.output, picture, force=options.force, inputs=inputs)
    bar = ProgressBar()
    call = partial(functions[options.method], workers=options.workers, callback=bar, **tuning)

    def restored(image: AnyArray, channel_axis: int | None) -> AnyArray:
        return call(image, psf, channel_axis=channel_axis)

    try:
        pixels = remake(picture, restored, clip=options.clip)
    except (TypeError, ValueError) as problem:
        msg = f"{options.image!r} cannot be restored: {problem}"
        raise InputError(msg) from problem
    finally:
        bar.clear()
    write_file(target, image_bytes(pixels, Path(options.output).suffix.lower()))
    print(f"wrote {options.output!r}")


def _tuning(options: argparse.Namespace) -> dict[str, Any]:
    """Return what was given for the method, or say that it takes no such option."""
    known = {name for names in _TAKES.values() for name in names}
    given = {name: value for name in known if (value := getattr(options, name)) is not None}
    for name in sorted(given):
        if name not in _TAKES[options.method]:
            methods = " or ".join(method for method, names in _TAKES.items() if name in names)
            flag = "--" + name.replace("_", "-")
            msg = f"{flag} goes with --method {methods}, not with {options.method}"
            raise UsageError(msg)
    return given
