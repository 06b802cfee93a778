"""``fastkernel invert``: the kernel that undoes another."""

import argparse
import shutil
from pathlib import Path

import numpy as np

from fastkernel.cli.errors import InputError
from fastkernel.cli.kernels import read_kernel
from fastkernel.cli.output import check_kernel_target, kernel_bytes, write_file
from fastkernel.cli.progress import ProgressBar
from fastkernel.cli.table import kernel_table
from fastkernel.errors import SingularFitError


def run(options: argparse.Namespace) -> None:
    """Read, invert, print, write."""
    from fastkernel import inverse_kernel

    target = None
    if options.output is not None:
        inputs = (options.kernel,)
        target = check_kernel_target(options.output, force=options.force, inputs=inputs)
    kernel, bar = read_kernel(options.kernel), ProgressBar()
    try:
        fit = inverse_kernel(
            kernel,
            options.size,
            method=options.method,
            ridge=options.ridge,
            workers=options.workers,
            callback=bar,
        )
    except SingularFitError:
        raise
    except ValueError as problem:
        msg = f"{options.kernel!r} cannot be inverted: {problem}"
        raise InputError(msg) from problem
    finally:
        bar.clear()
    unknown = np.full(fit.kernel.shape, np.nan)
    heading, *table = kernel_table(fit.kernel, unknown, shutil.get_terminal_size().columns)
    p, q = fit.kernel.shape
    frequency = ", ".join(f"{part:.3f}" for part in fit.smallest_frequency)
    print(f"{p}x{q} inverse: {heading.removesuffix(', standard errors not known')}")
    print(*table, "", sep="\n")
    print(f"delay: {fit.delay[0]} rows, {fit.delay[1]} columns of the full convolution")
    print(f"largest deviation from a single 1: {fit.max_deviation:.3g}")
    print(f"noise gain: {fit.noise_gain:.3g}")
    print(f"smallest gain of the kernel: {fit.smallest_gain:.3g} at frequency ({frequency})")
    if fit.smallest_gain == 0:
        print("no inverse of any size is exact: the kernel removes that frequency")
    if target is not None:
        write_file(target, kernel_bytes(fit.kernel, Path(options.output).suffix.lower()))
        print(f"wrote {options.output!r}")
