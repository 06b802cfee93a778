"""SFFT's CPU backend as a worker, run by an environment of its own: it wants an older NumPy."""

import functools
import importlib.metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import worker

VERBOSE_LEVEL = -1  # 0 still prints


@functools.cache
def _configuration(shape: tuple[int, int], taps: int, workers: int) -> Any:
    """The functions that SFFT compiles for a size of image: paid once, as in its pipelines."""
    from sfft.sfftcore import SingleSFFTConfigure

    return SingleSFFTConfigure.SSC(
        NX=shape[0],
        NY=shape[1],
        KerHW=taps // 2,
        KerPolyOrder=0,  # one kernel for the whole image
        BGPolyOrder=0,  # a constant background cannot be switched off
        ConstPhotRatio=True,
        BACKEND_4SUBTRACT="Numpy",
        NUM_CPU_THREADS_4SUBTRACT=workers,
        VERBOSE_LEVEL=VERBOSE_LEVEL,
    )


def fit(source: NDArray, result: NDArray, taps: int, workers: int) -> NDArray:
    """The equations and their solution; the difference image is not asked for."""
    from sfft.sfftcore import ElementalSFFTSubtract
    from sfft.utils import Realize_MatchingKernel

    configuration = _configuration(source.shape, taps, workers)
    solution, _ = ElementalSFFTSubtract.ESS(
        PixA_I=source.astype(np.float64),
        PixA_J=result.astype(np.float64),
        SFFTConfig=configuration,
        Subtract=False,
        BACKEND_4SUBTRACT="Numpy",
        NUM_CPU_THREADS_4SUBTRACT=workers,
        VERBOSE_LEVEL=VERBOSE_LEVEL,
    )
    names = ("N0", "N1", "L0", "L1", "DK", "Fpq")
    place = Realize_MatchingKernel(np.ones((1, 2)))  # the kernel is the same everywhere
    return place.FromArray(solution, *(configuration[0][name] for name in names))[0]


if __name__ == "__main__":
    # What it compiles depends on the size of the images, so only a whole call is warm.
    worker.serve(fit, fit, lambda: importlib.metadata.version("sfft"))
