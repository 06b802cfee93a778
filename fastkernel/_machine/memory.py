"""How much memory there is to be had."""

import math
import os
from pathlib import Path

_CONTROL = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def usable_memory() -> float:
    """Return the bytes that this process may have; infinity where the system does not tell.

    Those of the machine, or what a container, or a scheduler of jobs, allows.
    """
    try:
        machine = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        machine = math.inf
    return min(machine, _allowed(_OWN, _CONTROL))


def _allowed(own: Path, control: Path) -> float:
    """Return the least limit of the control groups that a process is in, of both their versions."""
    try:
        groups = own.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return math.inf
    limits = [math.inf]
    for line in groups:
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        file = "memory.limit_in_bytes" if controllers else "memory.max"
        group = Path(name.lstrip("/"))
        root = control / "memory" if controllers else control
        # Inside a container a group's own name may not be there, and its limit at the top.
        limits += [_limit(root / part / file) for part in (group, *group.parents)]
    return min(limits)


def _limit(file: Path) -> float:
    """Return what a file says; infinity where it says nothing, or "max"."""
    try:
        return float(int(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return math.inf
