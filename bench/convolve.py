"""Convolution, shifts and matrices, against what people use for them."""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import sparse

import fastkernel
from fastkernel.convolution.convolution_cost import ENGINES, engine_times
from fastkernel.convolution.convolution_engines import rank_one_factors

from . import data, fit, measure, report
from .measure import Call

try:
    import cv2
except ImportError:
    cv2 = None
else:
    cv2.setNumThreads(fit.WORKERS)

SIZE, QUICK_SIZE = 4096, 128
KERNELS, QUICK_KERNELS = [3, 5, 7, 9, 11, 15, 21, 31, 63, 127], [3, 9]
OTHER_SIZES, OTHER_SIZES_KERNEL = [256, 1024, 8192], 9
SEPARABLE_SIZES, SEPARABLE_KERNELS = [256, 1024], [3, 5, 15]  # no random kernels there
SHIFT_SIZES, QUICK_SHIFT_SIZES = [2048, 4096], [128]
MATRIX, QUICK_MATRIX = (512, 7), (32, 3)  # sides of the image and of the kernel
REPEATS, QUICK_REPEATS = 7, 2
MEMORY_KERNELS = [3, 9, 31]  # those whose memory is measured, in a process each
SLOW = 2.0  # seconds, from which on a contender sits out, here and for larger kernels
CROP = 64  # side of the part of the output that is compared with the definition

OURS = "fastkernel"
BY_ENGINE = {f"fastkernel, {engine}": engine for engine in ENGINES}
FILTER_2D, SEP_FILTER_2D = "cv2.filter2D", "cv2.sepFilter2D"
OA_CONVOLVE, FFT_CONVOLVE = "scipy.signal.oaconvolve", "scipy.signal.fftconvolve"
CONVOLVE_2D, NDIMAGE = "scipy.signal.convolve2d", "scipy.ndimage.convolve"
COPY = "image.copy()"
CONTENDERS = [OURS, *BY_ENGINE, FILTER_2D, SEP_FILTER_2D, OA_CONVOLVE, FFT_CONVOLVE]
CONTENDERS += [CONVOLVE_2D, NDIMAGE, COPY]


class Kernel(NamedTuple):
    """A kernel of float32, and its column and row where it is their product."""

    taps: NDArray[np.float32]
    factors: tuple[NDArray[np.float32], NDArray[np.float32]] | None


def random_kernel(taps: int) -> Kernel:
    return Kernel(data.planted_kernel(taps).astype(np.float32), None)


def separable_kernel(taps: int) -> Kernel:
    lines = np.random.default_rng(taps).uniform(0.1, 1.0, (2, taps))
    column, row = (lines / lines.sum(axis=1, keepdims=True)).astype(np.float32)
    return Kernel(np.outer(column, row), (column, row))


KINDS: dict[str, Callable[[int], Kernel]] = {
    "random": random_kernel,
    "separable": separable_kernel,
}


def chosen_engine(image: NDArray, kernel: Kernel) -> str:
    times = dict(engine_times(image.shape, kernel.taps.shape, image.itemsize))
    if rank_one_factors(kernel.taps) is None:
        del times["separable"]
    return min(times, key=times.__getitem__)


# Every contender returns a new "same" convolution of float32, with zeros beyond the frame.


def convolve(image: NDArray, taps: NDArray, method: str) -> NDArray:
    return fastkernel.convolve(image, taps, "same", method=method, workers=fit.WORKERS)


def filter_2d(image: NDArray, flipped: NDArray) -> NDArray:
    return cv2.filter2D(image, -1, flipped, borderType=cv2.BORDER_CONSTANT)


def sep_filter_2d(image: NDArray, flipped_row: NDArray, flipped_column: NDArray) -> NDArray:
    border = cv2.BORDER_CONSTANT
    return cv2.sepFilter2D(image, -1, flipped_row, flipped_column, borderType=border)


def oaconvolve(image: NDArray, taps: NDArray) -> NDArray:
    with scipy.fft.set_workers(fit.WORKERS):
        return scipy.signal.oaconvolve(image, taps, "same")


def fftconvolve(image: NDArray, taps: NDArray) -> NDArray:
    with scipy.fft.set_workers(fit.WORKERS):
        return scipy.signal.fftconvolve(image, taps, "same")


def ndimage_convolve(image: NDArray, taps: NDArray) -> NDArray:
    return scipy.ndimage.convolve(image, taps, mode="constant")


