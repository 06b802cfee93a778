"""What would help a kernel that leaves too much: other ways to fit it are tried on a part."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fastkernel._typing import AnyArray, FloatArray, Shape
from fastkernel.estimation.errors import SingularFitError

# Side of the part of the images that the trials see.
_SIDE = 512

# A trial helps if it leaves less than this share of the residual.
_HELPS = 0.7
# Two halves of an image have kernels of their own where both leave less than this share.
_VARIES = 0.75

_MORE = 4

# A part of the pixels is wrong where a robust fit leaves so little of most of them: of filters that
# are no convolutions it leaves three times as much. A kernel all but still explains no filter.
_CLEAN, _MOST, _STILL = 0.05, 0.8, 0.01


class Part(NamedTuple):
    """A part of the source, and the "valid" result of a kernel's size, channels last."""

    source: FloatArray
    result: FloatArray


def part_of(source: AnyArray, result: AnyArray, size: Shape) -> Part | None:
    """Return the middle of two images as a "valid" pair; None where too little is left."""
    x, y = (np.atleast_3d(image) for image in (source, result))
    spans = []
    for m, n, k in zip(x.shape, y.shape, size, strict=False):
        # How many of the result's first pixels a border rule may have touched.
        ahead = (n - m + k) // 2
        length = m - k + 1
        count = min(length, _SIDE)
        start = (length - count) // 2
        if count < 2 * k:
            return None
        spans.append((slice(start, start + count + k - 1), slice(ahead + start, None), count))
    (rows, below, height), (cols, right, width) = spans
    inner = y[below, right][:height, :width]
    return Part(x[rows, cols].astype(np.float64), inner.astype(np.float64))


def hints(part: Part, size: Shape, *, lossy: bool) -> Iterator[str]:
    """Yield in plain words what makes the residual clearly smaller.

    Parameters
    ----------
    part : Part
        What to try it on.
    size : (int, int)
        Of the kernel that left too much.
    lossy : bool
        Whether a file was compressed with losses, which no trial can undo.
    """
    left = _left(part, size)
    if left is None or left == 0:
        return
    if _mixed(part, size, left):
        yield "its channels mix: what one leaves is explained by the others; fit them apart"
        return
    for found in (_background(part, size, left), _shift(part)):
        if found is not None:
            yield found
            return
    if _robust_helps(part, size, left):
        yield "--method lad, which pixels that something else was painted on cannot pull away"
        return
    larger = size[0] + 2 * _MORE, size[1] + 2 * _MORE
    wider = _left(part, larger)
    if wider is not None and wider < _HELPS * left:
        yield f"a larger kernel: --size {larger[0]}x{larger[1]} leaves {_of(wider, left)}"
    elif _varies(part, size, left):
        yield "the kernel varies over the image: fit parts of it apart"
    elif not lossy:
        yield "nothing that was tried: the filter may be no convolution (a median, a threshold)"


def _of(one: float, other: float) -> str:
    return f"{one / other:.0%} of the residual"


def _left(part: Part, size: Shape) -> float | None:
    """Return the residual of a fit of some size; None where it has none."""
    from fastkernel import estimate_kernel

    (p, q), (m, n), result = size, part.source.shape[:2], part.result
    top, left = (result.shape[0] - (m - p + 1)) // 2, (result.shape[1] - (n - q + 1)) // 2
    if min(top, left) < 0 or min(m - p, n - q) < max(size):
        return None
    result = result[top : top + m - p + 1, left : left + n - q + 1]
    try:
        return estimate_kernel(part.source, result, size, channel_axis=2).residual_rms
    except SingularFitError:
        return None


def _background(part: Part, size: Shape, left: float) -> str | None:
    from fastkernel import estimate_kernel

    try:
        fit = estimate_kernel(part.source, part.result, size, background="constant", channel_axis=2)
    except SingularFitError:
        return None
    if fit.residual_rms >= _HELPS * left and fit.residual_rms >= left - 0.04:
        return None
    level = float(np.mean(np.asarray(fit.background)))
    if fit.residual_rms < left and abs(level + 0.5) < 0.1:
        return "the result was cut to whole levels, not rounded: add 0.5, or --background constant"
    if fit.residual_rms >= _HELPS * left:
        return None
    return f"--background constant: the result has a level of {level:.4g} beside the convolution"


