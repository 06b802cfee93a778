"""Products of chosen rows of the design matrix, with the background's columns and the result's.

A loop checks nothing, allocates no result, starts no thread and calls only this file.
"""

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})

# Rows of a block of `add_products`, which has 2 columns: 8 sums under way, each of a few vectors,
# keep the multipliers busy and stay in registers. And the rows of its panels.
BLOCK, PANEL = 4, 48


@_loop
def collect_chosen(x, y, places, roots, kernel_shape, down, across, degrees, columns):
    r"""Collect the rows of chosen pixels, one a column.

    Parameters
    ----------
    x : (>= height + p - 1, >= width + q - 1) float64 array
        The source under a tile, C order.
    y : (height, width) float64 array
        The result, C order.
    places : (count,) intp array
        Pixels of the tile, counted row by row.
    roots : (count,) float64 array
        Square roots of their weights.
    kernel_shape : (int, int)
        ``(p, q)``.
    down, across : (d, height) and (d, width) float64 arrays
        Polynomials of the tile's rows and columns, C order.
    degrees : (terms, 2) intp array
        Which of them every term of the background is a product of.
    columns : (>= p * q + terms + 1, >= count) float64 array
        Overwritten in the first ``count`` columns: shifts in C order, terms, the result.

    Notes
    -----
    Cost: ``p * q + terms + 1`` copies a chosen pixel.
    """
    p, q = kernel_shape
    terms = degrees.shape[0]
    for count in range(places.shape[0]):
        r, c, root = places[count] // y.shape[1], places[count] % y.shape[1], roots[count]
        for i in range(p):
            for j in range(q):
                columns[i * q + j, count] = root * x[r + i, c + j]
        for k in range(terms):
            value = down[degrees[k, 0], r] * across[degrees[k, 1], c]
            columns[p * q + k, count] = root * value
        columns[p * q + terms, count] = root * y[r, c]


@_loop
def collect_all(x, y, roots, kernel_shape, down, across, degrees, start, columns):
    r"""Collect the rows of all pixels, of weight zero too, until there is no room.

    Parameters
    ----------
    x : (>= height + p - 1, >= width + q - 1) float64 array
        The source under a tile, C order.
    y : (height, >= width) float64 array
        The result, C order.
    roots : (height, width) float64 array
        Square roots of the weights, C order.
    kernel_shape : (int, int)
        ``(p, q)``.
    down, across : (d, height) and (d, width) float64 arrays
        Polynomials of the tile's rows and columns, C order.
    degrees : (terms, 2) intp array
        Which of them every term of the background is a product of.
    start : int
        Pixel of the tile, row by row, to begin with.
    columns : (>= p * q + terms + 1, n) float64 array
        Overwritten in the first ``count`` columns: shifts in C order, terms, the result.

    Returns
    -------
    next : int
        The pixel to go on with.
    count : int
        Columns that were written.

    Notes
    -----
    Cost: ``p * q + terms + 1`` products a pixel, in whole vectors.
    """
    p, q = kernel_shape
    height, width = roots.shape
    terms, count, place = degrees.shape[0], 0, start
    while place < height * width and count < columns.shape[1]:
        r, c = place // width, place % width
        n = min(width - c, columns.shape[1] - count)
        root = roots[r][c : c + n]
        for i in range(p):
            row = x[r + i]
            for j in range(q):
                out, pixels = columns[i * q + j][count : count + n], row[c + j : c + j + n]
                for t in range(n):
                    out[t] = root[t] * pixels[t]
        for k in range(terms):
            out, line = columns[p * q + k][count : count + n], across[degrees[k, 1]][c : c + n]
            value = down[degrees[k, 0], r]
            for t in range(n):
                out[t] = root[t] * (value * line[t])
        out, pixels = columns[p * q + terms][count : count + n], y[r][c : c + n]
        for t in range(n):
            out[t] = root[t] * pixels[t]
        count += n
        place += n
    return place, count


