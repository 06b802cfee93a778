"""What a fit finds itself that is told nothing, right or wrong, and the kernel that comes of it.

Pairs are made by Pillow, OpenCV, SciPy and scikit-image, those that are there, and by what people
do to them: clipped, compressed, moved, blurred in linear light, made brighter. Beside it stands a
plain fit that was told the size, and nothing else.
"""

import argparse
import io
import statistics
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage, signal

import fastkernel
from fastkernel import psf
from fastkernel._images.crops import crop_of
from fastkernel._images.levels import decode, encode
from fastkernel.estimation.errors import SingularFitError

from . import report

IMAGES, QUICK_IMAGES = ("camera", "coins"), ("camera",)
SIZES = (3, 5, 7, 9, 11, 13, 15)
EVERYTHING = dict.fromkeys(("offset", "light", "boundary", "background"), "auto")

# A kernel is right within this share of its largest tap; what is left of a size that is too small
# is what the right one leaves within this share.
RIGHT, EXPLAINS = 0.02, 0.005

SCIPY = {
    "zero": "constant",
    "circular": "wrap",
    "replicate": "nearest",
    "symmetric": "reflect",
    "mirror": "mirror",
}


class Case(NamedTuple):
    """A pair, and the truth: ``rule`` is None where no rule made the border."""

    kind: str
    source: NDArray
    result: NDArray
    kernel: NDArray
    rule: str | None
    offset: tuple[int, int] = (0, 0)
    light: str = "stored"
    degree: int | None = None


def rounded(image: NDArray) -> NDArray:
    return np.rint(image).clip(0, 255).astype(np.uint8)


def filtered(image: NDArray, kernel: NDArray, rule: str = "mirror") -> NDArray:
    """A convolution by SciPy, whose centre of even sizes is moved to where ours is."""
    origin = [k % 2 - 1 for k in kernel.shape]
    mode = SCIPY[rule]
    return ndimage.convolve(image.astype(float), kernel, mode=mode, origin=origin)


def by_pillow(x: NDArray) -> Iterator[Case]:
    kind, image = "Pillow", Image.fromarray(x)
    for name in ("BLUR", "SHARPEN", "SMOOTH", "SMOOTH_MORE", "DETAIL"):
        shape, scale, _, taps = getattr(ImageFilter, name).filterargs
        kernel = np.array(taps, float).reshape(shape) / scale
        yield Case(kind, x, np.asarray(image.filter(getattr(ImageFilter, name))), kernel, None)
    for radius in (1, 3):
        blurred = np.asarray(image.filter(ImageFilter.BoxBlur(radius)))
        yield Case(kind, x, blurred, psf.box(2 * radius + 1), "replicate")


def by_opencv(x: NDArray) -> Iterator[Case]:
    if find_spec("cv2") is None:
        return
    import cv2

    kind = "OpenCV"
    borders = {
        "zero": cv2.BORDER_CONSTANT,
        "replicate": cv2.BORDER_REPLICATE,
        "symmetric": cv2.BORDER_REFLECT,
        "mirror": cv2.BORDER_REFLECT_101,
    }
    skew = np.array([[0.1, 0.2, 0, 0.05, 0], [0, 0.3, 0.1, 0, 0], [0, 0, 0, 0.05, 0.2]])
    for rule, number in borders.items():
        made = cv2.filter2D(x, -1, skew[::-1, ::-1], borderType=number)
        yield Case(kind, x, made, skew, rule)
    for size in (5, 9):
        line = cv2.getGaussianKernel(size, 0)
        yield Case(kind, x, cv2.GaussianBlur(x, (size, size), 0), line @ line.T, "mirror")
    yield Case(kind, x, cv2.blur(x, (7, 3)), psf.box((3, 7)), "mirror")


def by_scipy(x: NDArray) -> Iterator[Case]:
    kind = "SciPy"
    skew = psf.motion(9, 30) + 0.1 * psf.box(psf.motion(9, 30).shape)
    for rule in SCIPY:
        yield Case(kind, x, rounded(filtered(x, skew / skew.sum(), rule)), skew / skew.sum(), rule)
    for size in ((4, 6), (3, 3)):
        kernel = psf.gaussian(size, 1.0)
        made = signal.convolve2d(x.astype(float), kernel, mode="same")
        yield Case(kind, x, made, kernel, "zero")
    yield Case(kind, x, signal.convolve2d(x, psf.box(5), mode="valid"), psf.box(5), None)


