"""Counts of the tracks of a feature store, and a few of their mels, for its page.

Tracks are counted column by column, each by its newest row; no object is made per track. "With sound" and "with lyrics"
mean that the store holds the features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..cache.format.recipe import FeatureSetRecipe, TextRecipe
from ..cache.format.schema import ABSENT, FAILED, OK, Flag
from ..cache.reading.store import FeatureStore

MAX_BINS = 40
FAR = 3.0
"""A histogram ends at its 99th percentile, and counts what lies beyond, where its maximum is so many times that."""

N_PICTURES = 6
"""Mels that are drawn."""
SPLIT_ORDER = ("train", "validation", "test")

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How values are distributed.

    Attributes
    ----------
    edges, counts : (n + 1,), (n,); the last bin is also that of the values beyond it, `n_beyond` of them.
    n, low, median, high, total : of all values; low and high are the extremes.
    """

    edges: FloatArray
    counts: IntArray
    n_beyond: int
    n: int
    low: float
    median: float
    high: float
    total: float


@dataclass(frozen=True, kw_only=True)
class AddedSet:
    """A feature set that was added to the store, and the outcome of the tracks that have the store's own features.

    Attributes
    ----------
    ok, failed, pending : tracks; `ok` counts those without lyrics too, for which there is nothing to extract.
    reasons : why tracks failed -> how many.
    """

    name: str
    recipe: FeatureSetRecipe
    ok: int
    failed: int
    pending: int
    reasons: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The counts of a store's page.

    Attributes
    ----------
    splits : name of a split ("" without one) -> counts: ``planned``, ``ok``, ``failed``, ``pending``, ``sound``,
        ``lyrics``, ``both`` and, as ``+NAME``, of added feature sets.
    genres : genre -> counts: ``planned``, ``ok``, ``lyrics``, and of those ok by split.
    languages : tag ("" without one) -> planned tracks; the most frequent first.
    labels : number of genres -> planned tracks that have so many.
    seconds : of the files of tracks with sound; None where there is none.
    tokens : of the lyrics of tracks that have some, before truncation; None where there is none.
    n_artists : different names.
    """

    splits: dict[str, dict[str, int]]
    genres: dict[str, dict[str, int]]
    languages: dict[str, int]
    labels: dict[int, int]
    seconds: Histogram | None
    tokens: Histogram | None
    n_artists: int
    added: tuple[AddedSet, ...]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A track whose mel is drawn, and why: `genre` that it stands for, None where it was drawn evenly.

    Attributes
    ----------
    mel : (n_mels, n_frames) float32, dB re 1.0, of the frames that hold sound.
    """

    id: str
    genre: str | None
    offset_s: float
    mel: npt.NDArray[np.float32]


def survey(store: FeatureStore) -> Survey:
    """Count the tracks of a store by split, genre, language and length."""
    tracks = store.newest_tracks(["row", "artists", "genres", "language", "split", "status", "seconds"])
    status, rows = np.asarray(tracks.column("status")), np.asarray(tracks.column("row"))
    ok = status == OK
    tokens = store.read("lyrics_tokens_full", store.ok_rows) if store.recipe.lyrics else np.zeros(0, dtype=np.uint32)
    lyrics = ok & np.isin(rows, store.ok_rows[tokens > 0]) if store.recipe.lyrics else np.zeros_like(ok)
    sound = ok if store.recipe.mel else np.zeros_like(ok)
    masks = {
        "planned": np.ones_like(ok),
        "ok": ok,
        "failed": status == FAILED,
        "pending": status == ABSENT,
        "sound": sound,
        "lyrics": lyrics,
        "both": sound & lyrics,
        **{f"+{name}": _with_set(store, name, recipe, rows, lyrics) for name, recipe in store.added.items()},
    }
    splits = pc.fill_null(tracks.column("split"), "").combine_chunks()
    genres = tracks.column("genres").combine_chunks()
    seconds = np.asarray(tracks.column("seconds").filter(pa.array(sound)).drop_null(), dtype=np.float64)
    return Survey(
        splits=_in_order(_sums(splits, masks), SPLIT_ORDER),
        genres=_genre_counts(genres, splits, masks),
        languages=_value_counts(pc.fill_null(tracks.column("language"), "")),
        labels=_value_counts(pc.list_value_length(genres)),
        seconds=histogram(seconds),
        tokens=histogram(tokens[tokens > 0].astype(np.float64)),
        n_artists=pc.count_distinct(pc.list_flatten(tracks.column("artists"))).as_py(),
        added=tuple(_added_set(store, name, recipe) for name, recipe in store.added.items()),
    )


def pictures(store: FeatureStore, genres: Sequence[str]) -> list[Picture]:
    """A track with sound of each of the first few `genres`, from the middle of those that have it; without genres a few
    drawn evenly. Silent clips are passed over."""
    if store.recipe.mel is None:
        return []
    tracks = store.newest_tracks(["row", "id", "genres", "status", "flags", "offset_s"])
    silent = np.asarray(tracks.column("flags")) & Flag.SILENT.value
    tracks = tracks.filter(pa.array((np.asarray(tracks.column("status")) == OK) & (silent == 0)))
    chosen = _one_per_genre(tracks, genres[:N_PICTURES]) or _evenly(tracks.num_rows)
    return [_picture(store, tracks.slice(place, 1).to_pylist()[0], genre) for place, genre in chosen]


