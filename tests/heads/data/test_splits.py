"""Test splits: sizes, tracks that must stay together, independence of the test split from labels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgc.cache.errors import ConfigError, RunError
from mgc.heads.data.artist_groups import comparable_artists, group_tracks
from mgc.heads.data.splits import SPLITS, Split, make_split

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("artists", pa.list_(pa.string())),
        ("song", pa.string()),
        ("split", pa.string()),
        ("lyrics_sha256", pa.string()),
        ("source_sha256", pa.string()),
    ]
)


def table(tracks: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([{"id": f"t{i:05d}", **track} for i, track in enumerate(tracks)], schema=SCHEMA)


def one_label(n_tracks: int) -> npt.NDArray[np.bool_]:
    return np.ones((n_tracks, 1), dtype=np.bool_)


def catalogue(n_tracks: int, seed: int = 0) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    """Return tracks by artists with very different numbers of tracks, and labels that depend on the artist."""
    random = np.random.default_rng(seed)
    artist = np.minimum(random.zipf(1.6, n_tracks) * 7 + random.integers(0, 7, n_tracks), 700)
    artist_genres = random.random((701, 8)) < 0.25
    labels = artist_genres[artist] ^ (random.random((n_tracks, 8)) < 0.05)
    labels[~labels.any(axis=1), 0] = True
    return table([{"artists": [f"artist {a}"], "source_sha256": str(i)} for i, a in enumerate(artist)]), labels


def split_of(split: Split) -> dict[str, str]:
    return {track: name for name in SPLITS for track in split.ids[name]}


def test_random_split_of_43650_tracks_has_the_sizes_of_the_paper() -> None:
    split = make_split(table([{}] * 43_650), one_label(43_650), policy="random", seed=0)
    assert split.sizes == {"train": 30_555, "validation": 4_365, "test": 8_730}
    assert len(split_of(split)) == 43_650


def test_random_split_depends_on_ids_and_seed_only() -> None:
    tracks, labels = catalogue(300)
    reversed_tracks = tracks.take(np.arange(300)[::-1].copy())
    split = make_split(tracks, labels, policy="random", seed=1)
    assert make_split(reversed_tracks, ~labels, policy="random", seed=1).ids == split.ids
    assert make_split(tracks, labels, policy="random", seed=2).ids != split.ids


names = st.sampled_from(["A", "B", "C", "D", "E", "F", "Various Artists", "NA", "", "None"])
hashes = st.one_of(st.none(), st.sampled_from([f"h{i}" for i in range(25)]))
track = st.fixed_dictionaries(
    {"artists": st.lists(names, max_size=3), "song": st.none(), "lyrics_sha256": hashes, "source_sha256": hashes}
)


@settings(max_examples=60, deadline=None)
@given(st.lists(track, min_size=3, max_size=40), st.integers(0, 3))
def test_artist_split_keeps_artists_lyrics_and_audio_together(tracks: list[dict[str, Any]], seed: int) -> None:
    data = table(tracks)
    has_artist = any(comparable_artists(track["artists"]) for track in tracks)
    if not has_artist or group_tracks(data).n_groups < 3:
        with pytest.raises(ConfigError):
            make_split(data, one_label(len(tracks)), policy="artist", seed=seed)
        return
    by_track = split_of(make_split(data, one_label(len(tracks)), policy="artist", seed=seed))
    assert sorted(by_track) == data.column("id").to_pylist()
    assert set(by_track.values()) == set(SPLITS)
    by_key: dict[tuple[str, str], set[str]] = {}
    for i, row in enumerate(tracks):
        keys = [("artist", name) for name in row["artists"] if name not in ("Various Artists", "NA", "")]
        keys += [(kind, row[kind]) for kind in ("lyrics_sha256", "source_sha256") if row[kind]]
        for key in keys:
            by_key.setdefault(key, set()).add(by_track[f"t{i:05d}"])
    assert all(len(splits) == 1 for splits in by_key.values())


def test_artist_split_has_about_70_10_20_and_balanced_labels() -> None:
    tracks, labels = catalogue(3000)
    split = make_split(tracks, labels, policy="artist", seed=0)
    assert split.sizes["test"] == pytest.approx(600, abs=15)
    assert split.sizes["validation"] == pytest.approx(300, abs=15)
    position = {name: i for i, name in enumerate(tracks.column("id").to_pylist())}
    shares = {name: labels[[position[track] for track in split.ids[name]]].mean(axis=0) for name in SPLITS}
    assert np.abs(shares["validation"] - shares["train"]).max() < 0.06


def test_test_split_of_the_artist_policy_does_not_depend_on_labels() -> None:
    tracks, labels = catalogue(500)
    shuffled = np.random.default_rng(1).permutation(labels)
    splits = [make_split(tracks, matrix, policy="artist", seed=0) for matrix in (labels, shuffled)]
    assert splits[0].ids["test"] == splits[1].ids["test"]
    assert splits[0].ids["validation"] != splits[1].ids["validation"]


def test_large_groups_give_one_warning_the_largest_first() -> None:
    tracks = table([{"artists": [name]} for name in [*"A" * 25, *"B" * 30, *"C" * 10]])
    (note,) = group_tracks(tracks).warnings
    assert note == (
        "3 groups have more than 5% of the 65 tracks each, and each stays in one split: 30 tracks, 30 of them share "
        "the artist 'b'; 25 tracks, 25 of them share the artist 'a'; 10 tracks, 10 of them share the artist 'c'"
    )


def test_split_by_labels_warns_of_shared_artists_and_names_the_remedy() -> None:
    split = make_split(table([{}] * 60), one_label(60), policy="auto", seed=0)
    assert split.policy == "stratified"
    (note,) = split.notes
    assert "known for 0 of 60 tracks" in note
    assert "may be in both the training and the test split, and scores may therefore be too high" in note
    assert "`artist` column in the table of `mgc extract --labels`" in note


def test_various_artists_is_unknown_and_none_is_an_artist() -> None:
    assert comparable_artists(["Various Artists", "various  artists", "NA", "", " ", "None", "Na"]) == ["none", "na"]
    groups = group_tracks(table([{"artists": ["None"]}, {"artists": ["none", "X"]}, {"artists": ["NA"]}] * 2))
    assert groups.of_track.tolist() == [0, 0, 1, 0, 0, 2]


def test_songs_are_grouped_by_title_only_where_the_artist_is_unknown() -> None:
    tracks = [
        {"artists": ["A"], "song": "Intro"},
        {"artists": ["B"], "song": "Intro"},
        {"artists": ["Various Artists"], "song": "Waterloo"},
        {"artists": [], "song": "waterloo "},
        {"artists": ["NA"], "song": "Fernando"},
        {"artists": ["NA"], "song": "NA"},
        {"artists": ["NA"], "song": "NA"},
    ]
    assert group_tracks(table(tracks)).of_track.tolist() == [0, 1, 2, 2, 3, 4, 5]


def test_group_above_five_per_cent_is_reported_and_stays_in_training() -> None:
    tracks = [{"artists": [f"artist {i}"]} for i in range(400)]
    for row in tracks[:30]:
        row["lyrics_sha256"] = "lyrics not available"  # type: ignore[assignment]
    split = make_split(table(tracks), one_label(400), policy="artist", seed=0)
    assert {split_of(split)[f"t{i:05d}"] for i in range(30)} == {"train"}
    assert len(split.notes) == 1
    assert "30 of 400 tracks (8%)" in split.notes[0]
    assert "lyrics not available" in split.notes[0]


@pytest.mark.parametrize("sizes", [(5, 1, 1), (30, 1, 1), (3, 3, 3), (1, 1, 1), (20, 20, 2)])
def test_every_split_gets_a_group_of_unequal_groups(sizes: tuple[int, ...]) -> None:
    tracks = [{"artists": [f"artist {a}"]} for a, size in enumerate(sizes) for _ in range(size)]
    assert min(make_split(table(tracks), one_label(len(tracks)), policy="artist", seed=0).sizes.values()) >= 1


def test_stratified_split_keeps_genre_shares_better_than_random() -> None:
    random = np.random.default_rng(0)
    labels = random.random((600, 12)) < np.linspace(0.02, 0.3, 12)
    labels[~labels.any(axis=1), 11] = True
    tracks = table([{}] * 600)

    def worst(policy: str) -> float:
        split = make_split(tracks, labels, policy=policy, seed=0)
        in_test = np.isin(tracks.column("id").to_pylist(), split.ids["test"])
        return float(np.abs(labels[in_test].sum(axis=0) / labels.sum(axis=0) - 0.2).max())

    assert worst("stratified") < 0.06 < worst("random")
    first, second = (make_split(tracks, labels, policy="stratified", seed=3).ids for _ in range(2))
    assert first == second


def test_auto_prefers_the_split_of_the_manifest_in_any_common_spelling() -> None:
    own = ["training", "Train", "val", "dev", " test ", None]
    split = make_split(table([{"split": name} for name in own]), one_label(6), policy="auto", seed=0)
    assert split.policy == "manifest"
    assert split.ids == {"train": ("t00000", "t00001"), "validation": ("t00002", "t00003"), "test": ("t00004",)}
    assert "1 of 6 tracks have no split" in split.notes[0]


def test_manifest_without_validation_uses_an_eighth_of_training_by_whole_artists() -> None:
    tracks = [{"split": "train", "artists": [f"artist {i // 2}"]} for i in range(80)]
    split = make_split(table([*tracks, {"split": "test"}]), one_label(81), policy="manifest", seed=0)
    assert split.sizes == {"train": 70, "validation": 10, "test": 1}
    artists = Counter(int(name[1:]) // 2 for name in split.ids["validation"])
    assert set(artists.values()) == {2}


@pytest.mark.parametrize(
    ("tracks", "policy"),
    [
        ([{"split": "fold1"}] * 4, "manifest"),
        ([{"split": "test"}] * 4, "manifest"),
        ([{"artists": []}] * 4, "artist"),
        ([{"artists": ["A"]}] * 4, "artist"),
        ([{}] * 2, "random"),
    ],
)
def test_impossible_split_is_refused(tracks: list[dict[str, Any]], policy: str) -> None:
    with pytest.raises(ConfigError):
        make_split(table(tracks), one_label(len(tracks)), policy=policy, seed=0)


def test_auto_splits_by_artist_if_most_are_known_else_by_labels() -> None:
    tracks = [{"artists": [f"artist {i}"] if i < 25 else []} for i in range(40)]
    assert make_split(table(tracks), one_label(40), policy="auto", seed=0).policy == "artist"
    assert make_split(table(tracks[15:]), one_label(25), policy="auto", seed=0).policy == "stratified"
    assert make_split(table([{"artists": ["A"]}] * 30), one_label(30), policy="auto", seed=0).policy == "stratified"


def test_saved_split_can_be_loaded_and_an_altered_file_is_refused(tmp_path: Path) -> None:
    tracks, labels = catalogue(50)
    split = make_split(tracks, labels, policy="auto", seed=4)
    split.save(tmp_path / "splits.json")
    assert Split.load(tmp_path / "splits.json") == split
    text = (tmp_path / "splits.json").read_text()
    (tmp_path / "splits.json").write_text(text.replace(split.ids["test"][0], split.ids["train"][0]))
    with pytest.raises(RunError, match="splits.json"):
        Split.load(tmp_path / "splits.json")