def by_scikit_image(x: NDArray) -> Iterator[Case]:
    from skimage import filters, util

    kind, kernel = "scikit-image", psf.gaussian(9, 1.0)
    image = util.img_as_float(x)
    made = filters.gaussian(image, 1.0, truncate=4)
    yield Case(kind, image, made, kernel, "replicate")
    yield Case(kind, x, util.img_as_ubyte(made), kernel, "replicate")
    delta = np.zeros((9, 9))
    delta[4, 4] = 1
    made = filters.unsharp_mask(image, radius=1.0, amount=0.7)
    yield Case(kind, x, util.img_as_ubyte(made), 1.7 * delta - 0.7 * kernel, "symmetric")


def of_every_size(x: NDArray, rng: np.random.Generator) -> Iterator[Case]:
    for size in SIZES:
        for kernel in (
            psf.gaussian(size, size / 5),
            psf.box(size),
            rng.random((size, size)),
        ):
            kernel = kernel / kernel.sum()
            yield Case("sizes 3 to 15", x, rounded(filtered(x, kernel)), kernel, "mirror")


def clipped(x: NDArray) -> Iterator[Case]:
    """Sharpened, of more and more contrast: clipped on 1 to 30 % of the pixels."""
    sharp = -psf.gaussian(5, 1.0)
    sharp[2, 2] += 2
    mean = x.mean()
    for share in (0.01, 0.03, 0.1, 0.3):
        for contrast in np.geomspace(0.2, 4, 60):
            source = rounded(mean + contrast * (x - mean))
            exact = filtered(source, sharp)
            if np.mean((exact < 0) | (exact > 255)) >= share:
                break
        yield Case(f"clipped, {share:.0%}", source, rounded(exact), sharp, "mirror")


def harmed(x: NDArray, rng: np.random.Generator) -> Iterator[Case]:
    kernels = [psf.gaussian(5, 1.0), psf.motion(7, 20), psf.box((3, 5))]
    for kernel in kernels:
        after = filtered(x, kernel)
        for quality in (98, 90, 75):
            buffer = io.BytesIO()
            Image.fromarray(rounded(after)).save(buffer, "JPEG", quality=quality)
            made = np.asarray(Image.open(buffer))
            yield Case(f"JPEG {quality}", x, made, kernel, "mirror")
        noisy = rounded(after + rng.normal(0, 2, x.shape))
        yield Case("noise of 2 levels", x, noisy, kernel, "mirror")
        bright = rounded(0.7 * after + 20)
        yield Case("gain and level", x, bright, 0.7 * kernel, "mirror", degree=0)
        yield Case("gain", x, rounded(0.8 * after), 0.8 * kernel, "mirror")
        yield Case("cut, not rounded", x, after.astype(np.uint8), kernel, "mirror", degree=0)
        linear = encode(filtered(decode(x, 255), kernel, "replicate"), 255)
        yield Case("linear light", x, rounded(linear), kernel, "replicate", light="srgb")
        for row, col in ((17, -40), (-60, 5)):
            yield moved(x, after, kernel, (row, col))


def moved(x: NDArray, after: NDArray, kernel: NDArray, offset: tuple[int, int]) -> Case:
    """Parts of a picture and of its result, each of which shows what the other does not."""
    spans = [
        (slice(max(-i, 0), n - max(i, 0)), slice(max(i, 0), n - max(-i, 0)))
        for i, n in zip(offset, x.shape, strict=True)
    ]
    # What stands at (r, c) of the result stood at (r - i, c - j) of the source.
    source = x[spans[0][1], spans[1][1]]
    result = after[spans[0][0], spans[1][0]]
    return Case("moved", source, rounded(result), kernel, None, offset)


def cases_of(x: NDArray, rng: np.random.Generator) -> Iterator[Case]:
    makers: list[Callable[[NDArray], Iterator[Case]]] = [
        *(by_pillow, by_opencv, by_scipy, by_scikit_image, clipped)
    ]
    for make in makers:
        yield from make(x)
    yield from of_every_size(x, rng)
    yield from harmed(x, rng)


