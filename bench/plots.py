"""Figures: times against sizes and errors at borders, from the suites' results; a round trip."""

import io
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray
from PIL import Image

from . import convolve, data, fields, fit, report, restoration, round_trip, stars

Curve = tuple[list[int], list[float]]

CHOICE = "fastkernel, its own choice"

# Okabe and Ito's colours; what is not fastkernel is dashed.
STYLES: dict[str, dict[str, Any]] = {
    CHOICE: {"color": "black", "linewidth": 5, "alpha": 0.25},
    fit.OURS: {"color": "black", "marker": "o"},
    "integer": {"color": "#009e73", "marker": "s"},
    "float": {"color": "#0072b2", "marker": "o"},
    "fft": {"color": "#d55e00", "marker": "^"},
    fit.NUMPY: {"color": "#cc79a7", "linestyle": "--", "marker": "v"},
    fit.SCIPY: {"color": "#56b4e9", "linestyle": "--", "marker": "d"},
    fit.YARDSTICK: {"color": "#999999", "linestyle": "--", "marker": "x"},
    "fastkernel, direct": {"color": "#0072b2", "marker": "o"},
    "fastkernel, separable": {"color": "#009e73", "marker": "s"},
    "fastkernel, fft": {"color": "#d55e00", "marker": "^"},
    convolve.FILTER_2D: {"color": "#cc79a7", "linestyle": "--", "marker": "v"},
    convolve.SEP_FILTER_2D: {"color": "#e69f00", "linestyle": "--", "marker": "<"},
    convolve.OA_CONVOLVE: {"color": "#56b4e9", "linestyle": "--", "marker": "d"},
    convolve.FFT_CONVOLVE: {"color": "#999999", "linestyle": "--", "marker": "x"},
    convolve.CONVOLVE_2D: {"color": "#999999", "linestyle": ":", "marker": "+"},
    convolve.NDIMAGE: {"color": "#56b4e9", "linestyle": ":", "marker": "*"},
    convolve.COPY: {"color": "black", "linestyle": ":"},
}
# By who restored, the best number of iterations last.
BORDER_STYLES: dict[str, list[dict[str, Any]]] = {
    restoration.BLURRED: [{"color": "#999999", "linestyle": ":"}],
    restoration.SKIMAGE: [
        {"color": "#d55e00", "linestyle": "--"},
        {"color": "#e69f00", "linestyle": (0, (1, 1))},
    ],
    restoration.ACCELERATED: [{"color": "#0072b2"}],
}

FIELD_PART = 200  # pixels along a side of the parts of star fields that are shown
DPI = 150  # of 12 inches, twice the pixels that a README gives them
CORNER, CROP = (60, 195), 140  # of the part that is shown, each pixel as two by two


def _panel(axes: Axes, title: str, label: str, curves: dict[str, Curve]) -> None:
    for name, style in STYLES.items():
        if name in curves:
            axes.plot(*curves[name], label=name, markersize=4, **style)
    axes.set(title=title, xlabel=label, xscale="log", yscale="log")
    ticks = sorted({x for xs, _ in curves.values() for x in xs})
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(color="0.92")


def _figure(
    result: dict[str, Any], title: str, label: str, panels: dict[str, dict[str, Curve]]
) -> Figure:
    figure = Figure(figsize=(2.0 + 5.0 * len(panels), 5.6), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, curves) in zip(grid, panels.items(), strict=True):
        _panel(axes, name, label, curves)
    lines = {line.get_label(): line for axes in grid for line in axes.lines}
    named = [lines[name] for name in STYLES if name in lines]
    figure.legend(handles=named, fontsize=9, frameon=False, loc="outside right center")
    grid[0].set_ylabel("median time, ms")
    caption = textwrap.fill(report.machine(result["environment"]), 75 * len(panels))
    figure.supxlabel(caption, fontsize=7, color="0.4")
    return figure


def _images(cell: dict[str, Any]) -> str:
    return f"{cell['dtype']} images"


def _curves(
    cells: list[dict[str, Any]], against: str, panel: Callable[[dict[str, Any]], str] = _images
) -> dict[str, dict[str, Curve]]:
    """Medians in ms by panel and contender."""
    panels: dict[str, dict[str, Curve]] = {}
    for cell in cells:
        for name, entry in cell["contenders"].items():
            if "median" in entry:
                xs, ys = panels.setdefault(panel(cell), {}).setdefault(name, ([], []))
                xs.append(cell[against])
                ys.append(1e3 * entry["median"])
    return panels


