"""``fastkernel doctor``: what a bug report needs."""

import argparse
import platform
import stat
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastkernel import __version__
from fastkernel._machine.tiles import usable_cores
from fastkernel.cli.voice import Voice

_PACKAGES = (
    "numpy",
    "scipy",
    "numba",
    "llvmlite",
    "pyfftw",
    "pillow",
    "tifffile",
    "argcomplete",
    "astropy",
    "matplotlib",
)


def run(options: argparse.Namespace) -> None:
    """Print versions, processor, cache and licences."""
    voice = Voice(options)
    voice.say(
        f"fastkernel {__version__}",
        f"python {platform.python_version()} on {platform.platform()}",
        *(f"{package} {_version(package)}" for package in _PACKAGES),
        f"processor: {_processor()}, {usable_cores()} usable cores",
        f"Numba cache: {_numba_cache()}",
        "licence: fastkernel is BSD-3-Clause; the pyFFTW wheels contain FFTW, which is GPL-2.0 or "
        "later, and so is what is shipped together with them",
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _numba_cache() -> str:
    folder = _cache_path()
    if folder is None:
        return "none"
    shared = _open_to_others(folder)
    where = "there" if shared == folder else f"in {str(shared)!r} above it"
    warning = "" if shared is None else f"; others may write {where}, and what they write is run"
    return f"{str(folder)!r}{warning}"


def _open_to_others(folder: Path) -> Path | None:
    """Return the folder, or one above it, in which others may put something else in its place.

    In a sticky folder, such as that of temporary files, what is there stays its owner's.
    """
    for place in (folder, *folder.parents):
        mode = place.stat().st_mode if place.exists() else 0
        sticky = place != folder and mode & stat.S_ISVTX
        if mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
            return place
    return None


def _cache_path() -> Path | None:
    from fastkernel._loops import lags
    from fastkernel._loops._jit import Loop

    loops = (loop.compiled for loop in vars(lags).values() if isinstance(loop, Loop))
    # No statistics with the JIT switched off, no path with a cache that failed.
    paths = (getattr(getattr(loop, "stats", None), "cache_path", None) for loop in loops)
    path = next(filter(None, paths), None)
    return None if path is None else Path(path)
