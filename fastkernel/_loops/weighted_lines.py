"""Lagged products of the lines at an image's rim, weighted by powers of the place along them.

A loop checks nothing, allocates no result, starts no thread and calls only this file and what is
written as LLVM's vectors beside it.
"""

from numba.extending import register_jitable

from fastkernel._loops._jit import loop
from fastkernel._loops._lanes import LANES, alike, load, store

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
# No nnan or ninf: a NaN pixel must show in the sums.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})

# Sums that stay in registers: of so many weighted lines, at so many lags, with so many lines.
_HEAVY, _LAGS = 4, 2
WIDTH = 2 * LANES

# Places whose products are summed at a time: the first-level cache holds them.
_BLOCK = 128


def room_shapes(
    powers: int, own: int, lags: int, width: int
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return the shapes of working space and of sums, for so many lines in all and of their own."""
    heavy = -(-powers * own // _HEAVY)
    sums = heavy * _HEAVY, -(-lags // _LAGS) * _LAGS, -(-width // WIDTH) * WIDTH
    return (heavy, _BLOCK, _HEAVY), sums


@register_jitable
def _add_products(heavy, flat, place, apart, count, out, at, lags_apart, heavy_apart):
    """Add the products of four weighted lines with a block of others, at two lags."""
    a, b, c, d = at, at + heavy_apart, at + 2 * heavy_apart, at + 3 * heavy_apart
    e, f, g, h = a + lags_apart, b + lags_apart, c + lags_apart, d + lags_apart
    a0, a1, b0, b1 = load(out, a), load(out, a + 1), load(out, b), load(out, b + 1)
    c0, c1, d0, d1 = load(out, c), load(out, c + 1), load(out, d), load(out, d + 1)
    e0, e1, f0, f1 = load(out, e), load(out, e + 1), load(out, f), load(out, f + 1)
    g0, g1, h0, h1 = load(out, g), load(out, g + 1), load(out, h), load(out, h + 1)
    for t in range(count):
        near = place + t * apart
        u, v = load(flat, near), load(flat, near + 1)
        x, y = load(flat, near + apart), load(flat, near + apart + 1)
        w = alike(heavy[t, 0])
        a0, a1, e0, e1 = a0 + w * u, a1 + w * v, e0 + w * x, e1 + w * y
        w = alike(heavy[t, 1])
        b0, b1, f0, f1 = b0 + w * u, b1 + w * v, f0 + w * x, f1 + w * y
        w = alike(heavy[t, 2])
        c0, c1, g0, g1 = c0 + w * u, c1 + w * v, g0 + w * x, g1 + w * y
        w = alike(heavy[t, 3])
        d0, d1, h0, h1 = d0 + w * u, d1 + w * v, h0 + w * x, h1 + w * y
    for at_, left, right in (
        (a, a0, a1),
        (b, b0, b1),
        (c, c0, c1),
        (d, d0, d1),
        (e, e0, e1),
        (f, f0, f1),
        (g, g0, g1),
        (h, h0, h1),
    ):
        store(out, at_, left)
        store(out, at_ + 1, right)


@_loop
def add_weighted_line_products(lines, weights, first, own, room, sums):
    r"""Add the lagged products of some lines, weighted, with all.

    Parameters
    ----------
    lines : (count + lags, width) float64 array
        One line a column, C order, whole blocks of `WIDTH`; as many lags as ``sums`` has.
    weights : (powers, count) float64 array
        By place along the lines.
    first, own : int
        Which of the lines are weighted, and how many.
    room, sums : float64 arrays
        See `room_shapes`: working space, and accumulators, by power and weighted line, lag, and
        line; updated in place. What they hold beyond what was asked for has no meaning.

    Notes
    -----
    .. math:: \sum_t v_t^i\, x_{ta}\, x_{t+l,\,b}

    Cost: one multiply-add for each.
    """
    powers, count = weights.shape
    apart, heavy_apart = lines.shape[1] // LANES, sums.shape[1] * sums.shape[2] // LANES
    lags_apart, flat, out = sums.shape[2] // LANES, lines.reshape(-1), sums.reshape(-1)
    room[:] = 0.0
    for start in range(0, count, _BLOCK):
        places = min(_BLOCK, count - start)
        for power in range(powers):
            for line in range(own):
                m = power * own + line
                for t in range(places):
                    weight = weights[power, start + t]
                    room[m // _HEAVY, t, m % _HEAVY] = weight * lines[start + t, first + line]
        for number in range(len(room)):
            for lag in range(0, sums.shape[1], _LAGS):
                for col in range(0, apart, 2):
                    at = number * _HEAVY * heavy_apart + lag * lags_apart + col
                    place = (start + lag) * apart + col
                    how = places, out, at, lags_apart, heavy_apart
                    _add_products(room[number], flat, place, apart, *how)
