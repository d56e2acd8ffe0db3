"""Merging spellings of one genre: built-in table, custom table, and printed notes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from keywords import load_source
from source_files import put

from mgc.cache.errors import ManifestError
from mgc.cache.reading.store import FeatureStore
from mgc.pipeline.sources.genre_aliases import (
    COMMON_SPELLINGS,
    genre_aliases,
    merge_genres,
    remark_mergeable,
    spelling_key,
)

COMMON = genre_aliases("common")


def table_of(folder: Path, *genres: str) -> Path:
    lines = (json.dumps({"id": f"{i}", "path": f"{i}.wav", "genres": [name]}) for i, name in enumerate(genres))
    return put(folder / "t.jsonl", "\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("genre", "spellings"),
    [
        ("hip hop", ["hip-hop", "hiphop", "Hip Hop", "HIP_HOP", "hip\u2010hop", "\uff48\uff49\uff50 hop"]),
        ("r&b", ["R&B", "rnb", "r'n'b", "R 'n' B", "Rhythm and Blues", "rhythm & blues", "r and b", "R\u2019n\u2019B"]),
        ("drum and bass", ["dnb", "D&B", "drum'n'bass", "drum n bass", "Drum & Bass", "drumnbass", "d'n'b"]),
        ("rock and roll", ["rock 'n' roll", "rock'n'roll", "rock'n roll", "rocknroll", "rock & roll"]),
        ("lo-fi", ["lofi", "Lo Fi"]),
        ("k-pop", ["kpop", "K-Pop", "korean pop"]),
        ("rock", ["Rock", "ROCK", "\uff52\uff4f\uff43\uff4b"]),
    ],
)
def test_spellings_and_abbreviations_of_one_genre_are_merged(genre: str, spellings: list[str]) -> None:
    assert {COMMON.name_of(name) for name in (genre, *spellings)} == {genre}


@pytest.mark.parametrize(
    "names",
    [
        ("electronica", "electronic", "electro"),
        ("rap", "hip hop"),
        ("alternative", "alternative rock"),
        ("punk", "punk rock", "pop punk"),
        ("pop/rock", "pop rock", "pop, rock", "pop+rock", "pop"),
        ("metal", "heavy metal", "nu metal"),
        ("house", "deep house"),
        ("soul", "neo soul", "r&b"),
        ("caf\u00e9", "cafe"),
        ("dance", "electronic dance music"),
        ("trance", "psychedelic trance"),
        ("blues", "rhythm and blues"),
    ],
)
def test_genres_that_are_only_near_to_each_other_stay_apart(names: tuple[str, ...]) -> None:
    assert len({COMMON.name_of(name) for name in names}) == len(names)


def test_every_genre_of_the_built_in_table_is_its_own_name() -> None:
    for name in set(COMMON_SPELLINGS.values()):
        assert COMMON_SPELLINGS[spelling_key(name)] == name


@given(st.text(max_size=12))
def test_merging_genres_is_idempotent(name: str) -> None:
    once = COMMON.name_of(name)
    assert COMMON.name_of(once) == once


def test_a_track_has_a_merged_genre_once_and_the_counts_are_of_tracks() -> None:
    kept, merged = merge_genres([("hiphop", "Hip-Hop", "jazz"), ("jazz", "hiphop"), (), ("hip hop",)], COMMON)
    assert kept == [("hip hop", "jazz"), ("jazz", "hip hop"), (), ("hip hop",)]
    assert [genre.to_dict() for genre in merged] == [
        {"from": "Hip-Hop", "to": "hip hop", "tracks": 1},
        {"from": "hiphop", "to": "hip hop", "tracks": 2},
    ]


def test_spellings_are_noted_once_and_kept_without_the_option(tmp_path: Path) -> None:
    path = table_of(tmp_path, "hiphop", "Hip-Hop", "Hip-Hop", "DnB", "drum & bass", "Techno")
    source = load_source(path)
    assert [note for note in source.notes if "--merge-genres" in note] == [
        "--merge-genres common would merge 'DnB', 'drum & bass' into 'drum and bass'; 'Hip-Hop', 'hiphop' into "
        "'hip hop'"
    ]
    assert {track.genres for track in source.tracks} >= {("hiphop",), ("Hip-Hop",), ("Techno",)}
    assert remark_mergeable(["Techno", "rock", "hip hop"]) == []


def test_merged_genres_are_printed_with_counts_and_recorded(call: Callable[..., Any], tmp_path: Path) -> None:
    path = table_of(tmp_path, "hiphop", "Hip-Hop", "Hip-Hop", "hip hop", "polka")
    result = call("manifest", path, "--merge-genres", "common", "-o", tmp_path / "m.jsonl", "--json").json
    assert result["genres"] == {"hip hop": 4, "polka": 1}
    assert result["merged_genres"] == [
        {"from": "Hip-Hop", "to": "hip hop", "tracks": 2},
        {"from": "hiphop", "to": "hip hop", "tracks": 1},
    ]
    again = call("manifest", tmp_path / "m.jsonl", "--json").json
    assert (again["genres"], again["merged_genres"]) == (result["genres"], [])
    shown = call("manifest", path, "--merge-genres", "common")
    assert "merged genres" in shown.out
    assert "--merge-genres common: 2 genres merged\n  'Hip-Hop' into 'hip hop' (2 tracks)\n" in shown.err


def test_custom_alias_table_merges_exact_names_only(tmp_path: Path) -> None:
    put(tmp_path / "merge.csv", "from,to\nhip\u00a0 hop,rap\n polka ,folk\nPolka,folk\ntango,folk\n")
    source = load_source(table_of(tmp_path, "hip hop", "hip-hop", "polka"), merge_genres=str(tmp_path / "merge.csv"))
    assert [track.genres for track in source.tracks] == [("rap",), ("hip-hop",), ("folk",)]
    assert f"2 genres of {tmp_path / 'merge.csv'} without a track here: 'Polka', 'tango'" in source.notes


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,b\nc,b\na,d\n", r"line 4: genre 'a' is merged into 'd', and into 'b' by .*merge.csv, line 2\. Keep one"),
        ("a,b\nb,c\n", r"line 2: genre 'a' is merged into 'b', which .*merge.csv, line 3 merges into 'c'\."),
        ("a,b\nb,a\n", r"line 2: genre 'a' is merged into 'b', which .*merge.csv, line 3 merges into 'a'\."),
        ("a,b\nb,c\nc,b\n", r"line 2: genre 'a' is merged into 'b', which .* line 3"),
        ("a,\n", r"line 2: column 'to' is empty"),
        ("a,b,c\n", r"line 2: 3 cells where the header has 2 columns"),
        ("", "lists no genre"),
    ],
)
def test_conflicts_chains_and_cycles_are_refused_by_row(tmp_path: Path, rows: str, message: str) -> None:
    put(tmp_path / "merge.csv", f"from,to\n{rows}")
    with pytest.raises(ManifestError, match=message):
        genre_aliases(str(tmp_path / "merge.csv"))


def test_missing_or_invalid_alias_table_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"comon: no such file\. .* 'from' and 'to', or 'common'"):
        genre_aliases("comon")
    put(tmp_path / "merge.csv", "genre,name\na,b\n")
    with pytest.raises(ManifestError, match="there is no column 'from'"):
        genre_aliases(str(tmp_path / "merge.csv"))


def test_a_store_of_merged_genres_is_continued_with_the_option_and_refused_without(
    call: Callable[..., Any], tmp_path: Path
) -> None:
    path, store = table_of(tmp_path, "hiphop", "Hip-Hop"), tmp_path / "s.zarr"
    for i in range(2):
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * np.sin(np.arange(9000) / 10), 22_050)
    options = ("-o", store, "--features", "mel", "--workers", 0)
    merged = [{"from": "Hip-Hop", "to": "hip hop", "tracks": 1}, {"from": "hiphop", "to": "hip hop", "tracks": 1}]
    for _ in range(2):
        assert call("extract", path, *options, "--merge-genres", "common", "--json").json["merged_genres"] == merged
    assert list(FeatureStore.open(store).genres) == ["hip hop"]
    assert json.loads((store / "log" / "source-0.json").read_text())["merged_genres"] == merged
    refused = call("extract", path, *options)
    assert (refused.code, "genres: ['hip hop'] in the store, ['hiphop'] in this command" in refused.err) == (2, True)
    assert call("store", "verify", store, "--full").code == 0
    assert call("store", "failures", store, "--json").json["failures"] == []


def test_labels_of_training_and_evaluation_are_merged_too(
    call: Callable[..., Any], small_store: FeatureStore, tmp_path: Path
) -> None:
    ids = small_store.tracks.column("id").to_pylist()
    rows = "".join(f"{name},{'Jazz' if i % 2 else 'ROCK'}\n" for i, name in enumerate(ids))
    labels = put(tmp_path / "l.csv", f"id,genres\n{rows}")
    train = ("train", small_store.path, "-o", tmp_path / "run", "--encoder", "tiny", "--epochs", 1)
    dry = call(*train, "--labels", labels, "--merge-genres", "common", "--dry-run", "--json").json
    assert dry["genres"] == ["jazz", "rock"]
    assert "  'Jazz' into 'jazz' (20 tracks)" in dry["warnings"]
    rows = "".join(f"{name},jazz\n" for name in small_store.genres if name != "jazz")
    own = put(tmp_path / "merge.csv", f"from,to\n{rows}")
    assert call(*train, "--merge-genres", own, "--json").json["genres"] == ["jazz"]
    judged = call("evaluate", tmp_path / "run", small_store.path, "--merge-genres", own, "--json").json
    assert not [line for line in judged["warnings"] if "was trained on" in line]
    assert [line for line in judged["warnings"] if line.endswith("genres merged")]
    wrong = call("evaluate", tmp_path / "run", small_store.path, "--json").json
    assert [line for line in wrong["warnings"] if "was trained on other labels" in line]
