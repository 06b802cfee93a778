"""Assembly of a Gram matrix from its base entries and the products of the image's rim.

Only float64 arrays in C order. Whole numbers stay exact below 2**53.
"""

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


@_loop
def fill_gram(ahead, across, columns, rows, corners, strip, gram):
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
    gram : (p, q, p, q) float64 array
        Overwritten; exactly symmetric.

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
            gram[0, 0, d, b] = ahead[d, b]
        for a in range(1, q):
            gram[0, a, d, 0] = across[d, a] if d > 0 else ahead[0, a]
            for b in range(1, q):
                gram[0, a, d, b] = gram[0, a - 1, d, b - 1] + columns[d, a - 1, b - 1]
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
                for b in range(q):
                    gram[i, a, k, b] = gram[i - 1, a, k - 1, b] + strip[a, b]
    for i in range(p):
        for a in range(q):
            for b in range(a):
                gram[i, a, i, b] = gram[i, b, i, a]
        for k in range(i):
            for a in range(q):
                for b in range(q):
                    gram[i, a, k, b] = gram[k, b, i, a]


def count_pairs(kernel_shape: tuple[int, int]) -> int:
    """Return how many pairs of shifts there are, order aside, each with itself too."""
    taps = kernel_shape[0] * kernel_shape[1]
    return taps * (taps + 1) // 2


def rim_shape(kernel_shape: tuple[int, int], tile_shape: tuple[int, int]) -> tuple[int, int]:
    """Return the shape of what `slide_products` works in."""
    (p, q), (height, width) = kernel_shape, tile_shape
    return 2 * p + 2 * q - 1, max(height + p, width + q) - 1


@_loop
def slide_products(x, kernel_shape, tile_shape, base, rim, pairs):
    r"""Complete the products of all shifts of some images from those of the first shifts.

    Parameters
    ----------
    x : (n, >= height + p - 1, >= width + q - 1) float64 or int16 array
        The sources, C order.
    kernel_shape, tile_shape : (int, int)
        ``(p, q)`` and ``(height, width)``, of the window.
    base : (n, 3, p, q) float64 array
        What `lags.add_tiles` finds.
    rim : `rim_shape` float64 array
        Overwritten.
    pairs : (n, `count_pairs`) float64 array
        Overwritten; the products of all pairs of shifts, by their distance, in the order in which
        they follow from each other. `unfold` has the matrix.

    Notes
    -----
    From one shift to the next what leaves the window is subtracted and what enters is added: a
    column for shifts along a row, whose sums are kept, or a row.

    Cost: about ``(height + width) * p * q * (p + q)`` multiply-adds an image.
    """
    (p, q), (height, width) = kernel_shape, tile_shape
    # The rows and the columns (as rows) that leave, and those that enter; then working space.
    above, below = rim[: p - 1], rim[p - 1 : 2 * p - 2]
    before, behind = rim[2 * p - 2 : 2 * p + q - 3], rim[2 * p + q - 3 : 2 * p + 2 * q - 4]
    leave, enter, line = rim[2 * p + 2 * q - 4], rim[2 * p + 2 * q - 3], rim[2 * p + 2 * q - 2]
    beyond = line[width:]
    for s in range(len(x)):
        image, out, place = x[s], pairs[s], 0
        for r in range(p - 1):
            for c in range(width + q - 1):
                above[r, c] = image[r, c]
                below[r, c] = image[height + r, c]
        for r in range(height + p - 1):
            for c in range(q - 1):
                before[c, r] = image[r, c]
                behind[c, r] = image[r, width + c]
        for down in range(p):
            for across in range(0 if down == 0 else 1 - q, q):
                first, shifts = max(0, -across), q - abs(across)
                total = base[s, 1, down, across] if across >= 0 else base[s, 2, down, -across]
                n = shifts - 1
                for c in range(n):
                    one = before[first + c][:height]
                    other = before[first + across + c][down : down + height]
                    gone = 0.0
                    for r in range(height):
                        gone += one[r] * other[r]
                    one = behind[first + c][:height]
                    other = behind[first + across + c][down : down + height]
                    come = 0.0
                    for r in range(height):
                        come += one[r] * other[r]
                    leave[c], enter[c] = gone, come
                for i in range(p - down):
                    if i > 0:
                        one, other = above[i - 1][first:], above[i - 1 + down][first + across :]
                        after, beside = below[i - 1][first:], below[i - 1 + down][first + across :]
                        for c in range(width + n):
                            line[c] = after[c] * beside[c] - one[c] * other[c]
                        for c in range(width):
                            total += line[c]
                        for c in range(n):
                            leave[c] += line[c]
                            enter[c] += beyond[c]
                    value = total
                    out[place] = value
                    for j in range(n):
                        value += enter[j] - leave[j]
                        out[place + 1 + j] = value
                    place += shifts


@_loop
def unfold(pairs, kernel_shape, both, grams):
    """Write the products of pairs of shifts into matrices.

    Parameters
    ----------
    pairs : (n, >= `count_pairs`) float64 array
        As `slide_products` leaves them.
    kernel_shape : (int, int)
        ``(p, q)``.
    both : bool
        Whether both sides of the diagonal are asked for.
    grams : (n, >= p * q, >= p * q) float64 array
        Overwritten on the diagonal and above it, and below if ``both``.
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
    """
    (p, q), place = kernel_shape, 0
    for down in range(p):
        for across in range(0 if down == 0 else 1 - q, q):
            first, distance = max(0, -across), down * q + across
            for i in range(p - down):
                for a in range(i * q + first, i * q + first + q - abs(across)):
                    pairs[place] = gram[a, a + distance]
                    place += 1
