"""Gwyddion's least squares as a worker: its library through ctypes, windowed as its users do."""

import ctypes
import ctypes.util
import functools

import numpy as np
from numpy.typing import NDArray

from . import worker

LIBRARY = "gwyprocess2"
BORDER = 3  # pixels that are fitted around the kernel and cut off: the program's default
SIGMA = 0.0  # no regularisation: the pair has no noise but its rounding
HANN, ORIENTATIONS = 1, (0, 1)  # of its enumerations

_FIELD, _INT, _REAL = ctypes.c_void_p, ctypes.c_int, ctypes.c_double


class _Gwyddion:
    def __init__(self) -> None:
        # It leaves symbols of its sister library open, which must be global for it to load.
        self.base = ctypes.CDLL(ctypes.util.find_library("gwyddion2"), ctypes.RTLD_GLOBAL)
        self.process = ctypes.CDLL(ctypes.util.find_library(LIBRARY))
        self._function("gwy_process_type_init", None)()
        self.new = self._function("gwy_data_field_new", _FIELD, _INT, _INT, _REAL, _REAL, _INT)
        self.data = self._function("gwy_data_field_get_data", ctypes.POINTER(_REAL), _FIELD)
        self.mean = self._function("gwy_data_field_get_avg", _REAL, _FIELD)
        self.add = self._function("gwy_data_field_add", None, _FIELD, _REAL)
        self.window = self._function("gwy_fft_window_data_field", None, _FIELD, _INT, _INT)
        self.least_squares = self._function(
            "gwy_data_field_deconvolve_psf_leastsq", None, _FIELD, _FIELD, _FIELD, _REAL, _INT
        )
        self.free = ctypes.CDLL(ctypes.util.find_library("gobject-2.0")).g_object_unref
        self.free.argtypes = [_FIELD]

    def _function(self, name: str, answer: type | None, *arguments: type) -> ctypes._CFuncPtr:
        function = getattr(self.process, name)
        function.restype, function.argtypes = answer, arguments
        return function

    def pixels(self, field: int, shape: tuple[int, int]) -> NDArray:
        return np.ctypeslib.as_array(self.data(field), shape)

    def empty(self, shape: tuple[int, int]) -> int:
        """A field whose pixels have unit size, so that its integrals are sums."""
        rows, cols = shape
        return self.new(cols, rows, cols, rows, False)

    def prepared(self, image: NDArray) -> int:
        """The image without its mean, under a window: the method takes images as periodic."""
        field = self.empty(image.shape)
        self.pixels(field, image.shape)[:] = image
        self.add(field, -self.mean(field))
        for orientation in ORIENTATIONS:
            self.window(field, orientation, HANN)
        return field


_library = functools.cache(_Gwyddion)


def _version() -> str:
    function = _library().base.gwy_version_string
    function.restype = ctypes.c_char_p
    return function().decode()


def fit(source: NDArray, result: NDArray, taps: int, workers: int) -> NDArray:
    gwyddion = _library()
    gwyddion.base.gwy_threads_set_enabled(workers > 1)
    fields = [gwyddion.prepared(image) for image in (result, source)]
    fields.append(gwyddion.empty((taps, taps)))
    gwyddion.least_squares(*fields, SIGMA, BORDER)
    kernel = gwyddion.pixels(fields[-1], (taps, taps)).copy()
    for field in fields:
        gwyddion.free(field)
    return kernel


def _warm(source: NDArray, result: NDArray, taps: int, workers: int) -> None:
    part = np.s_[: worker.WARM, : worker.WARM]
    fit(source[part], result[part], taps, workers)


if __name__ == "__main__":
    worker.serve(fit, _warm, _version)
