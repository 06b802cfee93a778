"""The options of ``estimate``."""

import argparse

from fastkernel.cli import values
from fastkernel.cli.common_options import add_reading
from fastkernel.cli.words import BOUNDARIES, SYMMETRIES


def add_estimate(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``estimate``."""
    parser.usage = "%(prog)s SOURCE RESULT [OPTION...]"
    parser.description = (
        "Fit the kernel that turns SOURCE into RESULT by convolution, and say how far to believe "
        "it. RESULT has the size of SOURCE, or is smaller ('valid') or larger ('full') by the "
        "kernel's size minus one. Files: PNG, JPEG, TIFF, WebP, BMP, GIF, PGM, PPM, FITS and .npy; "
        "- is standard input."
    )
    add = parser.add_argument
    add("source", metavar="SOURCE", help="image before the convolution")
    add("result", metavar="RESULT", help="image after it")
    add(
        "-k",
        "--size",
        type=values.size,
        metavar="P[xQ]",
        help="kernel size in taps: 5, or rows x columns as in 7x9; without it all that is not told "
        "is found: the size, up to 15, the offset, the background and the border",
    )
    add(
        "--offset",
        type=values.offset,
        metavar="ROWS,COLS",
        help="by how many pixels RESULT was moved down and to the right, as in 5,-3 (or "
        "--offset=-5,3); or auto",
    )
    add(
        "-o",
        "--output",
        metavar="FILE",
        help="write the kernel: .npz (with the light and the level that were found, which apply "
        "and restore then use), .npy, .csv (taps alone) or .png (enlarged, to look at); - is "
        "standard output",
    )
    add(
        "--format",
        choices=("npz", "npy", "csv", "png"),
        metavar="KIND",
        help="of the kernel, whatever its name: npz, npy, csv or png; npz on standard output",
    )
    add("--force", action="store_true", help="overwrite the output file")
    add(
        "--report",
        metavar="FILE",
        help="write all that is known of the kernel: .html (one page, with pictures) or .txt",
    )
    add("--json", action="store_true", help="print one JSON object in place of text")
    add("--strict", action="store_true", help="exit with 5 where the verdict is disbelief")
    add("--normalize", action="store_true", help="divide the kernel by the sum of its taps")
    add(
        "--correlation",
        action="store_true",
        help="flip the kernel both ways, as GIMP, OpenCV and other correlating tools take it",
    )
    add(
        "--transfer",
        choices=("auto", "none", "srgb"),
        metavar="LIGHT",
        default="auto",
        help="fit the stored values (none), light decoded from sRGB (srgb), or whichever "
        "explains 8 and 16 bit files better (auto, the default)",
    )
    add(
        "--boundary",
        choices=BOUNDARIES,
        metavar="RULE",
        help=f"how pixels beyond the border were made: {', '.join(BOUNDARIES)}; without it, "
        "results of SOURCE's size are fitted where no border rule matters",
    )
    _add_methods(parser)
    add_reading(parser)


def _add_methods(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("method").add_argument
    add(
        "--method",
        type=values.method,
        choices=("lstsq", "fft", "lad", "richardson_lucy"),
        default="lstsq",
        metavar="NAME",
        help="lstsq: least squares (the default); fft: division of spectra; lad: least absolute "
        "deviation, where part of RESULT is wrong; richardson_lucy: for a kernel without negative "
        "taps",
    )
    add(
        "--solver",
        choices=(
            "auto",
            "minimum_norm",
            "gradient_descent",
            "fista",
            "linear_programming",
            "reweighted",
        ),
        default="auto",
        metavar="NAME",
        help="of lstsq: auto, minimum_norm, gradient_descent, fista; of lad: auto, "
        "linear_programming, reweighted",
    )
    add("--nonnegative", action="store_true", help="no tap below 0")
    add("--unit-sum", action="store_true", help="taps of sum 1")
    add(
        "--symmetric",
        choices=SYMMETRIES,
        metavar="NAME",
        help="a kernel that equals itself turned by half a turn (even) or a quarter (rotation), "
        "in a mirror (left_right, up_down, mirror for both) or in all these ways (square)",
    )
    add("--separable", action="store_true", help="a kernel that is a column times a row")
    add(
        "--background",
        type=values.background,
        metavar="B",
        help="fit a level beside the kernel: constant, a polynomial degree up to 4, or auto; on "
        "stored values",
    )
    add(
        "--ridge",
        type=values.ridge,
        default=0.0,
        metavar="X",
        help="penalty on large taps (0), gcv to choose it, or smooth:X or smooth:gcv on rough ones",
    )
    add("--step", type=values.penalty, metavar="X", help="of a descent (the largest safe one)")
    add("--num-iter", type=values.count, metavar="N", help="most iterations, of what iterates")
    add("--tol", type=values.penalty, metavar="X", help="where iterations end")
    add("--epsilon", type=values.penalty, metavar="X", help="guard of fft (from the noise)")
    add("--taper", type=values.penalty, metavar="X", help="part of each side that fft fades: 0.1")
    add("--plot", metavar="FILE", help="draw the kernel, with its errors or the convergence, .png")
