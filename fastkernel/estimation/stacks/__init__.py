"""Many small pairs of images, a kernel for each.

Comes in: stacks of images, or places of stamps in one pair. Goes out: a `KernelStack`. May import:
`equations`, `solvers`, `display`, `problem`, and every floor below.
"""
