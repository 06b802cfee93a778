"""Conjugate gradients, for normal equations that are applied and never formed."""

from typing import NamedTuple, Protocol

import numpy as np
from scipy import fft

from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.errors import SingularFitError

_EPS = float(np.finfo(np.float64).eps)
_MAX_ITER = 2000
# Enough for the least determined direction to stand out of a random one.
_PROBE_TOL = 1e-2

_HELP = (
    "What helps: a source with more detail (edges or noise in every direction), more images of "
    "the same kernel, a smaller kernel_shape, or ridge= to prefer small taps"
)


class Operator(Protocol):
    """A Gram matrix as a function of taps by shift.

    Attributes
    ----------
    shape : (int, int)
        ``(p, q)``, of the taps.
    ridge : float
        Added to its diagonal, in squared source units.
    eigenvalues : (p, q // 2 + 1) float64 array
        Of the circulant matrix nearest to it, without the ridge.
    """

    shape: Shape
    ridge: float
    eigenvalues: FloatArray

    def __call__(self, taps: FloatArray) -> FloatArray:
        """Return the product with (p, q) taps, with the ridge."""


class Solved(NamedTuple):
    """What conjugate gradients found, and by how many iterations."""

    taps: FloatArray
    num_iter: int


def conjugate_gradients(operator: Operator, moments: FloatArray, tol: float) -> Solved:
    r"""Solve the normal equations by preconditioned conjugate gradients.

    Parameters
    ----------
    operator : Operator
        The matrix, ``ridge`` included.
    moments : (p, q) float64 array
        The right-hand side.
    tol : float
        Stop where the residual is less by this factor, in the norm of the inverse
        preconditioner. A plain norm would see little but the mean of a bright source.

    Returns
    -------
    Solved
        The taps, (p, q), by shift.

    Raises
    ------
    SingularFitError
        If a direction has no positive curvature, or the residual is still too large after 2000
        iterations.

    Notes
    -----
    The preconditioner is the circulant matrix nearest to the operator in the Frobenius norm
    [1]_ [2]_. It is that of the valid problem, not of the zero-extended one, whose outputs beyond
    a bright source's frame would hide its mean. Being made of Rayleigh quotients, it is positive
    definite where the operator is.

    References
    ----------
    .. [1] T. F. Chan, "An optimal circulant preconditioner for Toeplitz systems", SIAM J. Sci.
       Stat. Comput. 9 (1988) 766-771.
    .. [2] R. H. Chan and M. K. Ng, "Conjugate gradient methods for Toeplitz systems", SIAM Review
       38 (1996) 427-482.
    """
    shape = operator.shape
    eigenvalues = operator.eigenvalues + operator.ridge
    if not eigenvalues.min() > moments.size * _EPS * eigenvalues.max():
        flat = bool((eigenvalues > moments.size * _EPS * eigenvalues.max()).sum() <= 1)
        cause = "the source is flat" if flat else "the source lacks frequencies"
        msg = f"the images do not determine the kernel: {cause}. {_HELP}"
        raise SingularFitError(msg)

    def precondition(residual: FloatArray) -> FloatArray:
        return np.asarray(fft.irfft2(fft.rfft2(residual) / eigenvalues, shape))

    taps, residual = np.zeros(shape), moments
    direction = precondition(residual)
    size = first = float(np.sum(residual * direction))
    for iteration in range(_MAX_ITER):
        if size <= tol**2 * first:
            return Solved(taps, iteration)
        image = operator(direction)
        curvature = float(np.sum(direction * image))
        if not curvature > 0:
            break
        step = size / curvature
        taps, residual = taps + step * direction, residual - step * image
        ahead = precondition(residual)
        size, last = float(np.sum(residual * ahead)), size
        direction = ahead + size / last * direction
    msg = (
        "the images do not determine the kernel: its equations are too close to singular for "
        f"conjugate gradients. {_HELP}"
    )
    raise SingularFitError(msg)


def condition_number(operator: Operator) -> float:
    """Estimate the condition number of the operator, or refuse it.

    The largest and the least of the Rayleigh quotients of all Fourier vectors and of one step of
    inverse iteration from random taps (the same every time) are divided: an estimate from below,
    in the 2-norm. Moments alone would not do: they lie where the source shows its taps, so that
    conjugate gradients converge without a sign of what it does not show.

    Raises
    ------
    SingularFitError
        If the estimate passes ``1 / (p * q * eps)``, or the step fails.
    """
    start = np.random.default_rng(0).standard_normal(operator.shape)
    taps = conjugate_gradients(operator, start, _PROBE_TOL).taps
    quotient = float(np.sum(taps * operator(taps)) / np.sum(taps * taps))
    eigenvalues = operator.eigenvalues + operator.ridge
    largest, least = float(eigenvalues.max()), min(float(eigenvalues.min()), quotient)
    if not least > start.size * _EPS * largest:
        found = f"{largest / least:.1e}" if least > 0 else "infinity"
        msg = (
            "the images do not determine the kernel: its equations are too close to singular, "
            f"with a condition number of {found} for {start.size} taps. {_HELP}"
        )
        raise SingularFitError(msg)
    return largest / least