def _against_kernel(result: dict[str, Any]) -> Figure:
    size = max(cell["size"] for cell in result["cells"])
    panels = _curves([cell for cell in result["cells"] if cell["size"] == size], "taps")
    for reference in result["references"]:
        curves = panels[_images(reference)]
        ends = [min(curves["auto"][0]), max(curves["auto"][0])]
        for name, entry in reference["contenders"].items():
            curves[name] = (ends, [1e3 * entry["median"]] * 2)
    for curves in panels.values():
        curves[CHOICE] = curves.pop("auto")
    title = f"Normal equations of a pair of {size}×{size} images, {result['workers']} workers"
    return _figure(result, title, "kernel side, pixels", panels)


def _against_size(result: dict[str, Any]) -> Figure:
    taps = result["cells"][0]["taps"]
    cells = [cell for cell in result["cells"] if cell["taps"] == taps]
    title = f"A {taps}×{taps} kernel from a pair of square images, {result['workers']} workers"
    return _figure(result, title, "image side, pixels", _curves(cells, "size"))


def _convolution(result: dict[str, Any]) -> Figure:
    sizes = [cell["size"] for cell in result["cells"]]
    size = max(sizes, key=sizes.count)
    cells = [cell for cell in result["cells"] if cell["size"] == size]
    panels = _curves(cells, "taps", lambda cell: f"{cell['kind']} kernels")
    for curves in panels.values():
        curves[CHOICE] = curves.pop(convolve.OURS)
    title = f"Convolution of a {size}×{size} float32 image, {result['workers']} threads"
    return _figure(result, title, "kernel side, pixels", panels)


def _border(result: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(12, 5.4), layout="constrained")
    grid = figure.subplots(1, len(result["border"]), sharey=True, squeeze=False)[0]
    for axes, row in zip(grid, result["border"], strict=True):
        for who, styles in BORDER_STYLES.items():
            curves = [curve for curve in row["curves"] if curve["who"] == who]
            for curve, style in zip(reversed(curves), styles, strict=False):
                steps = f", {curve['num_iter']} iterations" if curve["num_iter"] else ""
                errors = [255 * error for error in curve["profile"]]
                axes.plot(errors, label=f"{who}{steps}", linewidth=2.5, **style)
        axes.set_yscale("log")
        axes.set_title(f"15×15 {row['psf']}", fontsize=15)
        axes.set_xlabel("pixels from the frame", fontsize=14)
        axes.set_xlim(0, restoration.DISTANCES - 1)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.tick_params(labelsize=13)
        axes.grid(color="0.9")
        axes.legend(fontsize=13, frameon=False)
    grid[0].set_ylabel("error, grey levels of 255", fontsize=14)
    side, counts = result["border"][0]["size"], result["border"][0]["counts"]
    figure.supxlabel(
        f"Richardson-Lucy on {side}² pixels of a photograph that goes on beyond the frame, noise "
        f"of {255 * restoration.NOISE:g} grey levels.\nRoot mean squares over all pixels of a "
        f"distance, after the iterations that are best for the middle, of {counts[0]} to "
        f"{counts[-1]}; scikit-image after {counts[0]} too.",
        fontsize=12,
        color="0.3",
    )
    return figure


def _picture(
    figure: Figure, picture: NDArray, left: float, top: float, title: str, below: str
) -> Axes:
    """Show a part of a picture, two pixels wide and high for one, at a place in pixels."""
    width, height = figure.get_size_inches() * DPI
    part = tuple(slice(start, start + CROP) for start in CORNER)
    side = 2 * CROP
    place = (left / width, 1 - (top + side) / height, side / width, side / height)
    axes = figure.add_axes(place)
    axes.imshow(picture[part], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=11.5)
    axes.text(0.5, -0.03, below, transform=axes.transAxes, ha="center", va="top", fontsize=12.5)
    return axes


