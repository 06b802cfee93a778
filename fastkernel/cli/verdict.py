"""Whether to believe a kernel, in one sentence."""

import numpy as np

from fastkernel._typing import FloatArray

# Root mean square of what rounding to whole levels takes away.
ROUNDING_RMS = 12**-0.5

# A residual this close to rounding is rounding; the rest is sampling.
_NEAR = 1.25


def judge(
    kernel: FloatArray,
    errors: FloatArray,
    *,
    residual_rms: float,
    contrast: float,
    whole_levels: bool,
    lossy: bool,
    clipped: float,
    condition_number: float,
) -> str:
    """Say whether to believe a kernel.

    Parameters
    ----------
    kernel, errors : (p, q) float64 arrays
        Taps and their standard errors, NaN where these are not known.
    residual_rms, contrast : float
        Root mean square of the residual, and standard deviation of the result.
    whole_levels : bool
        Whether the result was rounded to whole numbers.
    lossy : bool
        Whether a file was compressed with losses.
    clipped : float
        Share of the result's pixels at either end of the grey levels that its file can hold.
    condition_number : float
        Of the normal equations.

    Returns
    -------
    str
        "Believe it", "believe it with care" or "do not believe it", and why.
    """
    misfit = residual_rms / contrast if contrast > 0 else 1.0
    blur = float(errors.max() / (np.abs(kernel).max() or 1.0))
    rounding = ROUNDING_RMS if whole_levels else 1e-6 * contrast
    explained = residual_rms <= _NEAR * rounding

    fatal, doubts = [], []
    if misfit > 0.1:
        fatal.append(f"it leaves {misfit:.0%} of the result's contrast unexplained")
    elif not explained and misfit > 0.02:
        doubts.append(f"it leaves {misfit:.1%} of the result's contrast unexplained")
    elif not explained and whole_levels:
        doubts.append(f"the residual is {residual_rms / rounding:.1f} times that of rounding")
    if not explained and lossy:
        doubts.append("lossy compression leaves a residual of its own")
    if not explained and clipped > 0.001:
        doubts.append(f"{clipped:.1%} of the result is black or white, where it may be clipped")
    if blur > 0.1:
        (fatal if blur > 0.5 else doubts).append(f"error bars reach {blur:.0%} of the largest tap")
    if condition_number > 1e10:
        (fatal if condition_number > 1e14 else doubts).append(
            f"the source hardly determines it (condition number {condition_number:.0e})"
        )
    if not explained and _reaches_the_rim(kernel, errors):
        p, q = kernel.shape
        doubts.append(
            f"its outermost taps are not zero, so it may be larger than {p}x{q}: "
            f"try --size {p + 4}x{q + 4}"
        )
    if fatal:
        return f"do not believe it: {'; '.join(fatal + doubts)}"
    if doubts:
        return f"believe it with care: {'; '.join(doubts)}"
    leaves = (
        "nothing but rounding is left unexplained"
        if explained
        else f"only {misfit:.1g} of the result's contrast is left unexplained"
    )
    if np.isnan(blur):
        return f"believe it: {leaves}; this method knows no error bars"
    return f"believe it: {leaves}, and error bars are at most {100 * blur:.1g}% of the largest tap"


def _reaches_the_rim(kernel: FloatArray, errors: FloatArray) -> bool:
    rim = np.ones(kernel.shape, bool)
    rim[1:-1, 1:-1] = False
    weight = np.abs(kernel[rim]).sum()
    noise = 2 * np.nan_to_num(errors[rim]).sum()
    return bool(weight > 0.01 * np.abs(kernel).sum() and weight > noise)
