"""``fastkernel restore``: image files with a known blur undone."""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from fastkernel._typing import AnyArray
from fastkernel.cli.errors import UsageError
from fastkernel.cli.images import remake_files
from fastkernel.cli.kernels import read_kernel_file, unit_sum
from fastkernel.cli.progress import ProgressBar
from fastkernel.cli.words import BOUNDARIES

# The options that each method takes, by the names of its arguments.
_TAKES = {
    "wiener": ("balance", "boundary"),
    "richardson_lucy": ("num_iter", "tol", "damping", "noise", "acceleration", "boundary"),
    "inverse": ("epsilon", "guarded", "boundary"),
}
_FLAGS = {"acceleration": "--no-acceleration"}

# Pixels beyond which a filter that assumes nothing beyond the frame, which takes six images in
# memory, goes by tiles; their side, that of the part that the balance of all is chosen in too; and
# what they read beyond it, in pixels and in sides of the kernel: a seam is then an eighth of
# the error for a disk of 15 x 15, and three quarters of it for a straight motion of 31 pixels.
_TILED, _SIDE = 1 << 24, 2048
_HALO, _SIDES = 128, 10

# What may stand beyond the border.
_DIVIDED = ("circular", "symmetric", "edge_taper", "unknown")
_BORDERS = {
    "wiener": _DIVIDED,
    "richardson_lucy": ("unknown", *BOUNDARIES),
    "inverse": _DIVIDED,
}


def run(options: argparse.Namespace) -> None:
    """Read, restore, write."""
    import fastkernel

    functions: dict[str, Callable[..., AnyArray]] = {
        "wiener": fastkernel.wiener,
        "richardson_lucy": fastkernel.richardson_lucy,
        "inverse": fastkernel.inverse_filter,
    }
    tuning = _tuning(options)
    notes: list[str] = []
    found, bar = read_kernel_file(options.kernel, notes.append), ProgressBar(quiet=options.quiet)
    psf = found.taps
    if not options.keep_sum:
        psf = unit_sum(psf, options.kernel, notes.append)
    if found.background:
        notes.append(f"background: {found.background:.4g}, found beside the kernel, is taken off")

    def restored(image: AnyArray, channel_axis: int | None) -> AnyArray:
        if found.background:
            image = image - np.float64(found.background)
        if _goes_by_tiles(options, image.shape):
            how = {"callback": bar, "workers": options.workers, **tuning}
            return _by_tiles(image, psf, channel_axis, notes.append, how)
        return functions[options.method](
            image,
            psf,
            channel_axis=channel_axis,
            workers=options.workers,
            callback=bar,
            **tuning,
        )

    remake_files(options, found, restored, "restored", notes, bar)


def _goes_by_tiles(options: argparse.Namespace, shape: tuple[int, ...]) -> bool:
    """Return whether what is assumed beyond the frame may be nothing, and that of many pixels."""
    aperiodic = options.boundary in (None, "unknown")
    return options.method == "wiener" and aperiodic and shape[0] * shape[1] > _TILED


def _by_tiles(
    image: AnyArray,
    psf: AnyArray,
    channel_axis: int | None,
    note: Callable[[str], None],
    how: dict[str, Any],
) -> AnyArray:
    """Restore an image by tiles that overlap, all with one balance, in about its own memory."""
    import fastkernel

    boundary, balance = how.setdefault("boundary", "auto"), how.get("balance", "gcv")
    if balance == "gcv":
        rows, cols = (slice(max(n - _SIDE, 0) // 2, (n + _SIDE) // 2) for n in image.shape[:2])
        part = image[rows, cols]
        grey = part if channel_axis is None else part.mean(axis=channel_axis, dtype=np.float64)
        how["balance"] = fastkernel.gcv_balance(grey, psf, boundary=boundary)
        note(f"balance: {how['balance']:.3g}, chosen in the middle of the image for all its tiles")
    note("restored by tiles that overlap, to hold no more than a few images in memory")
    # Single precision has 256 times the levels of 16 bits.
    single = image.dtype.itemsize <= 2 or image.dtype == np.float32
    return fastkernel.restore_tiled(
        fastkernel.wiener,
        image,
        psf,
        tile_shape=(_SIDE, _SIDE),
        halo=tuple(max(_HALO, _SIDES * (side - 1)) for side in psf.shape),
        channel_axis=channel_axis,
        dtype=np.float32 if single else np.float64,
        **how,
    )


def _tuning(options: argparse.Namespace) -> dict[str, Any]:
    """Return what was given for the method, or say that it takes no such option."""
    known = {name for names in _TAKES.values() for name in names}
    given = {name: value for name in known if (value := getattr(options, name)) is not None}
    for name in sorted(given):
        if name not in _TAKES[options.method]:
            methods = " or ".join(method for method, names in _TAKES.items() if name in names)
            flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
            msg = f"{flag} goes with --method {methods}, not with {options.method}"
            raise UsageError(msg)
    boundary, borders = given.get("boundary"), _BORDERS[options.method]
    if boundary is not None and boundary not in borders:
        msg = f"--boundary {boundary} does not go with --method {options.method}: {_list(borders)}"
        raise UsageError(msg)
    if options.method == "inverse" and boundary == "unknown" and not given.get("guarded"):
        msg = "--boundary unknown goes with --method inverse --guarded"
        raise UsageError(msg)
    return given


def _list(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
