import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench import fit, measure, report

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.jit
def test_runs_and_records_what_it_measured(tmp_path):
    sizes = ["--sizes", "64", "--kernels", "3", "--dtypes", "float32", "--repeats", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "fit", "--quick", *sizes, "--output", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "fit.md").read_text(encoding="utf-8") in done.stdout
    result = json.loads((tmp_path / "fit.json").read_text(encoding="utf-8"))
    assert result["environment"]["versions"]["numpy"]
    (cell,) = result["cells"]
    assert (cell["size"], cell["dtype"], cell["taps"]) == (64, "float32", 3)
    assert list(cell["contenders"]) == fit.CONTENDERS
    for entry in cell["contenders"].values():
        assert len(entry["seconds"]) == 2
        assert entry["memory"]["peak"] >= 0
    assert cell["contenders"][fit.OURS]["error"] < 1e-6
    assert cell["contenders"][fit.NUMPY]["error"] > 1e-2  # its border, told as it is


def test_a_slow_contender_sits_out_rounds(monkeypatch):
    monkeypatch.setattr(measure, "SECONDS_EACH", 5.0)
    monkeypatch.setattr(measure, "_seconds", lambda call: call())
    log = []

    def contender(name, seconds):
        log.append(name)
        return seconds

    calls = {
        "fast": measure.Call(contender, ("fast", 0.1)),
        "slow": measure.Call(contender, ("slow", 1.0)),
    }
    times = measure.interleaved(calls, 9)
    assert [len(times[name]) for name in calls] == [9, 5]
    assert log == ["fast", "slow", *["fast", "fast", "slow"] * 4]


def test_memory_is_what_a_call_adds():
    bytes_wanted = 64 * 2**20
    found = measure.peak_memory(
        measure.Call(bytearray, (b"1" * bytes_wanted,)), measure.Call(bytearray, (b"1",))
    )
    assert 0.9 * bytes_wanted < found["peak"] < 1.5 * bytes_wanted


def result_of_a_run(**changes):
    entry = {"seconds": [0.002], "median": 0.002, "ratio": 1.0, "error": 1e-9}
    recipe = {"median": 0.1, "ratio": 50.0, "error": 0.125, "memory": {"peak": 3 * 2**20}}
    contenders = {fit.OURS: entry, fit.NUMPY: entry | recipe}
    cell = {"size": 512, "dtype": "uint8", "taps": 5, "contenders": contenders}
    head = {"suite": "fit", "quick": False, "workers": 2, "environment": measure.environment()}
    return head | {"cells": [cell]} | changes


def test_rewrites_its_part_of_the_readme(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# À\n<!-- bench:fit -->\nold\n<!-- /bench:fit -->\nend\n", encoding="utf-8")
    report.save(tmp_path, result_of_a_run(), "")
    for _ in range(2):  # the second time finds the markers where it left them
        bench.main(["readme", "--output", str(tmp_path), "--readme", str(readme)])
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("# À\n<!-- bench:fit -->\n| image pair")
    assert text.endswith("\n<!-- /bench:fit -->\nend\n")
    row = next(line for line in text.splitlines() if line.startswith("| 512²"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["512² uint8, 5×5", "2.00", "50", "1.0e-09", "1.2e-01", "-", "3.00"]
    assert "old" not in text


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("nothing", {}, "needs one <!-- bench:fit -->"),
        ("<!-- /bench:fit --><!-- bench:fit -->", {}, "before"),
        ("<!-- bench:fit --><!-- /bench:fit -->", {"quick": True}, "quick run"),
    ],
)
def test_refuses_to_rewrite(tmp_path, text, changes, message):
    readme = tmp_path / "README.md"
    readme.write_text(text, encoding="utf-8")
    report.save(tmp_path, result_of_a_run(**changes), "")
    with pytest.raises(SystemExit, match=message):
        bench.main(["readme", "--output", str(tmp_path), "--readme", str(readme)])
    assert readme.read_text(encoding="utf-8") == text


def test_says_which_run_is_missing(tmp_path):
    with pytest.raises(SystemExit, match="python -m bench fit"):
        bench.main(["readme", "--output", str(tmp_path)])
