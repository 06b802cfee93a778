"""What the documentation shows runs and prints what it says."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import fastkernel

MODULES = [
    module.name
    for module in pkgutil.walk_packages(fastkernel.__path__, "fastkernel.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0


def test_examples_were_found():
    finder = doctest.DocTestFinder()
    names = ("estimate_kernel", "normal_equations")
    for name in names:
        assert any(test.examples for test in finder.find(getattr(fastkernel, name)))


@pytest.mark.parametrize("name", sorted(fastkernel.__all__))
def test_every_public_function_documents_every_argument(name):
    import inspect

    found = getattr(fastkernel, name)
    if inspect.isfunction(found):
        documented = found.__doc__
        for parameter in inspect.signature(found).parameters:
            assert re.search(rf"^ +(\w+, )*{parameter}(, \w+)* : ", documented, re.MULTILINE)
        for section in ("Parameters", "Returns", "Raises", "Examples"):
            assert f"{section}\n" in documented


@pytest.mark.jit
def test_readme_example(tmp_path, monkeypatch):
    readme = Path(__file__).parent.parent / "README.md"
    if not readme.exists():
        pytest.skip("an installed package has no README beside it")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
