"""Restoration: the image before a blur, from the blurred image and its PSF.

By one division of spectra (`linear_filters`), by conjugate gradients where nothing is assumed
beyond the frame (`unknown_border`), by Richardson-Lucy iterations, or by any of these on tiles
that overlap (`tiled`). Where the PSF comes from is no matter here.

Comes in: an image and a PSF. Goes out: the restored image. May import: `convolution`, `_images`,
`_machine`, `_loops`; never `estimation`.
"""
