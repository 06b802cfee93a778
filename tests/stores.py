"""A store of chunks that counts what is decoded and what is written."""

import numpy as np


class Store:
    """What Zarr and HDF5 offer, with a count for every chunk."""

    def __init__(self, array, chunks, grid=None):
        self.array, self.chunks = array, chunks
        self.shape, self.dtype = array.shape, array.dtype
        self._grid = grid or chunks
        shape = [-(-n // size) for n, size in zip(array.shape, self._grid, strict=True)]
        self.decodes, self.writes = np.zeros(shape, int), np.zeros(shape, int)
        self.largest = 0

    def _touched(self, key):
        assert isinstance(key, tuple)
        assert all(isinstance(part, slice) and part.step is None for part in key)
        spans = [part.indices(n)[:2] for part, n in zip(key, self.shape, strict=True)]
        self.largest = max(self.largest, int(np.prod([stop - start for start, stop in spans])))
        return tuple(
            slice(start // size, -(-stop // size)) if stop > start else slice(0)
            for (start, stop), size in zip(spans, self._grid, strict=True)
        )

    def __getitem__(self, key):
        self.decodes[self._touched(key)] += 1
        return self.array[key].copy()

    def __setitem__(self, key, value):
        touched = self._touched(key)
        assert value.dtype == self.dtype
        self.writes[touched] += 1
        self.array[key] = value
