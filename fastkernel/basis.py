"""Bases: kernels, one a column, of which a fitted kernel is to be a sum.

What these functions return is the ``basis`` of `estimate_kernel` and `NormalEquations.solve`.
Fewer unknowns than taps take less noise from the images, and need fewer pixels.
"""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from scipy import linalg

from fastkernel._images.checks import as_kernel_shape, as_positive
from fastkernel._typing import FloatArray, Shape

__all__ = ["gaussian_polynomials"]


def gaussian_polynomials(
    kernel_shape: Shape | int, sigmas: Sequence[float], degrees: Sequence[int]
) -> FloatArray:
    r"""Return Gaussians times polynomials, sampled about the kernel's centre tap.

    For every Gaussian :math:`\sigma` these are

    .. math:: u^a v^b \exp\left(-\frac{u^2 + v^2}{2 \sigma^2}\right), \qquad a + b \le d,

    with ``u`` rows below and ``v`` columns right of the centre tap ``((p - 1) // 2,
    (q - 1) // 2)``, each divided by its length.

    Parameters
    ----------
    kernel_shape : (int, int) or int
        Rows ``p`` and columns ``q`` of the kernel, in pixels; one integer stands for both.
    sigmas : sequence of float
        Standard deviation of every Gaussian, in pixels. To match images of PSFs of widths
        :math:`s < r` one of them should be near :math:`\sqrt{r^2 - s^2}`.
    degrees : sequence of int
        Largest total degree ``d`` of the polynomials beside each Gaussian, at least 0.

    Returns
    -------
    (p * q, b) float64 array
        One kernel a column, taps in C order, of unit Euclidean norm. Gaussian by Gaussian, in
        each the power ``a`` counts up slowly and ``b`` quickly: the first column is the first
        Gaussian itself. A Gaussian has ``(d + 1) * (d + 2) / 2`` columns; powers ``a >= p`` and
        ``b >= q`` are left out, for on ``p`` rows they are sums of lower ones.

    Raises
    ------
    TypeError
        If ``sigmas`` or ``degrees`` is no sequence of numbers.
    ValueError
        If ``kernel_shape`` is not two positive integers, ``sigmas`` and ``degrees`` are not
        equally many, a width is not positive and finite, or a degree is no integer from 0.

    Notes
    -----
    Where widths are alike, or narrow against a pixel, or there are more columns than taps, some
    columns are sums of others to rounding: a fit refuses such a basis and names them. How long a
    column is makes no difference to the kernel that is fitted, nor does their order. To hold the
    kernel's sum, fit with ``unit_sum=True``.

    This is the basis of Alard and Lupton [1]_; widths of 0.7, 1.5 and 3 pixels and degrees of
    6, 4 and 2 are in common use.

    References
    ----------
    .. [1] C. Alard and R. H. Lupton, "A method for optimal image subtraction", Astrophys. J.
       503 (1998) 325, doi:10.1086/305984.

    Examples
    --------
    >>> import numpy as np
    >>> from fastkernel import basis, convolve, normal_equations, psf
    >>> basis.gaussian_polynomials(21, [0.7, 1.5, 3.0], [6, 4, 2]).shape
    (441, 49)

    A kernel of 225 taps from 196 pixels:

    >>> image = np.random.default_rng(0).standard_normal((28, 28))
    >>> result = convolve(image, psf.gaussian(15, 2.0), mode="valid")
    >>> columns = basis.gaussian_polynomials(15, [1.0, 2.0], [2, 2])
    >>> fit = normal_equations(image, result, 15).solve(basis=columns)
    >>> np.allclose(fit.kernel, psf.gaussian(15, 2.0))
    True
    """
    p, q = as_kernel_shape(kernel_shape)
    widths = [as_positive(one, "sigmas") for one in _listed(sigmas, "sigmas", "widths")]
    most = [_as_degree(one) for one in _listed(degrees, "degrees", "integers")]
    if len(widths) != len(most):
        msg = (
            "sigmas and degrees must be equally many, one degree a Gaussian, got "
            f"{len(widths)} and {len(most)}"
        )
        raise ValueError(msg)
    columns = []
    for width, degree in zip(widths, most, strict=True):
        down = [_line(p, width, a) for a in range(min(degree + 1, p))]
        across = [_line(q, width, b) for b in range(min(degree + 1, q))]
        columns += [
            np.multiply.outer(line, other).ravel()
            for a, line in enumerate(down)
            for other in across[: degree - a + 1]
        ]
    return np.array(columns).T.copy()


def _line(length: int, sigma: float, power: int) -> FloatArray:
    """Return samples of ``u**power`` times a Gaussian along one axis, of unit Euclidean norm."""
    places = np.arange(length) - (length - 1) // 2
    away, first = np.abs(places), int(power > 0)
    # Logarithms relative to the largest: far from a narrow peak all samples would vanish.
    with np.errstate(over="ignore"):
        logs = -0.5 * (away - first) / sigma * (away + first) / sigma
    logs = np.where(away < first, -np.inf, logs + power * np.log(np.maximum(away, 1)))
    line = np.sign(places) ** power * np.exp(logs - logs.max())
    return np.asarray(line / linalg.norm(line))


def _listed(value: Any, name: str, what: str) -> list[Any]:
    """Return ``value`` as a list of at least one entry."""
    try:
        found = list(value)
    except TypeError:
        found = []
    if not found or isinstance(value, str):
        msg = f"{name} must be a sequence of {what}, one for every Gaussian, got {value!r}"
        raise TypeError(msg)
    return found


def _as_degree(value: Any) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
        msg = f"degrees must be integers of at least 0, got {value!r}"
        raise ValueError(msg)
    return int(value)
