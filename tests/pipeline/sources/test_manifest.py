"""Tracks, ids and paths, filters, and manifests."""

from __future__ import annotations

import json
import os
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keywords import filter_tracks, load_source

from mgc.cache.errors import ClipError, ConfigError, ManifestError
from mgc.cache.names import caseless
from mgc.pipeline.sources.files import resolve_inside
from mgc.pipeline.sources.manifest import (
    Source,
    Track,
    check_collisions,
    check_id,
    normalise_language,
    write_manifest,
)
from mgc.pipeline.sources.names import clean_name

PER_EXAMPLE_FILES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
NAME = TEXT.map(str.strip).filter(lambda name: name != "")
ID = TEXT.filter(lambda text: text.strip() and "\0" not in text and not set("/\\.") & set(text))


def names_as_loaded(names: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, map(clean_name, names))))


TRACK = st.builds(
    Track,
    id=ID,
    path=TEXT.filter(lambda text: text.strip() and not text.startswith("/")),  # absolute paths: test_first_use.py
    artists=st.lists(NAME, max_size=3).map(names_as_loaded),
    song=st.none() | NAME,
    genres=st.lists(NAME, max_size=4).map(names_as_loaded),
    language=(st.none() | NAME).map(normalise_language),
    split=st.sampled_from([None, "train", "validation", "test"]),
    lyrics_path=st.none() | TEXT.filter(bool),
)


def track(track_id: str, **cells: object) -> Track:
    return Track(**{"id": track_id, "path": f"{track_id}.mp3", **cells})


@PER_EXAMPLE_FILES
@given(tracks=st.lists(TRACK, min_size=1, max_size=6, unique_by=lambda t: caseless(t.id)), lyrics=st.none() | TEXT)
def test_manifest_reads_back_as_the_same_tracks(tmp_path: Path, tracks: list[Track], lyrics: str | None) -> None:
    if lyrics is not None:
        tracks[0] = track(tracks[0].id, lyrics=lyrics)
    tracks.sort(key=lambda t: t.id)
    manifest = tmp_path / "tracks.jsonl"
    write_manifest(Source(root=tmp_path, tracks=tracks), manifest)
    again = load_source(manifest)
    assert again.tracks == tracks
    assert again.root == tmp_path
    first = manifest.read_bytes()
    write_manifest(again, manifest)
    assert manifest.read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["tracks.jsonl"]


def test_manifest_elsewhere_is_read_with_its_root(tmp_path: Path) -> None:
    root = tmp_path / "music"
    root.mkdir()
    for number in range(30):
        (root / f"{number}.mp3").write_bytes(b"sound")
    source = load_source(root)
    elsewhere = tmp_path / "lists" / "tracks.jsonl"
    write_manifest(source, elsewhere)
    assert load_source(elsewhere, root=root) == source
    with pytest.raises(ManifestError, match=r"none of 30 audio files, such as '0.mp3', is under .*lists.*--root"):
        load_source(elsewhere)


@pytest.mark.parametrize(
    ("item", "other"),
    [("a", "a"), ("Ab", "aB"), ("\u00e9", "e\u0301"), ("stra\u00dfe", "STRASSE"), ("\u212b", "\u00e5")],
)
def test_colliding_ids_are_refused_by_name_and_line(tmp_path: Path, item: str, other: str) -> None:
    lines = [json.dumps({"id": name, "path": "x.mp3"}) for name in ("other", item, other)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    with pytest.raises(ManifestError) as error:
        load_source(tmp_path / "t.jsonl")
    message = str(error.value)
    assert "1 pairs" in message
    assert repr(item) in message
    assert repr(other) in message
    assert "line 2" in message
    assert "line 3" in message


def test_many_collisions_are_counted_and_listed_up_to_a_cap() -> None:
    ids = [f"{number}{letter}" for number in range(60) for letter in "aA"]
    with pytest.raises(ManifestError) as error:
        check_collisions(ids, ["here"] * len(ids))
    assert "60 pairs" in str(error.value)
    assert "and 10 more" in str(error.value)
    assert str(error.value).count(" and '") == 50


@pytest.mark.parametrize("track_id", ["", "/abs", "a/../b", "..", "a\\..\\b", "nul\0", "\\\\server\\share"])
def test_ids_that_look_like_escapes_are_refused(track_id: str) -> None:
    with pytest.raises(ManifestError, match="file, line 3"):
        check_id(track_id, "file, line 3")


@pytest.mark.parametrize("track_id", ["a/b.mp3", "a..b", "...", " a", "\u00e9", "a:b", "a\nb", "19 - 35467Hz.flac"])
def test_odd_but_harmless_ids_are_kept(track_id: str) -> None:
    check_id(track_id, "here")


@pytest.mark.parametrize("relative", ["/etc/passwd", "../x.mp3", "a/../../x.mp3", "out.mp3", "linked/x.mp3", "nul\0"])
def test_paths_out_of_the_root_escape(tmp_path: Path, relative: str) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "x.mp3").write_bytes(b"x")
    (root / "out.mp3").symlink_to(tmp_path / "x.mp3")
    (root / "linked").symlink_to(tmp_path)
    with pytest.raises(ClipError) as error:
        resolve_inside(root, relative)
    assert error.value.reason == "PATH_ESCAPE"
    assert str(tmp_path) not in error.value.detail


