"""What docstrings show runs as it stands there, and says all there is to say."""

import doctest
import importlib
import inspect
import pkgutil
import re

import numpy as np
import pytest
from scipy import ndimage

import fastkernel

MODULES = [
    module.name
    for module in pkgutil.walk_packages(fastkernel.__path__, "fastkernel.")
    if not module.name.endswith("__main__")
]
NAMES = sorted(fastkernel.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0


@pytest.mark.jit
@pytest.mark.parametrize("name", NAMES)
def test_examples_import_what_they_use(name):
    """Copied into an empty session: of all that a public name shows."""
    found = getattr(fastkernel, name)
    runner = doctest.DocTestRunner(verbose=False)
    for test in doctest.DocTestFinder(exclude_empty=True).find(found, name, globs={}):
        test.globs = {}
        runner.run(test)
    assert runner.failures == 0
    if inspect.isfunction(found):
        assert runner.tries


@pytest.mark.parametrize("name", NAMES)
def test_every_public_function_documents_every_argument(name):
    found = getattr(fastkernel, name)
    if inspect.isfunction(found):
        documented = found.__doc__
        for parameter in inspect.signature(found).parameters:
            assert re.search(rf"^ +(\w+, )*{parameter}(, \w+)* : ", documented, re.MULTILINE)
        for section in ("Parameters", "Returns", "Raises", "Examples"):
            assert f"{section}\n" in documented


def border_table():
    lines = [line for line in fastkernel.__doc__.splitlines() if line.startswith("| ")]
    header, _, *rows = ([cell.strip() for cell in line.strip("| ").split("|")] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in rows]


@pytest.mark.parametrize("row", border_table(), ids=lambda row: row["fastkernel"])
def test_border_rules_of_the_glossary_are_those_of_the_libraries(row, rng):
    image, kernel = rng.random((7, 8)), rng.random((5, 5))
    want = fastkernel.convolve(image, kernel, "same", row["fastkernel"])
    padded = np.pad(image, 2, mode=row["numpy.pad"])
    np.testing.assert_allclose(fastkernel.convolve(padded, kernel, "valid"), want)
    for name in row["scipy.ndimage"].split(", "):
        np.testing.assert_allclose(ndimage.convolve(image, kernel, mode=name), want)
    if row["scipy.signal"] != "-":
        signal = pytest.importorskip("scipy.signal")
        found = signal.convolve2d(image, kernel, "same", row["scipy.signal"])
        np.testing.assert_allclose(found, want)
    cv2 = pytest.importorskip("cv2")
    padded = cv2.copyMakeBorder(image, 2, 2, 2, 2, getattr(cv2, row["OpenCV"]))
    np.testing.assert_allclose(fastkernel.convolve(padded, kernel, "valid"), want)
