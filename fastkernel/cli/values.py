"""What the values of options are read as: each function raises for a text that it does not take."""

import argparse
import math
import re


def size(text: str) -> tuple[int, int]:
    """Read a kernel's rows and columns."""
    match = re.fullmatch(r"([1-9]\d{0,4})(?:[xX×]([1-9]\d{0,4}))?", text, re.ASCII)
    if match is None:
        msg = f"expected taps as in 5, or rows x columns as in 7x9, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    rows, cols = match.groups()
    return int(rows), int(cols or rows)


def offset(text: str) -> str | tuple[int, int]:
    """Read whole pixels down and to the right, or auto."""
    if text == "auto":
        return text
    match = re.fullmatch(r"([+-]?\d{1,6}),([+-]?\d{1,6})", text, re.ASCII)
    if match is None:
        msg = f"expected auto, or rows and columns as in 5,-3 (--offset=-5,3), got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(match[1]), int(match[2])


def count(text: str) -> int:
    """Read a whole number of at least 1."""
    if re.fullmatch(r"0*[1-9]\d{0,17}", text, re.ASCII) is None:
        msg = f"expected a whole number of at least 1, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def seed(text: str) -> int:
    """Read a whole number of at least 0."""
    if re.fullmatch(r"\d{1,18}", text, re.ASCII) is None:
        msg = f"expected a whole number of at least 0, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def background(text: str) -> str | int:
    """Read what is fitted beside a kernel."""
    if text in ("constant", "auto"):
        return text
    if re.fullmatch(r"[0-4]", text, re.ASCII) is None:
        msg = f"expected constant, or a degree from 0 to 4, or auto, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def level(text: str) -> str | int:
    """Read what is fitted beside a kernel, or none."""
    if text in ("none", "constant"):
        return text
    return degree(text)


def degree(text: str) -> int:
    """Read the degree of a polynomial."""
    if re.fullmatch(r"[0-4]", text, re.ASCII) is None:
        msg = f"expected a degree from 0 to 4, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def variance(text: str) -> float | str:
    """Read a number of at least 0, or the name of a file."""
    try:
        float(text)
    except ValueError:
        return text
    return penalty(text)


def number(text: str) -> float:
    """Read a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        msg = f"expected a number, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return value


def ridge(text: str) -> float | str | tuple[str, float | str]:
    """Read a penalty, or how it is chosen."""
    if text == "gcv":
        return text
    if text == "smooth:gcv":
        return "smooth", "gcv"
    if text.startswith("smooth:"):
        return "smooth", penalty(text.removeprefix("smooth:"))
    return penalty(text)


def balance(text: str) -> float | str:
    """Read a weight, or how it is chosen."""
    return text if text == "gcv" else penalty(text)


def noise(text: str) -> float | str:
    """Read a standard deviation, or poisson."""
    return text if text == "poisson" else penalty(text)


def penalty(text: str) -> float:
    """Read a finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        msg = f"expected a number of at least 0, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return value


def method(text: str) -> str:
    """Read the name of a method, spelt as in the library."""
    return text.replace("-", "_")


def quality(text: str) -> int:
    """Read a whole number from 1 to 100."""
    if re.fullmatch(r"[1-9]\d?|100", text, re.ASCII) is None:
        msg = f"expected a whole number from 1 to 100, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)