def calls_on(image: NDArray, kernel: Kernel, method: str = "auto") -> dict[str, Call]:
    """Every contender's call; ``method`` is fastkernel's where its own choice is measured."""
    taps, factors = kernel
    calls = {OURS: Call(convolve, (image, taps, method))}
    for name, engine in BY_ENGINE.items():
        if engine != "separable" or factors is not None:
            calls[name] = Call(convolve, (image, taps, engine))
    if cv2 is not None:
        # OpenCV correlates.
        calls[FILTER_2D] = Call(filter_2d, (image, np.ascontiguousarray(taps[::-1, ::-1])))
        if factors is not None:
            column, row = (np.ascontiguousarray(line[::-1]) for line in factors)
            calls[SEP_FILTER_2D] = Call(sep_filter_2d, (image, row, column))
    return calls | {
        OA_CONVOLVE: Call(oaconvolve, (image, taps)),
        FFT_CONVOLVE: Call(fftconvolve, (image, taps)),
        CONVOLVE_2D: Call(scipy.signal.convolve2d, (image, taps, "same")),
        NDIMAGE: Call(ndimage_convolve, (image, taps)),
        COPY: Call(np.copy, (image,)),
    }


class Reference:
    """The middle of a convolution, summed tap by tap in float64."""

    def __init__(self, image: NDArray, taps: NDArray) -> None:
        side, reach = min(CROP, len(image)), len(taps) // 2
        top = (len(image) - side) // 2
        self._part = slice(top, top + side), slice(top, top + side)
        around = slice(top, top + side + 2 * reach)
        x = np.pad(image, reach)[around, around].astype(np.float64)
        self._pixels = np.zeros((side, side))
        for (i, j), tap in np.ndenumerate(taps[::-1, ::-1].astype(np.float64)):
            self._pixels += tap * x[i : i + side, j : j + side]

    def error(self, found: NDArray) -> float:
        """The largest error of a pixel over the largest pixel."""
        return float(np.abs(found[self._part] - self._pixels).max() / np.abs(self._pixels).max())


def cell(
    image: NDArray, taps: int, kind: str, repeats: int, memory: bool, slow: set[str]
) -> dict[str, Any]:
    """Time, error and memory of all contenders but the ``slow`` ones, which are added to."""
    kernel = KINDS[kind](taps)
    chosen = chosen_engine(image, kernel)
    calls = calls_on(image, kernel)
    # The tiny image must warm the engine that the measured one will take.
    tiny = calls_on(data.photograph(fit.TINY).astype(np.float32), kernel, chosen)
    reference = Reference(image, kernel.taps)
    contenders: dict[str, dict[str, Any]] = {}
    for name, call in list(calls.items()):
        entry = contenders[name] = {}
        if name not in slow:
            tiny[name]()
            start = time.perf_counter()
            answer = call()
            if time.perf_counter() - start > SLOW and name != OURS:
                slow.add(name)
            if name != COPY:
                entry["error"] = reference.error(answer)
            del answer
        if name in slow:
            del calls[name]
            entry["slow"] = True
    _add_medians(contenders, measure.interleaved(calls, repeats))
    if memory:
        for name, call in calls.items():
            contenders[name]["memory"] = measure.peak_memory(call, tiny[name])
    cell = {"size": len(image), "taps": taps, "kind": kind, "chosen": chosen}
    return cell | {"contenders": contenders}


def _add_medians(contenders: dict[str, dict[str, Any]], times: dict[str, list[float]]) -> None:
    ours = statistics.median(times[OURS])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        contenders[name] |= {"seconds": seconds, "median": median, "ratio": median / ours}


# Shifts


def shift_into(image: NDArray, shift: tuple[int, int], out: NDArray) -> NDArray:
    return fastkernel.circshift(image, shift, out=out, workers=fit.WORKERS)


