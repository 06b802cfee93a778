"""What spectra tell of noise: its power in the result, and frequencies that the source lacks."""

import math
from collections.abc import Sequence

import numpy as np

from fastkernel._machine import image_transforms as transforms
from fastkernel._machine.tiles import Scratch
from fastkernel._typing import AnyArray, Progress

_EPS = float(np.finfo(np.float64).eps)


def rounding_power(source: AnyArray, energy: float) -> float:
    """Return the power of a spectrum that rounding of the image's own precision makes."""
    eps = float(np.finfo(source.dtype).eps) if source.dtype.kind == "f" else _EPS
    return max(eps, _EPS) ** 2 * math.log2(2 * source.size) * energy


def noise_power(
    source: transforms.RowSpectra,
    result: transforms.RowSpectra,
    least: float,
    workers: int,
    progress: Progress | None,
) -> tuple[float, float]:
    r"""Return the power of the noise in a result's spectrum, from the corner of high frequencies.

    With it, the share of that corner's frequencies in which the source has less power than
    ``least``.

    .. math:: \frac{|Y_{-1} X_0 X_1 - 2 Y_0 X_{-1} X_1 + Y_1 X_{-1} X_0|^2}
              {|X_0 X_1|^2 + 4 |X_{-1} X_1|^2 + |X_{-1} X_0|^2}

    is what the best :math:`(a + b t) X_t` leaves of three neighbours of a column.
    """
    m, n = source.frame
    if m < 3 or source.energy == 0:
        return 0.0, 0.0
    first = 3 * n // 8
    middle = slice(max(1, 3 * m // 8), min(m - 1, 5 * m // 8 + 1))
    before, after = (slice(middle.start + i, middle.stop + i) for i in (-1, 1))
    # The most that a number of the source's spectrum can be: no product of two overflows.
    size = math.sqrt(source.energy) * math.sqrt(m * n)

    counts: list[tuple[int, int]] = []

    def residuals(spectra: Sequence[AnyArray], columns: slice, _: Scratch) -> AnyArray:
        x, y = (lines[max(0, first - columns.start) :] for lines in spectra)
        counts.append((int(np.count_nonzero(power_of(x[:, middle]) < least)), x[:, middle].size))
        x0, x1, x2 = (x[:, rows] / size for rows in (before, middle, after))
        y0, y1, y2 = (y[:, rows] for rows in (before, middle, after))
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            left = power_of(y0 * (x1 * x2) - 2 * y1 * (x0 * x2) + y2 * (x0 * x1))
            weight = power_of(x1 * x2) + 4 * power_of(x0 * x2) + power_of(x0 * x1)
            return np.where(weight > 0, left / weight, power_of(y1)).ravel()

    found = transforms.transform_columns(
        (source, result), residuals, workers, progress, first=first
    )
    empty, all_of_them = (sum(column) for column in zip(*counts, strict=True))
    share = empty / all_of_them if all_of_them else 0.0
    return float(np.median(np.concatenate(found))) / math.log(2), share


def power_of(spectrum: AnyArray) -> AnyArray:
    """Return the squared magnitudes."""
    return np.asarray(spectrum.real**2 + spectrum.imag**2)
