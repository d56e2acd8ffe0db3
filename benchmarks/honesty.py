"""Is the demo's result real? Three checks that a leak or a faked figure would not pass, on the demo's own collection.

1. Scrambled test: every test track's mel, token states and labels are replaced by noise; everything that training
   publishes in best/ must stay the same, byte for byte.
2. Shuffled parts: the clips (then the lyrics) of the test tracks are dealt out anew among them; mAP must fall below
   the interval it had.
3. Shuffled labels: a model trained on labels dealt out anew among all tracks must rank test tracks no better than
   their prevalence, within the interval.

Run: python benchmarks/honesty.py [--folder demo] [--seeds 3]      The last figures stand in benchmarks/honesty.md.
Needs a folder that `mgc demo -o FOLDER` has filled. Exits with 1 if a check fails.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from machine import describe

from mgc.api import DEMO_OPTIONS
from mgc.cache import zarr_store
from mgc.cache.store import FeatureStore
from mgc.cache.tracks import OUTCOME_SCHEMA, PLAN_SCHEMA
from mgc.heads.config import TrainConfig
from mgc.heads.evaluate import evaluate
from mgc.heads.splits import Split
from mgc.heads.train import train

AUDIO, LYRICS = ("mel", "mel_frames"), ("lyrics", "lyrics_tokens", "lyrics_tokens_full", "lyrics_pooled")
Change = Callable[[dict[str, np.ndarray], list[dict[str, Any]]], None]


def changed_copy(store: FeatureStore, path: Path, change: Change) -> FeatureStore:
    """A store that differs from `store` by what `change` does to its arrays (whole, by name) and its tracks."""
    group = zarr.open_group(store.path, mode="r")
    tracks = store.tracks.to_pylist()
    arrays = {spec.name: group[spec.name][: len(tracks)] for spec in store.arrays}
    change(arrays, tracks)
    zarr_store.create_store(
        path,
        tracks=pa.Table.from_pylist(tracks, schema=PLAN_SCHEMA),
        recipe=store.recipe,
        part_rows=store.part_rows,
        genres=store.genres,
        genre_embedding=store.genre_embedding,
    )
    plan = zarr_store.read_plan(path)
    for part in range(zarr_store.n_parts(plan)):
        rows = zarr_store.part_range(plan, part)
        outcomes = pa.Table.from_pylist(tracks[rows.start : rows.stop], schema=OUTCOME_SCHEMA)
        here = {name: values[rows.start : rows.stop] for name, values in arrays.items()}
        zarr_store.commit_part(path, part, here, outcomes)
    zarr_store.finish(path)
    return FeatureStore.open(path)


def noise(rows: np.ndarray, seed: int) -> Change:
    """Mel, token states and labels of `rows` replaced; what they were is nowhere in the copy."""

    def change(arrays: dict[str, np.ndarray], tracks: list[dict[str, Any]]) -> None:
        rng = np.random.default_rng(seed)
        arrays["mel"][rows] = rng.normal(-30, 15, arrays["mel"][rows].shape)
        states = arrays["lyrics"][rows]
        arrays["lyrics"][rows] = rng.normal(size=states.shape) * (states != 0)
        arrays["lyrics_pooled"][rows] = rng.normal(size=arrays["lyrics_pooled"][rows].shape)
        names = sorted({genre for track in tracks for genre in track["genres"]})
        for row in rows:
            tracks[row]["genres"] = sorted(rng.choice(names, size=rng.integers(1, 4), replace=False).tolist())
            for key in ("source_sha256", "lyrics_sha256"):
                if tracks[row][key] is not None:
                    tracks[row][key] = rng.bytes(32).hex()

    return change


def dealt_out(rows: np.ndarray, names: tuple[str, ...], seed: int) -> Change:
    """The arrays `names` of `rows` moved on by one in a random circle, so that no track keeps its own."""

    def change(arrays: dict[str, np.ndarray], tracks: list[dict[str, Any]]) -> None:
        circle = np.random.default_rng(seed).permutation(rows)
        for name in names:
            arrays[name][circle] = arrays[name][np.roll(circle, 1)]

    return change


def shuffled_labels(store: FeatureStore, seed: int) -> dict[str, list[str]]:
    ids, genres = store.tracks.column("id").to_pylist(), store.tracks.column("genres").to_pylist()
    order = np.random.default_rng(seed).permutation(len(ids))
    return {name: genres[i] for name, i in zip(ids, order, strict=True)}


def check_seed(store: FeatureStore, scratch: Path, seed: int) -> tuple[str, bool]:
    """One row of the table, and whether all checks hold."""
    config = TrainConfig.from_dict({**DEMO_OPTIONS, "seed": seed})
    true = train(store, scratch / "true", config)
    test_ids = set(Split.load(scratch / "true" / "splits.json").ids["test"])
    test = np.flatnonzero([name in test_ids for name in store.tracks.column("id").to_pylist()])

    other = changed_copy(store, scratch / "noise.zarr", noise(test, seed))
    train(other, scratch / "noise", config)
    published = [
        {file.name: file.read_bytes() for file in (scratch / run / "best").iterdir()} for run in ("true", "noise")
    ]
    same = published[0] == published[1]

    found = evaluate(scratch / "true", store)["metrics"]
    estimate, support = found["mean_average_precision"], found["n_tracks"]
    shuffled = {
        part: evaluate(
            scratch / "true", changed_copy(store, scratch / f"{part}.zarr", dealt_out(test, names, seed)), save=False
        )["metrics"]["mean_average_precision"]["value"]
        for part, names in (("audio", AUDIO), ("lyrics", LYRICS))
    }

    train(store, scratch / "shuffled", config, labels=shuffled_labels(store, seed))
    blind = evaluate(scratch / "shuffled", store)
    of_blind = blind["metrics"]["mean_average_precision"]
    prevalence = blind["baselines"]["label_prior"]["mean_average_precision"]["value"]
    near = of_blind["low"] <= prevalence <= of_blind["high"] or of_blind["value"] <= prevalence
    holds = same and near and max(shuffled.values()) < estimate["low"]
    row = (
        f"| {seed} | {config.lr:g} | {true.thresholds.overall:.3f} | {support} | {'yes' if same else 'NO'} "
        f"| {estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}] | {shuffled['audio']:.3f} "
        f"| {shuffled['lyrics']:.3f} | {of_blind['value']:.3f} [{of_blind['low']:.3f}, {of_blind['high']:.3f}] "
        f"| {prevalence:.3f} |"
    )
    return row, holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("demo"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    store = FeatureStore.open(options.folder / "songs.zarr")
    print("# Is the demo's result real?\n")
    print(f"{describe()}. Printed by benchmarks/honesty.py, which says what is checked; {len(store.ok_rows)} songs.\n")
    print("| seed | learning rate | tuned threshold | test tracks | best/ same with the test scrambled | mAP | audio "
          "shuffled | lyrics shuffled | trained on shuffled labels | prevalence |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    ended = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
            row, holds = check_seed(store, Path(scratch), seed)
        print(row, flush=True)
        ended.append(holds)
    print(f"\n{sum(ended)} of {len(ended)} seeds pass every check.")
    return 0 if all(ended) else 1


if __name__ == "__main__":
    sys.exit(main())
