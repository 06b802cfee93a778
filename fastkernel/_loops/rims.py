"""Assembly of a Gram matrix from its base entries and the products of the image's rim.

Arrays are float64 and in C order, but for the pixels of `slide_products`. Whole numbers stay
exact below 2**53.
"""

from numba.extending import register_jitable

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@_loop
def fill_base(autocorrelation, columns, rows, corner, ahead, across):
    r"""Fill the base entries of a Gram matrix from the autocorrelation of the whole image.

    Parameters
    ----------
    autocorrelation : (p, 2q - 1) float64 array
        Sums over all pairs of pixels ``(i, j - q + 1)`` apart, zeros beyond the image.
    columns : (p, q - 1, q - 1) float64 array
        `lags.add_line_products` of the columns that enter the window.
    rows : (q, p - 1, p - 1) float64 array
        The same for rows.
    corner : (p - 1, q - 1) float64 array
        The pixels where both meet.
    ahead, across : (p, q) float64 arrays
        Overwritten, with what `lags.add_tiles` sums; ``across`` only where both shifts are not 0.

    Notes
    -----
    The autocorrelation has pairs that begin in the rows or columns that enter the window, below
    it and right of it. They are taken off; no other pixel is read. Cost: ``(p*q)**2 / 4``.
    """
    p, q = ahead.shape
    for d in range(p):
        for j in range(q):
            total = autocorrelation[d, q - 1 + j]
            for u in range(q - 1 - j):
                total -= columns[d, u, u + j]
            for u in range(p - 1 - d):
                total -= rows[j, u, u + d]
                for v in range(q - 1 - j):
                    total -= corner[u, v] * corner[u + d, v + j]
            ahead[d, j] = total
            if d == 0 or j == 0:
                continue
            total = autocorrelation[d, q - 1 - j]
            for u in range(j, q - 1):
                total -= columns[d, u, u - j]
            for u in range(p - 1 - d):
                total -= rows[j, u + d, u]
                for v in range(q - 1 - j):
                    total -= corner[u + d, v] * corner[u, v + j]
            across[d, j] = total


@register_jitable
def _fill(ahead, across, columns, rows, corners, strip, both, gram):
    r"""Fill the Gram matrix of all shifts of an image from its base entries and its rim.

    Parameters
    ----------
    ahead, across : (p, q) float64 arrays
        ``H[(0, 0), (i, j)]`` and ``H[(0, j), (i, 0)]``, as `lags.add_tiles` sums them.
    columns : (p, q - 1, q - 1) float64 array
        `lags.add_line_products` of the columns that enter, less that of those that leave.
    rows : (q, p - 1, p - 1) float64 array
        The same for rows.
    corners : (4, p - 1, q - 1) float64 array
        The image's corners: top left, top right, bottom left, bottom right.
    strip : (q, q) float64 array
        Working space.
    both : bool
        Whether both sides of the diagonal are asked for.
    gram : (p * q, p * q) float64 array
        Overwritten on the diagonal and above it; if ``both`` below too, exactly symmetric.

    Notes
    -----
    One step of both shifts changes an entry by the strip that enters the window less the strip
    that leaves it,

    .. math:: H_{a+e,\,b+e} = H_{ab} + \mathrm{entering}_{ab} - \mathrm{leaving}_{ab},

    first along columns from the base entries, then along rows, where each strip follows the
    same rule in one dimension. Cost: ``(p*q)**2`` steps, no pixel of the interior read.
    """
    p, q = ahead.shape
    for d in range(p):
        for b in range(q):
            gram[0, d * q + b] = ahead[d, b]
        for a in range(1, q):
            gram[a, d * q] = across[d, a] if d > 0 else ahead[0, a]
            for b in range(1, q):
                gram[a, d * q + b] = gram[a - 1, d * q + b - 1] + columns[d, a - 1, b - 1]
    top_left, top_right, low_left, low_right = corners[0], corners[1], corners[2], corners[3]
    for i in range(1, p):
        for k in range(i, p):
            u, v = i - 1, k - 1
            for b in range(q):
                strip[0, b] = rows[b, u, v]
            for a in range(1, q):
                strip[a, 0] = rows[a, v, u]
                for b in range(1, q):
                    strip[a, b] = (
                        strip[a - 1, b - 1]
                        + (low_right[u, a - 1] * low_right[v, b - 1])
                        - (low_left[u, a - 1] * low_left[v, b - 1])
                        - (top_right[u, a - 1] * top_right[v, b - 1])
                        + (top_left[u, a - 1] * top_left[v, b - 1])
                    )
            for a in range(q):
                line, before = gram[i * q + a][k * q :], gram[(i - 1) * q + a][(k - 1) * q :]
                for b in range(q):
                    line[b] = before[b] + strip[a, b]
    if both:
        for i in range(p):
            for a in range(q):
                line = gram[i * q + a]
                for b in range(a):
                    line[i * q + b] = gram[i * q + b, i * q + a]
                for k in range(i):
                    for b in range(q):
                        line[k * q + b] = gram[k * q + b, i * q + a]


