"""The drawings of a page: one panel each, narrow enough for a telephone, in the page's own ink."""

import html
import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.display.drawings import (
    draw_history,
    draw_image,
    draw_kernel,
    draw_residual,
)
from fastkernel.estimation.display.figures import new_figure
from fastkernel.estimation.display.plots import error_bars, tap_noise
from fastkernel.estimation.report.contents import Contents, pattern_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches: the width of a drawing, the height of a panel at the least and the most, and what stands
# around it.
_WIDTH, _LOW, _HIGH, _AROUND = 3.6, 0.6, 4.2, 1.1
_DOTS = 144
# The longest side of kernels whose cells have room for three digits.
_ROOMY = 5

# Decibels that the colours of a spectrum reach at the least and at the most.
_LEAST_DB, _MOST_DB = 3.0, 20.0


class Picture(NamedTuple):
    """A drawing, as an element of HTML, with its heading and what stands below it."""

    heading: str
    drawing: str
    caption: str


def kernel_pictures(contents: Contents) -> list[Picture]:
    """Return the taps, and their error bars or the history of the iterations."""
    fit = contents.fit
    kernel, history = fit.kernel, fit.history
    p, q = kernel.shape
    bars, uneven = error_bars(kernel, fit.standard_errors)
    noise, digits = tap_noise(kernel, bars), 3 if max(p, q) <= _ROOMY else 2
    alt = f"The taps of the {p}×{q} kernel as squares of colour, from {kernel.min():.3g} "
    alt += f"to {kernel.max():.3g}"
    found = [
        Picture(
            "Kernel",
            _drawn(
                lambda panel: draw_kernel(panel, kernel, noise=noise, below=True, digits=digits),
                (p, q),
                alt,
            ),
            "Taps of the convolution, in result units per source unit.",
        )
    ]
    if uneven:
        alt = f"Error bars of the taps, {bars.min():.2g} to {bars.max():.2g} % of the largest tap"
        drawing = _drawn(lambda panel: draw_kernel(panel, bars, below=True, digits=2), (p, q), alt)
        found.append(Picture("Error bars", drawing, "Standard errors, in % of the largest tap."))
    if history is not None:
        name = next(iter(history)).replace("_", " ")
        alt = f"The {name} after every iteration"
        drawing = _drawn(lambda panel: draw_history(panel, history), (2, 3), alt)
        found.append(Picture("Iterations", drawing, f"{alt}."))
    return found


def residual_pictures(contents: Contents) -> list[Picture]:
    """Return the residual and its spectrum."""
    look = contents.look
    if look is None:
        return []
    picture, spectrum = look.picture, look.spectrum
    shown = "Result less prediction, in result units, white where that is nothing."
    if look.factor > 1:
        shown += f" Every point is the mean of {look.factor}×{look.factor} pixels."
    if look.n_pairs > 1:
        shown += f" Of {look.n_pairs} pairs, channels counted apart, number {look.pair + 1}."
    if np.isnan(picture).any():
        shown += " What is left empty does not count."
    rows, cols = picture.shape
    alt = "The residual as an image: red where the result is brighter than predicted, blue where "
    alt += "it is darker"
    drawing = _drawn(
        lambda panel: draw_residual(panel, picture, step=look.factor, below=True), (rows, cols), alt
    )
    found = [Picture("Residual", drawing, shown)]
    if spectrum is not None:
        alt = "The power spectrum of the residual, frequency 0 in the middle; coarse detail has "
        alt += f"{look.coarse:.2g} times the power that it has in white noise"
        drawing = _drawn(lambda panel: _draw_spectrum(panel, spectrum), (1, 1), alt)
        caption = (
            "Power in decibels against white noise, which would be even. What rises from it has a "
            "shape: the middle is coarse detail, the corners the finest."
        )
        found.append(Picture("Its spectrum", drawing, caption))
    return found


def size_pictures(contents: Contents) -> list[Picture]:
    """Return the curve over kernel sizes, where there is one."""
    if contents.selection is not None:
        drawing = _as_svg(contents.selection.plot(), "How well kernels of every size do")
        return [Picture("Sizes", drawing, "How well kernels of every size do.")]
    sizes = contents.sizes
    if len(sizes) < 2:
        return []
    (first, most), (last, least) = sizes[0], sizes[-1]
    alt = f"The residual falls from {most:.3g} with a {_named(first)} kernel to {least:.3g} with "
    alt += f"{_named(last)}"
    caption = (
        "What kernels of the same centre leave, by least squares over the same pixels. A curve "
        "that still falls at its end asks for a larger kernel, one that is flat before it for a "
        "smaller."
    )
    return [
        Picture("Smaller kernels", _drawn(lambda p: _draw_sizes(p, sizes), (2, 3), alt), caption)
    ]


def pattern_pictures(contents: Contents) -> list[Picture]:
    """Return the patterns of taps that the source tells least of."""
    found = []
    for i, pattern in enumerate(contents.patterns):
        p, q = pattern.taps.shape
        line = pattern_line(pattern)

        def draw(panel: "Axes", taps: FloatArray = pattern.taps) -> None:
            draw_kernel(panel, taps, below=True, digits=2)

        drawing = _drawn(draw, (p, q), f"A pattern of taps: {pattern.words}")
        found.append(Picture(f"Pattern {i + 1}", drawing, f"{line[0].upper()}{line[1:]}."))
    return found


def _named(shape: Shape) -> str:
    return f"{shape[0]}×{shape[1]}"


def _draw_sizes(panel: "Axes", sizes: Sequence[tuple[Shape, float]]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    left = np.array([rms for _, rms in sizes])
    panel.plot(left, marker="o", markersize=4)
    if left.min() > 0 and left.max() > 10 * left.min():
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(lambda level, _: f"{level:g}")
        panel.yaxis.set_minor_formatter(NullFormatter())
    step = -(-len(sizes) // 6)
    # The last, which was fitted, is among those that are named.
    places = range((len(sizes) - 1) % step, len(sizes), step)
    panel.set_xticks(list(places), [_named(sizes[i][0]) for i in places])
    panel.set_ylabel("residual, rms")
    panel.grid(alpha=0.3)


def _draw_spectrum(panel: "Axes", spectrum: FloatArray) -> None:
    decibels = 10 * np.log10(np.maximum(spectrum, 1e-12))
    reach = float(np.clip(np.abs(decibels).max(), _LEAST_DB, _MOST_DB))
    draw_image(panel, decibels, reach, (-0.5, 0.5, 0.5, -0.5), below=True)
    panel.set_xlabel("cycles a column")
    panel.set_ylabel("cycles a row")


def _drawn(draw: "Callable[[Axes], None]", shape: Shape, alt: str) -> str:
    """Return a drawing of one panel, as high as the shape of what it shows asks for."""
    height = float(np.clip((_WIDTH - 0.8) * shape[0] / shape[1], _LOW, _HIGH))
    figure = new_figure(_WIDTH, height + _AROUND)
    panel = figure.subplots()
    draw(panel)
    for image in panel.images:
        image.set_interpolation("none")  # every tap and pixel once, for the reader to enlarge
    return _as_svg(figure, alt)


def _as_svg(figure: "Figure", alt: str) -> str:
    """Return a figure as an element of HTML whose ink is the text's."""
    file = io.StringIO()
    unsaid = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, dpi=_DOTS, metadata=unsaid)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace("stroke: #000000", "stroke: currentColor")
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    label = html.escape(alt, quote=True)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" fill="currentColor" ', 1)
