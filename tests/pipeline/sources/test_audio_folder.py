"""Folders of albums: tracks, skipped files, and links out of the folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from keywords import load_source
from source_files import put, write_wav

from mgc.api import read_source, write_manifest
from mgc.cache.errors import ClipError, ConfigError, ManifestError
from mgc.cache.format.schema import Reason
from mgc.pipeline.audio.containers import Caps, examine
from mgc.pipeline.sources.files import resolve_inside

COMPANIONS = {
    "cover.JPG": b"\xff\xd8\xff\xe0JFIF" + bytes(100),
    "folder.png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "booklet.pdf": b"%PDF-1.4",
    "album.cue": b'FILE "a.wav" WAVE',
    "rip.log": b"EAC extraction logfile",
    "list.m3u8": b"#EXTM3U\na.wav\n",
    "list.PLS": b"[playlist]",
    "info.nfo": b"\xda\xc4\xbf ripped",
    "Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512),
    "desktop.ini": b"[.ShellClassInfo]",
    "check.md5": b"d41d8cd98f00b204e9800998ecf8427e *a.wav",
    "scan.zip": b"PK\x03\x04",
    "README": b"read me",
    "nothing": b"",
}


def test_other_files_of_an_album_are_skipped_and_counted_by_kind(tmp_path: Path) -> None:
    album = tmp_path / "Band" / "[2003] Album"
    write_wav(album / "01 Song.WAV")
    for name, content in COMPANIONS.items():
        put(album / name, content)
    put(album / "01 Song.TXT")
    put(album / "@eaDir" / "01 Song.WAV" / "SYNOAUDIO.mp3")
    put(tmp_path / "__MACOSX" / "x.mp3")
    put(album / "page.mp3", b"<html>404</html>")
    source = load_source(tmp_path)
    assert [track.id for track in source.tracks] == [
        "Band/[2003] Album/01 Song.WAV",
        "Band/[2003] Album/page.mp3",  # audio by its name, so it must fail
    ]
    assert source.tracks[0].lyrics_path == "Band/[2003] Album/01 Song.TXT"
    (note,) = [note for note in source.notes if "without audio" in note]
    assert note.startswith(f"{len(COMPANIONS)} files without audio skipped: ")
    assert "2 without a suffix" in note
    assert "1 .pls" in note
    assert "2 system folders such as @eaDir skipped" in source.notes


def test_audio_under_any_name_is_a_track(tmp_path: Path) -> None:
    for name in ("blob", "song.dat", "a.wav.bak"):
        write_wav(tmp_path / name)
    put(tmp_path / "broken.FLAC", b"no")
    assert [track.id for track in load_source(tmp_path).tracks] == ["a.wav.bak", "blob", "broken.FLAC", "song.dat"]


def test_images_and_noise_are_not_taken_for_mpeg_frames(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav")
    rng = np.random.default_rng(0)
    for i in range(20):
        put(tmp_path / f"{i}.jpg", b"\xff\xd8\xff\xe0" + rng.bytes(100_000))
        put(tmp_path / f"{i}.db", rng.bytes(100_000))
    assert [track.id for track in load_source(tmp_path).tracks] == ["a.wav"]


def test_folder_without_audio_lists_its_content(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    with pytest.raises(ManifestError, match=r"no audio file in this folder; 1 file without audio skipped: 1 \.jpg"):
        load_source(tmp_path)


def test_gtzan_is_recognised_with_system_files_in_it(tmp_path: Path) -> None:
    for genre in ("blues", "rock"):
        write_wav(tmp_path / genre / f"{genre}.00000.wav")
    put(tmp_path / "rock" / "Thumbs.db")
    put(tmp_path / "@eaDir" / "x.jpg")
    assert [track.genres for track in load_source(tmp_path).tracks] == [("blues",), ("rock",)]


# ---------------------------------------------------------------- links


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A data set in the cache of the Hugging Face hub: every file is a link to a blob."""
    base = tmp_path / "datasets--x--songs"
    folder = base / "snapshots" / "abc"
    for i, name in enumerate(("audio/a.wav", "audio/b.wav", "audio/a.txt")):
        blob = write_wav(base / "blobs" / str(i))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(Path("../../../blobs") / blob.name)
    return folder


def test_links_out_of_a_folder_are_noted_with_the_common_root(snapshot: Path) -> None:
    base = snapshot.parents[1]
    source = load_source(snapshot)
    (note,) = [note for note in source.notes if "PATH_ESCAPE" in note]
    assert note.startswith("3 files are links that lead out of")
    assert note.endswith(f"To read them, give --root {base}")
    with pytest.raises(ClipError, match="PATH_ESCAPE"):
        resolve_inside(source.root, source.tracks[0].path)


def test_folder_of_links_is_read_with_a_common_root(snapshot: Path, tmp_path: Path) -> None:
    base = snapshot.parents[1]
    source = load_source(snapshot, root=base)
    assert [track.id for track in source.tracks] == ["audio/a.wav", "audio/b.wav"]
    assert not [note for note in source.notes if "PATH_ESCAPE" in note]
    for track in source.tracks:
        assert resolve_inside(source.root, track.path).resolve().parent.name == "blobs"
    assert source.tracks[0].lyrics_path == "snapshots/abc/audio/a.txt"
    read = read_source(snapshot, root=base)
    write_manifest(read, tmp_path / "tracks.jsonl")
    again = load_source(tmp_path / "tracks.jsonl")
    assert all(resolve_inside(again.root, track.path).is_file() for track in again.tracks)
    assert load_source(snapshot, root=snapshot).tracks == load_source(snapshot).tracks
    with pytest.raises(ConfigError, match="is not inside it"):
        load_source(snapshot, root=snapshot / "audio")


def test_links_in_a_table_are_noted_with_working_advice(snapshot: Path) -> None:
    base = snapshot.parents[1]
    put(snapshot / "t.csv", b"id,path\na,audio/a.wav\n")
    read = read_source(snapshot / "t.csv")
    assert any(f"write a manifest with -o {base}/tracks.jsonl" in note for note in read.remarks)
    write_manifest(read, base / "tracks.jsonl")
    again = load_source(base / "tracks.jsonl")
    assert resolve_inside(again.root, again.tracks[0].path).is_file()
    assert not [note for note in again.notes if "PATH_ESCAPE" in note]


def test_video_is_planned_and_fails(tmp_path: Path) -> None:
    """A video may be the song; if it were skipped, there would be no advice to convert it."""
    write_wav(tmp_path / "a.wav")
    put(tmp_path / "b.avi", b"RIFF" + bytes(4) + b"AVI " + bytes(512))
    put(tmp_path / "c.flv", b"FLV\x01" + bytes(512))
    put(tmp_path / "d.mpg", b"\x00\x00\x01\xba" + bytes(512))
    source = load_source(tmp_path)
    assert [track.id for track in source.tracks] == ["a.wav", "b.avi", "c.flv", "d.mpg"]
    for name in ("b.avi", "c.flv", "d.mpg"):
        with pytest.raises(ClipError, match="a format that is not read here") as raised:
            examine(tmp_path / name, Caps())
        assert raised.value.reason == Reason.UNSUPPORTED_CODEC