@pytest.mark.parametrize("relative", ["x.mp3", "a/../x.mp3", "link.mp3", "missing.mp3", "a//x.mp3"])
def test_paths_inside_are_given_as_they_are_called(tmp_path: Path, relative: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "x.mp3").write_bytes(b"x")
    (tmp_path / "link.mp3").symlink_to("x.mp3")
    assert resolve_inside(tmp_path, relative) == tmp_path / relative


def test_root_may_itself_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert resolve_inside(tmp_path / "link", "x.mp3") == tmp_path / "link" / "x.mp3"


def test_circular_links_are_missing_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for relative in ("a", "n" * 5000):
        with pytest.raises(ClipError, match="SRC_MISSING"):
            resolve_inside(tmp_path, relative)


@pytest.mark.parametrize(
    ("given_tag", "tag"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("eng", "en"),
        ("zh-cn", "zh-CN"),
        ("pt_BR", "pt-BR"),
        ("english", "english"),
        ("INTRUMENTAL", "zxx"),
        ("Instrumental", "zxx"),
        ("?", "?"),
        (None, None),
    ],
)
def test_languages(given_tag: str | None, tag: str | None) -> None:
    assert normalise_language(given_tag) == tag


@given(st.text(max_size=12))
def test_normalising_languages_is_idempotent(tag: str) -> None:
    once = normalise_language(tag)
    assert normalise_language(once) == once


FILTERABLE = [
    track("a", language="en", genres=("rock",), lyrics="words"),
    track("b", language="zh-CN", genres=("rock", "pop"), lyrics_path="b.txt"),
    track("c", language="zxx", genres=(), lyrics="INTRUMENTAL"),
    track("d", language="en", genres=("jazz", "pop"), lyrics=" \n"),
    track("e", genres=("jazz", "pop"), lyrics_path="e.txt"),
    track("f", language="eng", genres=("jazz",)),
]


def test_filters_work_in_order_and_count(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("[Instrumental]")
    (tmp_path / "e.txt").write_text("la la la")
    assert filter_tracks(FILTERABLE) == (FILTERABLE, [])
    kept, counts = filter_tracks(FILTERABLE, languages=["en", "ZH"], min_labels=1, require_lyrics=True, limit=1)
    assert [t.id for t in kept] == ["a"]
    assert counts == [("language en,zh", 3), ("min-labels 1", 3), ("require-lyrics", 2), ("limit 1", 1)]
    with_files, _ = filter_tracks(FILTERABLE, require_lyrics=True, root=tmp_path)
    assert [t.id for t in with_files] == ["a", "e"]
    instrumentals, _ = filter_tracks(FILTERABLE, languages=["INTRUMENTAL"])
    assert [t.id for t in instrumentals] == ["c"]


def test_filters_without_result_report_available_values() -> None:
    with pytest.raises(ManifestError, match=r"language fr leaves none of 6 tracks; .*en \(2\)"):
        filter_tracks(FILTERABLE, languages=["fr"])
    with pytest.raises(ManifestError, match="min-labels 3"):
        filter_tracks(FILTERABLE, min_labels=3)
    for wrong in ({"limit": 0}, {"min_labels": -1}):
        with pytest.raises(ConfigError):
            filter_tracks(FILTERABLE, **wrong)


def test_lyrics_outside_the_root_are_no_lyrics(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("words")
    (tmp_path / "root").mkdir()
    escaping = [track("a", lyrics_path="../secret.txt"), track("b", lyrics="la")]
    kept, _ = filter_tracks(escaping, require_lyrics=True, root=tmp_path / "root")
    assert [t.id for t in kept] == ["b"]


@given(names=st.lists(st.text(string.ascii_letters, min_size=1, max_size=3), min_size=1, max_size=8))
def test_collisions_are_found_exactly_when_case_folding_loses_an_id(names: list[str]) -> None:
    collides = len({name.lower() for name in names}) < len(names)
    try:
        check_collisions(names, [""] * len(names))
    except ManifestError:
        assert collides
    else:
        assert not collides


def test_failed_write_leaves_the_old_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "tracks.jsonl"
    write_manifest(Source(root=tmp_path, tracks=[track("a")]), manifest)
    before = manifest.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        write_manifest(Source(root=tmp_path, tracks=[track("a"), track("\ud800")]), manifest)
    assert manifest.read_bytes() == before
    assert os.listdir(tmp_path) == ["tracks.jsonl"]
