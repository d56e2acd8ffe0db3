"""Whether training in bf16 learns what training in float32 learns: the same seeds in both, beside what a seed changes.

    python -m benchmarks.tables.precision > benchmarks/tables/precision.md        (on a processor that computes in bf16)

The songs are those of benchmarks/tables/paper.py, with its settings.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import numpy as np
import torch

from benchmarks.machine import print_heading
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
    """One training, and what it came to: a number for each of FIGURES."""
    torch.set_num_threads(1)
    asked = {name.removeprefix("--").replace("-", "_"): value for name, value in OPTIONS.items()}
    config = TrainConfig(**{**PRESETS["paper"], **asked, "precision": precision, "seed": seed})
    with FeatureStore.open(store) as opened:
        result = train(opened, run, config, resume=True)
        test = evaluate(run, opened, n_replicates=0)["metrics"]
    assert result.best_map is not None
    return (result.best_map, test["mean_average_precision"]["value"], test["columns"]["tuned"]["jaccard"]["value"],
            result.history[-1].loss)  # fmt: skip


def measured(store: Path, folder: Path, n_seeds: int, processes: int) -> dict[str, np.ndarray]:
    """Precision -> (seeds, FIGURES)."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=fresh) as pool:
        waiting = {
            precision: [pool.submit(figures, store, folder / f"{precision}-{seed}", precision, seed)
                        for seed in range(n_seeds)]
            for precision in PRECISIONS
        }  # fmt: skip
        return {precision: np.array([one.result() for one in runs]) for precision, runs in waiting.items()}


def report(found: dict[str, np.ndarray]) -> str:
    fp32, bf16 = (found[name] for name in PRECISIONS)
    rows: list[list[Any]] = []
    for column, name in enumerate(FIGURES):
        difference = bf16[:, column] - fp32[:, column]
        rows.append([name, *(spread(found[one][:, column].tolist(), 1, 3) for one in PRECISIONS),
                     f"{difference.mean():+.3f}", f"{difference.std(ddof=1):.3f}",
                     f"{fp32[:, column].std(ddof=1):.3f}"])  # fmt: skip
    header = ["", *PRECISIONS, "difference, mean over seeds", "its deviation", "deviation of fp32 between seeds"]
    return table("The same seeds in both precisions", header, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--songs", type=int, default=N_SONGS)
    parser.add_argument("--folder", type=Path, help="keeps songs, store and runs, and goes on from them")
    given = parser.parse_args()
    if not cpu_has_bf16():
        print("This processor does not compute in bf16: nothing was measured.", file=sys.stderr)
        return 3
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        labels = label_sets()
        store = make_store(folder, BenchmarkWorld(labels=labels, seed=SEED), given.songs, clip_s=CLIP_S, workers=cores)
        found = measured(store, folder, given.seeds, cores)
    print_heading(
        "Training in bf16 and in float32",
        __file__,
        f": median [lowest, highest] of {given.seeds} seeds. {given.songs} songs of the benchmark world "
        f"(benchmarks/tables/paper.md), its settings; {cores} trainings at a time, a thread each. None of this is a "
        "result on music.",
        torch_version=torch.__version__,
    )
    print(report(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
