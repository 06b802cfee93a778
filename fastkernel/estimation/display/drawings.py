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
_WRITTEN = 9

# A tap that is larger than all others by this factor takes no part in the colour scale: the
# others would all look like zero.
_DOMINANT = 8.0
# Share of the largest tap that three quarters of an inverse's taps stay below where its colours
# are logarithmic, and the share below which they are linear again; that of the second largest tap
# below which they are for a kernel that one tap dominates.
_FADED, _LINEAR, _LINEAR_BESIDE = 0.02, 1e-3, 0.1

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
    mark: Shape | None = None,
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
    mark : (int, int), optional
        A tap that is marked.
    digits : int, optional
        Of the taps that are written into the cells of a small kernel.
    """
    from matplotlib.ticker import MaxNLocator

    small = max(taps.shape) <= _WRITTEN
    colours, extend, beyond = _colours(taps if scale is None else scale, noise, fades and not small)
    (p, q), (i, j) = taps.shape, centre or tuple((n - 1) // 2 for n in taps.shape)
    image = panel.imshow(
        taps,
        extent=(-0.5 - j, q - 0.5 - j, p - 0.5 - i, -0.5 - i),
        # Cells of a line of many taps would be too thin to be seen as squares.
        aspect="equal" if min(p, q) * LONG / max(p, q) >= SHORT else "auto",
        **colours,
    )
    _add_colour_bar(panel, image, below, extend)
    panel.set_title(title)
    notes = [line for line in (note, beyond) if line]
    if notes:
        panel.set_title("\n".join(filter(None, [title, *notes])), fontsize=9)
    origin = "centre" if centre is None else "1"
    for axis, name, count in ((panel.xaxis, "column", q), (panel.yaxis, "row", p)):
        # There is no half a tap, and nothing to say of a single one.
        axis.set_major_locator(MaxNLocator(nbins=min(count, 8), integer=True, min_n_ticks=1))
        axis.set_visible(count > 1)
        axis.set_label_text(f"{name} from the {origin}")
    if mark is not None:
        _frame(panel, mark[0] - i, mark[1] - j, small)
    if small:
        _write_taps(panel, image, taps, (i, j), digits)


def _colours(
    scale: FloatArray, noise: float | None, fades: bool
) -> tuple[dict[str, Any], str, str]:
    """Return what colours taps have, where the colour bar goes on, and what is to be said of it."""
    from matplotlib.colors import SymLogNorm

    sizes = np.sort(np.abs(scale), axis=None)
    largest = float(sizes[-1]) or 1.0
    # White is zero where taps of both signs stand beside each other; noise around zero is not one.
    negative = scale.min() < -_NOISE * largest
    colours: dict[str, Any] = {"cmap": "RdBu_r" if negative else "viridis"}
    least = _NOISE * largest if noise is None else noise
    dominated = bool(sizes.size > 1 and least < sizes[-2] < largest / _DOMINANT)
    faded = fades and np.quantile(sizes, 0.75) < _FADED * largest
    if negative and (faded or dominated):
        within = _LINEAR * largest if faded else max(_LINEAR_BESIDE * float(sizes[-2]), least)
        linear = 10.0 ** math.floor(math.log10(within))
        colours["norm"] = SymLogNorm(linear, vmin=-largest, vmax=largest)
        return colours, "neither", f"logarithmic colours, linear within ±{linear:.0e}"
    limit, extend, said = largest, "neither", ""
    if dominated:
        limit, extend = float(sizes[-2]), "max"
        said = f"colours end at {limit:.2g}, the largest tap is {largest:.3g}"
    return colours | {"vmin": -limit if negative else 0.0, "vmax": limit}, extend, said


def _frame(panel: "Axes", row: float, col: float, small: bool) -> None:
    """Mark a tap: the rim of its cell, or a ring where cells are too small to be seen."""
    if small:
        from matplotlib.patches import Rectangle

        # Black within white is seen on any colour.
        for ink, width in (("white", 3.5), ("black", 1.5)):
            place = (col - 0.5, row - 0.5)
            panel.add_patch(Rectangle(place, 1, 1, fill=False, ec=ink, lw=width, zorder=3))
        return
    for ink, width in (("white", 3.0), ("black", 1.2)):
        panel.plot(col, row, "o", mfc="none", mec=ink, mew=width, ms=10)


def _write_taps(panel: "Axes", image: Any, taps: FloatArray, centre: Shape, digits: int) -> None:
    """Write taps into their cells, light on dark and dark on light."""
    colours: AnyArray = image.cmap(image.norm(taps))[..., :3] @ [0.299, 0.587, 0.114]
    longest = max(taps.shape)
    size = 9 if longest <= 5 else 7 if longest <= 7 else 6
    for i, row in enumerate(written(taps, digits)):
        for j, cell in enumerate(row):
            if longest > 7 and "." in cell:  # no room for what says nothing
                cell = cell.replace("0.", ".", 1) if cell.lstrip("-")[:2] == "0." else cell
            # Not quite black, which a page may take for its own ink.
            ink = "#101010" if colours[i, j] > 0.5 else "white"
            place = j - centre[1], i - centre[0]
            panel.text(*place, cell, ha="center", va="center", color=ink, fontsize=size)
