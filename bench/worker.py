"""A contender in a process of its own, which may be another Python's.

A worker reads ``source.npy`` and ``result.npy`` from its folder, fits once for its memory and
leaves ``kernel.npy`` there; then it fits again for every line that it is sent, and answers with
a line. A contender's module calls `serve`; the bench asks through `Worker`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from . import measure

WARM = 64  # side of the corner of the images that pays for what a first call costs

Fit = Callable[[NDArray, NDArray, int, int], NDArray]


class UnavailableError(Exception):
    """Why a contender could not be measured."""


class Worker:
    """The bench's end of a contender's process."""

    def __init__(self, python: Path, module: str, folder: Path, taps: int, workers: int) -> None:
        self._errors = folder / f"{module}.err"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [str(python), "-m", module, str(folder), str(taps), str(workers)],
                cwd=measure.ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def read(self) -> dict[str, Any]:
        """Return the next answer."""
        line = self._process.stdout.readline()
        if not line:
            said = self._errors.read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((text.strip() for text in reversed(said) if text.strip()), "no word")
            reason = f"failed: {last}"
            raise UnavailableError(reason)
        return json.loads(line)

    def fit(self) -> None:
        """Let the worker fit once, and wait for it."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.read()


def serve(fit: Fit, warm: Fit, version: Callable[[], str]) -> None:
    """Be a worker. ``warm`` pays for what a first call costs, before memory is watched."""
    folder, taps, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    # What a contender prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    images = [np.load(folder / f"{name}.npy") for name in ("source", "result")]
    warm(*images, taps, workers)
    kernels: list[NDArray] = []

    def call() -> None:
        kernels[:] = [fit(*images, taps, workers)]

    def answer(told: dict[str, Any]) -> None:
        print(json.dumps(told), file=answers, flush=True)

    peak = measure.rise(call)
    np.save(folder / "kernel.npy", kernels[0])
    answer({"peak": peak, "version": version()})
    for _ in sys.stdin:
        call()
        answer({})
