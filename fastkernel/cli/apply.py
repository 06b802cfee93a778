"""``fastkernel apply``: image files convolved with a kernel."""

import argparse
from typing import Any

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
        if options.verbose:
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
    from fastkernel._images.checks import float_dtype
    from fastkernel.convolution.convolution_engines import Correlation
    from fastkernel.convolution.request import as_request

    asked: Any = "same", "zero", "auto", 0.0
    (m, n), dtype = image.shape[:2], float_dtype(image)
    request = as_request(kernel, (m, n), dtype, *asked, flipped=True)
    return Correlation([], request.taps, request.window).chosen("auto")
