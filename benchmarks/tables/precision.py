"""Compare training in bf16 with training in float32, with the same seeds, relative to the variation between seeds.

    python -m benchmarks.tables.precision > benchmarks/tables/precision.md        (on a processor with native bf16)

The songs and settings are those of benchmarks/tables/paper.py.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.machine import ONE_THREAD, print_heading

os.environ.update(ONE_THREAD)

import numpy as np
import torch

from benchmarks.tables.paper import OPTIONS
from benchmarks.tables.world import CLIP_S, N_SONGS, SEED, label_sets, make_store
from benchmarks.timing import spread, table
from benchmarks.worlds.songs import BenchmarkWorld
from mgc.cache.machine import cpu_has_bf16
from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import PRESETS, TrainConfig
from mgc.heads.evaluation.evaluate import evaluate
from mgc.heads.training.train import train

PRECISIONS = ("fp32", "bf16")
FIGURES = ("validation mAP, best epoch", "test mAP", "test Jaccard", "training loss, last epoch")


def figures(store: Path, run: Path, precision: str, seed: int) -> tuple[float, ...]:
    """Train once; return a number for each of FIGURES."""
    torch.set_num_threads(1)
    config = TrainConfig(**{**PRESETS["paper"], **OPTIONS, "precision": precision, "seed": seed})
    with FeatureStore.open(store) as opened:
        result = train(opened, run, config, resume=True)
        test = evaluate(run, opened, n_replicates=0).metrics.to_dict()
    assert result.best_map is not None
    test_map, test_jaccard = test["mean_average_precision"]["value"], test["columns"]["tuned"]["jaccard"]["value"]
    return (result.best_map, test_map, test_jaccard, result.history[-1].loss)


def measure(store: Path, folder: Path, n_seeds: int, processes: int) -> dict[str, np.ndarray]:
    """Train every seed in both precisions; return (seeds, FIGURES) by precision."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        runs: dict[str, list[Future[tuple[float, ...]]]] = {precision: [] for precision in PRECISIONS}
        for precision, seed in itertools.product(PRECISIONS, range(n_seeds)):
            run = folder / f"{precision}-{seed}"
            runs[precision].append(pool.submit(figures, store, run, precision, seed))
        return {precision: np.array([run.result() for run in futures]) for precision, futures in runs.items()}


def report(results: dict[str, np.ndarray]) -> str:
    """Return the table of both precisions."""
    rows: list[list[Any]] = []
    for column, name in enumerate(FIGURES):
        fp32, bf16 = (results[precision][:, column] for precision in PRECISIONS)
        difference = bf16 - fp32
        spreads = [spread(values.tolist(), 1, 3) for values in (fp32, bf16)]
        deviations = [f"{values.std(ddof=1):.3f}" for values in (difference, fp32)]
        rows.append([name, *spreads, f"{difference.mean():+.3f}", *deviations])
    header = ["", *PRECISIONS, "difference, mean over seeds", "its standard deviation", "standard deviation of fp32"]
    return table("The same seeds in both precisions", header, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--songs", type=int, default=N_SONGS)
    parser.add_argument("--folder", type=Path, help="keep songs, store and runs in this folder, and resume from it")
    options = parser.parse_args()
    if not cpu_has_bf16():
        print("no native bf16 on this processor: nothing was measured", file=sys.stderr)
        return 3
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        world = BenchmarkWorld(labels=label_sets(), seed=SEED)
        store = make_store(folder, world, options.songs, clip_s=CLIP_S, workers=cores)
        results = measure(store, folder, options.seeds, cores)
    print_heading(
        "Training in bf16 and in float32",
        __file__,
        f": median [lowest, highest] of {options.seeds} seeds. {options.songs} songs and settings of the synthetic "
        f"benchmark (benchmarks/tables/paper.md); {cores} training runs at a time, with one thread each. These are not "
        "results on music.",
        torch_version=torch.__version__,
    )
    print(report(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
