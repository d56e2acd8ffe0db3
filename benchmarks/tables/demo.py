"""Measure the difficulty of the generated demo collection: majority baseline, audio only, lyrics only, both.

    python -m benchmarks.tables.demo [--seeds 0 1 2] [--songs 240] [--epochs N] [--lr X] [--folder DIR]

The last output is benchmarks/tables/demo.md.

Each seed is another world: other songs, another artist-disjoint split and other initial weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import print_heading
from mgc import api
from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import TrainConfig
from mgc.heads.evaluation.evaluate import evaluate
from mgc.heads.training.train import train
from mgc.pipeline.synth.world import make_collection, make_song

ONE_MODALITY = {"attention": False, "contrastive": False}
SYSTEMS: dict[str, dict[str, Any]] = {
    "audio only": {"modalities": "audio", **ONE_MODALITY},
    "lyrics only": {"modalities": "lyrics", **ONE_MODALITY},
    "both": {"modalities": "both"},
}


def world_facts(seed: int, n_songs: int) -> dict[str, float]:
    """Return figures of a whole world, and the Jaccard index of always predicting the most frequent genre."""
    songs = [make_song(seed, index) for index in range(n_songs)]
    top, _ = Counter(genre for song in songs for genre in song.genres).most_common(1)[0]
    return {
        "genres": len({genre for song in songs for genre in song.genres}),
        "labels per song": float(np.mean([len(song.genres) for song in songs])),
        "instrumental": float(np.mean([song.lyrics is None for song in songs])),
        "most frequent genre": float(np.mean([(top in song.genres) / len(song.genres) for song in songs])),
    }


def store_of(folder: Path, seed: int, n_songs: int) -> FeatureStore:
    """Write the world as files and extract it as `mgc extract` does."""
    path = folder / f"world-{seed}.zarr"
    if not path.exists():
        songs = make_collection(folder / f"world-{seed}", n_songs, seed, workers=os.cpu_count() or 1)
        api.extract(api.read_source(songs).source, path, text_model="minilm", workers=os.cpu_count() or 1)
    return FeatureStore.open(path)


def scores(store: FeatureStore, run: Path, config: TrainConfig) -> dict[str, float]:
    """Train once and score the test split."""
    started = time.perf_counter()
    train(store, run, config)
    seconds = time.perf_counter() - started
    result = evaluate(run, store, n_replicates=0).to_dict()
    metrics, majority = result["metrics"], result["baselines"]["majority"]["columns"]["fixed"]
    return {
        "Jaccard at 0.5": metrics["columns"]["fixed"]["jaccard"]["value"],
        "Jaccard, tuned": metrics["columns"]["tuned"]["jaccard"]["value"],
        "mAP": metrics["mean_average_precision"]["value"],
        "majority": majority["jaccard"]["value"],
        "best epoch": result["epoch"],
        "training s": seconds,
    }


def line(cells: list[object]) -> str:
    return "| " + " | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--songs", type=int, default=240)
    parser.add_argument("--folder", type=Path, help="keep worlds and stores in this folder")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    for name, kind in (("epochs", int), ("lr", float), ("batch_size", int), ("lr_halve_every", int)):
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=api.DEMO_OPTIONS.get(name))
    options = parser.parse_args()
    names = ("epochs", "lr", "batch_size", "lr_halve_every")
    chosen = {name: value for name in names if (value := getattr(options, name))}
    config = TrainConfig.from_preset("default", **api.DEMO_OPTIONS | chosen)

    print_heading(
        "Difficulty of the generated demo collection",
        __file__,
        f". {options.songs} songs per world; preset `{config.preset}`, encoder `{config.encoder}`, {config.epochs} "
        f"epochs, batches of {config.batch_size}, learning rate {config.lr:g} halved every {config.lr_halve_every} "
        "epochs; test songs are by unseen artists.",
        torch_version=torch.__version__,
    )
    facts = {seed: world_facts(seed, options.songs) for seed in options.seeds}
    print(line(["world", *next(iter(facts.values()))]))
    print(line(["---"] * (1 + len(next(iter(facts.values()))))))
    for seed, values in facts.items():
        print(line([seed, *values.values()]))

    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        results: dict[str, list[dict[str, float]]] = {name: [] for name in options.systems}
        for seed in options.seeds:
            store = store_of(folder, seed, options.songs)
            for name in options.systems:
                system = dataclasses.replace(config, seed=seed, split_seed=seed, **SYSTEMS[name])
                with tempfile.TemporaryDirectory(dir=folder) as run:
                    results[name].append(scores(store, Path(run), system))
                print(seed, name, results[name][-1], file=sys.stderr, flush=True)
    columns = list(next(iter(results.values()))[0])
    print("\nTest figures, mean over the worlds (each world's Jaccard index at 0.5 in brackets):\n")
    print(line(["system", *columns]))
    print(line(["---"] * (1 + len(columns))))
    for name, runs in results.items():
        means = [float(np.mean([run[column] for run in runs])) for column in columns]
        each = ", ".join(f"{run['Jaccard at 0.5']:.2f}" for run in runs)
        print(line([f"{name} ({each})", *means]))


if __name__ == "__main__":
    main()
