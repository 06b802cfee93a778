"""Estimation: from images to a kernel, and from a kernel to its inverse.

Data go one way. Arguments become what is fitted (`problem.Problem`), what is asked of the kernel
(the ``Options`` of a method) and how the work runs (`Run`); images become sums over their pixels
(`equations`); sums become taps (`solvers`); taps become the answer (`fit.fit_of`). `estimate`
holds `estimate_kernel`, `methods` what its ``method=`` chooses from, `fields` kernels that vary
over the image, `difference` what images of one scene leave of each other, `stacks` kernels of many
small pairs, `inverse` the inverse kernels, `display` figures and tables of answers.

Comes in: images, shapes, options. Goes out: `KernelFit`, `KernelField`, `ImageMatch`,
`KernelStack`, `NormalEquations`, `InverseFit`. May import: `convolution`, `_images`, `_machine`,
`_loops`; within, from the lower of `errors`, `problem`, `display`, `polynomial` and `quality`,
`solvers`, `fit`, `equations`, `methods`, `inverse`, `stacks` and `unknowns`, `estimate` and
`fields`, `difference`.
"""
