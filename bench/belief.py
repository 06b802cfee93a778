"""What the verdict says of some 60 pairs of images, and how wrong their kernels are.

Nothing that is wrong by more than three of its error bars, or by more than 5 % of its largest tap,
is to be fully believed; nothing that is right, within its bars and 2 %, is to be disbelieved.
"""

import argparse
import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage import data

import fastkernel
from fastkernel import psf
from fastkernel.estimation.quality import Plane, facts_of, judge

from . import report

GAUSSIAN, WIDE, MOTION = psf.gaussian(5, 1.0), psf.gaussian(7, 1.5), psf.motion(9, 30)
UNEVEN = np.array([[0, 0.11, 0], [0.2, 0.37, 0.09], [0, 0.23, 0]])
SHARPENER = np.array([[0, -0.5, 0], [-0.5, 3, -0.5], [0, -0.5, 0]])

# Wrong by more bars than this, or by more of the largest tap, is wrong; and what is right.
WRONG_BARS, WRONG, RIGHT = 3, 0.05, 0.02


class Case(NamedTuple):
    kind: str
    source: NDArray
    result: NDArray
    kernel: NDArray | None  # None where no kernel of this size is the truth
    size: tuple[int, int]


def rounded(image: NDArray) -> NDArray:
    return np.rint(image).clip(0, 255).astype(np.uint8)


def filtered(image: NDArray, kernel: NDArray) -> NDArray:
    return ndimage.convolve(image.astype(float), kernel, mode="mirror")


def jpeg(image: NDArray, quality: int) -> NDArray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def cases_of(x: NDArray, rng: np.random.Generator) -> Iterator[Case]:
    """The kinds of pairs that people have, of one photograph."""
    blurred = filtered(x, GAUSSIAN)
    wide = filtered(x, WIDE)
    for name, kernel in (("Gaussian", GAUSSIAN), ("motion", MOTION), ("uneven", UNEVEN)):
        yield Case(f"rounded, {name}", x, rounded(filtered(x, kernel)), kernel, kernel.shape)
    yield Case("float", x.astype(float), wide, WIDE, (7, 7))
    yield Case("size too large", x, rounded(filtered(x, UNEVEN)), np.pad(UNEVEN, 2), (7, 7))
    yield Case(
        "gain 1.2", x // 2, rounded(1.2 * filtered(x // 2, GAUSSIAN)), 1.2 * GAUSSIAN, (5, 5)
    )
    yield Case("floored", x, np.floor(blurred).astype(np.uint8), GAUSSIAN, (5, 5))
    yield Case("clipped", x, rounded(filtered(x, SHARPENER)), SHARPENER, (3, 3))
    for deviation in (2, 8):
        noisy = wide + rng.normal(0, deviation, x.shape)
        yield Case(f"camera noise {deviation}", x.astype(float), noisy, WIDE, (7, 7))
    counts = rounded(rng.poisson(np.maximum(4 * blurred, 0)) / 4)
    yield Case("counts", x, counts, GAUSSIAN, (5, 5))
    for quality in (95, 75):
        yield Case(f"JPEG {quality}", x, jpeg(rounded(wide), quality), WIDE, (7, 7))
    for blur, divisor, name in ((4, 1, "soft"), (1.5, 8, "soft and dark"), (0, 32, "dark")):
        s = rounded(ndimage.gaussian_filter(x.astype(float), blur) / divisor)
        yield Case(name, s, rounded(filtered(s, GAUSSIAN)), GAUSSIAN, (5, 5))
    bits = (ndimage.gaussian_filter(x.astype(float), 1.5) > 128).astype(np.uint8)
    yield Case("1 bit", bits, (filtered(bits, UNEVEN) > 0.5).astype(np.uint8), UNEVEN, (3, 3))
    yield Case("size too small", x, rounded(filtered(x, psf.gaussian(15, 3.0))), None, (7, 7))
    yield Case("moved", x, np.roll(rounded(blurred), (0, 5), (0, 1)), None, (5, 5))
    yield Case(
        "linear light",
        x,
        rounded(255 * (filtered((x / 255) ** 2.2, WIDE)) ** (1 / 2.2)),
        None,
        (7, 7),
    )
    yield Case("median 3", x, ndimage.median_filter(x, 3), None, (3, 3))
    yield Case("rank", x, ndimage.rank_filter(x, 5, 3), None, (3, 3))
    high = x - ndimage.gaussian_filter(x.astype(float), 2)
    threshold = rounded(x + np.where(np.abs(high) > 6, high, 0))
    yield Case("unsharp with threshold", x, threshold, None, (13, 13))


