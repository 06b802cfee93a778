"""Times against the size of the kernel and of the image, drawn from the suites' results."""

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from . import convolve, fit, report

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


FIGURES = {"engines": _against_kernel, "sizes": _against_size, "convolve": _convolution}


def draw(folder: Path, quick: bool) -> list[Path]:
    """Write the figures of all suites that have been run into the folder of their results."""
    paths = []
    for suite, figure_of in FIGURES.items():
        if not report.path(folder, suite).is_file():
            print(f"bench: {suite} not drawn: no {report.path(folder, suite)}", file=sys.stderr)
            continue
        figure = figure_of(report.load(folder, suite, quick))
        paths.append(folder / f"{suite}.png")
        figure.savefig(paths[-1], dpi=150)
    return paths
