"""Figures of many kernels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fastkernel._typing import FloatArray
from fastkernel.estimation.display.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_stack(kernels: FloatArray, most: int) -> Figure:
    """Draw a contact sheet of kernels on one scale, crosses for those that are not finite."""
    shown = np.unique(np.linspace(0, len(kernels) - 1, min(most, len(kernels))).round().astype(int))
    cols = math.ceil(math.sqrt(len(shown)))
    rows = math.ceil(len(shown) / cols)
    figure = new_figure(min(1.0 * cols + 0.4, 10), min(1.15 * rows + 0.4, 12))
    finite = kernels[shown][np.isfinite(kernels[shown]).all(axis=(1, 2))]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    # White is zero where a kernel has taps of both signs.
    signed = low < -0.02 * high
    limits = (-max(high, -low), max(high, -low)) if signed else (0.0, high or 1.0)
    for i, number in enumerate(shown):
        panel = figure.add_subplot(rows, cols, i + 1)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_title(str(number), fontsize=7, pad=2)
        if np.isfinite(kernels[number]).all():
            colours = "RdBu_r" if signed else "viridis"
            panel.imshow(kernels[number], cmap=colours, vmin=limits[0], vmax=limits[1])
        else:
            panel.plot([0, 1], [0, 1], color="0.6", transform=panel.transAxes)
            panel.plot([0, 1], [1, 0], color="0.6", transform=panel.transAxes)
    return figure
