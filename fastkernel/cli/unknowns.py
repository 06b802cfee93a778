"""What the command looks for where it is told nothing: size, offset, light, background, border."""

import argparse
from typing import Any

from fastkernel.cli.errors import InputError, UsageError
from fastkernel.cli.picture import Picture

_LIGHTS = {"auto": "auto", "none": "stored", "srgb": "srgb"}

# Bits of files whose levels may be those of sRGB.
_LEVELS = {8, 16}


def asked_of(source: Picture, result: Picture, options: argparse.Namespace) -> dict[str, Any]:
    """Return what is known and what is to be found, as arguments of `estimate_kernel`.

    Without a size all is to be found that was not told; else what is named, and the light.

    Raises
    ------
    InputError
        If files are to be decoded that hold no levels of sRGB.
    UsageError
        If a level beside the kernel is asked for in light, where it has no meaning.
    """
    free = options.size is None
    background, offset, boundary = options.background, options.offset, options.boundary
    beside = background not in (None, "auto")
    if beside and options.transfer == "srgb":
        msg = "--background goes with stored values: leave --transfer srgb out"
        raise UsageError(msg)
    if free and background is None and options.method == "lstsq" and options.transfer != "srgb":
        background = "auto"
    if free and offset is None and boundary is None:
        offset = "auto"
    if boundary is None and (free or offset is not None or background == "auto"):
        boundary = "auto"
    return {
        "kernel_shape": options.size or "auto",
        "boundary": boundary,
        "background": background,
        "offset": offset,
        "light": "stored" if beside else _light(source, result, options.transfer),
    }


def _light(source: Picture, result: Picture, transfer: str) -> str:
    if {source.bits, result.bits} <= _LEVELS:
        return _LIGHTS[transfer]
    if transfer == "srgb":
        msg = "--transfer srgb needs 8 or 16 bit files; decode others first"
        raise InputError(msg)
    return "stored"
