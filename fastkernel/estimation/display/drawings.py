"""What is drawn into one panel: taps, residuals, histories."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastkernel._typing import AnyArray, FloatArray, Shape
from fastkernel.estimation.display.texts import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The longest side of kernels whose taps are written into their cells.
_WRITTEN = 7

# A tap that is larger than all others by this factor takes no part in the colour scale: the
# others would all look like zero.
_DOMINANT = 8.0
# Share of the largest tap that three quarters of an inverse's taps stay below where its colours
# are logarithmic, and the share below which they are linear again.
_FADED, _LINEAR = 0.02, 1e-3

# Share of the largest tap up to which negative ones are taken for noise.
_NOISE = 0.01

# Inches of the long side of a kernel's picture, and the least of the short one.
LONG, SHORT = 3.1, 0.6


def draw_history(panel: "Axes", history: Mapping[str, FloatArray]) -> None:
    """Draw the first of what was recorded, by iteration."""
    from matplotlib.ticker import MaxNLocator

    name, values = next(iter(history.items()))
    panel.plot(values, marker="." if len(values) < 40 else None)
    if values.min() > 0 and values[0] > 10 * values[-1]:
        panel.set_yscale("log")
    panel.set_title(name.replace("_", " "))
    panel.set_xlabel("iteration")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(alpha=0.3)


def draw_residual(
    panel: "Axes", residual: FloatArray, *, title: str = "", step: int = 1, below: bool = False
) -> None:
    """Draw what is left unexplained, white where that is nothing.

    Parameters
    ----------
    panel : Axes
        Where.
    residual : (rows, cols) float64 array
        Result less prediction, at every ``step``-th row and column; NaN where that is not known.
    title : str, optional
        Line above.
    step : int, optional
        Pixels between two rows or columns.
    below : bool, optional
        Whether the colour bar lies below.
    """
    sizes = np.abs(residual[np.isfinite(residual)])
    largest = float(sizes.max(initial=0.0)) or 1.0
    limit, note = largest, ""
    if sizes.size:
        most = 6 * float(np.median(sizes))
        # A few wrong pixels would hide the rest. Noise seldom reaches this, four deviations.
        if 0 < most < largest / 2:
            limit, note = most, f"colours end at ±{most:.2g}, the largest is {largest:.2g}"
    rows, cols = (n * step for n in residual.shape)
    draw_image(panel, residual, limit, (-0.5, cols - 0.5, rows - 0.5, -0.5), below=below)
    panel.set_title("\n".join(filter(None, [title, note])), fontsize=9)
    panel.set_xlabel("column")
    panel.set_ylabel("row")


def draw_image(
    panel: "Axes",
    image: FloatArray,
    limit: float,
    extent: tuple[float, float, float, float],
    *,
    below: bool,
) -> None:
    """Draw an image in colours from -limit to limit, white between: left, right, bottom, top."""
    drawn = panel.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=extent)
    beyond = bool(np.nanmax(np.abs(image), initial=0.0) > limit)
    _add_colour_bar(panel, drawn, below, "both" if beyond else "neither")


def _add_colour_bar(panel: "Axes", image: Any, below: bool, extend: str) -> None:
    panel.figure.colorbar(
        image,
        ax=panel,
        location="bottom" if below else "right",
        shrink=0.8,
        aspect=30 if below else 20,
        extend=extend,
    )


def draw_kernel(
    panel: "Axes",
    taps: FloatArray,
    title: str = "",
    *,
    scale: FloatArray | None = None,
    note: str = "",
    noise: float | None = None,
    fades: bool = False,
    below: bool = False,
    centre: Shape | None = None,
    digits: int = 3,
) -> None:
    """Draw taps as squares of colour.

    Parameters
    ----------
    panel : Axes
        Where.
    taps : (p, q) float64 array
        What is drawn.
    title, note : str, optional
        Line above, and a small one below it.
    scale : array, optional
        What the colours reach, where that is more than ``taps``.
    noise : float, optional
        What noise may make of a tap that is zero, where that is known.
    fades : bool, optional
        Whether taps of all sizes matter, as those of an inverse do.
    below : bool, optional
        Whether the colour bar lies below.
    centre : (int, int), optional
        The tap from which ticks count, by default the middle one.
    digits : int, optional
        Of the taps that are written into the cells of a small kernel.
    """
    from matplotlib.colors import SymLogNorm
    from matplotlib.ticker import MaxNLocator

    scale = taps if scale is None else scale
    sizes = np.sort(np.abs(scale), axis=None)
    largest = float(sizes[-1]) or 1.0
    # White is zero where taps of both signs stand beside each other; noise around zero is not one.
    negative = scale.min() < -_NOISE * largest
    limit, notes, extend = largest, [note], "neither"
    colours: dict[str, Any] = {}
    small = max(taps.shape) <= _WRITTEN
    if fades and negative and not small and np.quantile(sizes, 0.75) < _FADED * largest:
        linear = 10.0 ** math.floor(math.log10(_LINEAR * largest))
        colours["norm"] = SymLogNorm(linear, vmin=-largest, vmax=largest)
        notes.append(f"logarithmic colours, linear within ±{linear:.0e}")
    else:
        least = _NOISE * largest if noise is None else noise
        if sizes.size > 1 and least < sizes[-2] < largest / _DOMINANT:
            limit, extend = float(sizes[-2]), "both" if negative else "max"
            notes.append(f"colours end at {limit:.2g}, the largest tap is {largest:.3g}")
        colours |= {"vmin": -limit if negative else 0.0, "vmax": limit}
    (p, q), (i, j) = taps.shape, centre or tuple((n - 1) // 2 for n in taps.shape)
    image = panel.imshow(
        taps,
        cmap="RdBu_r" if negative else "viridis",
        extent=(-0.5 - j, q - 0.5 - j, p - 0.5 - i, -0.5 - i),
        # Cells of a line of many taps would be too thin to be seen as squares.
        aspect="equal" if min(p, q) * LONG / max(p, q) >= SHORT else "auto",
        **colours,
    )
    _add_colour_bar(panel, image, below, extend)
    panel.set_title(title)
    notes = [line for line in notes if line]
    if notes:
        panel.set_title("\n".join(filter(None, [title, *notes])), fontsize=9)
    origin = "centre" if centre is None else "1"
    for axis, name, count in ((panel.xaxis, "column", q), (panel.yaxis, "row", p)):
        # There is no half a tap, and nothing to say of a single one.
        axis.set_major_locator(MaxNLocator(nbins=min(count, 8), integer=True, min_n_ticks=1))
        axis.set_visible(count > 1)
        axis.set_label_text(f"{name} from the {origin}")
    if small:
        _write_taps(panel, image, taps, (i, j), digits)


def _write_taps(panel: "Axes", image: Any, taps: FloatArray, centre: Shape, digits: int) -> None:
    """Write taps into their cells, light on dark and dark on light."""
    colours: AnyArray = image.cmap(image.norm(taps))[..., :3] @ [0.299, 0.587, 0.114]
    size = 9 if max(taps.shape) <= 5 else 7
    for i, row in enumerate(written(taps, digits)):
        for j, cell in enumerate(row):
            # Not quite black, which a page may take for its own ink.
            ink = "#101010" if colours[i, j] > 0.5 else "white"
            place = j - centre[1], i - centre[0]
            panel.text(*place, cell, ha="center", va="center", color=ink, fontsize=size)
