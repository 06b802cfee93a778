"""Restoration: a blurred image and its PSF come in, the image before the blur goes out.

By one division of spectra (`linear_filters`), by conjugate gradients where nothing is assumed
beyond the frame (`unknown_border`), by Richardson-Lucy iterations, or by any of these on tiles
that overlap (`tiled`). It imports `convolution`, `_images`, `_machine` and what they import, never
`estimation`: where the PSF comes from is no matter here.
"""
