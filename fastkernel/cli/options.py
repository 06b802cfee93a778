"""The options of the command, as argparse reads them."""

import argparse
from collections.abc import Sequence
from typing import NoReturn, get_args

from fastkernel import __version__
from fastkernel._typing import Symmetry
from fastkernel.cli import values
from fastkernel.cli.errors import UsageError
from fastkernel.cli.kernels import FORMS

BOUNDARIES = ("zero", "circular", "replicate", "symmetric", "mirror")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        msg = f"{message}; see '{self.prog} --help'"
        raise UsageError(msg)


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the options; raise `UsageError` where they are wrong."""
    parser = _Parser(
        prog="fastkernel",
        description="Recover the convolution kernel that turned one image into another; apply, "
        "undo and invert kernels.",
    )
    parser.add_argument("--version", action="version", version=f"fastkernel {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_estimate(commands.add_parser("estimate", help="fit the kernel between two image files"))
    _add_demo(commands.add_parser("demo", help="blur a drawn picture, then recover the kernel"))
    _add_apply(commands.add_parser("apply", help="convolve an image file with a kernel"))
    _add_restore(commands.add_parser("restore", help="undo a known blur of an image file"))
    _add_invert(commands.add_parser("invert", help="find the kernel that undoes another"))
    _add_match(commands.add_parser("match", help="subtract two image files of one scene"))
    doctor = commands.add_parser("doctor", help="show versions, processor, cache and licences")
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="show tracebacks of errors")
        command.description = command.description or command.prog
    doctor.description = "Show what a bug report needs."
    return parser.parse_args(argv)


def _add_estimate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Fit the kernel that turns SOURCE into RESULT by convolution, and say how far to believe "
        "it. RESULT has the size of SOURCE, or is smaller ('valid') or larger ('full') by the "
        "kernel's size minus one. Files: PNG, JPEG, TIFF (8 and 16 bits, float) and .npy."
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
        help="write the kernel: .npy, .csv (full precision) or .png (enlarged, to look at)",
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
    _add_reading(parser)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--drop-alpha", action="store_true", help="ignore the alpha channel of the files")
    add("--workers", type=values.count, metavar="N", help="threads (all cores)")
    add(
        "--max-pixels",
        type=values.count,
        default=2**28,
        metavar="N",
        help="refuse larger images before decoding them (%(default)s)",
    )


def _add_making(parser: argparse.ArgumentParser) -> None:
    """Add what commands share that make an image from an image."""
    add = parser.add_argument
    add("image", metavar="IMAGE", help="PNG, JPEG, TIFF or .npy; photographs are turned upright")
    add(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="image to write, of IMAGE's dtype: .png, .tif or .npy",
    )
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
        choices=("none", "srgb"),
        default="none",
        help="take the stored values as they are (none, the default), or the light that the sRGB "
        "levels of 8 and 16 bit files stand for (srgb)",
    )


def _add_apply(parser: argparse.ArgumentParser) -> None:
    parser.description = "Convolve IMAGE with KERNEL; the result has the size of IMAGE."
    _add_making(parser)
    add = parser.add_argument
    add("kernel", metavar="KERNEL", help=FORMS)
    add(
        "--boundary",
        choices=BOUNDARIES,
        default="replicate",
        metavar="RULE",
        help=f"what stands beyond the border: {', '.join(BOUNDARIES)} (%(default)s)",
    )
    add("--correlation", action="store_true", help="correlate: the kernel is not flipped")
    _add_reading(parser)


def _add_restore(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Undo the blur KERNEL of IMAGE: by a Wiener filter, by Richardson-Lucy iterations, or by "
        "plain division of the spectra, which takes no noise, not even the rounding to 8 bits. "
        "A lens blurs light, a photograph holds sRGB levels: see --transfer."
    )
    _add_making(parser)
    add = parser.add_argument
    add("--kernel", required=True, metavar="KERNEL", help=FORMS)
    add(
        "--keep-sum",
        action="store_true",
        help="take taps that do not sum to 1 as they stand, and so undo a change of brightness; "
        "without it they are divided by their sum, and the picture keeps its brightness",
    )
    add(
        "--method",
        choices=("wiener", "richardson-lucy", "inverse"),
        default="wiener",
        metavar="NAME",
        help="wiener (the default), richardson-lucy or inverse",
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
        help="of --method richardson-lucy: iterations (50)",
    )
    add(
        "--tol",
        type=values.penalty,
        metavar="X",
        help="of --method richardson-lucy: stop at this relative change",
    )
    add(
        "--damping",
        type=values.penalty,
        metavar="X",
        help="of --method richardson-lucy: weight of total variation, as in 0.002",
    )
    add(
        "--noise",
        type=values.noise,
        metavar="X",
        help="of --method richardson-lucy: stop where the blur fits as well as noise of this "
        "standard deviation allows, in units of IMAGE (of light from 0 to 1 with --transfer "
        "srgb); or poisson, for counts",
    )
    add(
        "--no-acceleration",
        dest="acceleration",
        action="store_const",
        const=False,
        help="of --method richardson-lucy: plain iterations",
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
        help="what stood beyond the border: unknown (richardson-lucy; wiener where a guess would "
        "ring), circular (inverse) unless given; zero, replicate and mirror are of "
        "richardson-lucy, edge_taper of the others",
    )
    _add_reading(parser)


def _add_invert(parser: argparse.ArgumentParser) -> None:
    parser.description = "Find the kernel whose convolution with KERNEL is nearest to a single 1."
    add = parser.add_argument
    add("kernel", metavar="KERNEL", help=FORMS)
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
        ".csv (full precision) or .png (enlarged, to look at)",
    )
    add("--plot", metavar="FILE", help="draw the inverse and how far from exact it is, .png")
    add("--force", action="store_true", help="overwrite the output files")
    add("--workers", type=values.count, metavar="N", help="threads (all cores)")


def _add_match(parser: argparse.ArgumentParser) -> None:
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
        default="auto",
        help="which image is convolved: the sharper one (auto, the default), or always one",
    )
    add(
        "--no-decorrelate",
        dest="decorrelate",
        action="store_false",
        help="leave the noise of the difference as the convolution correlates it",
    )
    _add_reading(parser)


def _add_methods(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("method").add_argument
    add(
        "--method",
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
        choices=get_args(Symmetry),
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


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Draw a picture of overlapping discs, blur it by a known kernel, round it to 8 bits, "
        "recover the kernel, and write everything to a folder."
    )
    add = parser.add_argument
    add(
        "-o", "--output", default="fastkernel-demo", metavar="FOLDER", help="where to (%(default)s)"
    )
    add(
        "--size",
        type=values.count,
        default=512,
        metavar="N",
        help="pixels along a side (%(default)s)",
    )
    add(
        "--seed",
        type=values.seed,
        default=0,
        metavar="N",
        help="draws another picture (%(default)s)",
    )
    add("--force", action="store_true", help="overwrite the files of an earlier demo")
