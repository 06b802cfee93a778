"""The answer to a fit of a kernel that varies over the image."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg

from fastkernel._images.borders import load
from fastkernel._images.checks import as_boundary, as_image, as_kernel_shape, as_workers
from fastkernel._images.masks import parted
from fastkernel._images.usable import as_mask
from fastkernel._images.windows import Window, window_of_pair
from fastkernel._loops import design_rows
from fastkernel._machine.tiles import split
from fastkernel._typing import BoolArray, Border, FloatArray, Shape
from fastkernel.convolution.convolve import convolved
from fastkernel.estimation.display.fields import plot_field
from fastkernel.estimation.display.figures import text_and_figure
from fastkernel.estimation.equations.normal_equations import NO_ARCHIVE, centred_taps
from fastkernel.estimation.fields.field_sums import Frame
from fastkernel.estimation.polynomial import polynomial_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Rows that are predicted at a time: with all terms of degree 2 some tens of megabytes.
_STRIP_ROWS = 256

# Side of the parts in which a variance takes the kernel to be constant.
_PART = 64

_SHAPES = ("shape", "source_shape")


@dataclass(frozen=True, eq=False, repr=False)
class KernelField:
    r"""A kernel that varies over the image: every tap a polynomial of position.

    Positions are rows and columns of the result that was fitted, ``shape``. The polynomials are
    products :math:`P_i(\rho) P_j(\gamma)` of Legendre's with ``i + j`` up to ``degree``, with
    :math:`\rho` and :math:`\gamma` from -1 at the first to 1 at the last row and column.

    Attributes
    ----------
    coefficients : (terms, p, q) float64 array
        Of every polynomial, ``i`` slow and ``j`` quick, in result units per source unit.
    degree, scale_degree : int
        Of the taps, and of their sum.
    shape, source_shape : (int, int)
        Rows and columns of the result, and of the source.
    residual_rms : float
        Root mean square of result less prediction over the fitted pixels, by their weights, in
        result units; as far as the kernel is constant in a tile.
    condition_number : float
        Of the equations of all coefficients, in the 1-norm.
    n_pixels : int
        Pixels that were fitted.
    background : (d + 1, d + 1) float64 array or None
        As that of `KernelFit`; a constant is a matrix too.
    used : bool array or None
        Which pixels of the result were fitted, of its shape.
    factor, columns, variance_scale
        What standard errors follow from: the lower Cholesky factor of the equations, what each of
        their unknowns adds to the taps of every polynomial, (terms * p * q, unknowns), and the
        variance of the residual.
    boundary : str or None
        The border rule that was fitted with.
    ridge : float
        The penalty that was used.
    """

    coefficients: FloatArray
    degree: int
    scale_degree: int
    shape: Shape
    source_shape: Shape
    residual_rms: float
    condition_number: float
    n_pixels: int
    background: FloatArray | None
    used: BoolArray
    factor: FloatArray
    columns: FloatArray
    variance_scale: float
    boundary: str | None = None
    ridge: float = 0.0

    @property
    def kernel_shape(self) -> Shape:
        """Rows and columns of the kernels, in pixels."""
        p, q = self.coefficients.shape[1:]
        return p, q

    @property
    def _frame(self) -> Frame:
        return Frame(self.shape, self.degree)

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
        """
        return np.asarray(np.tensordot(self._frame.values(row, col), self.coefficients, 1))

    def standard_errors_at(self, row: float, col: float) -> FloatArray:
        """Return the standard errors of the taps at a place of the result.

        Parameters
        ----------
        row, col : float
            The place, in pixels of the result.

        Returns
        -------
        (p, q) float64 array
            In units of the kernel; they cover noise, not what the polynomials cannot follow. NaN
            with a smooth penalty or noise in the source, where they are not known.
        """
        terms, taps = len(self.coefficients), self.coefficients[0].size
        values = self._frame.values(row, col)
        mixed = np.tensordot(values, self.columns.reshape(terms, taps, -1), 1)
        white = linalg.solve_triangular(self.factor, mixed.T, lower=True)
        variance = self.variance_scale * np.sum(white**2, axis=0)
        return np.sqrt(variance).reshape(self.kernel_shape)

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
        As many convolutions with constant kernels as there are polynomials, a strip of rows at a
        time.
        """
        image, bad = _with_mask(source, source_mask)
        rule = self.boundary if boundary is None else as_boundary(boundary)
        if image.shape != self.source_shape:
            msg = (
                f"source must have the shape {self.source_shape} that was fitted, got {image.shape}"
            )
            raise ValueError(msg)
        window = self._window(rule)
        (top, left), (height, width) = window.result_origin, window.shape
        out = np.full(self.shape, np.nan)
        threads, (p, q) = as_workers(workers), self.kernel_shape
        cols = np.arange(width) + left
        for first, last in split(height, _STRIP_ROWS):
            strip = Window(
                window.source_pixel(first, 0),
                window.result_pixel(first, 0),
                (last - first, width),
                window.boundary,
            )
            rows = np.arange(first, last)[:, None] + top
            values = self._frame.values(rows, cols)
            total = np.zeros(strip.shape)
            for value, taps in zip(values, self.coefficients, strict=True):
                total += value * convolved(image, taps, strip, threads)
            if bad is not None:
                used = np.ones(strip.shape, np.uint8)
                around = np.empty((last - first + p - 1, width + q - 1), np.uint8)
                load(bad, strip.source_origin, strip.boundary, around)
                lines = np.empty((last - first, width + q - 1), np.uint8)
                design_rows.spread(around, (p, q), lines, used)
                total[used == 0] = np.nan
            out[top + first : top + last, left : left + width] = total
        if background and self.background is not None:
            out += polynomial_image(self.background, window.shape, (-top, -left), self.shape)
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
        image, bad = _with_mask(result, mask, "result", "mask")
        if image.shape != self.shape:
            msg = f"result must have the shape {self.shape} that was fitted, got {image.shape}"
            raise ValueError(msg)
        left = image - self.predict(source, source_mask=source_mask, workers=workers)
        if bad is not None:
            left[bad] = np.nan
        return left

    def variance(self, source_variance: ArrayLike, result_variance: ArrayLike = 0.0) -> FloatArray:
        """Return the variance of `residual`: that of the result and of the convolved source.

        Parameters
        ----------
        source_variance : float or (m, n) array_like
            Of the source's pixels, in squared source units.
        result_variance : float or array_like of the result's shape, optional
            Of the result's pixels, in squared result units.

        Returns
        -------
        float64 array of the result's shape
            In squared result units, NaN where there is no prediction. The kernel is taken to be
            constant in parts of 64 pixels.

        Raises
        ------
        ValueError
            If a variance has another shape than its image.
        """
        window = self._window(self.boundary)
        noise = np.broadcast_to(np.asarray(source_variance, np.float64), self.source_shape)
        own = np.broadcast_to(np.asarray(result_variance, np.float64), self.shape)
        out = np.full(self.shape, np.nan)
        for top, bottom in split(window.shape[0], _PART):
            for left, right in split(window.shape[1], _PART):
                row, col = window.result_pixel(top, left)
                shape = bottom - top, right - left
                place = window.source_pixel(top, left)
                part = Window(place, (row, col), shape, window.boundary)
                kernel = self.kernel_at(row + (shape[0] - 1) / 2, col + (shape[1] - 1) / 2)
                inside = slice(row, row + shape[0]), slice(col, col + shape[1])
                out[inside] = convolved(noise, kernel**2, part, 1) + own[inside]
        return out

    def _window(self, boundary: Any) -> Window:
        """Return which pixels of the result can be predicted."""
        source, result = (np.broadcast_to(0.0, shape) for shape in (self.source_shape, self.shape))
        return window_of_pair(source, result, self.kernel_shape, boundary)

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
        with Path(path).open("wb") as file:
            np.savez(file, **kept, allow_pickle=False)

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
        content = io.BytesIO(Path(path).read_bytes())
        try:
            with np.load(content, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            found = {n: v if v.ndim and n not in _SHAPES else v.tolist() for n, v in found.items()}
            values: dict[str, Any] = {n: tuple(v) if n in _SHAPES else v for n, v in found.items()}
            field = cls(**values)
            if field.coefficients.shape[0] != field._frame.terms:
                msg = f"{field.coefficients.shape[0]} polynomials of degree {field.degree}"
                raise ValueError(msg)
        except NO_ARCHIVE as reason:
            msg = f"{str(path)!r} does not hold a field saved by fastkernel: {reason}"
            raise ValueError(msg) from reason
        return field

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
        terms, (rows, cols) = len(self.coefficients), taps.shape
        flat = self.coefficients.reshape(terms, -1)[:, taps.ravel()]
        columns = self.columns.reshape(terms, -1, self.columns.shape[1])[:, taps.ravel()]
        return replace(
            self,
            coefficients=flat.reshape(terms, rows, cols),
            columns=columns.reshape(-1, self.columns.shape[1]),
        )

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
        return plot_field(self, grid)

    def __repr__(self) -> str:
        (p, q), (rows, cols) = self.kernel_shape, self.shape
        middle = float(self.scale_at((rows - 1) / 2, (cols - 1) / 2))
        return "\n  ".join(
            [
                f"KernelField of degree {self.degree}, kernels {p}×{q}, over {rows}×{cols} pixels",
                f"sum of the taps in the middle: {middle:.6g}, of degree {self.scale_degree}",
                f"residual: {self.residual_rms:.4g} rms over {self.n_pixels} pixels",
                f"condition number: {self.condition_number:.2g}",
            ]
        )

    def _repr_html_(self) -> str:
        return text_and_figure(repr(self), self.plot)


def _with_mask(
    value: ArrayLike, mask: ArrayLike | None, name: str = "source", mask_name: str = "source_mask"
) -> tuple[FloatArray, BoolArray | None]:
    """Return an image whose bad pixels are zeros, and where these are; None for none."""
    pixels, bad = parted(value)
    image = as_image(pixels, name)
    if mask is not None:
        given = as_mask(mask, mask_name, image.shape)
        bad = given if bad is None else bad | given
    if image.dtype.kind == "f":
        wrong = ~np.isfinite(image)
        bad = wrong if bad is None else bad | wrong
    if bad is None or not bad.any():
        return image, None
    return np.where(bad, 0, image), bad
