"""From images to normal equations: sums over pixels, less the best of backgrounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
)
from fastkernel.estimation.equations.chosen_rows import RowSums
from fastkernel.estimation.equations.gathering import Sums, as_engine, gather
from fastkernel.estimation.equations.normal_equations import NormalEquations
from fastkernel.estimation.equations.polynomial_sums import background_sums
from fastkernel.estimation.equations.sweeps import resident
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
        """Return the equations of the kernel, less the best backgrounds but that of a part."""
        # A shift by (i, j) belongs to the tap that a convolution flips onto it.
        equations = NormalEquations(
            np.ascontiguousarray(self.sums.gram[::-1, ::-1]),
            self.sums.moments[::-1].copy(),
            self.sums.energy,
            self.n_pixels,
            kernel_shape,
            total_weight=self.total_weight,
        )
        if self.backgrounds and self.backgrounds[0].shape is not None:
            return replace(equations, background=self.backgrounds[0])
        # No pixels have no background.
        return equations.less(self.backgrounds) if self.n_pixels else equations

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
    even = [pair for pair in pairs if pair.even and not (pair.lazy and degree is not None)]
    total = sum(pair.window.n_pixels for pair in pairs)
    found = []
    if even:
        found.append(gather(even, kernel_shape, run.part(0, total), engine))
    done = sum(pair.window.n_pixels for pair in even)
    for i, pair in enumerate(pairs):
        part = run.part(done, total)
        if not pair.even:
            sums, backgrounds[i] = uneven_sums(pair, kernel_shape, degree, part, engine, share)
            found.append(sums)
            done += pair.window.n_pixels
        elif pair.lazy and degree is not None:
            sums, backgrounds[i] = _read_once(pair, kernel_shape, degree, part, engine)
            found.append(sums)
            done += pair.window.n_pixels
        elif degree is not None:
            backgrounds[i] = background_sums(pair, kernel_shape, degree, run.workers)
        part_of, sums_beside = pair.part_of, backgrounds[i]
        if part_of is not None and sums_beside is not None:
            backgrounds[i] = replace(sums_beside, shape=part_of.shape)
    every = found[0]
    for sums in found[1:]:
        every = every.plus(sums)
    return Gathered(
        every,
        [part for part in backgrounds if part is not None],
        sum(pair.n_pixels for pair in pairs),
        sum(pair.total_weight for pair in pairs),
        every.energy,
    )


def _read_once(
    pair: Pair, kernel_shape: Shape, degree: int, run: Run, engine: str
) -> tuple[Sums, BackgroundSums]:
    """Return the sums of images that are read by slices, with those of their background."""
    found: list[tuple[Sums, BackgroundSums]] = []
    done, total = 0, pair.window.n_pixels
    for block in resident(pair, kernel_shape):
        part, whole = run.part(done, total), [pair]
        sums = gather([block], kernel_shape, part, engine, whole)
        beside = background_sums(block, kernel_shape, degree, run.workers, pair)
        if found:
            old, old_beside = found.pop()
            sums, beside = old.plus(sums), old_beside.plus(beside, 1)
        found.append((sums, beside))
        done += block.window.n_pixels
    return found.pop()


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
    within: tuple[Shape, Shape] | None = None,
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
    within : ((int, int), (int, int)), optional
        For a part of an image, None for a whole one: where its first fitted pixel stands among
        those of the whole image, and how many rows and columns of fitted pixels that has. The parts
        then share one background, which is eliminated when they have been added up (see
        `NormalEquations.eliminate`), and a pixel that is not finite is named by its index in the
        whole, counted from the first fitted pixel.

    Returns
    -------
    NormalEquations
        Exact sums, without rounding, where both images hold integers of at most 8 bits (by
        transforms, as long as a bound on their error proves it: past 10**9 pixels). Zeros where
        masks leave no pixel.

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
    >>> from fastkernel import normal_equations
    >>> image = np.random.default_rng(0).integers(0, 256, (50, 60), dtype=np.uint8)
    >>> halves = [normal_equations(part, part, 3) for part in (image[:26], image[24:])]
    >>> whole = normal_equations(image, image, 3)
    >>> bool(((halves[0] + halves[1]).gram == whole.gram).all())
    True

    Parts of one image that share one background, on a slope:

    >>> result = image + np.linspace(0, 9, 50)[:, None]
    >>> parts = [
    ...     normal_equations(
    ...         image[rows], result[rows], 3, background=1, within=((rows.start, 0), (48, 58))
    ...     )
    ...     for rows in (slice(0, 26), slice(24, 50))
    ... ]
    >>> fit = (parts[0] + parts[1]).solve()
    >>> bool(fit.residual_rms < 1e-5)
    True
    """
    shape, threads = as_kernel_shape(kernel_shape), as_workers(workers)
    rules = PixelRules(mask, source_mask, weights, saturation, nan_policy)
    problem = problem_of(source, result, shape, boundary, background, channel_axis, rules, within)
    pairs = problem.pairs()
    chosen = as_engine(engine, pairs)
    run = Run(threads, as_callback(callback))
    return gathered(pairs, shape, problem.background, run, chosen).equations(shape)
