"""Type checkers see every public name, and refuse the misspelt ones and the misspelt choices."""

import inspect
import re
import subprocess
import sys

import pytest

import fastkernel

# A line that ends in "# wrong" is to be refused, and no other.
USES = """
import numpy as np

import fastkernel
from fastkernel import NormalEquations, convolve, convovle  # wrong
from fastkernel import InverseFit, KernelFit, circshift, convolution_matrix, convolution_operator
from fastkernel import correlate, design_matrix, estimate_kernel, fftshift, inverse_kernel
from fastkernel import inverse_filter, normal_equations, psf, richardson_lucy, wiener

x = np.zeros((9, 9))
blur = psf.gaussian(5, 1.0)
psf.gausian(5, 1.0)  # wrong
fastkernel.estimate_kernle(x, x, 5)  # wrong
blurred: np.ndarray = fastkernel.convolve(x, blur)

convolve(x, blur, "same", "grid-mirror", method="fft", dtype=np.float32, fill_value=0)
convolve([[1, 2]], [[1]], "valid", 4, dtype="float32")
correlate(x, blur, "same", "BORDER_REFLECT_101", check_finite=False)
convolve(x, blur, "sam")  # wrong
convolve(x, blur, "same", "refelct")  # wrong
convolve(x, blur, "same", "reflect")  # wrong
convolve(x, blur, method="ftf")  # wrong
convolve(x, blur, fill_valu=1)  # wrong

fit: KernelFit = estimate_kernel(x, x, 5, method="lad", solver="reweighted")
estimate_kernel([x, x], [x, x], (3, 3), background="constant", ridge=("smooth", 1.0))
estimate_kernel(x, x, 3, engine="fft", symmetric="even", ridge="gcv", background=2)
estimate_kernel(x, x, 3, method="fft", normalize="sum", boundary="nearest")
estimate_kernel(x, x, 3, method="lstq")  # wrong
estimate_kernel(x, x, 3, solver="fisat")  # wrong
estimate_kernel(x, x, 3, ridge="gvc")  # wrong
estimate_kernel(x, x, 3, ridge=("smoth", 1.0))  # wrong
estimate_kernel(x, x, 3, background="const")  # wrong
estimate_kernel(x, x, 3, boundary="zeros")  # wrong
estimate_kernel(x, x, 3, symmetric="odd")  # wrong
estimate_kernel(x, x, 3, engine="gpu")  # wrong
estimate_kernel(x, x, 3, normalize="mean")  # wrong
estimate_kernel(x, x, 3, nonnegative="no")  # wrong
estimate_kernel(x, x, 3, callback=3)  # wrong
fit.kernle  # wrong
fit.predict(x, mode="same", boundary="edge")
fit.predict(x, mode="some")  # wrong

equations: NormalEquations | int = sum([normal_equations(x, x, 3), normal_equations(x, x, (3, 3))])
normal_equations(x, x, 3).crop(1).solve(solver="fista", unit_sum=True)
normal_equations(x, x, 3).solve(solver="reweighted")  # wrong
normal_equations(x, x, 3, engine="flaot")  # wrong

design_matrix(x, 3, "same", "wrap")
design_matrix(x, "3")  # wrong
convolution_matrix(blur, (9, 9), format="dense")
convolution_matrix(blur, (9, 9), format="csc")  # wrong
convolution_operator(blur, (9, 9), "valid")
convolution_operator(blur, (9, 9), "all")  # wrong
circshift(x, (1, 2)), circshift(x, 1, axis=0), fftshift(x, axes=(0, 1))
circshift(x, "1")  # wrong

inverse: InverseFit = inverse_kernel(blur, 9, method="fft")
inverse_kernel(blur, 9, method="lad")  # wrong
inverse_kernel(blur, 9, solver="choleski")  # wrong
wiener(x, blur, "gcv", boundary="unknown")
wiener(x, blur, "gvc")  # wrong
wiener(x, blur, boundary="unknwon")  # wrong
inverse_filter(x, blur, guarded=True)
inverse_filter(x, blur, boundary="taper")  # wrong
richardson_lucy(x, blur, boundary="mirror", noise="poisson")
richardson_lucy(x, blur, boundary="mirorr")  # wrong
"""
WRONG = [i for i, line in enumerate(USES.splitlines(), 1) if line.endswith("# wrong")]

pytestmark = pytest.mark.jit


def refused(command, folder, pattern):
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, cwd=folder, timeout=180
    )
    lines = sorted({int(line) for line in re.findall(pattern, done.stdout)})
    return lines, done.stdout + done.stderr


@pytest.fixture
def uses(tmp_path):
    (tmp_path / "uses.py").write_text(USES)
    return tmp_path


def test_mypy_refuses_what_is_wrong_alone(uses):
    pytest.importorskip("mypy")
    lines, output = refused(["mypy", "--strict", "uses.py"], uses, r"uses\.py:(\d+): error")
    assert lines == WRONG, output


def test_pyright_refuses_what_is_wrong_alone(uses):
    pytest.importorskip("pyright")
    # Of expressions whose value is dropped this file is made.
    (uses / "pyrightconfig.json").write_text('{"reportUnusedExpression": false}')
    command = ["pyright", "--pythonpath", sys.executable, "uses.py"]
    lines, output = refused(command, uses, r"uses\.py:(\d+):\d+ - error")
    if not re.search(r"\d+ errors?", output):
        pytest.skip("pyright could not fetch its program")
    assert lines == WRONG, output


NO_SIGNATURE = {"SingularFitError", "basis", "psf"}


@pytest.mark.parametrize("name", sorted(set(fastkernel.__all__) - NO_SIGNATURE))
def test_help_shows_the_names_of_types_and_not_what_they_stand_for(name):
    text = str(inspect.signature(getattr(fastkernel, name)))
    assert "Literal" not in text
    assert "_typing" not in text
    # The names of the arguments, and some more for the type and the default of each.
    arguments = inspect.signature(getattr(fastkernel, name)).parameters
    assert len(text) <= sum(len(argument) + 30 for argument in arguments) + 20
