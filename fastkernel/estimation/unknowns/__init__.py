"""Unknowns: what a fit finds itself, where its arguments say "auto".

`kernel_shape` finds the size of a kernel, by what kernels of nested sizes leave of pixels that they
were not fitted to (`held_out`), without the pixels that may be clipped (`clipping`). `matching`
crops images so that their shapes fit a kernel, and `found` finds what a problem leaves open.

Comes in: pairs of images, and what is known of them. Goes out: small dataclasses. May import:
`equations`, `solvers`, `problem`, `display`, and every floor below.
"""
