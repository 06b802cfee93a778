"""What a report says, whatever it is written as."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.quality import ROUNDING_RMS, Facts, Verdict
from fastkernel.estimation.report.looks import Look
from fastkernel.estimation.report.untold import Pattern, least_told

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Taps beyond which smaller kernels and patterns are not looked at, and how many of both are.
_MOST_TAPS, _SIZES, _PATTERNS = 1024, 9, 3


class _Equations(Protocol):
    @property
    def gram(self) -> FloatArray: ...
    def crop(self, kernel_shape: Shape | int) -> Any: ...


class _Fit(Protocol):
    """A fit, as a report sees it: `KernelFit`."""

    @property
    def kernel(self) -> FloatArray: ...
    @property
    def standard_errors(self) -> FloatArray: ...
    @property
    def covariance(self) -> FloatArray: ...
    @property
    def history(self) -> Mapping[str, FloatArray] | None: ...
    @property
    def equations(self) -> Any: ...


class Selection(Protocol):
    """How well kernels of several sizes do, as a report sees it: `KernelShapeSelection`."""

    def plot(self) -> "Figure":
        """Draw the curve."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a report says.

    Attributes
    ----------
    title : str
        Of the report.
    fit : KernelFit
        The taps, their error bars, and the history of their iterations.
    facts : mapping of str to str
        What is known of the fit.
    verdict : Verdict or None
        None where nothing judged it.
    look : Look or None
        What it leaves; None where there were no images.
    sizes : sequence of ((int, int), float)
        What smaller kernels of the same centre leave, by least squares over the same pixels.
    patterns : sequence of Pattern
        What the source tells least of.
    selection : Selection or None
        The curve that chose the kernel's size.
    """

    title: str
    fit: _Fit
    facts: Mapping[str, str]
    verdict: Verdict | None
    look: Look | None
    sizes: Sequence[tuple[Shape, float]]
    patterns: Sequence[Pattern]
    selection: Selection | None


def contents_of(
    fit: _Fit,
    facts: Mapping[str, str],
    *,
    title: str | None = None,
    verdict: Verdict | None = None,
    look: Look | None = None,
    selection: Selection | None = None,
) -> Contents:
    """Collect what a report says."""
    p, q = fit.kernel.shape
    known = fit.equations if fit.kernel.size <= _MOST_TAPS else None
    patterns: list[Pattern] = []
    if known is not None and fit.kernel.size > 1:
        patterns = least_told(known.gram, fit.covariance, fit.kernel, _PATTERNS)
    return Contents(
        title=title or f"{p}×{q} kernel",
        fit=fit,
        facts=facts,
        verdict=verdict,
        look=look,
        sizes=[] if known is None or selection is not None else nested_residuals(known, (p, q)),
        patterns=patterns,
        selection=selection,
    )


def nested_residuals(equations: _Equations, kernel_shape: Shape) -> list[tuple[Shape, float]]:
    """Return what kernels leave that grow around one centre to the fitted size.

    No pixel is read again: their equations are parts of those of the largest.
    """
    p, q = kernel_shape
    found, rings = [], (max(p, q) - 1) // 2
    for less in reversed(range(0, 2 * rings + 1, 2 * -(-(rings + 1) // _SIZES))):
        shape = max(p - less, 2 - p % 2), max(q - less, 2 - q % 2)
        try:
            found.append((shape, float(equations.crop(shape).solve().residual_rms)))
        except SingularFitError:
            continue
    return found


def residual_lines(facts: Facts, coarse: float) -> list[str]:
    """Say in a few lines what a residual is like."""
    unit = " grey levels" if facts.whole_levels else ""
    rounding = f"; rounding alone leaves {ROUNDING_RMS:.3f}" if facts.whole_levels else ""
    lines = [
        f"{facts.rms:.4g}{unit} rms, at most {facts.largest:.4g}, over {facts.n_pixels} pixels"
        + rounding,
        f"{_percent(facts.unexplained)} of what the filter changed, and "
        f"{_percent(facts.misfit)} of the result's contrast",
        f"correlation of neighbours: {facts.neighbours:.2g}; with the detail of the source, by "
        f"rank: {facts.detail:.2g}",
    ]
    if not math.isnan(coarse):
        lines.append(f"coarse detail has {coarse:.2g} times the power that it has in white noise")
    if facts.clipped > 0:
        lines.append(f"{_percent(facts.clipped)} of the pixels at an end of the levels")
    return lines


def pattern_line(pattern: Pattern) -> str:
    """Say what a pattern is, and how little the source tells of it."""
    parts = [pattern.words, f"the source holds {pattern.share:.1e} of what it holds most of"]
    if math.isfinite(pattern.error):
        parts.append(f"known to ±{_percent(pattern.error)} of the largest tap")
    return "; ".join(parts)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"