def histogram(values: FloatArray) -> Histogram | None:
    """A histogram of values from 0 on, in as many bins as Rice's rule (2 n^(1/3)) wants; None of none."""
    if not len(values):
        return None
    high = float(values.max())
    end = float(np.percentile(values, 99))
    if high <= FAR * end or end <= 0:
        end = high
    n_bins = min(MAX_BINS, math.ceil(2 * len(values) ** (1 / 3)))
    counts, edges = np.histogram(np.minimum(values, end), bins=n_bins, range=(0, end or 1))
    return Histogram(
        edges=edges,
        counts=counts.astype(np.int64),
        n_beyond=int((values > end).sum()),
        n=len(values),
        low=float(values.min()),
        median=float(np.median(values)),
        high=high,
        total=float(values.sum()),
    )


def _value_counts(values: pa.ChunkedArray) -> dict[Any, int]:
    """How often each value occurs, the most frequent first."""
    counts = pc.value_counts(values).to_pylist()
    return {count["values"]: count["counts"] for count in sorted(counts, key=lambda count: -count["counts"])}


def _added_set(store: FeatureStore, name: str, recipe: FeatureSetRecipe) -> AddedSet:
    outcomes = store.added_outcomes(name).select(["row", "status", "reason"])
    outcomes = outcomes.filter(pa.array(store.status[np.asarray(outcomes.column("row"))] == OK))
    ok, failed = (pc.sum(pc.equal(outcomes.column("status"), status)).as_py() or 0 for status in (OK, FAILED))
    reasons = _value_counts(outcomes.column("reason").drop_null())
    pending = len(store.ok_rows) - ok - failed
    return AddedSet(name=name, recipe=recipe, ok=ok, failed=failed, pending=pending, reasons=reasons)


def _with_set(store: FeatureStore, name: str, recipe: FeatureSetRecipe, rows: IntArray, lyrics: BoolArray) -> BoolArray:
    """Which of the array rows have values of an added feature set: of one from lyrics, only those with lyrics."""
    outcomes = store.added_outcomes(name)
    ok = pc.equal(outcomes.column("status"), OK)
    of_lyrics = isinstance(recipe, TextRecipe) or recipe.input == "text"
    if of_lyrics and store.recipe.lyrics is None:
        ok = pc.and_(ok, pc.is_valid(outcomes.column("lyrics_sha256")))
    mask: BoolArray = np.isin(rows, np.asarray(outcomes.column("row").filter(ok))) & (store.status[rows] == OK)
    return mask & lyrics if of_lyrics and store.recipe.lyrics is not None else mask


def _sums(names: pa.Array, masks: Mapping[str, BoolArray]) -> dict[str, dict[str, int]]:
    """Of each name, how many of its places are true in each mask."""
    table = pa.table({"": names} | {key: pa.array(mask) for key, mask in masks.items()})
    sums = table.group_by("").aggregate([(key, "sum") for key in masks]).to_pylist()
    return {row[""]: {key: row[f"{key}_sum"] for key in masks} for row in sums}


def _in_order(counts: dict[str, dict[str, int]], first: Sequence[str]) -> dict[str, dict[str, int]]:
    """Those named first, then the others by name, then what has none."""
    others = sorted(name for name in counts if name and name not in first)
    return {name: counts[name] for name in (*first, *others, "") if name in counts}


def _genre_counts(genres: pa.Array, splits: pa.Array, masks: Mapping[str, BoolArray]) -> dict[str, dict[str, int]]:
    """A row per genre, the one with most planned tracks first."""
    names, parents = pc.list_flatten(genres), np.asarray(pc.list_parent_indices(genres))
    counts = _sums(names, {key: masks[key][parents] for key in ("planned", "ok", "lyrics")})
    by_split = pa.table({"genre": names, "split": splits.take(parents), "ok": pa.array(masks["ok"][parents])})
    for row in by_split.group_by(["genre", "split"]).aggregate([("ok", "sum")]).to_pylist():
        counts[row["genre"]][f"in {row['split']}"] = row["ok_sum"]
    return dict(sorted(counts.items(), key=lambda item: (-item[1]["planned"], item[0])))


def _one_per_genre(tracks: pa.Table, genres: Sequence[str]) -> list[tuple[int, str | None]]:
    lists = tracks.column("genres").combine_chunks()
    names, parents = pc.list_flatten(lists), np.asarray(pc.list_parent_indices(lists))
    chosen: dict[int, str | None] = {}
    for genre in genres:
        places = parents[np.asarray(pc.equal(names, genre))]
        free = places[~np.isin(places, list(chosen))]
        if len(free):
            chosen[int(free[len(free) // 2])] = genre
    return list(chosen.items())


def _evenly(n: int) -> list[tuple[int, str | None]]:
    return [(place, None) for place in sorted({i * (n - 1) // (N_PICTURES - 1) for i in range(N_PICTURES)}) if n]


def _picture(store: FeatureStore, track: dict[str, Any], genre: str | None) -> Picture:
    row = [track["row"]]
    n_frames = int(store.read("mel_frames", row)[0])
    mel = store.read("mel", row)[0, :, :n_frames].astype(np.float32)
    return Picture(id=track["id"], genre=genre, offset_s=track["offset_s"] or 0.0, mel=mel)
