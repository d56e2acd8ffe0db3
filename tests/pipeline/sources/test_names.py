"""Names that look alike: in cells, in file names of other Unicode forms, and in notes."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keywords import load_source
from source_files import put

from mgc.cache import names
from mgc.cache.errors import ConfigError, ManifestError
from mgc.pipeline.sources.datasets import songs_source
from mgc.pipeline.sources.files import resolve_inside
from mgc.pipeline.sources.names import clean_name, look_alikes, lyrics_next_to, remark_names, stands_for_nothing

NFC, NFD = "Beyonc\u00e9", "Beyonce\u0301"


def genres_of(path: Path, **options: object) -> list[tuple[str, ...]]:
    return [track.genres for track in load_source(path, **options).tracks]


# ---------------------------------------------------------------- cleaning


@pytest.mark.parametrize(
    "name",
    [
        "hip hop",
        "hip\u00a0hop",
        " hip  hop\u200b",
        "hip\u3000hop",
        "\ufeffhip hop",
        "hip\u2009hop\u200d",
        "hip\thop",
        "\u202ahip hop\u202c",
        "h\u00adip hop",
        "hip\r\nhop",
        "hip\x00hop",
        "hip hop\u2060",
        "\u200ehip hop",
    ],
)
def test_spaces_and_invisible_characters_do_not_change_a_name(name: str) -> None:
    assert clean_name(name) == "hip hop"


def test_joiners_of_a_script_are_kept() -> None:
    assert (
        clean_name("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645")
        == "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    )


@given(st.text(max_size=20))
def test_cleaning_names_is_idempotent(text: str) -> None:
    once = clean_name(text)
    assert clean_name(once) == once
    assert once == once.strip()
    assert unicodedata.is_normalized("NFC", once)


def test_invisible_characters_make_no_class_of_their_own_in_any_kind_of_table(tmp_path: Path) -> None:
    cells = ["rock", "rock\u200b", "rock\u00a0", "\ufeffrock"]
    rows = list(enumerate(cells))
    put(tmp_path / "t.csv", "id,path,genres\n" + "".join(f"{i},{i}.mp3,{cell}\n" for i, cell in rows))
    put(tmp_path / "t.tsv", "id\tpath\tgenres\n" + "".join(f"{i}\t{i}.mp3\t{cell}\n" for i, cell in rows))
    lines = (f'{{"id": "{i}", "path": "{i}.mp3", "genres": ["{cell}"]}}\n' for i, cell in rows)
    put(tmp_path / "t.jsonl", "".join(lines))
    for suffix in ("csv", "tsv", "jsonl"):
        assert set(genres_of(tmp_path / f"t.{suffix}")) == {("rock",)}


@pytest.mark.parametrize(
    "pair",
    [
        ("Hip-Hop", "hip hop"),
        ("hiphop", "hip-hop"),
        ("\uff32\uff4f\uff43\uff4b", "rock"),
        ("r\u2019n\u2019b", "r'n'b"),
        ("hip\u2010hop", "hip-hop"),
        ("stra\u00dfe", "STRASSE"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u062e"),
    ],
)
def test_look_alike_names_are_noted_as_pairs(tmp_path: Path, pair: tuple[str, str]) -> None:
    assert look_alikes([*pair, "jazz"]) == [sorted(pair)]
    put(tmp_path / "t.csv", f"id,path,genres,artist\na,a,{pair[0]},X\nb,b,{pair[1]},x\n")
    notes = [note for note in load_source(tmp_path / "t.csv").notes if "are kept apart" in note]
    assert len(notes) == 2
    assert all(repr(name) in notes[0] for name in pair)
    assert "artists that differ by case only are kept apart, in splits too: 'X', 'x'" in notes


LOOK_ALIKE = [("Pop", "\u0420op"), ("rock", "r\u043e\u0441k"), ("HOUSE", "\u0397OUSE"), ("\u0440\u043e\u0440", "pop")]


@pytest.mark.parametrize("pair", LOOK_ALIKE)
def test_look_alike_letters_of_other_scripts_are_noted_and_not_merged(tmp_path: Path, pair: tuple[str, str]) -> None:
    put(tmp_path / "t.csv", f"id,path,genres\na,a,{pair[0]}\nb,b,{pair[1]}\n")
    source = load_source(tmp_path / "t.csv")
    assert [track.genres for track in source.tracks] == [(pair[0],), (pair[1],)]
    (note,) = (note for note in source.notes if "letters of different scripts" in note)
    assert all(repr(name) in note for name in pair)
    assert "(U+04" in note or "(U+0397 GREEK CAPITAL LETTER ETA)" in note
    assert not [note for note in source.notes if "mix letters" in note]


def test_word_of_several_scripts_is_noted_without_a_look_alike() -> None:
    names = ("\u0420op", "\u0440\u043e\u043a", "\u0411-pop", "caf\u00e9", "\uc74c\uc545 pop")
    notes = remark_names("genres", dict.fromkeys(names, 1))
    assert notes == [
        "genres with letters of different scripts in one word: '\u0420op' (U+0420 CYRILLIC CAPITAL LETTER ER)"
    ]


def test_different_names_are_not_taken_for_alike() -> None:
    assert look_alikes(["-", "+", "rock", "rocks", "caf\u00e9", "cafe", "R&B", "\u0915\u093f", "\u0915"]) == []


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "-", "Unknown", " N/A ", "null", "<NA>", "\u2014", "[]"])
def test_words_for_a_missing_value_are_noted(tmp_path: Path, word: str) -> None:
    assert stands_for_nothing(word)
    put(tmp_path / "t.jsonl", f'{{"id": "a", "path": "a", "genres": ["{word}"], "artist": "A", "lyrics": "{word}"}}\n')
    notes = load_source(tmp_path / "t.jsonl").notes
    assert any(
        note.startswith("genres that probably stand for a missing value") and "1 track" in note for note in notes
    )
    assert any(note.startswith("lyrics of 1 track probably stand for a missing value") for note in notes)
    assert not any(note.startswith("artists that") for note in notes)


# ---------------------------------------------------------------- quoting


def test_tab_separated_table_of_a_spreadsheet_is_unquoted(tmp_path: Path) -> None:
    text = (
        "id\tpath\tartist\tgenres\tlyrics\n"
        '1\ta.mp3\t"Fox, Tail & Co"\t"rock,pop"\t"he said ""go"""\n'
        '2\tb.mp3\tBob\tsoul\t"Heroes\n'
    )
    for name in ("t.tsv", "t.csv"):
        first, second = load_source(put(tmp_path / name, text), genre_delimiter=",").tracks
        assert (first.artists, first.genres, first.lyrics) == (("Fox, Tail & Co",), ("rock", "pop"), 'he said "go"')
        assert (second.genres, second.lyrics) == (("soul",), '"Heroes')


