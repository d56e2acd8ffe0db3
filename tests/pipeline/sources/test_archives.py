"""Songs in tar and zip archives give the tracks and features of the unpacked folder; damaged members fail alone."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc import api
from mgc.cache.errors import ClipError, ManifestError
from mgc.cache.reading.store import FeatureStore
from mgc.pipeline.sources.archives import open_archive
from mgc.pipeline.sources.datasets import load_source, songs_source
from mgc.pipeline.sources.files import local_file
from mgc.pipeline.sources.options import SourceOptions

RATE_HZ = 22_050


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three songs, one with lyrics, and the same in ``songs.tar`` and ``songs.zip`` next to it."""
    folder = tmp_path_factory.mktemp("archives") / "songs"
    for i, name in enumerate(("rock/a.wav", "rock/b.wav", "jazz/c.flac")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).normal(scale=0.1, size=RATE_HZ)
        soundfile.write(folder / name, noise, RATE_HZ)
    (folder / "rock" / "a.txt").write_text("rain on the harbour")
    (folder / "jazz" / ".hidden.wav").write_text("no audio")
    shutil.make_archive(str(folder), "tar", folder)
    shutil.make_archive(str(folder), "zip", folder)
    return folder


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_archive_gives_the_tracks_and_mels_of_the_folder(songs: Path, tmp_path: Path, suffix: str) -> None:
    stores = {}
    for place in (songs, songs.with_suffix(suffix)):
        read = api.read_source(place, genres_from_folders=True)
        stores[place] = tmp_path / f"{place.name}.zarr"
        api.extract(read.source, stores[place], features=["mel"], clip_s=1.0, workers=0)
    with FeatureStore.open(stores[songs]) as plain, FeatureStore.open(stores[songs.with_suffix(suffix)]) as packed:
        columns = ["id", "genres", "status", "source_sha256"]
        assert packed.tracks.select(columns).equals(plain.tracks.select(columns))
        assert plain.counts().ok == 3
        np.testing.assert_array_equal(packed.read("mel", packed.ok_rows), plain.read("mel", plain.ok_rows))


def test_lyrics_and_paths_of_a_table_lead_through_an_archive(songs: Path) -> None:
    archived = load_source(songs.with_suffix(".zip"), SourceOptions())
    lyrics = [track.lyrics_path for track in archived.tracks if track.lyrics_path is not None]
    assert lyrics == ["songs.zip/rock/a.txt"]
    with local_file(archived.root, lyrics[0]) as path:
        assert path.read_text() == "rain on the harbour"
    table = songs.parent / "tracks.csv"
    table.write_text("id,path\nx,songs.tar/rock/b.wav\n")
    (track,) = load_source(table, SourceOptions()).tracks
    with local_file(songs.parent, track.path) as path:
        assert path.read_bytes() == (songs / "rock" / "b.wav").read_bytes()
    assert not path.exists()
    first, *_ = songs_source([songs.with_suffix(".zip")]).tracks
    assert first.id.endswith("songs.zip/jazz/c.flac")
    with local_file(Path("/"), first.path) as path:
        assert path.read_bytes() == (songs / "jazz" / "c.flac").read_bytes()


def test_truncated_tar_reports_it_and_keeps_what_is_complete(songs: Path, tmp_path: Path) -> None:
    """At any place: in a header, at the start of one, or in a file."""
    whole = songs.with_suffix(".tar").read_bytes()
    with tarfile.open(songs.with_suffix(".tar")) as opened:
        second = sorted(member.offset for member in opened if member.isreg())[1]
    for n, cut in enumerate((second, second + 200, second + 512 + 3000)):
        path = tmp_path / f"{n}.tar"
        path.write_bytes(whole[:cut])
        archive = open_archive(path)
        assert len(archive.notes) == 1
        assert "truncated" in archive.notes[0]
        for name in archive.members:
            target = tmp_path / "copy"
            if name == min(archive.members, key=lambda name: archive.members[name].offset) or n < 2:  # type: ignore[union-attr]
                archive.copy(name, target, 10**7)
                assert target.read_bytes() == (songs / name).read_bytes()
            else:
                with pytest.raises(ClipError, match=r"\d+ of \d+ bytes"):
                    archive.copy(name, target, 10**7)


def test_strange_members_are_left_out_with_a_note_or_fail_alone(songs: Path, tmp_path: Path) -> None:
    path = tmp_path / "strange.tar"
    with tarfile.open(path, "w") as made:
        for name in ("/absolute.wav", "../outside.wav", "plain.wav"):
            content = (songs / "rock" / "a.wav").read_bytes()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        made.addfile(link)
    archive = open_archive(path)
    assert set(archive.members) == {"plain.wav"}
    assert any("1 link or device left out" in note for note in archive.notes)
    assert any("2 members with a path outside the archive left out" in note for note in archive.notes)
    with pytest.raises(ClipError, match="not found"), local_file(tmp_path, "strange.tar/link.wav"):
        pass
    with pytest.raises(ClipError, match="more than 1000 bytes"), local_file(tmp_path, "strange.tar/plain.wav", 1000):
        pass
    flipped = bytearray(songs.with_suffix(".zip").read_bytes())
    with zipfile.ZipFile(songs.with_suffix(".zip")) as packed:
        offset = packed.getinfo("rock/b.wav").header_offset
    flipped[offset + 2000] ^= 1
    (tmp_path / "flipped.zip").write_bytes(flipped)
    with pytest.raises(ClipError) as failure, local_file(tmp_path, "flipped.zip/rock/b.wav"):
        pass
    assert failure.value.reason == "BAD_HEADER"
    with local_file(tmp_path, "flipped.zip/rock/a.wav") as copy:
        assert copy.read_bytes() == (songs / "rock" / "a.wav").read_bytes()


def test_other_archives_are_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "songs.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(ManifestError, match=r"a compressed tar.*plain \.tar"):
        load_source(tmp_path / "songs.tar.gz", SourceOptions())
    (tmp_path / "songs.zip").write_text("an error page")
    with pytest.raises(ManifestError, match="not a tar or zip archive"):
        load_source(tmp_path / "songs.zip", SourceOptions())
