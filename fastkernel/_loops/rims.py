"""Assembly of a Gram matrix from its base entries and the products of the image's rim.

Only float64 arrays in C order. Whole numbers stay exact below 2**53.
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


def count_pairs(kernel_shape: tuple[int, int]) -> int:
    """Return how many pairs of shifts there are, order aside, each with itself too."""
    taps = kernel_shape[0] * kernel_shape[1]
    return taps * (taps + 1) // 2


@register_jitable
def _follow(ahead, across, columns, rows, corners, changes, pairs):
    """Do what `fill_pairs` says."""
    p, q = ahead.shape
    top_left, top_right, low_left, low_right = corners[0], corners[1], corners[2], corners[3]
    place = 0
    for down in range(p):
        for right in range(0 if down == 0 else 1 - q, q):
            first, n = max(0, -right), q - abs(right) - 1
            last = first + right
            total = ahead[down, right] if right >= 0 else across[down, -right]
            for c in range(n):
                changes[c] = columns[down, first + c, last + c]
            for i in range(p - down):
                if i > 0:
                    u, v = i - 1, i - 1 + down
                    total += rows[right, u, v] if right >= 0 else rows[-right, v, u]
                    for c in range(n):
                        changes[c] += (
                            low_right[u, first + c] * low_right[v, last + c]
                            - low_left[u, first + c] * low_left[v, last + c]
                            - top_right[u, first + c] * top_right[v, last + c]
                            + top_left[u, first + c] * top_left[v, last + c]
                        )
                value = total
                pairs[place] = value
                for c in range(n):
                    value += changes[c]
                    pairs[place + 1 + c] = value
                place += n + 1


@_loop
def fill_pairs(ahead, across, columns, rows, corners, changes, pairs):
    r"""Fill in the products of all pairs of shifts of an image from base entries and its rim.

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
    changes : (q,) float64 array
        Overwritten.
    pairs : (`count_pairs`,) float64 array
        Overwritten: the products by the distance of the shifts, in the order in which they follow
        from each other. `unfold` makes a matrix of them.

    Notes
    -----
    One step of both shifts changes a product by the strip that enters the window less the strip
    that leaves it,

    .. math:: H_{a+e,\,b+e} = H_{ab} + \mathrm{entering}_{ab} - \mathrm{leaving}_{ab},

    along rows from the base entries, and along columns, where each strip follows the same rule in
    one dimension. Cost: ``3 * (p*q)**2`` multiply-adds, no pixel of the interior read.
    """
    _follow(ahead, across, columns, rows, corners, changes, pairs)


@register_jitable
def _add_lags(one, other, length, sign, lag_sums):
    """Add the products of two lines, one moved by 0, 1, ... pixels, to sums of them all."""
    lags = len(lag_sums)
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
    return (*strips, (p, q - 1, q - 1), (q, p - 1, p - 1), (4, p - 1, q - 1), (q,), (max(p, q),))


@_loop
def slide_products(x, kernel_shape, tile_shape, base, rim, pairs):
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
    pairs : (n, `count_pairs`) float64 array
        Overwritten as by `fill_pairs`.

    Notes
    -----
    The rims are those of images that are in cache. Cost: about ``2 * (height + width) * p * q *
    (p + q)`` multiply-adds an image, and what `fill_pairs` costs.
    """
    (p, q), (height, width) = kernel_shape, tile_shape
    across, down, columns, rows, corners, changes, sums = rim
    for s in range(len(x)):
        image = x[s]
        for side in range(2):
            for r in range(p - 1):
                for c in range(width + q - 1):
                    across[side, r, c] = image[side * height + r, c]
            for r in range(height + p - 1):
                for c in range(q - 1):
                    down[side, c, r] = image[r, side * width + c]
        for u in range(q - 1):
            for v in range(q - 1):
                sums[:p] = 0.0
                for side in range(2):
                    _add_lags(down[side, u], down[side, v], height, 2 * side - 1, sums[:p])
                for lag in range(p):
                    columns[lag, u, v] = sums[lag]
        for u in range(p - 1):
            for v in range(p - 1):
                sums[:q] = 0.0
                for side in range(2):
                    _add_lags(across[side, u], across[side, v], width, 2 * side - 1, sums[:q])
                for lag in range(q):
                    rows[lag, u, v] = sums[lag]
        for corner in range(4):
            for r in range(p - 1):
                for c in range(q - 1):
                    corners[corner, r, c] = across[corner // 2, r, corner % 2 * width + c]
        _follow(base[s, 1], base[s, 2], columns, rows, corners, changes, pairs[s])


@_loop
def unfold(pairs, kernel_shape, both, grams):
    """Write the products of pairs of shifts into matrices.

    Parameters
    ----------
    pairs : (n, >= `count_pairs`) float64 array
        As `fill_pairs` leaves them.
    kernel_shape : (int, int)
        ``(p, q)``.
    both : bool
        Whether both sides of the diagonal are asked for.
    grams : (n, >= p * q, >= p * q) float64 array
        Overwritten on the diagonal and above it, and below if ``both``.

    Notes
    -----
    Cost: ``(p * q)**2 / 2`` moves, twice as many if ``both``.
    """
    p, q = kernel_shape
    for s in range(len(pairs)):
        products, gram, place = pairs[s], grams[s], 0
        for down in range(p):
            for across in range(0 if down == 0 else 1 - q, q):
                first, distance = max(0, -across), down * q + across
                for i in range(p - down):
                    for a in range(i * q + first, i * q + first + q - abs(across)):
                        gram[a, a + distance] = products[place]
                        if both:
                            gram[a + distance, a] = products[place]
                        place += 1


@_loop
def fold(gram, kernel_shape, pairs):
    """Read the products of pairs of shifts from a matrix: `unfold` turned round.

    Parameters
    ----------
    gram : (>= p * q, >= p * q) float64 array
        Read on the diagonal and above it.
    kernel_shape : (int, int)
        ``(p, q)``.
    pairs : (>= `count_pairs`,) float64 array
        Overwritten.

    Notes
    -----
    Cost: ``(p * q)**2 / 2`` moves.
    """
    (p, q), place = kernel_shape, 0
    for down in range(p):
        for across in range(0 if down == 0 else 1 - q, q):
            first, distance = max(0, -across), down * q + across
            for i in range(p - down):
                for a in range(i * q + first, i * q + first + q - abs(across)):
                    pairs[place] = gram[a, a + distance]
                    place += 1
