"""``fastkernel apply``: an image file convolved with a kernel."""

import argparse

import numpy as np

from fastkernel._typing import AnyArray
from fastkernel.cli.images import remake_file
from fastkernel.cli.kernels import read_kernel


def run(options: argparse.Namespace) -> None:
    """Read, convolve, write."""
    from fastkernel import convolve

    notes: list[str] = []
    kernel = read_kernel(options.kernel, notes.append)
    if options.correlation:
        kernel = np.ascontiguousarray(kernel[::-1, ::-1])

    def blurred(image: AnyArray, channel_axis: int | None) -> AnyArray:
        return convolve(
            image,
            kernel,
            "same",
            options.boundary,
            channel_axis=channel_axis,
            workers=options.workers,
        )

    remake_file(options, options.kernel, blurred, "convolved", notes)
