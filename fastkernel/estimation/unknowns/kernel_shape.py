"""The size of a kernel, found by what nested kernels leave of pixels they were not fitted to."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fastkernel._images.checks import as_boundary, as_kernel_shape, as_workers
from fastkernel._images.crops import fitted_to
from fastkernel._images.lazy import LazyImage
from fastkernel._images.pairs import Pair, as_pairs, pair_of
from fastkernel._images.usable import Observed, PixelRules
from fastkernel._images.windows import centre
from fastkernel._machine.run import Run
from fastkernel._typing import Border, Boundary, Images, NanPolicy, Pixels, Shape
from fastkernel.estimation.display.figures import new_figure, png
from fastkernel.estimation.equations.normal_equations import NormalEquations
from fastkernel.estimation.errors import SingularFitError
from fastkernel.estimation.unknowns.clipping import without_clipped
from fastkernel.estimation.unknowns.held_out import Box, nested_scores, strip_equations

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Taps beyond which the equations of strips take too long, and too much memory.
MOST_TAPS = 2048

# The longest side of kernels that are looked for where nothing is said of it.
LARGEST = 15

# Root mean square of what rounding to whole levels leaves, and how much more is no rounding.
_ROUNDING_RMS, _ROUNDED = 12**-0.5, 1.05


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class KernelShapeSelection:
    """The size of a kernel, and what speaks for it.

    Attributes
    ----------
    shape : (int, int)
        The smallest that explains the result: rows and columns, in pixels.
    largest : (int, int)
        The largest that was tried.
    curve : mapping of (int, int) to float
        What kernels of every shape that was tried leave of pixels that they were not fitted to,
        root mean square in result units; infinite where these do not determine the kernel.
    n_pixels : int
        Pixels that all shapes were compared over.
    left_out : float
        Share of the pixels that were left out because they may be clipped.
    """

    shape: Shape
    largest: Shape
    curve: Mapping[Shape, float] = field(compare=False)
    n_pixels: int
    left_out: float = 0.0

    @property
    def gain(self) -> float:
        """By what factor the best of the smaller shapes leaves more; infinite if there is none.

        1.001 is a close call; 1.1 is not.
        """
        rows, cols = self.shape
        smaller = [
            rms
            for (p, q), rms in self.curve.items()
            if p <= rows and q <= cols and (p, q) != self.shape
        ]
        own = self.curve[self.shape]
        if not smaller or not own > 0:
            return math.inf
        return min(smaller) / own

    @property
    def at_limit(self) -> bool:
        """Whether a side is as long as the longest that was tried: it may be longer."""
        return any(k == most > 1 for k, most in zip(self.shape, self.largest, strict=True))

    def __repr__(self) -> str:
        facts = [f"shape={self.shape}", f"largest={self.largest}", f"gain={self.gain:.4g}"]
        facts += ["at_limit=True"] * self.at_limit
        facts += [f"left_out={self.left_out:.2g}"] * (self.left_out > 0)
        return f"{type(self).__name__}({', '.join(facts)})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{key}</th><td>{html.escape(value)}</td></tr>"
            for key, value in self._facts().items()
        )
        table = f"<table>{rows}</table>"
        try:
            picture = base64.b64encode(png(self.plot())).decode("ascii")
        except ImportError:
            return table
        return f'{table}<img alt="curve of sizes" src="data:image/png;base64,{picture}">'

    def _facts(self) -> dict[str, str]:
        facts = {
            "kernel shape": _size(self.shape) + " (the largest tried)" * self.at_limit,
            "smaller ones leave": f"at least {self.gain:.4g} times as much",
            "compared over": f"{self.n_pixels} pixels",
        }
        if self.left_out:
            facts["left out"] = f"{self.left_out:.2%}, which may be clipped"
        return facts

    def plot(self) -> Figure:
        """Draw what kernels of every size leave: sides alike, and each side by itself.

        Returns
        -------
        matplotlib.figure.Figure
            Belongs to no window: a notebook shows it by itself; elsewhere call its ``savefig``.

        Raises
        ------
        ImportError
            If matplotlib is missing.
        """
        figure = new_figure(5.0, 3.4)
        panel = figure.subplots()
        (rows, cols), (p, q) = self.largest, self.shape
        lines = {
            "both sides": [(min(i, rows), min(i, cols)) for i in range(1, max(rows, cols) + 1)],
            f"rows, of {q} columns": [(i, q) for i in range(1, rows + 1)],
            f"columns, of {p} rows": [(p, i) for i in range(1, cols + 1)],
        }
        for name, shapes in lines.items():
            known = [
                (max(s) if name == "both sides" else i + 1, self.curve[s])
                for i, s in enumerate(shapes)
                if math.isfinite(self.curve.get(s, math.inf))
            ]
            if known:
                panel.plot(*zip(*known, strict=True), marker=".", label=name)
        panel.axhline(self.curve[self.shape], color="0.7", linewidth=1, zorder=0)
        panel.set_yscale("log")
        panel.set_title(f"{_size(self.shape)} explains the result")
        panel.set_xlabel("taps along a side")
        panel.set_ylabel("rms left of pixels held out")
        panel.grid(alpha=0.3)
        panel.legend()
        return figure


def select_kernel_shape(
    source: Images,
    result: Images,
    largest: Shape | int,
    *,
    boundary: Border | None = None,
    weights: Pixels | None = None,
    mask: Pixels | None = None,
    source_mask: Pixels | None = None,
    nan_policy: NanPolicy = "raise",
    channel_axis: int | None = None,
    workers: int | None = None,
) -> KernelShapeSelection:
    r"""Find how large the kernel is that turned one image into another.

    Kernels of nested shapes are fitted to all strips of rows but one, and judged by what they
    leave of that one [1]_. The smallest wins that leaves as little as the best, but for noise.

    Parameters
    ----------
    source, result : array_like of real numbers, or a sequence of them
        As in `estimate_kernel`. A "valid" or "full" result may be that of a kernel of any size:
        the centre tap of the kernel that the shapes tell is that of all.
    largest : (int, int) or int
        Rows and columns of the largest kernel to try, at most 2048 taps.
    boundary : str, optional
        As in `estimate_kernel`, of a "same" pair. All shapes are compared over the same pixels:
        with None those that no rule touches for the largest kernel.
    weights, mask, source_mask, nan_policy, channel_axis, workers : optional
        As in `estimate_kernel`.

    Returns
    -------
    KernelShapeSelection
        ``shape``, the ``curve`` of what each leaves, and ``plot()``.

    Raises
    ------
    SingularFitError
        If the source determines no kernel of any size.
    TypeError, ValueError
        If ``largest`` has too many taps or leaves too few pixels, or as `estimate_kernel`.

    Notes
    -----
    The pixels are read once (twice, where an image is read by slices): every strip has equations,
    and those of all others are the total less these. Along a nested sequence one Cholesky factor
    of the largest Gram matrix holds those of all. The sequences are: both sides together, then the
    rows, then the columns. A level beside the convolution, and a slope, are allowed for in every
    strip. Pixels at the ends of the levels are left out where more than rounding is left.

    The score is the held-out energy plus what it exceeds the fitted energy by, which counts a tap
    by what it costs under whatever noise there is. Scores within a tenth of their standard error
    (at most 0.3 %) are alike.

    References
    ----------
    .. [1] M. Stone, "Cross-validatory choice and assessment of statistical predictions", J. Roy.
       Statist. Soc. B 36 (1974) 111-147.

    Examples
    --------
    >>> import numpy as np
    >>> from fastkernel import select_kernel_shape
    >>> from scipy.ndimage import convolve
    >>> image = np.random.default_rng(0).integers(0, 256, (90, 90)).astype(float)
    >>> blurred = convolve(image, np.full((3, 5), 1 / 15)).round()
    >>> select_kernel_shape(image, blurred, 9).shape
    (3, 5)
    """
    shape = as_kernel_shape(largest)
    rule = None if boundary is None else as_boundary(boundary)
    rules = PixelRules(mask, source_mask, weights, None, nan_policy)
    images = as_pairs(source, result, channel_axis, rules)
    return selected(images, shape, rule, Run(as_workers(workers)))


def selected(
    images: Sequence[Observed], largest: Shape, boundary: Boundary | None, run: Run
) -> KernelShapeSelection:
    """Return the shape of a kernel; see `select_kernel_shape`."""
    if math.prod(largest) > MOST_TAPS:
        msg = f"largest must have at most {MOST_TAPS} taps, got {largest}; try a smaller one"
        raise ValueError(msg)
    found = _selected(images, largest, boundary, run)
    if any(isinstance(pair.result, LazyImage) for pair in images):
        return found  # what is read by slices is read once
    rounded = found.curve[found.shape] <= _ROUNDED * _ROUNDING_RMS
    if rounded and all(map(_holds_whole_levels, images)):
        return found
    inside = [without_clipped(pair) for pair in images]
    if all(pair is None for pair in inside):
        return found
    kept = [new or old for new, old in zip(inside, images, strict=True)]
    try:
        return _selected(kept, largest, boundary, run)
    except SingularFitError:
        return found


def _holds_whole_levels(images: Observed) -> bool:
    result = images.result
    return result.dtype.kind in "iu" or bool((result == np.rint(result)).all())


def _selected(
    images: Sequence[Observed], largest: Shape, boundary: Boundary | None, run: Run
) -> KernelShapeSelection:
    pairs = [_pair(part, largest, boundary) for part in images]
    strips = strip_equations(pairs, largest, run)
    n_pixels = sum(part.n_pixels for part in strips)
    rows, cols = largest
    curve: dict[Shape, float] = {}
    both = [(min(i, rows), min(i, cols)) for i in range(1, max(rows, cols) + 1)]
    _, q = _smallest(strips, both, curve)
    p, _ = _smallest(strips, [(i, q) for i in range(1, rows + 1)], curve)
    shape = _smallest(strips, [(p, i) for i in range(1, cols + 1)], curve)
    every = sum(pair.window.n_pixels for pair in pairs)
    return KernelShapeSelection(shape, largest, curve, n_pixels, 1 - n_pixels / every)


def has_room(images: Observed, largest: Shape, boundary: Boundary | None) -> bool:
    """Tell whether a pair has enough pixels to look for a kernel of some size."""
    return _window(images, largest, boundary).n_pixels > 2 * math.prod(largest)


def _window(images: Observed, largest: Shape, boundary: Boundary | None) -> Pair:
    """Return the pixels over which all shapes are compared."""
    fitting = fitted_to(images, largest)
    if images.result.size > images.source.size and fitting.result.shape == fitting.source.shape:
        boundary = "zero"  # a "full" result, cropped
    return pair_of(fitting, largest, boundary)


def _pair(images: Observed, largest: Shape, boundary: Boundary | None) -> Pair:
    pair = _window(images, largest, boundary)
    if pair.n_pixels <= 2 * math.prod(largest):
        msg = (
            f"largest must leave more than two pixels for every tap, got {largest} for "
            f"{pair.n_pixels} pixels of a result {images.result.shape}; try a smaller one"
        )
        raise ValueError(msg)
    return pair


def _smallest(
    strips: Sequence[NormalEquations], shapes: Sequence[Shape], curve: dict[Shape, float]
) -> Shape:
    """Return the smallest of nested shapes that explains as much as the best."""
    scores = nested_scores(strips, [_box(shape, strips[0].kernel_shape) for shape in shapes])
    if not np.isfinite(scores.penalised).any():
        msg = (
            "the images determine no kernel of any size: the source is flat. What helps: a source "
            "with more detail"
        )
        raise SingularFitError(msg)
    curve.update(zip(shapes, scores.rms.tolist(), strict=True))
    return shapes[scores.smallest([math.prod(shape) for shape in shapes])]


def _box(shape: Shape, largest: Shape) -> Box:
    """Return the taps of a kernel around the centre tap of a larger one."""
    (top, left), (row, col) = centre(largest), centre(shape)
    return Box(top - row, left - col, *shape)


def _size(shape: Shape) -> str:
    return f"{shape[0]}x{shape[1]}"
