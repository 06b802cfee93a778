"""Equations: sums over the pixels of pairs, and the value that they make.

`sweeps` is the one way to pass over pixels; `gathering_engines` has the jobs that multiply them,
`gathering_cost` chooses among these, `gathering` adds up what they find and holds
`normal_equations`. `polynomial_sums` sums polynomials beside the kernel, `background` eliminates
them, `residual` sums what a kernel leaves, `unformed` has a Gram matrix that is applied and never
formed.

Comes in: pairs, a kernel's shape, a `Run`. Goes out: `NormalEquations`, which add, crop, keep and
solve, and see no pixel. May import: `solvers`, `fit`, `problem`, and every floor below.
"""
