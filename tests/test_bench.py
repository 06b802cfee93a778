import argparse
import gc
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import naive
import numpy as np
import pytest

from bench import __main__ as bench
from bench import (
    command,
    company,
    convolve,
    data,
    engines,
    fit,
    goals,
    inverse,
    measure,
    octave,
    peers,
    peers_gwyddion,
    plots,
    report,
    restoration,
    round_trip,
    whole,
    worker,
)
from fastkernel import cli

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def nothing_old_is_collected():
    """Before each timing garbage is collected, which takes long beside all that tests import."""
    gc.freeze()
    yield
    gc.unfreeze()


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
    monkeypatch.setattr(measure, "_seconds", lambda call, number=1: call())
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
    assert log == ["fast", "slow"] * 2 + ["fast", "fast", "slow"] * 4


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


MACHINES = "<!-- bench:machines --><!-- /bench:machines -->"


def test_rewrites_its_part_of_the_page(tmp_path):
    readme = tmp_path / "README.md"
    page = f"# À\n<!-- bench:fit -->\nold\n<!-- /bench:fit -->\nend\n{MACHINES}"
    readme.write_text(page, encoding="utf-8")
    report.save(tmp_path, result_of_a_run(), "")
    for _ in range(2):  # the second time finds the markers where it left them
        bench.main(["readme", "--output", str(tmp_path), "--readme", str(readme)])
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("# À\n<!-- bench:fit -->\n| image pair")
    assert "\n<!-- /bench:fit -->\nend\n<!-- bench:machines -->\n- A: " in text
    row = next(line for line in text.splitlines() if line.startswith("| 512²"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["512² uint8, 5×5", "2.00", "50", "1.0e-09", "1.2e-01", "-", "3.00"]
    assert "old" not in text


def test_a_machine_is_described_once_and_not_when_no_table_is_of_it(tmp_path):
    page = tmp_path / "page.md"
    parts = "".join(f"<!-- bench:{name} --><!-- /bench:{name} -->\n" for name in ("a", "b"))
    page.write_text(parts + MACHINES, encoding="utf-8")
    here = measure.environment()

    def letters():
        return re.findall(r"^- (\w): (\w+)", page.read_text(encoding="utf-8"), re.MULTILINE)

    for suite, cpu in (("a", "Old"), ("b", "New"), ("b", "New")):
        report.publish(page, suite, "table", here | {"cpu": cpu})
    assert letters() == [("A", "Old"), ("B", "New")]
    assert f"table\n\nMachine B, {here['date']}." in page.read_text(encoding="utf-8")
    report.publish(page, "a", "table", here | {"cpu": "New"})
    assert letters() == [("B", "New")]
    report.publish(page, "a", "table", here | {"cpu": "Third"})
    assert letters() == [("A", "Third"), ("B", "New")]


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("nothing", {}, "needs one <!-- bench:machines -->"),
        (MACHINES, {}, "needs one <!-- bench:fit -->"),
        (f"<!-- /bench:fit --><!-- bench:fit -->{MACHINES}", {}, "before"),
        ("<!-- bench:fit --><!-- /bench:fit -->", {"quick": True}, "quick run"),
    ],
)
def test_refuses_to_rewrite(tmp_path, text, changes, message):
    readme = tmp_path / "README.md"
    readme.write_text(text, encoding="utf-8")
    report.save(tmp_path, result_of_a_run(**changes), "")
    with pytest.raises(SystemExit, match=message):
        bench.main(["readme", "fit", "--output", str(tmp_path), "--readme", str(readme)])
    assert readme.read_text(encoding="utf-8") == text


