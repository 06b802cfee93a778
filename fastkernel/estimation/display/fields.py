"""Figures of a kernel that varies over the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.display.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class _Field(Protocol):
    """A field, as far as it is drawn."""

    @property
    def shape(self) -> Shape: ...
    @property
    def kernel_shape(self) -> Shape: ...
    def kernel_at(self, row: float, col: float) -> FloatArray: ...
    def scale_at(self, row: FloatArray, col: FloatArray) -> FloatArray: ...


def plot_field(field: _Field, grid: Shape) -> Figure:
    """Draw a contact sheet, the sticks of elongation and the map of the scale."""
    rows, cols = field.shape
    down, across = (
        (np.arange(n) + 0.5) / n * length - 0.5 for n, length in zip(grid, field.shape, strict=True)
    )
    kernels = np.array([[field.kernel_at(r, c) for c in across] for r in down])
    height = float(np.clip(3.6 * rows / cols, 2.2, 6))
    figure = new_figure(11.5, height + 0.6)
    sheet, sticks, scale = figure.subplots(1, 3)
    _draw_sheet(figure, sheet, kernels)
    reach = 0.5 * min(rows / grid[0], cols / grid[1])
    for r, line in zip(down, kernels, strict=True):
        for c, kernel in zip(across, line, strict=True):
            length, angle = elongation(kernel)
            y, x = reach * length * np.sin(angle), reach * length * np.cos(angle)
            sticks.plot([c - x, c + x], [r - y, r + y], color="C0", lw=2)
            sticks.plot(c, r, ".", color="0.6", ms=3)
    sticks.set(xlim=(0, cols - 1), ylim=(rows - 1, 0), aspect="equal")
    sticks.set_title("elongation (1: as long as a cell)")
    _draw_scale(figure, scale, field)
    return figure


def _draw_sheet(figure: Figure, sheet: Axes, kernels: FloatArray) -> None:
    """Draw kernels, (rows, cols, p, q), beside each other on one scale."""
    rows, cols, p, q = kernels.shape
    joined = np.full((rows * (p + 1) - 1, cols * (q + 1) - 1), np.nan)
    for i, j in np.ndindex(rows, cols):
        top, left = i * (p + 1), j * (q + 1)
        joined[top : top + p, left : left + q] = kernels[i, j]
    largest = float(np.abs(kernels).max()) or 1.0
    # White is zero where there are taps of both signs.
    signed = float(kernels.min()) < -0.02 * largest
    colours, least = ("RdBu_r", -largest) if signed else ("viridis", 0.0)
    image = sheet.imshow(joined, cmap=colours, vmin=least, vmax=largest)
    figure.colorbar(image, ax=sheet, shrink=0.8)
    sheet.set(title="kernels over the frame", xticks=[], yticks=[])


def _draw_scale(figure: Figure, scale: Axes, field: _Field) -> None:
    """Draw the map of the sum of the taps."""
    rows, cols = field.shape
    values = field.scale_at(np.linspace(0, rows - 1, 41)[:, None], np.linspace(0, cols - 1, 41))
    # Of a constant the rounding is not shown.
    middle = float(values.max() + values.min()) / 2
    reach = max(float(np.ptp(values)) / 2, 1e-3 * abs(middle), 1e-300)
    image = scale.imshow(
        values,
        extent=(0, cols - 1, rows - 1, 0),
        cmap="cividis",
        vmin=middle - reach,
        vmax=middle + reach,
    )
    figure.colorbar(image, ax=scale, shrink=0.8)
    scale.set_title("sum of the taps")


def elongation(kernel: FloatArray) -> tuple[float, float]:
    """Return how elongated a kernel is, 0 round to 1 a line, and along which angle, in radians.

    From the second moments of its positive taps; the angle is that from columns towards rows.
    """
    weights = np.maximum(kernel, 0)
    total = weights.sum()
    if not total > 0:
        return 0.0, 0.0
    row, col = np.indices(kernel.shape)
    row, col = row - np.sum(weights * row) / total, col - np.sum(weights * col) / total
    rr, cc, rc = (np.sum(weights * x) / total for x in (row * row, col * col, row * col))
    if not rr + cc > 0:
        return 0.0, 0.0
    length = np.hypot(cc - rr, 2 * rc) / (rr + cc)
    return float(length), float(0.5 * np.arctan2(2 * rc, cc - rr))
