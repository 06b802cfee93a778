"""``python -m bench gallery``: pictures of what the library does, and the page that shows them.

Every entry is a function of `gallery_entries`. Its source is printed on the page and run for the
picture, so that neither can be without the other.
"""

import contextlib
import importlib.util
import inspect
import io
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

import fastkernel
from fastkernel.cli import main as command

from . import gallery_entries

HERE = Path(__file__).parent / "figures"
PAGE = "GALLERY.md"
NEEDS = {"dask_over_zarr": ["dask", "zarr", "fastkernel.dask"]}
OVERVIEW = "overview"  # the one picture of README.md
KERNEL_SIDE = 64  # up to which an array is drawn as a kernel
NUMBERS_SIDE = 7  # up to which its taps are written out
CELL, TITLE, DPI = 2.4, 0.36, 100  # inches of a panel and of its title, pixels an inch
GAP = 0.01  # beside a panel, of its width
GREYS, COLOURS = 36, 31  # of pictures, and of kernels
KERNELS = "RdBu_r"
HEAD = """# Gallery

What the library does, in {count} entries. Each picture was made by the lines below it, after these:

```python
{before}
```

`data` and `stars` are modules of [bench](.): a photograph, and simulated skies.
`python -m bench gallery` runs the lines, draws what they return, and writes this page.
"""


def missing(entry: str) -> list[str]:
    """What an entry needs and is not there."""
    return [name for name in NEEDS.get(entry, []) if not importlib.util.find_spec(name)]


def main(names: Sequence[str], figures: Path | None = None) -> None:
    """Draw entries, all by default, and write the page."""
    figures = figures or HERE
    figures.mkdir(parents=True, exist_ok=True)
    entries = gallery_entries.ENTRIES
    unknown = set(names) - {OVERVIEW, *entries}
    if unknown:
        sys.exit(f"bench: no entry {', '.join(sorted(unknown))}: {', '.join([OVERVIEW, *entries])}")
    for name in names or [OVERVIEW, *entries]:
        if absent := missing(name):
            print(f"bench: {name} not drawn: no {', '.join(absent)}", file=sys.stderr)
            continue
        figure = overview() if name == OVERVIEW else draw(getattr(gallery_entries, name)())
        target = figures / f"{name}.png"
        target.write_bytes(small_png(figure))
        print(target, flush=True)
    page = figures.parent / PAGE
    page.write_text(text(figures), encoding="utf-8", newline="\n")
    print(page)


def text(figures: Path) -> str:
    """The page, in Markdown, of the pictures that are there."""
    module = inspect.getsource(gallery_entries)
    first = next(iter(gallery_entries.ENTRIES))
    before = module.partition('"""\n\n')[2].partition(f"\n\ndef {first}")[0].strip()
    parts = [HEAD.format(count=len(gallery_entries.ENTRIES), before=before)]
    for name, title in gallery_entries.ENTRIES.items():
        function = getattr(gallery_entries, name)
        lines = inspect.getsource(function).replace(f'    """{function.__doc__}"""\n', "")
        parts.append(f"## {title}\n\n{inspect.cleandoc(function.__doc__)}\n")
        if (figures / f"{name}.png").is_file():
            parts.append(f"![{title}]({figures.name}/{name}.png)\n")
        parts.append(f"```python\n{lines}```\n")
    return "\n".join(parts)


