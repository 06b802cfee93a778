"""``fastkernel demo``: blur a drawn picture by a known kernel, and find the kernel again."""

import argparse
import io
import shlex
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fastkernel._typing import AnyArray, FloatArray
from fastkernel.cli.errors import OutputError, UsageError
from fastkernel.cli.files import pillow
from fastkernel.cli.output import check_target, figure_bytes, kernel_bytes, write_file
from fastkernel.cli.scene import dead_leaves
from fastkernel.cli.table import align
from fastkernel.estimation.quality import ROUNDING_RMS

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
    scene = dead_leaves(options.size + 2 * margin, np.random.default_rng(options.seed))
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
        contents["figure.png"] = _figure(source, result, fit.kernel)
        note = ""
    except ImportError as problem:
        note = f"no figure.png: {problem}"
    for name, data in contents.items():
        write_file(targets[name], data)

    columns = [
        align([f"{tap:z.4f}" for tap in row] for row in taps) for taps in (TRUTH, fit.kernel)
    ]
    width = len(columns[0][0])
    print(f"{'  true kernel':{width}}      estimated kernel")
    print(*map("    ".join, zip(*columns, strict=True)), "", sep="\n")
    print(f"largest difference: {np.abs(fit.kernel - TRUTH).max():.2g}")
    print(f"largest standard error: {fit.standard_errors.max():.2g}")
    print(
        f"residual: {fit.residual_rms:.3f} grey levels (rounding leaves up to {ROUNDING_RMS:.3f})"
    )
    print(f"wrote {', '.join(contents)} to {options.output!r}")
    if note:
        print(note)
    paths = [shlex.quote(str(folder / name)) for name in ("source.png", "result.png")]
    print(f"try: fastkernel estimate {' '.join(paths)} --size 5")


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


def _figure(source: AnyArray, result: AnyArray, kernel: FloatArray) -> bytes:
    from fastkernel.estimation.display import plot_recovery

    return figure_bytes(plot_recovery(source, result, TRUTH, kernel))
