"""Unknowns: what a fit finds itself, where its arguments say "auto".

Each module looks for one thing and says what it found, and how surely: `kernel_shape` the size, by
what kernels of nested sizes leave of pixels that they were not fitted to (`held_out`); `offset` how
far the result was moved; `light` whether grey levels or what they stand for were convolved;
`background` what stands beside the convolution; `border` the rule that made the rim. `matching`
crops images so that their shapes fit a kernel, and `finding` looks for all that is asked, one thing
after the other.

Comes in: pairs of images, and what is known of them. Goes out: small dataclasses, and the `Problem`
that they leave. May import: `equations`, `solvers`, `problem`, `display`, `convolution`, `_images`,
`_machine`.
"""
