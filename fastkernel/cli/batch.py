"""Many image files in one process: what is written where, checked before any work is done."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from fastkernel.cli.errors import (
    CommandError,
    InputError,
    OutputError,
    SomeFailedError,
    UsageError,
)
from fastkernel.cli.files import FORMATS, STANDARD
from fastkernel.cli.fits import parted
from fastkernel.cli.image_output import SUFFIXES, check_suffix, name_of_kind
from fastkernel.cli.output import check_target, suffix_of
from fastkernel.cli.progress import ProgressBar
from fastkernel.cli.voice import complain


class Job(NamedTuple):
    """An image to be made: from which file, to which, and where that is."""

    source: str
    name: str
    target: Path
    suffix: str  # of its format; empty where that is the source's own


def jobs_of(options: argparse.Namespace) -> list[Job]:
    """Return what is to be done, once it is sure that no file is lost by it.

    Parameters
    ----------
    options : Namespace
        ``images`` (files, or folders whose images are meant), ``kernel``, ``output``, ``format``
        and ``force``.

    Returns
    -------
    list of Job
        One for each image, in the order that was given; of a folder by name.

    Raises
    ------
    InputError, OutputError, UsageError
        If there are no images, or two would be written to one file, or one cannot be written.
    """
    sources = _expanded(options.images, options.kernel)
    output, inputs = options.output, [*(parted(name)[0] for name in sources), options.kernel]
    if not _is_folder(output, options.images, sources):
        suffix = suffix_of(output, options.format, "")
        if suffix or output != STANDARD:
            check_suffix(output, suffix)
        target = check_target(output, force=options.force, inputs=inputs)
        return [Job(sources[0], output, target, suffix)]
    if STANDARD in sources:
        msg = f"an image of standard input has no name to be written to in {output!r}"
        raise UsageError(msg)
    asked = None if options.format is None else f".{options.format}"
    named = [(source, Path(output, name_of_kind(source, asked))) for source in sources]
    _check_apart(named)
    for suffix in {path.suffix.lower() for _, path in named}:
        check_suffix(output, suffix)
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        msg = f"{output!r} cannot be made: {problem.strerror}"
        raise OutputError(msg) from problem
    return [
        Job(
            source,
            str(path),
            check_target(str(path), force=options.force, inputs=inputs),
            path.suffix.lower(),
        )
        for source, path in named
    ]


def _expanded(names: Sequence[str], kernel: str) -> list[str]:
    """Return the files that are meant, those of a folder in its place."""
    found: list[str] = []
    for name in names:
        path = Path(name)
        if name == STANDARD or not path.is_dir():
            found.append(name)
            continue
        try:
            inside = sorted(
                file
                for file in path.iterdir()
                if file.suffix.lower() in FORMATS and file.name[0] != "." and file.is_file()
            )
        except OSError as problem:
            msg = f"{name!r} cannot be read: {problem.strerror}"
            raise InputError(msg) from problem
        inside = [file for file in inside if not _are_one(file, kernel)]
        if not inside:
            msg = f"{name!r} holds no image: {', '.join(FORMATS)}"
            raise InputError(msg)
        found += map(str, inside)
    return found


def _are_one(file: Path, kernel: str) -> bool:
    try:
        return file.samefile(kernel)
    except OSError:  # the kernel is no file
        return False


def _is_folder(output: str, given: Sequence[str], sources: Sequence[str]) -> bool:
    """Tell whether images are written to a folder, by its name or because there are many."""
    if output != STANDARD and (Path(output).is_dir() or output.endswith(("/", os.sep))):
        return True
    several = len(sources) > 1 or any(Path(name).is_dir() for name in given if name != STANDARD)
    if not several:
        return False
    if output == STANDARD or Path(output).suffix.lower() in SUFFIXES or Path(output).exists():
        msg = f"{len(sources)} images need a folder to be written to, not {output!r}: -o out/"
        raise UsageError(msg)
    return True


def _check_apart(named: Sequence[tuple[str, Path]]) -> None:
    """Refuse two images that would be written to one file, where no capitals are told also."""
    first: dict[str, str] = {}
    for source, path in named:
        key = path.name.casefold()
        if key in first:
            msg = (
                f"{first[key]!r} and {source!r} would both be written to {str(path)!r}; nothing "
                "was done: write them to folders of their own"
            )
            raise UsageError(msg)
        first[key] = source


def run_jobs(jobs: Sequence[Job], work: Callable[[Job], None], bar: ProgressBar) -> None:
    """Do all jobs; those that fail stop no other.

    Parameters
    ----------
    jobs : sequence of Job
        What is to be done.
    work : callable
        Does one, or raises a `CommandError`, which is told in a line at once.
    bar : ProgressBar
        Gets as many equal parts as there are jobs.

    Raises
    ------
    CommandError
        What stopped the only job there is.
    SomeFailedError
        If any of several failed: with the exit code of the first.
    """
    failures: list[CommandError] = []
    for i, job in enumerate(jobs):
        label = "" if len(jobs) == 1 else f"{i + 1}/{len(jobs)} {Path(job.source).name}"
        bar.over(label, i / len(jobs), (i + 1) / len(jobs))
        try:
            try:
                work(job)
            except MemoryError as lack:
                msg = f"{job.source!r}: not enough memory for an image of its size"
                raise InputError(msg) from lack
        except CommandError as problem:
            if len(jobs) == 1:
                raise
            bar.clear()
            complain(str(problem))
            failures.append(problem)
    if failures:
        raise SomeFailedError(failures[0].exit_code)
