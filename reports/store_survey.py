"""Track counts and example mel spectrograms of a feature store, for its report.

Counting is done per column, with the newest row of each track; no object is created per track. "With audio" and "with
lyrics" mean that the store has the features.
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
"""A histogram ends at the 99th percentile if the maximum is more than this many times larger."""

N_PICTURES = 6
"""Number of mel spectrograms in the report."""
SPLIT_ORDER = ("train", "validation", "test")

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Distribution of values.

    Attributes
    ----------
    edges, counts : (n + 1,), (n,); the last bin includes the `n_beyond` values above the last edge.
    n, low, median, high, total : number, minimum, median, maximum and sum of all values.
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
class AddedCounts:
    """Outcome of an added feature set for the tracks that are ok in the store.

    Attributes
    ----------
    ok, failed, pending : number of tracks; `ok` includes tracks without lyrics, which need no extraction.
    reasons : reason code -> number of failed tracks.
    """

    name: str
    recipe: FeatureSetRecipe
    ok: int
    failed: int
    pending: int
    reasons: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The counts in the report of a store.

    Attributes
    ----------
    splits : split name ("" without a split) -> counts: ``planned``, ``ok``, ``failed``, ``pending``, ``sound`` (with
        audio), ``lyrics``, ``both``, and ``+NAME`` for each added feature set.
    genres : genre -> counts: ``planned``, ``ok``, ``lyrics``, and tracks that are ok per split.
    languages : language tag ("" without a tag) -> planned tracks, the most frequent first.
    labels : number of genres -> planned tracks with that number.
    seconds : lengths of the files of tracks with audio; None without any.
    tokens : lengths of lyrics before truncation; None without any.
    n_artists : number of distinct names.
    """

    splits: dict[str, dict[str, int]]
    genres: dict[str, dict[str, int]]
    languages: dict[str, int]
    labels: dict[int, int]
    seconds: Histogram | None
    tokens: Histogram | None
    n_artists: int
    added: tuple[AddedCounts, ...]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A track whose mel spectrogram is drawn.

    Attributes
    ----------
    genre : the genre that the track represents; None if tracks are evenly spaced.
    mel : (n_mels, n_frames) float32, dB re 1.0, without padding.
    """

    id: str
    genre: str | None
    offset_s: float
    mel: npt.NDArray[np.float32]


def survey(store: FeatureStore) -> Survey:
    """Count the tracks of a store per split, genre, language and length."""
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
        added=tuple(_added_counts(store, name, recipe) for name, recipe in store.added.items()),
    )


def pictures(store: FeatureStore, genres: Sequence[str]) -> list[Picture]:
    """Return one track with audio for each of the first `genres`; without genres, evenly spaced tracks.

    Silent clips are skipped.
    """
    if store.recipe.mel is None:
        return []
    tracks = store.newest_tracks(["row", "id", "genres", "status", "flags", "offset_s"])
    silent = np.asarray(tracks.column("flags")) & Flag.SILENT.value
    tracks = tracks.filter(pa.array((np.asarray(tracks.column("status")) == OK) & (silent == 0)))
    chosen = _one_per_genre(tracks, genres[:N_PICTURES]) or _evenly(tracks.num_rows)
    return [_picture(store, tracks.slice(place, 1).to_pylist()[0], genre) for place, genre in chosen]


def histogram(values: FloatArray) -> Histogram | None:
    """Return a histogram that starts at 0, with the bins of Rice's rule (2 n^(1/3)); None without values."""
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
    """Count each value, the most frequent first."""
    counts = pc.value_counts(values).to_pylist()
    return {count["values"]: count["counts"] for count in sorted(counts, key=lambda count: -count["counts"])}


def _added_counts(store: FeatureStore, name: str, recipe: FeatureSetRecipe) -> AddedCounts:
    outcomes = store.added_outcomes(name).select(["row", "status", "reason"])
    outcomes = outcomes.filter(pa.array(store.status[np.asarray(outcomes.column("row"))] == OK))
    ok, failed = (pc.sum(pc.equal(outcomes.column("status"), status)).as_py() or 0 for status in (OK, FAILED))
    reasons = _value_counts(outcomes.column("reason").drop_null())
    pending = len(store.ok_rows) - ok - failed
    return AddedCounts(name=name, recipe=recipe, ok=ok, failed=failed, pending=pending, reasons=reasons)


def _with_set(store: FeatureStore, name: str, recipe: FeatureSetRecipe, rows: IntArray, lyrics: BoolArray) -> BoolArray:
    """Return a mask of rows with values of an added feature set; sets from lyrics need lyrics."""
    outcomes = store.added_outcomes(name)
    ok = pc.equal(outcomes.column("status"), OK)
    of_lyrics = isinstance(recipe, TextRecipe) or recipe.input == "text"
    if of_lyrics and store.recipe.lyrics is None:
        ok = pc.and_(ok, pc.is_valid(outcomes.column("lyrics_sha256")))
    mask: BoolArray = np.isin(rows, np.asarray(outcomes.column("row").filter(ok))) & (store.status[rows] == OK)
    return mask & lyrics if of_lyrics and store.recipe.lyrics is not None else mask


def _sums(names: pa.Array, masks: Mapping[str, BoolArray]) -> dict[str, dict[str, int]]:
    """Count the true values of each mask per name."""
    table = pa.table({"": names} | {key: pa.array(mask) for key, mask in masks.items()})
    sums = table.group_by("").aggregate([(key, "sum") for key in masks]).to_pylist()
    return {row[""]: {key: row[f"{key}_sum"] for key in masks} for row in sums}


def _in_order(counts: dict[str, dict[str, int]], first: Sequence[str]) -> dict[str, dict[str, int]]:
    """Sort names: `first`, then the others by name, then the empty name."""
    others = sorted(name for name in counts if name and name not in first)
    return {name: counts[name] for name in (*first, *others, "") if name in counts}


def _genre_counts(genres: pa.Array, splits: pa.Array, masks: Mapping[str, BoolArray]) -> dict[str, dict[str, int]]:
    """Return counts per genre, the genre with most planned tracks first."""
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
