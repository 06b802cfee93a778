"""From images to normal equations: sums over pixels, less the best of backgrounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastkernel._images.checks import as_callback, as_kernel_shape, as_workers
from fastkernel._images.pairs import Pair
from fastkernel._images.usable import PixelRules
from fastkernel._machine.run import Run
from fastkernel._typing import (
    Background,
    Border,
    Engine,
    Images,
    NanPolicy,
    Pixels,
    Progress,
    Saturation,
    Shape,
)
from fastkernel.estimation.equations.background import (
    BackgroundSums,
    background_sums,
    eliminate,
)
from fastkernel.estimation.equations.chosen_rows import RowSums
from fastkernel.estimation.equations.gathering import Sums, as_engine, gather
from fastkernel.estimation.equations.normal_equations import NormalEquations
from fastkernel.estimation.equations.uneven import uneven_sums
from fastkernel.estimation.problem import problem_of

# Share of the energy below which sums, of which the rest was subtracted, had better be read anew.
_WORN = 1 / 16


class Gathered(NamedTuple):
    """All that the pixels of pairs have to say of a kernel and its backgrounds.

    Attributes
    ----------
    sums : Sums
        Of all pairs together, by shift.
    backgrounds : list of BackgroundSums
        One a pair, none where there are none.
    n_pixels : int
        Pixels that are fitted.
    total_weight : float
        Sum of their weights.
    read : float
        The energy of ``sums`` before any rows were subtracted.
    """

    sums: Sums
    backgrounds: list[BackgroundSums]
    n_pixels: int
    total_weight: float
    read: float

    @property
    def worn(self) -> bool:
        """Whether so little is left that the rounding of what was subtracted may show."""
        return self.sums.energy < _WORN * self.read

    def equations(self, kernel_shape: Shape) -> NormalEquations:
        """Return the equations of the kernel, less the best backgrounds."""
        # A shift by (i, j) belongs to the tap that a convolution flips onto it.
        equations = NormalEquations(
            np.ascontiguousarray(self.sums.gram[::-1, ::-1]),
            self.sums.moments[::-1].copy(),
            self.sums.energy,
            self.n_pixels,
            kernel_shape,
            total_weight=self.total_weight,
        )
        return eliminate(equations, self.backgrounds) if self.backgrounds else equations

    def changed(self, rows: Sequence[RowSums], sign: int, n_pixels: int, weight: float) -> Gathered:
        """Return the sums with the rows of some more pixels, or of some fewer."""
        gram, moments, energy = self.sums
        for part in rows:
            gram = gram + sign * part.gram
            moments = moments + sign * part.moments
            energy = energy + sign * part.energy
        backgrounds = [
            old.plus(part.background_sums(old.degree), sign)
            for old, part in zip(self.backgrounds, rows, strict=False)
        ]
        return Gathered(
            Sums(gram, moments, energy),
            backgrounds,
            self.n_pixels + sign * n_pixels,
            self.total_weight + sign * weight,
            self.read,
        )


def gathered(
    pairs: Sequence[Pair],
    kernel_shape: Shape,
    degree: int | None,
    run: Run,
    engine: str = "auto",
    share: float = 1.0,
) -> Gathered:
    """Read the pixels of pairs.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    degree : int or None
        Of the backgrounds; None for none.
    run : Run
        How.
    engine : str, optional
        How to sum over all pixels.
    share : float, optional
        Of single rows that are taken, where pixels do not count alike; see `rows_of`.
    """
    backgrounds: list[BackgroundSums | None] = [None] * len(pairs)
    even = [pair for pair in pairs if pair.even]
    total = sum(pair.window.n_pixels for pair in pairs)
    found = []
    if even:
        found.append(gather(even, kernel_shape, run.part(0, total), engine))
    done = sum(pair.window.n_pixels for pair in even)
    for i, pair in enumerate(pairs):
        if not pair.even:
            part = run.part(done, total)
            sums, backgrounds[i] = uneven_sums(pair, kernel_shape, degree, part, engine, share)
            found.append(sums)
            done += pair.window.n_pixels
        elif degree is not None:
            backgrounds[i] = background_sums(pair, kernel_shape, degree, run.workers)
    gram, moments, energy = found[0]
    for sums in found[1:]:
        gram, moments, energy = gram + sums.gram, moments + sums.moments, energy + sums.energy
    return Gathered(
        Sums(gram, moments, energy),
        [part for part in backgrounds if part is not None],
        sum(pair.n_pixels for pair in pairs),
        sum(pair.total_weight for pair in pairs),
        energy,
    )


def normal_equations(
    source: Images,
    result: Images,
    kernel_shape: Shape | int,
    *,
    boundary: Border | None = None,
    background: Background | None = None,
    weights: Pixels | None = None,
    mask: Pixels | None = None,
    source_mask: Pixels | None = None,
    saturation: Saturation | None = None,
    nan_policy: NanPolicy = "raise",
    channel_axis: int | None = None,
    engine: Engine = "auto",
    workers: int | None = None,
    callback: Progress | None = None,
) -> NormalEquations:
    r"""Gather the normal equations of the kernel that turns one image into another.

    Parameters
    ----------
    source, result : array_like of real numbers, or a sequence of them
        As in `estimate_kernel`, in any unit: a result of shape (m, n) ("same"),
        (m - p + 1, n - q + 1) ("valid") or (m + p - 1, n + q - 1) ("full") of a source (m, n).
    kernel_shape : (int, int) or int
        Rows ``p`` and columns ``q`` of the kernel, in pixels.
    weights, mask, source_mask, saturation, nan_policy : optional
        As in `estimate_kernel`. Rows that a mask leaves out are in no sum.
    boundary, channel_axis, engine, workers, callback : optional
        As in `estimate_kernel`.
    background : {"constant"} or int, optional
        As in `estimate_kernel`; the equations are those of the kernel beside the best of them.

    Returns
    -------
    NormalEquations
        Exact sums, without rounding, where both images hold integers of at most 8 bits (by
        transforms, as long as a bound on their error proves it: past 10**9 pixels).

    Raises
    ------
    TypeError
        If an image is complex or not of numbers, or carries a mask that cannot be taken apart.
    ValueError
        If the shapes do not fit together, the kernel is larger than the image, a pixel that is
        used is not finite, or another argument is out of its range.

    See Also
    --------
    estimate_kernel : Gathers and solves in one call.

    Notes
    -----
    The products of an image with itself at all pairs of shifts follow from ``2pq - p - q + 1``
    sums over its pixels and from its rim, by the displacement rule of covariance-method linear
    prediction [1]_. With the moments that makes ``3pq - p - q + 1`` multiply-adds a pixel, where
    the definition takes ``(p*q)**2``. Pixels are read tile by tile: memory beyond the images is
    a few megabytes a worker, whatever their size.

    References
    ----------
    .. [1] M. Morf, B. Dickinson, T. Kailath, A. Vieira, "Efficient solution of covariance
       equations for linear prediction", IEEE Trans. ASSP 25 (1977) 429-433.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.random.default_rng(0).integers(0, 256, (50, 60), dtype=np.uint8)
    >>> halves = [normal_equations(part, part, 3) for part in (image[:26], image[24:])]
    >>> whole = normal_equations(image, image, 3)
    >>> bool(((halves[0] + halves[1]).gram == whole.gram).all())
    True
    """
    shape, threads = as_kernel_shape(kernel_shape), as_workers(workers)
    rules = PixelRules(mask, source_mask, weights, saturation, nan_policy)
    problem = problem_of(source, result, shape, boundary, background, channel_axis, rules)
    pairs = problem.pairs()
    chosen = as_engine(engine, pairs)
    run = Run(threads, as_callback(callback))
    return gathered(pairs, shape, problem.background, run, chosen).equations(shape)
