"""A picture to try things on: discs that occlude each other, at every scale, and grain."""

import numpy as np

from fastkernel._typing import AnyArray

_SMALLEST_RADIUS = 2.0
_DISCS_PER_DRAW = 4096

# Standard deviation of grain in grey levels, and how far from black and white the discs stay.
_GRAIN, _ROOM = 3.0, 12


def dead_leaves(side: int, rng: np.random.Generator) -> AnyArray:
    """Draw opaque discs until they cover the picture.

    Parameters
    ----------
    side : int
        Rows and columns of the picture.
    rng : numpy.random.Generator
        Where discs, radii and grey levels come from.

    Returns
    -------
    (side, side) uint8 array
        Grey levels.

    Notes
    -----
    Radii follow the law :math:`r^{-3}`, under which the picture looks alike at every scale, as
    photographs do [1]_. The discs are drawn front to back, so that each pixel is written once.

    References
    ----------
    .. [1] A. B. Lee, D. Mumford and J. Huang, "Occlusion models for natural images", Int. J.
       Comput. Vision 41 (2001) 35, doi:10.1023/A:1011109015675.
    """
    largest = max(side / 4, 2 * _SMALLEST_RADIUS)
    picture = np.zeros((side, side), np.uint8)
    bare = np.ones((side, side), bool)
    while bare.any():
        # By inverting the distribution function of r^-3 between the two radii.
        low, high = _SMALLEST_RADIUS**-2, largest**-2
        radii = (low - rng.random(_DISCS_PER_DRAW) * (low - high)) ** -0.5
        centres = rng.uniform(-largest, side + largest, (_DISCS_PER_DRAW, 2))
        levels = rng.integers(0, 256, _DISCS_PER_DRAW, dtype=np.uint8)
        touching = ((centres > -radii[:, None]) & (centres < side + radii[:, None])).all(axis=1)
        for (row, col), radius, level in zip(
            centres[touching], radii[touching], levels[touching], strict=True
        ):
            rows, cols = (
                slice(max(0, int(c - radius)), min(side, int(c + radius) + 2)) for c in (row, col)
            )
            box = bare[rows, cols]
            r, c = np.ogrid[rows, cols]
            fresh = box & ((r - row) ** 2 + (c - col) ** 2 <= radius**2)
            picture[rows, cols][fresh] = level
            box[fresh] = False
    return picture


def grained(picture: AnyArray, rng: np.random.Generator) -> AnyArray:
    """Add the grain of a photograph to a drawing.

    Parameters
    ----------
    picture : (rows, cols) uint8 array
        Grey levels from 0 to 255.
    rng : numpy.random.Generator
        Where the grain comes from.

    Returns
    -------
    (rows, cols) uint8 array
        Grey levels, few of them black or white.

    Notes
    -----
    Error bars take what is left unexplained for independent from pixel to pixel. The rounding of a
    flat disc is the same everywhere on it; where there is grain, it is as good as random.
    """
    levels = _ROOM + picture * ((255 - 2 * _ROOM) / 255)
    return np.rint(levels + rng.normal(0, _GRAIN, picture.shape)).clip(0, 255).astype(np.uint8)
