"""What is fitted: the images, and what is known of how one was made from the other."""

from dataclasses import dataclass
from typing import Any

from fastkernel._images.checks import as_boundary, as_degree, as_kernel_shape, as_within
from fastkernel._images.pairs import Pair, as_pairs, pair_of
from fastkernel._images.usable import Observed, PixelRules
from fastkernel._images.windows import Within
from fastkernel._typing import Boundary, Images, Shape


@dataclass(frozen=True, slots=True)
class Problem:
    """Pairs of images, and what is known of the kernel that they share before it is looked for.

    Attributes
    ----------
    images : list of Observed
        At least one pair, with what is known of its pixels.
    kernel_shape : (int, int) or None
        Rows and columns of the kernel, in pixels; None for those of the images.
    boundary : str or None
        What stood beyond the source's frame; None where that is not known.
    background : int or None
        Degree of the polynomial beside the convolution; None where there is none.
    within : Within or None
        Where the only pair stands in a whole image, of which it is a part.
    may_be_clipped : bool
        Whether nothing is said of where the result's levels end.
    """

    images: list[Observed]
    kernel_shape: Shape | None
    boundary: Boundary | None = None
    background: int | None = None
    within: Within | None = None
    may_be_clipped: bool = False

    @property
    def shape(self) -> Shape:
        """The kernel's, where a method needs one; ValueError if it was left open."""
        # Given, it was checked.
        return self.kernel_shape or as_kernel_shape(self.kernel_shape)

    def pairs(self) -> list[Pair]:
        """Return the images with the windows that their shapes tell.

        Raises
        ------
        ValueError
            If a pair's shapes do not fit together, or the kernel does not fit inside.
        """
        shape = self.shape
        pairs = [pair_of(images, shape, self.boundary) for images in self.images]
        if self.within is None:
            return pairs
        return [pair._replace(part_of=_part_of(self.within, pair.window.shape)) for pair in pairs]


def _part_of(within: Within, window_shape: Shape) -> Within:
    """Return ``within``, known to hold a window; ValueError otherwise."""
    ends = (start + n for start, n in zip(within.origin, window_shape, strict=True))
    if any(end > length for end, length in zip(ends, within.shape, strict=True)):
        msg = (
            f"within must hold all {window_shape} fitted pixels of this part, got first pixel "
            f"{within.origin} in {within.shape}; it counts fitted pixels of the whole image, "
            'without the rim that "same" leaves out'
        )
        raise ValueError(msg)
    return within


def problem_of(
    source: Images,
    result: Images,
    kernel_shape: Any,
    boundary: Any,
    background: Any,
    channel_axis: int | None,
    rules: PixelRules | None = None,
    within: Any = None,
) -> Problem:
    """Return the arguments of `estimate_kernel` that say what is fitted, checked one by one."""
    images = as_pairs(source, result, channel_axis, rules)
    if within is not None and len(images) > 1:
        msg = (
            f"within must be None for {len(images)} pairs of images, which have backgrounds of "
            "their own; call once for each part of one pair"
        )
        raise ValueError(msg)
    return Problem(
        images,
        None if kernel_shape is None else as_kernel_shape(kernel_shape),
        None if boundary is None else as_boundary(boundary),
        None if background is None else as_degree(background),
        None if within is None else as_within(within),
        may_be_clipped=rules is not None and rules.saturation is None,
    )