def error_of(found: NDArray, truth: NDArray) -> float:
    """Largest error as a share of the largest tap, both around their centre taps."""
    shape = [max(sides) + 1 for sides in zip(found.shape, truth.shape, strict=True)]
    both = np.zeros((2, *shape))
    for out, kernel in zip(both, (found, truth), strict=True):
        top, left = ((n - 1) // 2 - (k - 1) // 2 for n, k in zip(shape, kernel.shape, strict=True))
        out[top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel
    return float(np.abs(both[0] - both[1]).max() / np.abs(truth).max())


def needed(kernel: NDArray) -> tuple[int, int]:
    """The size of a kernel without a rim of zeros."""
    sides = []
    for axis in (0, 1):
        filled = np.flatnonzero(np.abs(kernel).max(axis=1 - axis) > 0)
        before, after = (kernel.shape[axis] - 1) // 2 - filled[0], filled[-1]
        after -= (kernel.shape[axis] - 1) // 2
        sides.append(int(max(2 * before + 1, 2 * after, 1)))
    return sides[0], sides[1]


def judged(case: Case) -> dict[str, Any]:
    fit = fastkernel.estimate_kernel(case.source, case.result, "auto", **EVERYTHING)
    true, size, said = needed(case.kernel), fit.kernel.shape, fit.found
    right_size = size == true
    if not right_size and all(a <= b for a, b in zip(size, true, strict=True)):
        right_size = fit.residual_rms <= (1 + EXPLAINS) * least(case, fit, true)
    degree = None if said.background is None else said.background.degree
    right = {
        "size": right_size,
        "offset": fit.offset == case.offset,
        "light": fit.light == case.light,
        "background": degree == case.degree,
        "border": case.rule == fit.boundary or case.rule in said.boundary.alike,
    }
    return {
        "kind": case.kind,
        "right": right,
        "surely_wrong": [
            name
            for name, part in (("offset", said.offset), ("light", said.light))
            if part.sure and not right[name]
        ]
        + ["border"] * (said.boundary.sure and not right["border"]),
        "error": error_of(fit.kernel, case.kernel),
        "plain": plain(case),
    }


def least(case: Case, fit: fastkernel.KernelFit, shape: tuple[int, int]) -> float:
    """What a kernel of the true size leaves of the same pixels, but for the rim."""
    crop = crop_of(case.source.shape, case.result.shape, fit.offset, shape)
    beside = None if fit.background is None else np.asarray(fit.background)
    return fastkernel.estimate_kernel(
        case.source[crop.source],
        case.result[crop.result],
        shape,
        light=fit.light,
        boundary=fit.boundary,
        background=beside if beside is None else max(beside.shape, default=1) - 1,
    ).residual_rms


def plain(case: Case) -> float | None:
    """The error of a fit that is told the size, and nothing else."""
    try:
        fit = fastkernel.estimate_kernel(case.source, case.result, case.kernel.shape)
    except (SingularFitError, ValueError):
        return None
    return error_of(fit.kernel, case.kernel)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from skimage import color, data

    rng = np.random.default_rng(6)
    rows = []
    for name in QUICK_IMAGES if args.quick else IMAGES:
        image = getattr(data, name)()
        if image.ndim == 3:
            image = rounded(255 * color.rgb2gray(image))
        cases = list(cases_of(image[:300, :380], rng))
        rows += [judged(case) | {"image": name} for case in cases[:: 9 if args.quick else 1]]
    return {"rows": rows}


def tables(result: dict[str, Any]) -> str:
    names = ("size", "offset", "light", "background", "border")
    kinds = dict.fromkeys(row["kind"] for row in result["rows"])
    groups = {kind: [row for row in result["rows"] if row["kind"] == kind] for kind in kinds}
    groups["all"] = result["rows"]
    shown = [
        [
            kind,
            f"{len(rows)}",
            *(f"{sum(row['right'][name] for row in rows)}" for name in names),
            median_error(rows, "error"),
            median_error(rows, "plain"),
        ]
        for kind, rows in groups.items()
    ]
    head = ["pairs", "of them", *names, "error of the largest tap", "of a plain fit"]
    return f"## Found\n\n{report.table(head, shown)}\n\n{summary(result['rows'])}"


def median_error(rows: Sequence[dict[str, Any]], key: str) -> str:
    """The error of the pair in the middle; 100 % stands for no kernel at all."""
    return f"{statistics.median(1.0 if row[key] is None else row[key] for row in rows):.2%}"


def summary(rows: Sequence[dict[str, Any]]) -> str:
    right, plain_right = (
        sum((1 if row[key] is None else row[key]) <= RIGHT for row in rows)
        for key in ("error", "plain")
    )
    wrong = sum(bool(row["surely_wrong"]) for row in rows)
    sizes = sum(row["right"]["size"] for row in rows)
    return (
        f"Of {len(rows)} pairs that were told nothing of, {sizes} sizes were found right (or "
        f"smaller, with no more left than {EXPLAINS:.1%} above what the right one leaves) and "
        f"{right} kernels to {RIGHT:.0%} of the largest tap; a plain fit that is told the size "
        f"finds {plain_right}. In {wrong} pairs an offset, a light or a border was said to be "
        "sure and was wrong."
    )


def readme(result: dict[str, Any]) -> str:
    return summary(result["rows"])
