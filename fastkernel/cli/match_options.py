"""The options of ``match``."""

import argparse

from fastkernel.cli import values
from fastkernel.cli.common_options import add_reading


def add_match(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``match``."""
    parser.usage = "%(prog)s SCIENCE REFERENCE -o FILE [OPTION...]"
    parser.description = (
        "Subtract REFERENCE from SCIENCE, two aligned images of one scene, once the sharper one is "
        "convolved by a kernel that varies over the image and makes it like the other. Files: FITS "
        "(of several images the first, or as in FILE[NAME] or FILE[2] the one that is named), "
        ".npy, TIFF, PNG. NaN are pixels that are not known."
    )
    add = parser.add_argument
    add("science", metavar="SCIENCE", help="image of which the other is taken")
    add("reference", metavar="REFERENCE", help="image that is taken from it, of the same size")
    add(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="what to write: .fits (the difference with SCIENCE's header, and the extensions "
        "VARIANCE and MASK) or .npz; the bits of the mask are those of MatchFlag",
    )
    add("--force", action="store_true", help="overwrite the output file")
    add("--json", action="store_true", help="print one JSON object in place of text")
    add(
        "-k",
        "--size",
        type=values.size,
        metavar="P[xQ]",
        help="kernel size in taps: 15, or rows x columns; by the widths of the images without it",
    )
    add(
        "--degree",
        type=values.degree,
        default=2,
        metavar="N",
        help="of the taps over the image (2)",
    )
    add(
        "--background",
        type=values.level,
        default=2,
        metavar="B",
        help="what is fitted beside: none, constant, or a polynomial degree up to 4 (2)",
    )
    for image in ("science", "reference"):
        add(
            f"--{image}-mask",
            metavar="FILE",
            help=f"where {image.upper()} is bad: not 0 in this image, or in this extension of "
            "its own file, as in [MASK]",
        )
        add(
            f"--{image}-variance",
            type=values.variance,
            metavar="V",
            help=f"of the noise of {image.upper()}: a number, a file or an extension as above; "
            "estimated without it",
        )
    add(
        "--saturation",
        type=values.number,
        metavar="X",
        help="level from which on pixels are saturated",
    )
    add(
        "--direction",
        choices=("auto", "reference", "science"),
        metavar="IMAGE",
        default="auto",
        help="which image is convolved: the sharper one (auto, the default), or always one",
    )
    add(
        "--no-decorrelate",
        dest="decorrelate",
        action="store_false",
        help="leave the noise of the difference as the convolution correlates it",
    )
    add_reading(parser)
