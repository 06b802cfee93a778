"""Convolution and what goes with it: as a matrix, as an operator, and circular shifts.

In come an image and a kernel; out go the convolution, its adjoint, or its matrix. A model of cost
chooses the engine; the engines also serve estimation and restoration, tile by tile. It imports
`_images`, `_machine` and what they import, never `estimation` or `restoration`.
"""
