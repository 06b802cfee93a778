"""Differences of images: a pair matched by a kernel that varies, and what is left.

`exposures` makes the images ready, `direction` tells which is sharper, `noise` what noise they
have, `chosen_pixels` which of them a kernel is fitted to, `whitening` makes the noise of a
difference white; `match_images` brings these together.

Comes in: two images of one scene, and what is known of their pixels and noise. Goes out: an
`ImageMatch`. May import: `fields`, `quality`, `equations`, `polynomial`, and every floor below.
"""
