"""Sources of tracks: tables of every kind, Music4All in all its variants, folders of audio."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keywords import load_source
from source_files import put, write_wav

from mgc.cache.errors import ConfigError, ManifestError
from mgc.cache.names import explain_no_match
from mgc.pipeline.sources.manifest import write_manifest

SOURCE_TABLES = (".csv", ".tsv", ".jsonl", ".parquet")


# ---------------------------------------------------------------- tables


def test_the_same_tracks_from_every_kind_of_table(tmp_path: Path) -> None:
    rows = [
        {
            "id": "b",
            "path": "x/b.mp3",
            "artist": "Earth, Wind & Fire",
            "title": "NA",
            "language": "zh-cn",
            "split": "val",
        },
        {
            "id": "a",
            "path": "x/a.mp3",
            "artist": 'The "Who"',
            "title": "Caf\u00e9 \u2028 2",
            "language": "en",
            "split": "",
        },
    ]
    genres = {"b": ["r&b, soul", "funk"], "a": []}
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "genres"])
        writer.writeheader()
        writer.writerows({**row, "genres": "|".join(genres[row["id"]])} for row in rows)
    lines = ["\t".join([*rows[0], "genres"])] + ["\t".join([*r.values(), "|".join(genres[r["id"]])]) for r in rows]
    put(tmp_path / "t.tsv", "\r\n".join(lines) + "\r\n")
    full = [{**row, "genres": genres[row["id"]]} for row in rows]
    put(tmp_path / "t.jsonl", "\n\n".join(map(json.dumps, full)))
    pq.write_table(pa.Table.from_pylist(full), tmp_path / "t.parquet")
    read = {suffix: load_source(tmp_path / f"t{suffix}", genre_delimiter="|").tracks for suffix in SOURCE_TABLES}
    for suffix, tracks in read.items():
        assert tracks == read[".jsonl"], suffix
    a, b = read[".csv"]
    assert (a.id, a.artists, a.song, a.genres, a.split) == ("a", ('The "Who"',), "Caf\u00e9 \u2028 2", (), None)
    assert (b.artists, b.song, b.genres) == (("Earth, Wind & Fire",), "NA", ("r&b, soul", "funk"))
    assert (b.language, b.split) == ("zh-CN", "validation")


def test_csv_with_semicolons_mark_and_quoted_lines(tmp_path: Path) -> None:
    put(tmp_path / "t.csv", b'\xef\xbb\xbfid;path;lyrics\r\na;"b;c.mp3";"one\r\n""two"""\r\n')
    (only,) = load_source(tmp_path / "t.csv").tracks
    assert (only.id, only.path, only.lyrics) == ("a", "b;c.mp3", 'one\n"two"')


def test_tab_separated_csv_is_read_without_quoting(tmp_path: Path) -> None:
    put(tmp_path / "t.csv", 'id\tpath\tsong\na\ta.mp3\t"Heroes\nb\tb.mp3\tNone\n')
    assert [t.song for t in load_source(tmp_path / "t.csv").tracks] == ['"Heroes', "None"]


def test_lists_of_artists_and_delimiters(tmp_path: Path) -> None:
    put(
        tmp_path / "t.jsonl",
        '{"id": "a", "path": "a", "artists": ["X", "Y, Z", "X"], "genres": ["e\\u0301lectro", " "]}',
    )
    (only,) = load_source(tmp_path / "t.jsonl").tracks
    assert (only.artists, only.genres) == (("X", "Y, Z"), ("\u00e9lectro",))
    put(tmp_path / "t.csv", "id,path,artists\na,a,X;Y\n")
    assert load_source(tmp_path / "t.csv").tracks[0].artists == ("X;Y",)
    assert load_source(tmp_path / "t.csv", artist_delimiter=";").tracks[0].artists == ("X", "Y")


