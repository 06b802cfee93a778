"""The options of the commands that take a kernel: ``apply``, ``restore`` and ``invert``."""

import argparse

from fastkernel.cli import values
from fastkernel.cli.common_options import add_kernel, add_reading
from fastkernel.cli.words import BOUNDARIES, KERNEL_FORMS

# What images are written as, by the names that suffixes have.
WRITTEN = ("png", "jpg", "tif", "webp", "bmp", "pgm", "ppm", "fits", "npy")


def _add_making(parser: argparse.ArgumentParser) -> None:
    """Add what commands share that make an image from an image."""
    add = parser.add_argument
    add("first", metavar="KERNEL", help=KERNEL_FORMS)
    add(
        "others",
        nargs="*",
        metavar="IMAGE",
        help="PNG, JPEG, TIFF, WebP, BMP, GIF, PGM, PPM, FITS or .npy, folders of them, or - for "
        "standard input; photographs are turned upright",
    )
    add_kernel(parser)
    add(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="image to write, of IMAGE's dtype: .png, .jpg, .tif, .webp, .bmp, .pgm, .ppm, .fits "
        "or .npy; - for standard output; of several images a folder, where they keep their names",
    )
    add(
        "--format",
        choices=WRITTEN,
        metavar="KIND",
        help=f"of what is written, whatever its name: {', '.join(WRITTEN)}; without it that of the "
        "name, or of IMAGE",
    )
    add(
        "--quality",
        type=values.quality,
        metavar="Q",
        help="of JPEG, from 1 to 100 (95), and of WebP, which loses nothing without it",
    )
    add("--json", action="store_true", help="print one JSON object in place of text")
    add("--force", action="store_true", help="overwrite the output file")
    add(
        "--float",
        action="store_true",
        help="write pixels as they are computed, not rounded to IMAGE's dtype: .tif or .npy",
    )
    add(
        "--clip",
        action="store_true",
        help="clip floats to the range of IMAGE; whole grey levels always are clipped",
    )
    add(
        "--transfer",
        choices=("auto", "none", "srgb"),
        metavar="LIGHT",
        default="auto",
        help="take the stored values as they are (none), the light that the sRGB levels of 8 and "
        "16 bit files stand for (srgb), or what a kernel of estimate was found for, and without "
        "that the stored values (auto, the default)",
    )


def add_apply(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``apply``."""
    parser.usage = "%(prog)s KERNEL IMAGE... -o FILE [OPTION...]"
    parser.description = "Convolve every IMAGE with KERNEL; the result has the size of IMAGE."
    _add_making(parser)
    add = parser.add_argument
    add(
        "--boundary",
        choices=BOUNDARIES,
        default="replicate",
        metavar="RULE",
        help=f"what stands beyond the border: {', '.join(BOUNDARIES)} (%(default)s)",
    )
    add("--correlation", action="store_true", help="correlate: the kernel is not flipped")
    add_reading(parser)


def add_restore(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``restore``."""
    parser.usage = "%(prog)s KERNEL IMAGE... -o FILE [OPTION...]"
    parser.description = (
        "Undo the blur KERNEL of every IMAGE: by a Wiener filter, by Richardson-Lucy iterations, "
        "or by plain division of the spectra, which takes no noise, not even the rounding to 8 "
        "bits. A lens blurs light, a photograph holds sRGB levels: see --transfer."
    )
    _add_making(parser)
    add = parser.add_argument
    add(
        "--keep-sum",
        action="store_true",
        help="take taps that do not sum to 1 as they stand, and so undo a change of brightness; "
        "without it they are divided by their sum, and the picture keeps its brightness",
    )
    add(
        "--method",
        type=values.method,
        choices=("wiener", "richardson_lucy", "inverse"),
        default="wiener",
        metavar="NAME",
        help="wiener (the default), richardson_lucy or inverse",
    )
    add(
        "--balance",
        type=values.balance,
        metavar="X",
        help="of --method wiener: weight of smoothness, or gcv to choose it (the default)",
    )
    add(
        "--num-iter",
        type=values.count,
        metavar="N",
        help="of --method richardson_lucy: iterations (50)",
    )
    add(
        "--tol",
        type=values.penalty,
        metavar="X",
        help="of --method richardson_lucy: stop at this relative change",
    )
    add(
        "--damping",
        type=values.penalty,
        metavar="X",
        help="of --method richardson_lucy: weight of total variation, as in 0.002",
    )
    add(
        "--noise",
        type=values.noise,
        metavar="X",
        help="of --method richardson_lucy: stop where the blur fits as well as noise of this "
        "standard deviation allows, in units of IMAGE (of light from 0 to 1 with --transfer "
        "srgb); or poisson, for counts",
    )
    add(
        "--no-acceleration",
        dest="acceleration",
        action="store_const",
        const=False,
        help="of --method richardson_lucy: plain iterations",
    )
    add(
        "--epsilon",
        type=values.penalty,
        metavar="X",
        help="of --method inverse: added to the spectrum (1e-5)",
    )
    add(
        "--guarded",
        action="store_const",
        const=True,
        help="of --method inverse: noise grows by no more than 1 / (2 epsilon)",
    )
    add(
        "--boundary",
        choices=(*BOUNDARIES, "edge_taper", "unknown"),
        metavar="RULE",
        help="what stood beyond the border: unknown (richardson_lucy; wiener where a guess would "
        "ring), circular (inverse) unless given; zero, replicate and mirror are of "
        "richardson_lucy, edge_taper of the others",
    )
    add_reading(parser)


def add_invert(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``invert``."""
    parser.usage = "%(prog)s KERNEL --size P[xQ] [OPTION...]"
    parser.description = "Find the kernel whose convolution with KERNEL is nearest to a single 1."
    add = parser.add_argument
    add("kernel", metavar="KERNEL", nargs="?", help=KERNEL_FORMS)
    add("--kernel", dest="kernel_option", metavar="KERNEL", help="the same, as in other commands")
    add(
        "--size",
        type=values.size,
        required=True,
        metavar="P[xQ]",
        help="size of the inverse in taps: 9, or rows x columns as in 9x15",
    )
    add(
        "--method",
        choices=("lstsq", "matrix", "fft"),
        default="lstsq",
        metavar="NAME",
        help="lstsq: least squares (the default); matrix: the row at the centre of the "
        "pseudo-inverse of the filtering matrix; fft: division of spectra",
    )
    add("--ridge", type=values.penalty, default=0.0, metavar="X", help="penalty on large taps (0)")
    add(
        "--boundary",
        choices=BOUNDARIES,
        metavar="RULE",
        help="of --method matrix: what stands beyond the border: "
        f"{', '.join(BOUNDARIES)} (zero unless given)",
    )
    add(
        "-o",
        "--output",
        metavar="FILE",
        help="write the inverse, centred so that apply brings the picture back in its place: .npy, "
        ".npz, .csv (full precision) or .png (enlarged, to look at); - is standard output",
    )
    add(
        "--format",
        choices=("npz", "npy", "csv", "png"),
        metavar="KIND",
        help="of the inverse, whatever its name: npz, npy, csv or png; npy on standard output",
    )
    add("--json", action="store_true", help="print one JSON object in place of text")
    add("--plot", metavar="FILE", help="draw the inverse and how far from exact it is, .png")
    add("--force", action="store_true", help="overwrite the output files")
    add("--workers", type=values.count, metavar="N", help="threads (all cores)")