def draw(panels: Mapping[str, Any]) -> Figure:
    """Panels in rows, each below its title of two lines at most."""
    cols = len(panels) if len(panels) < 4 else 3 if len(panels) in (5, 6) else 4
    rows = -(-len(panels) // cols)
    height = CELL + TITLE
    figure = Figure(figsize=(CELL * cols, height * rows), dpi=DPI)
    for i, (title, shown) in enumerate(panels.items()):
        row, col = divmod(i, cols)
        left, bottom = (col + GAP) / cols, 1 - ((row + 1) * height - GAP * CELL) / (height * rows)
        size = (1 - 2 * GAP) / cols, (1 - 2 * GAP) * CELL / (height * rows)
        panel = figure.add_axes((left, bottom, *size))
        panel.set_title(title, fontsize=9)
        if isinstance(shown, Mapping):
            _curves(panel, shown)
        elif max(shown.shape) <= KERNEL_SIDE:
            _kernel(panel, np.asarray(shown, dtype=float))
        else:
            _image(panel, shown)
    return figure


def _curves(panel: Axes, curves: Mapping[str, Mapping[float, float]]) -> None:
    for (name, points), colour in zip(curves.items(), ("black", "#b2182b"), strict=False):
        panel.plot(*zip(*sorted(points.items()), strict=True), label=name, color=colour)
    panel.set_yscale("log")
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.tick_params(labelsize=8)
    place = panel.get_position()
    panel.set_position(
        [
            place.x0 + 0.16 * place.width,
            place.y0 + 0.1 * place.height,
            0.82 * place.width,
            0.9 * place.height,
        ]
    )  # room for the numbers
    panel.grid(color="0.9")
    panel.legend(fontsize=8, frameon=False)


def _image(panel: Axes, picture: NDArray) -> None:
    signed = picture.dtype.kind == "f" and picture.min() < -5 and picture.max() < 20
    limits = {"vmin": -6, "vmax": 6} if signed else {}
    if picture.min() >= -1 and 200 < picture.max() < 400:
        limits = {"vmin": 0, "vmax": 255}
    panel.imshow(picture, cmap="gray", interpolation="nearest", **limits)
    panel.set_axis_off()


def _kernel(panel: Axes, taps: NDArray) -> None:
    """Blue is negative, red positive, as far as the largest tap; small kernels in numbers too."""
    top = np.abs(taps).max()
    panel.imshow(taps, cmap=KERNELS, vmin=-top, vmax=top, interpolation="nearest")
    panel.set(xticks=[], yticks=[])
    if max(taps.shape) > NUMBERS_SIDE:
        return
    for (row, col), tap in np.ndenumerate(taps):
        colour = "white" if abs(tap) > 0.6 * top else "black"
        written = f"{tap:z.2f}" if top < 10 else f"{tap:z.1f}"
        panel.text(col, row, written, ha="center", va="center", fontsize=7, color=colour)


def overview() -> Figure:
    """Before, after, the kernel between them, and what is said of it."""
    with tempfile.TemporaryDirectory() as folder:
        source, result = _demo(Path(folder))
    fit = fastkernel.estimate_kernel(source, result, "auto")
    figure = Figure(figsize=(10, 3.75), dpi=DPI)
    titles = ["before", "after", "the kernel that was found"]
    for i, (title, shown) in enumerate(zip(titles, (source, result, fit.kernel), strict=True)):
        panel = figure.add_axes((0.005 + 0.333 * i, 0.2, 0.325, 0.72))
        panel.set_title(title, fontsize=12)
        _kernel(panel, shown) if i == 2 else _image(panel, shown[100:356, 100:356])
    rows, cols = fit.kernel.shape
    said = (
        f"{rows}×{cols}, found; error bars at most {fit.standard_errors.max():.1g}; residual "
        f"{fit.residual_rms:.3f} grey levels.\n{fit.quality}"
    )
    figure.text(0.5, 0.02, said, ha="center", va="bottom", fontsize=10.5, linespacing=1.5)
    return figure


def _demo(folder: Path) -> tuple[NDArray, NDArray]:
    """The two pictures that ``fastkernel demo`` draws."""
    with contextlib.redirect_stdout(io.StringIO()):
        command(["demo", "-o", str(folder / "demo")])
    pictures = [Image.open(folder / "demo" / f"{name}.png") for name in ("source", "result")]
    return tuple(np.asarray(picture) for picture in pictures)


def small_png(figure: Figure) -> bytes:
    """A PNG of few colours, as pages that are read over a network want it."""
    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    greys, colours = np.linspace(0, 1, GREYS), colormaps[KERNELS](np.linspace(0, 1, COLOURS))
    levels = np.vstack([np.repeat(greys[:, np.newaxis], 3, axis=1), colours[:, :3]])
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.rint(255 * levels).astype(np.uint8).tobytes())
    picture = Image.open(drawn).convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)
    picture.save(packed, format="PNG", optimize=True)
    return packed.getvalue()
