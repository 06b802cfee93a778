"""Sums of the source, or of the variance of its noise, over the pixels that every tap sees."""

from collections.abc import Sequence

import numpy as np

from fastkernel._images.pairs import Pair
from fastkernel._machine.run import Run
from fastkernel._typing import FloatArray, Shape
from fastkernel.estimation.equations.sweeps import View, sweep


def source_sums(pairs: Sequence[Pair], kernel_shape: Shape, run: Run) -> tuple[FloatArray, float]:
    r"""Return what every tap sees of the sources, and the sum over the results, by the weights.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one, in memory where it has masks or weights.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    run : Run
        How.

    Returns
    -------
    seen : (p, q) float64 array
        :math:`\sum_t w_t x_{t+a}`, by shift.
    counts : float
        :math:`\sum_t w_t y_t`.
    """

    def act(view: View, found: float | None) -> float:
        top, left, height, width = view.tile
        weights = view.scratch.array("weights", (height, width))
        if pairs[view.number].even:
            weights.fill(1.0)
        else:
            pairs[view.number].load_weights(top, left, weights)
        counts = float(np.sum(weights * view.y[:, :width]))
        view.y[:, :width] = weights
        return (found or 0.0) + counts

    seen, counts = np.zeros(kernel_shape), 0.0
    for _, moments, part in sweep(pairs, np.zeros(kernel_shape), act, run):
        seen += moments
        counts += part
    return seen, counts


def noise_energies(pairs: Sequence[Pair], kernel_shape: Shape, run: Run) -> FloatArray:
    r"""Return what the sources' noise adds to the diagonal of the Gram matrix.

    Parameters
    ----------
    pairs : sequence of Pair
        Of images in memory; those without a variance add nothing.
    kernel_shape : (int, int)
        ``(p, q)``, in pixels.
    run : Run
        How.

    Returns
    -------
    (p * q,) float64 array
        :math:`\sum_t w_t V_{t+a}` by tap. Where a border rule repeats pixels the same noise
        stands in two places, which this does not know of.
    """
    noisy = [
        pair._replace(source=pair.source_variance)
        for pair in pairs
        if pair.source_variance is not None
    ]
    return source_sums(noisy, kernel_shape, run)[0][::-1, ::-1].ravel()
