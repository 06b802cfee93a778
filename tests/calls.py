"""The methods of `estimate_kernel`, called with pairs that are matched already."""

from fastkernel._images.checks import as_workers
from fastkernel._images.pairs import as_pairs
from fastkernel._images.usable import Observed
from fastkernel._machine.run import Run
from fastkernel.estimation.equations import formed
from fastkernel.estimation.methods import fft, lad, lstsq, richardson_lucy
from fastkernel.estimation.problem import Problem, problem_of
from fastkernel.estimation.solvers.options import SolverOptions


def pairs_of(source, result, kernel_shape, boundary=None):
    return problem_of(source, result, kernel_shape, boundary, None, None).pairs()


class _Matched(Problem):
    """A problem whose windows are given."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs, kernel_shape):
        super().__init__([Observed(*pair[:2]) for pair in pairs], kernel_shape)
        object.__setattr__(self, "_pairs", list(pairs))

    def pairs(self):
        return self._pairs


def run_of(workers, callback):
    return Run(as_workers(workers), callback)


def fit_lad(pairs, kernel_shape, *, workers=1, callback=None, **options):
    asked = lad.Options(**options)
    return lad.fit(_Matched(pairs, kernel_shape), asked, run_of(workers, callback))


def fit_richardson_lucy(pairs, kernel_shape, *, workers=1, callback=None, **options):
    asked = richardson_lucy.Options(**options)
    return richardson_lucy.fit(_Matched(pairs, kernel_shape), asked, run_of(workers, callback))


def fit_spectral(images, kernel_shape, *, workers=2, callback=None, **options):
    pairs = [pair[:2] for x, y in images for pair in as_pairs(x, y, None)]
    problem = problem_of(*zip(*pairs, strict=True), kernel_shape, None, None, None)
    return fft.fit(problem, fft.Options(**options), run_of(workers, callback))


def fit_large(pairs, kernel_shape, ridge, workers, callback=None, options=None):
    asked = options or SolverOptions(ridge=ridge)
    return lstsq.fit_unformed(pairs, kernel_shape, asked, run_of(workers, callback))


def equations_of(pairs, kernel_shape, workers, callback, engine, degree=None):
    run = run_of(workers, callback)
    return formed.gathered(pairs, kernel_shape, degree, run, engine).equations(kernel_shape)
