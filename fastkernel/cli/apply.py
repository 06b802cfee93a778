"""``fastkernel apply``: image files convolved with a kernel."""

import argparse

import numpy as np

from fastkernel._typing import AnyArray
from fastkernel.cli.images import remake_files
from fastkernel.cli.kernels import read_kernel_file
from fastkernel.cli.progress import ProgressBar
from fastkernel.cli.voice import Voice


def run(options: argparse.Namespace) -> None:
    """Read, convolve, write."""
    from fastkernel import convolve

    voice, notes = Voice(options), list[str]()
    found = read_kernel_file(options.kernel, notes.append)
    kernel = found.taps
    if options.correlation:
        kernel = np.ascontiguousarray(kernel[::-1, ::-1])
    if found.background:
        notes.append(f"background: {found.background:.4g}, found beside the kernel, is added")

    def blurred(image: AnyArray, channel_axis: int | None) -> AnyArray:
        voice.detail(f"engine: {_engine(image, kernel)}")
        made = convolve(
            image,
            kernel,
            "same",
            options.boundary,
            channel_axis=channel_axis,
            workers=options.workers,
        )
        return made + found.background if found.background else made

    remake_files(options, found, blurred, "convolved", notes, ProgressBar(quiet=options.quiet))


def _engine(image: AnyArray, kernel: AnyArray) -> str:
    """Return how an image is convolved, by the model of what that costs."""
    from fastkernel.convolution.convolution_cost import engine_times

    itemsize = 4 if image.dtype == np.float32 else 8
    times = dict(engine_times(image.shape[:2], kernel.shape, itemsize))
    if np.linalg.matrix_rank(kernel) > 1:
        times.pop("separable")
    return min(times, key=times.__getitem__)