def test_quoted_cells_of_several_lines_in_a_tab_separated_table(tmp_path: Path) -> None:
    put(tmp_path / "t.tsv", 'id\tpath\tlyrics\tgenres\n1\ta.mp3\t"one\ntwo\tthree"\trock\n2\tb.mp3\tx\t"pop"\n')
    first, second = load_source(tmp_path / "t.tsv").tracks
    assert (first.lyrics, first.genres, second.genres) == ("one\ntwo\tthree", ("rock",), ("pop",))


def test_csv_with_blanks_before_quotation_marks(tmp_path: Path) -> None:
    put(tmp_path / "t.csv", 'id, "path", genres\n1, "a, b.mp3", "rock,pop"\n2, c.mp3,  "soul"\n3," ""d"".mp3", jazz\n')
    tracks = load_source(tmp_path / "t.csv", genre_delimiter=",").tracks
    assert [track.genres for track in tracks] == [("rock", "pop"), ("soul",), ("jazz",)]
    assert [track.path for track in tracks] == ["a, b.mp3", " c.mp3", ' "d".mp3']


WRITTEN_LISTS = (
    "('rock', 'pop')",
    "('rock',)",
    "{'rock'}",
    '{"rock", "pop"}',
    "{rock,pop}",
    "frozenset({'rock'})",
    "['rock' 'pop']",
    "array(['rock'], dtype=object)",
    "set(['rock'])",
    "(rock, pop)",
    "dict_keys(['rock'])",
    "Index(['rock'], dtype='object')",
    "b'rock'",
    "np.str_('rock')",
    "(np.str_('rock'), np.str_('pop'))",
    '["rock"]',
)


