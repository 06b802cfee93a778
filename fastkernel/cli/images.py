"""Images that a command makes from images: the same dtype, the same kind of file or another."""

import argparse
from collections.abc import Callable

import numpy as np

from fastkernel._typing import AnyArray
from fastkernel.cli.batch import Job, jobs_of, run_jobs
from fastkernel.cli.errors import InputError, UsageError
from fastkernel.cli.files import FORMATS, STANDARD, read_picture
from fastkernel.cli.image_output import check_holds, check_suffix, image_bytes
from fastkernel.cli.kernels import KernelFile
from fastkernel.cli.light import decode, encode
from fastkernel.cli.output import json_text, write_file
from fastkernel.cli.picture import Picture, turned_note
from fastkernel.cli.progress import ProgressBar
from fastkernel.cli.voice import Voice

# Called with pixels and the axis of their channels, if any; returns as many pixels.
Make = Callable[[AnyArray, int | None], AnyArray]

# What standard output is written as where no format is asked for: that of the image.
_SUFFIXES = {kind: suffix for suffix, kind in reversed(FORMATS.items())}
_SUFFIXES |= {"GIF": ".png", "PPM": ".pnm"}

_LIGHTS = {"none": "stored", "srgb": "srgb"}


def remake_files(
    options: argparse.Namespace,
    kernel: KernelFile,
    make: Make,
    failure: str,
    notes: list[str],
    bar: ProgressBar,
) -> None:
    """Read image files, write what becomes of each, and say so.

    Parameters
    ----------
    options : Namespace
        What `options.read_options` read for a command that makes images from images.
    kernel : KernelFile
        What is known of the kernel: the light it is for says what is done, unless an option does.
    make : callable
        What is done to the pixels; its TypeError or ValueError is the image's fault.
    failure : str
        What an image then cannot be: "restored".
    notes : list of str
        What is said of the kernel once the first image is made, and what ``make`` adds to it.
    bar : ProgressBar
        The bar over all of them, which ``make`` may move on.

    Raises
    ------
    CommandError
        If an image cannot be read, made or written; of several, the others are.
    """
    light = _light_of(options, kernel)
    jobs = jobs_of(options)
    voice = Voice(options, aside=jobs[0].name == STANDARD)
    of_light, told = list[str](), 0
    if options.transfer == "auto" and light == "srgb":
        of_light.append("light: linear (sRGB decoded), for which the kernel was found")
    written: list[str] = []

    def work(job: Job) -> None:
        nonlocal told
        picture = _read(job, options, light)
        suffix = job.suffix or _SUFFIXES[picture.kind]
        if not job.suffix:
            check_suffix(job.name, suffix)
        check_holds(job.name, suffix, picture, floats=options.float)
        _check_order(picture, kernel.taps.shape, options)
        try:
            with voice.phase(f"{failure} {job.source}"):
                pixels = remake(
                    picture,
                    make,
                    clip=options.clip,
                    linear=light == "srgb",
                    floats=options.float,
                )
        except (TypeError, ValueError) as problem:
            msg = f"{job.source!r} cannot be {failure}: {problem}"
            raise InputError(msg) from problem
        write_file(job.target, image_bytes(pixels, suffix, picture.notes, options.quality))
        bar.clear()
        turned = turned_note({job.source: picture})
        here = "" if job.name == STANDARD else f"wrote {job.name!r}"
        voice.say(*notes[told:], *of_light, *filter(None, [turned, here]))
        told = len(notes)
        of_light.clear()
        written.append(job.name)

    try:
        run_jobs(jobs, work, bar)
    finally:
        bar.clear()
        if options.json:
            failed = [job.source for job in jobs if job.name not in written]
            print(json_text({"written": written, "failed": failed, "notes": list(notes)}))


def _light_of(options: argparse.Namespace, kernel: KernelFile) -> str:
    """Return the light that a kernel acts on, once options are known to go together."""
    light = _LIGHTS.get(options.transfer, kernel.light or "stored")
    if options.float and light == "srgb":
        why = "--transfer srgb" if options.transfer == "srgb" else "the kernel is for light"
        msg = f"--float goes with --transfer none: light of floats needs no sRGB levels ({why})"
        raise UsageError(msg)
    if options.quality is not None and options.float:
        msg = "--quality is of JPEG and WebP, which hold no floats: leave --float out"
        raise UsageError(msg)
    if options.json and options.output == STANDARD:
        msg = "--json and -o - both write to standard output; give the image a file"
        raise UsageError(msg)
    return light


def _check_order(picture: Picture, taps: tuple[int, ...], options: argparse.Namespace) -> None:
    """Refuse what looks like the two files in each other's places."""
    rows, cols = picture.pixels.shape[:2]
    if options.in_doubt and taps[0] > rows and taps[1] > cols:
        msg = (
            f"{options.kernel!r} stands first and is the kernel, and it is larger than "
            f"{options.images[0]!r}: KERNEL goes before IMAGE, or after --kernel"
        )
        raise InputError(msg)


def _read(job: Job, options: argparse.Namespace, light: str) -> Picture:
    picture = read_picture(
        job.source,
        max_pixels=options.max_pixels,
        drop_alpha=options.drop_alpha,
        page=options.page,
    )
    if light == "srgb" and picture.bits not in {8, 16}:
        why = "the kernel is for light, which" if options.transfer == "auto" else "--transfer srgb"
        msg = f"{why} needs an 8 or 16 bit file, not {job.source!r}; decode it first"
        raise InputError(msg)
    return picture


def remake(
    picture: Picture, make: Make, *, clip: bool, linear: bool = False, floats: bool = False
) -> AnyArray:
    """Return what becomes of a picture's pixels, in its own dtype unless they stay floats.

    Parameters
    ----------
    picture : Picture
        The image.
    make : callable
        What is done to the pixels.
    clip : bool
        Whether floats are clipped to the range of the picture. Whole grey levels are rounded, and
        clipped to those that the file can hold, in any case.
    linear : bool, optional
        Whether it is done to the light that 8 or 16 bit levels of sRGB stand for.
    floats : bool, optional
        Whether pixels stay what they are computed as, neither rounded nor, unless ``clip``, cut.

    Returns
    -------
    array
        Of the picture's shape.
    """
    pixels = picture.pixels
    made = make(decode(picture) if linear else pixels, 2 if pixels.ndim == 3 else None)
    if picture.bits is not None and not floats:
        white = (1 << picture.bits) - 1
        made = encode(made, white) if linear else made
        # In place, as these are the largest arrays there are; `make` returned one of its own.
        own = made if made.dtype.kind == "f" else None
        levels = np.clip(np.rint(made, out=own), 0, white, out=own).astype(pixels.dtype)
        return levels * np.uint8(255) if picture.bits == 1 else levels
    if clip:
        made = np.clip(made, pixels.min(), pixels.max())
    if floats:
        return made
    if pixels.dtype.kind in "iu":
        limits = np.iinfo(pixels.dtype)
        highest = float(limits.max)
        if highest > limits.max:  # 64 bits, which floats round up
            highest = np.nextafter(highest, 0)
        made = np.clip(np.rint(made), limits.min, highest)
    with np.errstate(over="ignore"):
        stored = made.astype(pixels.dtype)
    if stored.dtype.kind == "f" and (np.isinf(stored) & np.isfinite(made)).any():
        msg = f"it has pixels that {stored.dtype} cannot hold; --float writes them"
        raise ValueError(msg)
    return stored