def drawn() -> Iterator[Case]:
    squares = np.zeros((128, 128), np.uint8)
    for i in range(6):
        squares[10 + 18 * i : 20 + 18 * i, 15:60] = 200
    yield Case("squares on black", squares, rounded(filtered(squares, WIDE)), WIDE, (7, 7))
    point = np.zeros((64, 64), np.uint8)
    point[32, 32] = 255
    broad = psf.gaussian(31, 4.0)
    yield Case("a point, 31x31", point, rounded(filtered(point, broad)), broad, (31, 31))


def judged(case: Case) -> dict[str, Any]:
    fit = fastkernel.estimate_kernel(case.source, case.result, case.size)
    p, q = case.size
    i, j = (p - 1) // 2, (q - 1) // 2
    used = np.s_[p - 1 - i : case.source.shape[0] - i, q - 1 - j : case.source.shape[1] - j]
    predicted = fastkernel.convolve(case.source.astype(float), fit.kernel, "valid")
    whole = case.result.dtype.kind == "u"
    if whole:
        predicted = predicted.clip(0, 255)
    plane = Plane(case.result[used] - predicted, case.source[used], case.result[used])
    eight_bits = whole and case.result.max() > 1
    verdict = judge(
        fit.kernel,
        fit.standard_errors,
        facts_of([plane], limits=(0, 255) if eight_bits else None),
        residual_rms=fit.residual_rms,
        condition_number=fit.condition_number,
        lossy=case.kind.startswith("JPEG"),
    )
    error = None
    if case.kernel is not None:
        error = float(np.abs(fit.kernel - case.kernel).max() / np.abs(case.kernel).max())
    bar = float(fit.standard_errors.max() / np.abs(fit.kernel).max())
    if whole and 0 < fit.residual_rms < 12**-0.5:
        bar *= 12**-0.5 / fit.residual_rms
    return {"kind": case.kind, "belief": verdict.belief, "error": error, "bar": bar}


def is_wrong(row: dict[str, Any]) -> bool:
    error = row["error"]
    return error is None or error > WRONG or error > WRONG_BARS * row["bar"] + 1e-12


def is_right(row: dict[str, Any]) -> bool:
    error = row["error"]
    return error is not None and error <= RIGHT and error <= row["bar"] + 1e-12


def run(args: argparse.Namespace) -> dict[str, Any]:
    names = ("camera",) if args.quick else ("camera", "coins", "moon")
    rng = np.random.default_rng(5)
    rows = []
    for name in names:
        image = getattr(data, name)()[:300, :380]
        rows += [judged(case) | {"image": name} for case in cases_of(image, rng)]
    rows += [judged(case) | {"image": "drawn"} for case in drawn()]
    return {"rows": rows}


def tables(result: dict[str, Any]) -> str:
    rows = result["rows"]
    shown = [
        [
            row["kind"],
            row["image"],
            row["belief"],
            "no kernel" if row["error"] is None else f"{row['error']:.2%}",
            f"{row['bar']:.2%}",
        ]
        for row in rows
    ]
    head = ["pair", "image", "verdict", "error of the largest tap", "error bar"]
    return f"## Belief\n\n{report.table(head, shown)}\n\n{summary(rows)}"


def summary(rows: Sequence[dict[str, Any]]) -> str:
    believed = [row for row in rows if row["belief"] == "believe it"]
    disbelieved = [row for row in rows if row["belief"] == "do not believe it"]
    return (
        f"Of {len(rows)} pairs of images (linear and not, rounded, floored, clipped, noisy, JPEG, "
        f"soft, dark, tiny, of a wrong size) {len(believed)} kernels were fully believed, "
        f"{sum(map(is_wrong, believed))} of them wrong by more than {WRONG_BARS} error bars or "
        f"{WRONG:.0%} of the largest tap; {len(disbelieved)} were not believed, "
        f"{sum(map(is_right, disbelieved))} of them right within their bars and {RIGHT:.0%}."
    )


def readme(result: dict[str, Any]) -> str:
    return summary(result["rows"])
