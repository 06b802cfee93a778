"""Unknowns: what a fit finds itself, where its arguments say "auto".

Each module looks for one thing and says what it found, and how surely: `kernel_shape` the size, by
what kernels of nested sizes leave of pixels that they were not fitted to (`held_out`), without
those that may be clipped (`clipping`); `offset` how far the result was moved (`correlation`);
`light` whether levels or what they stand for were convolved; `background` what stands beside the
convolution; `border` the rule that made the rim. `asked` is what is known before, `finding` looks
for all that is not, one thing after the other, and `findings` says what it found.

Comes in: pairs of images, and what is known of them. Goes out: small dataclasses. May import:
`equations`, `solvers`, `problem`, `display`, and every floor below.
"""
