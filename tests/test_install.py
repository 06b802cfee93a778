"""What importing costs, and what a broken compiler cache does: nothing."""

import os
import subprocess
import sys

import pytest

from fastkernel._loops import _jit

pytestmark = pytest.mark.jit


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )


def test_import_loads_nothing_heavy():
    done = python("import fastkernel, sys; print(*sys.modules)")
    loaded = set(done.stdout.split())
    assert "fastkernel" in loaded
    assert not loaded & {"numba", "scipy", "pyfftw", "matplotlib", "PIL"}


def test_public_names_are_there():
    done = python(
        "import fastkernel\n"
        "for name in fastkernel.__all__: getattr(fastkernel, name)\n"
        "assert set(fastkernel.__all__) <= set(dir(fastkernel))\n"
        "try: fastkernel.nothing\n"
        "except AttributeError as error: print(error)"
    )
    assert done.stdout == "module 'fastkernel' has no attribute 'nothing'\n"
    assert done.returncode == 0


FIT = (
    "import numpy as np, fastkernel\n"
    "x = np.random.default_rng(0).integers(0, 256, (30, 30)).astype(np.uint8)\n"
    "print(round(float(fastkernel.estimate_kernel(x, x, 3).kernel[1, 1]), 9))"
)


@pytest.fixture
def warm_cache(tmp_path):
    folder = tmp_path / "cache"
    done = python(FIT, NUMBA_CACHE_DIR=str(folder))
    assert (done.stdout, done.stderr) == ("1.0\n", "")
    return folder


def damage_empty(file):
    file.write_bytes(b"")


def damage_cut(file):
    file.write_bytes(file.read_bytes()[:100])


def damage_bits(file):
    content = bytearray(file.read_bytes())
    for i in range(20, len(content), 97):
        content[i] ^= 0x5A
    file.write_bytes(bytes(content))


def damage_remove(file):
    file.unlink()


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", [damage_empty, damage_cut, damage_remove])
def test_a_damaged_cache_changes_no_answer(warm_cache, suffix, damage):
    files = list(warm_cache.rglob(f"*{suffix}"))
    assert len(files) >= 3
    for file in files:
        damage(file)
    done = python(FIT, NUMBA_CACHE_DIR=str(warm_cache))
    assert done.stdout == "1.0\n"
    assert done.stderr.count("compiles its loops in memory") <= 1


def test_flipped_bits_in_the_index_change_no_answer(warm_cache):
    for file in warm_cache.rglob("*.nbi"):
        damage_bits(file)
    done = python(FIT, NUMBA_CACHE_DIR=str(warm_cache))
    assert done.stdout == "1.0\n"


def test_without_a_place_for_a_cache_loops_compile_in_memory(monkeypatch):
    real = _jit.njit

    def no_locator(*args, cache=False, **flags):
        if cache:
            msg = "cannot cache function: no locator available"
            raise RuntimeError(msg)
        return real(*args, **flags)

    monkeypatch.setattr(_jit, "njit", no_locator)
    monkeypatch.setattr(_jit, "_warned", False)
    with pytest.warns(RuntimeWarning, match="compiles its loops in memory: .*no locator"):
        double = _jit.loop(nogil=True)(lambda x: 2 * x)
    assert double(21) == 42
    again = _jit.loop(nogil=True)(lambda x: 3 * x)  # warned once
    assert again(14) == 42


def test_a_full_disk_at_the_first_call_changes_no_answer(monkeypatch):
    double = _jit.loop(nogil=True)(lambda x: 2 * x)

    def no_space(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(double, "compiled", no_space)
    monkeypatch.setattr(_jit, "_warned", False)
    with pytest.warns(RuntimeWarning, match="No space left"):
        assert double(21) == 42


def test_processes_may_fill_one_cache_at_once(tmp_path):
    codes = [FIT, FIT.replace(".astype(np.uint8)", ".astype(np.float64)")] * 2
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        )
        for code in codes
    ]
    assert all(float(process.communicate(timeout=300)[0]) == 1.0 for process in running)
    for code in codes[:2]:
        assert float(python(code, NUMBA_CACHE_DIR=str(tmp_path)).stdout) == 1.0
