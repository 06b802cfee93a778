"""Images cropped so that their shapes fit a kernel: views, no copies."""

from collections.abc import Sequence

from fastkernel._images.pairs import in_memory
from fastkernel._images.usable import Observed
from fastkernel._typing import AnyArray, Shape


def lost(images: Observed) -> Shape:
    """Return how many rows and columns the result has fewer than the source.

    Raises
    ------
    ValueError
        If it has fewer along one axis and more along the other: no kernel leaves such a result.
    """
    (m, n), (rows, cols) = images.source.shape, images.result.shape
    if (m - rows) * (n - cols) < 0:
        msg = (
            f"result must be as large as source {(m, n)}, smaller ('valid') or larger ('full'), "
            f"along both axes, got {(rows, cols)}"
        )
        raise ValueError(msg)
    return m - rows, n - cols


def told_shape(images: Observed) -> Shape | None:
    """Return the kernel that the images' shapes tell; None where these are alike."""
    rows, cols = lost(images)
    return None if (rows, cols) == (0, 0) else (abs(rows) + 1, abs(cols) + 1)


def fitted_to(images: Observed, kernel_shape: Shape) -> Observed:
    """Return images cropped so that a "valid" or "full" pair is one of a kernel of some shape.

    The kernel's centre tap stays where it was: that of the kernel that the shapes tell. A "same"
    pair is returned as it is. A "full" one whose kernel would be larger is cropped to "same", for
    which zeros beyond the frame are known.

    Parameters
    ----------
    images : Observed
        A pair.
    kernel_shape : (int, int)
        ``(p, q)``.

    Returns
    -------
    Observed
        Of views.
    """
    missing = lost(images)
    if missing == (0, 0):
        return images
    sides = [
        *zip(images.source.shape, images.result.shape, kernel_shape, strict=True),
    ]
    if min(missing) < 0 and any(m + k - 1 > rows for m, rows, k in sides):
        spans = [_centred(m, rows, 1) for m, rows, _ in sides]
    else:
        spans = [_centred(*side) for side in sides]
    (rows, below), (cols, right) = spans
    return cropped(images, (rows, cols), (below, right))


def _centred(m: int, rows: int, k: int) -> tuple[slice, slice]:
    """Return the pixels of a line of the source and of the result that a kernel's size goes with.

    A result's pixel ``t`` stands on the source's pixel ``t + (m - rows + 1) // 2``.
    """
    ahead = (m - rows + 1) // 2
    if rows > m:
        before = (k - 1) // 2
        return slice(0, m), slice(-ahead - before, -ahead - before + m + k - 1)
    first = max(k // 2, ahead)
    last = min(m - (k - 1) // 2, ahead + rows)
    return slice(first - k // 2, last + (k - 1) // 2), slice(first - ahead, last - ahead)


def cropped(images: Observed, source: tuple[slice, slice], result: tuple[slice, slice]) -> Observed:
    """Return parts of a source and of its result, with what is known of their pixels."""

    def part(image: AnyArray | None, where: tuple[slice, slice]) -> AnyArray | None:
        return None if image is None else in_memory(image)[where]

    before = [part(image, source) for image in (images.source, images.source_bad)]
    after = [part(image, result) for image in (images.result, images.result_bad, images.weights)]
    return Observed(
        before[0], after[0], before[1], after[1], after[2], part(images.source_variance, source)
    )


def moved(images: Observed, offset: Shape) -> Observed:
    """Return the common part of a source and of a result that was moved.

    Parameters
    ----------
    images : Observed
        A pair.
    offset : (int, int)
        By how many rows and columns the result was moved down and to the right.

    Returns
    -------
    Observed
        Of views, whose shapes differ by as much as they did.

    Raises
    ------
    ValueError
        If nothing is left in common.
    """
    if offset == (0, 0):
        return images
    spans = []
    for move, m, n in zip(offset, images.source.shape, images.result.shape, strict=True):
        if abs(move) >= min(m, n):
            msg = (
                f"offset must be smaller than the images, got {offset} for source "
                f"{images.source.shape} and result {images.result.shape}"
            )
            raise ValueError(msg)
        spans.append(
            (slice(max(-move, 0), m - max(move, 0)), slice(max(move, 0), n - max(-move, 0)))
        )
    (rows, below), (cols, right) = spans
    return cropped(images, (rows, cols), (below, right))


def largest_shape(images: Sequence[Observed], most: int) -> Shape:
    """Return the largest kernel worth looking for: not past a third of any image's side."""
    told = [shape for pair in images if (shape := told_shape(pair)) is not None]
    return (
        _largest([pair.result.shape[0] for pair in images], [s[0] for s in told], most),
        _largest([pair.result.shape[1] for pair in images], [s[1] for s in told], most),
    )


def _largest(sides: Sequence[int], told: Sequence[int], most: int) -> int:
    # Shapes that tell a kernel of thousands are those of a detail, not of a convolution.
    if told and min(told) <= 2 * most + 1:
        most = min(told)
    return max(1, min(most, (min(sides) + 1) // 3))
