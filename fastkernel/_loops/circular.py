"""Circular convolution of tiles, two at a time, by fast Fourier transforms.

A loop checks nothing, allocates no result, starts no thread and calls only this file.

Two real tiles ride one complex transform, as its real and its imaginary part: a filter with real
taps keeps them apart. Transforms go down the columns, a vector register wide, in a panel that
fits the first-level cache; blocks of a register squared are turned over in between, so that the
second axis is one of columns too. Neither order nor scale of the spectrum is ever restored: the
filter's spectrum is made by the same passes, and the way back takes them in reverse.
"""

from numba.extending import register_jitable

from fastkernel._loops._column_transforms import back, first_4, first_8, forward, turn_4, turn_8
from fastkernel._loops._jit import loop
from fastkernel._loops._processor import turn_over

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
# No nnan or ninf: a NaN pixel must show in the outcome.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@register_jitable
def _columns_to_rows(pair, between, panel, down):
    """Transform the columns of a pair of tiles into the rows of ``between``."""
    width, m, n = panel.shape[2], pair.shape[1], between.shape[1]
    stride, row_stride = pair.shape[2], between.shape[2]
    radices, table = down
    for col in range(0, n, width):
        forward(pair[0], pair[1], col, stride, m, radices, table, radices.size, panel)
        for i in range(2):
            turn_over(panel[i], 0, width, m, width, between[i], col * row_stride, row_stride)


@register_jitable
def _first_back(panel, n, radices, table):
    """Take the first pass back in a panel."""
    re, im, width, last = panel[0], panel[1], panel.shape[2], radices[radices.size - 1]
    if last == 8:
        first_8(re, im, 0, width, re, im, 0, width, n, last, table, 0)
    else:
        first_4(re, im, 0, width, re, im, 0, width, n, last, table, 0)


@register_jitable
def _rows_to_columns(between, panel, down, pair):
    """Transform the rows of ``between`` back into the columns of a pair of tiles."""
    width, m, n = panel.shape[2], pair.shape[1], between.shape[1]
    stride, (radices, table) = between.shape[2], down
    for col in range(0, n, width):
        for i in range(2):
            turn_over(between[i], col * stride, stride, width, m, panel[i], 0, width)
        _first_back(panel, m, radices, table)
        back(panel, m, radices, table, radices.size - 1, pair[0], pair[1], col, pair.shape[2])


@_loop
def transform_pair(pair, between, panel, down, across, out):
    r"""Transform a pair of tiles, for the spectrum of a filter.

    Parameters
    ----------
    pair : (2, m, >= n) float32 or float64 array
        Two tiles of m by n pixels, the real and the imaginary part; C order.
    between : (2, n, >= m) array of pair's dtype
        Scratch, C order.
    panel : (2, >= max(m, n), lanes) array of pair's dtype
        Scratch, C order.
    down, across : (array, array)
        `passes.passes` of m and of n.
    out : (2, m * n) array of pair's dtype
        Overwritten by the spectrum, in the order that `convolve_pair` takes it.

    Notes
    -----
    Cost: ``5 m n log2(m n)`` operations.
    """
    width, m, n = panel.shape[2], pair.shape[1], between.shape[1]
    _columns_to_rows(pair, between, panel, down)
    stride, (radices, table) = between.shape[2], across
    for row in range(0, m, width):
        forward(between[0], between[1], row, stride, n, radices, table, radices.size, panel)
        for i in range(2):
            for col in range(n):
                line, values = out[i][row * n + col * width :], panel[i, col]
                for lane in range(width):
                    line[lane] = values[lane]


@_loop
def convolve_pair(pair, between, panel, down, across, spectrum):
    r"""Convolve a pair of tiles circularly with a filter, in place.

    Parameters
    ----------
    pair : (2, m, >= n) float32 or float64 array
        Two tiles of m by n pixels, overwritten; C order.
    between, panel, down, across : arrays
        As in `transform_pair`.
    spectrum : (2, m * n) array of pair's dtype
        What `transform_pair` makes of the filter (the other tile being zero) over m * n.

    Notes
    -----
    .. math:: x_t \leftarrow \sum_s f_s\, x_{(t - s) \bmod (m, n)}

    Cost: ``10 m n log2(m n)`` operations for both tiles.
    """
    width, m, n = panel.shape[2], pair.shape[1], between.shape[1]
    turned_re, turned_im = between[0], between[1]
    panel_re, panel_im = panel[0], panel[1]
    _columns_to_rows(pair, between, panel, down)
    stride, (radices, table) = between.shape[2], across
    count = radices.size - 1
    for row in range(0, m, width):
        forward(turned_re, turned_im, row, stride, n, radices, table, count, panel)
        if radices[count] == 8:
            turn_8(panel_re, panel_im, n, spectrum[0], spectrum[1], row * n)
        else:
            turn_4(panel_re, panel_im, n, spectrum[0], spectrum[1], row * n)
        back(panel, n, radices, table, count, turned_re, turned_im, row, stride)
    _rows_to_columns(between, panel, down, pair)


@_loop
def pair_of_product(of_pair, spectrum, between, panel, down, across, pair):
    r"""Convolve a pair of tiles circularly with a filter, both by their spectra.

    Parameters
    ----------
    of_pair, spectrum : (2, m * n) arrays of pair's dtype
        What `transform_pair` makes of the tiles, and of the filter as `convolve_pair` takes it.
    between, panel, down, across : arrays
        As in `transform_pair`.
    pair : (2, m, >= n) float32 or float64 array
        Overwritten by the outcome; C order.

    Notes
    -----
    Cost: ``5 m n log2(m n)`` operations for both tiles: where several filters are applied, half of
    what `convolve_pair` takes.
    """
    width, m, n = panel.shape[2], pair.shape[1], between.shape[1]
    stride, (radices, table) = between.shape[2], across
    re, im = panel[0].reshape(-1), panel[1].reshape(-1)
    for row in range(0, m, width):
        part = slice(row * n, (row + width) * n)
        a_re, a_im, b_re, b_im = (
            of_pair[0, part],
            of_pair[1, part],
            spectrum[0, part],
            spectrum[1, part],
        )
        for k in range(width * n):
            re[k] = a_re[k] * b_re[k] - a_im[k] * b_im[k]
            im[k] = a_re[k] * b_im[k] + a_im[k] * b_re[k]
        _first_back(panel, n, radices, table)
        back(panel, n, radices, table, radices.size - 1, between[0], between[1], row, stride)
    _rows_to_columns(between, panel, down, pair)
