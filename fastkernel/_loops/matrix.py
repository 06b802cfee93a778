"""Filling of the matrices of a convolution."""

from typing import Any, NamedTuple

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


class Axis(NamedTuple):
    """Which pixels each output place of one axis is made of.

    Places whose taps meet neighbours inside the frame share one pattern, number 0; every other
    place has its own.

    Attributes
    ----------
    pattern : (size,) int64 array
        The row of ``pixel`` and ``tap`` that belongs to an output place.
    shift : (size,) int64 array
        What is to be added to that row's pixels.
    pixel : (patterns, taps) int64 array
        Pixels in ascending order, times the distance of neighbours in memory; negative where
        there is none.
    tap : (patterns, taps) int64 array
        The taps of the flipped kernel that meet them.
    before : (size + 1,) int64 array
        Distinct pixels of all places before this one.
    """

    pattern: Any
    shift: Any
    pixel: Any
    tap: Any
    before: Any


@_loop
def fill_matrix(taps, axes, span, scratch, csr):
    r"""Fill rows of the matrix whose product with an image is its convolution.

    Parameters
    ----------
    taps : (p, q) float64 array
        The kernel, flipped both ways, C order.
    axes : (Axis, Axis)
        Of rows and of columns.
    span : (int, int)
        Half-open range of output rows; each fills as many matrix rows as there are columns.
    scratch : (p * q,) float64 array and (p * q,) array of the dtype of ``indices``
        Working space.
    csr : arrays ``data``, ``indices`` and ``indptr``
        The whole matrix; what belongs to ``span`` is overwritten.

    Notes
    -----
    .. math:: K_{t,s} = \sum_{a:\, \mathrm{pixel}(t, a) = s} g_a

    Taps that meet the same pixel are summed, first down and then across. Cost: one write per
    entry, and ``p * q`` sums for every output place near the sides.
    """
    rows, cols = axes
    folded, place = scratch
    data, indices, indptr = csr
    p, q = taps.shape
    size = cols.pattern.size
    for r in range(span[0], span[1]):
        pixel, tap, shift = rows.pixel[rows.pattern[r]], rows.tap[rows.pattern[r]], rows.shift[r]
        width = 0
        last = -1
        for a in range(p):
            if pixel[a] < 0:
                continue
            if pixel[a] == last:
                for b in range(q):
                    folded[width - q + b] += taps[tap[a], b]
                continue
            last = pixel[a]
            for b in range(q):
                folded[width + b] = taps[tap[a], b]
                place[width + b] = last + shift + b
            width += q
        at = rows.before[r] * cols.before[size]
        starts = indptr[r * size : (r + 1) * size]
        for c in range(size):
            starts[c] = at
            shift = cols.shift[c]
            if cols.pattern[c] == 0:
                values, numbers = data[at : at + width], indices[at : at + width]
                for k in range(width):
                    values[k] = folded[k]
                    numbers[k] = place[k] + shift
                at += width
                continue
            pixel, tap = cols.pixel[cols.pattern[c]], cols.tap[cols.pattern[c]]
            for start in range(0, width, q):
                last, total = -1, 0.0
                for b in range(q):
                    if pixel[b] < 0:
                        continue
                    if pixel[b] == last:
                        total += folded[start + tap[b]]
                        data[at - 1] = total
                        continue
                    last, total = pixel[b], folded[start + tap[b]]
                    data[at] = total
                    indices[at] = place[start] + last
                    at += 1


@_loop
def fill_patches(flipped, kernel_shape, out):
    r"""Fill rows of the matrix whose product with a kernel is the convolution.

    Parameters
    ----------
    flipped : (height + p - 1, width + q - 1) float array
        The image under a strip of outputs, flipped both ways, C order.
    kernel_shape : (int, int)
        ``(p, q)``.
    out : (height * width, p * q) float array
        Overwritten, one row per output pixel.

    Notes
    -----
    .. math:: X_{rw + c,\; iq + j} = x_{r + p - 1 - i,\; c + q - 1 - j}

    Cost: one read and one write per entry.
    """
    p, q = kernel_shape
    height, width = flipped.shape[0] - p + 1, flipped.shape[1] - q + 1
    for r in range(height):
        for c in range(width):
            patch = out[r * width + c]
            left = width - 1 - c
            for i in range(p):
                x = flipped[height - 1 - r + i][left : left + q]
                y = patch[i * q : (i + 1) * q]
                for j in range(q):
                    y[j] = x[j]
