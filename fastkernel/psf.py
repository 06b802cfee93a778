"""Point spread functions: the kernels of common blurs.

All are float64, nowhere negative, and their sum is 1. ``disk`` and ``motion`` are exact: every
pixel holds the area, or the length of line, that falls into it. ``gaussian``, ``moffat`` and
``airy`` are sampled at the pixels' centres.
"""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from fastkernel._images.checks import as_number, as_positive, as_shape
from fastkernel._typing import FloatArray, Shape

__all__ = ["airy", "box", "disk", "gaussian", "moffat", "motion"]

# Less than this share of a pixel beyond an odd size is rounding, and opens no new row or column.
_ROUNDING = 1e-9

# Of the Bessel function of the first kind and order 1.
_FIRST_ZERO = 3.8317059702075125

# Taps that are computed at a time: a few milliseconds, after which Ctrl-C is heard.
_TAPS_AT_ONCE = 1 << 18


def gaussian(
    shape: Shape | int,
    sigma: float | Sequence[float],
    *,
    centre: Sequence[float] | None = None,
) -> FloatArray:
    r"""Return a Gaussian, sampled at the pixels' centres.

    .. math:: h_{ij} \propto \exp\left(-\frac{(i - c_0)^2}{2 \sigma_0^2}
              - \frac{(j - c_1)^2}{2 \sigma_1^2}\right)

    Parameters
    ----------
    shape : (int, int) or int
        Rows ``p`` and columns ``q``, in pixels; one integer stands for both.
    sigma : float or (float, float)
        Standard deviation, along rows and columns where there are two, in pixels. Below about
        0.5 the samples no longer are the Gaussian's integral over the pixels.
    centre : (float, float), optional
        Row and column of the peak, in pixels from the first. None is the middle,
        ``((p - 1) / 2, (q - 1) / 2)``, which for an even size lies between two pixels.

    Returns
    -------
    (p, q) float64 array
        The kernel; its sum is 1.

    Raises
    ------
    TypeError
        If ``sigma`` or ``centre`` is not of numbers.
    ValueError
        If a size is not a positive integer, ``sigma`` is not positive and finite, or ``centre``
        not finite.

    Notes
    -----
    A Gaussian written ``exp(-r**2 / radius)`` has ``sigma = sqrt(radius / 2)``.

    Examples
    --------
    The Gaussian ``exp(-(x**2 + y**2) / radius)`` over ``mgrid[-n/2:n/2, -n/2:n/2]``:

    >>> import numpy as np
    >>> from fastkernel import psf
    >>> n, radius = 40, 30.0
    >>> x, y = np.mgrid[-n / 2 : n / 2, -n / 2 : n / 2]
    >>> seed = np.exp(-(x**2 / radius + y**2 / radius))
    >>> found = psf.gaussian((n, n), np.sqrt(radius / 2), centre=(n / 2, n / 2))
    >>> bool(np.allclose(found, seed / seed.sum(), rtol=1e-12, atol=0))
    True
    """
    p, q = as_shape(shape, "shape", one_for_both=True)
    sigmas = [as_positive(one, "sigma") for one in _both(sigma, "sigma")]
    if centre is None:
        centre = (p - 1) / 2, (q - 1) / 2
    places = [as_number(one, "centre") for one in _both(centre, "centre")]
    lines = []
    for length, width, place in zip((p, q), sigmas, places, strict=True):
        away = np.abs(np.arange(length) - place)
        nearest = away.min()
        # Relative to the nearest sample: far from a narrow peak all would vanish.
        with np.errstate(over="ignore"):
            line = np.exp(-0.5 * (away - nearest) / width * (away + nearest) / width)
        lines.append(line / line.sum())
    found = np.empty((p, q))
    rows = max(1, _TAPS_AT_ONCE // q)
    for first in range(0, p, rows):
        part = slice(first, first + rows)
        np.multiply.outer(lines[0][part], lines[1], out=found[part])
    return found


def moffat(shape: Shape | int, fwhm: float, beta: float) -> FloatArray:
    r"""Return Moffat's profile, which stars have behind the atmosphere, sampled at the pixels.

    .. math:: h(r) \propto \left(1 + r^2 / \alpha^2\right)^{-\beta}, \qquad
              \alpha = \frac{\mathrm{fwhm}}{2 \sqrt{2^{1/\beta} - 1}}

    Parameters
    ----------
    shape : (int, int) or int
        Rows ``p`` and columns ``q``, in pixels; one integer stands for both.
    fwhm : float
        Full width at half the maximum, in pixels. Below about 1 the samples no longer are the
        profile's integral over the pixels.
    beta : float
        How fast the wings fall: 2.5 to 5 for stars; a Gaussian's as it grows.

    Returns
    -------
    (p, q) float64 array
        The kernel around the middle, ``((p - 1) / 2, (q - 1) / 2)``; its sum is 1.

    Raises
    ------
    TypeError
        If ``fwhm`` or ``beta`` is not a number.
    ValueError
        If a size is not a positive integer, or ``fwhm`` or ``beta`` is not positive and finite.

    References
    ----------
    A. F. J. Moffat, "A theoretical investigation of focal stellar images in the photographic
    emulsion and application to photographic photometry", Astron. Astrophys. 3 (1969) 455-461.

    Examples
    --------
    >>> from fastkernel import psf
    >>> psf.moffat((1, 5), 2.0, 3.0).round(3)
    array([[0.053, 0.224, 0.447, 0.224, 0.053]])
    """
    fwhm, beta = as_positive(fwhm, "fwhm"), as_positive(beta, "beta")
    inverse = 2 * math.sqrt(math.expm1(math.log(2) / beta)) / fwhm

    def logarithm(r: FloatArray) -> FloatArray:
        with np.errstate(over="ignore", divide="ignore"):
            return np.where(
                r * inverse < 1e8, np.log1p((r * inverse) ** 2), 2 * np.log(r * inverse)
            )

    def profile(r: FloatArray, nearest: float) -> FloatArray:
        # Relative to the nearest sample: far from a narrow peak all would vanish.
        found = np.exp(beta * (logarithm(np.array(nearest)) - logarithm(r)))
        return np.asarray(found)

    return _sampled(shape, profile)


def airy(shape: Shape | int, radius: float) -> FloatArray:
    r"""Return Airy's pattern, the image of a point behind a round aperture, sampled at the pixels.

    .. math:: h(r) \propto \left(\frac{2 J_1(v)}{v}\right)^2, \qquad v = 3.8317 \, r / R

    Parameters
    ----------
    shape : (int, int) or int
        Rows ``p`` and columns ``q``, in pixels; one integer stands for both.
    radius : float
        Radius ``R`` of the first dark ring, in pixels: 1.22 times the wavelength over the
        aperture, times the focal length. Below about 2 the samples no longer are the pattern's
        integral over the pixels.

    Returns
    -------
    (p, q) float64 array
        The kernel around the middle, ``((p - 1) / 2, (q - 1) / 2)``; its sum is 1. Rings beyond
        the frame are cut off: they hold a sixth of the light beyond the first, and a tenth beyond
        the second.

    Raises
    ------
    TypeError
        If ``radius`` is not a number.
    ValueError
        If a size is not a positive integer, ``radius`` is not positive and finite, or all pixels
        lie where the pattern is dark.

    References
    ----------
    G. B. Airy, "On the diffraction of an object-glass with circular aperture", Trans. Cambridge
    Phil. Soc. 5 (1835) 283-291.

    Examples
    --------
    >>> from fastkernel import psf
    >>> psf.airy((1, 5), 2.0).round(3)
    array([[0.   , 0.212, 0.576, 0.212, 0.   ]])
    """
    radius = as_positive(radius, "radius")
    from scipy.special import j1  # slow to import

    def profile(r: FloatArray, _: float) -> FloatArray:
        v = _FIRST_ZERO / radius * r
        return np.asarray(np.square(np.divide(2 * j1(v), v, out=np.ones_like(v), where=v > 0)))

    found = _sampled(shape, profile)
    if not np.isfinite(found[0, 0]):
        msg = f"radius must be so large that light falls on a pixel's centre, got {radius}"
        raise ValueError(msg)
    return found


def _sampled(shape: Shape | int, profile: Callable[[FloatArray, float], FloatArray]) -> FloatArray:
    """Return a profile of the distance from the middle, which is also told the least there is."""
    p, q = as_shape(shape, "shape", one_for_both=True)
    down, across = (np.arange(n) - (n - 1) / 2 for n in (p, q))
    nearest = math.hypot(np.abs(down).min(), np.abs(across).min())
    found = np.empty((p, q))
    rows = max(1, _TAPS_AT_ONCE // q)
    for first in range(0, p, rows):
        part = slice(first, first + rows)
        found[part] = profile(np.hypot(down[part, None], across), nearest)
    with np.errstate(invalid="ignore"):
        found /= found.sum()
    return found


def motion(length: float, angle: float = 0.0) -> FloatArray:
    """Return the blur of a uniform motion along a straight line.

    Parameters
    ----------
    length : float
        Length of the line, in pixels. A line no longer than a pixel's side is within that pixel.
    angle : float, optional
        Its direction, in degrees counter-clockwise from the rows' direction: 0 is horizontal, 45
        rises to the right, 90 is vertical.

    Returns
    -------
    (p, q) float64 array
        The smallest kernel that holds the line; its sum is 1. Sizes are odd, the line centred on
        the middle pixel, so that a "same" convolution moves nothing. One case is not: a
        horizontal or vertical line of an even whole ``length`` is that many equal taps.

    Raises
    ------
    TypeError
        If an argument is not a number.
    ValueError
        If ``length`` is not positive and finite, or ``angle`` not finite.

    Notes
    -----
    Every pixel holds the exact length of the line inside it: the integral over its square of an
    infinitely thin line, found from the places where the line crosses the pixels' sides. Cost:
    ``O(length)`` and the pixels.

    Examples
    --------
    >>> from fastkernel import psf
    >>> psf.motion(4)
    array([[0.25, 0.25, 0.25, 0.25]])
    >>> psf.motion(2.5)
    array([[0.3, 0.4, 0.3]])
    >>> psf.motion(2 * 2**0.5, 45).round(2)
    array([[0.  , 0.  , 0.25],
           [0.  , 0.5 , 0.  ],
           [0.25, 0.  , 0.  ]])
    """
    length, angle = as_positive(length, "length"), as_number(angle, "angle") % 180.0
    if length % 2 == 0 and angle % 90.0 == 0:
        line = np.full((1, int(length)), 1.0 / length)
        # Not ``angle == 0``: a negative angle that rounding swallows comes back as 180.
        return np.ascontiguousarray(line.T) if angle == 90 else line
    radians = math.radians(angle)
    # Reach of half the line, rows downward.
    reach = np.array([-math.sin(radians), math.cos(radians)]) * length / 2
    rows, cols = (max(0, math.ceil(abs(r) - 0.5 - _ROUNDING)) for r in reach)
    # Where on half the line, as shares of it, pixels meet.
    sides = [(np.arange(n) + 0.5) / abs(r) for n, r in zip((rows, cols), reach, strict=True)]
    ends = np.sort(np.concatenate([[0.0, 1.0], *sides]))
    middles = (ends[1:] + ends[:-1]) / 2
    i = np.rint(middles * reach[0]).astype(np.intp).clip(-rows, rows) + rows
    j = np.rint(middles * reach[1]).astype(np.intp).clip(-cols, cols) + cols
    half = np.zeros((2 * rows + 1, 2 * cols + 1))
    np.add.at(half, (i, j), np.diff(ends))
    return np.asarray((half + half[::-1, ::-1]) / (2 * half.sum()))


def disk(radius: float) -> FloatArray:
    r"""Return the blur of a lens out of focus: a disk of uniform brightness.

    Parameters
    ----------
    radius : float
        Radius of the disk, in pixels. One of at most 0.5 is within a pixel.

    Returns
    -------
    (k, k) float64 array
        The smallest kernel of odd size that holds the disk, centred on its middle pixel; its sum
        is 1.

    Raises
    ------
    TypeError
        If ``radius`` is not a number.
    ValueError
        If ``radius`` is not positive and finite.

    Notes
    -----
    Every pixel holds the exact area of the disk inside it, from the integral

    .. math:: A(x, y) = \int_0^x \min\left(y, \sqrt{r^2 - u^2}\right) du

    in closed form at the pixels' corners. Cost: ``O(radius**2)``.

    Examples
    --------
    >>> from fastkernel import psf
    >>> psf.disk(1).round(3)
    array([[0.025, 0.145, 0.025],
           [0.145, 0.318, 0.145],
           [0.025, 0.145, 0.025]])
    """
    radius = as_positive(radius, "radius")
    n = max(0, math.ceil(radius - 0.5 - _ROUNDING))
    # In units of the radius, from the centre; the first corner's mirror image is its negative.
    x = np.minimum((np.arange(n + 1) + 0.5) / radius, 1.0)
    found = np.empty((2 * n + 1, 2 * n + 1))
    rows = max(1, _TAPS_AT_ONCE // (2 * n + 1))
    for first in range(0, n + 1, rows):
        last = min(first + rows, n + 1)
        # The areas above a row are those up to the row before it, and none above the first.
        y = x[max(first - 1, 0) : last, None]
        reached = np.minimum(x, np.sqrt(1 - y**2))
        whole = np.zeros((last - first + 1, n + 2))
        whole[-len(y) :, 1:] = y * reached + _under_circle(x) - _under_circle(reached)
        quarter = np.diff(np.diff(whole, axis=0), axis=1)
        # The middle row and column reach as far beyond the axes again.
        if first == 0:
            quarter[0] *= 2
        quarter[:, 0] *= 2
        quarter = quarter.clip(0)
        lower = found[n + first : n + last]
        lower[:, n:], lower[:, :n] = quarter, quarter[:, :0:-1]
        found[n - last + 1 : n - first + 1] = lower[::-1]
    total = found.sum()
    for first in range(0, 2 * n + 1, rows):
        found[first : first + rows] /= total
    return found


def box(shape: Shape | int) -> FloatArray:
    """Return the mean over a rectangle.

    Parameters
    ----------
    shape : (int, int) or int
        Rows ``p`` and columns ``q``, in pixels; one integer stands for both.

    Returns
    -------
    (p, q) float64 array
        Equal taps; their sum is 1.

    Raises
    ------
    ValueError
        If a size is not a positive integer.

    Examples
    --------
    >>> from fastkernel import psf
    >>> psf.box((1, 4))
    array([[0.25, 0.25, 0.25, 0.25]])
    """
    p, q = as_shape(shape, "shape", one_for_both=True)
    return np.full((p, q), 1.0 / (p * q))


def _under_circle(x: FloatArray) -> FloatArray:
    """Return the area below the unit circle from 0 to ``x``."""
    return np.asarray((x * np.sqrt(1 - x**2) + np.arcsin(x)) / 2)


def _both(value: Any, name: str) -> Sequence[Any]:
    """Return a value for rows and one for columns."""
    if isinstance(value, Real):
        return value, value
    try:
        rows, cols = value
    except (TypeError, ValueError):
        msg = f"{name} must be one number or two, (rows, cols), got {value!r}"
        raise TypeError(msg) from None
    return rows, cols


def __dir__() -> list[str]:
    return list(__all__)
