"""Measure the cost of a checkpoint by size of the model: bytes on disk, time to write it durably and to read it.

    python -m benchmarks.speed.checkpoint [--folder DIR] > benchmarks/speed/checkpoint.md

DIR selects the disk; default: a temporary folder.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import print_heading
from mgc.heads.model.config import ModelConfig
from mgc.heads.model.graph import build_adjacency
from mgc.heads.model.model import GenreModel
from mgc.heads.runs.checkpoint import RunState, find_state, restore, save_state

N_GENRES, TEXT_DIM, TIMES = 87, 768, 7
"""Number of genres in the paper, width of BERT, and number of repetitions."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    folder = parser.parse_args().folder
    print_heading(
        "Checkpoints",
        __file__,
        f": {N_GENRES} genres, text width {TEXT_DIM}, Adam; median of {TIMES}. Writing includes fsync. Two checkpoints "
        "and the best weights are kept.",
    )
    print("| encoder | parameters | checkpoint, MB | `last/` and `best/` at most, MB | write, s | check, read, s |")
    print("|---|---|---|---|---|---|")
    for encoder in ("tiny", "lite", "base"):
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            print(row(encoder, Path(scratch) / "run"), flush=True)


def row(encoder: str, run: Path) -> str:
    """Measure one model and write its row of the table."""
    rng = np.random.default_rng(0)
    names, labels = rng.normal(size=(N_GENRES, TEXT_DIM)), rng.random((500, N_GENRES)) < 0.05
    config = ModelConfig(n_genres=N_GENRES, text_dim=TEXT_DIM, encoder=encoder)
    adjacency = build_adjacency(labels, names, config.graph_options).adjacency
    model = GenreModel(config, adjacency=adjacency, genre_embedding=names)
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    writing, reading = [], []
    state = RunState(epoch=0, step=0, config={}, task={}, best_epoch=1)
    for epoch in range(1, TIMES + 1):
        state.epoch = epoch
        writing.append(_seconds(lambda: save_state(run, state, model, optimizer)))
        reading.append(_seconds(lambda: restore(run, find_state(run)[0], model, optimizer)))
    sizes = {role: (run / "last" / entry["name"]).stat().st_size for role, entry in state.files.items()}
    checkpoint = sum(size for role, size in sizes.items() if role != "best")
    most = sum(path.stat().st_size for path in (run / "last").iterdir()) + sizes["best"]
    cells = (
        encoder,
        f"{sum(p.numel() for p in model.parameters()):,}",
        f"{checkpoint / 1e6:.1f}",
        f"{most / 1e6:.1f}",
        f"{statistics.median(writing):.2f}",
        f"{statistics.median(reading):.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
