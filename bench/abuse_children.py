"""What `abuse` runs in processes of its own: each prints "right" where it ended as it should."""

import contextlib
import io
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastkernel

from . import measure

# Calls that take long, of images of 1500 pixels a side.
LONG: dict[str, Callable[[NDArray], Any]] = {
    "transforms": lambda image: [fastkernel.estimate_kernel(image, image, 31) for _ in range(99)],
    "ridge": lambda image: fastkernel.estimate_kernel(image, image, 61, ridge="gcv"),
    "inverse": lambda _: fastkernel.inverse_kernel([[0.2, 1, 0.3]], 6001, method="fft"),
    "restore": lambda image: fastkernel.richardson_lucy(image, np.ones((9, 9)), 10**5, noise=None),
    "field": lambda image: [fastkernel.estimate_kernel_field(image, image, 9) for _ in range(99)],
    "minimum norm": lambda image: fastkernel.estimate_kernel(
        image, image, 61, solver="minimum_norm"
    ),
    "linear program": lambda image: fastkernel.estimate_kernel(
        image[:400, :400], image[:400, :400] ** 2, 15, method="lad", solver="linear_programming"
    ),
}


def _noise(side: int) -> NDArray:
    return np.random.default_rng(0).random((side, side))


def _is_right() -> bool:
    x = _noise(60)
    found = [fastkernel.estimate_kernel(x, x, 3).kernel for _ in range(2)]
    return all(abs(kernel[1, 1] - 1) < 1e-9 for kernel in found)


def _say(right: bool, told: str = "wrong") -> None:
    print("right" if right else told, flush=True)


def first_call() -> None:
    """Be interrupted once, in the call or after it, and work then."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    x, told = _noise(60), "the press was lost"
    try:
        print("go", flush=True)
        fastkernel.estimate_kernel(x, x, 3)
        time.sleep(6)
    except KeyboardInterrupt:
        told = "wrong"
        _say(_is_right())
        return
    _say(False, told)


def forks(what: str, children: str) -> None:
    """Fork while another thread is in calls; children make one too."""
    image, smooth = _noise(200)[:90], np.outer(np.hanning(43)[1:-1], np.hanning(41)[1:-1])
    calls: dict[str, Callable[[], Any]] = {
        "convolve": lambda: fastkernel.convolve(image, smooth),
        "inverse": lambda: fastkernel.inverse_kernel([[1.0, 0.4]], (3, 9)),
        "first": lambda: fastkernel.estimate_kernel(image, image, 3),
    }
    call, stop = calls[what], threading.Event()
    if what != "first":
        call()

    def work() -> None:
        while not stop.is_set():
            call()

    others = [threading.Thread(target=work) for _ in range(1 if what == "first" else 3)]
    for thread in others:
        thread.start()
    started = []
    for _ in range(int(children)):
        time.sleep(0.05 if what == "first" else 0.002)
        process = os.fork()
        if process == 0:
            signal.alarm(60)
            call()
            os._exit(0)
        started.append(process)
    states = [os.waitpid(process, 0)[1] for process in started]
    stop.set()
    for thread in others:
        thread.join()
    _say(not any(states) and _is_right(), f"children ended by {sorted(set(states))}")


def long(what: str, presses: str) -> None:
    """Begin a long call as often as it is interrupted, and tell when it ended."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    image = _noise(1500)
    _is_right()
    for _ in range(int(presses)):
        try:
            print("go", flush=True)
            LONG[what](image)
            time.sleep(60)  # it was too short: the press ends this
        except KeyboardInterrupt:
            print(time.time(), flush=True)
    os._exit(0)


