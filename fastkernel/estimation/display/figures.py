"""Figures that belong to no window and that a notebook shows."""

import base64
import html
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """Return a figure of so many inches; ImportError without matplotlib."""
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
            return png(self)

        def __reduce__(self) -> tuple[Any, ...]:
            # The class has no name to be found by.
            return _empty_figure, (), self.__getstate__()

    return NotebookFigure


def _empty_figure() -> "Figure":
    kind = type(new_figure(1.0, 1.0))
    return kind.__new__(kind)


def png(figure: "Figure") -> bytes:
    """Return the contents of a figure's ``.png`` file."""
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def text_and_figure(text: str, plot: "Callable[[], Figure]") -> str:
    """Return a few lines as HTML, with a figure where there is matplotlib."""
    page = f"<pre>{html.escape(text)}</pre>"
    try:
        image = base64.b64encode(png(plot())).decode()
    except ImportError:
        return page
    return f'{page}<img alt="kernels" src="data:image/png;base64,{image}">'
