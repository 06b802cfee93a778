"""Figures and tables of kernels. Figures need matplotlib (the extra ``fastkernel[plot]``)."""

import base64
import html
import math
from collections.abc import Callable, Mapping
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from fastkernel._typing import AnyArray, FloatArray, Shape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The longest side of kernels whose taps are written as a table, and into the cells of a figure.
_TABLE, _WRITTEN = 5, 7

# A tap that is larger than all others by this factor takes no part in the colour scale: the
# others would all look like zero.
_DOMINANT = 8.0
# Share of the largest tap that three quarters of an inverse's taps stay below where its colours
# are logarithmic, and the share below which they are linear again.
_FADED, _LINEAR = 0.02, 1e-3

# Share of the largest tap up to which negative ones are taken for noise.
_NOISE = 0.01

# Error bars as alike as this need no picture.
_ALIKE = 1.1

# Inches of the long side of a kernel's picture, and the least of the short one.
_LONG, _SHORT = 3.1, 0.6


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


_Answer = TypeVar("_Answer", bound=_Fitted)


def iterations_fact(num_iter: int, converged: bool) -> dict[str, str]:
    """Return how iterations ended; nothing where there were none."""
    end = "converged" if converged else "not converged"
    return {"iterations": f"{num_iter}, {end}"} if num_iter else {}


def bars_fact(kernel: FloatArray, errors: FloatArray) -> dict[str, str]:
    """Return how large error bars are; nothing where none are known."""
    share = float(errors.max()) / (float(np.abs(kernel).max()) or 1.0)
    if math.isnan(share):
        return {}
    return {"error bars": f"at most {100 * share:.2g} % of the largest tap"}


def background_fact(background: float | FloatArray) -> str:
    """Return in few words what was fitted beside a convolution, one for every pair or one."""
    values = np.asarray(background)
    # What stands in the first corner is the share of the constant.
    levels = values if values.ndim < 2 else values[..., 0, 0]
    lowest, highest = f"{levels.min():.6g}", f"{levels.max():.6g}"
    level = lowest if levels.ndim == 0 else f"{lowest} to {highest} in {levels.size} pairs"
    return level if values.ndim < 2 else f"{level}, polynomial of degree {values.shape[-1] - 1}"


def answer_text(
    name: str, facts: Mapping[str, str], kernel: FloatArray, verdict: object = None
) -> str:
    """Return facts as lines of text, with a table of the taps of a small kernel."""
    lines = [f"{key}: {value}" for key, value in facts.items()]
    if verdict is not None:
        lines.insert(0, f"verdict: {verdict}")
    if max(kernel.shape) <= _TABLE:
        cells = _written(kernel, 4)
        width = max(len(cell) for row in cells for cell in row)
        lines += ["taps:", *("  " + "  ".join(f"{c:>{width}}" for c in row) for row in cells)]
    return "\n  ".join([name, *lines])


def answer_html(
    facts: Mapping[str, str],
    kernel: FloatArray,
    draw: "Callable[[_Answer], Figure]",
    answer: _Answer,
    *,
    verdict: object = None,
) -> str:
    """Return what a notebook shows of an answer.

    Parameters
    ----------
    facts : mapping of str to str
        A table of two columns.
    kernel : (p, q) float64 array
        Its taps are written if they are few.
    draw, answer
        ``draw(answer)`` is the picture, which is left out where matplotlib is missing.
    verdict : object, optional
        Written above the rest, if there is any.
    """
    parts = [] if verdict is None else [f"<p><strong>{html.escape(str(verdict))}</strong></p>"]
    rows = (f"<tr><th>{key}</th><td>{html.escape(value)}</td></tr>" for key, value in facts.items())
    parts.append(f"<table>{''.join(rows)}</table>")
    if max(kernel.shape) <= _TABLE:
        taps = ("".join(f"<td>{cell}</td>" for cell in row) for row in _written(kernel, 4))
        lines = "".join(f"<tr>{row}</tr>" for row in taps)
        parts.append(f"<table><caption>taps</caption>{lines}</table>")
    try:
        figure = draw(answer)
    except ImportError:
        return "".join(parts)
    picture = base64.b64encode(_png(figure)).decode("ascii")
    parts.append(f'<img alt="picture of the kernel" src="data:image/png;base64,{picture}">')
    return "".join(parts)


