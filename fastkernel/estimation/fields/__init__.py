"""Kernels that vary over the image: every tap a polynomial of position, or interpolated in a grid.

Comes in: a pair of images with what is known of their pixels. Goes out: a `KernelField`. May
import: `equations`, `solvers`, `methods`, `display`, `problem`, and every floor below.
"""
