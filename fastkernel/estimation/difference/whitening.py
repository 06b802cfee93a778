"""White noise for a difference of images, which the convolution of one of them has correlated."""

from typing import NamedTuple

import numpy as np
from scipy import signal

from fastkernel._images.windows import window_of_pair
from fastkernel._typing import BoolArray, FloatArray
from fastkernel.estimation.fields.frame import Frame
from fastkernel.estimation.fields.kernel_field import KernelField
from fastkernel.estimation.fields.varying import Varying


class White(NamedTuple):
    """A difference with white noise.

    Attributes
    ----------
    residual, variance : (m, n) float64 arrays
        The difference, and the variance of its noise.
    missing : (m, n) float64 array
        The sum of the taps that met missing pixels, at every pixel.
    """

    residual: FloatArray
    variance: FloatArray
    missing: FloatArray


def whitened(
    field: KernelField,
    residual: FloatArray,
    missing: BoolArray,
    source_variance: FloatArray,
    result_variance: FloatArray,
    workers: int,
) -> White:
    """Make the noise of a residual white with the kernels of `KernelField.decorrelation`.

    Parameters
    ----------
    field : KernelField
        By which the source was convolved.
    residual : (m, n) float64 array
        What it leaves.
    missing : (m, n) bool array
        Pixels that are taken to be 0.
    source_variance, result_variance : (m, n) float64 arrays
        Of the noise of the images; the kernels are made for their medians.
    workers : int
        Threads to use.

    Notes
    -----
    The kernels' taps are polynomials of position of the field's degree, by least squares from the
    kernels at some places.
    """
    frame, count = Frame(field.shape, field.degree), 2 * field.degree + 1
    lines = [np.linspace(0, n - 1, count + 2)[1:-1] for n in field.shape]
    places = [(row, col) for row in lines[0] for col in lines[1]]
    noise = float(np.median(source_variance)), float(np.median(result_variance))
    kernels = [field.decorrelation(*place, *noise) for place in places]
    # What the source is convolved by in all.
    both = [
        signal.convolve(field.kernel_at(*place), kernel, method="direct")
        for place, kernel in zip(places, kernels, strict=True)
    ]
    values = np.array([frame.values(*place) for place in places])
    through = np.linalg.pinv(values)
    psi, whole = (_varying(np.tensordot(through, np.array(k), 1), frame) for k in (kernels, both))
    out, variance, lost = (np.zeros(field.shape) for _ in range(3))
    psi.convolve(np.where(missing, 0.0, residual), None, out, workers)
    psi.add_variance(result_variance, variance, workers)
    whole.add_variance(source_variance, variance, workers)
    psi.convolve(missing.astype(np.float64), None, lost, workers)
    return White(out, variance, lost)


def _varying(coefficients: FloatArray, frame: Frame) -> Varying:
    """Return a convolution that takes what stands beyond the frame to be 0."""
    p, q = coefficients.shape[1:]
    window = window_of_pair(frame.shape, frame.shape, (p, q), "zero")
    return Varying(coefficients, frame, window, None)
