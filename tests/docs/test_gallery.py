"""The gallery: its page shows the lines that are run, and what they draw is small."""

import inspect
from pathlib import Path

import numpy as np
import pytest

from bench import __main__ as bench
from bench import gallery, gallery_entries

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "bench" / "figures"
NAMES = list(gallery_entries.ENTRIES)


@pytest.mark.jit
def test_entries_are_drawn_and_shown_as_they_run(tmp_path, capsys):
    bench.main(["gallery", "--figures", str(tmp_path / "figures")])
    drawn = [name for name in NAMES if not gallery.missing(name)]
    found = {path.stem: path for path in (tmp_path / "figures").iterdir()}
    assert set(found) == {gallery.OVERVIEW, *drawn}
    for path in found.values():
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < 100_000
    told = capsys.readouterr().err
    assert all(f"{name} not drawn" in told for name in set(NAMES) - set(drawn))
    page = (tmp_path / gallery.PAGE).read_text(encoding="utf-8")
    assert all(f"](figures/{name}.png)" in page for name in drawn)


def test_the_page_that_is_stored_shows_the_lines_of_today():
    page = (ROOT / "bench" / gallery.PAGE).read_text(encoding="utf-8")
    assert page == gallery.text(FIGURES)
    assert len(NAMES) == 12
    for name in NAMES:
        lines = inspect.getsource(getattr(gallery_entries, name)).splitlines()
        assert "\n".join(lines[-6:]) in page
        assert len(lines) < 25


def test_pictures_that_are_stored_are_small():
    for name in [gallery.OVERVIEW, *NAMES]:
        if not gallery.missing(name):
            assert (FIGURES / f"{name}.png").stat().st_size < 100_000


def test_refuses_what_is_no_entry(tmp_path):
    with pytest.raises(SystemExit, match="no entry landscape: overview, stack_overflow"):
        gallery.main(["landscape"], tmp_path)


@pytest.mark.parametrize("count", range(1, 10))
def test_panels_have_room(count):
    panels = {f"{i}": np.eye(100) for i in range(count - 1)} | {"curves": {"a": {1: 2.0, 3: 1.0}}}
    figure = gallery.draw(panels)
    assert len(figure.axes) == count
    places = [panel.get_position() for panel in figure.axes]
    assert all(0 <= place.x0 < place.x1 <= 1 and 0 <= place.y0 < place.y1 <= 1 for place in places)
    for i, one in enumerate(places):
        assert not any(one.overlaps(other) for other in places[:i])
