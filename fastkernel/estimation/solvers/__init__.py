"""Solvers: normal equations in, taps out. They see no pixel.

`solve` chooses by the `SolverOptions` of `options`, which own what may be asked, its defaults and
its refusals. `bases` spans the kernels to choose from, `direct` factorises, `constraints` keeps
signs and sums, `penalties` weighs taps, `interior_point` bounds the work of nonnegative fits,
`descents` and `separable` iterate, `conjugate_gradients` solves what is only applied.

Comes in: a `System` of arrays. Goes out: a `Solution`, taps and what is to say of them. May
import: `_images`, `_machine`, `_loops`, and nothing else of `estimation`.
"""
