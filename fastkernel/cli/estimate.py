"""``fastkernel estimate``: the kernel between two image files."""

import argparse
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from fastkernel._images.crops import crop_of
from fastkernel._typing import FloatArray
from fastkernel.cli.errors import DisbeliefError, InputError, NumericalError, UsageError
from fastkernel.cli.files import STANDARD, read_picture
from fastkernel.cli.hints import hints, part_of
from fastkernel.cli.light import decode
from fastkernel.cli.output import (
    REPORTS,
    check_apart,
    check_kernel_target,
    check_plot_target,
    check_report_target,
    figure_bytes,
    json_text,
    kernel_bytes,
    suffix_of,
    write_file,
)
from fastkernel.cli.picture import Picture, turned_note
from fastkernel.cli.progress import ProgressBar
from fastkernel.cli.residual import residual_picture
from fastkernel.cli.table import is_bars, kernel_table
from fastkernel.cli.unknowns import asked_of
from fastkernel.cli.voice import Voice, columns
from fastkernel.estimation.display import plot_fit
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.quality import ROUNDING_RMS, Facts, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastkernel import KernelFit

_LIGHTS = ("stored values", "linear (sRGB decoded)")

_COLOURS = {
    "believe it": "green",
    "believe it with care": "magenta",
    "do not believe it": "red",
}

# Taps beyond which no other fits are tried.
_MOST_TAPS = 1024