@pytest.mark.parametrize("cell", ["rock,pop", "rock;pop", "rock|pop", "drum & bass|rock"])
def test_genres_with_a_separator_need_an_explicit_delimiter(tmp_path: Path, cell: str) -> None:
    put(tmp_path / "t.tsv", f"id\tpath\tgenres\na\ta.mp3\trock\nb\tb.mp3\t{cell}\n")
    with pytest.raises(ManifestError, match=r"t\.tsv, line 3: column 'genres'.*--genre-delimiter"):
        load_source(tmp_path / "t.tsv")
    separator = next(mark for mark in ",;|" if mark in cell)
    assert load_source(tmp_path / "t.tsv", genre_delimiter=separator).tracks[1].genres == tuple(cell.split(separator))


REFUSED = {
    "missing column, nearest": ("t.csv", "id,pth\na,b\n", r"no column 'path'.*'pth'"),
    "missing id": ("t.csv", "ID,path\na,b\n", r"no column 'id'.*'ID'"),
    "near miss of an optional column": ("t.csv", "id,path,genre\na,b,c\n", r"unknown column 'genre'.*'genres'"),
    "near miss of a language": ("t.jsonl", '{"id": "a", "path": "b", "langauge": "en"}', r"'langauge'.*'language'"),
    "too few cells": ("t.csv", "id,path,song\na,b,c\na2,b\n", r"t\.csv, line 3: 2 cells.*3 columns"),
    "too many cells": ("t.tsv", "id\tpath\n\na\tb\tc\n", r"t\.tsv, line 3: 3 cells.*2 columns"),
    "unclosed quote": ("t.csv", 'id,path\na,b\nc,"d\n', r"t\.csv, line 3: broken record"),
    "text behind a quote": ("t.csv", 'id,path\na,"b"c\n', r"t\.csv, line 2: broken record"),
    "column twice": ("t.csv", "id,path,path\na,b,c\n", "'path' more than once"),
    "empty file": ("t.csv", "", "no header"),
    "header only": ("t.csv", "id,path\n", "lists no track"),
    "empty id": ("t.csv", "id,path\n,b\n", r"line 2: column 'id' is empty"),
    "empty path": ("t.jsonl", '{"id": "a", "path": " "}', r"line 1: column 'path' is empty"),
    "key missing in one line": ("t.jsonl", '{"id": "a", "path": "b"}\n{"id": "c"}', r"line 2: column 'path'"),
    "wrong type": ("t.jsonl", '{"id": 7, "path": "b"}', r"line 1: column 'id' must hold text, not int \(7\)"),
    "wrong list": (
        "t.jsonl",
        '{"id": "a", "path": "b", "genres": ["x", 1]}',
        r"line 1: column 'genres'.*list of names",
    ),
    "object for list": ("t.jsonl", '{"id": "a", "path": "b", "genres": {"x": 1}}', r"line 1: column 'genres'"),
    "list as text": ("t.jsonl", '{"id": "a", "path": "b", "genres": "[\'x\']"}', r"line 1: .*list written as text"),
    "broken json": ("t.jsonl", '{"id": "a", "path": "b"}\n{"id": ', r"t\.jsonl, line 2: broken JSON"),
    "key twice": ("t.jsonl", '{"id": "a", "path": "b", "id": "c"}', r"line 1: broken JSON: a key stands twice"),
    "no object": ("t.jsonl", "[1, 2]", r"line 1: a JSON object was expected"),
    "deep json": ("t.jsonl", "[" * 200_000, r"line 1: broken JSON"),
    "half surrogate": ("t.jsonl", '{"id": "\\ud800", "path": "b"}', r"line 1: column 'id' holds half a surrogate"),
    "not utf-8": ("t.csv", b"id,path\na,b\nc,\xff\n", r"t\.csv, line 3, byte 2: not UTF-8"),
    "two names for artists": ("t.csv", "id,path,artist,artists\na,b,c,d\n", r"line 2: both 'artist' and 'artists'"),
    "lyrics twice": ("t.csv", "id,path,lyrics,lyrics_path\na,b,c,d\n", r"line 2: both 'lyrics'"),
    "unknown split": ("t.csv", "id,path,split\na,b,tset\n", r"line 2: column 'split' holds 'tset'"),
    "id that climbs": ("t.csv", "id,path\nok,b\n../a,b\n", r"line 3: id '\.\./a' is refused"),
    "not parquet": ("t.parquet", "PAR1 but no", "not readable as Parquet"),
    "plain json": ("t.json", "[]", r"a source is a folder or a table"),
    "one song": ("song.mp3", "sound", r"mgc predict"),
}


