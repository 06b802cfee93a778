"""What people use today, as they run it. Each takes the arrays as they are."""

import numpy as np
import scipy.fft
import scipy.linalg
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray


def _crop_peak(kernel: NDArray, taps: int) -> NDArray:
    top, left = (side // 2 - taps // 2 for side in kernel.shape)
    return kernel[top : top + taps, left : left + taps]


# A frequency that the source lacks divides by zero: the published recipe does not guard it either.
@np.errstate(divide="ignore", invalid="ignore")
def numpy_recipe(source: NDArray, result: NDArray, taps: int) -> NDArray:
    """Divide the spectra, transform back, shift to the centre, crop the peak."""
    spectrum = np.fft.rfft2(result) / np.fft.rfft2(source)
    return _crop_peak(np.fft.fftshift(np.fft.irfft2(spectrum, s=source.shape)), taps)


@np.errstate(divide="ignore", invalid="ignore")
def scipy_recipe(source: NDArray, result: NDArray, taps: int, workers: int) -> NDArray:
    """The same with threads; SciPy keeps float32, which is part of its speed."""
    x, y = (scipy.fft.rfft2(image, workers=workers) for image in (source, result))
    kernel = scipy.fft.irfft2(y / x, s=source.shape, workers=workers)
    return _crop_peak(scipy.fft.fftshift(kernel), taps)


def design_matrix_bytes(size: int, taps: int) -> int:
    return (size - taps + 1) ** 2 * taps**2 * 8


def sliding_windows(source: NDArray, result: NDArray, taps: int) -> NDArray:
    """Normal equations of the valid pixels: one row of the matrix per window."""
    windows = sliding_window_view(source.astype(np.float64), (taps, taps))
    matrix = windows.reshape(-1, taps * taps)
    edge = taps // 2
    inner = result[edge : result.shape[0] - edge, edge : result.shape[1] - edge]
    flipped = scipy.linalg.solve(matrix.T @ matrix, matrix.T @ inner.ravel(), assume_a="pos")
    return flipped[::-1].reshape(taps, taps)


def scipy_rfft2(image: NDArray, workers: int) -> NDArray:
    """The yardstick: one forward transform."""
    return scipy.fft.rfft2(image, workers=workers)
