"""Tags of audio files: values, precedence, and damaged tags."""

from __future__ import annotations

import io
import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keywords import load_source
from source_files import put

from mgc.cache.reading.store import FeatureStore
from mgc.cache.steps import silent
from mgc.pipeline.sources import datasets, tags
from mgc.pipeline.sources.datasets import songs_source
from mgc.pipeline.sources.manifest import Source, Track
from mgc.pipeline.sources.options import SourceOptions

OPTIONS = SourceOptions()
CODECS = {"mp3": "libmp3lame", "flac": "flac", "m4a": "aac", "opus": "libopus", "wav": "pcm_s16le"}
SAID = {"artist": "Ann", "title": "A song", "genre": "polka", "album": "An album"}


def write_song(path: Path, metadata: dict[str, str], seconds: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = 48_000
    with av.open(str(path), "w") as file:
        stream = file.add_stream(CODECS[path.suffix[1:]], rate=rate, layout="mono")
        file.metadata.update(metadata)
        if path.suffix == ".opus":  # in Ogg, comments belong to the stream
            stream.metadata.update(metadata)
        sound = (8000 * np.sin(np.arange(int(seconds * rate)) / 20)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(sound, format="s16", layout="mono")
        frame.rate = rate
        resampler = av.AudioResampler(stream.format.name, "mono", rate, frame_size=stream.codec_context.frame_size or 0)
        for resampled in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(stream.encode(resampled))
        file.mux(stream.encode(None))
    return path


def text_frame(name: str, text: str, encoding: int = 3) -> bytes:
    codec = {0: "latin-1", 1: "utf-16", 3: "utf-8"}[encoding]
    return frame(name, bytes([encoding]) + text.encode(codec))


def frame(name: str, content: bytes) -> bytes:
    return name.encode() + synchsafe(len(content)) + b"\0\0" + content


def synchsafe(size: int) -> bytes:
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def uslt(text: str) -> bytes:
    return frame("USLT", b"\x03eng\0" + text.encode())


def sylt(lines: list[tuple[str, int]]) -> bytes:
    return frame("SYLT", b"\x03eng\x02\x01\0" + b"".join(t.encode() + b"\0" + struct.pack(">I", ms) for t, ms in lines))


def id3(*frames: bytes, version: int = 4) -> bytes:
    content = b"".join(frames)
    return b"ID3" + bytes([version, 0, 0]) + synchsafe(len(content)) + content


def id3v1(genre: int) -> bytes:
    return b"TAG" + b"Old title".ljust(30, b"\0") + b"Old artist".ljust(30, b"\0") + bytes(64) + bytes([genre])


def read(path: Path, **options: Any) -> dict[str, Any]:
    return tags.read_tags(path, SourceOptions(**options))


@pytest.fixture(scope="module")
def mp3(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An MP3 file without tags."""
    path = write_song(tmp_path_factory.mktemp("mp3") / "a.mp3", {})
    data = path.read_bytes()
    return data[10 + int.from_bytes(data[9:10]) + (data[8] << 7) :] if data.startswith(b"ID3") else data


# ---------------------------------------------------------------- values of tags


@pytest.mark.parametrize("suffix", CODECS)
def test_tags_of_every_container_are_read(tmp_path: Path, suffix: str) -> None:
    result = read(write_song(tmp_path / f"a.{suffix}", SAID | {"lyrics": "two\nlines"}))
    assert (result["artists"], result["song"], result["genres"]) == (("Ann",), "A song", ("polka",))
    if suffix in ("flac", "opus", "m4a"):
        assert result["lyrics"] == "two\nlines"


@pytest.mark.parametrize(
    ("tag", "genres"),
    [
        (id3(text_frame("TCON", "polka\0folk\0polka")), ("polka", "folk")),
        (id3(text_frame("TCON", "17\0(20)")), ("Rock", "Alternative")),
        (id3(text_frame("TCON", "(17)", 0), version=3), ("Rock",)),
        (id3(text_frame("TCON", "17", 1)), ("Rock",)),
        (id3(text_frame("TCON", "(255)")), ()),
        (id3(text_frame("TCON", "Unknown")), ()),
        (id3(text_frame("TCON", "1990s\0 hip\u00a0hop ")), ("1990s", "hip hop")),
        (id3(text_frame("TCON", "rock;pop")), ("rock;pop",)),
    ],
)
def test_genres_of_id3_are_names(tmp_path: Path, mp3: bytes, tag: bytes, genres: tuple[str, ...]) -> None:
    assert read(put(tmp_path / "a.mp3", tag + mp3)).get("genres", ()) == genres


def test_numbers_of_genres_become_names_in_every_container(tmp_path: Path) -> None:
    for text, genres in {
        "(17)": ("Rock",),
        "8": ("Jazz",),
        "(4)Eurodisco": ("Eurodisco",),
        "(17)(8)": ("Rock", "Jazz"),
    }.items():
        assert read(write_song(tmp_path / "a.flac", {"genre": text}))["genres"] == genres
    assert "genres" not in read(write_song(tmp_path / "a.flac", {"genre": "255"}))


def test_id3v1_at_the_end_fills_what_id3v2_lacks(tmp_path: Path, mp3: bytes) -> None:
    result = read(put(tmp_path / "a.mp3", id3(text_frame("TIT2", "New title")) + mp3 + id3v1(17)))
    assert result == {"artists": ("Old artist",), "song": "New title", "genres": ("Rock",)}


def test_delimiters_split_tags_as_they_split_cells(tmp_path: Path, mp3: bytes) -> None:
    path = put(tmp_path / "a.mp3", id3(text_frame("TCON", "rock; pop"), text_frame("TPE1", "Ann & Bob\0Eve")) + mp3)
    assert read(path)["artists"] == ("Ann & Bob", "Eve")
    result = read(path, genre_delimiter=";", artist_delimiter=" & ")
    assert (result["genres"], result["artists"]) == (("rock", "pop"), ("Ann", "Bob", "Eve"))


@pytest.mark.parametrize(
    "frames",
    [
        [uslt("one\ntwo")],
        [sylt([("one", 0), ("two", 1500)])],
        [sylt([("ONE", 0), ("TWO", 1500)]), uslt("one\ntwo")],
        [uslt("[00:01.00]one\n[00:02.50][00:09.00]two")],
        [uslt("[ti:A]\r\n[00:01.00]one\r\n[00:02.50]two\r\n")],
    ],
)
def test_no_time_stamps_reach_the_lyrics(tmp_path: Path, mp3: bytes, frames: list[bytes]) -> None:
    lyrics = read(put(tmp_path / "a.mp3", id3(*frames) + mp3))["lyrics"]
    assert lyrics.splitlines() == ["one", "two"]


def test_words_for_a_missing_artist_count_as_none(tmp_path: Path, mp3: bytes) -> None:
    path = put(tmp_path / "a.mp3", id3(text_frame("TPE1", "Unknown Artist"), uslt("n/a")) + mp3)
    assert read(path) == {}


# ---------------------------------------------------------------- precedence of tags


def test_folder_takes_missing_values_from_tags(call: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "songs"
    write_song(folder / "a.flac", SAID | {"lyrics": "in the tag"})
    write_song(folder / "b.flac", SAID | {"lyrics": "in the tag"})
    write_song(folder / "c.flac", {})
    put(folder / "b.txt", "in the file")
    a, b, c = load_source(folder).tracks
    assert (a.artists, a.song, a.genres, a.lyrics) == (("Ann",), "A song", ("polka",), "in the tag")
    assert (b.artists, b.lyrics, b.lyrics_path) == (("Ann",), None, "b.txt")
    assert (c.artists, c.song, c.genres, c.lyrics) == ((), None, (), None)
    result = call("manifest", folder, "--json").json
    assert result["columns"] == {
        "artist": {"tags": 2},
        "song": {"tags": 2},
        "genres": {"tags": 2},
        "lyrics": {"files next to songs": 1, "tags": 1},
    }
    assert (
        "artist: tags (2 of 3); song: tags (2 of 3); genres: tags (2 of 3); "
        "lyrics: files next to songs (1 of 3), tags (1 of 3)"
    ) in result["remarks"]
    without = call("manifest", folder, "--no-tags", "--json").json
    assert (without["columns"], without["genres"]) == ({"lyrics": {"files next to songs": 1}}, {})


def test_table_columns_take_precedence_over_tags(tmp_path: Path) -> None:
    for name in "ab":
        write_song(tmp_path / "songs" / f"{name}.flac", SAID | {"lyrics": "in the tag"})
    put(tmp_path / "t.csv", "id,path,artist,lyrics\n1,songs/a.flac,Bob,words\n2,songs/b.flac,,\n")
    source = load_source(tmp_path / "t.csv")
    assert [(t.artists, t.lyrics, t.song, t.genres) for t in source.tracks] == [
        (("Bob",), "words", "A song", ("polka",)),
        ((), None, "A song", ("polka",)),
    ]
    assert source.columns["artist"] == {"t.csv": 1}
    put(tmp_path / "l.csv", "id,genres,title\na.flac,jazz,T\n")
    source = load_source(tmp_path / "songs", labels=tmp_path / "l.csv")
    assert [(t.artists, t.song, t.genres) for t in source.tracks] == [(("Ann",), "T", ("jazz",)), (("Ann",), None, ())]
    assert source.columns["genres"] == {"l.csv": 1}
    assert source.columns["artist"] == {"tags": 2}


def test_manifest_has_values_of_tags_and_gives_the_same_plan(call: Callable[..., Any], tmp_path: Path) -> None:
    write_song(tmp_path / "songs" / "a.flac", SAID | {"lyrics": "in the tag"})
    write_song(tmp_path / "songs" / "b.flac", {})
    options = ("-o", tmp_path / "s.zarr", "--features", "mel", "--workers", 0, "--clip-s", 1)
    first = call("extract", tmp_path / "songs", *options, "--json").json
    assert first["columns"]["artist"] == {"tags": 1}
    assert json.loads((tmp_path / "s.zarr" / "log" / "source-0.json").read_text())["columns"] == first["columns"]
    assert FeatureStore.open(tmp_path / "s.zarr").tracks.column("artists").to_pylist() == [["Ann"], []]
    assert call("extract", tmp_path / "songs", *options).code == 0
    refused = call("extract", tmp_path / "songs", *options, "--no-tags")
    assert (refused.code, "artists: ['Ann'] in the store, [] in this command" in refused.err) == (2, True)
    call("manifest", tmp_path / "songs", "-o", tmp_path / "songs" / "m.jsonl")
    assert load_source(tmp_path / "songs" / "m.jsonl").tracks == load_source(tmp_path / "songs").tracks


def test_a_store_made_without_tags_is_refused_with_the_option_that_continues_it(
    call: Callable[..., Any], tmp_path: Path
) -> None:
    write_song(tmp_path / "songs" / "a.flac", SAID)
    options = ("-o", tmp_path / "s.zarr", "--features", "mel", "--workers", 0, "--clip-s", 1)
    assert call("extract", tmp_path / "songs", *options, "--no-tags").code == 0
    assert "--no-tags" in call("extract", tmp_path / "songs", *options).err
    assert call("extract", tmp_path / "songs", *options, "--no-tags").code == 0


def test_single_songs_have_the_lyrics_of_their_tags(tmp_path: Path) -> None:
    write_song(tmp_path / "a.flac", SAID | {"lyrics": "in the tag"})
    write_song(tmp_path / "b.flac", SAID | {"lyrics": "in the tag"})
    put(tmp_path / "b.txt", "in the file")
    tracks = songs_source([tmp_path / "a.flac", tmp_path / "b.flac", tmp_path / "gone.flac"], missing_ok=True).tracks
    assert [track.lyrics for track in tracks] == ["in the tag", None, None]


def test_data_sets_with_tables_ignore_tags(monkeypatch, tmp_path: Path) -> None:
    requested: list[Path] = []
    monkeypatch.setattr(tags, "read_tags", lambda path, options: requested.append(path) or {})
    tables = {"information": "artist\tsong\talbum_name\na\tA\tS\tB", "genres": "genres\na\tpop", "lang": "lang\na\ten"}
    for name, text in tables.items():
        put(tmp_path / f"id_{name}.csv", f"id\t{text}\n")
    put(tmp_path / "audios" / "a.mp3")
    load_source(tmp_path)
    assert requested == []
    load_source(tmp_path / "audios")
    assert requested == [tmp_path / "audios" / "a.mp3"]


# ---------------------------------------------------------------- damaged tags


def test_damaged_tag_is_noted_and_fails_no_track(call: Callable[..., Any], tmp_path: Path, mp3: bytes) -> None:
    write_song(tmp_path / "songs" / "good.flac", SAID)
    put(tmp_path / "songs" / "bad.mp3", b"ID3\x04\0\0" + synchsafe(40) + b"TCON" + synchsafe(20) + b"\0\0" + mp3[:0])
    put(tmp_path / "songs" / "worse.flac", b"fLaC\x84\0\0\x08" + b"\xff" * 8)
    source = load_source(tmp_path / "songs")
    (note,) = (note for note in source.notes if "cannot be read" in note)
    assert note.startswith("the tags of 2 files cannot be read and count as none; first: 'bad.mp3' (")
    assert [track.artists for track in source.tracks] == [(), ("Ann",), ()]


@given(st.data())
def test_no_bytes_raise_anything_but_a_reason(data: st.DataObject) -> None:
    whole = bytearray(
        id3(text_frame("TCON", "17\0x"), uslt("a\nb"), sylt([("c", 1)])) + b"\xff\xfb\x90\0" * 8 + id3v1(3)
    )
    for _ in range(data.draw(st.integers(0, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    result = _read_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    assert isinstance(result, (str, dict))


def _read_bytes(content: bytes) -> dict[str, Any] | str:
    class Fake:
        def open(self, _: str) -> io.BytesIO:
            return io.BytesIO(content)

    try:
        return tags.read_tags(Fake(), OPTIONS)  # type: ignore[arg-type]
    except ValueError as error:
        return str(error)


class Counting(io.BytesIO):
    """A file that counts the bytes that are read of it."""

    n_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.n_read += len(data)
        return data


@pytest.mark.parametrize("suffix", CODECS)
def test_only_the_head_of_a_long_file_is_read(monkeypatch, tmp_path: Path, suffix: str) -> None:
    whole = write_song(tmp_path / f"a.{suffix}", SAID, seconds=30).read_bytes()
    file = Counting(whole)
    monkeypatch.setattr(Path, "open", lambda *_: file)
    assert read(tmp_path)["artists"] == ("Ann",)
    assert file.n_read < len(whole) / 4


def test_a_picture_is_not_read_and_a_declared_size_is_bounded(monkeypatch, tmp_path: Path, mp3: bytes) -> None:
    picture = frame("APIC", b"\0image/jpeg\0\x03\0" + bytes(1 << 20))
    file = Counting(id3(picture, text_frame("TPE1", "Ann")) + mp3)
    monkeypatch.setattr(Path, "open", lambda *_: file)
    assert read(tmp_path)["artists"] == ("Ann",)
    assert file.n_read < 5000
    monkeypatch.setattr(tags, "MAX_BYTES", 1000)
    file = Counting(id3(uslt("words " * 1000)) + mp3)
    with pytest.raises(ValueError, match="tags over 1,000 bytes|tags over 1.0 kB"):
        read(tmp_path)
    assert file.n_read <= 1100


def test_a_negative_size_is_bounded_too(monkeypatch) -> None:
    """A parser subtracts the size of a header from a declared one; `read(-1)` is the rest of the file."""
    monkeypatch.setattr(tags, "MAX_BYTES", 1000)
    file = Counting(bytes(100_000))
    with pytest.raises(ValueError, match="tags over"):
        tags._Bounded(file).read(-1)
    assert file.n_read <= 1001


def test_an_interrupt_leaves_the_other_files_unread(monkeypatch, tmp_path: Path) -> None:
    n_read = 0

    def read_slowly(*_: object) -> dict[str, Any]:
        nonlocal n_read
        n_read += 1
        time.sleep(0.01)
        return {}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tags, "_try_tags", read_slowly)
    tracks = [Track(id=f"{i}.mp3", path=f"{i}.mp3") for i in range(1000)]
    with pytest.raises(KeyboardInterrupt):
        tags.add_tags(Source(root=tmp_path, tracks=tracks), OPTIONS, on_progress=interrupt)
    assert n_read < 500


def test_progress_of_reading_tags_appears_for_many_files_only(monkeypatch, tmp_path: Path) -> None:
    for i in range(3):
        write_song(tmp_path / f"{i}.flac", SAID)
    steps: list[tuple[Any, ...]] = []
    datasets.load_source(tmp_path, OPTIONS, on_progress=lambda *step: steps.append(step))
    assert steps == []
    monkeypatch.setattr(tags, "MANY_FILES", 3)
    datasets.load_source(tmp_path, OPTIONS, on_progress=lambda *step: steps.append(step))
    assert steps == [("tags", 1, 3), ("tags", 3, 3)]
    datasets.load_source(tmp_path, SourceOptions(tags=False), on_progress=silent)


def test_tags_are_not_read_through_a_link_out_of_the_root(tmp_path: Path) -> None:
    write_song(tmp_path / "elsewhere" / "a.flac", SAID)
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "a.flac").symlink_to(tmp_path / "elsewhere" / "a.flac")
    assert load_source(tmp_path / "songs").tracks[0].artists == ()
    assert load_source(tmp_path / "songs", root=tmp_path).tracks[0].artists == ("Ann",)
