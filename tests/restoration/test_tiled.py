"""Tiles of channels, and the balance that all of them share."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fastkernel import gcv_balance, restore_tiled, richardson_lucy, wiener

TILES = {"tile_shape": (10, 12), "halo": (3, 4)}
FIXED = {"balance": 0.1, "boundary": "symmetric"}


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("stacked", [False, True])
def test_channels_are_restored_one_by_one(axis, stacked, rng, tmp_path):
    planes, psfs = rng.random((3, 21, 30)).astype(np.float32), rng.random((3, 3, 4))
    image = np.moveaxis(planes, 0, axis)
    out = np.memmap(tmp_path / "out", np.float32, "w+", shape=image.shape)
    done = []
    psf = np.moveaxis(psfs, 0, axis) if stacked else psfs[0]
    found = restore_tiled(
        wiener,
        image,
        psf,
        out=out,
        channel_axis=axis,
        callback=lambda *counts: done.append(counts),
        **FIXED,
        **TILES,
    )
    assert found is out
    for i, plane in enumerate(np.moveaxis(found, axis, 0)):
        want = restore_tiled(wiener, planes[i], psfs[i if stacked else 0], **FIXED, **TILES)
        assert_array_equal(plane, want)
    assert done == [(i, 27) for i in range(1, 28)]


def test_tiles_must_share_a_balance(rng):
    image, psf = rng.random((21, 30)), np.ones((3, 3)) / 9
    message = r"balance must be a number, .* balance=gcv_balance\(part, psf\)"
    for restore, options in ((wiener, {}), (wiener, {"balance": "gcv"}), (partial(wiener), {})):
        with pytest.raises(ValueError, match=message):
            restore_tiled(restore, image, psf, **TILES, **options)
    chosen = gcv_balance(image[:15, :15], psf)
    by_keyword = restore_tiled(wiener, image, psf, balance=chosen, **TILES)
    fixed = partial(wiener, balance=chosen)
    assert_array_equal(restore_tiled(fixed, image, psf, **TILES), by_keyword)
    assert restore_tiled(richardson_lucy, image, psf, num_iter=2, **TILES).shape == image.shape


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel_axis": 3}, r"channel_axis must be an axis of a 3-dimensional image, got 3"),
        ({"psf": np.ones((3, 3, 2))}, r"psf must have as many channels as image"),
        ({"psf": np.ones((11, 3))}, r"psf must not be larger than a tile"),
        ({"out": np.zeros((21, 30))}, r"out must have shape \(21, 30, 3\), got \(21, 30\)"),
    ],
)
def test_refusals_of_channels(changes, message):
    arguments = {"psf": np.ones((3, 3)), "channel_axis": 2, "balance": 0.1} | changes
    with pytest.raises(ValueError, match=message):
        restore_tiled(wiener, np.ones((21, 30, 3)), arguments.pop("psf"), **TILES, **arguments)
