"""What importing costs, and what a broken compiler cache does: nothing."""

import itertools
import os
import shutil
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


def test_import_loads_nothing_else():
    done = python(
        "import sys; old = {*sys.modules}; import fastkernel; print({*sys.modules} - old)"
    )
    assert done.stdout == "{'fastkernel'}\n"


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
    "fastkernel.convolve(x, [[1, 2, 1]])\n"
    "print(round(float(fastkernel.estimate_kernel(x, x, 3, background=0).kernel[1, 1]), 9))"
)


@pytest.fixture(scope="module")
def warm_cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("warm")
    done = python(FIT, NUMBA_CACHE_DIR=str(folder))
    assert (done.stdout, done.stderr) == ("1.0\n", "")
    return folder


def emptied(file):
    file.write_bytes(b"")


def cut(file):
    file.write_bytes(file.read_bytes()[:100])


def removed(file):
    file.unlink()


def bits_flipped(file):
    content = bytearray(file.read_bytes())
    for i in range(20, len(content), 97):
        content[i] ^= 0x5A
    file.write_bytes(bytes(content))


# Flipped bits of machine code run as they are.
@pytest.mark.parametrize(
    ("suffix", "damages"),
    [(".nbi", [emptied, cut, removed, bits_flipped]), (".nbc", [emptied, cut, removed])],
)
def test_a_damaged_cache_changes_no_answer(warm_cache, suffix, damages, tmp_path):
    """Every loop has files of its own, so that each may be damaged in another way."""
    shutil.copytree(warm_cache, tmp_path, dirs_exist_ok=True)
    files = sorted(tmp_path.rglob(f"*{suffix}"))
    assert len(files) >= len(damages)
    for file, damage in zip(files, itertools.cycle(damages), strict=False):
        damage(file)
    done = python(FIT, NUMBA_CACHE_DIR=str(tmp_path))
    assert done.stdout == "1.0\n"
    assert done.stderr.count("compiles its loops in memory") <= 1


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
    code = (
        "import numpy as np, fastkernel\n"
        "print(fastkernel.convolution_matrix(np.eye(3, dtype='{}'), (9, 9)).max())"
    )
    codes = [code.format("f4"), code.format("f8")] * 2  # two signatures of one loop
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
