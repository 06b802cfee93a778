"""``fastkernel invert``: the kernel that undoes another."""

import argparse
import re
import shutil
from pathlib import Path

import numpy as np

from fastkernel.cli.errors import InputError, NumericalError, UsageError
from fastkernel.cli.kernels import read_kernel
from fastkernel.cli.output import (
    check_kernel_target,
    check_plot_target,
    figure_bytes,
    kernel_bytes,
    write_file,
)
from fastkernel.cli.progress import ProgressBar
from fastkernel.cli.table import kernel_table
from fastkernel.errors import SingularFitError


def run(options: argparse.Namespace) -> None:
    """Read, invert, print, write."""
    from fastkernel import inverse_kernel

    if options.boundary is not None and options.method != "matrix":
        msg = f"--boundary goes with --method matrix, not with {options.method}"
        raise UsageError(msg)
    target, plot, inputs = None, None, (options.kernel,)
    if options.output is not None:
        target = check_kernel_target(options.output, force=options.force, inputs=inputs)
    if options.plot is not None:
        plot = check_plot_target(options.plot, force=options.force, inputs=inputs)
    kernel, bar = read_kernel(options.kernel), ProgressBar()
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
    print(*table, "", sep="\n")
    print(f"delay: {fit.delay[0]} rows, {fit.delay[1]} columns of the full convolution")
    print(f"largest deviation from a single 1: {fit.max_deviation:.3g}")
    print(f"noise gain: {fit.noise_gain:.3g}")
    print(f"smallest gain of the kernel: {fit.smallest_gain:.3g} at frequency ({frequency})")
    if fit.num_iter:
        print(f"iterations: {fit.num_iter}, {'' if fit.converged else 'not '}converged")
    if fit.smallest_gain == 0:
        print("no inverse of any size is exact: the kernel removes that frequency")
    if target is not None:
        write_file(target, kernel_bytes(fit.kernel, Path(options.output).suffix.lower()))
        print(f"wrote {options.output!r}")
    if plot is not None:
        write_file(plot, figure_bytes(fit.plot()))
        print(f"wrote {options.plot!r}")