@pytest.mark.parametrize("delimiter", [None, ","])
@pytest.mark.parametrize("cell", WRITTEN_LISTS)
def test_pythons_text_of_sets_and_tuples_is_refused_like_lists(
    tmp_path: Path, cell: str, delimiter: str | None
) -> None:
    escaped = cell.replace('"', '""')
    put(tmp_path / "t.csv", f'id,path,genres\na,a.mp3,rock\nb,b.mp3,"{escaped}"\n')
    with pytest.raises(ManifestError, match=r"line 3: column 'genres' holds a list written as text"):
        load_source(tmp_path / "t.csv", genre_delimiter=delimiter)


def test_a_list_of_artists_written_as_text_is_refused_and_brackets_in_names_are_not(tmp_path: Path) -> None:
    put(tmp_path / "t.csv", "id,path,artist\na,a.mp3,\"['X', 'Y']\"\n")
    with pytest.raises(ManifestError, match=r"line 2: column 'artist' holds a list written as text"):
        load_source(tmp_path / "t.csv")
    artists = ["[spunge]", "(hed) p.e.", "(G)I-DLE", "{X}"]
    put(tmp_path / "t.csv", "id,path,artist\n" + "".join(f"{i},{i},{name}\n" for i, name in enumerate(artists)))
    assert [track.artists for track in load_source(tmp_path / "t.csv").tracks] == [(name,) for name in artists]


@pytest.mark.parametrize("cell", ["'rock'", "'rock,pop'", "'rock','pop'", '"rock"', "\u201crock\u201d", "rock, 'pop'"])
def test_names_in_quotation_marks_are_refused(tmp_path: Path, cell: str) -> None:
    escaped = cell.replace('"', '""')
    put(tmp_path / "t.csv", f'id,path,genres\na,a.mp3,"{escaped}"\n')
    with pytest.raises(ManifestError, match=r"line 2: column 'genres' holds quotation marks around names"):
        load_source(tmp_path / "t.csv", genre_delimiter=",")


@pytest.mark.parametrize("mark", ["\n", "\x00", "\u2028", "\x1e", "\u3001", "\uff0c"])
def test_line_ends_and_separators_between_genres_need_a_delimiter(tmp_path: Path, mark: str) -> None:
    put(tmp_path / "t.csv", f'id,path,genres\na,a.mp3,"rock{mark}pop"\n')
    with pytest.raises(ManifestError, match=r"line 2: column 'genres'.*--genre-delimiter"):
        load_source(tmp_path / "t.csv")
    assert genres_of(tmp_path / "t.csv", genre_delimiter=mark) == [("rock", "pop")]


def test_line_end_in_a_name_is_refused_with_any_delimiter(tmp_path: Path) -> None:
    put(tmp_path / "t.csv", 'id,path,genres\na,a.mp3,"rock\npop,jazz\n"\n')
    with pytest.raises(ManifestError, match=r"line 2: column 'genres'.*--genre-delimiter"):
        load_source(tmp_path / "t.csv", genre_delimiter=",")


# ---------------------------------------------------------------- Unicode forms of file names


@pytest.mark.parametrize(("stored", "written"), [(NFC, NFD), (NFD, NFC)])
def test_files_labels_and_lyrics_match_across_unicode_forms(tmp_path: Path, stored: str, written: str) -> None:
    folder = tmp_path / "songs"
    put(folder / stored / f"{stored}.wav", "sound")
    put(folder / stored / f"{written}.txt", "words")
    put(tmp_path / "labels.csv", f"id,genres\n{written}/{written}.wav,rock\n")
    (track,) = load_source(folder, labels=tmp_path / "labels.csv").tracks
    assert track.genres == ("rock",)
    assert track.lyrics_path == f"{stored}/{written}.txt"
    put(tmp_path / "t.csv", f"id,path\n1,{written}/{written}.wav\n")
    source = load_source(tmp_path / "t.csv", root=folder)
    assert source.notes == ["1 of 1 track without a genre; give --labels or --genres-from-folders"]
    assert resolve_inside(folder, source.tracks[0].path).read_text() == "sound"


