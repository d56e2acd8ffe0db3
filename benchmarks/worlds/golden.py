"""Write the golden store of a format version: small, generated, with every feature of the format.

Run it once per version:

    python -m benchmarks.worlds.golden tests/cache/golden
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.worlds.small_store import create, features, fill
from mgc.cache.format.plan import read_plan
from mgc.cache.format.tables import plan_table
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.compact import compact
from mgc.cache.upkeep.hdf5_writer import seal_store
from mgc.cache.writing.creation import append_generation
from mgc.cache.writing.takedowns import drop


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    path = create(folder / "golden.zarr")
    fill(path)
    late = {
        "id": "later",
        "path": "a/b.mp3",
        "artists": ["A", "B"],
        "song": "Ünder",
        "genres": ["soul", "rock"],
        "language": "en",
        "split": "test",
    }
    embedding = np.ones((1, 12), np.float32)
    append_generation(
        path, read_plan(path), "append", plan_table([late]), new_genres=["soul"], genre_embedding=embedding
    )
    fill(path, [3])
    failed = {"id": "t05", "path": "5.mp3", "artists": ["a"], "genres": ["rock"]}
    append_generation(path, read_plan(path), "retry", plan_table([failed]))
    fill(path, [4])
    drop(path, ["t02"], planned=["t02"])
    compact(path)
    seal_store(path, folder / "golden.h5")
    with FeatureStore.open(path) as store:
        tracks = store.tracks.filter(store.newest).to_pylist()
    expected = {
        track["id"]: {
            "mel_sha256": hashlib.sha256(features(track["row"])["mel"].tobytes()).hexdigest(),
            "lyrics_sha256": hashlib.sha256(features(track["row"])["lyrics"].tobytes()).hexdigest(),
            "tokens": int(features(track["row"])["lyrics_tokens"]),
            "genres": track["genres"],
        }
        for track in tracks
        if track["status"] == 1
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