@pytest.mark.parametrize(("name", "content", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_tables_are_refused_by_file_line_and_column(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        load_source(put(tmp_path / name, content))


def test_parquet_of_wrong_types_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2], "path": ["a", "b"], "vector": [[0.5], [1.0]]}), tmp_path / "t.parquet")
    with pytest.raises(ManifestError, match=r"t\.parquet, row 1: column 'id' must hold text, not int"):
        load_source(tmp_path / "t.parquet")
    table = pa.table({"id": pa.array(["a", "b"]).dictionary_encode(), "path": ["a", "b"], "genres": [["x", None], []]})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(ManifestError, match=r"row 1: column 'genres'"):
        load_source(tmp_path / "t.parquet")


def test_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such file or folder"):
        load_source(tmp_path / "none.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ManifestError, match="not a regular file"):
        load_source(tmp_path / "pipe.csv")


def test_escaping_paths_stay_in_the_plan_and_are_noted(tmp_path: Path) -> None:
    put(tmp_path / "in.mp3", "x")
    put(tmp_path / "t.csv", "id,path\na,/etc/passwd\nb,../b.mp3\nc,x/../in.mp3\nd,x/../../d.mp3\n")
    source = load_source(tmp_path / "t.csv")
    assert [t.id for t in source.tracks] == ["a", "b", "c", "d"]
    assert any("3 tracks with a path outside " in note and "PATH_ESCAPE" in note for note in source.notes)


CELL = st.text(st.characters(codec="utf-8"), max_size=30)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=200) | CELL.map(lambda text: f"id,path,genres\n{text}".encode()),
    name=st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.parquet"]),
)
def test_no_bytes_make_a_table_reader_raise_anything_else(tmp_path: Path, content: bytes, name: str) -> None:
    put(tmp_path / name, content)
    try:
        tracks = load_source(tmp_path / name).tracks
    except ManifestError:
        return
    assert [track.id for track in tracks] == sorted(track.id for track in tracks)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(CELL, min_size=1, max_size=5))
def test_csv_cells_survive_any_content(tmp_path: Path, cells: list[str]) -> None:
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "path", "lyrics"])
        writer.writerows([str(number), "x.mp3", cell] for number, cell in enumerate(cells))
    got = [track.lyrics for track in load_source(tmp_path / "t.csv").tracks]
    assert got == [cell.replace("\r\n", "\n") or None for cell in cells]


# ---------------------------------------------------------------- Music4All

IDS = ("0009fFIM1eYThaPg", "00CH4HJdxQQQbJfu", "zzzzFFIM1eYThaP0")


@pytest.fixture
def music4all(tmp_path: Path) -> Path:
    root = tmp_path / "music4all"
    a, b, c = IDS
    put(root / "id_information.csv", f'id\tartist\tsong\talbum_name\n{a}\tNA\t"Heroes\tX\n{b}\tNone\tNA\t\n{c}\t\t\t\n')
    put(root / "id_genres.csv", f"id\tgenres\n{a}\thard rock,rock\n{b}\tpop\n{c}\t\n")
    put(root / "id_lang.csv", f"id\tlang\n{a}\ten\n{b}\tzh-cn\n{c}\tINTRUMENTAL\n")
    put(root / "id_tags.csv", "id\ttags\n broken &lt;3 table that nobody asks for")
    for track_id in IDS:
        put(root / "audios" / f"{track_id}.mp3", "sound")
        put(root / "lyrics" / f"{track_id}.txt", "INTRUMENTAL" if track_id == c else "la la")
    return root


def test_music4all_is_read_unchanged(music4all: Path) -> None:
    source = load_source(music4all)
    a, b, c = source.tracks
    assert tuple(t.id for t in source.tracks) == IDS
    assert (a.artists, a.song, a.genres, a.language) == (("NA",), '"Heroes', ("hard rock", "rock"), "en")
    assert (b.artists, b.song, b.genres, b.language) == (("None",), "NA", ("pop",), "zh-CN")
    assert (c.artists, c.song, c.genres, c.language) == ((), None, (), "zxx")
    assert (a.path, a.lyrics_path, a.lyrics) == (f"audios/{IDS[0]}.mp3", f"lyrics/{IDS[0]}.txt", None)
    assert any("1 instrumental track," in note for note in source.notes)