def _round_trip(result: dict[str, Any]) -> Figure:
    photograph = data.camera()
    num_iter = round_trip.QUICK_NUM_ITER if result["quick"] else round_trip.NUM_ITER
    figure = Figure(figsize=(12, 5.5))
    width, height = figure.get_size_inches() * DPI
    side, gap, top = 2 * CROP, 12, 72
    for row, (name, blur) in enumerate(round_trip.blurs(photograph.shape).items()):
        stations = round_trip.pictures(photograph, blur, num_iter)
        errors = round_trip.errors(stations)
        for column, (station, picture) in enumerate(stations.items()):
            error = errors.get(station)
            below = "error:" if error is None else _grey_levels(error)
            title = "" if row else station.replace(", ", ",\n")
            left = width - (len(stations) - column) * (side + gap)
            _picture(figure, picture, left, top, title, below)
        middle = 1 - (top + side / 2) / height
        figure.text(0.012, middle, name, rotation=90, ha="center", va="center", fontsize=12.5)
        top += side + 50
    caption = (
        f"exp(-r²/{round_trip.RADIUS}), as large as the picture, and {round_trip.LENGTH} equal "
        f"taps, with {round_trip.EPSILON:g} added to the transform; the division has the same.\n"
        f"Pictures of 512² that wrap around, shown in part. Richardson-Lucy: {num_iter} "
        "iterations.\nErrors are root mean squares of all pixels, in grey levels of 255."
    )
    figure.text(0.5, 0.012, caption, ha="center", va="bottom", fontsize=11, color="0.3")
    return figure


def _grey_levels(error: float) -> str:
    return report.small(error) if error < 1e-3 else report.figures(error)


def _fields(result: dict[str, Any]) -> Figure:
    """A part of every kind of star field, and of the differences that are left of it."""
    kinds = stars.KINDS[1:2] if result["quick"] else stars.KINDS
    size = fields.QUICK_FIELD if result["quick"] else fields.FIELD
    figure = Figure(figsize=(12, 3.3 * len(kinds) + 0.6), layout="constrained")
    who = fields.makers()[0]
    names = [fields.IDEAL, *who]
    panels = figure.subplots(len(kinds), len(names) + 1, squeeze=False)
    part = np.s_[size // 4 : size // 4 + FIELD_PART, size // 4 : size // 4 + FIELD_PART]
    for kind, line in zip(kinds, panels, strict=True):
        truth = stars.field(kind, size, 1)
        found = fields.differences(truth, who)
        sigma = np.sqrt(truth.variances[1])
        dark = float(np.nanmedian(truth.science))
        line[0].imshow(np.arcsinh((truth.science - dark) / sigma)[part], cmap="gray")
        line[0].set(title="science image", ylabel=kind.name)
        for axes, name in zip(line[1:], names, strict=True):
            difference = found[name][0]
            axes.imshow((difference / sigma)[part], cmap="RdBu", vmin=-6, vmax=6)
            figures = stars.judged(truth, difference)
            below = f"noise {figures['all']:.3f}, on stars {figures['stars']:.3f}"
            axes.set(title=name, xlabel=f"{below}, false {figures['false']}")
        for axes in line:
            axes.set(xticks=[], yticks=[])
    figure.supxlabel(
        "Differences from -6 to 6 standard deviations of the science image's noise; pixels without "
        "one are white.\nNoise over that of the truth, 1 is ideal.",
        fontsize=11,
        color="0.3",
    )
    return figure


class Drawing(NamedTuple):
    """A figure, and the suite whose results it needs, if any."""

    suite: str | None
    draw: Callable[[dict[str, Any]], Figure]


FIGURES = {
    "engines": Drawing("engines", _against_kernel),
    "sizes": Drawing("sizes", _against_size),
    "convolve": Drawing("convolve", _convolution),
    "border": Drawing("restoration", _border),
    "round_trip": Drawing(None, _round_trip),
    "fields": Drawing(None, _fields),
}


def _save(figure: Figure, path: Path) -> None:
    """Write a PNG of 256 colours, a third of the size."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(buffer).convert("RGB").quantize(256).save(path, optimize=True)


def draw(names: Sequence[str], results: Path, folder: Path, quick: bool) -> list[Path]:
    """Write the figures named, or all that there are results for."""
    paths = []
    for name in names or FIGURES:
        suite, figure_of = FIGURES[name]
        result: dict[str, Any] = {"quick": quick}
        if suite is not None:
            if not names and not report.path(results, suite).is_file():
                print(f"bench: {name} not drawn: no {report.path(results, suite)}", file=sys.stderr)
                continue
            result = report.load(results, suite, quick)
        paths.append(folder / f"{name}.png")
        _save(figure_of(result), paths[-1])
    return paths
