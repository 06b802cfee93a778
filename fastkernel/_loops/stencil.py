"""Direct convolution of tiles."""

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
# No nnan or ninf: a NaN pixel must reach every output that it touches.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@_loop
def subtract_correlation(image, taps, tile_shape, out):
    r"""Subtract the correlation of ``image`` with ``taps`` from ``out``.

    Parameters
    ----------
    image : (>= height + p - 1, >= width + q - 1) float64 array
        The image under the tile, C order.
    taps : (p, q) float64 array
        A kernel flipped both ways, so that the correlation is a convolution.
    tile_shape : (int, int)
        ``(height, width)`` of the tile, in output pixels.
    out : (>= height, >= width) float64 array
        Updated in place.

    Notes
    -----
    .. math:: \mathrm{out}_{rc} \mathrel{-}= \sum_{ij} g_{ij}\, x_{r+i,\,c+j}

    Cost: ``p * q`` multiply-adds per pixel, four taps to a pass over a row of ``out``.
    """
    height, width = tile_shape
    p, q = taps.shape
    for r in range(height):
        o = out[r][:width]
        for i in range(p):
            row, g = image[r + i], taps[i]
            j = 0
            while j + 4 <= q:
                x0, x1 = row[j : j + width], row[j + 1 : j + 1 + width]
                x2, x3 = row[j + 2 : j + 2 + width], row[j + 3 : j + 3 + width]
                g0, g1, g2, g3 = g[j], g[j + 1], g[j + 2], g[j + 3]
                for c in range(width):
                    o[c] -= g0 * x0[c] + g1 * x1[c] + g2 * x2[c] + g3 * x3[c]
                j += 4
            while j < q:
                x, g0 = row[j : j + width], g[j]
                for c in range(width):
                    o[c] -= g0 * x[c]
                j += 1
