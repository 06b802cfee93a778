"""``python -m bench.site FOLDER``: the site, made by pdoc of docstrings and of the Markdown pages.

README.md is its front page. Everything that is linked is then looked for, and whatever a docstring
puts between backticks that looks like a name of the library; what is missing ends it with 1.
"""

import html.parser
import importlib
import importlib.util
import inspect
import json
import posixpath
import re
import shutil
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pdoc
import pdoc.doc
import pdoc.extract
import pdoc.render
from pygments.formatters import HtmlFormatter

import fastkernel
from fastkernel._typing import FloatArray

ROOT = Path(__file__).resolve().parents[1]
# Pages by their name on the site, and the Markdown or the notebooks that they are made of.
PAGES = {
    "index": "README.md",
    "gallery": "bench/GALLERY.md",
    "notebooks": "bench/notebooks",
    "benchmarks": "bench/README.md",
    "changes": "CHANGELOG.md",
    "contributing": ".github/CONTRIBUTING.md",
}
OPTIONAL = ["fastkernel.dask"]  # public, and not imported with the library
TITLES = {"index": "fastkernel", "fastkernel": "API", "fastkernel.dask": "API on Dask"}
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")

TEMPLATE = """{% extends "default/module.html.jinja2" %}
{% set up = "../" * module.modulename.count(".") %}
{% block title %}{{ titles.get(module.modulename, module.modulename) }}{% endblock %}
{% block module_list_link %}{% endblock %}
{% block nav_title %}
<ul>{% for page in pages + optional %}
<li><a href="{{ up }}{{ page.replace(".", "/") }}.html">
{{ titles.get(page, page.capitalize()) }}</a></li>
{% endfor %}</ul>
{% endblock %}
{% block module_info %}
{% if module.modulename in pages and module.modulename != "fastkernel" %}
<section class="module-info">{{ docstring(module) }}</section>
{% else %}{{ super() }}{% endif %}
{% endblock %}
{# What a class has of a base that is not public is shown as its own. #}
{% block module_contents %}
{% for one in module.flattened_own_members if is_public(one) | trim %}
<section id="{{ one.qualname or one.name }}">{{ member(one) }}
{% for m in (one.members.values() if one.kind == "class" else [])
   if m.kind != "class" and is_public(m) | trim and m.taken_from[0].startswith("fastkernel") %}
<div id="{{ m.qualname }}" class="classattr">{{ member(m) }}</div>
{% endfor %}</section>
{% endfor %}
{% endblock %}
"""
# Tables and pictures that are wider than a phone scroll and shrink by themselves.
CSS = """
.pdoc img { max-width: 100%; height: auto; }
.pdoc table { display: block; overflow-x: auto; max-width: 100%; font-size: 0.85em; }
.pdoc th, .pdoc td { padding: 0.2rem 0.5rem !important; }
.pdoc .signature { overflow-x: auto; }
"""
# pdoc is light alone. Figures are drawn on white, and keep it.
DARK = """
:root { color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
:root { --pdoc-background: #16181b; }
.pdoc {
    --text: #dfe2e5; --muted: #9aa2aa; --link: #7fb0f5; --link-hover: #a9cbff; --code: #1f2327;
    --active: #4a4518; --accent: #23272b; --accent2: #495057; --nav-hover: rgba(255, 255, 255, 0.1);
    --name: #7fb0f5; --def: #7ee787; --annotation: #56d4a4;
}
.pdoc main img { background: #fff; }
%s
}
"""


class _Written(str):
    """An annotation as it stands in the source, not what it stands for."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _written(annotation: object) -> _Written | None:
    """An annotation as the source has it, where that is known."""
    if isinstance(annotation, str):
        return _Written(annotation)
    return _Written("FloatArray") if annotation == FloatArray else None


def build(folder: Path) -> None:
    """Write the site into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as templates:
        Path(templates, "module.html.jinja2").write_text(TEMPLATE, encoding="utf-8")
        Path(templates, "custom.css").write_text(CSS + DARK % _dark_code(), encoding="utf-8")
        version = f"fastkernel {fastkernel.__version__}"
        pdoc.render.configure(
            docformat="numpy", math=True, footer_text=version, template_directory=Path(templates)
        )
        front, *others = PAGES
        pages = [front, "fastkernel", *others]
        optional = [name for name in OPTIONAL if importlib.util.find_spec(name)]
        pdoc.render.env.globals.update(pages=pages, optional=optional, titles=TITLES)
        # pdoc prints what an annotation stands for, which for an image fills ten lines.
        evaluate = pdoc.doc.safe_eval_type
        pdoc.doc.safe_eval_type = lambda noted, *rest: _written(noted) or evaluate(noted, *rest)
        try:
            _render(folder, optional)
        finally:
            pdoc.doc.safe_eval_type = evaluate


