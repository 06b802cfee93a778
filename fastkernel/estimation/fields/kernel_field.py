"""The answer to a fit of a kernel that varies over the image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from fastkernel._images.checks import (
    as_boundary,
    as_kernel_shape,
    as_number,
    as_shape,
    as_workers,
)
from fastkernel._images.windows import Window, window_of_pair
from fastkernel._machine import lapack
from fastkernel._typing import BoolArray, Border, Boundary, FloatArray, Shape
from fastkernel.estimation.archive import read_archive, write_archive
from fastkernel.estimation.display.fields import plot_field
from fastkernel.estimation.display.figures import text_and_figure
from fastkernel.estimation.equations.normal_equations import centred_taps
from fastkernel.estimation.fields.field_files import as_fields
from fastkernel.estimation.fields.frame import Frame
from fastkernel.estimation.fields.unknowns import Unknowns
from fastkernel.estimation.fields.varying import Varying, as_variance, whitening, with_mask

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class KernelField:
    r"""A kernel that varies over the image: every tap a function of position.

    Places are rows and columns of the result that was fitted, ``shape``. The functions of position
    are products :math:`P_i(\rho) P_j(\gamma)` of Legendre polynomials with ``i + j`` up to
    ``degree``, with :math:`\rho` and :math:`\gamma` from -1 at the first to 1 at the last row and
    column; or for a ``grid`` one a cell, 1 in its middle and linear from there to its neighbours'.

    Attributes
    ----------
    coefficients : (terms, p, q) float64 array
        Of every polynomial, ``i`` slow and ``j`` quick, or the kernel in the middle of every cell,
        row by row; in result units per source unit.
    degree : int
        Of the polynomials.
    grid : (int, int) or None
        Cells down and across, in place of polynomials.
    scale_degree : int
        Degree of the sum of the taps.
    shape, source_shape, fitted_shape : (int, int)
        Rows and columns of the result, of the source, and of the kernel that was fitted, which is
        larger than ``kernel_shape`` after `crop`.
    residual_rms : float
        Root mean square of result less prediction over the fitted pixels, by their weights, in
        result units.
    condition_number : float
        Of the equations of all coefficients, in the 1-norm.
    n_pixels : int
        Pixels that were fitted.
    background : (d + 1, d + 1) float64 array or None
        As that of `KernelFit`; a constant is a matrix too.
    used : bool array or None
        Which pixels of the result were fitted, of its shape; None for images on a cluster.
    boundary : str or None
        The border rule that was fitted with.
    ridge : float
        The penalty that was used, in squared source units.
    factor, turn, scales, noise_variance
        What standard errors follow from: the lower Cholesky factor of the equations, the columns
        of which taps are sums, the rows of which their scale is one, and the variance of the
        residual (NaN where they are not known).
    """

    coefficients: FloatArray
    degree: int
    grid: Shape | None
    scale_degree: int
    shape: Shape
    source_shape: Shape
    fitted_shape: Shape
    residual_rms: float
    condition_number: float
    n_pixels: int
    background: FloatArray | None
    # Or None. Who fitted images in memory need not ask.
    used: BoolArray | Any
    boundary: Boundary | None
    ridge: float
    factor: FloatArray
    turn: FloatArray
    scales: FloatArray
    noise_variance: float

    @property
    def kernel_shape(self) -> Shape:
        """Rows and columns of the kernels, in pixels."""
        p, q = self.coefficients.shape[1:]
        return p, q

    @property
    def _frame(self) -> Frame:
        return Frame(self.shape, self.degree, self.grid)

    def kernel_at(self, row: float, col: float) -> FloatArray:
        """Return the kernel at a place of the result.

        Parameters
        ----------
        row, col : float
            The place, in pixels of the result; between them and beyond the frame too.

        Returns
        -------
        (p, q) float64 array
            In result units per source unit.

        Raises
        ------
        TypeError, ValueError
            If the place is no two finite numbers.
        """
        values = self._frame.values(as_number(row, "row"), as_number(col, "col"))
        return np.asarray(np.tensordot(values, self.coefficients, 1))

    def standard_errors_at(self, row: float, col: float) -> FloatArray:
        """Return the standard errors of the taps at a place of the result.

        Parameters
        ----------
        row, col : float
            The place, in pixels of the result.

        Returns
        -------
        (p, q) float64 array
            In units of the kernel. They cover noise that is independent from pixel to pixel and
            alike (with weights: of variances that are their inverses), not what the functions of
            position cannot follow. NaN where the source has noise of its own: they are not known.

        Raises
        ------
        TypeError, ValueError
            If the place is no two finite numbers.
        """
        unknowns = Unknowns(self.turn, self.scales, 0)
        values = self._frame.values(as_number(row, "row"), as_number(col, "col"))
        columns = unknowns.at(values)
        beside = np.zeros((len(self.factor) - unknowns.of_taps, len(columns)))
        white = lapack.solve_lower(self.factor, np.concatenate([columns.T, beside]))
        variance = self.noise_variance * np.sum(white**2, axis=0)
        return np.asarray(np.sqrt(variance).reshape(self.kernel_shape))

    def scale_at(self, row: ArrayLike, col: ArrayLike) -> FloatArray:
        """Return the sum of the taps, the photometric scale, at places of the result.

        Parameters
        ----------
        row, col : float or array_like
            Places, in pixels of the result.

        Returns
        -------
        float64 array
            In result units per source unit.
        """
        sums = self.coefficients.sum(axis=(1, 2))
        return np.asarray(np.tensordot(sums, self._frame.values(row, col), 1))

    def predict(
        self,
        source: ArrayLike,
        *,
        source_mask: ArrayLike | None = None,
        background: bool = True,
        boundary: Border | None = None,
        workers: int | None = None,
    ) -> FloatArray:
        """Convolve an image with the kernel of every place, and add the background.

        Parameters
        ----------
        source : (m, n) array_like of real numbers
            The image, of the shape of the source that was fitted.
        source_mask : (m, n) array_like of bool, optional
            True where a pixel is bad. Masks of the image, and pixels that are not finite, count
            too.
        background : bool, optional
            Whether to add the background that was fitted.
        boundary : str, optional
            What stands beyond the frame, for a result of the source's shape; that of the fit when
            None.
        workers : int, optional
            Threads to use, every usable core when None.

        Returns
        -------
        float64 array of the result's shape
            In result units. NaN where a bad pixel of the source has a part in it, and where a
            border rule would be needed that is not known.

        Raises
        ------
        TypeError, ValueError
            If ``source`` is not an image of real numbers of the right shape, or the mask is not of
            its shape.

        Notes
        -----
        Tile by tile, each transformed once, and back once for every polynomial, or for a grid at
        most four times; small kernels by as many sums of products.
        """
        image, bad = with_mask(source, source_mask)
        rule = self.boundary if boundary is None else as_boundary(boundary)
        if image.shape != self.source_shape:
            msg = (
                f"source must have the shape {self.source_shape} that was fitted, got {image.shape}"
            )
            raise ValueError(msg)
        window = self._window(rule)
        out = np.full(self.shape, np.nan)
        sky = self.background if background else None
        varying = Varying(self.coefficients, self._frame, window, sky)
        varying.convolve(image, bad, out, as_workers(workers))
        return out

    def residual(
        self,
        source: ArrayLike,
        result: ArrayLike,
        *,
        source_mask: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        workers: int | None = None,
    ) -> FloatArray:
        """Return result less prediction.

        Parameters
        ----------
        source, result : array_like of real numbers
            Images of the shapes that were fitted.
        source_mask, mask : array_like of bool, optional
            True where a pixel of the source, of the result, is bad.
        workers : int, optional
            Threads to use, every usable core when None.

        Returns
        -------
        float64 array of the result's shape
            In result units; NaN where a pixel is bad or not predicted.

        Raises
        ------
        TypeError, ValueError
            As `predict`, for either image.
        """
        image, bad = with_mask(result, mask, "result", "mask")
        if image.shape != self.shape:
            msg = f"result must have the shape {self.shape} that was fitted, got {image.shape}"
            raise ValueError(msg)
        left = image - self.predict(source, source_mask=source_mask, workers=workers)
        if bad is not None:
            left[bad] = np.nan
        return left

    def variance(
        self,
        source_variance: ArrayLike,
        result_variance: ArrayLike = 0.0,
        *,
        workers: int | None = None,
    ) -> FloatArray:
        """Return the variance of `residual`: that of the result and of the convolved source.

        Parameters
        ----------
        source_variance : float or (m, n) array_like of real numbers
            Of the source's pixels, in squared source units.
        result_variance : float or array_like of the result's shape, optional
            Of the result's pixels, in squared result units.
        workers : int, optional
            Threads to use, every usable core when None.

        Returns
        -------
        float64 array of the result's shape
            In squared result units, NaN where there is no prediction. The kernel is taken to be
            constant in parts of 64 pixels.

        Raises
        ------
        TypeError, ValueError
            If a variance is no real number, or has another shape than its image.
        """
        noise = as_variance(source_variance, "source_variance", self.source_shape)
        own = as_variance(result_variance, "result_variance", self.shape)
        window = self._window(self.boundary)
        (top, left), (height, width) = window.result_origin, window.shape
        inside = slice(top, top + height), slice(left, left + width)
        out = np.full(self.shape, np.nan)
        out[inside] = own[inside]
        varying = Varying(self.coefficients, self._frame, window, None)
        varying.add_variance(noise, out, as_workers(workers))
        return out

    def decorrelation(
        self,
        row: float,
        col: float,
        source_variance: float,
        result_variance: float,
        *,
        shape: Shape | int | None = None,
    ) -> FloatArray:
        r"""Return the kernel that makes the noise of `residual` white around a place.

        Parameters
        ----------
        row, col : float
            The place, in pixels of the result.
        source_variance, result_variance : float
            Of a pixel's noise there, in squared units of each, not both 0.
        shape : (int, int) or int, optional
            Odd, in pixels; about twice the kernel's when None.

        Returns
        -------
        `shape` float64 array
            Even in both directions, of sum 1: convolved with it, the residual keeps its scale.

        Raises
        ------
        TypeError, ValueError
            If a variance is not a number of at least 0, both are 0, or ``shape`` is even.

        Notes
        -----
        With the kernel's transform :math:`\hat K`, the sum of its taps ``s`` and the variances
        ``V`` of the source and ``W`` of the result, the transform of the kernel is [1]_

        .. math:: \hat\psi = \sqrt{\frac{W + s^2 V}{W + |\hat K|^2 V}} .

        References
        ----------
        .. [1] D. J. Reiss, R. H. Lupton, "Implementation of Image Difference Decorrelation", LSST
           Data Management Technical Note DMTN-021 (2016).
        """
        if shape is None:
            p, q = self.kernel_shape
            shape = 4 * (p // 2) + 1, 4 * (q // 2) + 1
        return whitening(self.kernel_at(row, col), source_variance, result_variance, shape)

    def _window(self, boundary: Any) -> Window:
        """Return which pixels of the result can be predicted."""
        window = window_of_pair(self.source_shape, self.shape, self.fitted_shape, boundary)
        # What `crop` dropped, by shift.
        (p, q), (rows, cols) = self.kernel_shape, self.fitted_shape
        origin = window.source_pixel(rows // 2 - p // 2, cols // 2 - q // 2)
        return replace(window, source_origin=origin)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the field to an .npz file, without pickle.

        Parameters
        ----------
        path : str or path-like
            The file; an existing one is replaced.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        kept = {name: value for name, value in fields.items() if value is not None}
        write_archive(path, kept)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a field that `save` wrote.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        KernelField
            Equal to what was saved, bit for bit.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it does not hold a field.
        """
        return read_archive(path, "a field", lambda found: cls(**as_fields(found)))

    def crop(self, kernel_shape: Shape | int) -> Self:
        """Return the field with fewer taps around the centre tap; the others are dropped.

        Parameters
        ----------
        kernel_shape : (int, int) or int
            No larger than this one's.

        Returns
        -------
        KernelField
            The same taps, not fitted again: for kernels whose outer taps are nothing but noise.

        Raises
        ------
        ValueError
            If ``kernel_shape`` does not fit inside.
        """
        taps = centred_taps(self.kernel_shape, as_kernel_shape(kernel_shape))
        flat = self.coefficients.reshape(len(self.coefficients), -1)
        coefficients = flat[:, taps.ravel()].reshape(-1, *taps.shape)
        return replace(self, coefficients=coefficients, turn=self.turn[taps.ravel()])

    def plot(self, grid: Shape = (5, 5)) -> Figure:
        """Draw kernels over the frame, their widths and directions, and the scale.

        Parameters
        ----------
        grid : (int, int), optional
            How many kernels to draw down and across.

        Returns
        -------
        matplotlib.figure.Figure
            A contact sheet; sticks along the kernels' long axes, as long as they are elongated;
            the map of the sum of the taps.

        Raises
        ------
        ImportError
            If matplotlib is not installed (the extra "plot").
        """
        return plot_field(self, as_shape(grid, "grid", one_for_both=True))

    def __repr__(self) -> str:
        (p, q), (rows, cols) = self.kernel_shape, self.shape
        kind = f"degree {self.degree}"
        if self.grid is not None:
            kind = "{}×{} cells".format(*self.grid)
        middle = float(self.scale_at((rows - 1) / 2, (cols - 1) / 2))
        lines = [
            f"KernelField of {kind}, kernels {p}×{q}, over {rows}×{cols} pixels",
            f"taps sum to {middle:.6g} in the middle, a polynomial of degree {self.scale_degree}",
            f"residual: {self.residual_rms:.4g} rms over {self.n_pixels} pixels",
            f"condition number: {self.condition_number:.2g}",
        ]
        if self.ridge:
            lines.append(f"ridge: {self.ridge:.4g}")
        return "\n  ".join(lines)

    def _repr_html_(self) -> str:
        return text_and_figure(repr(self), self.plot)