def _shift(part: Part) -> str | None:
    """Say how the result was moved, if by more than a kernel reaches."""
    from scipy import fft

    (m, n), (rows, cols) = part.source.shape[:2], part.result.shape[:2]
    top, left = (m - rows) // 2, (n - cols) // 2
    x = part.source[top : top + rows, left : left + cols].mean(axis=2)
    y = part.result.mean(axis=2)
    window = np.multiply.outer(np.hanning(rows), np.hanning(cols))
    # Differences, so that light and shade of the whole picture do not decide.
    spectra = [fft.rfft2((a - a.mean()) * window) for a in (x, y)]
    cross = spectra[1] * spectra[0].conj()
    found = fft.irfft2(cross / np.maximum(np.abs(cross), 1e-12 * np.abs(cross).max()), (rows, cols))
    place = np.unravel_index(int(found.argmax()), found.shape)
    row, col = ((int(i) + n // 2) % n - n // 2 for i, n in zip(place, found.shape, strict=True))
    reach = (m - rows) // 2, (n - cols) // 2
    # Of a kernel that is too small, the middle of what it lacks may stand beyond it.
    if abs(row) <= reach[0] + _MORE and abs(col) <= reach[1] + _MORE:
        return None
    if found.max() < 8 * found.std():
        return None
    return (
        f"the result is moved by about {row} rows and {col} columns: crop both files so that they "
        "fit, or use a --size that reaches so far"
    )


def _mixed(part: Part, size: Shape, left: float) -> bool:
    """Tell whether what a channel leaves is explained by the other channels of the source."""
    from fastkernel import estimate_kernel

    channels = part.source.shape[2]
    if channels < 2:
        return False
    i, j = (k - 1 - (k - 1) // 2 for k in size)
    rows, cols = part.result.shape[:2]
    before = part.source[i : i + rows, j : j + cols].reshape(-1, channels)
    total = 0.0
    for channel in range(channels):
        x, y = part.source[..., channel], part.result[..., channel]
        try:
            residual = estimate_kernel(x, y, size).residual(x, y).ravel()
        except SingularFitError:
            return False
        columns = np.column_stack([before, np.ones(len(before))])
        taps = np.linalg.lstsq(columns, residual)[0]
        total += float(np.mean((residual - columns @ taps) ** 2)) / channels
    return bool(total**0.5 < _HELPS * left)


def _robust_helps(part: Part, size: Shape, left: float) -> bool:
    """Tell whether a fit that outliers do not pull explains nearly all of most pixels."""
    from fastkernel import estimate_kernel

    try:
        fit = estimate_kernel(part.source, part.result, size, method="lad", channel_axis=2)
    except SingularFitError:
        return False
    centre = fit.kernel[(size[0] - 1) // 2, (size[1] - 1) // 2]
    if np.abs(fit.kernel).sum() - abs(centre) < _STILL * abs(centre):
        return False  # most pixels are those of the source, as a threshold leaves them
    squares = np.concatenate(
        [
            np.square(fit.residual(part.source[..., c], part.result[..., c])).ravel()
            for c in range(part.source.shape[2])
        ]
    )
    most = np.partition(squares, round(_MOST * len(squares)))[: round(_MOST * len(squares))]
    return bool(float(np.mean(most)) ** 0.5 < _CLEAN * left)


def _varies(part: Part, size: Shape, left: float) -> bool:
    """Tell whether kernels of the four quarters explain more than one of all."""
    rows, cols = part.result.shape[:2]
    squares = []
    for top in (0, rows // 2):
        for start in (0, cols // 2):
            height, width = rows // 2, cols // 2
            x = part.source[top : top + height + size[0] - 1, start : start + width + size[1] - 1]
            y = part.result[top : top + height, start : start + width]
            found = _left(Part(x, y), size)
            if found is None:
                return False
            squares.append(found**2)
    return bool(float(np.mean(squares)) ** 0.5 < _VARIES * left)