def _dark_code() -> str:
    """Colours of code on a dark ground, and none of that ground, which is pdoc's."""
    styles = HtmlFormatter(style="github-dark").get_style_defs(".pdoc-code")
    return "\n".join(line for line in styles.splitlines() if line.startswith(".pdoc-code ."))


def _render(folder: Path, optional: list[str]) -> None:
    names = [*pdoc.extract.walk_specs(["fastkernel"]), *optional]
    modules = {name: pdoc.doc.Module.from_name(name) for name in names}
    modules |= {name: pdoc.doc.Module(_page(name, folder)) for name in PAGES}
    for name, module in modules.items():
        target = folder / f"{name.replace('.', '/')}.html"
        target.parent.mkdir(exist_ok=True)
        target.write_text(pdoc.render.html_module(module, modules), encoding="utf-8")
    (folder / "search.js").write_text(pdoc.render.search_index(modules), encoding="utf-8")


def _page(name: str, folder: Path) -> types.ModuleType:
    """A page of Markdown, as pdoc takes it: the docstring of a module without members."""
    source = ROOT / PAGES[name]
    page = types.ModuleType(name)
    if source.is_dir():
        text = "# Notebooks\n\n" + "\n\n".join(map(_notebook, sorted(source.glob("*.ipynb"))))
    else:
        text = source.read_text(encoding="utf-8")
    text = re.sub(r"^<!-- .* -->$", "", text, flags=re.MULTILINE)
    place = posixpath.dirname(PAGES[name])
    page.__doc__ = LINK.sub(lambda found: _target(found[1], place, folder), text)
    page.__docformat__ = "markdown"
    page.__all__ = []
    return page


def _target(link: str, place: str, folder: Path) -> str:
    """Where a link of the repository leads on the site; files that are no page are copied."""
    if urlsplit(link).scheme or link.startswith("#"):
        return link
    path = posixpath.normpath(posixpath.join(place, unquote(link)))
    pages = {source: f"{name}.html" for name, source in PAGES.items()}
    pages["bench"] = pages["bench/README.md"]
    if path in pages:
        return pages[path]
    source = ROOT / path
    if source.is_file():
        target = folder / "files" / source.name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)
        return f"files/{source.name}"
    return link  # which `problems` then finds


def _notebook(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"])
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
    return "\n\n".join(parts)


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, _: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [link for name in ("href", "src") if (link := found.get(name))]
        self.anchors |= {anchor for name in ("id", "name") if (anchor := found.get(name))}


def problems(folder: Path) -> Iterator[str]:
    """Links to files and places that the site does not have."""
    read = {}
    for path in sorted(folder.rglob("*.html")):
        read[path] = parser = _Links()
        parser.feed(path.read_text(encoding="utf-8"))
    for path, parser in read.items():
        for link in parser.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{path.name}: no file {link}"
            elif parts.fragment and parts.fragment not in read[target].anchors:
                yield f"{path.name}: no place {link}"


def docstrings() -> Iterator[tuple[str, str]]:
    """Names and docstrings of all that is public, and of its members."""
    yield "fastkernel", fastkernel.__doc__
    for name in fastkernel.__all__:
        found = getattr(fastkernel, name)
        yield name, found.__doc__ or ""
        if inspect.isclass(found) or inspect.ismodule(found):
            for member in vars(found).values():
                function = member.fget if isinstance(member, property) else member
                function = getattr(function, "__func__", function)
                if inspect.isfunction(function) and function.__module__.startswith("fastkernel"):
                    yield f"{name}.{function.__name__}", function.__doc__ or ""


def unresolved() -> Iterator[str]:
    """What docstrings put in backticks as a name of the library that it does not have."""
    for name, text in docstrings():
        plain = re.sub(r"``.*?``|:math:`.*?`", "", text, flags=re.DOTALL)
        for reference in re.findall(r"`([^`]+)`", plain):
            if not _resolves(reference, name.partition(".")[0]):
                yield f"{name}: `{reference}`"


def _resolves(reference: str, home: str) -> bool:
    """Whether a name leads somewhere: from the library, from where it is written, or a module."""
    parts = reference.removesuffix("()").removeprefix("fastkernel.").split(".")
    for start in (fastkernel, getattr(fastkernel, home, fastkernel)):
        found = start
        for part in parts:
            fields = getattr(found, "__dataclass_fields__", {})
            found = fields[part] if part in fields else getattr(found, part, None)
        if found is not None:
            return True
    try:
        importlib.import_module(reference)
    except ImportError:
        return False
    return True


def main(folder: str) -> None:
    build(Path(folder))
    wrong = [*problems(Path(folder)), *unresolved()]
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
