"""What a residual tells: whether it has a shape of its own, and how much there is of it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastkernel._machine.tiles import split
from fastkernel._typing import AnyArray, BoolArray, FloatArray

# Rows that are looked at at a time, and pixels: with all that is made of them some 40 MiB.
_STRIP_ROWS, _STRIP_PIXELS = 256, 1 << 18

# Magnitude below which a place is taken for flat, where rounding has nothing to take away; and
# the same as a share of the level: taps whose sum is not quite known leave so much.
_FLAT, FLAT_SHARE = 0.02, 2e-6

_SIDE = 8

# Tiles whose ranks are compared, at most, of images of any size: what is made of them takes 80
# bytes each, and the correlation is known to 0.004.
_MOST_TILES = 1 << 17

_LAGS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))


class Plane(NamedTuple):
    """Pixels that were compared: one channel, or a part of one.

    Attributes
    ----------
    residual : (rows, cols) float64 array
        Result less prediction, in result units.
    source, result : (rows, cols) arrays
        The source under the kernel's centre tap, and the result.
    used : (rows, cols) bool array, optional
        Which pixels count; None for all.
    """

    residual: FloatArray
    source: AnyArray
    result: AnyArray
    used: BoolArray | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a residual tells, in result units where it has any.

    Attributes
    ----------
    n_pixels : int
        Compared pixels.
    rms : float
        Root mean square; of a robust fit, from the median of the magnitudes.
    largest : float
        Largest magnitude, clipped pixels left out.
    change : float
        Root mean square of result less source, about its mean: what the filter did.
    contrast : float
        Standard deviation of the result.
    neighbours : float
        Largest correlation of the residual with itself one or two pixels away.
    detail : float
        Rank correlation of its energy with that of the source's gradient, over tiles of 8x8.
    whole_levels : bool
        Whether the result holds whole numbers.
    rounding, n_rounded : float and int
        Root mean square of the residuals beyond 0.02, and how many these are.
    clipped : float
        Share of the pixels at either end of the levels that the result can hold.
    mean : float
        Mean of the residual.
    """

    n_pixels: int
    rms: float
    largest: float
    change: float
    contrast: float
    neighbours: float
    detail: float
    whole_levels: bool
    rounding: float
    n_rounded: int
    clipped: float = 0.0
    mean: float = 0.0

    @property
    def unexplained(self) -> float:
        """Residual over change; 0 where there is neither."""
        return self.rms / self.change if self.change > 0 else float(self.rms > 0)

    @property
    def misfit(self) -> float:
        """Residual over contrast; 0 where there is neither."""
        return self.rms / self.contrast if self.contrast > 0 else float(self.rms > 0)