def shift_calls(size: int) -> dict[str, dict[str, Call]]:
    image = np.random.default_rng(size).random((size, size), np.float32)
    shift, out = (size // 3, -size // 5), np.zeros_like(image)
    return {
        f"circshift, {size}² float32": {
            OURS: Call(fastkernel.circshift, (image, shift)),
            "numpy.roll": Call(np.roll, (image, shift, (0, 1))),
            COPY: Call(np.copy, (image,)),
        },
        f"circshift, {size}² float32, out=": {
            OURS: Call(shift_into, (image, shift, out)),
            "numpy.copyto": Call(np.copyto, (out, image)),
        },
    }


# Matrices, of the "same" convolution with zeros beyond the frame, in CSR form


def matrix_by_diagonals(kernel: NDArray, side: int) -> sparse.csr_array:
    """A diagonal a tap, with zeros where a tap would reach around the end of a row."""
    (p, q), place = kernel.shape, np.arange(side)
    diagonals, offsets = [], []
    for (i, j), tap in np.ndenumerate(kernel):
        down, right = (p - 1) // 2 - i, (q - 1) // 2 - j
        line = np.where((place + right >= 0) & (place + right < side), tap, 0.0)
        offset = down * side + right
        diagonal = np.tile(line, side)
        diagonals.append(diagonal[-offset:] if offset < 0 else diagonal[: side * side - offset])
        offsets.append(offset)
    shape = side * side, side * side
    return sparse.diags_array(diagonals, offsets=offsets, shape=shape, format="csr")


def matrix_by_kronecker(kernel: NDArray, side: int) -> sparse.csr_array:
    """A sum over the kernel's rows of Kronecker products of banded matrices."""
    p, q = kernel.shape
    offsets = (q - 1) // 2 - np.arange(q)
    return sum(
        sparse.kron(
            sparse.eye_array(side, k=(p - 1) // 2 - i),
            sparse.diags_array(row, offsets=offsets, shape=(side, side)),
            format="csr",
        )
        for i, row in enumerate(kernel)
    )


def matrix_by_coordinates(kernel: NDArray, side: int) -> sparse.csr_array:
    """Row, column and value of every entry, by broadcasting."""
    (p, q), place = kernel.shape, np.arange(side)
    rows = place[:, None, None, None] + (p - 1) // 2 - np.arange(p)[:, None]
    cols = place[:, None, None] + (q - 1) // 2 - np.arange(q)
    rows, cols, output, taps = np.broadcast_arrays(
        rows, cols, np.arange(side * side).reshape(side, side)[:, :, None, None], kernel
    )
    inside = (rows >= 0) & (rows < side) & (cols >= 0) & (cols < side)
    entries = taps[inside], (output[inside], rows[inside] * side + cols[inside])
    return sparse.coo_array(entries, shape=(side * side,) * 2).tocsr()


def arrays_of(entries: int, rows: int) -> list[NDArray]:
    """The yardstick: the matrix's three arrays, each written once."""
    return [np.ones(entries), np.ones(entries, np.int32), np.ones(rows + 1, np.int32)]


def sliding_windows(image: NDArray, taps: int) -> NDArray:
    windows = sliding_window_view(image, (taps, taps))[..., ::-1, ::-1]
    return np.ascontiguousarray(windows).reshape(-1, taps * taps)


ARRAYS = "its arrays written once"


def matrix_calls(side: int, taps: int) -> dict[str, dict[str, Call]]:
    kernel = data.planted_kernel(taps)
    image = data.photograph(side).astype(np.float64)
    entries = fastkernel.convolution_matrix(kernel, (side, side), "same").nnz
    outputs = (side - taps + 1) ** 2
    return {
        f"convolution_matrix, {taps}×{taps} on {side}²": {
            OURS: Call(fastkernel.convolution_matrix, (kernel, (side, side), "same")),
            "scipy.sparse.diags_array": Call(matrix_by_diagonals, (kernel, side)),
            "scipy.sparse.kron": Call(matrix_by_kronecker, (kernel, side)),
            "scipy.sparse.coo_array": Call(matrix_by_coordinates, (kernel, side)),
            ARRAYS: Call(arrays_of, (entries, side * side)),
        },
        f"design_matrix, {taps}×{taps} on {side}²": {
            OURS: Call(fastkernel.design_matrix, (image, (taps, taps))),
            "sliding_window_view": Call(sliding_windows, (image, taps)),
            ARRAYS: Call(np.ones, ((outputs, taps * taps),)),
        },
    }


YARDSTICKS = {COPY, "numpy.copyto", ARRAYS}


def operation(what: str, calls: dict[str, Call], repeats: int) -> dict[str, Any]:
    """Times of the calls, and by how much their answers differ from fastkernel's."""
    contenders: dict[str, dict[str, Any]] = {name: {} for name in calls}
    ours = calls[OURS]()
    for name, call in calls.items():
        if name not in YARDSTICKS:
            contenders[name]["difference"] = float(abs(call() - ours).max())
    del ours
    _add_medians(contenders, measure.interleaved(calls, repeats))
    return {"what": what, "contenders": contenders}


def other_kernels(size: int) -> list[tuple[int, str]]:
    """Sizes and kinds of the kernels for an image that does not have all of them."""
    kernels = [(OTHER_SIZES_KERNEL, kind) for kind in KINDS]
    if size in SEPARABLE_SIZES:
        kernels += [(taps, "separable") for taps in SEPARABLE_KERNELS]
    return sorted(kernels)


def _grid(args: argparse.Namespace) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """Sizes of images, and sizes and kinds of the kernels for each."""
    sizes = measure.wanted(args, [SIZE], [QUICK_SIZE], args.sizes)
    kernels = measure.wanted(args, KERNELS, QUICK_KERNELS, args.kernels)
    yield from ((size, list(itertools.product(sorted(kernels), KINDS))) for size in sizes)
    if not (args.quick or args.sizes or args.kernels):
        yield from ((size, other_kernels(size)) for size in OTHER_SIZES)


def run(args: argparse.Namespace) -> dict[str, Any]:
    repeats = measure.wanted(args, REPEATS, QUICK_REPEATS, args.repeats)
    cells = []
    for size, kernels in _grid(args):
        image, slow = data.photograph(size).astype(np.float32), set[str]()
        for taps, kind in kernels:
            measure.progress("convolve", f"{size}²", kind, f"k = {taps}")
            cells.append(
                cell(image, taps, kind, repeats, args.memory and taps in MEMORY_KERNELS, slow)
            )
    sizes = measure.wanted(args, SHIFT_SIZES, QUICK_SHIFT_SIZES)
    makers = [*(Call(shift_calls, (size,)) for size in sizes)]
    makers.append(Call(matrix_calls, measure.wanted(args, MATRIX, QUICK_MATRIX)))
    operations = []
    for make in makers:
        for what, calls in make().items():
            measure.progress("convolve:", what)
            operations.append(operation(what, calls, repeats))
    return {
        "workers": fit.WORKERS,
        "opencv": None if cv2 is None else cv2.__version__,
        "cells": cells,
        "operations": operations,
    }


def label(cell: dict[str, Any]) -> str:
    return f"{cell['size']}², {cell['taps']}×{cell['taps']} {cell['kind']}"


def _time(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "-"
    if "slow" in entry:
        return "slow"
    ratio = "" if entry["ratio"] == 1 else f" ({report.figures(entry['ratio'], 2)}×)"
    return f"{report.figures(1e3 * entry['median'])}{ratio}"


def _error(entry: dict[str, Any] | None) -> str:
    return report.small((entry or {}).get("error"))


def _peak(entry: dict[str, Any] | None) -> str:
    return report.mebibytes((entry or {}).get("memory", {}).get("peak"))


def _about(result: dict[str, Any]) -> str:
    opencv = f"OpenCV {result['opencv']}" if result["opencv"] else "OpenCV is not installed"
    return (
        f'"same" convolutions of float32 photographs with zeros beyond the frame, into new '
        f"arrays. Whatever has threads has {result['workers']}; {opencv}. A contender that takes "
        f"more than {SLOW:.0f} s is slow: it is not timed, nor with larger kernels."
    )


def _operations(result: dict[str, Any]) -> str:
    rows = []
    for one in result["operations"]:
        for name, entry in one["contenders"].items():
            ratio = "" if name == OURS else f"{report.figures(entry['ratio'], 2)}×"
            rows.append([one["what"], name, report.milliseconds(entry), ratio])
    return report.table(["what", "who", "ms", "in units of fastkernel's"], rows)


def tables(result: dict[str, Any]) -> str:
    def one(title: str, names: list[str], text: Callable[[dict[str, Any] | None], str]) -> str:
        rows = [
            [label(cell), *(text(cell["contenders"].get(name)) for name in names), cell["chosen"]]
            for cell in result["cells"]
        ]
        return f"### {title}\n\n{report.table(['image, kernel', *names, 'chosen'], rows)}"

    names = [name for name in CONTENDERS if name != COPY]
    return "\n\n".join(
        [
            "## Convolution",
            _about(result),
            one("Median time, ms (in units of fastkernel's)", CONTENDERS, _time),
            one("Peak memory beyond the inputs, the output included, MiB", CONTENDERS, _peak),
            one("Largest error of a pixel, over the largest pixel", names, _error),
            f"### Shifts and matrices\n\n{_operations(result)}",
        ]
    )


def _times_faster(cell: dict[str, Any], name: str) -> str:
    entry = cell["contenders"].get(name, {})
    return report.figures(entry["ratio"], 2) if "ratio" in entry else "-"


def readme(result: dict[str, Any]) -> str:
    header = ["image, kernel", "fastkernel, ms", "engine"]
    header += [f"times faster than {name}" for name in (FILTER_2D, SEP_FILTER_2D)]
    header += [f"than {OA_CONVOLVE}", "error", "memory, MiB"]
    rows = []
    for cell in result["cells"]:
        ours = cell["contenders"][OURS]
        times = (_times_faster(cell, name) for name in (FILTER_2D, SEP_FILTER_2D, OA_CONVOLVE))
        start = [label(cell), report.milliseconds(ours), cell["chosen"]]
        rows.append([*start, *times, _error(ours), _peak(ours)])
    tables = [report.table(header, rows), _operations(result), _about(result)]
    return "\n\n".join(tables) + " Memory includes the output."
