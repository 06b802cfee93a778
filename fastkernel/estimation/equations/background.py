r"""A smooth background fitted beside the kernel, and eliminated before the kernel is solved for.

With the polynomials' values as further columns :math:`\Phi` of the design matrix ``X``, the
normal equations of both are

.. math:: \begin{pmatrix} H & C \\ C^T & B \end{pmatrix} \begin{pmatrix} k \\ b \end{pmatrix}
          = \begin{pmatrix} r \\ s \end{pmatrix}, \qquad
          C = X^T \Phi,\; B = \Phi^T \Phi,\; s = \Phi^T y .

Without ``b`` they are equations of the same form as those of a kernel alone [1]_, so every
solver works on them unchanged, and those of images with backgrounds of their own add up.

References
----------
.. [1] G. H. Golub and V. Pereyra, "The differentiation of pseudo-inverses and nonlinear least
   squares problems whose variables separate", SIAM J. Numer. Anal. 10 (1973) 413-432.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial.legendre import legvander
from scipy import linalg

from fastkernel._images.borders import load
from fastkernel._images.lazy import LazyImage, read
from fastkernel._images.pairs import Pair, refuse_unusable
from fastkernel._loops import moments
from fastkernel._machine.tiles import Scratch, Tile, Tiles, run_jobs, shares
from fastkernel._typing import AnyArray, Boundary, FloatArray, Shape
from fastkernel.errors import SingularFitError
from fastkernel.estimation.equations import gathering_engines as engines
from fastkernel.estimation.equations.normal_equations import NormalEquations
from fastkernel.estimation.equations.sweeps import BLOCK_SHAPE
from fastkernel.estimation.polynomial import polynomial_image, scaled, values_of
from fastkernel.estimation.solvers.direct import factorise

_EPS = float(np.finfo(np.float64).eps)

# Pixels below which threads cost more than they save.
THREADED_PIXELS = 1_000_000

# Share of a source's energy below which what a background leaves of it is rounding.
_ROUNDING = 64 * _EPS


def terms_of(degree: int) -> tuple[list[int], list[int]]:
    """Return the degrees along rows and along columns of the terms of one total degree."""
    pairs = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    return [i for i, _ in pairs], [j for _, j in pairs]


@dataclass(frozen=True, slots=True)
class _Axis:
    """The polynomials along one axis, at every shift of a window over a virtual source.

    The pixels that the window covers at every shift, the core, need to be summed at one shift
    alone: a shifted polynomial is a sum of those that are not. The other pixels, ``k - 1`` at
    either end, are kept one by one.

    Attributes
    ----------
    weights : (degree + 1, n + k - 1) float64 array
        Legendre polynomials over the core, 0 elsewhere.
    places : (n + k - 1,) intp array
        Which feature a pixel beyond the core is, -1 in the core.
    mix : (features, k, degree + 1) float64 array
        What every feature, sums over the core first, adds to the sums at every shift.
    """

    weights: FloatArray
    places: AnyArray
    mix: FloatArray


def _axis(n: int, k: int, degree: int) -> _Axis:
    """Return the polynomials of an axis of ``n`` outputs and ``k`` taps."""
    length, first, last = n + k - 1, k - 1, max(n, k - 1)
    place = np.arange(float(length))
    core = (place >= first) & (place < last)
    weights = np.where(core[:, None], legvander(scaled(place, n), degree), 0.0).T
    nodes = np.linspace(-1.0, 1.0, degree + 1) if degree else np.zeros(1)
    shifts = 2.0 * np.arange(k) / max(n - 1, 1)
    shifted = legvander(nodes[:, None] - shifts, degree)
    within = np.linalg.solve(
        legvander(nodes, degree), shifted.reshape(degree + 1, k * (degree + 1))
    ).reshape(degree + 1, k, degree + 1)
    rim = np.flatnonzero(~core)
    offset = place[rim, None] - np.arange(k)
    beyond = legvander(scaled(offset, n), degree)
    beyond[(offset < 0) | (offset >= n)] = 0
    places = np.full(length, -1)
    places[rim] = degree + 1 + np.arange(rim.size)
    return _Axis(np.ascontiguousarray(weights), places, np.concatenate([within, beyond]))


def _add_features(
    pixels: FloatArray, top: int, left: int, axes: tuple[_Axis, _Axis], out: FloatArray
) -> None:
    """Add what a tile of the virtual source holds of every pair of features to ``out``."""
    (height, width), (rows, cols) = pixels.shape, axes
    n = len(rows.weights)
    beyond = np.flatnonzero(cols.places[left : left + width] >= 0)
    across = np.zeros((height, n))
    weights = np.ascontiguousarray(cols.weights[:, left : left + width])
    moments.add_row_sums(pixels, width, weights, across)
    features = np.concatenate([across, pixels[:, beyond]], axis=1)
    number = np.concatenate([np.arange(n), cols.places[left + beyond]])
    down = np.zeros((len(number), n))
    weights = np.ascontiguousarray(rows.weights[:, top : top + height])
    moments.add_row_sums(np.ascontiguousarray(features.T), height, weights, down)
    out[:n, number] += down.T
    beyond = np.flatnonzero(rows.places[top : top + height] >= 0)
    out[np.ix_(rows.places[top + beyond], number)] += features[beyond]


@dataclass(frozen=True, slots=True)
class _FeatureJob:
    """Some tiles of a virtual image.

    Attributes
    ----------
    image, origin, boundary
        What is read, where it begins in ``image`` and what stands beyond.
    tiles : sequence of tiles
        Parts of what is read.
    place : (int, int)
        Where it begins in the virtual source.
    axes : (_Axis, _Axis)
        Rows and columns.
    """

    image: AnyArray
    origin: Shape
    boundary: Boundary
    tiles: Sequence[Tile]
    place: Shape
    axes: tuple[_Axis, _Axis]

    def __call__(self, scratch: Scratch, stopped: Callable[[], bool]) -> FloatArray:
        out = np.zeros((len(self.axes[0].mix), len(self.axes[1].mix)))
        for top, left, height, width in self.tiles:
            if stopped():
                break
            pixels = scratch.array("pixels", (height, width))
            load(self.image, (self.origin[0] + top, self.origin[1] + left), self.boundary, pixels)
            _add_features(pixels, self.place[0] + top, self.place[1] + left, self.axes, out)
        return out


def _blocks(
    image: AnyArray, origin: Shape, shape: Shape, boundary: Boundary
) -> Iterator[tuple[AnyArray, Shape, Boundary, Tile]]:
    """Yield an image whole, or block by block where it is read by slices."""
    if not isinstance(image, LazyImage):
        yield image, origin, boundary, (0, 0, *shape)
        return
    for tile in Tiles(shape, BLOCK_SHAPE):
        top, left, *size = tile
        place = origin[0] + top, origin[1] + left
        yield read(image, place, (size[0], size[1]), boundary), (0, 0), "zero", tile


def _polynomial_sums(
    image: AnyArray,
    origin: Shape,
    window_shape: Shape,
    kernel_shape: Shape,
    boundary: Boundary,
    degree: int,
    workers: int,
) -> FloatArray:
    """Return the sums over a window at every shift, (p, q, degree + 1, degree + 1)."""
    (p, q), n = kernel_shape, degree + 1
    rows, cols = (_axis(*line, degree) for line in zip(window_shape, kernel_shape, strict=True))
    total = np.zeros((len(rows.mix), len(cols.mix)))
    shape = window_shape[0] + p - 1, window_shape[1] + q - 1
    for part, start, rule, (top, left, height, width) in _blocks(image, origin, shape, boundary):
        tiles = Tiles((height, width), engines.direct_tile_shape("float", width))
        jobs = [
            _FeatureJob(part, start, rule, tiles_of_job, (top, left), (rows, cols))
            for tiles_of_job in shares(tiles, engines.MAX_JOBS)
        ]
        threads = workers if height * width > THREADED_PIXELS else 1
        for found in run_jobs(jobs, Scratch, threads):
            total += found
    with np.errstate(over="ignore", invalid="ignore"):
        down = rows.mix.reshape(len(rows.mix), -1).T @ total
        both = down @ cols.mix.reshape(len(cols.mix), -1)
    return both.reshape(p, n, q, n).transpose(0, 2, 1, 3)


@dataclass(frozen=True, slots=True, eq=False)
class BackgroundSums:
    r"""All that a fit needs to know of a pair to fit a background with its kernel.

    The basis is :math:`\phi_{ij} = P_i(\rho) P_j(\gamma)` with Legendre polynomials ``P`` and
    :math:`i + j` up to the degree; :math:`\rho` and :math:`\gamma` go from -1 at the first to 1 at
    the last row and column of the fitted pixels (0 where there is one).

    Attributes
    ----------
    degree : int
        Total degree of the polynomial.
    products : (p * q, terms) float64 array
        ``X.T @ phi`` in source units, taps in C order of the kernel.
    gram : (terms, terms) float64 array
        ``phi.T @ phi``.
    moments : (terms,) float64 array
        ``phi.T @ y`` in result units.
    """

    degree: int
    products: FloatArray
    gram: FloatArray
    moments: FloatArray

    @property
    def terms(self) -> int:
        """Number of coefficients."""
        return len(self.moments)

    def plus(self, other: "BackgroundSums", sign: int) -> "BackgroundSums":
        """Return the sums over this one's pixels and another's, or (-1) less those."""
        return BackgroundSums(
            self.degree,
            self.products + sign * other.products,
            self.gram + sign * other.gram,
            self.moments + sign * other.moments,
        )

    def solve(self, moments: FloatArray) -> FloatArray:
        """Return the coefficients ``b`` with ``gram @ b = moments``, one column each."""
        return np.asarray(linalg.solve(self.gram, moments, assume_a="pos", check_finite=False))


def background_sums(
    pair: Pair, kernel_shape: Shape, degree: int, workers: int = 1
) -> BackgroundSums:
    """Gather the sums of a pair with the polynomials of a background.

    Parameters
    ----------
    pair : Pair
        Source, result, and which of their pixels belong together.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    degree : int
        Total degree, from 0 (a constant) to 4.
    workers : int, optional
        Threads to use. The answer is the same bit for bit.

    Returns
    -------
    BackgroundSums
        A constant's of integer images are exact while they are below 2**53.

    Raises
    ------
    ValueError
        If the window has fewer rows or columns than ``degree + 1``, or a pixel that is used is
        not finite.

    Notes
    -----
    Both images are read once, at ``degree + 1`` multiply-adds a pixel, whatever the kernel.
    """
    source, result, window, *_ = pair
    if min(window.shape) <= degree:
        msg = (
            f"background of degree {degree} needs at least {degree + 1} rows and columns of "
            f"fitted pixels, got {window.shape}; lower the degree"
        )
        raise ValueError(msg)
    i, j = terms_of(degree)
    products, answer = (
        _polynomial_sums(image, origin, window.shape, shape, window.boundary, degree, workers)
        for image, origin, shape in (
            (source, window.source_origin, kernel_shape),
            (result, window.result_origin, (1, 1)),
        )
    )
    # A shift by (u, v) belongs to the tap that a convolution flips onto it.
    by_tap = products[::-1, ::-1, i, j].reshape(-1, len(i)).copy()
    phi_rows, phi_cols = (values_of(n, degree) for n in window.shape)
    gram = (phi_rows.T @ phi_rows)[np.ix_(i, i)] * (phi_cols.T @ phi_cols)[np.ix_(j, j)]
    found = answer[0, 0, i, j]
    refuse_unusable([pair], by_tap, found, 0.0)
    return BackgroundSums(degree, by_tap, gram, found)


def eliminate(equations: NormalEquations, backgrounds: Sequence[BackgroundSums]) -> NormalEquations:
    r"""Return the equations of the kernel alone, each pair's best background taken for granted.

    Parameters
    ----------
    equations : NormalEquations
        Of all pairs together, without backgrounds.
    backgrounds : sequence of BackgroundSums
        One a pair.

    Returns
    -------
    NormalEquations
        :math:`H - C B^{-1} C^T`, :math:`r - C B^{-1} s` and :math:`e - s^T B^{-1} s`. The Gram
        matrix is zero where what is left of it is rounding: the sources are then backgrounds
        themselves.
    """
    gram, right, energy = equations.gram.copy(), equations.moments.copy(), equations.energy
    for sums in backgrounds:
        lower = _factor(sums)
        columns = np.column_stack([sums.products.T, sums.moments])
        white = linalg.solve_triangular(lower, columns, lower=True, check_finite=False)
        taps, answer = white[:, :-1], white[:, -1]
        gram -= taps.T @ taps
        right -= answer @ taps
        energy -= float(answer @ answer)
    if np.trace(gram) <= _ROUNDING * np.trace(equations.gram):
        gram[:] = 0
    energy = max(energy, 0.0)
    return replace(
        equations,
        gram=gram,
        moments=right,
        energy=energy,
        background_terms=equations.background_terms + sum(sums.terms for sums in backgrounds),
        background_energy=equations.background_energy + (equations.energy - energy),
    )


def _factor(sums: BackgroundSums) -> FloatArray:
    """Return the Cholesky factor of a background's own equations, or say why there is none."""
    try:
        return factorise(sums.gram).lower
    except SingularFitError:
        msg = (
            f"the images do not determine a background of degree {sums.degree}: too few pixels are "
            "fitted, once those that are masked are left out. What helps: a lower degree, or more "
            "pixels in different rows and columns"
        )
        raise SingularFitError(msg) from None


