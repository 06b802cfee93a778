"""What the machine does for every method: jobs on threads, plans of FFTW, transforms of images.

In come arrays, jobs, and rows that are read when they are needed; out go results in the order of
the jobs, the same bit for bit on any number of threads. Borders, kernels and arguments of users
are unknown here. Of fastkernel it imports `errors`, `_typing` and `_loops` alone.
"""