def test_says_which_run_is_missing(tmp_path):
    with pytest.raises(SystemExit, match="python -m bench fit"):
        bench.main(["readme", "fit", "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="sizes has no part on a page"):
        bench.main(["readme", "sizes", "--output", str(tmp_path)])


def test_leaves_out_what_has_no_markers_or_no_results(tmp_path, capsys):
    readme = tmp_path / "README.md"
    text = "<!-- bench:peers --><!-- /bench:peers -->"
    readme.write_text(text, encoding="utf-8")
    report.save(tmp_path, result_of_a_run(), "")
    bench.main(["readme", "--output", str(tmp_path), "--readme", str(readme)])
    assert readme.read_text(encoding="utf-8") == text
    skipped = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in skipped] == bench.SUITES
    assert "no markers" in skipped[0]
    assert "peers.json" in skipped[bench.SUITES.index("peers")]


@pytest.mark.parametrize("what", [["unknown"], ["readme", "unknown"], ["plots", "fit"]])
def test_refuses_what_is_no_suite(what, capsys):
    with pytest.raises(SystemExit):
        bench.main(what)
    assert what[-1] in capsys.readouterr().err


def run(folder, suite, *options):
    bench.main([suite, "--quick", "--output", str(folder), *options])
    return json.loads((folder / f"{suite}.json").read_text(encoding="utf-8"))


@pytest.mark.jit
def test_engines_are_compared_and_drawn(tmp_path, capsys):
    sizes = ["--sizes", "64,96", "--kernels", "3", "--repeats", "2"]
    result = run(tmp_path, "engines", *sizes, "--constants")
    assert len(result["cells"]) == 4
    for cell in result["cells"]:
        names = {"float", "fft", "auto"} | ({"integer"} if cell["dtype"] == "uint8" else set())
        assert names <= set(cell["contenders"])
        assert cell["chosen"] in names
    assert set(result["constants"]) == {"integer", "float", "fft"}
    assert {one["size"] for one in result["references"]} == {96}
    assert "At worst another engine is" in capsys.readouterr().out
    run(tmp_path, "sizes", *sizes)
    bench.main(["plots", "engines", "sizes", "--quick", "--output", str(tmp_path)])
    for name in ("engines", "sizes"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_loss_of_a_choice_is_told_by_times():
    times = {"integer": 0.002, "float": 0.003, "fft": 0.001, "auto": 0.0021}
    contenders = {name: {"median": seconds} for name, seconds in times.items()}
    cell = {"size": 64, "dtype": "uint8", "taps": 5, "chosen": "integer"}
    text = engines.tables({"cells": [cell | {"contenders": contenders}]})
    assert "2.00 times faster than the chosen one (64² uint8, 5×5)" in text
    assert "more than 1.25 times in 1 of 1 cells" in text


CONVOLVE = ["--sizes", "64", "--kernels", "3", "--repeats", "2", "--no-memory"]


@pytest.mark.jit
def test_convolutions_agree_and_are_drawn(tmp_path, capsys):
    result = run(tmp_path, "convolve", *CONVOLVE)
    assert [cell["kind"] for cell in result["cells"]] == ["random", "separable"]
    for cell in result["cells"]:
        separable = {"fastkernel, separable", convolve.SEP_FILTER_2D}
        wanted = set(convolve.CONTENDERS) - (separable if cell["kind"] == "random" else set())
        assert set(cell["contenders"]) == wanted
        assert cell["chosen"] in convolve.BY_ENGINE.values()
        for name, entry in cell["contenders"].items():
            assert len(entry["seconds"]) == 2
            assert name == convolve.COPY or entry["error"] < 6e-7
    assert [one["what"].split(",")[0] for one in result["operations"]] == [
        "circshift",
        "circshift",
        "convolution_matrix",
        "design_matrix",
    ]
    for one in result["operations"]:
        for name, entry in one["contenders"].items():
            assert entry["median"] > 0
            assert name in convolve.YARDSTICKS or entry["difference"] == 0
    out = capsys.readouterr().out
    assert all(convolve.label(cell) in out for cell in result["cells"])
    bench.main(["plots", "--quick", "--output", str(tmp_path)])
    assert (tmp_path / "convolve.png").read_bytes().startswith(b"\x89PNG")
    assert "engines not drawn" in capsys.readouterr().err


@pytest.mark.jit
def test_slow_or_missing_contenders_are_told_and_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(convolve, "SLOW", -1.0)
    monkeypatch.setattr(convolve, "cv2", None)
    result = run(tmp_path, "convolve", *CONVOLVE)
    for cell in result["cells"]:
        ours = cell["contenders"].pop(convolve.OURS)
        assert ours["ratio"] == 1
        assert cell["contenders"]
        assert all(entry["slow"] and "median" not in entry for entry in cell["contenders"].values())
        assert convolve.FILTER_2D not in cell["contenders"]
    out = capsys.readouterr().out
    assert "OpenCV is not installed" in out
    assert " slow |" in out
    path = tmp_path / "README.md"
    path.write_text(f"<!-- bench:convolve --><!-- /bench:convolve -->{MACHINES}", encoding="utf-8")
    full = json.loads((tmp_path / "convolve.json").read_text(encoding="utf-8"))
    report.save(tmp_path, full | {"quick": False}, "")
    bench.main(["readme", "convolve", "--output", str(tmp_path), "--readme", str(path)])
    text = path.read_text(encoding="utf-8")
    assert "| 64², 3×3 random" in text
    assert "| convolution_matrix, 3×3 on 32²" in text


@pytest.mark.parametrize("taps", [2, 3, 4])
def test_matrices_of_rivals_are_those_of_the_definition(taps):
    kernel = np.arange(1.0, taps * (taps + 1) + 1).reshape(taps, taps + 1)
    image = np.random.default_rng(taps).integers(0, 9, (7, 7)).astype(float)
    want = naive.convolve(image, kernel, "same", "zero").ravel()
    for make in (
        convolve.matrix_by_diagonals,
        convolve.matrix_by_kronecker,
        convolve.matrix_by_coordinates,
    ):
        np.testing.assert_array_equal(make(kernel, 7) @ image.ravel(), want)


@pytest.mark.jit
def test_limits_have_a_bound_for_every_row(tmp_path, capsys):
    result = run(tmp_path, "limits", "--sizes", "64")
    assert {row["direct"] for row in result["rows"]} == {"integer", "float"}
    assert all(min(passes.values()) > 0 for passes in result["bandwidth"].values())
    assert [cell["mapped"] for cell in result["memory"]] == [False, False, True]
    assert all(start["empty cache"] and start["warm cache"] for start in result["starts"])
    out = capsys.readouterr().out
    assert all(fit.label(row) in out for row in result["rows"])


STUB = """
import sys
from bench import worker

def fit(source, result, taps, workers):
    print("in the way of the answers")
    return source[:taps, :taps] + workers

def warm(source, result, taps, workers):
    if taps == 1:
        sys.exit("no such kernel")

if __name__ == "__main__":
    worker.serve(fit, warm, lambda: "1.5")
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """A peer that finds nothing, as a module that a worker's Python can import."""
    (tmp_path / "stub_peer.py").write_text(STUB, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "stub_peer"


@pytest.mark.jit
def test_peers_are_measured_or_skipped_and_nothing_is_installed(
    tmp_path, monkeypatch, capsys, stub
):
    monkeypatch.setattr(peers_gwyddion, "LIBRARY", "no-such-library")
    monkeypatch.setitem(peers.PEERS, "stub", (lambda args: Path(sys.executable), stub))
    kernels = ["--sizes", "64", "--kernels", "1,3", "--repeats", "2"]
    result = run(tmp_path, "peers", *kernels, "--environment", str(tmp_path / "none"))
    for cell in result["cells"]:
        assert "installs nothing" in cell["contenders"][peers.SFFT]["skipped"]
        assert "no-such-library" in cell["contenders"][peers.GWYDDION]["skipped"]
        assert cell["contenders"][peers.OURS]["error"] < 1e-6
    broken, found = (cell["contenders"]["stub"] for cell in result["cells"])
    assert broken == {"skipped": "failed: no such kernel"}
    assert found["version"] == "1.5"
    assert len(found["seconds"]) == 2
    assert found["error"] > 1
    assert found["memory"]["peak"] >= 0
    assert not (tmp_path / "none").exists()
    out = capsys.readouterr().out
    assert f"{peers.GWYDDION}: no library no-such-library here" in out
    assert "| stub 1.5" in out


@pytest.mark.skipif(
    not peers_gwyddion.ctypes.util.find_library(peers_gwyddion.LIBRARY), reason="no Gwyddion here"
)
def test_gwyddion_finds_the_kernel(tmp_path):
    pair = data.pair(data.photograph(128), 3, "float32")
    for name in ("source", "result"):
        np.save(tmp_path / f"{name}.npy", getattr(pair, name))
    python = Path(sys.executable)
    with worker.Worker(python, "bench.peers_gwyddion", tmp_path, 3, 1) as one:
        assert one.read()["version"]
    assert data.error(np.load(tmp_path / "kernel.npy"), pair.kernel) < 0.1


@pytest.mark.jit
def test_nothing_wrong_is_believed_and_nothing_right_disbelieved(tmp_path, capsys):
    bench.main(["belief", "--quick", "--output", str(tmp_path)])
    text = capsys.readouterr().out
    assert re.search(r" fully believed, 0 of them wrong .* not believed, 0 of them right", text)


@pytest.mark.jit
@pytest.mark.parametrize(
    "suite",
    [
        *("methods", "descents", "restoration", "whole", "company"),
        *("imperfect", "fields", "stacks"),
    ],
)
def test_a_suite_runs_and_writes_its_tables(suite, tmp_path, capsys):
    options = ["--quick", "--no-memory", "--repeats", "1"]
    bench.main([suite, *options, "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / f"{suite}.json").read_text(encoding="utf-8"))
    assert result["quick"]
    assert "nan" not in printed
    assert printed.count("|") > 20


@pytest.mark.jit
def test_loops_of_others_take_the_same_steps(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inverse, "SIZE", 101)
    monkeypatch.setattr(inverse, "DELAY", (55, 53))
    result = run(tmp_path, "inverse", "--repeats", "1")
    out = capsys.readouterr().out
    assert "nan" not in out
    assert all(row["name"] in out for row in result["rows"])
    assert max(result["differences"].values()) < 1e-9
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["lstsq"]["residual"] < 0.13
    assert rows["fista, to the same objective"]["num_iter"] <= rows["gradient_descent"]["num_iter"]
    monkeypatch.setattr(octave.shutil, "which", lambda name: None)
    assert inverse.octave_loop(1) is None
    absent = [row | ({"median": None} if "Octave" in name else {}) for name, row in rows.items()]
    text = inverse.tables(result | {"rows": absent, "taken": 7})
    assert "not installed" in text
    assert "It took 7" in text


def test_the_fewest_iterations_are_found_in_a_valley():
    def error_of(num_iter):
        asked.append(num_iter)
        return abs(num_iter - 20) / 20

    for want, goal in ((1, 0.96), (14, 0.3), (17, 0.15), (18, 0.1)):
        asked = []
        assert restoration._fewest(error_of, goal, 100) == want
        assert len(asked) < 15
    assert restoration._fewest(error_of, -1.0, 100) is None
    assert restoration._fewest(error_of, 0.0, 10) is None


def test_errors_are_told_by_their_distance_to_the_frame():
    sharp = np.zeros((7, 6))
    found = np.pad(np.full((5, 4), 2.0), 1, constant_values=3.0)
    assert restoration._profile(found, sharp) == pytest.approx([3.0, 2.0, 2.0])


def test_memory_of_restoration_is_that_of_every_contender(monkeypatch):
    def peak_memory(call, warm):
        assert pickle.loads(pickle.dumps(call)).function is warm.function
        assert len(call.args[0]) > len(warm.args[0])
        return {"held": 0, "peak": 2**20}

    monkeypatch.setattr(measure, "peak_memory", peak_memory)
    monkeypatch.setattr(restoration, "WARM", 32)
    text = restoration._memory_table({"memory": [restoration._memory(64, "float32")]})
    assert text.count(" 1.00 |") == len(restoration.ITERATIVE) + 4


@pytest.mark.jit
def test_what_is_not_rounded_comes_back():
    photograph = data.camera()[60:200, 195:336]
    for blur in round_trip.blurs(photograph.shape).values():
        stations = round_trip.pictures(photograph, blur, 2)
        assert list(stations) == round_trip.STATIONS
        errors = round_trip.errors(stations)
        assert errors[round_trip.DIVIDED] < 1e-6
        assert errors[round_trip.BLURRED] > 5
        assert errors[round_trip.ROUNDED] > errors[round_trip.BLURRED]
        np.testing.assert_allclose(stations[round_trip.DIVIDED], photograph, rtol=1e-6)


@pytest.mark.jit
def test_figures_are_drawn_that_need_no_results_but_these(tmp_path):
    assert list(plots.FIGURES) == bench.FIGURES
    profile = [0.1, 0.2]
    curves = [
        {"who": who, "num_iter": steps, "profile": profile}
        for who, steps in (
            (restoration.BLURRED, 0),
            (restoration.ACCELERATED, 10),
            (restoration.SKIMAGE, 10),
            (restoration.SKIMAGE, 100),
        )
    ]
    row = {"psf": "disk", "size": 64, "counts": [10, 100], "curves": curves}
    head = {"suite": "restoration", "quick": True}
    report.save(tmp_path, head | {"border": [row]}, "")
    figures = tmp_path / "figures"
    bench.main(["plots", "--quick", "--output", str(tmp_path), "--figures", str(figures)])
    names = {"border.png", "round_trip.png", "fields.png"}
    assert {path.name for path in figures.iterdir()} == names
    # bench/README.md shows these.
    assert all((figures / f"{name}.png").stat().st_size < 400_000 for name in bench.FIGURES[3:5])
    with pytest.raises(SystemExit, match="python -m bench sizes"):
        bench.main(["plots", "sizes", "--output", str(tmp_path)])


def entry(median, **more):
    return {"median": median, "seconds": [median], **more}


def results_for_goals():
    """What a full run of every suite that is read leaves, with round numbers."""
    both = {fit.OURS: entry(1.0), fit.NUMPY: entry(9.0), fit.YARDSTICK: entry(2.0)}
    peers = {fit.OURS: entry(1.0, error=1e-9), "SFFT on the CPU 1": entry(200.0)}
    engines = {"auto": entry(1.0), "float": entry(1.0), "fft": entry(0.5)}
    separable = {convolve.SEP_FILTER_2D: {"ratio": 2.0}, convolve.FILTER_2D: {"ratio": 0.5}}
    unknown = {"unknown": entry(30.0, memory={"peak": 500}), "symmetric": entry(1.0)}
    filters = {"wiener, gcv": entry(1.0), "skimage wiener, a number": entry(2.0)}
    circular = {whole.OURS: entry(1.2), whole.TRANSFORMS: entry(1.0)}
    two = {"1": entry(2.0), str(fit.WORKERS): entry(1.0)}
    command_row = {"what": "a command", "size": command.LARGE, "seconds": 9.0, "peak": 3 * 10**9}

    def cell(size, dtype, taps, **more):
        return {"size": size, "dtype": dtype, "taps": taps, **more}

    def by_dtype(size, **more):
        return [{"size": size, "dtype": dtype, **more} for dtype in restoration.DTYPES]

    fits = [(4096, "uint8", 5), (256, "uint8", 5), (4096, "float32", 5), (4096, "float32", 9)]
    work = {"bytes": 60, "multiply_adds": 70, "workers": two}
    return {
        "fit": {"cells": [cell(*one, contenders=both) for one in fits]},
        "engines": {
            "cells": [cell(4096, "float32", 31, chosen="float", contenders=engines)],
            "references": by_dtype(4096, contenders=both)[:1],
        },
        "limits": {
            "workers": fit.WORKERS,
            "bandwidth": {str(fit.WORKERS): {"sum": 100.0, "copy": 50.0}},
            "peak": {"integer": {"5": 100.0}, "float": {"5": 200.0}},
            "memory": [cell(8192, "uint8", 31, peak=2**20)],
            "rows": [
                cell(4096, dtype, taps, direct=direct, **work)
                for dtype, direct in (("uint8", "integer"), ("float32", "float"))
                for taps in (3, 5, 9, 31)
            ],
            "starts": [{"what": "first fit", "empty cache": [2.0], "warm cache": [0.1]}],
        },
        "company": {
            "others": 2,
            "yardstick": {"alone": entry(1.0), "beside": entry(2.0)},
            "rows": [{"what": "4096² float32, 31×31", "beside": entry(3.0)}],
        },
        "command": {
            "times": [{"what": "estimate", "median": 0.5}],
            "memory": [command_row | {"beyond": 2**20}],
            "restore": [command_row],
        },
        "convolve": {
            "cells": [
                {"size": size, "taps": taps, "kind": kind, "contenders": separable}
                for size in convolve.OTHER_SIZES
                for taps, kind in convolve.other_kernels(size)
            ]
        },
        "restoration": {
            "iterations": by_dtype(2048, psf="skew", seconds={"plain": 1.0, "skimage": 20.0}),
            "filters": by_dtype(64, contenders=filters),
            "unknown": by_dtype(1024, image=100, contenders=unknown),
        },
        "whole": {
            "rows": [
                row
                for method in whole.METHODS
                for size in whole.SIZES
                for row in by_dtype(size, method=method, contenders=circular)
            ]
        },
        "peers": {"cells": [cell(4096, "float32", 15, contenders=peers)]},
    }


def write_results(folder, results):
    for name, result in results.items():
        head = {"suite": name, "quick": False}
        (folder / f"{name}.json").write_text(json.dumps(head | result), encoding="utf-8")


def test_goals_are_judged_by_the_results_of_other_suites(tmp_path):
    results = results_for_goals()
    assert list(results) == list(goals.SOURCES)
    results["convolve"]["cells"][1]["contenders"] = {convolve.SEP_FILTER_2D: {"ratio": 0.25}}
    results["whole"]["rows"][1]["contenders"] = {
        whole.OURS: entry(2.0),
        whole.TRANSFORMS: entry(1.0),
    }
    write_results(tmp_path, results)
    bench.main(["goals", "--output", str(tmp_path)])
    rows = _table_rows(tmp_path / "goals.md")
    found = {row[1].strip(): (row[-3].strip(), row[-2].strip()) for row in rows}
    worst = convolve.label(results["convolve"]["cells"][1])
    for name, want in {
        "256² uint8, 5×5: times the NumPy recipe": ("9", "yes"),
        "4096² uint8, 5×5: times the NumPy recipe": ("9", "no"),
        "4096² float32, 31×31: over scipy.fft.rfft2": ("0.5", "yes"),
        "loss by the choice of engine": ("2", "no"),
        "4096² uint8, 3×3: share of the limit, %": ("70", "yes"),
        "4096² float32, 3×3: share of the limit, %": ("60", "yes"),
        f"4096² float32, 31×31: {fit.WORKERS} workers over 1": ("2", "yes"),
        "4096² float32, 31×31, beside 2 busy processes: over scipy.fft.rfft2": ("1.5", "no"),
        "estimate, whole process, s": ("0.5", "yes"),
        "a command of 12000² files: MiB beyond images and start": ("1", "yes"),
        "restore of a 12000² file, unknown border: peak, GB (in 9.00 s)": ("3", "no"),
        "convolve 9×9 on 256²: times cv2.filter2D": ("0.5", "no"),
        "convolve 9×9 on 256²: times cv2.sepFilter2D": ("2", "yes"),
        f"convolve by columns and rows: times cv2.sepFilter2D (at worst, {worst})": ("0.25", "no"),
        "wiener, 64² float64, gcv: over scikit-image's with a number": ("0.5", "yes"),
        "wiener, 1024² float32, unknown border: over symmetric": ("30", "no"),
        "wiener, 1024² float32, unknown border: memory, images": ("5", "yes"),
        "method fft: over its transforms (at worst, 512² float64)": ("2", "no"),
        "4096² float32, 15×15: times SFFT": ("200", "yes"),
    }.items():
        assert found[name] == want, name
    text = (tmp_path / "goals.md").read_text(encoding="utf-8")
    assert "What stands between" in text
    assert "- loss by the choice of engine: not known." in text


@pytest.mark.parametrize(
    ("suite", "part", "missing"),
    [
        ("limits", "rows", "dtype float32, taps 3"),
        ("convolve", "cells", "size 256, taps 3, kind separable"),
        ("restoration", "unknown", "size 1024, dtype float32"),
        ("whole", "rows", "size 512, dtype float32"),
    ],
)
def test_goals_say_which_suite_is_to_be_run_again(tmp_path, suite, part, missing):
    results = results_for_goals()
    rows = results[suite][part]
    rows[:] = [row for row in rows if not all(text in _named(row) for text in missing.split(", "))]
    write_results(tmp_path, results)
    with pytest.raises(SystemExit, match=rf"{missing}: run `python -m bench {suite}` again"):
        bench.main(["goals", "--output", str(tmp_path)])


def _named(row):
    return [f"{key} {value}" for key, value in row.items()]


def test_goals_say_which_suite_has_never_run(tmp_path):
    results = results_for_goals()
    del results["whole"], results["command"]
    write_results(tmp_path, results)
    bench.main(["goals", "--output", str(tmp_path)])
    text = (tmp_path / "goals.md").read_text(encoding="utf-8")
    assert "Left out, as they were not run: command, whole." in text
    results["command"] = {"times": []}  # of an older kind
    write_results(tmp_path, results)
    with pytest.raises(SystemExit, match="lack memory: run `python -m bench command` again"):
        bench.main(["goals", "--output", str(tmp_path)])


def test_the_whole_process_of_a_command_is_measured(tmp_path):
    found = command.process(tmp_path, "--version")
    assert 0 < found["seconds"] < 60
    assert 2**20 < found["peak"] < 2**30
    with pytest.raises(subprocess.CalledProcessError):
        command.process(tmp_path, "estimate", tmp_path / "none.png", tmp_path / "none.png")


@pytest.mark.jit
def test_commands_are_those_that_there_are(tmp_path, monkeypatch, capsys):
    calls = []

    def process(cache, *words):
        calls.append(words[0])
        with pytest.raises(SystemExit) as ended:
            sys.exit(cli.main(list(map(str, words))))
        assert not ended.value.code
        return {"seconds": 0.5, "peak": len(calls) * 2**20}

    monkeypatch.setattr(command, "process", process)
    monkeypatch.setattr(command, "SIZE", 64)
    monkeypatch.setattr(command, "PART", 50)  # repeated to 64² and 96²
    capsys.readouterr()
    result = run(tmp_path, "command", "--sizes", "96", "--repeats", "2")
    assert calls == ["estimate"] * 6 + ["restore"] * 2
    (memory,) = result["memory"]
    assert memory["beyond"] == 2**20 - 2 * 96**2
    assert result["restore"][0]["peak"] == 8 * 2**20
    assert "| estimate, 64² PNG, 5×5 | 0.500 |    2 |" in capsys.readouterr().out


def test_company_is_busy_and_leaves():
    with company.others(2) as busy:
        assert [other.poll() for other in busy] == [None, None]
    assert None not in [other.poll() for other in busy]


def test_company_that_does_not_come_is_told(monkeypatch):
    monkeypatch.setattr(company, "_BUSY", "pass")
    with pytest.raises(SystemExit, match="did not start"), company.others(1):
        pass


def _table_rows(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split("|") for line in lines if line.startswith("| ")]


@pytest.mark.jit
def test_trials_tell_how_they_ended(monkeypatch, capsys):
    from bench import abuse

    trials = {abuse.accuracy: abuse.Counts(9, 4, 9), abuse.threads: abuse.Counts(9, 9, 3)}
    trials[abuse.soak] = abuse.Counts(9, 9, 1)
    monkeypatch.setattr(abuse, "TRIALS", trials)
    result = abuse.run(argparse.Namespace(quick=False, nightly=True))
    assert all(row["kept"] for row in result["rows"])
    assert len(result["rows"]) == 2 + 1 + 1
    told = capsys.readouterr().err
    assert "8 threads, 3 mixed calls each, to the bit: 1 of 1" in told
    assert "8 threads, mixed calls for 1 s, to the bit, no memory lost: 1 of 1" in told
    ends = [(0, "right"), (1, "an error"), ("hung", "")]
    row = abuse._counted("calls", ends)
    assert (row["kept"], row["reached"], row["others"]) == (
        False,
        "1 of 3",
        ["1: an error", "hung: "],
    )
    assert "- calls: 1: an error; hung: " in abuse.tables({"rows": [row]})
