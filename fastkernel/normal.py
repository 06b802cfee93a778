"""Normal equations of a kernel fit: a value that adds, crops, keeps and solves."""

import math
import zipfile
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Self

import numpy as np

from fastkernel._checks import as_boundary, as_kernel_shape, as_pairs, as_penalty, as_workers
from fastkernel._cost import ENGINES, is_narrow
from fastkernel._typing import FloatArray, Images, Progress, Shape
from fastkernel._windows import window_of_pair
from fastkernel.engines import Pair
from fastkernel.fit import KernelFit
from fastkernel.gather import gather
from fastkernel.solvers import factorise, refuse_too_few

_EPS = float(np.finfo(np.float64).eps)
_FIELDS = ("gram", "moments", "energy", "n_pixels", "kernel_shape")


@dataclass(frozen=True, slots=True, eq=False)
class NormalEquations:
    """All that a least-squares fit of a kernel needs to know about its pixels.

    Tiles, images and machines join with ``+``. The size depends on the kernel, never on how many
    pixels were read.

    Attributes
    ----------
    gram : (p * q, p * q) float64 array
        ``X.T @ X`` in squared source units, taps in C order of the kernel.
    moments : (p * q,) float64 array
        ``X.T @ y`` in source times result units.
    energy : float
        ``y @ y`` in squared result units.
    n_pixels : int
        Rows of ``X``: result pixels.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    """

    gram: FloatArray
    moments: FloatArray
    energy: float
    n_pixels: int
    kernel_shape: Shape

    @classmethod
    def zero(cls, kernel_shape: Shape) -> Self:
        """Return the equations of no pixels, which change nothing when added."""
        shape = as_kernel_shape(kernel_shape)
        taps = math.prod(shape)
        return cls(np.zeros((taps, taps)), np.zeros(taps), 0.0, 0, shape)

    def __add__(self, other: Self) -> Self:
        if not isinstance(other, NormalEquations):
            return NotImplemented
        if other.kernel_shape != self.kernel_shape:
            msg = (
                f"cannot join the equations of kernels {self.kernel_shape} and "
                f"{other.kernel_shape}; crop the larger to the smaller"
            )
            raise ValueError(msg)
        return type(self)(
            self.gram + other.gram,
            self.moments + other.moments,
            self.energy + other.energy,
            self.n_pixels + other.n_pixels,
            self.kernel_shape,
        )

    def crop(self, kernel_shape: Shape) -> Self:
        """Return the equations of a smaller kernel over the same pixels.

        Parameters
        ----------
        kernel_shape : (int, int)
            No larger than this one's. The centre tap stays the centre tap.

        Returns
        -------
        NormalEquations
            A copy of the taps around the centre.

        Raises
        ------
        ValueError
            If ``kernel_shape`` is not two positive integers or does not fit inside.

        Examples
        --------
        >>> NormalEquations.zero((5, 7)).crop((3, 3)).gram.shape
        (9, 9)
        """
        p, q = as_kernel_shape(kernel_shape)
        rows, cols = self.kernel_shape
        if p > rows or q > cols:
            msg = f"kernel_shape must fit inside {self.kernel_shape}, got {(p, q)}"
            raise ValueError(msg)
        top, left = (rows - 1) // 2 - (p - 1) // 2, (cols - 1) // 2 - (q - 1) // 2
        taps = np.arange(rows * cols).reshape(rows, cols)[top : top + p, left : left + q].ravel()
        return type(self)(
            self.gram[np.ix_(taps, taps)], self.moments[taps], self.energy, self.n_pixels, (p, q)
        )

    def solve(self, *, ridge: float = 0.0) -> KernelFit:
        r"""Find the kernel that minimises the squared residual.

        Minimises :math:`\|X k - y\|^2 + \lambda n \|k\|^2` by Cholesky factorisation, where ``n``
        counts the pixels.

        Parameters
        ----------
        ridge : float, optional
            Penalty :math:`\lambda \ge 0`, in squared source units. 0 is plain least squares.

        Returns
        -------
        KernelFit
            With ``residual_rms`` seen down to 3e-8 of the result's root mean square.

        Raises
        ------
        SingularFitError
            If there are fewer pixels than taps, or the source does not tell the taps apart.
        TypeError, ValueError
            If ``ridge`` is not a finite number of at least 0.

        Notes
        -----
        Rounding reaches the taps at about ``condition_number * 1e-16`` of their size.
        """
        penalty = as_penalty(ridge, "ridge") * self.n_pixels
        if penalty == 0:
            refuse_too_few(self.n_pixels, len(self.moments))
        factor = factorise(self.gram, penalty)
        taps = factor.solve(self.moments)
        explained = 2 * (taps @ self.moments) - taps @ (self.gram @ taps)
        residual_energy = max(float(self.energy - explained), self.hidden_energy)
        return KernelFit(
            kernel=taps.reshape(self.kernel_shape),
            residual_rms=math.sqrt(residual_energy / self.n_pixels),
            condition_number=factor.condition_number,
            rank=len(taps),
            n_pixels=self.n_pixels,
            method="lstsq",
            solver="cholesky",
            equations=self,
            _factor=factor,
        )

    @property
    def hidden_energy(self) -> float:
        """Residual energy below which rounding of the sums hides it, in squared result units."""
        return 4 * _EPS * self.energy

    def save(self, path: str | PathLike[str]) -> None:
        """Write the equations to an .npz file, without pickle.

        Parameters
        ----------
        path : str or path-like
            The file; an existing one is replaced.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        with Path(path).open("wb") as file:
            np.savez(file, **{name: getattr(self, name) for name in _FIELDS}, allow_pickle=False)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read equations that `save` wrote.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        NormalEquations
            Equal to what was saved, bit for bit.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it does not hold normal equations.
        """
        try:
            with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                found = {name: file[name] for name in _FIELDS}
            shape = as_kernel_shape(tuple(found["kernel_shape"]))
            taps = shape[0] * shape[1]
            gram, moments = found["gram"], found["moments"]
            if gram.shape != (taps, taps) or moments.shape != (taps,):
                msg = f"arrays of shapes {gram.shape} and {moments.shape} for kernel {shape}"
                raise ValueError(msg)
            if gram.dtype != np.float64 or moments.dtype != np.float64:
                msg = f"arrays of {gram.dtype} and {moments.dtype}, not float64"
                raise ValueError(msg)
            return cls(gram, moments, float(found["energy"]), int(found["n_pixels"]), shape)
        except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as reason:
            msg = f"{str(path)!r} does not hold normal equations saved by fastkernel: {reason}"
            raise ValueError(msg) from reason


