"""Figures and tables of kernels. Figures need matplotlib (the extra ``fastkernel[plot]``)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike

from fastkernel._typing import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
    def max_deviation(self) -> float: ...


def fact_table(facts: Mapping[str, object]) -> str:
    """Return facts as an HTML table of two columns."""
    rows = "".join(f"<tr><th>{key}</th><td>{value}</td></tr>" for key, value in facts.items())
    return f"<table>{rows}</table>"


def iterations_fact(num_iter: int, converged: bool) -> dict[str, str]:
    """Return how iterations ended; nothing where there were none."""
    end = "converged" if converged else "not converged"
    return {"iterations": f"{num_iter}, {end}"} if num_iter else {}


def plot_fit(fit: _FittedKernel, *, title: str | None = None) -> "Figure":
    """Draw a fitted kernel beside the standard errors of its taps, or the history of its fit.

    Parameters
    ----------
    fit : KernelFit
        What `fastkernel.estimate_kernel` returned.
    title : str, optional
        Line above the figure; by default size, method and residual.

    Returns
    -------
    matplotlib.figure.Figure
        Belongs to no window: show it in a notebook, or call its ``savefig``.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    beside = fit.history is not None or bool(np.isfinite(fit.standard_errors).all())
    figure = _figure(8.4 if beside else 4.6, 3.8)
    left, *rest = figure.subplots(1, 1 + beside, squeeze=False)[0]
    _draw_kernel(left, fit.kernel, "kernel")
    if fit.history is not None:
        _draw_history(rest[0], fit.history)
    elif beside:
        _draw_kernel(rest[0], fit.standard_errors, "standard errors")
    p, q = fit.kernel.shape
    figure.suptitle(title or f"{p}x{q} kernel, {fit.method}, residual {fit.residual_rms:.3g} rms")
    return figure


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
        Belongs to no window: show it in a notebook, or call its ``savefig``.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    figure = _figure(8.4, 3.8)
    left, right = figure.subplots(1, 2)
    _draw_kernel(left, fit.kernel, "inverse")
    _draw_kernel(right, fit.deviation, "convolution less a single 1")
    p, q = fit.kernel.shape
    figure.suptitle(
        title or f"{p}x{q} inverse, {fit.method}, largest deviation {fit.max_deviation:.3g}"
    )
    return figure


def plot_recovery(
    source: ArrayLike, result: ArrayLike, truth: FloatArray, found: FloatArray
) -> "Figure":
    """Draw two images, the kernel between them, and the kernel that was estimated.

    Parameters
    ----------
    source, result : (rows, cols) array_like
        The images, drawn on one grey scale.
    truth, found : (p, q) float64 arrays
        The kernels, drawn on one colour scale.

    Returns
    -------
    matplotlib.figure.Figure
        Belongs to no window.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    figure = _figure(13.5, 3.6)
    panels = figure.subplots(1, 4)
    images = {"source": np.asarray(source), "result": np.asarray(result)}
    darkest = min(image.min() for image in images.values())
    lightest = max(image.max() for image in images.values())
    for panel, (name, image) in zip(panels, images.items(), strict=False):
        panel.imshow(image, cmap="gray", vmin=darkest, vmax=lightest)
        panel.set_title(name)
        panel.set_axis_off()
    both = np.stack([truth, found])
    _draw_kernel(panels[2], truth, "true kernel", scale=both)
    _draw_kernel(panels[3], found, "estimated kernel", scale=both)
    return figure


def _figure(width: float, height: float) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError as problem:
        msg = "figures need matplotlib: pip install 'fastkernel[plot]'"
        raise ImportError(msg) from problem
    return Figure(figsize=(width, height), layout="constrained")


def _draw_history(panel: "Axes", history: Mapping[str, FloatArray]) -> None:
    """Draw the first of what was recorded, by iteration."""
    name, values = next(iter(history.items()))
    panel.plot(values)
    if values.min() > 0 and values[0] > 10 * values[-1]:
        panel.set_yscale("log")
    panel.set_title(name.replace("_", " "))
    panel.set_xlabel("iteration")


def _draw_kernel(
    panel: "Axes", taps: FloatArray, title: str, scale: FloatArray | None = None
) -> None:
    from matplotlib.ticker import MaxNLocator

    scale = taps if scale is None else scale
    largest = float(np.abs(scale).max()) or 1.0
    # White is zero where taps of both signs stand beside each other; noise around zero is not one.
    negative = scale.min() < -0.002 * largest
    cmap, lowest = ("RdBu_r", -largest) if negative else ("viridis", 0.0)
    image = panel.imshow(taps, cmap=cmap, vmin=lowest, vmax=largest)
    panel.figure.colorbar(image, ax=panel, shrink=0.8)
    panel.set_title(title)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))  # there is no half a tap
    panel.set_xlabel("column")
    panel.set_ylabel("row")
