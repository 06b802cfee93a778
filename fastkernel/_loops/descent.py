"""Steps of gradient descent and the projections onto what a kernel may be.

Only arrays in C order. Whatever is symmetric stays so bit for bit: taps that belong together are
given one and the same number.
"""

import math

from numba.extending import register_jitable

from fastkernel._loops._jit import loop

# The flags live beside the loops: Numba's disk cache notices changes to this file alone.
_loop = loop(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@register_jitable
def _average(taps, groups, totals):
    """Replace the taps of every group by their mean; ``totals`` is (2, n_groups) of scratch."""
    totals[:] = 0.0
    for i in range(taps.size):
        totals[0, groups[i]] += taps[i]
        totals[1, groups[i]] += 1.0
    for group in range(totals.shape[1]):
        totals[0, group] /= totals[1, group]
    for i in range(taps.size):
        taps[i] = totals[0, groups[i]]


@register_jitable
def _excess(taps, nonnegative):
    """Return what to take off every tap, before negative ones are cut, so that 1 is their sum."""
    excess, count = -math.inf, taps.size + 1
    while True:
        total, above = 0.0, 0
        for i in range(taps.size):
            if taps[i] > excess:
                total += taps[i]
                above += 1
        # Rounding must not let one in again, or this would not end.
        if above >= count or above == 0:
            return excess
        count = above
        excess = (total - 1.0) / above
        if not nonnegative:
            return excess


@_loop
def take_step(
    ahead,
    image,
    taps,
    moments,
    step,
    groups,
    totals,
    nonnegative,
    unit_sum,
    out,
):
    r"""Take one step of projected gradient descent.

    Parameters
    ----------
    ahead : (n,) float64 array
        The point ``y`` to step from.
    image : (n,) float64 array
        ``H @ ahead``.
    taps : (n,) float64 array
        The taps ``k`` of the last iteration.
    moments : (n,) float64 array
        The right-hand side ``r``.
    step : float
        Length of the step, in inverse squared source units.
    groups : (n,) int64 array
        For every tap the number of the group of taps that it must equal. Empty if there is none.
    totals : (2, n_groups) float64 array
        Working space.
    nonnegative, unit_sum : bool
        What the taps must be beside.
    out : (n,) float64 array
        Overwritten with the new taps; none of the arrays above.

    Returns
    -------
    squared_change : float
        ``sum((y - out)**2)``: the gradient mapping is its root over ``step``.
    turn : float
        ``(y - out) @ (out - k)``, above 0 where momentum leads uphill.

    Notes
    -----
    .. math:: \mathrm{out} = P\bigl(y - s\,(H y - r)\bigr)

    The projection onto taps of sum 1 that are not negative drops taps until none is dropped,
    which ends at the threshold that sorting finds [1]_ [2]_. Groups commute with the other
    projections, which treat all taps alike. Cost: some 15 operations a tap, and 3 for every pass
    of dropping, of which there are a few.

    References
    ----------
    .. [1] C. Michelot, "A finite algorithm for finding the projection of a point onto the
       canonical simplex of R^n", J. Optim. Theory Appl. 50 (1986) 195-200.
    .. [2] J. Duchi, S. Shalev-Shwartz, Y. Singer, T. Chandra, "Efficient projections onto the
       l1-ball for learning in high dimensions", ICML 2008, 272-279.
    """
    for i in range(out.size):
        out[i] = ahead[i] - step * (image[i] - moments[i])
    if groups.size:
        _average(out, groups, totals)
    if unit_sum:
        excess = _excess(out, nonnegative)
        for i in range(out.size):
            out[i] -= excess
    if nonnegative:
        for i in range(out.size):
            out[i] = max(out[i], 0.0)
    squared_change, turn = 0.0, 0.0
    for i in range(out.size):
        change = ahead[i] - out[i]
        squared_change += change * change
        turn += change * (out[i] - taps[i])
    return squared_change, turn


@_loop
def look_ahead(taps, before, momentum, relaxation, ahead):
    r"""Move the point to step from, in place.

    Parameters
    ----------
    taps, before : (n,) float64 arrays
        Where the last step led, and the one before it, or their images: the map is linear.
    momentum : float
        Part of the change from one to the other that is added.
    relaxation : float
        Part of the last step that is added.
    ahead : (n,) float64 array
        Where the last step began; updated.

    Notes
    -----
    .. math:: y \leftarrow k + \beta (k - k') + \gamma (k - y)

    Cost: 6 operations a tap.
    """
    for i in range(taps.size):
        changed = momentum * (taps[i] - before[i]) + relaxation * (taps[i] - ahead[i])
        ahead[i] = taps[i] + changed


@_loop
def scale_spectrum(symbol, spectrum):
    r"""Multiply a spectrum by the real symbol of a symmetric filter, in place.

    Parameters
    ----------
    symbol : (m, n) float64 array
        One factor a frequency.
    spectrum : (m, n) complex128 array
        Updated.

    Notes
    -----
    Cost: two products a frequency. NumPy would first make the symbol complex.
    """
    for row in range(spectrum.shape[0]):
        factors, values = symbol[row], spectrum[row]
        for c in range(values.size):
            values[c] = complex(factors[c] * values[c].real, factors[c] * values[c].imag)
