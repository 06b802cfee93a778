"""What restorations leave by default, beside what they were given and scikit-image's defaults.

An answer that is farther from the truth than its input is worse than none.
"""

import argparse
import io
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import skimage.color
import skimage.data
import skimage.restoration
from numpy.typing import NDArray
from PIL import Image

import fastkernel
from fastkernel import psf

from . import fit, measure, report

PHOTOGRAPHS, QUICK_PHOTOGRAPHS = ["camera", "coins", "astronaut", "coffee"], ["camera"]
SIDE, QUICK_SIDE = 256, 64
BLURS = {
    "gaussian": psf.gaussian(13, 2.0),
    "disk": psf.disk(4.0),
    "motion": psf.motion(15, 30),
}
BALANCE = 1100  # that of scikit-image's example of `wiener`
PARTS = ["input", "richardson_lucy", "wiener"]
PEERS = ["skimage richardson_lucy", "skimage wiener", "skimage unsupervised_wiener"]


def _jpeg(quality: int) -> Callable[[NDArray], NDArray]:
    def stored(image: NDArray) -> NDArray:
        file = io.BytesIO()
        whole = Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8))
        whole.save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file)).astype(float)

    return stored


def _gaussian(percent: float) -> Callable[[NDArray], NDArray]:
    def noisy(image: NDArray) -> NDArray:
        noise = np.random.default_rng(0).normal(0, 2.55 * percent, image.shape)
        return np.clip(image + noise, 0, None)

    return noisy


def _poisson(counts: float) -> Callable[[NDArray], NDArray]:
    def noisy(image: NDArray) -> NDArray:
        scale = counts / 255
        return np.random.default_rng(0).poisson(image * scale) / scale

    return noisy


NOISES = {
    "none": np.asarray,
    "8 bits": np.rint,
    "Gaussian 0.5 %": _gaussian(0.5),
    "Gaussian 2 %": _gaussian(2),
    "Gaussian 5 %": _gaussian(5),
    "Poisson, 40000 counts": _poisson(40000),
    "Poisson, 400 counts": _poisson(400),
    "JPEG 95": _jpeg(95),
    "JPEG 90": _jpeg(90),
    "JPEG 75": _jpeg(75),
}


def _scene(name: str, side: int, margins: tuple[int, int]) -> NDArray:
    image = getattr(skimage.data, name)()
    grey = 255 * skimage.color.rgb2gray(image) if image.ndim == 3 else image.astype(float)
    parts = []
    for n, margin in zip(grey.shape, margins, strict=True):
        length = side + 2 * margin
        parts.append(slice((n - length) // 2, (n - length) // 2 + length))
    return grey[tuple(parts)]


def _error(found: NDArray, sharp: NDArray) -> float:
    return float(np.sqrt(np.mean(np.square(found - sharp))))


def _errors(sharp: NDArray, image: NDArray, taps: NDArray) -> dict[str, float]:
    # Those of scikit-image take images from 0 to 1.
    theirs = image / 255
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {
            "input": image,
            "richardson_lucy": fastkernel.richardson_lucy(image, taps, workers=fit.WORKERS),
            "wiener": fastkernel.wiener(image, taps, workers=fit.WORKERS),
            PEERS[0]: 255 * skimage.restoration.richardson_lucy(theirs, taps),
            PEERS[1]: 255 * skimage.restoration.wiener(theirs, taps, BALANCE),
            PEERS[2]: 255 * skimage.restoration.unsupervised_wiener(theirs, taps, rng=0)[0],
        }
    return {name: _error(answer, sharp) for name, answer in found.items()}


def run(args: argparse.Namespace) -> dict[str, Any]:
    names = measure.wanted(args, PHOTOGRAPHS, QUICK_PHOTOGRAPHS)
    side = measure.wanted(args, SIDE, QUICK_SIDE)
    noises = list(NOISES)[:: 4 if args.quick else 1]
    rows = []
    for name, (blur, taps), noise in itertools.product(names, BLURS.items(), noises):
        measure.progress("defaults", name, blur, noise)
        margins = taps.shape[0] // 2, taps.shape[1] // 2
        scene = _scene(name, side, margins)
        sharp = scene[margins[0] : margins[0] + side, margins[1] : margins[1] + side]
        image = NOISES[noise](np.clip(fastkernel.convolve(scene, taps, "valid"), 0, None))
        errors = _errors(sharp, image, taps)
        rows.append({"photograph": name, "blur": blur, "noise": noise, "errors": errors})
    return {"side": side, "photographs": names, "rows": rows}


def tables(result: dict[str, Any]) -> str:
    """Markdown: errors by blur and noise, means over the photographs, and how many got worse."""
    contenders, lines = [*PARTS, *PEERS], []
    groups: dict[tuple[str, str], list[dict[str, float]]] = {}
    for row in result["rows"]:
        groups.setdefault((row["blur"], row["noise"]), []).append(row["errors"])
    for (blur, noise), errors in groups.items():
        cells = [report.figures(np.mean([some[who] for some in errors])) for who in contenders]
        lines.append([f"{blur}, {noise}", *cells])
    every = [row["errors"] for row in result["rows"]]
    worse = [sum(some[who] > some["input"] for some in every) for who in contenders]
    lines.append([f"worse than the input, of {len(every)}", *map(str, worse)])
    about = (
        f"Root mean square errors in grey levels of 255, means over {len(result['photographs'])} "
        f"photographs of {result['side']}² ({', '.join(result['photographs'])}), each a part of a "
        "scene that was blurred; all by default, but skimage wiener with the balance of its "
        f"example, {BALANCE}."
    )
    table = report.table(["error", *contenders], lines)
    return f"## Restoration by default\n\n{about}\n\n{table}"