def matched_pairs(
    source: Images,
    result: Images,
    kernel_shape: Shape,
    boundary: str | None,
    channel_axis: int | None,
) -> list[Pair]:
    """Return the pairs of images with the window that their shapes tell."""
    rule = None if boundary is None else as_boundary(boundary)
    return [
        Pair(x, y, window_of_pair(x, y, kernel_shape, rule))
        for x, y in as_pairs(source, result, channel_axis)
    ]


def as_engine(engine: str, pairs: list[Pair]) -> str:
    """Return the engine, checked against what it can do."""
    if engine not in ("auto", *ENGINES):
        msg = f"engine must be 'auto', {', '.join(map(repr, ENGINES))}, got {engine!r}"
        raise ValueError(msg)
    wide = [p for p in pairs if not is_narrow(p.source, p.result)]
    if engine == "integer" and wide:
        dtypes = f"{wide[0].source.dtype} and {wide[0].result.dtype}"
        msg = f"engine='integer' needs images of at most 8 bits, got {dtypes}; use 'auto'"
        raise ValueError(msg)
    return engine


def equations_of(
    pairs: list[Pair],
    kernel_shape: Shape,
    workers: int,
    progress: Progress | None,
    engine: str,
) -> NormalEquations:
    """Return the equations of pairs that are known to be good."""
    n_pixels = sum(pair.window.n_pixels for pair in pairs)
    sums = gather(pairs, kernel_shape, workers, progress, engine)
    # A shift by (i, j) belongs to the tap that a convolution flips onto it.
    return NormalEquations(
        np.ascontiguousarray(sums.gram[::-1, ::-1]),
        sums.moments[::-1].copy(),
        sums.energy,
        n_pixels,
        kernel_shape,
    )


def normal_equations(
    source: Images,
    result: Images,
    kernel_shape: Shape,
    *,
    boundary: str | None = None,
    channel_axis: int | None = None,
    engine: str = "auto",
    workers: int | None = None,
    callback: Progress | None = None,
) -> NormalEquations:
    r"""Gather the normal equations of the kernel that turns one image into another.

    Parameters
    ----------
    source : (m, n) array_like of real numbers, or a sequence of them
        Source image, in any unit.
    result : array_like of real numbers, or a sequence of them
        Result image, in any unit, of shape (m, n) ("same"), (m - p + 1, n - q + 1) ("valid") or
        (m + p - 1, n + q - 1) ("full", zeros beyond the source's frame).
    kernel_shape : (int, int) or int
        Rows ``p`` and columns ``q`` of the kernel, in pixels.
    boundary : str, optional
        What the result's maker took to stand beyond the source's frame in a "same" pair: "zero",
        "circular", "replicate", "symmetric" (edge pixel repeated) or "mirror" (not repeated).
        None uses only the pixels that no rule can touch.
    channel_axis : int, optional
        The axis of 3-dimensional images that holds channels, which share the kernel.
    engine : {"auto", "integer", "float", "fft"}, optional
        How to sum: by int16 loops (images of at most 8 bits), by float64 loops, by
        transforms of rows, or whichever a model of their cost finds fastest.
    workers : int, optional
        Threads to use, every usable core when None. The answer is the same bit for bit.
    callback : callable, optional
        Called as ``callback(done, total)`` in the calling thread; an exception stops the work.

    Returns
    -------
    NormalEquations
        Exact sums, without rounding, where both images hold integers of at most 8 bits (by
        transforms, as long as a bound on their error proves it: past 10**9 pixels).

    Raises
    ------
    TypeError
        If an image is complex, masked or not of numbers.
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
    shape = as_kernel_shape(kernel_shape)
    pairs = matched_pairs(source, result, shape, boundary, channel_axis)
    chosen = as_engine(engine, pairs)
    return equations_of(pairs, shape, as_workers(workers), callback, chosen)
