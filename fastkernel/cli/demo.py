"""``fastkernel demo``: blur a drawn picture by a known kernel, and find the kernel again."""

import argparse
import io
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastkernel._typing import AnyArray
from fastkernel.cli.errors import OutputError, UsageError
from fastkernel.cli.output import check_target, figure_bytes, kernel_bytes, write_file
from fastkernel.cli.raster import pillow
from fastkernel.cli.scene import dead_leaves, grained
from fastkernel.cli.table import align
from fastkernel.cli.voice import Voice, columns
from fastkernel.estimation.quality import ROUNDING_RMS

if TYPE_CHECKING:
    from fastkernel import KernelFit

# A hand that shook: alike under no flip and no turn, so that no mix-up of axes goes unseen.
TRUTH = (
    np.array(
        [
            [0, 0, 8, 20, 12],
            [0, 14, 36, 10, 0],
            [6, 44, 22, 0, 0],
            [18, 30, 4, 0, 0],
            [10, 16, 6, 0, 0],
        ]
    )
    / 256
)
_FEWEST_PIXELS = 32


def run(options: argparse.Namespace) -> None:
    """Draw, blur, round, estimate, compare and write."""
    if options.size < _FEWEST_PIXELS:
        msg = f"argument --size: expected at least {_FEWEST_PIXELS}, got {options.size}"
        raise UsageError(msg)
    folder = Path(options.output)
    names = ("source.png", "result.png", "kernel.npy", "kernel.png", "figure.png")
    targets = _targets(folder, names, options.force)

    from scipy import ndimage

    from fastkernel import estimate_kernel

    margin = len(TRUTH) // 2
    inside = (slice(margin, -margin),) * 2
    # Blurred with what lies around it, as a lens does, so that the result needs no border rule.
    rng = np.random.default_rng(options.seed)
    scene = grained(dead_leaves(options.size + 2 * margin, rng), rng)
    blurred = ndimage.convolve(scene.astype(np.float64), TRUTH)[inside]
    source, result = scene[inside], np.rint(blurred).astype(np.uint8)
    fit = estimate_kernel(source, result, TRUTH.shape)

    contents = {
        "source.png": _png(source),
        "result.png": _png(result),
        "kernel.npy": kernel_bytes(fit.kernel, ".npy"),
        "kernel.png": kernel_bytes(fit.kernel, ".png"),
    }
    try:
        contents["figure.png"] = _figure(source, result, fit)
        note = ""
    except ImportError as problem:
        note = f"no figure.png: {problem}"
    for name, data in contents.items():
        write_file(targets[name], data)

    voice = Voice(options)
    _show(voice, fit)
    voice.say(f"wrote {', '.join(contents)} to {options.output!r}", *filter(None, [note]))
    paths = [shlex.quote(str(folder / name)) for name in ("source.png", "result.png")]
    # Whole, to be copied.
    voice.say(f"try: fastkernel estimate {' '.join(paths)} --size 5", whole=True)


def _show(voice: Voice, fit: "KernelFit") -> None:
    """Say how near the kernel is, the two beside each other where there is room."""
    tables = [
        [f" {name} kernel", *align(([f"{tap:z.4f}" for tap in row] for row in taps), gap=1)]
        for name, taps in {"true": TRUTH, "estimated": fit.kernel}.items()
    ]
    width, gap = max(map(len, tables[0])), " " * 4
    beside = [f"{one:{width}}{gap}{other}" for one, other in zip(*tables, strict=True)]
    fits = max(map(len, beside)) <= columns()
    voice.say(*(beside if fits else [*tables[0], "", *tables[1]]), "")
    difference = np.abs(fit.kernel - TRUTH)
    in_bars = float((difference / fit.standard_errors).max())
    voice.fact(
        "largest difference", f"{difference.max():.2g}, at most {in_bars:.2g} standard errors"
    )
    voice.fact("largest standard error", f"{fit.standard_errors.max():.2g}")
    voice.fact(
        "residual", f"{fit.residual_rms:.3f} grey levels (rounding leaves up to {ROUNDING_RMS:.3f})"
    )


def _targets(folder: Path, names: Iterable[str], force: bool) -> dict[str, Path]:
    try:
        pillow()
    except ImportError as problem:
        raise OutputError(str(problem)) from problem
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        msg = f"{str(folder)!r} cannot be made: {problem.strerror}"
        raise OutputError(msg) from problem
    return {name: check_target(str(folder / name), force=force) for name in names}


def _png(picture: AnyArray) -> bytes:
    buffer = io.BytesIO()
    pillow().fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _figure(source: AnyArray, result: AnyArray, fit: "KernelFit") -> bytes:
    from fastkernel.estimation.display import plot_recovery

    return figure_bytes(plot_recovery(source, result, TRUTH, fit.kernel, fit.standard_errors))