def test_nested_folder_and_written_manifest_give_the_same(music4all: Path) -> None:
    plain = load_source(music4all)
    outer = load_source(music4all.parent)
    assert outer == plain
    manifest = music4all / "tracks.jsonl"
    write_manifest(plain, manifest)
    assert load_source(manifest).tracks == plain.tracks


@pytest.mark.parametrize("quoted", [False, True])
def test_lyrics_csv_in_place_of_the_folder(music4all: Path, quoted: bool) -> None:
    shutil.rmtree(music4all / "lyrics")
    texts = ['"la" la', "one\ntwo" if quoted else "one two", ""]
    with (music4all / "lyrics.csv").open("w", newline="") as file:
        if quoted:
            csv.writer(file, delimiter="\t").writerows([("id", "lyrics"), *zip(IDS, texts, strict=True)])
        else:
            file.write("".join(f"{i}\t{text}\n" for i, text in zip(("id", *IDS), ("lyrics", *texts), strict=True)))
    source = load_source(music4all)
    assert [t.lyrics for t in source.tracks] == texts
    assert all(t.lyrics_path is None for t in source.tracks)


def test_missing_optional_tables_are_noted(music4all: Path) -> None:
    shutil.rmtree(music4all / "lyrics")
    for name in ("id_information.csv", "id_lang.csv", "id_tags.csv"):
        (music4all / name).unlink()
    source = load_source(music4all)
    assert [t.genres for t in source.tracks] == [("hard rock", "rock"), ("pop",), ()]
    assert all(t.language is None and t.lyrics_path is None and not t.artists for t in source.tracks)
    assert {"id_lang.csv is absent: no lang", "neither lyrics/ nor lyrics.csv is there: no lyrics"} <= set(source.notes)


def test_no_track_is_lost_if_tables_and_files_differ(music4all: Path) -> None:
    put(music4all / "id_genres.csv", f"id\tgenres\n{IDS[0]}\trock\n0new000000000000\tpop\n")
    put(music4all / "audios" / "unknown.mp3", "sound")
    (music4all / "audios" / f"{IDS[1]}.mp3").rename(music4all / "audios" / f"{IDS[1]}.ogg")
    source = load_source(music4all)
    paths = {t.id: t.path for t in source.tracks}
    assert paths["0new000000000000"] == "audios/0new000000000000.mp3"  # will fail SRC_MISSING
    assert paths[IDS[1]] == f"audios/{IDS[1]}.ogg"
    assert "id_genres.csv has no row for 2 of 4 tracks" in source.notes
    assert any(note.startswith("1 files in audios/ are left out") for note in source.notes)


def test_ids_are_case_sensitive_but_may_not_collide(music4all: Path) -> None:
    assert load_source(music4all).tracks[0].id == "0009fFIM1eYThaPg"
    put(music4all / "id_genres.csv", f"id\tgenres\n{IDS[0].lower()}\trock\n")
    with pytest.raises(ManifestError, match="0009ffim1eythapg"):
        load_source(music4all)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("id_genres.csv", "id\tgenre\nx\trock\n", r"id_genres\.csv: there is no column 'genres'.*nearest.*'genre'"),
        ("id_genres.csv", "id,genres\nx,rock\n", r"id_genres\.csv: there is no column 'id'"),
        ("id_lang.csv", f"id\tlang\n{IDS[0]}\ten\n{IDS[0]}\tpt\n", r"line 2.*line 3"),
        ("id_lang.csv", f"id\tlang\n{IDS[0]}\n", r"id_lang\.csv, line 2: 1 cells"),
        ("id_information.csv", b"id\tartist\tsong\nx\t\xe9\t\n", r"id_information\.csv, line 2, byte 2: not UTF-8"),
        ("id_genres.csv", "id\tgenres\n../x\trock\n", r"id_genres\.csv, line 2: id"),
    ],
)
def test_broken_music4all_tables(music4all: Path, name: str, content: str | bytes, message: str) -> None:
    put(music4all / name, content)
    with pytest.raises(ManifestError, match=message):
        load_source(music4all)


