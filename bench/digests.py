"""``python -m bench.digests record FILE``: SHA-256 of what some 250 calls return, bit for bit.

``python -m bench.digests compare FILE FILE`` says which calls differ, and exits with 1 if any do:
for a change that is to compute the same as before, on the same machine and versions.
"""

# ruff: noqa: B023 (every call is made before the next one is named)

import argparse
import dataclasses
import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import fastkernel as fk
from fastkernel import psf

# What a fit computes, in the order of the alphabet; fields that are added later move no digest.
FIT = (
    *("background", "condition_number", "converged", "equations", "history", "kernel", "method"),
    *("n_pixels", "num_iter", "rank", "residual_rms", "ridge", "solver", "standard_errors"),
)
BORDERS = ("zero", "circular", "replicate", "symmetric", "mirror")
Call = tuple[str, Callable[[], Any]]


def _feed(digest: Any, value: Any) -> None:
    """Add everything that a result holds, whatever class it is of."""
    if isinstance(value, np.ndarray):
        digest.update(f"{value.shape}{value.dtype.str}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, fk.KernelFit):
        for name in FIT:
            digest.update(name.encode())
            _feed(digest, getattr(value, name))
    elif dataclasses.is_dataclass(value):
        for field in sorted(f.name for f in dataclasses.fields(value)):
            if getattr(value, field) is None:  # what came later changes no digest
                continue
            digest.update(field.encode())
            _feed(digest, getattr(value, field))
    elif isinstance(value, Mapping):
        for key in sorted(value):
            digest.update(str(key).encode())
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        for part in value:
            _feed(digest, part)
    elif hasattr(value, "indptr"):
        _feed(digest, [value.data, value.indices, value.indptr])
    elif hasattr(value, "matvec"):
        _feed(digest, value.matvec(np.arange(float(value.shape[1]))))
    else:
        digest.update(repr(value).encode())


def digest_of(call: Callable[[], Any]) -> str:
    digest = hashlib.sha256()
    try:
        _feed(digest, call())
    except (ValueError, TypeError) as refusal:
        digest.update(f"{type(refusal).__name__}: {refusal}".encode())
    return digest.hexdigest()


def _image(shape: tuple[int, int], dtype: str, seed: int) -> np.ndarray:
    """Whole numbers with neighbours that resemble each other, as a photograph's do."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=shape)
    smooth = noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1) + np.roll(noise, (2, 3), (0, 1))
    return np.rint(127 + 30 * smooth).clip(1, 255).astype(dtype)


def _pair(
    shape: tuple[int, int], kernel_shape: tuple[int, int], dtype: str, mode: str, rule: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    source = _image(shape, dtype, sum(shape))
    kernel = np.random.default_rng(sum(kernel_shape)).random(kernel_shape)
    kernel /= kernel.sum()
    result = fk.convolve(source.astype(float), kernel, mode, rule)
    if np.dtype(dtype).kind in "iu":
        result = np.rint(result)
    return source, result.astype(dtype), kernel


def fits() -> Iterator[Call]:
    dtypes, sizes = ("uint8", "int16", "float32", "float64"), ((3, 3), (4, 7), (11, 11))
    for dtype, size, mode in itertools.product(dtypes, sizes, ("valid", "same", "full")):
        x, y, _ = _pair((97, 130), size, dtype, mode, "zero")
        yield f"lstsq {dtype} {size} {mode}", lambda: fk.estimate_kernel(x, y, size)
    for rule, workers in itertools.product(BORDERS, (1, 2)):
        x, y, _ = _pair((301, 310), (5, 5), "float64", "same", rule)
        yield (
            f"lstsq {rule} workers {workers}",
            lambda: fk.estimate_kernel(x, y, 5, boundary=rule, workers=workers),
        )
    for engine, dtype in itertools.product(("integer", "float", "fft"), ("uint8", "float32")):
        x, y, _ = _pair((700, 1100), (9, 9), dtype, "valid", "zero")
        for workers in (1, 2):
            yield (
                f"equations {engine} {dtype} workers {workers}",
                lambda: fk.normal_equations(x, y, 9, engine=engine, workers=workers),
            )
    x, y, _ = _pair((120, 110), (5, 5), "uint8", "valid", "zero")
    asked: list[dict[str, Any]] = [
        {"ridge": 0.5},
        {"ridge": "gcv"},
        {"ridge": ("smooth", 0.1)},
        {"nonnegative": True},
        {"unit_sum": True},
        {"nonnegative": True, "unit_sum": True},
        {"symmetric": "even"},
        {"symmetric": "rotation", "unit_sum": True},
        {"separable": True},
        {"separable": True, "nonnegative": True},
        {"solver": "minimum_norm"},
        {"solver": "gradient_descent", "num_iter": 50},
        {"solver": "fista"},
        {"solver": "fista", "nonnegative": True, "num_iter": 60},
        {"solver": "fista", "step": 1.0},
        {"background": "constant"},
        {"background": 2},
        {"background": 3, "ridge": 0.1},
        {"method": "fft"},
        {"method": "lad"},
        {"method": "richardson_lucy", "num_iter": 20},
        {"points": 5},
        {"epsilon": 1.0},
        {"acceleration": False},
        {"step": 1.0},
        {"tol": 0.1},
        {"method": "fft", "boundary": "zero"},
        {"method": "lad", "ridge": 1.0},
        {"method": "richardson_lucy", "solver": "fista"},
        {"method": "nonsense"},
        {"engine": "nonsense"},
        {"boundary": "reflect"},
        {"workers": 0},
    ]
    for options in asked:
        yield f"asked {options}", lambda: fk.estimate_kernel(x, y, 5, **options)
        yield (
            f"asked of floats {options}",
            lambda: fk.estimate_kernel(x.astype(float), y + 0.25, 5, **options),
        )
    equations = fk.normal_equations(x, y, 5)
    yield "crop", lambda: equations.crop((3, 4)).solve()
    yield "sum", lambda: (equations + equations).solve(ridge=0.1)
    yield "predict", lambda: equations.solve().predict(x, mode="same", boundary="mirror")
    yield "residual", lambda: equations.solve().residual(x, y)


def large_fits() -> Iterator[Call]:
    x, y, _ = _pair((260, 300), (66, 64), "float64", "valid", "zero")
    for workers in (1, 2):
        yield (
            f"unformed workers {workers}",
            lambda: fk.estimate_kernel(x, y, (66, 64), ridge=0.1, workers=workers),
        )
    yield (
        "unformed descent",
        lambda: fk.estimate_kernel(x, y, (66, 64), solver="fista", num_iter=5, nonnegative=True),
    )
    yield "unformed refusal", lambda: fk.estimate_kernel(x, y, (66, 64), separable=True)
    yield "unformed background", lambda: fk.estimate_kernel(x, y, (66, 64), background=1)
    yield "sequence", lambda: fk.estimate_kernel([x, x], [y, y + 1.0], (66, 64), ridge=0.1)


def methods() -> Iterator[Call]:
    for dtype, size in itertools.product(("uint8", "float32"), ((64, 64), (81, 90))):
        x, y, _ = _pair(size, (7, 7), dtype, "same", "circular")
        for options in (
            {},
            {"epsilon": 1.0},
            {"taper": 0.1, "normalize": "max", "cutoff": 0.05},
            {"normalize": "sum"},
        ):
            for shape in (7, None):
                yield (
                    f"fft {dtype} {size} {shape} {options}",
                    lambda: fk.estimate_kernel(x, y, shape, method="fft", **options),
                )
        yield (
            f"fft several {dtype} {size}",
            lambda: fk.estimate_kernel([x, x[::-1]], [y, y[::-1]], 7, method="fft"),
        )
    x, y, _ = _pair((180, 170), (5, 5), "float64", "valid", "zero")
    broken = y + 0.01 * np.random.default_rng(2).standard_normal(y.shape)
    broken[::7, ::5] = 300.0
    for options in (
        {"solver": "reweighted"},
        {"solver": "linear_programming", "points": 900},
        {"num_iter": 3},
        {"tol": 1e-3, "workers": 2},
        {"points": 2000},
    ):
        yield f"lad {options}", lambda: fk.estimate_kernel(x, broken, 5, method="lad", **options)
    for options in (
        {"num_iter": 30},
        {"acceleration": False, "num_iter": 20, "workers": 2},
        {"tol": 1e-3, "boundary": None},
    ):
        yield (
            f"richardson_lucy kernel {options}",
            lambda: fk.estimate_kernel(x, y, 5, method="richardson_lucy", **options),
        )
    x, y, _ = _pair((200, 220), (31, 31), "float64", "valid", "zero")
    yield (
        "richardson_lucy by transforms",
        lambda: fk.estimate_kernel(x, y, 31, method="richardson_lucy", num_iter=4),
    )
    stack_x, stack_y = (np.stack([a, a[::-1]], axis=2) for a in (x, y))
    yield "channels", lambda: fk.estimate_kernel(stack_x, stack_y, 31, channel_axis=2)
    yield (
        "channels and background",
        lambda: (
            fk.estimate_kernel(stack_x, stack_y, 5, channel_axis=2, background=1)
            if stack_x.shape == stack_y.shape
            else fk.estimate_kernel(stack_x, stack_x, 5, channel_axis=2, background=1)
        ),
    )


def inverses() -> Iterator[Call]:
    kernel = psf.gaussian(5, 0.7)
    for options in (
        {},
        {"ridge": 1e-3},
        {"solver": "fista", "num_iter": 50},
        {"solver": "gradient_descent"},
        {"solver": "conjugate_gradients"},
        {"solver": "cholesky", "delay": (5, 6)},
        {"method": "fft"},
        {"method": "matrix"},
        {"method": "matrix", "boundary": "circular"},
        {"step": 1e9, "solver": "fista"},
        {"boundary": "mirror"},
    ):
        yield f"inverse {options}", lambda: fk.inverse_kernel(kernel, (9, 8), **options)


def convolutions() -> Iterator[Call]:
    image = _image((150, 161), "float64", 5)
    for rule, dtype, (p, q) in itertools.product(
        BORDERS, ("float32", "float64"), ((3, 3), (4, 6), (25, 25))
    ):
        kernel = np.random.default_rng(p).standard_normal((p, q))
        x = image.astype(dtype)
        yield (
            f"convolve {rule} {dtype} {p}x{q}",
            lambda: [fk.convolve(x, kernel, mode, rule) for mode in ("full", "same", "valid")],
        )
        yield f"correlate {rule} {dtype} {p}x{q}", lambda: fk.correlate(x, kernel, "same", rule)
    line = np.outer([1.0, 2.0, 1.0], [1.0, 0.0, -1.0])
    for method, workers in itertools.product(("direct", "separable", "fft"), (1, 2)):
        yield (
            f"convolve {method} workers {workers}",
            lambda: fk.convolve(image, line, "same", method=method, workers=workers),
        )
    kernel = np.arange(12.0).reshape(3, 4)
    for rule, mode in itertools.product(BORDERS, ("full", "same")):
        yield f"matrix {mode} {rule}", lambda: fk.convolution_matrix(kernel, (9, 8), mode, rule)
        yield f"operator {mode} {rule}", lambda: fk.convolution_operator(kernel, (9, 8), mode, rule)
    yield "design", lambda: fk.design_matrix(image, (3, 5), "same", "mirror")
    yield "shift", lambda: [fk.circshift(image, (3, -5)), fk.fftshift(image), fk.ifftshift(image)]
    yield "psf", lambda: [psf.motion(9.5, 30), psf.disk(4.2), psf.box((2, 3)), psf.gaussian(7, 2)]


def restorations() -> Iterator[Call]:
    for dtype, size in itertools.product(("float32", "float64"), ((70, 90), (900, 700))):
        image = _image(size, dtype, 3)
        taps = psf.gaussian(7, 1.5)
        blurred = fk.convolve(image, taps, "same", "symmetric")
        for rule in ("circular", "symmetric", "edge_taper", "unknown"):
            if size == (900, 700) and rule == "unknown":
                continue
            yield (
                f"wiener {dtype} {size} {rule}",
                lambda: fk.wiener(blurred, taps, 1e-3, boundary=rule),
            )
        yield f"wiener gcv {dtype} {size}", lambda: fk.wiener(blurred, taps)
        yield (
            f"inverse_filter {dtype} {size}",
            lambda: fk.inverse_filter(blurred, taps, 0.1, guarded=True),
        )
        for options in (
            {"num_iter": 5},
            {"num_iter": 5, "acceleration": False, "boundary": "mirror"},
            {"num_iter": 5, "damping": 0.01, "boundary": "zero", "workers": 1},
            {"num_iter": 8, "noise": "poisson"},
            {"num_iter": 8, "noise": 1.0, "tol": 1e-3},
        ):
            yield (
                f"richardson_lucy {dtype} {size} {options}",
                lambda: fk.richardson_lucy(blurred, taps, **options),
            )
    yield (
        "tiled",
        lambda: fk.restore_tiled(fk.wiener, blurred, taps, tile_shape=(200, 200), balance=1e-3),
    )
    yield "gcv_balance", lambda: fk.gcv_balance(blurred, taps)
    yield (
        "weights",
        lambda: fk.richardson_lucy(blurred, taps, 4, weights=(blurred > 100).astype(float)),
    )


SUITES = (fits, large_fits, methods, inverses, convolutions, restorations)


def record() -> dict[str, str]:
    found = {}
    for suite in SUITES:
        for name, call in suite():
            if name in found:
                msg = f"two calls are named {name!r}"
                raise ValueError(msg)
            found[name] = digest_of(call)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.digests", description=__doc__)
    parser.add_argument("task", choices=("record", "compare"))
    parser.add_argument("files", nargs="+", type=Path)
    args = parser.parse_args()
    if args.task == "record":
        found = record()
        args.files[0].write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(f"{len(found)} digests in {args.files[0]}")
        return
    one, other = (json.loads(file.read_text(encoding="utf-8")) for file in args.files)
    differ = [name for name in sorted(one | other) if one.get(name) != other.get(name)]
    print(*(f"differs: {name}" for name in differ), sep="\n")
    print(f"{len(one)} and {len(other)} digests, {len(differ)} differ")
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
