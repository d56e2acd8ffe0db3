"""Commit of one part of 128 mels: shards encoded directly, and by zarr; both give the same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.timing import in_turn, spread, table
from mgc.cache.format import layout
from mgc.cache.format.recipe import MelRecipe, Recipe
from mgc.cache.format.schema import OK, track_arrays
from mgc.cache.format.tables import OUTCOME_SCHEMA, plan_table
from mgc.cache.writing.commits import commit_part
from mgc.cache.writing.creation import create_store

OURS, ZARR = "mgc", "mgc, shards encoded by zarr"
COMMIT = "commit of the part"
ENCODE = "encoding its mels (mgc: in pieces, which are written without joining them)"


def run(folder: Path, n_tracks: int, rounds: int) -> str:
    """Time both in turn, the commit in a new store each time; compare the objects of the part."""
    recipe = Recipe(mel=MelRecipe(), lyrics=None)
    tracks = plan_table(
        {"id": f"{i:04}", "path": f"{i:04}.wav", "artists": ["a"], "genres": []} for i in range(n_tracks)
    )
    mel = next(spec for spec in track_arrays(recipe) if spec.name == "mel")
    values = np.random.default_rng(0).normal(-40, 12, (n_tracks, *mel.tail)).astype(np.float16)
    arrays = {
        "status": np.full(n_tracks, OK, np.uint8),
        "flags": np.zeros(n_tracks, np.uint32),
        "mel": values,
        "mel_frames": np.full(n_tracks, mel.tail[1], np.uint16),
    }
    outcomes = pa.Table.from_pylist(
        [{"row": row, "status": OK, "flags": 0, "seconds": 30.0} for row in range(n_tracks)], schema=OUTCOME_SCHEMA
    )
    encoders = {OURS: layout.encode_part, ZARR: layout.encode_with_zarr}
    store = folder / "store.zarr"

    def new_store() -> None:
        shutil.rmtree(store, ignore_errors=True)
        create_store(store, tracks=tracks, recipe=recipe, part_rows=n_tracks, genres=[], genre_embedding=None)

    def committed(name: str) -> Callable[[], object]:
        def commit() -> object:
            layout.encode_part = encoders[name]
            try:
                return commit_part(store, 0, arrays, outcomes)["objects"]
            finally:
                layout.encode_part = encoders[OURS]

        return commit

    def encoded(name: str) -> Callable[[], object]:
        return lambda: encoders[name](mel, values, n_tracks)

    rows = []
    for label, entrant in ((COMMIT, committed), (ENCODE, encoded)):
        before_each = new_store if entrant is committed else lambda: None
        entrants = {name: entrant(name) for name in encoders}
        times = in_turn(entrants, rounds=rounds, agree=differ, before_each=before_each)
        rows += [
            [label, name, spread(times.seconds[name], 1e3, 0), "-" if name == ZARR else times.ratio(ZARR, name)]
            for name in encoders
        ]
    title = f"Commit: one part of {n_tracks} mels, {values.nbytes / 1e6:.0f} MB"
    return table(title, ["", "", "ms", "times zarr"], rows)


def differ(ours: list[Any], other: list[Any]) -> str | None:
    """Return that the objects (their keys and hashes, or their bytes in pieces) differ; None if they do not."""
    objects = [b"".join(found) if isinstance(found[0], (bytes, np.ndarray)) else found for found in (ours, other)]
    return None if objects[0] == objects[1] else "other bytes"
