"""Files of stored levels, and the light they stand for."""

from fastkernel._images.levels import decode as decode_levels
from fastkernel._images.levels import encode as encode
from fastkernel._typing import AnyArray
from fastkernel.cli.picture import Picture


def decode(picture: Picture) -> AnyArray:
    """Return linear light from 0 to 1."""
    return decode_levels(picture.pixels, (1 << (picture.bits or 0)) - 1)
