"""Fits of a kernel that varies to images on a cluster: sums over tiles by tasks, the rest here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, Literal

import numpy as np
from dask.delayed import Delayed
from numpy.typing import ArrayLike

from fastkernel._images.pairs import Pair, held
from fastkernel._images.usable import PixelRules
from fastkernel._machine.run import Run
from fastkernel._machine.tiles import Tile
from fastkernel._typing import Background, Border, FloatArray, NanPolicy, Ridge, Saturation, Shape
from fastkernel.dask.cells import Cells, Edges, Rect
from fastkernel.dask.equations import Way, as_way
from fastkernel.dask.estimate import INSTEAD
from fastkernel.dask.graph import summed, tasks_of
from fastkernel.dask.pairs import ClusterPair, Pixels, as_pair
from fastkernel.dask.reading import View
from fastkernel.estimation.fields.correction import PairReader
from fastkernel.estimation.fields.estimate_kernel_field import (
    as_degree_of,
    as_frame,
    as_tile,
    asked_of,
    solved_field,
)
from fastkernel.estimation.fields.field_equations import Asked
from fastkernel.estimation.fields.field_sums import (
    FieldSums,
    field_sums,
    tile_edges,
    tiles_within,
)
from fastkernel.estimation.fields.kernel_field import KernelField
from fastkernel.estimation.fields.whole_sums import sums_are_whole, whole_sums
from fastkernel.estimation.methods.lstsq import Options
from fastkernel.estimation.problem import problem_of


def estimate_kernel_field(
    source: Any,
    result: Any,
    kernel_shape: Shape | int,
    *,
    degree: int = 2,
    grid: Shape | int | None = None,
    scale_degree: int = 0,
    tile: int = 64,
    boundary: Border | None = None,
    background: Background | None = None,
    ridge: Ridge = 0.0,
    basis: ArrayLike | None = None,
    weights: Any = None,
    mask: Any = None,
    source_mask: Any = None,
    saturation: Saturation | None = None,
    nan_policy: NanPolicy = "raise",
    source_variance: None = None,
    sigma_clip: None = None,
    batch: int | Literal["auto"] = "auto",
    split_every: int = 8,
    workers: int = 1,
) -> KernelField:
    r"""Estimate the kernel that turns one image on a cluster into another where it varies.

    Parameters
    ----------
    source, result, kernel_shape, boundary, background : as in `normal_equations`
    degree, grid, scale_degree, tile, ridge, basis : optional
        As in `fastkernel.estimate_kernel_field`. Tiles are those of one machine: what a task
        takes follows them, not chunks.
    weights, mask, source_mask, saturation, nan_policy : optional
        As in `normal_equations`; ``saturation=None`` leaves nothing out.
    source_variance, sigma_clip : None
        Not for images on a cluster.
    batch, split_every, workers : optional
        As in `normal_equations`.

    Returns
    -------
    KernelField
        As of one machine, solved where this is called. ``used`` is None: a mask of a large image
        would be as large.

    Raises
    ------
    SingularFitError
        If the images do not determine the coefficients.
    TypeError, ValueError
        As `normal_equations` and `fastkernel.estimate_kernel_field` do; if ``source_variance`` or
        ``sigma_clip`` is given.

    Notes
    -----
    Where polynomials are fitted and nothing is said of single pixels, these are read once, and
    again only where no noise hides the rounding of the sums.

    Otherwise they are read once for the sums over tiles, and those of at most 48 tiles again, which
    tell how much the tiles bias the field. Only where noise would not hide that are all pixels
    read again, once for every pass of conjugate gradients: a few times for images with noise, some
    dozens of times for images without, whose exact field is then found as on one machine. Smaller
    tiles need fewer passes; arrays of Dask that are costly to compute had better be persisted.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> image = np.random.default_rng(0).standard_normal((120, 120))
    >>> slope = np.linspace(0, 1, 118)
    >>> made = (1 - slope) * image[1:-1, 1:-1] + slope * image[1:-1, :-2]
    >>> source, result = da.from_array(image, chunks=50), da.from_array(made, chunks=40)
    >>> field = estimate_kernel_field(source, result, 3, degree=1, tile=16)
    >>> field.kernel_at(60, 117)[1].round(6) + 0.0
    array([0., 0., 1.])
    """
    for name, value in (("source_variance", source_variance), ("sigma_clip", sigma_clip)):
        if value is not None:
            instead = f"{INSTEAD}.estimate_kernel_field there"
            msg = f"{name}={value!r} is not for images on a cluster; leave it out, or {instead}"
            raise ValueError(msg)
    rules = PixelRules(mask, source_mask, weights, saturation, nan_policy)
    side = as_tile(tile)
    pair = as_pair(source, result, kernel_shape, boundary, rules)
    way = as_way(pair, background, "auto", batch, split_every, workers)
    options = Options(ridge=ridge, basis=basis)
    options.refuse_shape(pair.kernel_shape)
    frame = as_frame(pair.result.shape, degree, grid)
    scale = as_degree_of(scale_degree, "scale_degree")
    asked = asked_of(pair.kernel_shape, way.background, frame, scale, options, side)
    reader = ClusterReader(pair, asked, way)
    field = solved_field(reader.sums(), reader, pair.source.shape)
    return replace(field, scale_degree=scale, boundary=pair.boundary)


class ClusterReader:
    """Sums over the tiles of a pair on a cluster, and passes over its pixels.

    Parameters
    ----------
    pair : ClusterPair
        The images.
    asked : Asked
        What is fitted.
    way : Way
        How sums are taken.
    """

    def __init__(self, pair: ClusterPair, asked: Asked, way: Way) -> None:
        self.pair, self.asked, self.way = pair, asked, way
        self.window_shape = pair.window.shape
        self._edges = tile_edges(self.window_shape, asked.tile)
        unknowns, terms = asked.unknowns.beside + 1, asked.frame.terms
        m = len(asked.unknowns.turn) + unknowns
        self._cells = pair.cells(way.batch, 4 * terms * (terms + 1) * m * m, self._edges)

    def sums(self) -> FieldSums:
        """Return the sums over all tiles."""
        # What is masked inside chunks alone is seen by the tasks that read them.
        plain = self.pair.rules == {"saturation": None, "nan_policy": "raise"}
        work = _Summing(*self._shared(), plain and self.pair.images.keys() <= {"source", "result"})
        found: FieldSums = self._summed("field", work, _beside).compute()
        if found.places is None or not np.isfinite(found.places).any():
            return found._replace(places=None)
        places = np.empty_like(found.places)
        places[_order(self._cells, self._edges)] = found.places
        return found._replace(places=places)

    def left(self, unknowns: FloatArray, *, alone: bool) -> tuple[FloatArray, float]:
        """Return the scores of what coefficients leave, and its energy; ``alone`` of no result."""
        work = _Leaving(*self._shared(), unknowns, alone)
        found: tuple[FloatArray, float] = self._summed("field-pass", work, _plus).compute()
        return found

    def courses(
        self, unknowns: FloatArray, tiles: Sequence[Tile], places: FloatArray
    ) -> FloatArray:
        """Return what the course of the functions inside tiles takes off the scores of each."""
        work = _Looking(*self._shared(), unknowns, tuple(tiles), places)
        starts = [[line[0] for line in lines] for lines in self._cells]
        some = {
            tuple(
                int(np.searchsorted(line, start, side="right")) - 1
                for line, start in zip(starts, tile[:2], strict=True)
            )
            for tile in tiles
        }
        found = self._summed("field-bias", work, _joined, sorted(some)).compute()
        return np.array([found[tile] for tile in tiles])

    def _shared(self) -> tuple[Asked, Shape, Shape, dict[str, Any], int]:
        window = self.pair.window
        return self.asked, window.shape, window.result_origin, self.pair.rules, self.way.workers

    def _summed(self, label: str, work: Any, plus: Any, some: Any = None) -> Delayed:
        tasks = tasks_of(label, self.pair.readings(), self._cells, work)
        return summed(tasks, plus, self.way.split_every, some)


def _order(cells: Cells, edges: Edges) -> Any:
    """Return the numbers of tiles, in the order in which tasks see them."""
    rows, cols = edges
    number = np.arange((len(rows) - 1) * (len(cols) - 1)).reshape(len(rows) - 1, -1)
    found = []
    for down in cells.rows:
        for across in cells.cols:
            lines = np.searchsorted(rows, down), np.searchsorted(cols, across)
            found += [
                number[top:bottom, left:right].ravel()
                for top, bottom in zip(lines[0], lines[0][1:], strict=False)
                for left, right in zip(lines[1], lines[1][1:], strict=False)
            ]
    return np.concatenate(found)


def _beside(*sums: FieldSums) -> FieldSums:
    return reduce(FieldSums.beside, sums)


def _plus(*found: tuple[FloatArray, float]) -> tuple[FloatArray, float]:
    scores, energies = zip(*found, strict=True)
    return reduce(add, scores), reduce(add, energies)


def _joined(*found: dict[Tile, FloatArray]) -> dict[Tile, FloatArray]:
    return {tile: course for part in found for tile, course in part.items()}


@dataclass(frozen=True)
class _Work:
    """What tasks share: what is fitted, and where in the whole."""

    asked: Asked
    window_shape: Shape
    result_origin: Shape
    rules: dict[str, Any]
    workers: int

    def _pair(self, pixels: Pixels, rect: Rect) -> Pair:
        """Return a part of the pair."""
        images = pixels["source"].pixels, pixels["result"].pixels
        rules = PixelRules(**self.rules, **pixels.options())
        within = (rect[0], rect[1]), self.window_shape
        problem = problem_of(*images, self.asked.kernel_shape, None, None, None, rules, within)
        return held(problem.pairs())[0]

    def _first(self, rect: Rect) -> Shape:
        return self.result_origin[0] + rect[0], self.result_origin[1] + rect[1]

    def _reader(self, views: list[View], rect: Rect) -> PairReader:
        pair = self._pair(Pixels(views, rect), rect)
        return PairReader(pair, self.asked, Run(self.workers), self._first(rect))


@dataclass(frozen=True)
class _Summing(_Work):
    """What a task does that sums over all pixels, of tiles or of parts that need none."""

    alike: bool

    def __call__(self, views: list[View], parts: Sequence[Rect]) -> FieldSums:
        return _beside(*(self._of(Pixels(views, rect), rect) for rect in parts))

    def _of(self, pixels: Pixels, rect: Rect) -> FieldSums:
        asked, run, first = self.asked, Run(self.workers), self._first(rect)
        shape, frame, tile, degree = asked.kernel_shape, asked.frame, asked.tile, asked.background
        try:
            pair = self._pair(pixels, rect)
            if self.alike and sums_are_whole(pair, shape, frame, degree):
                sums = whole_sums(pair, shape, frame, degree, run, first)
                unknown = len(tiles_within(pair.within, pair.window.shape, tile)), 2
                return sums._replace(places=np.full(unknown, np.nan))
            return field_sums(pair, shape, frame, tile, degree, run, first=first)
        except ValueError:
            pixels.refuse_unusable()
            raise


@dataclass(frozen=True)
class _Leaving(_Work):
    """What a task of a pass does."""

    unknowns: FloatArray
    alone: bool

    def __call__(self, views: list[View], parts: Sequence[Rect]) -> tuple[FloatArray, float]:
        readers = (self._reader(views, rect) for rect in parts)
        return _plus(*(reader.left(self.unknowns, alone=self.alone) for reader in readers))


@dataclass(frozen=True)
class _Looking(_Work):
    """What a task does that looks at some tiles."""

    unknowns: FloatArray
    tiles: tuple[Tile, ...]
    places: FloatArray

    def __call__(self, views: list[View], parts: Sequence[Rect]) -> dict[Tile, FloatArray]:
        (top, left, *_), (row, col, height, width) = parts[0], parts[-1]
        found = {}
        for tile, place in zip(self.tiles, self.places, strict=True):
            if top <= tile[0] < row + height and left <= tile[1] < col + width:
                one: Tile = (0, 0, tile[2], tile[3])
                reader = self._reader(views, tile)
                found[tile] = reader.courses(self.unknowns, [one], place[None])[0]
        return found
