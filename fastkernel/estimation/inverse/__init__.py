"""Inverse kernels: the kernel that undoes another, by the equations of a fit to a single 1.

`inverse_kernel` holds the public function and its `InverseFit`, `inverse_methods` the ways to
find one.

Comes in: a kernel and the inverse's shape. Goes out: an `InverseFit`. May import: `solvers`,
`display`, and every floor below `estimation`.
"""
