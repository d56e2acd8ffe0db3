"""A store with every kind of feature, for the tests of exports, and its features as each format has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from small_world import TEXT, World

from mgc.cache.format.plan import read_plan
from mgc.cache.format.schema import OK
from mgc.cache.format.tables import ADDED_OUTCOME_SCHEMA
from mgc.cache.reading.store import FeatureStore
from mgc.cache.reading.view import StoreView
from mgc.cache.writing.commits import commit_part
from mgc.cache.writing.creation import add_feature_set

N_TRACKS, FAILED, NOT_IN_LEVELS = 24, 5, 9
FIXED = ("mel", "mel_frames", "lyrics_tokens", "lyrics_tokens_full", "lyrics_pooled", "tempo", "levels_length")
FIXED_OF_TEXT = ("lyrics_tokens", "lyrics_tokens_full", "lyrics_pooled")


def write_store(path: Path) -> Path:
    """Write a store with splits, a failed track, a scalar feature, a sequence along its second axis, and a second text
    feature set."""
    world = World(n_tracks=N_TRACKS, failed={FAILED})
    for i, track in enumerate(world.tracks):
        track["split"] = ("train", "train", "validation", "test", None)[i // 2 % 5]
    world.write(path, part_rows=8).close()
    random = np.random.default_rng(3)
    tempo = random.normal(120, 9, N_TRACKS).astype(np.float64)
    world.add(path, "tempo", tempo, dims=()).close()
    lengths = random.integers(1, 7, N_TRACKS)
    levels = random.normal(size=(N_TRACKS, 2, 6, 3)).astype(np.float32)
    levels[np.broadcast_to(np.arange(6)[:, None] >= lengths[:, None, None, None], levels.shape)] = np.nan
    dims = ("levels_layer", "levels_frame", "levels_dim")
    world.add(path, "levels", levels, dims=dims, lengths=lengths, failed={NOT_IN_LEVELS}).close()
    embedding = random.normal(size=(read_plan(path).n_genres, TEXT.hidden_size)).astype(np.float32)
    plan = add_feature_set(path, read_plan(path), "second", TEXT, embedding)
    for part in range(plan.n_parts):
        rows = plan.part_range(part)
        arrays: dict[str, Any] = {}
        with FeatureStore.open(path) as store:
            ok = [row for row in rows if row != FAILED]
            for name in ("lyrics", *FIXED_OF_TEXT):
                spec = store.array(name)
                values = np.full((len(rows), *spec.tail), spec.fill, spec.dtype)
                values[np.isin(rows, ok)] = store.read(name, ok)
                arrays[f"{name}_second"] = values + values.dtype.type(0 if "tokens" in name else 1)
        arrays["lyrics_second"][np.arange(24) >= arrays["lyrics_tokens_second"][:, None]] = 0
        arrays["status_second"] = np.asarray([2 if row == FAILED else OK for row in rows], np.uint8)
        outcomes = [{"row": row, "status": 2 if row == FAILED else OK} for row in rows]
        outcomes = [row | ({"reason": "NOT_AUDIO", "detail": "text"} if row["status"] == 2 else {}) for row in outcomes]
        import pyarrow as pa

        commit_part(
            path, part, arrays, pa.Table.from_pylist(outcomes, schema=ADDED_OUTCOME_SCHEMA), feature_set="second"
        )
    return path


def expected(view: StoreView) -> list[dict[str, Any]]:
    """Return per track of a view its features by name: sequences without padding, None for a missing feature."""
    with StoreView(FeatureStore.open(view.store.path, text="second"), view.rows) as second:
        tracks = []
        for position, row in enumerate(view.rows.tolist()):
            track: dict[str, Any] = {}
            for text, source in (("", view), ("_second", second)):
                for name in FIXED_OF_TEXT:
                    track[name + text] = source[name][position]
                track["lyrics" + text] = source["lyrics"][position][: int(track["lyrics_tokens" + text])]
            track |= {name: view[name][position] for name in ("mel", "mel_frames", "tempo")}
            track |= {"levels": None, "levels_length": None}
            if row != NOT_IN_LEVELS:
                length = int(view["levels_length"][position])
                track["levels_length"] = view["levels_length"][position]
                track["levels"] = np.moveaxis(view["levels"][position], 1, 0)[:length]
            tracks.append(track)
    return tracks


def assert_same(actual: Any, wanted: Any) -> None:
    """Compare bit for bit, with dtype and shape; NaN equals NaN."""
    wanted, actual = np.asarray(wanted), np.asarray(actual)
    assert (actual.dtype, actual.shape) == (wanted.dtype, wanted.shape)
    assert actual.tobytes() == np.ascontiguousarray(wanted).tobytes()
