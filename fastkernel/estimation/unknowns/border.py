"""The rule that made the border of a result of its source's size."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, get_args

import numpy as np

from fastkernel._images.pairs import Pair, pair_of
from fastkernel._images.usable import Observed
from fastkernel._images.windows import Window
from fastkernel._machine.run import Run
from fastkernel._typing import Boundary, FloatArray, Shape
from fastkernel.convolution.convolve import convolved
from fastkernel.estimation.equations.background import background_of
from fastkernel.estimation.equations.formed import gathered
from fastkernel.estimation.polynomial import polynomial_image
from fastkernel.estimation.unknowns.clipping import without_clipped

RULES: tuple[Boundary, ...] = get_args(Boundary)

# A rule explains the rim where what it leaves is nearer to what the kernel leaves inside than to
# what the next rule leaves, as factors, but for some luck. How much more that must be to be sure.
_LUCK, _SURE = 1.03, 1.5

# Rules that leave of the rim what another does, within this factor, cannot be told apart.
_ALIKE = 1.02

# Lines along a side, at least, that the rim is compared with; and what rounding of float64 leaves.
_FEWEST_LINES, _ROUNDING = 4, 1e-7


@dataclass(frozen=True, slots=True)
class BorderFound:
    """The rule that made a border.

    Attributes
    ----------
    boundary : str or None
        The rule; None if no rule explains the rim, or the result has none.
    rim_rms : mapping of str to float
        What every rule leaves of the rim, root mean square in result units; of whole levels the
        prediction is clipped to those that there are.
    inside_rms : float
        What the kernel leaves where no rule matters.
    """

    boundary: Boundary | None
    rim_rms: Mapping[Boundary, float] = field(default_factory=dict)
    inside_rms: float = math.nan

    @property
    def alike(self) -> tuple[Boundary, ...]:
        """Rules that explain the rim as well as the one that was chosen, which is the first.

        For kernels of three rows and columns "replicate" and "symmetric" are the same.
        """
        if self.boundary is None:
            return ()
        least = self.rim_rms[self.boundary]
        rest = [
            rule
            for rule, rms in self.rim_rms.items()
            if rule != self.boundary and rms <= _ALIKE * least
        ]
        return (self.boundary, *rest)

    @property
    def ratio(self) -> float:
        """How many times as much the next rule leaves that is not alike; infinite if none is."""
        alike = self.alike
        others = [rms for rule, rms in self.rim_rms.items() if rule not in alike]
        if self.boundary is None or not others:
            return math.inf
        own = self.rim_rms[self.boundary]
        return min(others) / own if own > 0 else math.inf

    @property
    def sure(self) -> bool:
        """Whether a rule was found and no other comes near it."""
        return self.boundary is not None and self.ratio >= _SURE


def find_border(
    images: Sequence[Observed], kernel_shape: Shape, degree: int | None, run: Run
) -> BorderFound:
    """Find the rule by which the rim of results was made.

    A kernel is fitted where no rule matters, and what it leaves of the rim under every rule is
    compared with what it leaves beside it.

    Parameters
    ----------
    images : sequence of Observed
        Pairs that were made alike.
    kernel_shape : (int, int)
        Of the kernel.
    degree : int or None
        Of the background beside it; None for none.
    run : Run
        How.

    Returns
    -------
    BorderFound
        Of no rule where a pair is not of "same" size, or its kernel has no reach.

    Raises
    ------
    SingularFitError, ValueError
        If the pixels where no rule matters do not determine the kernel.
    """
    if kernel_shape == (1, 1) or any(pair.source.shape != pair.result.shape for pair in images):
        return BorderFound(None)
    model = _fitted(images, kernel_shape, degree, run)
    inside = _Left(model, run)
    for index, pair in enumerate(images):
        for part in _beside_the_rim(pair_of(pair, kernel_shape, None), kernel_shape):
            inside.add(index, part)
    rims: dict[Boundary, float] = {}
    for rule in RULES:
        rim = _Left(model, run)
        for index, pair in enumerate(images):
            for part in _rim(pair_of(pair, kernel_shape, rule), kernel_shape):
                rim.add(index, part)
        rims[rule] = rim.rms
    ordered = dict(sorted(rims.items(), key=lambda item: item[1]))
    found = BorderFound(next(iter(ordered)), ordered, inside.rms)
    left = min(ordered.values())
    if left <= _LUCK * inside.rms * found.ratio + inside.rounding:
        return found
    return replace(found, boundary=None)


class _Model(NamedTuple):
    """A kernel, and backgrounds over the windows of pairs."""

    kernel: FloatArray
    backgrounds: list[float | FloatArray]
    windows: list[Window]


def _fitted(
    images: Sequence[Observed], kernel_shape: Shape, degree: int | None, run: Run
) -> _Model:
    """Fit a kernel where neither a rule nor clipping matters."""
    inside = [without_clipped(pair) or pair for pair in images]
    pairs = [pair_of(pair, kernel_shape, None) for pair in inside]
    sums = gathered(pairs, kernel_shape, degree, run.silent)
    kernel = sums.equations(kernel_shape).solve().kernel
    backgrounds = [background_of(part, kernel) for part in sums.backgrounds]
    return _Model(kernel, backgrounds, [pair.window for pair in pairs])


class _Left:
    """What a kernel leaves of some pixels."""

    def __init__(self, model: _Model, run: Run) -> None:
        self._model, self._workers = model, run.workers
        self._energy, self._count, self._highest = 0.0, 0, 0.0

    def add(self, index: int, pair: Pair) -> None:
        """Add the pixels of the window of a part of a pair."""
        window = pair.window
        (top, left), (rows, cols) = window.result_origin, window.shape
        if not rows or not cols:
            return
        kernel, backgrounds, windows = self._model
        predicted = convolved(pair.source, kernel, window, self._workers)
        if backgrounds:
            row, col = windows[index].result_origin
            predicted += polynomial_image(
                backgrounds[index], windows[index].shape, (top - row, left - col), (rows, cols)
            )
        wanted = np.asarray(pair.result[top : top + rows, left : left + cols])
        if wanted.dtype.kind in "iu":
            ends = np.iinfo(wanted.dtype)
            np.clip(predicted, ends.min, ends.max, out=predicted)
        left_over = wanted - predicted
        if pair.used is not None:
            left_over, wanted = left_over[pair.used], wanted[pair.used]
        self._energy += float(np.vdot(left_over, left_over))
        self._highest = max(self._highest, float(np.abs(wanted).max(initial=0)))
        self._count += left_over.size

    @property
    def rms(self) -> float:
        """Root mean square of what is left."""
        return math.sqrt(self._energy / max(self._count, 1))

    @property
    def rounding(self) -> float:
        """What rounding may leave of levels as high as these."""
        return _ROUNDING * self._highest


def _rim(pair: Pair, kernel_shape: Shape) -> Iterator[Pair]:
    """Yield the parts of a pair that a border rule touches, no pixel twice."""
    up, left = (k // 2 for k in kernel_shape)
    down, right = ((k - 1) // 2 for k in kernel_shape)
    yield from _frame(pair, (up, down), (left, right))


def _beside_the_rim(pair: Pair, kernel_shape: Shape) -> Iterator[Pair]:
    """Yield as many lines along the sides of a window as a border rule touches beyond it."""
    rows, cols = (
        min(max(k // 2, _FEWEST_LINES), n // 2)
        for k, n in zip(kernel_shape, pair.window.shape, strict=True)
    )
    yield from _frame(pair, (rows, rows), (cols, cols))


def _frame(pair: Pair, rows: Shape, cols: Shape) -> Iterator[Pair]:
    """Yield so many first and last rows, and columns, of a pair's window."""
    height, width = pair.window.shape
    (up, down), (left, right) = rows, cols
    between = slice(up, height - down)
    yield _part(pair, slice(0, up), slice(0, width))
    yield _part(pair, slice(height - down, height), slice(0, width))
    yield _part(pair, between, slice(0, left))
    yield _part(pair, between, slice(width - right, width))


def _part(pair: Pair, rows: slice, cols: slice) -> Pair:
    """Return a part of a pair's window."""
    place = rows.start, cols.start
    window = replace(
        pair.window,
        source_origin=pair.window.source_pixel(*place),
        result_origin=pair.window.result_pixel(*place),
        shape=(max(rows.stop - rows.start, 0), max(cols.stop - cols.start, 0)),
    )
    return pair._replace(window=window, used=None if pair.used is None else pair.used[rows, cols])