def _written(taps: FloatArray, digits: int) -> list[list[str]]:
    """Return taps as text with so many digits of the largest, rounding's own taps as zeros."""
    finite = np.abs(taps[np.isfinite(taps)])
    largest = float(finite.max(initial=0.0)) or 1.0
    power = math.floor(math.log10(largest))
    decimals = digits - 1 - power
    kind = f".{max(decimals, 0)}f" if -4 <= power <= 5 else f".{digits - 1}e"
    # A tap of less than half the last digit is zero; + 0.0 makes that of either sign one.
    least = 0.5 * 10.0**-decimals
    shown = np.where(np.abs(taps) < least, 0.0, taps) + 0.0
    return [[format(float(tap), kind) if tap else "0" for tap in row] for row in shown]


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
    bars = 100 * fit.standard_errors / (float(np.abs(fit.kernel).max()) or 1.0)
    known = bool(np.isfinite(bars).all())
    uneven = known and bars.max() > _ALIKE * bars.min()
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
    # Three standard errors; a little more than nothing where the fit is exact.
    noise = max(0.03 * bars.max(), 1e-9) * float(np.abs(fit.kernel).max()) if known else None
    _draw_kernel(first, fit.kernel, "kernel", note=note, noise=noise, below=below)
    if fit.history is not None:
        _draw_history(rest.pop(0), fit.history)
    elif uneven:
        note = "% of the largest tap"
        _draw_kernel(rest.pop(0), bars, "error bars", note=note, below=below, digits=2)
    if residual is not None:
        _draw_residual(rest.pop(0), residual, below=below)
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
        Belongs to no window: a notebook shows it by itself; elsewhere call its ``savefig``.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    sizes = [_size(fit.kernel.shape), _size(fit.deviation.shape)]
    figure, (first, second), below = _row_or_column(sizes)
    _draw_kernel(first, fit.kernel, "inverse", fades=True, below=below)
    title_beside = "convolution less a single 1"
    _draw_kernel(
        second, fit.deviation, title_beside, fades=True, below=below, centre=fit.delay, digits=2
    )
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
    return _notebook_figure(Figure)(figsize=(width, height), layout="constrained")


@cache
def _notebook_figure(base: "type[Figure]") -> "type[Figure]":
    """Return the figures that a notebook shows although pyplot never set it up to."""

    class NotebookFigure(base):  # type: ignore[valid-type, misc]
        def _repr_png_(self) -> bytes:
            return _png(self)

        def __reduce__(self) -> tuple[Any, ...]:
            # The class has no name to be found by.
            return _empty_figure, (), self.__getstate__()

    return NotebookFigure


def _empty_figure() -> "Figure":
    kind = type(_figure(1.0, 1.0))
    return kind.__new__(kind)


def _png(figure: "Figure") -> bytes:
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _size(shape: tuple[int, ...]) -> tuple[float, float]:
    """Return the width and height of a picture in inches, for pixels that are squares if can be."""
    rows, cols = shape
    long = max(rows, cols)
    return max(_LONG * cols / long, _SHORT), max(_LONG * rows / long, _SHORT)


def _row_or_column(sizes: "list[tuple[float, float]]") -> "tuple[Figure, list[Axes], bool]":
    """Return panels of the given sizes, and whether they stand below each other, as wide ones do.

    Their colour bars then lie below them too.
    """
    width, height = sizes[0]
    below = width > 1.8 * height
    if below:
        # What a panel needs besides: its title, ticks, labels, and a colour bar below.
        heights = [h + 1.5 for _, h in sizes]
        figure = _figure(5.0, sum(heights) + 0.4)
        panels = figure.subplots(len(sizes), 1, squeeze=False, height_ratios=heights)[:, 0]
    else:
        widths = [max(w + 1.6, 2.8) for w, _ in sizes]
        figure = _figure(max(sum(widths), 4.6), max(h for _, h in sizes) + 1.3)
        panels = figure.subplots(1, len(sizes), squeeze=False, width_ratios=widths)[0]
    return figure, list(panels), below


def _draw_history(panel: "Axes", history: Mapping[str, FloatArray]) -> None:
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


def _draw_residual(panel: "Axes", residual: FloatArray, *, below: bool) -> None:
    """Draw what is left unexplained, white where that is nothing."""
    sizes = np.abs(residual[np.isfinite(residual)])
    largest = float(sizes.max(initial=0.0)) or 1.0
    limit, note = largest, ""
    if sizes.size:
        most = 6 * float(np.median(sizes))
        # A few wrong pixels would hide the rest. Noise seldom reaches this, four deviations.
        if 0 < most < largest / 2:
            limit, note = most, f"colours end at ±{most:.2g}, the largest is {largest:.2g}"
    image = panel.imshow(residual, cmap="RdBu_r", vmin=-limit, vmax=limit)
    panel.set_title("\n".join(filter(None, ["residual: result less prediction", note])), fontsize=9)
    _add_colour_bar(panel, image, below, "both" if note else "neither")
    panel.set_xlabel("column")
    panel.set_ylabel("row")


def _add_colour_bar(panel: "Axes", image: Any, below: bool, extend: str) -> None:
    panel.figure.colorbar(
        image,
        ax=panel,
        location="bottom" if below else "right",
        shrink=0.8,
        aspect=30 if below else 20,
        extend=extend,
    )


def _draw_kernel(
    panel: "Axes",
    taps: FloatArray,
    title: str,
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
    title, note : str
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
        aspect="equal" if min(p, q) * _LONG / max(p, q) >= _SHORT else "auto",
        **colours,
    )
    _add_colour_bar(panel, image, below, extend)
    panel.set_title(title)
    notes = [line for line in notes if line]
    if notes:
        panel.set_title(title + "\n" + "\n".join(notes), fontsize=9)
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
    for i, row in enumerate(_written(taps, digits)):
        for j, cell in enumerate(row):
            ink = "black" if colours[i, j] > 0.5 else "white"
            place = j - centre[1], i - centre[0]
            panel.text(*place, cell, ha="center", va="center", color=ink, fontsize=size)