def strip_rows(width: int) -> int:
    """Return how many rows of an image of some width are looked at at a time: whole tiles."""
    return max(2 * _SIDE, min(_STRIP_ROWS, _STRIP_PIXELS // width // _SIDE * _SIDE))


def facts_of(
    planes: Iterable[Plane], *, limits: tuple[float, float] | None = None, robust: bool = False
) -> Facts:
    """Return what a residual tells.

    Parameters
    ----------
    planes : iterable of Plane
        Read one after the other, some rows at a time.
    limits : (float, float), optional
        The lowest and the highest level that the result can hold: pixels there may be clipped.
    robust : bool, optional
        Whether a minority of pixels may be wrong: they then count for little.

    Returns
    -------
    Facts
        Over all planes.

    Notes
    -----
    A pass over the pixels, some twenty operations each.
    """
    sums = _Sums(limits)
    for plane in planes:
        bound = math.inf
        if robust:
            sums.scales.append(_robust_scale(plane))
            bound = 3 * sums.scales[-1]
        for top, bottom in split(plane.residual.shape[0], strip_rows(plane.residual.shape[1])):
            residual, source, result = (part[top:bottom] for part in plane[:3])
            used = None if plane.used is None else plane.used[top:bottom]
            sums.add(Plane(residual, source, result, used), bound)
    return sums.facts()


def _robust_scale(plane: Plane) -> float:
    """Return the standard deviation of the normal distribution of the same median magnitude."""
    sizes = np.abs(plane.residual if plane.used is None else plane.residual[plane.used])
    return 1.4826 * float(np.median(sizes)) if sizes.size else 0.0


class _Sums:
    """What strips add up to."""

    def __init__(self, limits: tuple[float, float] | None) -> None:
        self._limits = limits
        self.scales: list[float] = []
        self._n = self._clipped = 0
        self._whole, self._largest = True, 0.0
        self._n_rounded, self._rounded = 0, 0.0
        # Of the residual, the result and what the filter changed: sums, and sums of squares.
        self._first, self._second = np.zeros(3), np.zeros(3)
        self._products, self._counts = np.zeros(len(_LAGS)), np.zeros(len(_LAGS))
        # Energies of tiles and their gradients, of one in so many of those that were seen.
        self._tiles: list[FloatArray] = []
        self._one_in, self._seen, self._kept = 1, 0, 0

    def add(self, strip: Plane, bound: float) -> None:
        """Add a strip, its residual held to a bound."""
        residual, source, result = (np.asarray(part, np.float64) for part in strip[:3])
        used = strip.used
        if used is not None:
            # What stands at the others has no part in any sum, not even where it is no number.
            residual, result = (np.where(used, part, 0.0) for part in (residual, result))
        inside = np.ones(result.shape, np.bool_) if used is None else used.copy()
        n_pixels = int(np.count_nonzero(inside))
        if self._limits is not None:
            inside &= (result > self._limits[0]) & (result < self._limits[1])
        self._n += n_pixels
        self._clipped += n_pixels - int(np.count_nonzero(inside))
        self._whole &= bool((result == np.rint(result)).all())
        held = residual.clip(-bound, bound)
        beyond = held[np.abs(held) > np.maximum(_FLAT, FLAT_SHARE * np.abs(result))]
        self._n_rounded += beyond.size
        self._rounded += float(np.vdot(beyond, beyond))
        self._largest = max(self._largest, float(np.abs(held[inside]).max(initial=0)))
        change = result - source if used is None else np.where(used, result - source, 0.0)
        for i, values in enumerate((held, result, change)):
            self._first[i] += values.sum()
            self._second[i] += np.vdot(values, values)
        self._add_lags(held, used)
        if min(source.shape) >= 2 * _SIDE:
            across, up = np.gradient(source)
            self._add_tiles(held**2, np.asarray(across**2 + up**2), used)

    def _add_lags(self, held: FloatArray, used: BoolArray | None) -> None:
        rows, cols = held.shape
        for i, (down, right) in enumerate(_LAGS):
            if rows > down and cols > right:
                first, second = np.s_[: rows - down, : cols - right], np.s_[down:, right:]
                a, b = held[first], held[second]
                self._products[i] += np.sum(a * b)
                both = None if used is None else used[first] & used[second]
                self._counts[i] += a.size if both is None else np.count_nonzero(both)

    def _add_tiles(self, energy: FloatArray, gradient: FloatArray, used: BoolArray | None) -> None:
        energies, gradients = _tile_means(energy), _tile_means(gradient)
        if used is not None:
            shares = _tile_means(used.astype(np.float64))
            most = shares > 0.5
            energies = energies[most] / shares[most]
            gradients = _tile_means(np.where(used, gradient, 0.0))[most] / shares[most]
        first = -self._seen % self._one_in
        self._seen += len(energies)
        self._tiles.append(np.stack([energies, gradients])[:, first :: self._one_in])
        self._kept += self._tiles[-1].shape[1]
        while self._kept > _MOST_TILES:
            self._tiles = [np.concatenate(self._tiles, axis=1)[:, ::2].copy()]
            self._one_in, self._kept = 2 * self._one_in, self._tiles[0].shape[1]

    def facts(self) -> Facts:
        """Return the facts of all that was added."""
        n = max(self._n, 1)
        means, squares = self._first / n, self._second / n
        variances = np.maximum(squares - means**2, 0.0)
        neighbours = 0.0
        if squares[0] > 0:
            lagged = self._products / np.maximum(self._counts, 1)
            neighbours = float(np.abs(lagged / squares[0]).max())
        rms = math.sqrt(squares[0])
        if self.scales:
            rms = math.sqrt(float(np.mean(np.square(self.scales))))
        return Facts(
            n_pixels=self._n,
            rms=rms,
            largest=self._largest,
            change=math.sqrt(variances[2]),
            contrast=math.sqrt(variances[1]),
            neighbours=neighbours,
            detail=_rank_correlation(*np.concatenate([np.empty((2, 0)), *self._tiles], axis=1)),
            whole_levels=self._whole,
            rounding=math.sqrt(self._rounded / max(self._n_rounded, 1)),
            n_rounded=self._n_rounded,
            clipped=self._clipped / n,
            mean=float(means[0]),
        )


def _tile_means(values: FloatArray) -> FloatArray:
    rows, cols = (n // _SIDE for n in values.shape)
    tiles = values[: rows * _SIDE, : cols * _SIDE].reshape(rows, _SIDE, cols, _SIDE)
    return np.asarray(tiles.mean(axis=(1, 3)).ravel())


def _rank_correlation(one: FloatArray, other: FloatArray) -> float:
    """Return Spearman's correlation; 0 where there is nothing to compare."""
    if not one.size:
        return 0.0
    ranks = [rank - rank.mean() for rank in map(_ranks, (one, other))]
    sizes = math.sqrt(float(np.vdot(ranks[0], ranks[0]) * np.vdot(ranks[1], ranks[1])))
    return float(np.vdot(*ranks)) / sizes if sizes > 0 else 0.0


def _ranks(values: FloatArray) -> FloatArray:
    """Return ranks, their mean where values are equal.

    Examples
    --------
    >>> _ranks(np.array([5.0, 1.0, 5.0, 2.0])).tolist()
    [3.5, 1.0, 3.5, 2.0]
    """
    # scipy.stats has this too, but takes longer to import than a fit takes.
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[places])
