"""The site is built whole: every public name is on it, and every link leads somewhere."""

import re
import types
from importlib.util import find_spec
from pathlib import Path

import pytest

import fastkernel

pytest.importorskip("pdoc")
if not (Path(__file__).resolve().parents[2] / ".github").exists():
    pytest.skip("the pages of the site are those of a checkout", allow_module_level=True)

from bench import site

pytestmark = pytest.mark.jit


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    site.build(folder)
    return folder


def test_every_public_name_is_on_it(built):
    page = (built / "fastkernel.html").read_text(encoding="utf-8")
    for name in fastkernel.__all__:
        if isinstance(getattr(fastkernel, name), types.ModuleType):
            inner = (built / "fastkernel" / f"{name}.html").read_text(encoding="utf-8")
            for function in getattr(fastkernel, name).__all__:
                assert f'<section id="{function}">' in inner
        else:
            assert f'<section id="{name}">' in page
    # What a class has of a base that is not public, and types as the source names them.
    assert 'id="KernelFit.report"' in page
    assert "numpy._typing" not in page.partition('id="estimate_kernel"')[2]
    shapes = (built / "fastkernel" / "psf.html").read_text(encoding="utf-8")
    assert "FloatArray" in shapes
    assert "numpy.ndarray" not in shapes.partition('id="gaussian"')[2].partition("View Source")[0]
    assert "View Source" in page
    assert "BORDER_REFLECT_101" in page  # the glossary


@pytest.mark.skipif(not find_spec("fastkernel.dask"), reason="built without its part for Dask")
def test_so_are_the_names_that_work_on_dask(built):
    page = (built / "fastkernel" / "dask.html").read_text(encoding="utf-8")
    for name in ("convolve", "estimate_kernel", "normal_equations", "richardson_lucy", "wiener"):
        assert f'<section id="{name}">' in page


def test_the_front_page_is_the_readme(built):
    page = (built / "index.html").read_text(encoding="utf-8")
    assert "files/overview.png" in page
    assert (built / "files" / "overview.png").is_file()
    assert all(f'href="{name}.html"' in page for name in site.PAGES)
    assert "bench:speed" not in page


def test_it_is_dark_where_the_reader_is(built):
    page = (built / "index.html").read_text(encoding="utf-8")
    light, _, dark = page.replace(" ", "").partition("(prefers-color-scheme:dark)")
    text = re.compile(r"--text:#(\w{2})")
    assert int(text.search(light)[1], 16) < 64
    assert int(text.search(dark)[1], 16) > 192
    assert ".pdoc-code.k{color:" in dark


def test_every_link_leads_somewhere(built):
    assert list(site.problems(built)) == []


def test_a_dead_link_is_found(tmp_path):
    text = '<a href="b.html">b</a><a href="#c">c</a><a href="https://x.example">x</a><p id="d">'
    (tmp_path / "a.html").write_text(text + '<img src="#d">', encoding="utf-8")
    assert list(site.problems(tmp_path)) == ["a.html: no file b.html", "a.html: no place #c"]


def test_docstrings_name_what_there_is():
    assert list(site.unresolved()) == []
    assert len(list(site.docstrings())) > len(fastkernel.__all__)


def test_a_name_that_there_is_not_is_found(monkeypatch):
    shown = [("convolve", "See `corelate`, `KernelFit.taps`, `KernelFit.kernel`, ``any``.")]
    monkeypatch.setattr(site, "docstrings", lambda: iter(shown))
    assert list(site.unresolved()) == ["convolve: `corelate`", "convolve: `KernelFit.taps`"]


def test_notebooks_become_text(tmp_path):
    cells = '[{"cell_type": "markdown", "source": ["# A"]}, {"cell_type": "code", "source": ["1"]}]'
    (tmp_path / "a.ipynb").write_text(f'{{"cells": {cells}}}', encoding="utf-8")
    assert re.sub(r"\s+", " ", site._notebook(tmp_path / "a.ipynb")) == "# A ```python 1 ```"
