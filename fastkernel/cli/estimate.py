"""``fastkernel estimate``: the kernel between two image files."""

import argparse
import math
import shutil
from pathlib import Path

import numpy as np

from fastkernel._typing import FloatArray
from fastkernel.cli.errors import InputError, NumericalError, UsageError
from fastkernel.cli.files import Picture, read_picture
from fastkernel.cli.light import LINEAR, STORED, LightFit, fit_light
from fastkernel.cli.output import (
    check_kernel_target,
    check_plot_target,
    figure_bytes,
    kernel_bytes,
    write_file,
)
from fastkernel.cli.progress import ProgressBar
from fastkernel.cli.table import kernel_table
from fastkernel.cli.verdict import ROUNDING_RMS, judge
from fastkernel.errors import SingularFitError

# The options that are arguments of `estimate_kernel`.
_TUNING = (
    "method",
    "solver",
    "boundary",
    "background",
    "nonnegative",
    "unit_sum",
    "symmetric",
    "separable",
    "ridge",
    "step",
    "num_iter",
    "tol",
    "epsilon",
    "taper",
    "workers",
)


def run(options: argparse.Namespace) -> None:
    """Read, fit, print, write."""
    names = (options.source, options.result)
    target = plot = None
    if options.output is not None:
        target = check_kernel_target(options.output, force=options.force, inputs=names)
    if options.plot is not None:
        plot = check_plot_target(options.plot, force=options.force, inputs=names)
    source, result = (
        read_picture(name, max_pixels=options.max_pixels, drop_alpha=options.drop_alpha)
        for name in names
    )
    _check_shapes(source, result, options)
    bar = ProgressBar()
    tuning = {name: getattr(options, name) for name in _TUNING}
    try:
        found = fit_light(source, result, options.size, _transfer(options), **tuning, callback=bar)
    except SingularFitError:
        raise
    except (TypeError, ValueError) as problem:
        msg = f"{options.source!r} and {options.result!r} cannot be fitted: {problem}"
        raise InputError(msg) from problem
    finally:
        bar.clear()
    kernel, errors = found.fit.kernel, found.fit.standard_errors
    if options.correlation:
        kernel, errors = kernel[::-1, ::-1], errors[::-1, ::-1]
    if options.normalize:
        kernel, errors = _normalized(kernel, errors)
    _report(kernel, errors, found, source, result, options)
    if target is not None:
        write_file(target, kernel_bytes(kernel, Path(options.output).suffix.lower()))
        print(f"wrote {options.output!r}")
    if plot is not None:
        write_file(plot, figure_bytes(found.fit.plot()))
        print(f"wrote {options.plot!r}")


def _transfer(options: argparse.Namespace) -> str:
    """Return the light to fit in: a level beside the kernel has no meaning in another."""
    if options.background is None:
        return str(options.transfer)
    if options.transfer == "srgb":
        msg = "--background goes with stored values: leave --transfer srgb out"
        raise UsageError(msg)
    return "none"


def _check_shapes(source: Picture, result: Picture, options: argparse.Namespace) -> None:
    before, after = source.pixels.shape, result.pixels.shape
    if before[2:] != after[2:]:
        channels = [shape[2] if len(shape) == 3 else 1 for shape in (before, after)]
        msg = (
            f"{options.source!r} has {_count(channels[0], 'channel')} and {options.result!r} has "
            f"{channels[1]}; both must have the same"
        )
        raise InputError(msg)
    p, q = options.size
    if p > before[0] or q > before[1]:
        msg = (
            f"a {p}x{q} kernel is larger than {options.source!r} ({_size(before)} pixels); "
            "give a smaller --size"
        )
        raise InputError(msg)
    fitting = [(before[0] + sign * (p - 1), before[1] + sign * (q - 1)) for sign in (0, -1, 1)]
    if after[:2] not in fitting:
        same, valid, full = map(_size, fitting)
        msg = (
            f"{options.source!r} is {_size(before)} and {options.result!r} is {_size(after)} "
            f"pixels; with a {p}x{q} kernel the result must be {same}, {valid} ('valid') or "
            f"{full} ('full')"
        )
        raise InputError(msg)


def _normalized(kernel: FloatArray, errors: FloatArray) -> tuple[FloatArray, FloatArray]:
    total = kernel.sum()
    noise = 3 * float(np.sqrt(np.square(errors).sum()))
    if abs(total) <= max(noise, 1e-3 * np.abs(kernel).sum()):
        msg = (
            f"the taps sum to {total:.2g}, zero but for noise, as those of edge detectors do; "
            "leave --normalize out"
        )
        raise NumericalError(msg)
    return kernel / total, errors / abs(total)


def _report(
    kernel: FloatArray,
    errors: FloatArray,
    found: LightFit,
    source: Picture,
    result: Picture,
    options: argparse.Namespace,
) -> None:
    p, q = kernel.shape
    kind = "correlation (flipped both ways)" if options.correlation else "convolution"
    scaled = ", divided by its sum" if options.normalize else ""
    heading, *table = kernel_table(kernel, errors, shutil.get_terminal_size().columns)
    whole_levels = result.pixels.dtype.kind in "ui"
    unit = (
        f"grey levels (rounding leaves up to {ROUNDING_RMS:.3f})"
        if whole_levels
        else "in units of the result"
    )
    compared = ""
    if found.other_rms is not None and found.other_rms > 1.1 * found.residual_rms:
        other = STORED if found.light == LINEAR else LINEAR
        compared = f"; {other} would leave a residual of {found.other_rms:.3g}"
    print(f"{p}x{q} kernel for {kind}{scaled}: {heading}", *table, "", sep="\n")
    print(f"sum of taps: {kernel.sum():.6g}")
    print(f"residual: {found.residual_rms:.3g} {unit}")
    if found.fit.background is not None:
        print(f"background: {_background(found.fit.background)}")
    if found.fit.num_iter:
        end = "converged" if found.fit.converged else "not converged"
        print(f"iterations: {found.fit.num_iter}, {end}")
    if not math.isnan(found.fit.condition_number):
        print(f"condition number: {found.fit.condition_number:.2g}")
    apart = ", channels counted apart" if result.pixels.ndim == 3 else ""
    print(f"pixels fitted: {found.fit.n_pixels}{apart}")
    print(f"light: {found.light}{compared}")
    sentence = judge(
        kernel,
        errors,
        residual_rms=found.residual_rms,
        contrast=float(np.std(result.pixels, dtype=np.float64)),
        whole_levels=whole_levels,
        lossy=source.lossy or result.lossy,
        clipped=_clipped(result),
        condition_number=found.fit.condition_number,
    )
    print(f"verdict: {sentence}")


def _background(levels: float | FloatArray) -> str:
    """Return the level, or the lowest coefficient of every channel's polynomial."""
    numbers = np.atleast_1d(levels)
    means = numbers if np.ndim(levels) < 2 else numbers[..., 0, 0].ravel()
    return ", ".join(f"{number:.4g}" for number in means)


def _clipped(picture: Picture) -> float:
    if picture.bits not in {8, 16}:
        return 0.0
    white = np.iinfo(picture.pixels.dtype).max
    return float(np.mean((picture.pixels == 0) | (picture.pixels == white)))


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