@_loop
def add_products(rows, count, out):
    r"""Add the products of all pairs of rows to the upper triangle of ``out``.

    Parameters
    ----------
    rows : (n, >= count) float64 array
        ``n`` a multiple of `BLOCK`, C order.
    count : int
        Columns to sum over.
    out : (n, n) float64 array
        Accumulator, updated in place; below the diagonal only inside its blocks.

    Notes
    -----
    .. math:: \mathrm{out}_{ij} \mathrel{+}= \sum_c a_{ic}\, a_{jc}

    Cost: ``n * (n + 4) / 2`` multiply-adds a column. The answer does not depend on threads, as
    that of a library for linear algebra may.
    """
    n = rows.shape[0]
    # A panel of rows stays in the second-level cache while all others pass by.
    for panel in range(0, n, PANEL):
        last = min(panel + PANEL, n)
        for i in range(0, last, BLOCK):
            a0, a1 = rows[i][:count], rows[i + 1][:count]
            a2, a3 = rows[i + 2][:count], rows[i + 3][:count]
            for j in range(max(i, panel), last, 2):
                b0, b1 = rows[j][:count], rows[j + 1][:count]
                s00 = s01 = s10 = s11 = s20 = s21 = s30 = s31 = 0.0
                for c in range(count):
                    s00 += a0[c] * b0[c]
                    s01 += a0[c] * b1[c]
                    s10 += a1[c] * b0[c]
                    s11 += a1[c] * b1[c]
                    s20 += a2[c] * b0[c]
                    s21 += a2[c] * b1[c]
                    s30 += a3[c] * b0[c]
                    s31 += a3[c] * b1[c]
                out[i, j] += s00
                out[i, j + 1] += s01
                out[i + 1, j] += s10
                out[i + 1, j + 1] += s11
                out[i + 2, j] += s20
                out[i + 2, j + 1] += s21
                out[i + 3, j] += s30
                out[i + 3, j + 1] += s31


@_loop
def spread(bad, kernel_shape, lines, used):
    r"""Clear the pixels of a tile's window whose kernel reaches a bad pixel of the source.

    Parameters
    ----------
    bad : (height + p - 1, width + q - 1) uint8 array
        1 where the source under the tile is bad, else 0, C order.
    kernel_shape : (int, int)
        ``(p, q)``.
    lines : (height, width + q - 1) uint8 array
        Overwritten.
    used : (height, width) uint8 array
        1 or 0, C order; updated in place.

    Notes
    -----
    .. math:: u_t \mathrel{\&}= \neg \bigvee_{i<p,\, j<q} b_{t+(i,j)}

    Cost: ``p + q`` operations on bytes a pixel.
    """
    p, q = kernel_shape
    height, width = used.shape
    for r in range(height):
        line = lines[r]
        for c in range(width + q - 1):
            line[c] = bad[r, c]
        for i in range(1, p):
            row = bad[r + i]
            for c in range(width + q - 1):
                line[c] |= row[c]
        out = used[r]
        for j in range(q):
            part = line[j : j + width]
            for c in range(width):
                out[c] &= 1 - part[c]


@_loop
def thin_out(x, kernel_shape, place, level, scale, share, columns, weights):
    r"""Leave a share of a tile's pixels their weights, enlarged so that sums are what they were.

    Parameters
    ----------
    x : (>= height + p - 1, >= width + q - 1) float64 array
        The source under the tile, C order.
    kernel_shape : (int, int)
        ``(p, q)``.
    place : (int, int)
        The tile's first pixel in the window.
    level : float
        A typical pixel of the source.
    scale : float
        A typical weight times the energy that a kernel sees about the level, or 0.
    share : float
        Of typical pixels that are left, from 0 to 1.
    columns : (>= width + q - 1,) float64 array
        Overwritten.
    weights : (height, width) float64 array
        C order; overwritten with 0 or the weight over the share of its kind.

    Notes
    -----
    .. math:: p_t = \min\left(1,\ \tfrac{s}{2} \left(1 + \tfrac{w_t}{S}
              \sum_a (x_{t+a} - l)^2\right)\right)

    Pixels are chosen where a sequence that fills the unit interval evenly, along any direction of
    the image, is below ``p``. Cost: some fifteen operations a pixel.
    """
    p, q = kernel_shape
    height, width = weights.shape
    inverse = 1.0 / scale if scale > 0.0 else 0.0
    for r in range(height):
        for c in range(width + q - 1):
            total = 0.0
            for i in range(p):
                total += (x[r + i, c] - level) ** 2
            columns[c] = total
        energy = 0.0
        for c in range(q - 1):
            energy += columns[c]
        row = weights[r]
        for c in range(width):
            energy += columns[c + q - 1]
            chance = 0.5 * share * (1.0 + max(row[c] * energy * inverse, 0.0))
            energy -= columns[c]
            # Multiples of powers of the plastic number: a lattice without a direction of its own.
            turn = (place[0] + r) * 0.7548776662466927 + (place[1] + c) * 0.5698402909980532
            turn -= int(turn)
            if chance < 1.0:
                row[c] = row[c] / chance if turn < chance else 0.0
