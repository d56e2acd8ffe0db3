"""Time the search of `mgc similar` over one million vectors, and compare it with brute force and scikit-learn.

python -m benchmarks.speed.similar > benchmarks/speed/similar.md
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.neighbors import NearestNeighbors

from benchmarks.machine import print_heading
from mgc.heads.data.vectors import Vectors, read_vectors, write_vectors
from mgc.heads.metrics.nearest import Cosine

BLOCK, TOP, QUERIES = 50_000, 10, 5


def blocks(n_tracks: int, size: int) -> Any:
    """Yield random vectors with a common mean, as features have it; every 1000th repeats an earlier one."""
    for start in range(0, n_tracks, BLOCK):
        n = min(BLOCK, n_tracks - start)
        values = np.random.default_rng(start).normal(-20, 4, (n, size)).astype(np.float32)
        values[1000::1000] = values[0]
        ids = [f"{start + i:08d}" for i in range(n)]
        tracks = pa.table({"id": ids, "genres": pa.array([["rock"]] * n, pa.list_(pa.string()))})
        yield Vectors(tracks=tracks, values={"fused": values}, about={"model": "random"})


def brute_force(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return the positions of the nearest vectors by a plain search in float64, in blocks."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    parts = [vectors[i : i + BLOCK] for i in range(0, len(vectors), BLOCK)]
    std = np.sqrt(sum(((part - mean) ** 2).sum(axis=0) for part in parts) / len(vectors))
    wanted = (query - mean) / std
    cosines = []
    for part in parts:
        values = (part - mean) / std
        cosines.append(values @ wanted / (np.linalg.norm(values, axis=1) * np.linalg.norm(wanted)))
    return np.argsort(-np.concatenate(cosines), kind="stable")[:TOP]


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return the result, the wall time and the CPU time of all threads in s."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.parquet"
        write_vectors(path, blocks(options.tracks, options.size))
        start_gb = peak_gb()
        (_, vectors), load_s, load_cpu = timed(lambda: read_vectors(path))
    values = vectors.values["fused"]
    queries = np.random.default_rng(1).integers(options.tracks, size=QUERIES)
    wanted = [values[i].copy() for i in queries]
    expected = [brute_force(values, query) for query in wanted]
    brute_s, brute_cpu = timed(lambda: brute_force(values, wanted[0]))[1:]
    search, scale_s, scale_cpu = timed(lambda: Cosine(values, standardise=True))
    runs = [timed(lambda query=query: search.nearest(query, TOP)) for query in wanted]
    peak = peak_gb()
    equal = sum(np.array_equal(run[0][0], want) for run, want in zip(runs, expected, strict=True))
    peer, fit_s, fit_cpu = timed(lambda: NearestNeighbors(n_neighbors=TOP, metric="cosine").fit(values))
    scaled = [search.scaled(query[None]).astype(np.float32) for query in wanted]
    peer_runs = [timed(lambda query=query: peer.kneighbors(query)) for query in scaled]
    n, size = f"{options.tracks:,}".replace(",", " "), options.size
    print_heading("Search for similar tracks", __file__, f": {n} random vectors of {size} values, {QUERIES} queries.")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"Load averages at the end: {load}. CPU time is the sum over threads.\n")
    print("| step | wall s | CPU s |\n|---|---|---|")
    median = statistics.median
    for name, wall, cpu in (
        ("read the file", load_s, load_cpu),
        ("standardise and scale", scale_s, scale_cpu),
        ("`mgc similar`, one query", median(run[1] for run in runs), median(run[2] for run in runs)),
        ("brute force in float64 with NumPy, one query", brute_s, brute_cpu),
        ("scikit-learn `NearestNeighbors`, fit on scaled vectors", fit_s, fit_cpu),
        ("scikit-learn, one query", median(run[1] for run in peer_runs), median(run[2] for run in peer_runs)),
    ):
        print(f"| {name} | {wall:.2f} | {cpu:.2f} |")
    print(
        f"\nEqual to brute force: {equal} of {QUERIES} queries (the {TOP} nearest, in order; every 1000th vector of a "
        f"block is a repetition).\nPeak memory up to the last query, with the copies of brute force: {peak:.2f} GB; "
        f"before the file was read: {start_gb:.2f} GB; the vectors are {values.nbytes / 1e9:.2f} GB."
    )


if __name__ == "__main__":
    main()
