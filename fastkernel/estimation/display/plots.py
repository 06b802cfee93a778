"""Figures of kernels, beside them what tells how far to believe them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike

from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.display.drawings import (
    LONG,
    SHORT,
    draw_history,
    draw_kernel,
    draw_residual,
)
from fastkernel.estimation.display.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Error bars as alike as this need no picture.
_ALIKE = 1.1


class _Fitted(Protocol):
    """What is drawn of a result: a `KernelFit` or an `InverseFit`."""

    @property
    def kernel(self) -> FloatArray: ...
    @property
    def method(self) -> str: ...


class _FittedKernel(_Fitted, Protocol):
    @property
    def standard_errors(self) -> FloatArray: ...
    @property
    def residual_rms(self) -> float: ...
    @property
    def history(self) -> Mapping[str, FloatArray] | None: ...


class _FittedInverse(_Fitted, Protocol):
    @property
    def deviation(self) -> FloatArray: ...
    @property
    def delay(self) -> Shape: ...
    @property
    def max_deviation(self) -> float: ...


def plot_fit(
    fit: _FittedKernel, *, title: str | None = None, residual: FloatArray | None = None
) -> "Figure":
    """Draw a fitted kernel, beside it the history of its fit or its error bars, and its residual.

    Parameters
    ----------
    fit : KernelFit
        What `fastkernel.estimate_kernel` returned.
    title : str, optional
        Line above the figure; by default size, method and residual.
    residual : (rows, cols) float64 array, optional
        Result less prediction.

    Returns
    -------
    matplotlib.figure.Figure
        Belongs to no window: a notebook shows it by itself; elsewhere call its ``savefig``.

    Raises
    ------
    ImportError
        If matplotlib is missing.

    Notes
    -----
    Error bars are drawn as shares of the largest tap, and only where they differ: alike, they are
    a line below the kernel.
    """
    bars, uneven = error_bars(fit.kernel, fit.standard_errors)
    known = bool(np.isfinite(bars).all())
    panels = [_size(fit.kernel.shape)]
    if fit.history is not None:
        panels.append((3.6, 2.6))
    elif uneven:
        panels.append(_size(fit.kernel.shape))
    if residual is not None:
        panels.append(_size(residual.shape))
    figure, (first, *rest), below = _row_or_column(panels)
    note = ""
    if known and (fit.history is not None or not uneven):
        note = f"error bars: at most {bars.max():.2g} % of the largest tap"
    noise = tap_noise(fit.kernel, bars)
    draw_kernel(first, fit.kernel, "kernel", note=note, noise=noise, below=below)
    if fit.history is not None:
        draw_history(rest.pop(0), fit.history)
    elif uneven:
        note = "% of the largest tap"
        draw_kernel(rest.pop(0), bars, "error bars", note=note, below=below, digits=2)
    if residual is not None:
        title_beside = "residual: result less prediction"
        draw_residual(rest.pop(0), residual, title=title_beside, below=below)
    p, q = fit.kernel.shape
    figure.suptitle(title or f"{p}x{q} kernel, {fit.method}, residual {fit.residual_rms:.3g} rms")
    return figure


def error_bars(kernel: FloatArray, errors: FloatArray) -> tuple[FloatArray, bool]:
    """Return error bars in % of the largest tap, and whether they differ enough for a picture."""
    bars = 100 * errors / (float(np.abs(kernel).max()) or 1.0)
    return bars, bool(np.isfinite(bars).all() and bars.max() > _ALIKE * bars.min())


def tap_noise(kernel: FloatArray, bars: FloatArray) -> float | None:
    """Return what noise may make of a tap that is zero, by its bars in %; None if not known."""
    if not np.isfinite(bars).all():
        return None
    # Three standard errors; a little more than nothing where the fit is exact.
    return max(0.03 * float(bars.max()), 1e-9) * float(np.abs(kernel).max())


def plot_inverse(fit: _FittedInverse, *, title: str | None = None) -> "Figure":
    """Draw an inverse kernel beside what its convolution with the kernel lacks of a single 1.

    Parameters
    ----------
    fit : InverseFit
        What `fastkernel.inverse_kernel` returned.
    title : str, optional
        Line above the figure; by default size, method and largest deviation.

    Returns
    -------
    matplotlib.figure.Figure
        Belongs to no window: a notebook shows it by itself; elsewhere call its ``savefig``.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    sizes = [_size(fit.kernel.shape), _size(fit.deviation.shape)]
    figure, (first, second), below = _row_or_column(sizes, above=0.4)
    # The tap of the inverse that meets the centre of the kernel at the delay.
    others = zip(fit.deviation.shape, fit.kernel.shape, fit.delay, strict=True)
    still = tuple(peak - (whole - taps) // 2 for whole, taps, peak in others)
    inside = all(0 <= place < taps for place, taps in zip(still, fit.kernel.shape, strict=True))
    draw_kernel(
        first,
        fit.kernel,
        "inverse",
        note="marked: the tap that keeps the place" if inside else "",
        fades=True,
        below=below,
        mark=(still[0], still[1]) if inside else None,
    )
    draw_kernel(
        second,
        fit.deviation,
        "convolution less a single 1",
        note="marked: the 1, at delay ({}, {})".format(*fit.delay),
        fades=True,
        below=below,
        centre=fit.delay,
        mark=fit.delay,
        digits=2,
    )
    p, q = fit.kernel.shape
    figure.suptitle(
        title or f"{p}x{q} inverse, {fit.method}, largest deviation {fit.max_deviation:.3g}"
    )
    return figure


def plot_recovery(
    source: ArrayLike,
    result: ArrayLike,
    truth: FloatArray,
    found: FloatArray,
    errors: FloatArray | None = None,
) -> "Figure":
    """Draw two images, the kernel between them, the one that was estimated, and their difference.

    Parameters
    ----------
    source, result : (rows, cols) array_like
        The images, drawn on one grey scale.
    truth, found : (p, q) float64 arrays
        The kernels, drawn on one colour scale.
    errors : (p, q) float64 array, optional
        Standard errors of ``found``, in which its difference from ``truth`` is told.

    Returns
    -------
    matplotlib.figure.Figure
        Belongs to no window.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    figure = new_figure(14.6, 3.2)
    panels = figure.subplots(1, 5)
    images = {"source": np.asarray(source), "result": np.asarray(result)}
    darkest = min(image.min() for image in images.values())
    lightest = max(image.max() for image in images.values())
    for panel, (name, image) in zip(panels, images.items(), strict=False):
        panel.imshow(image, cmap="gray", vmin=darkest, vmax=lightest)
        panel.set_title(name)
        panel.set_axis_off()
    both = np.stack([truth, found])
    draw_kernel(panels[2], truth, "true kernel", scale=both)
    draw_kernel(panels[3], found, "estimated kernel", scale=both)
    unit = "" if errors is None else "\nin standard errors"
    difference = found - truth if errors is None else (found - truth) / errors
    draw_kernel(panels[4], difference, f"estimated less true{unit}", digits=2)
    return figure


def _size(shape: tuple[int, ...]) -> tuple[float, float]:
    """Return the width and height of a picture in inches, for pixels that are squares if can be."""
    rows, cols = shape
    long = max(rows, cols)
    return max(LONG * cols / long, SHORT), max(LONG * rows / long, SHORT)


def _row_or_column(
    sizes: "list[tuple[float, float]]", above: float = 0.0
) -> "tuple[Figure, list[Axes], bool]":
    """Return panels of the given sizes, and whether they stand below each other, as wide ones do.

    Their colour bars then lie below them too. ``above`` is room for more lines of title, in inches.
    """
    width, height = sizes[0]
    below = width > 1.8 * height
    if below:
        # What a panel needs besides: its title, ticks, labels, and a colour bar below.
        heights = [h + 1.5 + above for _, h in sizes]
        figure = new_figure(5.0, sum(heights) + 0.4)
        panels = figure.subplots(len(sizes), 1, squeeze=False, height_ratios=heights)[:, 0]
    else:
        widths = [max(w + 1.6, 2.8) for w, _ in sizes]
        figure = new_figure(max(sum(widths), 4.6), max(h for _, h in sizes) + 1.3 + above)
        panels = figure.subplots(1, len(sizes), squeeze=False, width_ratios=widths)[0]
    return figure, list(panels), below
