"""The machine: jobs on threads, plans of FFTW, transforms of whole images.

Comes in: arrays, jobs, and rows that are read when they are needed. Goes out: results in the order
of the jobs, the same bit for bit on any number of threads. Borders, kernels and arguments of users
are unknown here. May import: `_loops`.
"""
