"""``fastkernel apply``: an image file convolved with a kernel."""

import argparse
from pathlib import Path

import numpy as np

from fastkernel.cli.files import read_picture
from fastkernel.cli.images import check_image_target, image_bytes, remake
from fastkernel.cli.kernels import read_kernel
from fastkernel.cli.output import write_file


def run(options: argparse.Namespace) -> None:
    """Read, convolve, write."""
    from fastkernel import convolve

    kernel = read_kernel(options.kernel)
    if options.correlation:
        kernel = np.ascontiguousarray(kernel[::-1, ::-1])
    picture = read_picture(
        options.image, max_pixels=options.max_pixels, drop_alpha=options.drop_alpha
    )
    inputs = options.image, options.kernel
    target = check_image_target(options.output, picture, force=options.force, inputs=inputs)
    pixels = remake(
        picture,
        lambda image, channel_axis: convolve(
            image,
            kernel,
            "same",
            options.boundary,
            channel_axis=channel_axis,
            workers=options.workers,
        ),
        clip=options.clip,
    )
    write_file(target, image_bytes(pixels, Path(options.output).suffix.lower()))
    print(f"wrote {options.output!r}")
