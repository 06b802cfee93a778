"""Figures of a kernel that varies over the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.display.figures import new_figure

if TYPE_CHECKING:
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
    (rows, cols), (p, q) = field.shape, field.kernel_shape
    down, across = (
        (np.arange(n) + 0.5) / n * length - 0.5 for n, length in zip(grid, field.shape, strict=True)
    )
    kernels = np.array([[field.kernel_at(r, c) for c in across] for r in down])
    height = float(np.clip(3.6 * rows / cols, 2.2, 6))
    figure = new_figure(11.5, height + 0.6)
    sheet, sticks, scale = figure.subplots(1, 3)

    joined = np.full((grid[0] * (p + 1) - 1, grid[1] * (q + 1) - 1), np.nan)
    for i, line in enumerate(kernels):
        for j, kernel in enumerate(line):
            joined[i * (p + 1) : i * (p + 1) + p, j * (q + 1) : j * (q + 1) + q] = kernel
    largest = float(np.nanmax(np.abs(joined))) or 1.0
    signed = float(np.nanmin(joined)) < -0.02 * largest
    image = sheet.imshow(
        joined,
        cmap="RdBu_r" if signed else "viridis",
        vmin=-largest if signed else 0,
        vmax=largest,
    )
    figure.colorbar(image, ax=sheet, shrink=0.8)
    sheet.set_title("kernels over the frame")
    sheet.set_xticks([])
    sheet.set_yticks([])

    for i, r in enumerate(down):
        for j, c in enumerate(across):
            length, angle = elongation(kernels[i, j])
            reach = 0.5 * length * min(rows / grid[0], cols / grid[1])
            y, x = reach * np.sin(angle), reach * np.cos(angle)
            sticks.plot([c - x, c + x], [r - y, r + y], color="C0", lw=2)
            sticks.plot(c, r, ".", color="0.6", ms=3)
    sticks.set_xlim(0, cols - 1)
    sticks.set_ylim(rows - 1, 0)
    sticks.set_aspect("equal")
    sticks.set_title("elongation (a full cell: a line)")

    r, c = np.linspace(0, rows - 1, 41), np.linspace(0, cols - 1, 41)
    values = field.scale_at(r[:, None], c)
    image = scale.imshow(values, extent=(0, cols - 1, rows - 1, 0), cmap="cividis")
    figure.colorbar(image, ax=scale, shrink=0.8)
    scale.set_title("sum of the taps")
    return figure


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
