"""The paper's tables on the benchmark world: make it, train everything with three seeds, print the results.

    python -m benchmarks.tables.paper run [--folder tables] [--processes 2]      hours; a repeated call resumes
    python -m benchmarks.tables.paper report [--folder tables] > benchmarks/tables/paper.md

`make tables` runs both in that order. FOLDER holds the songs of the world, their store and the runs of the ablation;
`run` resumes from it. The text about the tables, benchmarks/tables/paper_reading.txt, is written by hand and cites only
printed figures.
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

from benchmarks.machine import ONE_THREAD, print_heading
from benchmarks.tables.world import CLIP_S, N_SONGS, SEED, label_sets, make_store, print_world
from benchmarks.worlds.songs import BenchmarkWorld
from mgc import api
from mgc.pipeline.sources.label_tables import genre_names

READING = Path(__file__).parent / "paper_reading.txt"
SEEDS = 3
OPTIONS = {
    "--encoder": "tiny",
    "--epochs": 10,
    "--batch-size": 16,
    "--lr": 1e-3,
    "--lr-halve-every": 3,
    "--device": "cpu",
    "--precision": "fp32",
}


def named_store(folder: Path, store: Path, genres: Sequence[str]) -> Path | None:
    """Make the same store with frequent spellings as genre name prompts; None where that changes none of them."""
    if not set(genre_names("common")) & set(genres):
        return None
    named = folder / "named.zarr"
    if not named.exists():
        api.store_select(store, named, genre_names="common", text_model="minilm")
    return named


def ablate(store: Path, folder: Path, processes: int, n_seeds: int, options: dict[str, Any]) -> int:
    """Run `mgc ablate` in processes of one thread each, which share the runs; return the worst exit status."""
    command = [sys.executable, "-m", "mgc", "ablate", str(store), "-o", str(folder), "--seeds", str(n_seeds)]
    command += [str(part) for option in options.items() for part in option]
    children = [subprocess.Popen(command, env=os.environ | ONE_THREAD) for _ in range(processes)]
    return max(child.wait() for child in children)


def run(folder: Path, processes: int) -> int:
    """Make the world and its store, and train; return the exit status."""
    labels = label_sets()
    print(f"genre sets: {labels.origin}", file=sys.stderr, flush=True)
    store = make_store(folder, BenchmarkWorld(labels=labels, seed=SEED), N_SONGS, clip_s=CLIP_S, workers=processes)
    named = named_store(folder, store, labels.genres)
    options = OPTIONS | ({} if named is None else {"--genre-names-store": named})
    return ablate(store, folder / "ablation", processes, SEEDS, options)


def report(folder: Path) -> None:
    """Print the page."""
    world = BenchmarkWorld(labels=label_sets(), seed=SEED)
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
    print_world(world, world.songs(N_SONGS), with_ceilings=True)
    print("\n" + text.replace("\n## ", "\n### ").replace("# Ablations", "## The tables", 1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "report"])
    parser.add_argument("--folder", type=Path, default=Path("tables"))
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if options.action == "run":
        return run(options.folder, options.processes)
    report(options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
