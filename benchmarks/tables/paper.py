"""The paper's tables on the benchmark world: make it, train everything with three seeds, print what came out.

    python -m benchmarks.tables.paper run [--folder tables] [--processes 2]      hours; goes on where it stopped
    python -m benchmarks.tables.paper report [--folder tables] > benchmarks/tables/paper.md

which is what `make tables` does, in that order.

FOLDER holds the world's songs, their store and the ablation's runs; keep it, and `run` goes on from it.
The prose that reads the tables, benchmarks/tables/paper_reading.txt, is written by hand and cites only printed figures.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import print_heading
from benchmarks.tables.world import CLIP_S, N_SONGS, SEED, ceilings, facts, label_sets, make_store
from benchmarks.worlds.songs import BenchmarkWorld
from mgc import api
from mgc.pipeline.sources.genre_prompts import genre_names

READING = Path(__file__).parent / "paper_reading.txt"
SEEDS = 3
OPTIONS = {"--encoder": "tiny", "--epochs": 10, "--batch-size": 16, "--lr": 1e-3, "--lr-halve-every": 3,
           "--device": "cpu", "--precision": "fp32"}  # fmt: skip


def named_store(folder: Path, store: Path, genres: Sequence[str]) -> Path | None:
    """The same store with its genres read aloud by their frequent spellings; None where that changes none of them."""
    if not set(genre_names("common")) & set(genres):
        return None
    named = folder / "named.zarr"
    if not named.exists():
        api.store_select(store, named, genre_names="common", text_model="minilm")
    return named


def ablate(store: Path, folder: Path, processes: int, n_seeds: int, options: dict[str, Any]) -> int:
    """`mgc ablate`, by so many processes of one thread each that share out the runs; the worst exit status."""
    command = [sys.executable, "-m", "mgc", "ablate", str(store), "-o", str(folder), "--seeds", str(n_seeds)]
    command += [str(part) for option in options.items() for part in option]
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    started = [subprocess.Popen(command, env=os.environ | one_thread) for _ in range(processes)]
    return max(process.wait() for process in started)


def run(folder: Path, processes: int) -> int:
    labels = label_sets()
    print(f"genre sets: {labels.origin}", file=sys.stderr, flush=True)
    store = make_store(folder, BenchmarkWorld(labels=labels, seed=SEED), N_SONGS, clip_s=CLIP_S, workers=processes)
    named = named_store(folder, store, labels.genres)
    options = OPTIONS | ({} if named is None else {"--genre-names-store": named})
    return ablate(store, folder / "ablation", processes, SEEDS, options)


def report(folder: Path) -> None:
    labels = label_sets()
    world = BenchmarkWorld(labels=labels, seed=SEED)
    songs = world.songs(N_SONGS)
    page = (folder / "ablation" / "tables.md").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in page if not line.startswith("!["))  # the plots stay with the runs
    print_heading(
        "The paper's tables on the benchmark world",
        __file__,
        f". The world is made by our own code (docs/design/004): {N_SONGS} songs of {CLIP_S:g} s. None of this is a "
        "result on music.",
        torch_version=torch.__version__,
    )
    if READING.exists():
        print(READING.read_text(encoding="utf-8"))
    print("## The world\n\n| | |\n|---|---|")
    for name, value in facts(world, songs):
        print(f"| {name} | {value} |")
    print("\nWhat could be known, without sounds or words to make out (Jaccard index on the test songs of a logistic "
          "regression that is told motifs and topics):\n\n| told | Jaccard |\n|---|---|")  # fmt: skip
    for name, figure in ceilings(world, songs).items():
        print(f"| {name} | {figure:.3f} |")
    print("\n" + text.replace("\n## ", "\n### ").replace("# Ablations", "## The tables", 1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("--folder", type=Path, default=Path("tables"))
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    if given.what == "run":
        return run(given.folder, given.processes)
    report(given.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
