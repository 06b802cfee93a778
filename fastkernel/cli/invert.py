"""``fastkernel invert``: the kernel that undoes another."""

import argparse
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastkernel._typing import FloatArray, Shape
from fastkernel.cli.errors import InputError, NumericalError, UsageError
from fastkernel.cli.files import STANDARD
from fastkernel.cli.kernels import read_kernel
from fastkernel.cli.output import (
    check_apart,
    check_kernel_target,
    check_plot_target,
    figure_bytes,
    json_text,
    kernel_bytes,
    suffix_of,
    write_file,
)
from fastkernel.cli.progress import ProgressBar
from fastkernel.cli.table import kernel_table
from fastkernel.cli.voice import Voice, columns
from fastkernel.estimation.errors import SingularFitError

if TYPE_CHECKING:
    from fastkernel import InverseFit


def centred(inverse: FloatArray, delay: Shape, shape: Shape) -> FloatArray:
    """Pad an inverse so that two convolutions of "same" size leave the picture in its place.

    Parameters
    ----------
    inverse : (p, q) float64 array
        The inverse of a kernel.
    delay : (int, int)
        Where the full convolution of both peaks.
    shape : (int, int)
        Rows and columns of the kernel.

    Returns
    -------
    array
        The inverse among zeros, on one side of every axis at most: its centre tap and the one of
        the kernel, each at ``(n - 1) // 2``, add up to the delay.
    """
    margins = []
    for taps, peak, others in zip(inverse.shape, delay, shape, strict=True):
        centre = peak - (others - 1) // 2
        before = max(0, taps - 2 - 2 * centre)
        after = max(0, 2 * centre + 1 - taps)
        margins.append((before, after))
    return np.pad(inverse, margins)


def run(options: argparse.Namespace) -> None:
    """Read, invert, print, write."""
    if options.boundary is not None and options.method != "matrix":
        msg = f"--boundary goes with --method matrix, not with {options.method}"
        raise UsageError(msg)
    kernel_name = _kernel_of(options)
    check_apart(options.output, options.plot)
    target, plot, inputs = None, None, (kernel_name,)
    suffix = suffix_of(options.output or "", options.format, ".npy")
    if options.output is not None:
        target = check_kernel_target(options.output, suffix, force=options.force, inputs=inputs)
    if options.plot is not None:
        plot = check_plot_target(options.plot, force=options.force, inputs=inputs)
    if options.json and options.output == STANDARD:
        msg = "--json and -o - both write to standard output; give the inverse a file"
        raise UsageError(msg)
    voice = Voice(options, aside=options.output == STANDARD)
    notes: list[str] = []
    kernel, bar = read_kernel(kernel_name, notes.append), ProgressBar(quiet=options.quiet)
    with voice.phase("inverting"):
        fit = _inverted(kernel, kernel_name, options, bar)
    _tell(fit, voice, notes)
    written = []
    if target is not None:
        placed = centred(fit.kernel, fit.delay, kernel.shape)
        write_file(target, kernel_bytes(placed, suffix))
        written.append(options.output)
        zeros = "" if placed.shape == fit.kernel.shape else ", with zeros beside the inverse"
        voice.say(
            f"wrote {options.output!r}: {placed.shape[0]}x{placed.shape[1]} taps{zeros}; apply it "
            "after the kernel, and the picture is back in its place"
        )
    if plot is not None:
        write_file(plot, figure_bytes(fit.plot()))
        written.append(options.plot)
        voice.say(f"wrote {options.plot!r}")
    if options.json:
        print(json_text(_answer(fit) | {"written": written}))


def _inverted(
    kernel: FloatArray, name: str, options: argparse.Namespace, bar: ProgressBar
) -> "InverseFit":
    from fastkernel import inverse_kernel

    try:
        return inverse_kernel(
            kernel,
            options.size,
            method=options.method,
            ridge=options.ridge,
            boundary=options.boundary or "zero",
            workers=options.workers,
            callback=bar,
        )
    except SingularFitError as problem:
        msg = (
            f"{name!r} removes a frequency, which no division brings back: give --ridge, "
            "or --method lstsq"
        )
        raise NumericalError(msg) from problem
    except MemoryError as problem:
        msg = "an inverse of {}x{} taps needs more than there is of memory".format(*options.size)
        raise InputError(msg) from problem
    except ValueError as problem:
        msg = f"{name!r} cannot be inverted: {problem}"
        raise InputError(msg) from problem
    finally:
        bar.clear()


def _kernel_of(options: argparse.Namespace) -> str:
    """Return the kernel, which stands first or after its option, and not in both places."""
    given: list[str] = [
        text for text in (options.kernel, options.kernel_option) if text is not None
    ]
    if len(given) != 1:
        msg = f"KERNEL must be given once, got {' and '.join(map(repr, given)) or 'none'}"
        raise UsageError(msg)
    return given[0]


def _tell(fit: "InverseFit", voice: Voice, notes: Iterable[str]) -> None:
    unknown = np.full(fit.kernel.shape, np.nan)
    heading, *table = kernel_table(fit.kernel, unknown, columns())
    p, q = fit.kernel.shape
    frequency = ", ".join(f"{part:.3f}" for part in fit.smallest_frequency)
    heading = re.sub("[,;] standard errors not known$", "", heading)
    voice.say(f"{p}x{q} inverse: {heading}", style="bold")
    voice.say(*table, "", *notes)
    voice.fact("delay", "{} rows, {} columns of the full convolution".format(*fit.delay))
    voice.fact("largest deviation from a single 1", f"{fit.max_deviation:.3g}")
    voice.fact("noise gain", f"{fit.noise_gain:.3g}")
    gain = f"{fit.smallest_gain:.3g} at frequency ({frequency})"
    voice.fact("smallest gain of the kernel", gain)
    if fit.num_iter:
        voice.fact("iterations", f"{fit.num_iter}, {'' if fit.converged else 'not '}converged")
    if fit.smallest_gain == 0:
        voice.say("no inverse of any size is exact: the kernel removes that frequency")


def _answer(fit: "InverseFit") -> dict[str, Any]:
    """Return all that is known, by name."""
    names = (
        "kernel",
        "delay",
        "max_deviation",
        "noise_gain",
        "smallest_gain",
        "smallest_frequency",
        "method",
        "solver",
        "num_iter",
        "converged",
    )
    return {name: getattr(fit, name) for name in names}