def coefficients_of(sums: BackgroundSums, kernel: FloatArray) -> FloatArray:
    """Return the coefficients of a pair's best background beside a kernel, one a term."""
    return sums.solve(sums.moments - kernel.ravel() @ sums.products)


def as_background(sums: BackgroundSums, coefficients: FloatArray) -> float | FloatArray:
    """Return coefficients as a number for a constant, else as a matrix by degree."""
    if sums.degree == 0:
        return float(coefficients[0])
    out = np.zeros((sums.degree + 1, sums.degree + 1))
    out[terms_of(sums.degree)] = coefficients
    return out


def background_of(sums: BackgroundSums, kernel: FloatArray) -> float | FloatArray:
    r"""Return a pair's best background beside a kernel.

    Parameters
    ----------
    sums : BackgroundSums
        Of the pair.
    kernel : (p, q) float64 array
        The kernel, in result units per source unit.

    Returns
    -------
    float or (degree + 1, degree + 1) float64 array
        The constant; or the coefficients, in result units, of :math:`P_i(\rho) P_j(\gamma)`, 0
        where ``i + j`` is more than the degree (see `BackgroundSums`). `background_image`
        evaluates them over the fitted pixels, `polynomial_image` anywhere.
    """
    return as_background(sums, coefficients_of(sums, kernel))


def background_image(background: float | FloatArray, window_shape: Shape) -> FloatArray:
    """Return the pixels of a background over the fitted pixels.

    Parameters
    ----------
    background : float or (n, n) float64 array
        As `background_of` returns it.
    window_shape : (int, int)
        Rows and columns of the fitted pixels.

    Returns
    -------
    `window_shape` float64 array
        In result units.

    Examples
    --------
    >>> background_image(np.array([[5.0, 1.0], [2.0, 0.0]]), (2, 3))
    array([[2., 3., 4.],
           [6., 7., 8.]])
    """
    return polynomial_image(background, window_shape, (0, 0), window_shape)
