"""A report as plain text."""

from collections.abc import Iterator

from fastkernel.estimation.display.tables import kernel_table
from fastkernel.estimation.report.contents import Contents, pattern_line, residual_lines

_COLUMNS = 80


def as_text(contents: Contents) -> str:
    """Return a report as lines of at most some 80 characters where words allow it."""
    return "\n".join(_lines(contents)) + "\n"


def _lines(contents: Contents) -> Iterator[str]:
    verdict, fit = contents.verdict, contents.fit
    yield contents.title
    if verdict is not None:
        yield f"verdict: {verdict.belief}"
        yield from (f"  because {reason}" for reason in verdict.reasons)
        yield from (f"  what would help: {help_}" for help_ in verdict.helps)
    yield ""
    yield from (f"{name}: {value}" for name, value in contents.facts.items())
    heading, *table = kernel_table(fit.kernel, fit.standard_errors, _COLUMNS)
    yield from ("", heading, *table)
    if verdict is not None and verdict.facts is not None:
        coarse = float("nan") if contents.look is None else contents.look.coarse
        yield from ("", "what is left unexplained")
        yield from (f"  {line}" for line in residual_lines(verdict.facts, coarse))
    if contents.selection is not None:
        yield from ("", "sizes", *(f"  {line}" for line in str(contents.selection).splitlines()))
    if len(contents.sizes) > 1:
        yield from ("", "what smaller kernels leave")
        yield from (f"  {p}×{q}: {left:.4g} rms" for (p, q), left in contents.sizes)
    if contents.patterns:
        yield from ("", "what the source tells least of")
        yield from (f"  {pattern_line(pattern)}" for pattern in contents.patterns)