def _damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """Return a file with some bits flipped, its end missing, or a number of its head replaced."""
    found = bytearray(whole)
    kind = rng.integers(3)
    if kind == 0:
        for place in rng.integers(0, len(found), rng.integers(1, 9)):
            found[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del found[int(rng.integers(64) * len(found) / 64) :]
    else:
        place = int(rng.integers(0, min(200, len(found) - 4)))
        number = int(rng.choice(np.array([0, 1, 2**16, 2**31 - 1, 2**32 - 1])))
        found[place : place + 4] = number.to_bytes(4, "little" if rng.integers(2) else "big")
    return bytes(found)


def damaged(what: str, seed: str, count: str) -> None:
    """Have damaged files read: an answer, or one line that says what is wrong, and nothing else."""
    from PIL import Image

    from fastkernel.cli import main

    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    rng, wrong = np.random.default_rng(int(seed)), []
    image = (255 * _noise(24)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as name:
        good, bad, out = (Path(name) / f for f in ("good.npy", f"bad.{what}", "out.npy"))
        np.save(good, image)
        if what == "equations":
            bad = bad.with_suffix(".npz")
            fastkernel.normal_equations(image, image, 3).save(bad)
        elif what == "npy":
            np.save(bad, image)
        else:
            Image.fromarray(image).save(bad)
        whole = bad.read_bytes()
        for _ in range(int(count)):
            bad.write_bytes(_damaged(whole, rng))
            signal.alarm(10)
            if what == "equations":
                with contextlib.suppress(ValueError):
                    fastkernel.NormalEquations.load(bad)
                continue
            told = io.StringIO()
            with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
                code = main(["estimate", str(bad), str(good), "--size", "3", "-o", str(out)])
            lines = told.getvalue().strip().splitlines()
            # 1 and 5 are said of kernels, by pictures that are whole but not these.
            if code not in (0, 1, 2, 3, 5) or (code == 3 and len(lines) != 1):
                wrong.append(f"{code} {lines[-1:]}")
            elif code in (2, 3) and out.exists():
                wrong.append("an output of no input")
            out.unlink(missing_ok=True)
    _say(not wrong, "; ".join(wrong[:3]))


def _mixed_calls() -> list[Callable[[], NDArray]]:
    image, kernel = _noise(120), _noise(7)
    whole = (255 * image).astype(np.uint8)
    return [
        lambda: fastkernel.convolve(image, kernel, "same", "mirror"),
        lambda: fastkernel.convolve(image, _noise(31)),
        lambda: fastkernel.estimate_kernel(whole, whole.T, 5).kernel,
        lambda: fastkernel.estimate_kernel(image, image.T, 15, background=1).kernel,
        lambda: fastkernel.estimate_kernel(image, image.T, 3, mask=image > 0.9).kernel,
        lambda: fastkernel.estimate_kernel_field(image, image.T, 3, degree=1).coefficients,
        lambda: fastkernel.wiener(image, kernel / kernel.sum()),
        lambda: fastkernel.richardson_lucy(image, kernel / kernel.sum(), 5, noise=None),
        lambda: fastkernel.circshift(image, (3, 5)),
        lambda: fastkernel.inverse_kernel(kernel, 9).kernel,
    ]


def _from_eight_threads(more: Callable[[int], bool]) -> list[int]:
    """Make mixed calls while a thread that made so many is to make more: those of other bits."""
    work = _mixed_calls()
    alone, wrong = [call() for call in work], []

    def calling(number: int) -> None:
        rng, made = np.random.default_rng(number), 0
        while more(made):
            i = int(rng.integers(len(work)))
            if not np.array_equal(work[i](), alone[i]):
                wrong.append(i)
            made += 1

    others = [threading.Thread(target=calling, args=(number,)) for number in range(8)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()
    return wrong


def threads(calls: str) -> None:
    """Make mixed calls from eight threads, and compare every answer with one thread's."""
    wrong = _from_eight_threads(lambda made: made < int(calls))
    _say(not wrong, f"other bits: {wrong[:5]}")


def soak(seconds: str) -> None:
    """Do so for a time; the memory in use must not grow from a fifth of it on."""
    start, held = time.monotonic(), []

    def more(_: int) -> bool:
        now = (time.monotonic() - start) / int(seconds)
        if now > 0.2 and not held:
            held.append(measure.resident())
        return now < 1

    wrong = _from_eight_threads(more)
    grown = (measure.resident() - held[0]) >> 20
    _say(not wrong and grown <= 16, f"other bits: {wrong[:5]}, {grown} MiB more")


def memory(mebibytes: str) -> None:
    """Make calls with so much address space left, and small ones after it.

    Each was made before: neither the compiler nor new threads of the C library can do without.
    """
    image = _noise(1024)
    calls: tuple[Callable[[], Any], ...] = (
        lambda: fastkernel.convolve(image, image[:40, :40]),
        lambda: fastkernel.estimate_kernel(image, image, 31),
        lambda: fastkernel.wiener(image, image[:9, :9]),
        lambda: fastkernel.richardson_lucy(image, image[:9, :9], 2, noise=None),
        lambda: fastkernel.estimate_kernel_field(image, image, 9),
    )
    for call in (*calls, _is_right):
        call()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (size + (int(mebibytes) << 20), most))
    for call in calls:
        with contextlib.suppress(MemoryError):
            call()
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    _say(_is_right())


def large(side: str) -> None:
    """Sum over a sparse mapped file, whose last corner alone holds anything."""
    n, corner = int(side), (200 * _noise(60)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as name:
        image = np.memmap(Path(name) / "sparse", np.uint8, "w+", shape=(n, n))
        image[-60:, -60:] = corner
        found = []
        more = measure.rise_without_files(
            lambda: found.append(fastkernel.normal_equations(image, image, 3))
        )
        part = np.zeros((64, 64), np.uint8)
        part[-60:, -60:] = corner
        want = fastkernel.normal_equations(part, part, 3)
        same = np.array_equal(found[0].gram, want.gram)
        _say(same and more < 200e6, f"sums alike: {same}, {more / 1e6:.0f} MB more")


def cold() -> None:
    """Make first calls of several kinds."""
    image = _noise(40)
    fastkernel.convolve(image, image[:3, :3])
    fastkernel.circshift(image, (1, 2))
    _say(_is_right())


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