def test_music4all_without_clips_is_refused(music4all: Path) -> None:
    shutil.rmtree(music4all / "audios")
    with pytest.raises(ManifestError, match="audios/<id>.mp3"):
        load_source(music4all)


# ---------------------------------------------------------------- folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "music"
    for name in ("rock/a.mp3", "rock/live/b.full.flac", "jazz/c.MP3", "d.d/e.bit"):
        put(root / name, "sound")
    write_wav(root / "d")
    for name in (
        "readme.md",
        "list.TSV",
        "x.json",
        "y.jsonl",
        "z.csv",
        "rock/a.txt",
        "rock/live/b.full.txt",
        "d.d/f.txt",
    ):
        put(root / name, "text")
    put(root / ".hidden.mp3", "sound")
    put(root / ".git" / "h.mp3", "sound")
    put(root / "store.zarr" / "zarr.json", "{}")
    put(root / "store.zarr" / "mel" / "c", "chunk")
    return root


def test_folder_plans_audio_by_name_or_content(folder: Path) -> None:
    source = load_source(folder)
    assert [t.id for t in source.tracks] == ["d", "d.d/e.bit", "jazz/c.MP3", "rock/a.mp3", "rock/live/b.full.flac"]
    assert all(t.path == t.id and t.genres == () for t in source.tracks)
    assert [t.lyrics_path for t in source.tracks] == [None, None, None, "rock/a.txt", "rock/live/b.full.txt"]
    assert {
        "1 feature store skipped",
        "2 hidden files and folders skipped",
        "2 lyrics files matched to songs by name",
        "6 tables and texts are not used; lyrics of NAME.mp3 are read from NAME.txt or NAME.lrc",
    } <= set(source.notes)


def test_genres_from_folder_names(folder: Path) -> None:
    source = load_source(folder, genres_from_folders=True)
    assert [t.genres for t in source.tracks] == [(), ("d.d",), ("jazz",), ("rock",), ("rock",)]


@pytest.mark.parametrize("key", ["id", "path"])
def test_labels_from_a_table(folder: Path, key: str) -> None:
    put(folder / "labels.tsv", f"{key}\tgenres\tartist\nrock/a.mp3\trock,pop\tX\njazz/c.MP3\tjazz\t\nnone.mp3\tx\t\n")
    source = load_source(folder, labels=folder / "labels.tsv", genre_delimiter=",")
    result = {t.id: t for t in source.tracks}
    assert result["rock/a.mp3"].genres == ("rock", "pop")
    assert result["rock/a.mp3"].artists == ("X",)
    assert result["jazz/c.MP3"].genres == ("jazz",)
    assert result["d"].genres == ()
    assert {"labels.tsv describes 2 of 5 tracks", "1 row of labels.tsv without a track here"} <= set(source.notes)


def test_labels_of_other_tracks_are_refused(folder: Path) -> None:
    put(folder / "labels.tsv", "id\tgenres\na\trock\n")
    with pytest.raises(ManifestError, match="no id matches the source: 'a' in the table, 'd' in it"):
        load_source(folder, labels=folder / "labels.tsv")
    put(folder / "labels.tsv", "id\tgenres\nnobody\trock\n")
    with pytest.raises(ManifestError, match=r"in it\. Write each id as the source has it\.$"):
        load_source(folder, labels=folder / "labels.tsv")


@pytest.mark.parametrize("option", ["genre_delimiter", "artist_delimiter"])
def test_delimiter_without_a_table_is_refused_with_what_to_do(music4all: Path, option: str) -> None:
    with pytest.raises(ConfigError, match=r"this is read as Music4All\. Leave it out, or give --labels\.$"):
        load_source(music4all, **{option: ","})


