"""``fastkernel match``: the difference of two images of one scene."""

import argparse
import io
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastkernel._typing import AnyArray
from fastkernel.cli.errors import InputError, OutputError, UsageError
from fastkernel.cli.files import read_picture
from fastkernel.cli.fits import SUFFIXES, astropy_fits, fits_bytes, is_fits, parted, read_fits
from fastkernel.cli.output import check_target, json_text, write_file
from fastkernel.cli.progress import ProgressBar
from fastkernel.cli.voice import Voice
from fastkernel.estimation.errors import SingularFitError

if TYPE_CHECKING:
    from fastkernel.estimation.difference.image_match import ImageMatch


def run(options: argparse.Namespace) -> None:
    """Read, match, print, write."""
    from fastkernel.estimation.difference.match_images import match_images

    target = _target(options)
    (science, header), (reference, _) = (
        _read(name, options) for name in (options.science, options.reference)
    )
    voice, bar = Voice(options), ProgressBar(quiet=options.quiet)
    try:
        with voice.phase("matching"):
            match = match_images(
                science,
                reference,
                options.size or "auto",
                degree=options.degree,
                background=None if options.background == "none" else options.background,
                science_variance=_beside(options, "science", "variance"),
                reference_variance=_beside(options, "reference", "variance"),
                science_mask=_beside(options, "science", "mask"),
                reference_mask=_beside(options, "reference", "mask"),
                saturation=None if options.saturation is None else (None, options.saturation),
                direction=options.direction,
                decorrelate=options.decorrelate,
                workers=options.workers,
                callback=bar,
            )
    except SingularFitError:
        raise
    except (TypeError, ValueError) as problem:
        msg = f"{options.science!r} and {options.reference!r} cannot be matched: {problem}"
        raise InputError(msg) from problem
    finally:
        bar.clear()
    write_file(target, _bytes(match, header, target.suffix.lower()))
    if options.json:
        print(json_text(_told(match)))
    voice.say(*str(match).splitlines(), f"wrote {options.output!r}")


def _target(options: argparse.Namespace) -> Path:
    """Check that the output can be written, before any work is done."""
    suffix = Path(options.output).suffix.lower()
    if suffix not in (*SUFFIXES, ".npz"):
        msg = (
            f"{options.output!r} has none of the suffixes a difference is written to: "
            f"{', '.join(SUFFIXES)}, .npz"
        )
        raise OutputError(msg)
    if suffix != ".npz":
        try:
            astropy_fits()
        except ImportError as problem:
            msg = f"{options.output!r}: {problem}; or write .npz"
            raise OutputError(msg) from problem
    inputs = [parted(name)[0] for name in (options.science, options.reference)]
    return check_target(options.output, force=options.force, inputs=inputs)


def _read(name: str, options: argparse.Namespace) -> tuple[AnyArray, Any]:
    """Read an image, and the header of a FITS file; None for others."""
    if is_fits(name):
        return read_fits(name, options.max_pixels)
    pixels = read_picture(
        name, max_pixels=options.max_pixels, drop_alpha=options.drop_alpha, page=options.page
    ).pixels
    if pixels.ndim != 2:
        msg = f"{name!r} has {pixels.shape[2]} channels; give images of one"
        raise InputError(msg)
    return pixels, None


def _beside(options: argparse.Namespace, image: str, kind: str) -> Any:
    """Return what an option says of an image's pixels: a number, what a file holds, or None."""
    value = getattr(options, f"{image}_{kind}")
    if not isinstance(value, str):
        return value
    if value.startswith("["):  # an extension of the image's own file
        own = getattr(options, image)
        if not is_fits(own):
            msg = f"--{image}-{kind} {value} names an extension, and {own!r} is no FITS file"
            raise UsageError(msg)
        value = parted(own)[0] + value
    pixels, _ = _read(value, options)
    return pixels != 0 if kind == "mask" else pixels


def _bytes(match: "ImageMatch", header: Any, suffix: str) -> bytes:
    """Return the contents of a difference's file."""
    from fastkernel.estimation.difference.image_match import MatchFlag

    images: dict[str, AnyArray] = {
        "DIFFERENCE": match.difference.astype(np.float32),
        "VARIANCE": match.variance.astype(np.float32),
        "MASK": match.flags,
    }
    if suffix == ".npz":
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name.lower(): image for name, image in images.items()}
        np.savez(buffer, **arrays, allow_pickle=False)
        return buffer.getvalue()
    told: dict[str, tuple[Any, str]] = {
        "FKCONV": (match.direction, "image that fastkernel convolved"),
        "FKSCALE": (_scale(match), "sum of the taps of its kernel"),
        "FKWHITE": (match.decorrelated, "noise was made white"),
        "FKSCORE": (match.quality.score_std, "std of difference / noise on sky"),
    }
    told |= {f"FKBIT{bit}": (flag.name, "of MASK") for bit, flag in enumerate(MatchFlag)}
    return fits_bytes(images, header, told)


def _scale(match: "ImageMatch") -> float:
    return float(match.field.scale_at(*((n - 1) / 2 for n in match.field.shape)))


def _told(match: "ImageMatch") -> dict[str, Any]:
    return {
        "direction": match.direction,
        "kernel_shape": match.field.kernel_shape,
        "scale": _scale(match),
        "decorrelated": match.decorrelated,
        "quality": asdict(match.quality),
    }
