"""The rim of the image: strip products, and the recurrence that turns them into a Gram matrix.

Only float64 arrays in C order. Whole numbers stay exact below 2**53.
"""

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@_loop
def add_line_products(lines, width, out):
    r"""Add the lagged products of every pair of lines to ``out``.

    Parameters
    ----------
    lines : (n, >= width + lags - 1) float64 array
        Rows of the image's rim, or columns of it.
    width : int
        Number of positions to sum over.
    out : (lags, n, n) float64 array
        Accumulator, updated in place.

    Notes
    -----
    .. math:: \mathrm{out}_{juv} \mathrel{+}= \sum_{t < \mathrm{width}} l_{u,t}\, l_{v,t+j}

    Cost: ``lags * n**2`` multiply-adds a position, four to a load.
    """
    n = lines.shape[0]
    for j in range(out.shape[0]):
        for v in range(n):
            ahead = lines[v][j : j + width]
            u = 0
            while u + 4 <= n:
                a0, a1 = lines[u][:width], lines[u + 1][:width]
                a2, a3 = lines[u + 2][:width], lines[u + 3][:width]
                s0 = s1 = s2 = s3 = 0.0
                for t in range(width):
                    x = ahead[t]
                    s0 += x * a0[t]
                    s1 += x * a1[t]
                    s2 += x * a2[t]
                    s3 += x * a3[t]
                out[j, u, v] += s0
                out[j, u + 1, v] += s1
                out[j, u + 2, v] += s2
                out[j, u + 3, v] += s3
                u += 4
            while u < n:
                a = lines[u][:width]
                s = 0.0
                for t in range(width):
                    s += ahead[t] * a[t]
                out[j, u, v] += s
                u += 1


@_loop
def fill_gram(ahead, across, columns, rows, corners, strip, gram):
    r"""Fill the Gram matrix of all shifts of an image from its base entries and its rim.

    Parameters
    ----------
    ahead, across : (p, q) float64 arrays
        ``H[(0, 0), (i, j)]`` and ``H[(0, j), (i, 0)]``, as `lags.add_tile` sums them.
    columns : (p, q - 1, q - 1) float64 array
        `add_line_products` of the columns that enter, less that of those that leave.
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
