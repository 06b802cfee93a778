"""Symmetric matrices in coordinates that a reflection makes.

A loop checks nothing, allocates no result, starts no thread and calls only this file.
"""

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@_loop
def reflect(upper, mirror, along, out):
    r"""Reflect a symmetric matrix from both sides.

    Parameters
    ----------
    upper : (n, n) float64 array
        ``G``, C order; only the diagonal and what is above it is read.
    mirror : (n,) float64 array
        ``w``, of length 1.
    along : (n,) float64 array
        Working space.
    out : (n, n) float64 array
        Overwritten, exactly symmetric.

    Notes
    -----
    .. math:: (I - 2 w w^T)\, G\, (I - 2 w w^T)
              = G - 2 g w^T - 2 w g^T + 4\, (w^T g)\, w w^T, \qquad g = G w

    Cost: ``3 * n**2`` multiply-adds.
    """
    n, total = len(mirror), 0.0
    along[:] = 0.0
    for i in range(n):
        row, weight, share = upper[i], mirror[i], 0.0
        for j in range(i + 1, n):
            share += row[j] * mirror[j]
            along[j] += row[j] * weight
        along[i] += share + row[i] * weight
    for i in range(n):
        total += along[i] * mirror[i]
    for i in range(n):
        along[i] = 2 * (along[i] - total * mirror[i])
    for i in range(n):
        row, found, a, b = upper[i], out[i], along[i], mirror[i]
        for j in range(i, n):
            found[j] = row[j] - (a * mirror[j] + b * along[j])
    for i in range(n):
        for j in range(i):
            out[i, j] = out[j, i]
