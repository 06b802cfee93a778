"""Restoration of images on a cluster, by cells that overlap."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from fastkernel._images.borders import OUTSIDE
from fastkernel._images.checks import (
    as_choice,
    as_count,
    as_flag,
    as_penalty,
    as_shape,
    as_workers,
    float_dtype,
)
from fastkernel._typing import AnyArray, BorderOrUnknown, FloatArray, Shape
from fastkernel.dask.cells import Rect
from fastkernel.dask.inputs import Image, as_image, as_like
from fastkernel.dask.output import output_of
from fastkernel.dask.reading import Part, Reading, View
from fastkernel.restoration.arguments import as_border, as_psf, refuse_negative_taps
from fastkernel.restoration.linear_filters import wiener as wiener_here
from fastkernel.restoration.richardson_lucy import richardson_lucy as richardson_lucy_here

# Sides of the PSF that a cell reads beyond its own.
_SIDES = 4

_LAPLACIAN = np.array([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]])

# Share of the image's range that seams may reach without a warning.
_SEEN = 0.02


def richardson_lucy(
    image: Any,
    psf: ArrayLike,
    num_iter: int = 50,
    *,
    boundary: BorderOrUnknown = "unknown",
    weights: Any = None,
    damping: float = 0.0,
    halo: Shape | None = None,
    out: Any = None,
    compute: bool = True,
    workers: int = 1,
) -> Any:
    r"""Restore a blurred image on a cluster by plain Richardson-Lucy iterations.

    Parameters
    ----------
    image : (m, n) image of real numbers
        As in `fastkernel.richardson_lucy`, of one of the kinds that `convolve` takes.
    psf : (p, q) array_like of real numbers
        What a point became.
    num_iter : int, optional
        How many iterations. Noise is not looked at: every cell would stop at one of its own.
    boundary, damping : optional
        As in `fastkernel.richardson_lucy`.
    weights : (m, n) image of real numbers, optional
        As there; of any of these kinds.
    halo : (int, int), optional
        Rows and columns that are read, restored and left out on each side of a cell. Four sides
        of the PSF, ``(4 * p, 4 * q)``, when None; more iterations reach further.
    out, compute, workers : optional
        As in `convolve`.

    Returns
    -------
    dask.array.Array, xarray.DataArray or Delayed
        As `convolve` returns "same": float32 for a float32 image, else float64.

    Raises
    ------
    TypeError, ValueError
        As `fastkernel.richardson_lucy` and `convolve` do; of a pixel that is negative or not
        finite the tasks tell the index in the whole image.

    Notes
    -----
    The iterations do not exchange halos: each cell is restored with its surroundings, by itself.
    What that leaves is a seam. On photographs of 8 bits, with 30 iterations and a disk of
    15 x 15, its root mean square was below 0.01 grey levels. Extrapolated iterations
    (``acceleration``) would choose steps of their own in every cell, so there are none here.

    Examples
    --------
    >>> import dask.array as da
    >>> import fastkernel
    >>> import numpy as np
    >>> image = np.kron(np.random.default_rng(0).random((6, 7)), np.ones((10, 10)))
    >>> psf = np.outer([1, 2, 1], [1, 2, 1]) / 16
    >>> found = richardson_lucy(da.from_array(image, chunks=30), psf, 10).compute()
    >>> options = {"acceleration": False, "noise": None}
    >>> whole = fastkernel.richardson_lucy(image, psf, 10, **options)
    >>> bool(abs(found - whole).max() < 0.01)
    True
    """
    given = as_image(image, "image")
    taps = as_psf(psf, given.shape)
    refuse_negative_taps(taps)
    rule = as_border(boundary, ("unknown",))
    options = {
        "num_iter": as_count(num_iter, "num_iter"),
        "damping": damping,
        "acceleration": False,
        "noise": None,
    }
    beside = [] if weights is None else [as_like(weights, "weights", given)]
    return _restored(
        "richardson_lucy", image, [given, *beside], taps, rule, options, halo, out, compute, workers
    )


def wiener(
    image: Any,
    psf: ArrayLike,
    balance: float,
    *,
    boundary: Literal["symmetric", "circular", "edge_taper", "unknown"] = "symmetric",
    halo: Shape | None = None,
    out: Any = None,
    compute: bool = True,
    workers: int = 1,
) -> Any:
    r"""Restore a blurred, noisy image on a cluster by one linear filter.

    Parameters
    ----------
    image : (m, n) image of real numbers
        As in `fastkernel.wiener`, of one of the kinds that `convolve` takes.
    psf : (p, q) array_like of real numbers
        What a point became.
    balance : float
        Strength of the prior, the same in all cells: ``gcv_balance(part, psf)`` of a part that
        shows a bit of everything.
    boundary : {"symmetric", "circular", "edge_taper", "unknown"}, optional
        As in `fastkernel.wiener`.
    halo : (int, int), optional
        As in `richardson_lucy`.
    out, compute, workers : optional
        As in `convolve`.

    Returns
    -------
    dask.array.Array, xarray.DataArray or Delayed
        As `convolve` returns "same": float32 for a float32 image, else float64.

    Raises
    ------
    TypeError, ValueError
        As `fastkernel.wiener` and `convolve` do; also for ``balance="gcv"``, which would differ
        from cell to cell.

    Warns
    -----
    UserWarning
        If the filter reaches beyond the halo, and seams will show: it does where the PSF passes
        nothing of some frequencies, as a disk, and the balance is weak.

    Examples
    --------
    >>> import dask.array as da
    >>> import fastkernel
    >>> import numpy as np
    >>> image = np.kron(np.random.default_rng(0).random((6, 7)), np.ones((10, 10)))
    >>> psf = np.outer([1, 2, 1], [1, 2, 1]) / 16
    >>> found = wiener(da.from_array(image, chunks=30), psf, 0.01).compute()
    >>> whole = fastkernel.wiener(image, psf, 0.01, boundary="symmetric")
    >>> bool(abs(found - whole)[12:-12, 12:-12].max() < 1e-4)
    True
    """
    given = as_image(image, "image")
    taps = as_psf(psf, given.shape)
    if isinstance(balance, str):
        msg = (
            f"balance must be a number on a cluster, where every cell would choose its own, got "
            f"{balance!r}; take fastkernel.gcv_balance(part, psf), of a part of the image"
        )
        raise ValueError(msg)
    options = {"balance": as_penalty(balance, "balance")}
    rule = as_choice(boundary, "boundary", ("symmetric", "circular", "edge_taper", "unknown"))
    sides = _as_halo(halo, taps)
    _warn_of_seams(taps, options["balance"], sides)
    return _restored("wiener", image, [given], taps, rule, options, sides, out, compute, workers)


def _as_halo(halo: Any, psf: FloatArray) -> Shape:
    if halo is None:
        return _SIDES * psf.shape[0], _SIDES * psf.shape[1]
    return as_shape(halo, "halo", least=0)


def _warn_of_seams(psf: FloatArray, balance: float, halo: Shape) -> None:
    """Warn of a filter that reaches beyond the halo."""
    rows, cols = (fft.next_fast_len(4 * n + 64, real=True) for n in halo)
    passed, roughness = (fft.rfft2(taps, (rows, cols)) for taps in (psf, _LAPLACIAN))
    power = np.abs(passed) ** 2 + balance * np.abs(roughness) ** 2
    # Where nothing would be divided by nothing the filter has no end.
    power = np.maximum(power, 1e-30 * power.max())
    reach = np.abs(fft.irfft2(passed.conj() / power, (rows, cols)))
    down, across = (np.minimum(np.arange(n), n - np.arange(n)) for n in (rows, cols))
    outside = (down > halo[0])[:, None] | (across > halo[1])
    # No pixel of the answer moves by more, whatever stands beyond the halo.
    bound = float(reach[outside].sum() * np.abs(psf).sum())
    if bound > _SEEN:
        msg = (
            f"seams may show between cells: beyond the halo of {halo} the filter reaches for "
            f"{bound:.2g} of the image's range. What helps: a larger balance or halo, or "
            "richardson_lucy"
        )
        warnings.warn(msg, stacklevel=3)


def _restored(
    function: str,
    value: Any,
    images: Sequence[Image],
    psf: FloatArray,
    boundary: str,
    options: dict[str, Any],
    halo: Any,
    out: Any,
    compute: Any,
    workers: Any,
) -> Any:
    """Write the tasks of a restoration."""
    (above, left), image = _as_halo(halo, psf), images[0]
    around: Any = "circular" if boundary == "circular" else "zero"
    work = _Restoring(function, psf, boundary, options, image.shape, (above, left), workers)
    as_workers(workers)
    readings = []
    for each in images:
        what = each.name, each.shape, each.dtype, each.store
        how = Reading(*what, (-above, -left), (2 * above, 2 * left), around)
        readings.append((how, each))
    dtype = float_dtype(image)
    now = as_flag(compute, "compute")
    return output_of(function, value, readings, work, dtype, (0, 0), image.shape, out, now)


@dataclass(frozen=True)
class _Restoring:
    """What a task does: it restores a cell with its surroundings.

    Attributes
    ----------
    function : str
        What restores.
    psf : (p, q) float64 array
        What a point became.
    boundary : str
        What stands beyond the image's frame.
    options : dict
        Of what restores.
    shape, halo : (int, int)
        Of the whole image, and what is read on each side of a cell.
    workers : int
        Threads to use.
    """

    function: str
    psf: FloatArray
    boundary: str
    options: dict[str, Any]
    shape: Shape
    halo: Shape
    workers: int

    def __call__(self, views: Sequence[View], parts: Sequence[Rect]) -> AnyArray:
        (rect,) = parts
        image, *weights = (view.read(rect) for view in views)
        # What lies beyond the frame is no image.
        inside = [place != OUTSIDE for place in image.places]
        rows, cols = (slice(int(a.argmax()), len(a) - int(a[::-1].argmax())) for a in inside)
        run: Any = wiener_here if self.function == "wiener" else richardson_lucy_here
        options = {**self.options, "boundary": self._boundary(rect), "workers": self.workers}
        if weights:
            options["weights"] = weights[0].pixels[rows, cols]
        image.refuse_masked("fill it, and give such pixels the weight 0")
        try:
            found = run(image.pixels[rows, cols], self.psf, **options)
        except ValueError:
            _refuse_pixel(image, weights, negative=self.function == "wiener")
            raise
        top, left = self.halo[0] - rows.start, self.halo[1] - cols.start
        return np.asarray(found[top : top + rect[2], left : left + rect[3]])

    def _boundary(self, rect: Rect) -> str:
        """Return what stands around a cell: at the frame what is said, amid the image nothing."""
        if self.boundary == "edge_taper" or self.function == "wiener":
            return "symmetric" if self.boundary == "circular" else self.boundary
        lines = zip(rect[:2], rect[2:], self.halo, self.shape, strict=True)
        amid = all(start >= h and start + n + h <= length for start, n, h, length in lines)
        return "unknown" if amid or self.boundary == "circular" else self.boundary


def _refuse_pixel(image: Part, weights: Sequence[Part], *, negative: bool) -> None:
    """Raise for the first pixel that cannot be restored, by its index in the whole image."""
    fine = np.isfinite(image.pixels)
    if not negative:
        fine &= image.pixels >= 0
    for part in weights:
        fine |= part.pixels == 0
    if not fine.all():
        row, col = np.argwhere(~fine)[0]
        rule = "finite" if negative else "finite and not negative"
        msg = (
            f"image must be {rule}, got {image.pixels[row, col]} at index {image.place(row, col)}; "
            "clip or fill it"
        )
        raise ValueError(msg)