@pytest.mark.parametrize(
    ("listed", "track_id", "remedy"),
    [
        ("song", "song.mp3", "Write each id in full, with folder and suffix, as in 'song.mp3'."),
        ("song.mp3", "rock/song.mp3", "Write each id in full, with folder and suffix, as in 'rock/song.mp3'."),
        ("rock/song", "rock/song.mp3", "Write each id in full, with folder and suffix, as in 'rock/song.mp3'."),
        ("song", "rock/song.mp3", "Write each id in full, with folder and suffix, as in 'rock/song.mp3'."),
        ("audios/4Fd.mp3", "4Fd", "Write each id without folder and suffix, as in '4Fd'."),
        ("4Fd.mp3", "4Fd", "Write each id without folder and suffix, as in '4Fd'."),
        ("other", "4Fd", "Write each id as the source has it."),
    ],
)
def test_remedy_for_ids_of_another_form(listed: str, track_id: str, remedy: str) -> None:
    assert explain_no_match(["x", listed], ["y.mp3", track_id]) == remedy


def test_links_pipes_and_unreadable_names_in_a_folder(folder: Path, tmp_path: Path) -> None:
    put(tmp_path / "outside" / "o.mp3", "sound")
    (folder / "out.mp3").symlink_to(tmp_path / "outside" / "o.mp3")
    (folder / "dead.mp3").symlink_to("nowhere.mp3")
    (folder / "linked").symlink_to(tmp_path / "outside")
    os.mkfifo(folder / "pipe.mp3")
    source = load_source(folder)
    ids = {t.id for t in source.tracks}
    assert {"out.mp3", "dead.mp3"} <= ids  # they fail at extraction: PATH_ESCAPE, SRC_MISSING
    assert not {"pipe.mp3", "linked/o.mp3"} & ids
    assert {"1 linked folder skipped", "1 pipe, socket or device skipped"} <= set(source.notes)
    put(Path(os.fsdecode(os.fsencode(folder) + b"/\xff.mp3")), "sound")
    with pytest.raises(ManifestError, match=r"xff.mp3.*not UTF-8"):
        load_source(folder)


def test_files_that_collide_by_case_are_refused(folder: Path) -> None:
    put(folder / "rock" / "A.mp3", "sound")
    with pytest.raises(ManifestError, match=r"'rock/A\.mp3'.*'rock/a\.mp3'"):
        load_source(folder)


def test_folders_without_audio_and_options_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    put(tmp_path / "t.csv", "id,path\na,b\n")
    with pytest.raises(ManifestError, match="no audio file"):
        load_source(tmp_path / "empty")
    with pytest.raises(ConfigError, match="--genre-level goes with fma"):
        load_source(folder, genre_level="top")
    with pytest.raises(
        ConfigError, match=r"--genres-from-folders goes with genre-folders or archive; .*\. Leave it out\.$"
    ):
        load_source(tmp_path / "t.csv", genres_from_folders=True)
    with pytest.raises(ConfigError, match="not from both"):
        load_source(folder, labels=tmp_path / "t.csv", genres_from_folders=True)
    with pytest.raises(ConfigError, match="delimiter"):
        load_source(tmp_path / "t.csv", genre_delimiter="")


def test_genres_that_differ_by_case_are_noted(tmp_path: Path) -> None:
    put(tmp_path / "t.csv", "id,path,genres\na,a,Rock\nb,b,rock\n")
    assert "genres that differ by case only are kept apart: 'Rock', 'rock'" in load_source(tmp_path / "t.csv").notes


# ---------------------------------------------------------------- real data


def test_real_songs(real_data: Path) -> None:
    source = load_source(real_data / "songs")
    genres = Counter(genre for track in source.tracks for genre in track.genres)
    assert len(source.tracks) == 65
    assert len(genres) == 14
    assert sum(len(track.genres) == 2 for track in source.tracks) == 48
    assert Counter(track.language for track in source.tracks) == {"zxx": 35, "en": 18, "es": 12}
    texts = [track.lyrics_path for track in source.tracks if track.lyrics_path]
    assert len(texts) == len(os.listdir(real_data / "songs" / "lyrics"))
    assert all((source.root / track.path).is_file() for track in source.tracks)


def test_real_torture_folder_plans_what_outcomes_lists(real_data: Path) -> None:
    with (real_data / "torture" / "OUTCOMES.tsv").open(encoding="utf-8") as file:
        listed = sorted(line.split("\t")[0] for line in file.readlines()[1:])
    assert [track.id for track in load_source(real_data / "torture").tracks] == listed
