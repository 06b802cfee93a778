"""A report as one page of HTML that needs nothing else: no script, no font, no file."""

import html
from collections.abc import Iterable, Iterator

import numpy as np

import fastkernel
from fastkernel.estimation.display.texts import written
from fastkernel.estimation.quality import Belief, Verdict
from fastkernel.estimation.report.contents import Contents, residual_lines
from fastkernel.estimation.report.pictures import (
    Picture,
    kernel_pictures,
    pattern_pictures,
    residual_pictures,
    size_pictures,
)

# The longest side of kernels whose taps are written as a table.
_TABLE = 9

_MARKS: dict[Belief, tuple[str, str]] = {
    "believe it": ("good", "✓"),
    "believe it with care": ("fair", "!"),
    "do not believe it": ("bad", "✗"),
}

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --paper: #fdfdfc; --card: #f2f3f3;
  --line: #d5d8da; --faint: #5d656c; --good: #1a7f47; --fair: #96650a; --bad: #b3302a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6e8; --paper: #16181b; --card: #202327; --line: #383d43;
    --faint: #a0a8af; --good: #4cc282; --fair: #dfa63b; --bad: #f0827b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 76rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem; }
h3 { font-size: 1rem; margin: 0 0 .25rem; }
p, ul { margin: .25rem 0; } ul { padding-left: 1.2rem; }
.verdict { border-left: .3rem solid var(--belief); background: var(--card); padding: .75rem 1rem;
  border-radius: .25rem; }
.verdict strong { color: var(--belief); font-size: 1.1rem; }
.good { --belief: var(--good); } .fair { --belief: var(--fair); } .bad { --belief: var(--bad); }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 1rem 0; }
.facts dt { color: var(--faint); } .facts dd { margin: 0; }
.row, .wide { margin: .75rem 0; }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr));
  gap: 1rem; }
figure { margin: 0; padding: .75rem; background: var(--card); border-radius: .25rem; }
figure svg { display: block; width: 100%; max-width: 24rem; height: auto; margin: 0 auto; }
figcaption { color: var(--faint); font-size: .875rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td { border: 1px solid var(--line); padding: .3rem .4rem; text-align: right; white-space: nowrap; }
td small { display: block; color: var(--faint); font-size: .8rem; }
td.centre { outline: 2px solid var(--faint); outline-offset: -2px; }
.note { color: var(--faint); font-size: .875rem; }
footer { margin-top: 2.5rem; color: var(--faint); font-size: .875rem; }
@media (max-width: 30rem) { td { padding: .2rem; font-size: .8rem } td small { font-size: .7rem } }
@media print { body { max-width: none; } figure, .verdict { break-inside: avoid; } }
"""


def as_page(contents: Contents) -> str:
    """Return a report as a page of HTML; ImportError without matplotlib."""
    title = html.escape(contents.title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        + "\n".join(_sections(contents))
        + f"\n<footer>fastkernel {fastkernel.__version__}</footer>\n</body>\n</html>\n"
    )


def _sections(contents: Contents) -> Iterator[str]:
    verdict = contents.verdict
    if verdict is not None:
        yield _verdict(verdict)
    yield _facts(contents)
    yield "<h2>The kernel</h2>"
    yield _row(kernel_pictures(contents))
    if max(contents.fit.kernel.shape) <= _TABLE:
        yield _taps(contents)
    if contents.look is not None:
        yield "<h2>What is left unexplained</h2>"
        if verdict is not None and verdict.facts is not None:
            lines = residual_lines(verdict.facts, contents.look.coarse)
            yield _list(f"{line[0].upper()}{line[1:]}." for line in lines)
        yield _row(residual_pictures(contents))
    sizes = size_pictures(contents)
    if sizes:
        yield "<h2>Its size</h2>"
        yield _row(sizes)
    if contents.patterns:
        yield "<h2>What the source tells least of</h2>"
        yield (
            "<p>Added to the kernel, these patterns of taps change the convolution of this source "
            "least, so errors of the kernel look like them first.</p>"
        )
        yield _row(pattern_pictures(contents))


def _verdict(verdict: Verdict) -> str:
    kind, mark = _MARKS[verdict.belief]
    parts = [f'<div class="verdict {kind}"><strong>{mark} {verdict.belief}</strong>']
    parts.append(_list(verdict.reasons))
    if verdict.helps:
        parts += ["<p>What would help:</p>", _list(verdict.helps)]
    return "\n".join([*parts, "</div>"])


def _facts(contents: Contents) -> str:
    rows = (
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in contents.facts.items()
    )
    return '<dl class="facts">\n' + "\n".join(rows) + "\n</dl>"


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def _row(pictures: Iterable[Picture]) -> str:
    figures = (
        f"<figure><h3>{html.escape(heading)}</h3>\n{drawing}\n"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for heading, drawing, caption in pictures
    )
    return '<div class="row">\n' + "\n".join(figures) + "\n</div>"


def _taps(contents: Contents) -> str:
    """Return the taps as a table, each above its error bar, the centre tap framed."""
    kernel, errors = contents.fit.kernel, contents.fit.standard_errors
    known = bool(np.isfinite(errors).all())
    (p, q), cells = kernel.shape, written(kernel, 4)
    rows = []
    for i, line in enumerate(cells):
        row = ""
        for j, cell in enumerate(line):
            bar = f"<small>±{errors[i, j]:.1e}</small>" if known else ""
            centre = ' class="centre"' if (i, j) == ((p - 1) // 2, (q - 1) // 2) else ""
            row += f"<td{centre}>{cell}{bar}</td>"
        rows.append(f"<tr>{row}</tr>")
    said = "Taps, each above its standard error" if known else "Taps; standard errors not known"
    note = f'<p class="note">{said}. The centre tap is framed.</p>'
    return '<div class="wide"><table>\n' + "\n".join(rows) + f"\n</table></div>\n{note}"