# Compiled as it stands: a loop that calls it would compile it twice.
fill_gram = _loop(_fill)


@register_jitable
def _add_lags(one, other, length, sign, lags, lag_sums):
    """Add the products of two lines, one moved by 0, 1, ... pixels, to sums of them all."""
    for lag in range(0, lags - 3, 4):
        a, b, c, d = other[lag:], other[lag + 1 :], other[lag + 2 :], other[lag + 3 :]
        at, bt, ct, dt = 0.0, 0.0, 0.0, 0.0
        for t in range(length):
            pixel = one[t]
            at += pixel * a[t]
            bt += pixel * b[t]
            ct += pixel * c[t]
            dt += pixel * d[t]
        lag_sums[lag] += sign * at
        lag_sums[lag + 1] += sign * bt
        lag_sums[lag + 2] += sign * ct
        lag_sums[lag + 3] += sign * dt
    for lag in range(lags - lags % 4, lags):
        a, at = other[lag:], 0.0
        for t in range(length):
            at += one[t] * a[t]
        lag_sums[lag] += sign * at


def rim_shapes(
    kernel_shape: tuple[int, int], tile_shape: tuple[int, int]
) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of what `slide_products` works in."""
    (p, q), (height, width) = kernel_shape, tile_shape
    strips = (2, p - 1, width + q - 1), (2, q - 1, height + p - 1)
    return (*strips, (p, q - 1, q - 1), (q, p - 1, p - 1), (4, p - 1, q - 1), (q, q), (max(p, q),))


@_loop
def slide_products(x, kernel_shape, tile_shape, base, rim, both, grams):
    r"""Complete the products of all pairs of shifts of some images from those of the first shifts.

    Parameters
    ----------
    x : (n, >= height + p - 1, >= width + q - 1) float64 or int16 array
        The sources, C order.
    kernel_shape, tile_shape : (int, int)
        ``(p, q)`` and ``(height, width)``, of the window.
    base : (n, 3, p, q) float64 array
        What `lags.add_tiles` finds.
    rim : tuple of float64 arrays of `rim_shapes`
        Overwritten.
    both : bool
        Whether both sides of the diagonal are asked for.
    grams : (n, >= p * q, >= p * q) float64 array
        Overwritten on the diagonal and above it, and below if ``both``, as by `fill_gram`.

    Notes
    -----
    The rims are those of images that are in cache. Cost: about ``2 * (height + width) * p * q *
    (p + q)`` multiply-adds an image, and what `fill_gram` costs.
    """
    (p, q), (height, width) = kernel_shape, tile_shape
    across, down, columns, rows, corners, strip, sums = rim
    for s in range(len(x)):
        image = x[s]
        for side in range(2):
            for r in range(p - 1):
                for c in range(width + q - 1):
                    across[side, r, c] = image[side * height + r, c]
            for r in range(height + p - 1):
                for c in range(q - 1):
                    down[side, c, r] = image[r, side * width + c]
        for axis in range(2):
            lines, products, length = across, rows, width
            if axis == 1:
                lines, products, length = down, columns, height
            lags, n = products.shape[0], products.shape[1]
            for u in range(n):
                for v in range(n):
                    for lag in range(lags):
                        sums[lag] = 0.0
                    for side in range(2):
                        one, other = lines[side, u], lines[side, v]
                        _add_lags(one, other, length, 2 * side - 1, lags, sums)
                    for lag in range(lags):
                        products[lag, u, v] = sums[lag]
        for corner in range(4):
            for r in range(p - 1):
                for c in range(q - 1):
                    corners[corner, r, c] = across[corner // 2, r, corner % 2 * width + c]
        _fill(base[s, 1], base[s, 2], columns, rows, corners, strip, both, grams[s])
