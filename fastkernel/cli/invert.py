"""``fastkernel invert``: the kernel that undoes another."""

import argparse
import re
import shutil
from pathlib import Path

import numpy as np

from fastkernel._typing import FloatArray, Shape
from fastkernel.cli.errors import InputError, NumericalError, UsageError
from fastkernel.cli.kernels import read_kernel
from fastkernel.cli.output import (
    check_apart,
    check_kernel_target,
    check_plot_target,
    figure_bytes,
    kernel_bytes,
    write_file,
)
from fastkernel.cli.progress import ProgressBar
from fastkernel.cli.table import kernel_table
from fastkernel.errors import SingularFitError


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
    from fastkernel import inverse_kernel

    if options.boundary is not None and options.method != "matrix":
        msg = f"--boundary goes with --method matrix, not with {options.method}"
        raise UsageError(msg)
    check_apart(options.output, options.plot)
    target, plot, inputs = None, None, (options.kernel,)
    if options.output is not None:
        target = check_kernel_target(options.output, force=options.force, inputs=inputs)
    if options.plot is not None:
        plot = check_plot_target(options.plot, force=options.force, inputs=inputs)
    notes: list[str] = []
    kernel, bar = read_kernel(options.kernel, notes.append), ProgressBar()
    try:
        fit = inverse_kernel(
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
            f"{options.kernel!r} removes a frequency, which no division brings back: give --ridge, "
            "or --method lstsq"
        )
        raise NumericalError(msg) from problem
    except MemoryError as problem:
        msg = "an inverse of {}x{} taps needs more than there is of memory".format(*options.size)
        raise InputError(msg) from problem
    except ValueError as problem:
        msg = f"{options.kernel!r} cannot be inverted: {problem}"
        raise InputError(msg) from problem
    finally:
        bar.clear()
    unknown = np.full(fit.kernel.shape, np.nan)
    heading, *table = kernel_table(fit.kernel, unknown, shutil.get_terminal_size().columns)
    p, q = fit.kernel.shape
    frequency = ", ".join(f"{part:.3f}" for part in fit.smallest_frequency)
    print(f"{p}x{q} inverse: {re.sub('[,;] standard errors not known$', '', heading)}")
    print(*table, "", *notes, sep="\n")
    print(f"delay: {fit.delay[0]} rows, {fit.delay[1]} columns of the full convolution")
    print(f"largest deviation from a single 1: {fit.max_deviation:.3g}")
    print(f"noise gain: {fit.noise_gain:.3g}")
    print(f"smallest gain of the kernel: {fit.smallest_gain:.3g} at frequency ({frequency})")
    if fit.num_iter:
        print(f"iterations: {fit.num_iter}, {'' if fit.converged else 'not '}converged")
    if fit.smallest_gain == 0:
        print("no inverse of any size is exact: the kernel removes that frequency")
    if target is not None:
        placed = centred(fit.kernel, fit.delay, kernel.shape)
        write_file(target, kernel_bytes(placed, Path(options.output).suffix.lower()))
        zeros = "" if placed.shape == fit.kernel.shape else ", with zeros beside the inverse"
        print(
            f"wrote {options.output!r}: {placed.shape[0]}x{placed.shape[1]} taps{zeros}; apply it "
            "after the kernel, and the picture is back in its place"
        )
    if plot is not None:
        write_file(plot, figure_bytes(fit.plot()))
        print(f"wrote {options.plot!r}")