# The options that are arguments of `estimate_kernel`.
_TUNING = (
    "method",
    "solver",
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


# How the library and the command spell an argument: `kernel_shape=(5, 7)`, `--size 5x7`.
_ARGUMENT = re.compile(r'(\w+)=(?:"(\w+)"|\((\d+), (\d+)\))')


class _Shown(NamedTuple):
    """What is shown of a fit: the kernel as it is printed, and the residual in grey levels."""

    kernel: FloatArray
    standard_errors: FloatArray
    residual_rms: float
    method: str
    history: Mapping[str, FloatArray] | None


class _Done(NamedTuple):
    """What was read, asked for and found."""

    source: Picture
    result: Picture
    options: argparse.Namespace
    fit: "KernelFit"
    facts: Facts
    shown: _Shown

    @property
    def linear(self) -> bool:
        """Whether linear light was fitted."""
        return self.fit.light == "srgb"

    @property
    def other_rms(self) -> float | None:
        """What a kernel in the other light would leave; None where it was not tried."""
        light = self.fit.found and self.fit.found.light
        if light is None or math.isnan(light.ratio):
            return None
        return float(light.stored_rms if self.linear else light.linear_rms)


def run(options: argparse.Namespace) -> None:
    """Read, fit, print, write."""
    _check_streams(options)
    targets = _targets(options)
    voice = Voice(options, aside=options.output == STANDARD)
    bar = ProgressBar(quiet=options.quiet)
    try:
        done, verdict = _found(options, voice, bar)
    finally:
        bar.clear()
    if not options.quiet and not options.json:
        _print(done, verdict, voice)
    make: dict[str, Callable[[], bytes]] = {
        "output": lambda: kernel_bytes(done.shown.kernel, _suffix(options), _beside(done)),
        "plot": lambda: figure_bytes(_figure(done)),
        "report": lambda: _report(done, verdict).encode(),
    }
    for kind, target in targets.items():
        with voice.phase(f"writing {getattr(options, kind)}"):
            write_file(target, make[kind]())
        if getattr(options, kind) != STANDARD:
            voice.say(f"wrote {getattr(options, kind)!r}{_lost(done) * (kind == 'output')}")
    if options.json:
        written = [getattr(options, kind) for kind in targets]
        print(json_text(_answer(done, verdict) | {"written": written}))
    if options.strict and verdict.belief == "do not believe it":
        msg = f"the kernel is not to be believed: {verdict.reasons[0]}"
        raise DisbeliefError(msg)


def _check_streams(options: argparse.Namespace) -> None:
    if options.json and options.output == STANDARD:
        msg = "--json and -o - both write to standard output; give the kernel a file"
        raise UsageError(msg)
    if options.source == options.result == STANDARD:
        msg = "standard input can be read once; give '-' in one place"
        raise UsageError(msg)


def _suffix(options: argparse.Namespace) -> str:
    return suffix_of(options.output or "", options.format, ".npz")


def _found(options: argparse.Namespace, voice: Voice, bar: ProgressBar) -> tuple["_Done", Verdict]:
    """Read, fit and judge, under one bar."""
    with voice.phase("reading"):
        bar.over("reading", 0.0, 0.1)
        source, result = (
            read_picture(
                name,
                max_pixels=options.max_pixels,
                drop_alpha=options.drop_alpha,
                page=options.page,
            )
            for name in (options.source, options.result)
        )
        _check_shapes(source, result, options)
    with voice.phase("fitting"):
        bar.over("fitting", 0.1, 0.7)
        fit = _fit(source, result, options, bar)
    voice.detail(_used(source, result, fit))
    with voice.phase("judging"):
        bar.over("judging", 0.7, 0.9)
        judged = fit.judge(
            source.pixels,
            result.pixels,
            channel_axis=_channel_axis(source),
            lossy=source.lossy or result.lossy,
            workers=options.workers,
        )
    facts = cast(Facts, judged.facts)
    done = _Done(source, result, options, fit, facts, _shown(fit, facts, options))
    with voice.phase("advising"):
        bar.over("advising", 0.9, 1.0)
        return done, _advised(judged, done)


def _used(source: Picture, result: Picture, fit: "KernelFit") -> str:
    """Return by what means a kernel was found."""
    how = f"method: {fit.method}, solver: {fit.solver}"
    if fit.equations is None:
        return how
    from fastkernel.estimation.equations.gathering_cost import choose_engine

    pixels = (source.pixels, result.pixels)
    if fit.light == "srgb":
        pixels = (decode(source), decode(result))
    window = result.pixels.shape[:2]
    return f"{how}, engine of the sums: {choose_engine(*pixels, window, fit.kernel.shape)}"


def _beside(done: "_Done") -> dict[str, FloatArray | float | str]:
    """Return what belongs to the taps in their file."""
    kind = "correlation" if done.options.correlation else "convolution"
    beside: dict[str, FloatArray | float | str] = {
        "standard_errors": done.shown.standard_errors,
        "light": done.fit.light,
        "kind": kind,
    }
    level = done.fit.background
    if level is not None and np.size(level) == 1:
        beside["background"] = float(np.ravel(level)[0])
    return beside


def _lost(done: "_Done") -> str:
    """Say what the file of a kernel has no place for, where that changes what comes of it."""
    suffix = _suffix(done.options)
    if suffix == ".png":
        return ""
    lost = []
    if done.linear and suffix != ".npz":
        lost.append("--transfer srgb goes with it")
    if done.fit.background is not None and (suffix != ".npz" or np.size(done.fit.background) > 1):
        lost.append("the background is not in it")
    hint = "" if suffix == ".npz" else "; .npz would hold that"
    return f" ({', and '.join(lost)}{hint})" if lost else ""


def _figure(done: "_Done") -> "Figure":
    """Draw the kernel, and beside it what it leaves."""
    return plot_fit(done.shown, residual=residual_picture(done.source, done.result, done.fit))


def _targets(options: argparse.Namespace) -> dict[str, Path]:
    """Return the files to write, checked before any work is done."""
    check_apart(options.output, options.plot, options.report)
    checks: dict[str, Callable[..., Path]] = {
        "output": lambda name, **how: check_kernel_target(name, _suffix(options), **how),
        "plot": check_plot_target,
        "report": check_report_target,
    }
    inputs = options.source, options.result
    return {
        kind: check(getattr(options, kind), force=options.force, inputs=inputs)
        for kind, check in checks.items()
        if getattr(options, kind) is not None
    }


def _fit(
    source: Picture, result: Picture, options: argparse.Namespace, bar: ProgressBar
) -> "KernelFit":
    from fastkernel import estimate_kernel

    asked = asked_of(source, result, options)
    tuning = {name: getattr(options, name) for name in _TUNING}
    try:
        return estimate_kernel(
            source.pixels,
            result.pixels,
            **asked | tuning,
            channel_axis=_channel_axis(source),
            callback=bar,
        )
    except SingularFitError:
        raise
    except (TypeError, ValueError) as problem:
        msg = f"{options.source!r} and {options.result!r} cannot be fitted: {problem}"
        raise InputError(msg) from problem


def _channel_axis(picture: Picture) -> int | None:
    return -1 if picture.pixels.ndim == 3 else None


def _shown(fit: "KernelFit", facts: Facts, options: argparse.Namespace) -> _Shown:
    kernel, errors = fit.kernel, fit.standard_errors
    if options.correlation:
        kernel, errors = kernel[::-1, ::-1], errors[::-1, ::-1]
    if options.normalize:
        kernel, errors = _normalized(kernel, errors)
    return _Shown(kernel, errors, facts.rms, fit.method, fit.history)


def _check_shapes(source: Picture, result: Picture, options: argparse.Namespace) -> None:
    before, after = source.pixels.shape, result.pixels.shape
    if before[2:] != after[2:]:
        channels = [shape[2] if len(shape) == 3 else 1 for shape in (before, after)]
        msg = (
            f"{options.source!r} has {_count(channels[0], 'channel')} and {options.result!r} has "
            f"{channels[1]}; both must have the same"
        )
        raise InputError(msg)
    if options.size is None:
        return
    p, q = options.size
    if p > before[0] or q > before[1]:
        msg = (
            f"a {p}x{q} kernel is larger than {options.source!r} ({_size(before)} pixels); "
            "give a smaller --size"
        )
        raise InputError(msg)
    fitting = [(before[0] + sign * (p - 1), before[1] + sign * (q - 1)) for sign in (0, -1, 1)]
    if after[:2] not in fitting and options.offset is None:
        same, valid, full = map(_size, fitting)
        msg = (
            f"{options.source!r} is {_size(before)} and {options.result!r} is {_size(after)} "
            f"pixels; with a {p}x{q} kernel the result must be {same}, {valid} ('valid') or "
            f"{full} ('full')"
        )
        turned = turned_note({options.source: source, options.result: result})
        msg = f"{msg}; {turned}" if turned else msg
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


def _print(done: _Done, verdict: Verdict, voice: Voice) -> None:
    source, result, options, fit, facts, shown = done
    kernel, errors = shown.kernel, shown.standard_errors
    p, q = kernel.shape
    kind = "correlation (flipped both ways)" if options.correlation else "convolution"
    scaled = ", divided by its sum" if options.normalize else ""
    heading, *table = kernel_table(kernel, errors, columns(), stream=voice.stream)
    unit = (
        f"grey levels (rounding leaves up to {ROUNDING_RMS:.3f})"
        if facts.whole_levels
        else "in units of the result"
    )
    compared = ""
    other_rms = done.other_rms
    if other_rms is not None and other_rms > 1.1 * facts.rms:
        compared = f"; {_LIGHTS[not done.linear]} would leave a residual of {other_rms:.3g}"
    voice.say(f"{p}x{q} kernel for {kind}{scaled}: {heading}", style="bold")
    for line in table:
        voice.say(line, style="dim" if is_bars(line) else None)
    voice.say("")
    for name, text in (fit.found.lines() if fit.found else {}).items():
        if name != "light":
            voice.fact(name, text)
    voice.fact("sum of taps", f"{kernel.sum():.6g}{_gain(kernel, errors, options.normalize)}")
    voice.fact("residual", f"{facts.rms:.3g} {unit}")
    if fit.background is not None:
        voice.fact("background", _background(fit.background))
    if fit.num_iter:
        end = "converged" if fit.converged else "not converged"
        voice.fact("iterations", f"{fit.num_iter}, {end}")
    if not math.isnan(fit.condition_number):
        voice.fact("condition number", f"{fit.condition_number:.2g}")
    apart = ", channels counted apart" if result.pixels.ndim == 3 else ""
    voice.fact("pixels fitted", f"{fit.n_pixels}{apart}")
    if turned := turned_note({options.source: source, options.result: result}):
        voice.fact("orientation", turned)
    voice.fact("light", f"{_LIGHTS[done.linear]}{compared}")
    helps = (f"what would help: {text}" for text in verdict.helps)
    voice.fact("verdict", "; ".join([str(verdict), *helps]), style=_COLOURS[verdict.belief])


def _answer(done: _Done, verdict: Verdict) -> dict[str, Any]:
    """Return all that is known, by name."""
    source, result, options, fit, facts, shown = done
    names = () if fit.found is None else fields(fit.found)
    found = {field.name: getattr(fit.found, field.name) for field in names}
    selection = found.get("kernel_shape")
    return {
        "kernel": shown.kernel,
        "standard_errors": shown.standard_errors,
        "kind": "correlation" if options.correlation else "convolution",
        "normalized": options.normalize,
        "residual": {
            "rms": facts.rms,
            "unit": "grey level" if facts.whole_levels else "result",
            "n_pixels": fit.n_pixels,
            "rms_of_other_light": done.other_rms,
        },
        "verdict": asdict(verdict),
        "found": {
            "kernel_shape": shown.kernel.shape,
            "smaller_ones_leave": selection and selection.gain,
            "light": fit.light,
            "background": fit.background,
            "ridge": fit.ridge,
        }
        | {
            name: asdict(found[name])
            for name in ("offset", "boundary")
            if found.get(name) is not None
        },
        "method": fit.method,
        "solver": fit.solver,
        "num_iter": fit.num_iter,
        "converged": fit.converged,
        "condition_number": fit.condition_number,
        "orientation": turned_note({options.source: source, options.result: result}),
    }


def _report(done: _Done, verdict: Verdict) -> str:
    source, result, options, fit, *_ = done
    (p, q), light = fit.kernel.shape, " in linear light" if done.linear else ""
    return fit.report(
        source.pixels,
        result.pixels,
        format=REPORTS[Path(options.report).suffix.lower()],
        title=f"{p}×{q} kernel from {options.source} to {options.result}{light}",
        channel_axis=_channel_axis(source),
        verdict=verdict,
    )


def _advised(verdict: Verdict, done: _Done) -> Verdict:
    """Return a verdict, and what would help in terms of the command's options."""
    tried = [] if verdict.explained else _hints(done)
    told = _as_options(verdict.helps, vars(done.options), " ".join(tried))
    return replace(verdict, helps=(*tried, *told))


def _as_options(helps: Iterable[str], known: Mapping[str, Any], said: str) -> list[str]:
    """Return helps with arguments spelt as options, without those that were said or are none."""
    found = []
    for text in helps:
        options = []
        for name, value, rows, cols in _ARGUMENT.findall(text):
            option = name.replace("kernel_shape", "size")
            spelt = f"--{option.replace('_', '-')} {value or f'{rows}x{cols}'}"
            options.append((option, spelt))
        if all(option in known and spelt not in said for option, spelt in options):
            for _, spelt in options:
                text = _ARGUMENT.sub(spelt, text, count=1)
            found.append(text)
    return found


def _hints(done: _Done) -> list[str]:
    """Return what would help a kernel that leaves too much."""
    source, result, _, fit, facts, _ = done
    if facts.whole_levels and facts.rms < 1.1 * ROUNDING_RMS:
        return []
    p, q = fit.kernel.shape
    before, after = (decode(one) if done.linear else one.pixels for one in (source, result))
    crop = crop_of(before.shape[:2], after.shape[:2], fit.offset, (p, q))
    part = part_of(before[crop.source], after[crop.result], (p, q))
    if part is None or p * q > _MOST_TAPS:
        return []
    return list(hints(part, (p, q), lossy=source.lossy or result.lossy))


def _gain(kernel: FloatArray, errors: FloatArray, normalized: bool) -> str:
    """Name a sum of taps that is neither 1 nor, as those of edge detectors are, 0."""
    total, noise = float(kernel.sum()), 3 * float(np.nan_to_num(errors).sum())
    plain = abs(total - 1) <= max(0.01, noise) or abs(total) <= 0.01 * np.abs(kernel).sum()
    if normalized or plain:
        return ""
    return f" (the result is {total:.3g} times as bright as the source)"


def _background(levels: float | FloatArray) -> str:
    """Return the level, or the lowest coefficient of every channel's polynomial."""
    numbers = np.atleast_1d(levels)
    means = numbers if np.ndim(levels) < 2 else numbers[..., 0, 0].ravel()
    return ", ".join(f"{number:.4g}" for number in means)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