def test_an_exact_name_wins_and_two_of_other_forms_match_nothing(tmp_path: Path) -> None:
    put(tmp_path / NFC, "composed")
    put(tmp_path / NFD, "decomposed")
    assert names.find_file(tmp_path, NFD).read_text() == "decomposed"
    assert names.find_file(tmp_path, NFC).read_text() == "composed"
    both = "\u1e69"  # three spellings; the third has neither of the other two's bytes
    put(tmp_path / "s\u0323\u0307", "x")
    put(tmp_path / "s\u0307\u0323", "y")
    assert not names.find_file(tmp_path, both).exists()


def test_file_added_to_a_folder_is_found(tmp_path: Path) -> None:
    assert not names.find_file(tmp_path, NFC).exists()
    os.utime(tmp_path, ns=(0, 0))
    put(tmp_path / NFD, "x")
    assert names.find_file(tmp_path, NFC).exists()


def test_rows_with_nearly_matching_ids_are_noted(tmp_path: Path) -> None:
    for name in ("a song.mp3", "B.mp3", "c.mp3"):
        put(tmp_path / "songs" / name, "sound")
    put(tmp_path / "l.csv", "id,genres\nc.mp3,rock\nb.mp3,rock\na\u00a0song.mp3,pop\nelse.mp3,pop\n")
    notes = load_source(tmp_path / "songs", labels=tmp_path / "l.csv").notes
    assert "3 rows of l.csv without a track here" in notes
    assert any(note.startswith("2 rows of l.csv would be of a track but for case, spaces") for note in notes)


# ---------------------------------------------------------------- lyrics next to songs


def test_lyrics_next_to_a_song_in_any_case() -> None:
    lyrics_of = lyrics_next_to(["a.TXT", "b.lrc", "c.Lrc", "c.txt", "d.txt", "D.txt", "e.mp3", "f.F.LRC"])
    songs = ["a.mp3", "b.flac", "c.mp3", "d.mp3", "e.mp3", "f.f.mp3", "A.MP3"]
    assert [lyrics_of(song) for song in songs] == ["a.TXT", "b.lrc", "c.txt", "d.txt", None, "f.F.LRC", "a.TXT"]


def test_single_songs_have_lyrics_next_to_them(tmp_path: Path) -> None:
    for name in ("a.mp3", "a.LRC", f"{NFC}.mp3", f"{NFD}.TXT", "lonely.mp3"):
        put(tmp_path / name, "x")
    tracks = songs_source([tmp_path / name for name in ("a.mp3", f"{NFC}.mp3", "lonely.mp3")]).tracks
    assert [(track.lyrics_path or "").rpartition("/")[2] for track in tracks] == ["a.LRC", f"{NFD}.TXT", ""]


# ---------------------------------------------------------------- the locale


def in_ascii_locale(code: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    return subprocess.run(
        [sys.executable, *code.split(), *arguments], env=environment, capture_output=True, timeout=300
    )


def test_names_are_utf8_on_the_command_line_whatever_the_locale(tmp_path: Path) -> None:
    put(tmp_path / "songs" / "caf\u00e9.wav", "sound")
    put(tmp_path / "l.csv", "id,genres\ncaf\u00e9.wav,rock\n")
    manifest = tmp_path / "\u00fc.jsonl"
    done = in_ascii_locale(
        "-m mgc manifest", str(tmp_path / "songs"), "--labels", str(tmp_path / "l.csv"), "-o", str(manifest)
    )
    assert done.returncode == 0, done.stderr
    assert '"café.wav"' in manifest.read_text(encoding="utf-8")
    assert f"written to {manifest}" in done.stdout.decode()


def test_the_library_refuses_another_encoding_by_the_name_of_the_locale(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    monkeypatch.setenv("LC_ALL", "en_US.ISO-8859-1")
    with pytest.raises(ConfigError, match="'en_US.ISO-8859-1' makes Python read .*PYTHONUTF8=1"):
        load_source(put(tmp_path / "t.csv", "id,path\na,a\n"))


# ---------------------------------------------------------------- any text


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cell=st.text(st.characters(codec="utf-8", exclude_characters="\r\n\t"), min_size=1, max_size=12))
def test_quoted_cell_of_a_tab_separated_table_is_unquoted(tmp_path: Path, cell: str) -> None:
    quoted = '"' + cell.replace('"', '""') + '"'
    put(tmp_path / "t.tsv", f"id\tpath\tlyrics\n1\ta.mp3\t{quoted}\n")
    assert load_source(tmp_path / "t.tsv").tracks[0].lyrics == cell
