"""How much memory a process may have: the machine's, or what its control groups allow."""

import math
import os

import numpy as np
import pytest

from fastkernel import estimate_kernel
from fastkernel._images import checks
from fastkernel._machine import memory

GIB = 2**30


def control_groups(folder, own, limits):
    """Write what Linux would show of the groups of a process, and their limits."""
    for name, limit in limits.items():
        file = folder / "control" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    (folder / "own").write_text(own)
    return memory._allowed(folder / "own", folder / "control")


@pytest.mark.parametrize(
    ("own", "limits", "want"),
    [
        ("0::/a/b\n", {"a/b/memory.max": GIB, "a/memory.max": "max"}, GIB),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": 3 * GIB}, 3 * GIB),
        ("0::/a/b\n", {"memory.max": 2 * GIB}, 2 * GIB),  # as a container sees itself
        ("0::/\n", {"memory.max": "max"}, math.inf),
        ("0::/a\n", {}, math.inf),
        (
            "4:memory:/a\n3:cpu:/b\n0::/\n",
            {"memory/a/memory.limit_in_bytes": GIB, "memory.max": 5 * GIB},
            GIB,
        ),
        ("3:cpu,cpuacct:/b\n", {"memory/b/memory.limit_in_bytes": GIB}, math.inf),
        ("0::/a\n", {"a/memory.max": "no number"}, math.inf),
    ],
)
def test_the_least_limit_of_all_groups_counts(tmp_path, own, limits, want):
    assert control_groups(tmp_path, own, limits) == want


def test_a_system_without_control_groups_has_none(tmp_path):
    assert memory._allowed(tmp_path / "absent", tmp_path) == math.inf


def test_what_is_usable_is_at_most_what_the_machine_has(monkeypatch):
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory.usable_memory() <= machine
    monkeypatch.setattr(memory, "_allowed", lambda *_: 12345.0)
    assert memory.usable_memory() == 12345.0


def test_a_machine_that_does_not_tell_has_as_much_as_is_asked_for(monkeypatch):
    monkeypatch.delattr(memory.os, "sysconf", raising=False)
    monkeypatch.setattr(memory, "_allowed", lambda *_: math.inf)
    assert memory.usable_memory() == math.inf


def test_equations_that_no_memory_holds_are_refused(monkeypatch):
    monkeypatch.setattr(checks, "usable_memory", lambda: 2.0 * GIB)
    image = np.random.default_rng(0).random((3, 25_000))
    with pytest.raises(MemoryError, match=r"1 by 9000 taps would take \d+ bytes \(2.4 GiB\)"):
        estimate_kernel(image, image, (1, 9000))
