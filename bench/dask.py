"""Images on a cluster: what travels, what tasks there are, and the memory of workers.

A `LocalCluster` of processes with one thread each. ``--sizes 60000`` makes the images that large;
without it they are of a size that a laptop takes in a minute.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastkernel

from . import data, measure, report

SIZE, QUICK_SIZE = 8192, 1024
CHUNK, QUICK_CHUNK = 1024, 128
WORKERS, LIMIT = 3, "1GB"
TAPS = (5, 15, 31)
GOALS = {5: 0.01, 15: 0.05, 31: 0.25}
SIDE = 9  # of the kernel that is applied and found again
BLUR = np.outer(*2 * [np.hanning(SIDE + 2)[1:-1]]) / np.hanning(SIDE + 2).sum() ** 2


@contextmanager
def cluster() -> Iterator[Any]:
    """A client of fresh processes that may take a gigabyte each."""
    from distributed import Client, LocalCluster

    options = {"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options, memory_limit=LIMIT) as workers, Client(workers) as client:
        client.run(lambda: fastkernel.warm_up(workers=1))
        yield client


def _sent(client: Any) -> int:
    """Bytes that workers sent to others so far."""
    total = client.run(lambda dask_worker: dask_worker.transfer_outgoing_bytes_total)
    return int(sum(total.values()))


def _peak(client: Any) -> float:
    """The largest resident memory of a worker until now, in MB."""
    rss = client.run(lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return max(rss.values()) / 1000


def noise(block: NDArray, block_info: Any = None) -> NDArray:
    """Pixels that are independent of each other, others in every chunk."""
    place = block_info[None]["chunk-location"]
    return np.random.default_rng(place).integers(0, 256, block.shape, dtype=np.uint8)


def _store(path: Path, side: int, chunk: int) -> Any:
    import zarr

    return zarr.create_array(str(path), shape=(side, side), dtype="u1", chunks=(chunk, chunk))


def _written(folder: Path, side: int, chunk: int) -> Any:
    """A store of an image that workers make."""
    import dask.array as da

    store = _store(folder / f"source-{side}-{chunk}", side, chunk)
    zeros = da.zeros((side, side), chunks=chunk, dtype=np.uint8)
    da.store(zeros.map_blocks(noise, dtype=np.uint8), store, lock=False)
    return store


def _usual(source: Any, result: Any, taps: int) -> Any:
    """The usual recipe: overlaps are attached to chunks, whose equations are added up."""
    import dask
    import dask.array as da

    half = taps // 2
    around = da.overlap.overlap(source, depth=half, boundary="reflect")
    parts = zip(around.to_delayed().ravel(), result.to_delayed().ravel(), strict=True)
    gather = dask.delayed(fastkernel.normal_equations)
    return dask.delayed(sum)([gather(x, y, taps, workers=1) for x, y in parts])


def _moved(client: Any, store: Any, other: Any) -> Iterator[dict[str, Any]]:
    """Bytes between workers, a byte of the images."""
    import dask.array as da

    import fastkernel.dask as on_cluster

    images = 2 * store.shape[0] * store.shape[1]
    arrays = [da.from_zarr(each) for each in (store, other)]
    ways = [
        ("stores", lambda k: on_cluster.normal_equations(store, other, k, boundary="symmetric")),
        ("arrays", lambda k: on_cluster.normal_equations(*arrays, k, boundary="symmetric")),
        ("usual recipe", lambda k: _usual(*arrays, k)),
    ]
    for taps in TAPS:
        for name, make in ways:
            before, start = _sent(client), time.perf_counter()
            make(taps).compute()
            seconds = time.perf_counter() - start
            share = (_sent(client) - before) / images
            goal = {"stores": GOALS[taps], "arrays": 1.0}.get(name)
            yield {"what": name, "taps": taps, "share": share, "goal": goal, "seconds": seconds}


def _tasks() -> Iterator[dict[str, Any]]:
    """Tasks a chunk of an image of 10 000."""
    import dask
    import dask.array as da

    import fastkernel.dask as on_cluster

    side, chunk, kernel = 12800, 128, np.ones((9, 9))
    image = da.zeros((side, side), chunks=chunk, dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        store = _store(Path(folder) / "empty", side, chunk)
        made = {
            "convolve, store": (on_cluster.convolve(store, kernel, "same"), 1.2),
            "equations, stores": (on_cluster.normal_equations(store, store, 9, batch=1), 1.2),
            "convolve, array": (on_cluster.convolve(image, kernel, "same"), 3.0),
            "equations, arrays": (on_cluster.normal_equations(image, image + 1, 9, batch=1), 4.2),
            "map_overlap, array": (image.map_overlap(lambda x: x, depth=4), None),
        }
        for name, (collection, goal) in made.items():
            (found,) = dask.optimize(collection)
            count = len(dict(found.__dask_graph__())) / (side // chunk) ** 2
            yield {"what": name, "tasks": count, "goal": goal}


def _round_trip(client: Any, store: Any, folder: Path) -> dict[str, Any]:
    """A store convolved to a store, and the kernel found again."""
    import fastkernel.dask as on_cluster

    side, chunk = store.shape[0], store.chunks[0]
    out = _store(folder / "out", side, chunk)
    start = time.perf_counter()
    on_cluster.convolve(store, BLUR, "same", "mirror", out=out)
    convolved, start = time.perf_counter() - start, time.perf_counter()
    fit = on_cluster.estimate_kernel(store, out, SIDE, boundary="mirror")
    return {
        "side": side,
        "convolve": convolved,
        "fit": time.perf_counter() - start,
        "peak": _peak(client),
        "residual": fit.residual_rms,
        "error": float(abs(fit.kernel - BLUR).max()),
    }


def _overhead(side: int, chunk: int) -> dict[str, Any]:
    """Equations and convolutions of chunks in one thread, beside a bare loop over the same."""
    import dask
    import dask.array as da

    import fastkernel.dask as on_cluster

    whole = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    image, half = da.from_array(whole, chunks=chunk), SIDE // 2
    around = np.pad(whole, half, mode="symmetric")
    tiles = [(r, c) for r in range(0, side, chunk) for c in range(0, side, chunk)]

    def parts() -> Iterator[tuple[NDArray, NDArray]]:
        for r, c in tiles:
            beyond = around[r : r + chunk + 2 * half, c : c + chunk + 2 * half]
            yield beyond, whole[r : r + chunk, c : c + chunk]

    def loop_of_equations() -> Any:
        return sum(fastkernel.normal_equations(x, y, SIDE, workers=1) for x, y in parts())

    def loop_of_convolutions() -> Any:
        return [fastkernel.convolve(x, BLUR, "valid", workers=1) for x, _ in parts()]

    def equations() -> Any:
        return on_cluster.normal_equations(image, image, SIDE, boundary="symmetric").compute()

    def convolutions() -> Any:
        return dask.compute(
            *on_cluster.convolve(image, BLUR, "same", "symmetric").to_delayed().ravel()
        )

    found = {}
    with dask.config.set(scheduler="synchronous"):
        for name, ours, bare in (
            ("equations", equations, loop_of_equations),
            ("convolve", convolutions, loop_of_convolutions),
        ):
            times: dict[Any, list[float]] = {ours: [], bare: []}
            for _ in range(4):
                for call in (ours, bare):
                    start = time.perf_counter()
                    call()
                    times[call].append(time.perf_counter() - start)
            found[name] = min(times[ours][1:]) / min(times[bare][1:])
    return found


def _seams() -> dict[str, float]:
    """What cells leave of 30 iterations along their worst row or column, in grey levels."""
    import dask.array as da

    import fastkernel.dask as on_cluster

    image, disk = data.photograph(512), fastkernel.psf.disk(7)
    blurred = fastkernel.convolve(image, disk, "same", "mirror")
    grain = np.random.default_rng(0).normal(0, 0.3, image.shape)
    blurred = np.clip(np.rint(blurred + grain), 0, 255).astype(np.uint8)
    whole = fastkernel.richardson_lucy(blurred, disk, 30, acceleration=False, noise=None)
    found = on_cluster.richardson_lucy(da.from_array(blurred, chunks=128), disk, 30).compute()
    off = (found - whole) ** 2
    return {
        "rms": float(max(np.sqrt(off.mean(axis=axis)).max() for axis in (0, 1))),
        "largest": float(np.sqrt(off.max())),
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    side = measure.wanted(args, SIZE, QUICK_SIZE, (args.sizes or [None])[0])
    chunk = measure.wanted(args, CHUNK, QUICK_CHUNK)
    moving = min(side, measure.wanted(args, SIZE, QUICK_SIZE))
    tasks, seams = list(_tasks()), _seams()
    overhead = _overhead(measure.wanted(args, 4096, 512), chunk)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with cluster() as client:
            store = _written(folder, side, chunk)
            trip = _round_trip(client, store, folder)
        with cluster() as client:
            stores = [store] if moving == side else [_written(folder, moving, chunk)]
            moved = list(_moved(client, stores[0], stores[0]))
    return {"moved": moved, "tasks": tasks, "trip": trip, "overhead": overhead, "seams": seams}


def tables(result: dict[str, Any]) -> str:
    trip, seams = result["trip"], result["seams"]
    goals = [
        ("largest memory of a worker, MB", trip["peak"], 1000),
        ("residual, grey levels (of rounding: 0.289)", trip["residual"], 0.29),
        # Of 60000² pixels it is meant to be 2e-7.
        ("largest error of a tap", trip["error"], 2e-7 * 60000 / trip["side"]),
        *((f"time over a bare loop, {k}", v, 1.5) for k, v in result["overhead"].items()),
        ("seams of Richardson-Lucy, root mean square", seams["rms"], 0.01),
        ("seams of Richardson-Lucy, largest", seams["largest"], None),
    ]
    return "\n\n".join(
        [
            f"{trip['side']}² uint8, Zarr to Zarr, {SIDE}×{SIDE}: {trip['convolve']:.1f} s, and "
            f"{trip['fit']:.1f} s to find the kernel again, in {WORKERS} workers of {LIMIT}.",
            report.table(["", "reached", "goal"], [_row(*row) for row in goals]),
            report.table(
                ["tasks a chunk", "reached", "goal"],
                [_row(row["what"], row["tasks"], row["goal"]) for row in result["tasks"]],
            ),
            report.table(
                ["bytes between workers, a byte of image", "reached", "goal", "s"],
                [
                    [
                        *_row(f"{r['what']}, {r['taps']}×{r['taps']}", r["share"], r["goal"]),
                        f"{r['seconds']:.1f}",
                    ]
                    for r in result["moved"]
                ],
            ),
        ]
    )


readme = tables


def _row(name: str, reached: float, goal: float | None) -> list[str]:
    return [name, f"{reached:.3g}", "-" if goal is None else f"≤ {goal:g}"]
