"""Answers in words: lines of text, and what a notebook shows."""

import base64
import html
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from fastkernel._typing import FloatArray
from fastkernel.estimation.display.figures import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The longest side of kernels whose taps are written as a table.
_TABLE = 5

_Answer = TypeVar("_Answer")


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
        cells = written(kernel, 4)
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
        taps = ("".join(f"<td>{cell}</td>" for cell in row) for row in written(kernel, 4))
        lines = "".join(f"<tr>{row}</tr>" for row in taps)
        parts.append(f"<table><caption>taps</caption>{lines}</table>")
    try:
        figure = draw(answer)
    except ImportError:
        return "".join(parts)
    picture = base64.b64encode(png(figure)).decode("ascii")
    parts.append(f'<img alt="picture of the kernel" src="data:image/png;base64,{picture}">')
    return "".join(parts)


def written(taps: FloatArray, digits: int) -> list[list[str]]:
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
