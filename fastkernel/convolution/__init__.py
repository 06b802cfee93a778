"""Convolution and what goes with it: as a matrix, as an operator, and circular shifts.

`convolve` holds the public functions and the adjoint, `convolution_engines` the jobs that compute
them tile by tile, which also serve estimation and restoration, `convolution_cost` the model that
chooses among these.

Comes in: an image and a kernel. Goes out: the convolution, its adjoint, or its matrix. May import:
`_images`, `_machine`, `_loops`.
"""
