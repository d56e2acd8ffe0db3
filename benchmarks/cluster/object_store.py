"""Compare extraction to, and training from, an object store with a local folder, at 20 ms of latency per request.

    python -m benchmarks.cluster.object_store > benchmarks/cluster/object_store.md

The server is moto on this machine, behind the proxy of :mod:`benchmarks.cluster.objects` without faults.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.cluster.objects import FaultProxy, environment, objects_of, s3_server
from benchmarks.machine import print_heading
from benchmarks.worlds.small_store import tree
from mgc import api
from mgc.cache.places import ObjectPath, place
from mgc.cache.reading.object_reader import ObjectReader
from mgc.pipeline.sources.manifest import Source

N_SONGS, PART_ROWS, RUNS, EPOCHS, LATENCY_S = 512, 128, 2, 3, 0.02


def write_songs(folder: Path) -> Source:
    """Write songs of 30 s: noise, mono, 22 050 Hz, as FLAC."""
    lines = ["id,path,genres,artist"]
    for i in range(N_SONGS):
        audio = 0.1 * np.random.default_rng(i).normal(size=30 * 22_050)
        soundfile.write(folder / f"{i}.flac", np.clip(audio, -1, 1), 22_050)
        lines.append(f"t{i},{i}.flac,{('rock', 'jazz')[i % 2]},a{i}")
    (folder / "songs.csv").write_text("\n".join(lines) + "\n")
    return api.read_source(folder / "songs.csv").source


def extract(source: Source, store: Path) -> float:
    """Extract mels in this process; return songs per second."""
    started = time.perf_counter()
    api.extract(source, store, features=("mel",), part_rows=PART_ROWS, workers=0)
    return N_SONGS / (time.perf_counter() - started)


def training_waits(store: Path, run: Path) -> list[float]:
    """Train from an object store; return the share of time in reads, for the first epoch and for the others."""
    waited, marks = 0.0, list[tuple[float, float]]()
    read = ObjectReader.read_into

    def timed(self: ObjectReader, *arguments: Any) -> None:
        nonlocal waited
        started = time.perf_counter()
        read(self, *arguments)
        waited += time.perf_counter() - started

    def on_progress(step: str, done: int, total: int, note: str = "") -> None:
        if step == "train" and (not marks or done == len(marks)):
            marks.append((time.perf_counter(), waited))

    ObjectReader.read_into = timed  # type: ignore[method-assign]
    try:
        marks.append((time.perf_counter(), 0.0))
        settings = [f"epochs={EPOCHS}", "placement=mapped", "modalities=audio"]
        api.train(store, run, settings=settings, on_progress=on_progress)
    finally:
        ObjectReader.read_into = read  # type: ignore[method-assign]
    (start, _), (first, first_waited), (last, last_waited) = marks[0], marks[1], marks[-1]
    return [first_waited / (first - start), (last_waited - first_waited) / (last - first)]


def main() -> None:
    note = f": {N_SONGS} songs of 30 s, parts of {PART_ROWS}, mean of {RUNS} runs in turn."
    print_heading("Object store", __file__, note)
    with tempfile.TemporaryDirectory() as scratch, s3_server() as port:
        folder = Path(scratch)
        (folder / "songs").mkdir()
        source = write_songs(folder / "songs")
        proxy = FaultProxy(port, delay_s=LATENCY_S)
        os.environ |= environment(proxy.url) | {"MGC_CACHE_DIR": str(folder / "cache")}
        rates: dict[str, list[float]] = {"local": [], "S3": []}
        extract(source, folder / "warm.zarr")
        for run in range(RUNS):
            rates["local"].append(extract(source, folder / f"{run}.zarr"))
            rates["S3"].append(extract(source, Path(f"s3://music/{run}.zarr")))
        requests = proxy.requests // RUNS
        url = place("s3://music/0.zarr")
        assert isinstance(url, ObjectPath)
        local = {key: data for key, data in tree(folder / "0.zarr").items() if data is not None}
        assert objects_of(url) == local
        shares = training_waits(url, folder / "run")
        means = {name: statistics.mean(each) for name, each in rates.items()}
        print(f"{1000 * LATENCY_S:.0f} ms of latency per request. The objects equal those of the local store.\n")
        print("| measured | local | S3 (moto) | S3 / local |\n|---|---|---|---|")
        print(
            f"| extraction of mels, one process, songs/s | {means['local']:.1f} | {means['S3']:.1f} "
            f"({requests} requests) | {100 * means['S3'] / means['local']:.0f} % |"
        )
        print(f"| training, share of time in reads, first epoch | | {100 * shares[0]:.1f} % | |")
        print(f"| training, share of time in reads, epochs 2 to {EPOCHS} | | {100 * shares[1]:.1f} % | |")
        print("\nThe machine ran other jobs too, so a difference of 10 % between the columns means nothing.")
        proxy.close()


if __name__ == "__main__":
    main()
